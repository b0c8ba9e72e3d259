"""A visit to a GPU: its processes and their limits, files, table, and a full rehearsal."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from importlib import import_module
from pathlib import Path

import pytest
from support import standin

from benchmarks.gpu.checklist.check import longest_path

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "gpu_visit.py"
PHASES = ("checks", "profile", "steps", "memory", "benchmark")
HEADER = {"xpmlp": "1", "commit": "abc", "machine": {"name": "a card"}, "seconds": 7.0}


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


def module(name):
    return import_module(f"benchmarks.gpu.{name}")


def command(*arguments, **environment):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


# Processes with limits -------------------------------------------------------------------------

REGISTRY = """
import os, subprocess, sys, time
from xpmlp.devices import cuda
from benchmarks.gpu.checklist.check import Check, check_bound


def passing(on):
    return check_bound(1e-9, 1e-6)


def hanging(on):
    code = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
    subprocess.run([sys.executable, "-c", code, os.environ["PID_FILE"]])


def crashing(on):
    os.abort()


def breaking(on):
    def broken(index):
        raise RuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")

    cuda.run_kernel = broken
    raise RuntimeError("cudaErrorIllegalAddress")


CHECKS = [Check(1, f.__name__, f) for f in (hanging, crashing, breaking)]
CHECKS += [Check(1, name, passing) for name in ("first", "second", "third")]
"""


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """The name of a module of checks, which children can import."""
    (tmp_path / "visit_registry.py").write_text(REGISTRY)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PID_FILE", str(tmp_path / "pid"))
    return "visit_registry"


@pytest.fixture
def groups(registry):
    """A function that runs groups, given by their checks, and returns their rows' verdicts."""
    source, results = module("groups"), module("results")

    def run(checks_by_group, *, device="cpu", limit=60.0, deadline=float("inf"), path=None):
        result = results.ResultFile(path, {})
        created = [source.Group(name, checks, registry) for name, checks in checks_by_group.items()]
        source.run_groups(
            created, source.Device(device, 0, True), result, lambda group, row: None,
            limit=limit, deadline=deadline, jobs=2,
        )  # fmt: skip
        return {
            name: {row["name"]: (row["verdict"], row["detail"]) for row in entry["rows"]}
            for name, entry in result.content["groups"].items()
        }

    return run


def has_ended(pid):
    """Whether a process is gone, or a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.slow
def test_a_check_that_hangs_is_killed_at_its_limit_and_other_groups_finish(groups, tmp_path):
    path = tmp_path / "result.json"
    verdicts = groups(
        {"hangs": ("first", "hanging", "second"), "well": ("third",)}, limit=5.0, path=path
    )
    assert verdicts["well"] == {"third": ("ok", "")}
    assert verdicts["hangs"] == {
        "first": ("ok", ""),
        "hanging": ("fault", "not done after 5 s"),
        "second": ("not run", "its group ended"),
    }
    content = json.loads(path.read_text())["groups"]
    assert [row["verdict"] for row in content["hangs"]["rows"]] == ["ok", "fault", "not run"]
    time.sleep(0.2)
    assert has_ended(int((tmp_path / "pid").read_text())), "what a child started is ended with it"


def test_a_process_that_crashes_keeps_its_earlier_rows(groups):
    verdicts = groups({"crashes": ("first", "crashing", "second"), "well": ("third",)})
    assert verdicts["crashes"]["first"] == ("ok", "")
    assert verdicts["crashes"]["crashing"][1].startswith("ended by SIGABRT: ")
    assert verdicts["crashes"]["second"][0] == "not run"
    assert verdicts["well"]["third"][0] == "ok"


def test_a_fault_of_the_device_ends_only_its_group(groups, card, monkeypatch):
    monkeypatch.syspath_prepend(standin.SITE)
    monkeypatch.setenv(standin.PLUGGED, "1")
    verdicts = groups(
        {"breaks": ("first", "breaking", "second"), "well": ("third",)}, device="gpu:0"
    )
    assert verdicts["breaks"]["first"] == ("ok", "")
    assert verdicts["breaks"]["breaking"][0] == "fault"
    assert verdicts["breaks"]["breaking"][1].startswith("device fault: ")
    assert verdicts["breaks"]["second"] == ("not run", "device fault")
    assert verdicts["well"]["third"] == ("ok", "")


def test_groups_without_time_left_are_reported_as_not_run(groups):
    verdicts = groups({"late": ("first", "second")}, deadline=time.monotonic())
    assert set(verdicts["late"].values()) == {("not run", "no time was left")}


def test_only_whole_lines_are_read(tmp_path):
    path = tmp_path / "rows"
    path.write_bytes(b'{"a": 1}\n{"b"')
    with path.open("rb") as file:
        assert module("processes").whole_lines(file) == [b'{"a": 1}\n']
        path.write_bytes(b'{"a": 1}\n{"b": 2}\n')
        assert module("processes").whole_lines(file) == [b'{"b": 2}\n']


# Packages --------------------------------------------------------------------------------------

INSTALLED = {
    "numpy": "2.4.6", "safetensors": "0.8.0", "array-api-compat": "1.16.0", "cuda-core": "1.2.2",
    "nvmath-python": "1.0.0", "cuda-pathfinder": "1.9.1", "cupy-cuda13x": "14.2.0",
    "cuda-bindings": "13.5.0",
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"nvmath-python": None, "cuda-core": "0.3.1"},
         ["nvmath-python 1.0.0", "cuda-core 1.2.2 (0.3.1 is here)"]),
        ({"cuda-bindings": "12.9.2"}, ["cuda-bindings 13.0.3 (12.9.2 is here)"]),
        ({"cupy-cuda13x": None, "cupy-cuda12x": "14.0.1", "cuda-bindings": "12.9.2"}, []),
        ({"cupy-cuda13x": None}, ["cupy-cuda13x 14.2.0"]),
    ],
)  # fmt: skip
def test_missing_packages_are_named_with_versions(change, expected):
    wheels = module("wheels")
    missing = wheels.missing({**INSTALLED, **change}.get)
    assert len(missing) == len(expected)
    assert not missing or f": {', '.join(expected)}. Bring them: " in wheels.message(missing)


def test_missing_packages_are_named_in_one_line_before_any_work(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.metadata as m\n"
        "real = m.version\n"
        "def version(name):\n"
        "    if name in ('nvmath-python', 'array-api-compat'):\n"
        "        raise m.PackageNotFoundError(name)\n"
        "    return real(name)\n"
        "m.version = version\n"
    )
    result = command("--out", tmp_path / "out", PYTHONPATH=str(tmp_path))
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("gpu_visit.py: missing on this machine: ")
    assert "array-api-compat 1.16.0" in line
    assert "nvmath-python 1.0.0" in line
    assert not (tmp_path / "out").exists()


def test_wheels_of_a_folder_are_imported_first(tmp_path, monkeypatch):
    folder, site = tmp_path / "wheels", tmp_path / "site"
    folder.mkdir()
    info = "visit_probe-1.5.dist-info"
    with zipfile.ZipFile(folder / "visit_probe-1.5-py3-none-any.whl", "w") as file:
        file.writestr("visit_probe.py", "VALUE = 7\n")
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: visit-probe\nVersion: 1.5")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n"
                      "Tag: py3-none-any\n")  # fmt: skip
        file.writestr(f"{info}/RECORD", "")
    wheels = module("wheels")
    monkeypatch.setattr(sys, "path", [*sys.path])
    wheels.unpack(folder, site)
    assert wheels.installed_version("visit-probe") == "1.5"
    assert import_module("visit_probe").VALUE == 7
    assert str(site) in module("processes").python_path().split(os.pathsep)
    with pytest.raises(ValueError, match=r"has no \.whl files"):
        wheels.unpack(site, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no usable GPU: stage "),
        (("--minutes", "0"), "--minutes must be above 0"),
        (("--device", "cpu"), "--device must be gpu"),
        (("--only", "check"), "phase 'check' is unknown"),
        (("--wheels", "."), "has no .whl files"),
    ],
)
def test_a_wrong_argument_is_a_one_line_error(arguments, message, tmp_path, optional):
    for package in ("cupy", "nvmath"):
        optional(package)  # whose absence is said first
    result = command("--out", tmp_path / "out", *arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


# The table -------------------------------------------------------------------------------------


def row(name, verdict="fault", detail="", **values):
    defaults = {"figure": "", "allowed": "", "seconds": 1.0, "figures": {}}
    return {**defaults, "name": name, "verdict": verdict, "detail": detail, **values}


def phase(**rows):
    return {"groups": {name: {"rows": list(rows[name])} for name in rows}}


def goal(work, measured, allowed, side="at most"):
    return {"work": work, "text": "us a step", "side": side, "allowed": allowed,
            "measured": measured, "verdict": "missed"}  # fmt: skip


RESULTS = {
    "visit": HEADER,
    "checks": phase(
        products=[row("gemm-tf32", detail="deep 5e-3", figure="5e-03", allowed="4e-03")],
        replays=[row("replays", detail="CaptureWarning: the steps run one by one")],
        resume=[row("resumed", detail="AttributeError: no such name")],
        numpy=[
            row("a", detail="device fault: <at 0x7f01>"),
            row("b", "not run", "device fault"),
            row("c", detail="device fault: <at 0x7f02>"),
            row("d", "ok"),
            row("e", "note", "old"),
        ],
    ),
    "memory": phase(memory=[row("flat-memory", figure="3 MiB", allowed="2 MiB")]),
    "profile": phase(
        profile=[
            row(
                "profile-small",
                "figure",
                figure="90 us",
                figures={
                    "kernels": [
                        {
                            "kernel": "adam",
                            "grid": "[8]",
                            "block": "[64]",
                            "calls": 1.0,
                            "us": 60.0,
                            "us_each": 60.0,
                            "share": 2 / 3,
                        },
                    ]
                },
            )
        ]
    ),
    "benchmark": {
        "works": [],
        "left_out": ["large: JAX scan"],
        "goals": [goal("small", 140, 70), goal("large", 1, 4, "at least")],
    },
}


def test_faults_and_goals_are_ranked():
    items = module("ranking").rank_items(RESULTS)
    assert [item.severity for item in items] == [
        "wrong numbers", "device fault", "error", "not captured", "memory", "goal", "goal",
    ]  # fmt: skip
    assert items[1].where == "numpy: a and 1 more"
    assert [(item.where, item.factor) for item in items[5:]] == [("large", 4.0), ("small", 2.0)]


def test_the_table_starts_with_what_to_fix():
    text = module("ranking").table(RESULTS)
    order = [
        "wrong numbers",
        "kernels of the small step",
        "66.7%",
        "goals",
        "missed",
        "not run: b",
        "left out: large: JAX scan",
        "note: e: old",
        "6 faults in 10 checks",
    ]
    places = [text.index(part) for part in order]
    assert places == sorted(places)


def test_a_visit_that_has_just_begun_has_a_table():
    text = module("ranking").table({"visit": HEADER})
    assert "no fault and no missed goal" in text
    assert "0 faults in 0 checks" in text


# Kernels and graphs ----------------------------------------------------------------------------


def event(name, ts, dur, stream=7):
    args = {"stream": stream, "grid": [1, 1, 1], "block": [64, 1, 1]}
    return {"cat": "kernel", "name": name, "ts": ts, "dur": dur, "args": args}


EVENTS = [event("a", 0, 10), event("b", 5, 10, 8), event("a", 20, 20), event("b", 41, 1)]


def test_kernels_are_summed_by_name_and_overlaps_are_counted_once():
    profile = module("kernel_profile")
    first, second = profile.by_kernel(EVENTS, 2)
    assert (first["kernel"], first["calls"], first["us"], first["us_each"]) == ("a", 1.0, 15.0, 15)
    assert second["share"] == pytest.approx(11 / 41)
    assert profile.busy_us(EVENTS) == 15 + 20 + 1


@pytest.mark.parametrize(
    ("edges", "nodes", "depth"),
    [([], 0, 0), ([], 3, 1), ([(1, 2), (2, 3)], 3, 3), ([(1, 2), (1, 3), (2, 4), (3, 4), (4, 5)], 5,
     4), ([(3, 1), (3, 2), (1, 2)], 4, 3)],
)  # fmt: skip
def test_the_depth_of_a_graph_is_its_longest_path(edges, nodes, depth):
    assert longest_path(edges, nodes) == depth


@pytest.mark.slow
def test_a_profile_replays_the_captured_graph(check, monkeypatch):
    profile = module("kernel_profile")

    def trace(work):
        work()
        return EVENTS

    monkeypatch.setattr(profile, "obstacle", lambda: None)
    monkeypatch.setattr(profile, "trace", trace)
    result = check(profile.CHECKS[0])
    assert result.verdict == "figure", result
    assert result.figures["kernels"][0]["kernel"] == "a"
    assert result.figures["streams"] == 2


# Whole visits -----------------------------------------------------------------------------------


@pytest.fixture
def rehearsal(tmp_path):
    """A function that starts a quick visit on the stand-in; it is killed afterwards."""
    if standin.obstacle() is not None:
        pytest.skip(f"no stand-in for a GPU here: {standin.obstacle()}")
    visits = []

    def start(*args):
        with (tmp_path / "log").open("wb") as log:
            visit = subprocess.Popen(
                [sys.executable, str(SCRIPT), "--quick", "--out", str(tmp_path / "out"), *args],
                env=standin.environment(), stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        visits.append(visit)
        return visit, tmp_path / "out"

    yield start
    for visit in visits:
        visit.kill()
        visit.wait()


def rows(result):
    return [row for entry in result["groups"].values() for row in entry["rows"]]


@pytest.mark.slow
def test_a_full_visit_writes_every_phase_and_a_table(rehearsal):
    """Every check of the plan has a row, and none is a fault; its times are meaningless."""
    visit, out = rehearsal("--minutes", "30", "--jobs", "2")
    assert visit.wait() in (0, 1), (out.parent / "log").read_text()
    names = {path.name for path in out.iterdir()}
    assert names == {"visit.json", "table.txt", *(f"{phase}.json" for phase in PHASES)}
    results = {phase: json.loads((out / f"{phase}.json").read_text()) for phase in PHASES}
    description = json.loads((out / "visit.json").read_text())
    assert description["complete"] is True
    assert description["left_out"] == []
    assert list(description["phases"]) == list(PHASES)
    plan = module("visit").standard_plan(True)
    for name in PHASES[:-1]:
        expected = sorted(check for group in getattr(plan, name) for check in group.checks)
        assert sorted(row["name"] for row in rows(results[name])) == expected
        assert not [row for row in rows(results[name]) if row["verdict"] == "not run"]
    faults = {row["name"] for name in PHASES[:-1] for row in rows(results[name])
              if row["verdict"] == "fault"}  # fmt: skip
    assert faults == set()
    left_out = [entry["rows"][0]["figures"]["without"] for name, entry in
               results["steps"]["groups"].items() if name.startswith("captured-step")]  # fmt: skip
    assert left_out == ["", "branches", "epilogues", "accounts", "kernels"]
    for work in results["benchmark"]["works"]:
        xpmlp_rows = [row for row in work["rows"] if row["library"] == "xpmlp"]
        assert xpmlp_rows
        assert all(row["epoch"] > 0 for row in xpmlp_rows), xpmlp_rows
    assert "flat-memory" in results["benchmark"]["beneath"]
    text = (out / "table.txt").read_text()
    assert text.index("what to mend first") < text.index("kernels of the small step")
    assert text.index("captured-step without branches") < text.index("\ngoals\n")
    assert "not run: " not in text


@pytest.mark.slow
def test_a_killed_visit_leaves_complete_files_and_no_process(rehearsal):
    visit, out = rehearsal("--minutes", "10", "--jobs", "2", "--only", "checks")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and visit.poll() is None:
        checks = out / "checks.json"
        if checks.exists() and len(rows(json.loads(checks.read_text()))) >= 3:
            break
        time.sleep(0.02)
    tasks = Path(f"/proc/{visit.pid}/task").glob("*/children")
    children = [int(pid) for task in tasks for pid in task.read_text().split()]
    assert children
    visit.send_signal(signal.SIGKILL)
    visit.wait()
    for path in out.glob("*.json"):
        assert json.loads(path.read_text())
    assert len(rows(json.loads(checks.read_text()))) >= 3
    assert len(list(out.iterdir())) <= 8
    deadline = time.monotonic() + 10
    while not all(map(has_ended, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert all(map(has_ended, children)), "the children end with the visit"
