"""The GPU benchmark, as far as it runs without a GPU: its mathematics, rows and tables."""

import importlib.util
import io
import json
import os
import subprocess
import sys
from argparse import Namespace
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytestmark = pytest.mark.slow  # runs a whole checklist on the stand-in

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "benchmark_gpu.py"


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script():
    return load("benchmark_gpu")  # makes the folder benchmarks importable


@pytest.fixture(scope="module")
def contender(script):
    return import_module("benchmarks.gpu.contender")


@pytest.fixture(scope="module")
def contenders(script):
    return import_module("benchmarks.gpu.contenders")


@pytest.fixture
def works(contender, contenders, monkeypatch):
    """Small works instead of the real ones, by name."""
    module = import_module("benchmarks.gpu.works")
    small_works = (
        module.Work("small", "12-9-6-4", 8, 16, "cross_entropy"),
        module.Work("population", "5-6-1", 8, 16, "squared_error", members=4),
    )
    monkeypatch.setattr(contender, "WORKS", small_works)
    monkeypatch.setattr(contenders, "WORKS", small_works)
    return {work.name: work for work in small_works}


@pytest.fixture
def make_request(contender, works, tmp_path):
    """A function that creates the request to a contender's process."""

    def create(library, variant, work, device):
        path = tmp_path / f"{work}.npy"
        np.save(path, contender.reference_weights(works[work], 3))
        return contender.Request(library, variant, work, device, 3, 1, False, str(path))

    return create


# All contenders compute the same ----------------------------------------------------------------


def learners():
    """Installed contenders that run on the CPU. Compiling is slow, and graphs need a GPU."""
    names = [("with_torch", "eager"), ("with_torch", "eager, fused Adam")]
    if importlib.util.find_spec("jax"):
        names += [("with_jax", "jit"), ("with_jax", "scan")]
    cases = [(*name, work) for name in names for work in ("small", "population")]
    compiled = ("with_torch", "compiled, fused Adam", "small")
    return [*cases, pytest.param(*compiled, marks=pytest.mark.slow)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.compile's own imports
@pytest.mark.parametrize(("library", "variant", "work"), learners())
def test_other_libraries_learn_the_same_weights(
    library, variant, work, contender, make_request, optional
):
    optional("torch" if library == "with_torch" else "jax")
    request = make_request(library, variant, work, "cpu")
    module = import_module(f"benchmarks.gpu.{library}")
    error = contender.weight_error(module, request, np.load(request.reference))
    assert error < 1e-12


class Graph:
    """Replaces PyTorch's: recorded work runs at once, and again at every replay."""

    def __init__(self):
        self.replay = None

    @classmethod
    def recording(cls, graph):
        learner = sys._getframe(1).f_locals["self"]
        graph.replay = learner.step
        return nullcontext()


def test_the_warm_up_of_a_graph_does_not_change_the_network(
    contender, make_request, optional, monkeypatch
):
    torch = optional("torch")
    stream = SimpleNamespace(wait_stream=lambda other: None)
    for name, value in (
        ("Stream", lambda: stream), ("current_stream", lambda: stream),
        ("stream", lambda stream: nullcontext()), ("CUDAGraph", Graph), ("graph", Graph.recording),
    ):  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    module = import_module("benchmarks.gpu.with_torch")
    request = make_request("with_torch", "CUDA graph, fused Adam", "population", "cpu")
    assert contender.weight_error(module, request, np.load(request.reference)) < 1e-12


@pytest.mark.parametrize("work", ["small", "population"])
@pytest.mark.parametrize("variant", ["captured", "eager", "eager, unfused"])
def test_xpmlp_is_checked_and_timed(variant, work, contender, make_request, gpu):
    row = contender.measure(make_request("ours", variant, work, gpu.name))
    assert "problem" not in row, row
    assert row["off"] < 1e-12
    assert row["product_off"] < 1e-6
    assert row["epoch"] > 0
    assert row["step"] > 0


def test_eager_steps_are_not_taken_for_recorded_ones(contender, make_request, gpu, monkeypatch):
    monkeypatch.setattr("xpmlp.recording.engine.MIN_RECORDED_STEPS", 10**12)
    row = contender.measure(make_request("ours", "captured", "small", gpu.name))
    assert row["problem"] == "RuntimeError: captured ran eager"
    assert "epoch" not in row


def test_works_are_those_of_the_goals(contenders):
    titles = [work.title for work in contenders.WORKS]
    assert titles == [
        "784-512-256-10, batch 128",
        "1024-4096-4096-10, batch 8192, TF32",
        "256 networks 50-256-256-1, batch 256",
    ]
    goals = import_module("benchmarks.gpu.goals").GOALS
    assert {goal.work for goal in goals} == {work.name for work in contenders.WORKS}
    assert [(goal.side, goal.allowed) for goal in goals[:-1]] == [
        ("at most", 70), ("at most", 130), ("at least", 4), ("at most", 1.15),
        ("at most", 3.2), ("at most", 1.1), ("at least", 20),
    ]  # fmt: skip


# Wrong results are not timed --------------------------------------------------------------------


@pytest.mark.parametrize(("name", "value"), [("RATE", 1.001e-3), ("EPS", 1e-6), ("LOSSES", "half")])
def test_a_different_training_is_not_timed(
    name, value, contender, make_request, optional, monkeypatch
):
    optional("torch")
    module = import_module("benchmarks.gpu.with_torch")
    if name == "LOSSES":
        value = {"cross_entropy": lambda *args: module.LOSSES_BEFORE["cross_entropy"](*args) / 2}
        monkeypatch.setattr(module, "LOSSES_BEFORE", module.LOSSES, raising=False)
    monkeypatch.setattr(module, name, value)
    row = contender.measure(make_request("with_torch", "eager", "small", "cpu"))
    assert row["problem"].startswith("computes something else: the weights are off by ")
    assert "epoch" not in row


@pytest.mark.parametrize(
    ("precision", "digits", "message"),
    [("tf32", 24, "is not at tf32 precision"), ("full", 11, "is not at full precision")],
)
def test_a_different_precision_is_not_timed(
    precision, digits, message, contender, make_request, works, optional, monkeypatch
):
    optional("torch")
    module = import_module("benchmarks.gpu.with_torch")
    changed = works["small"]._replace(precision=precision)
    monkeypatch.setattr(contender, "WORKS", (changed,))

    def product(a, b, precision, device):
        a, b = (np.round(x * 2.0**digits) / 2.0**digits for x in (a, b))
        return a @ b

    monkeypatch.setattr(module, "product", product)
    row = contender.measure(make_request("with_torch", "eager", "small", "cpu"))
    assert message in row["problem"]
    assert "epoch" not in row


# Whole runs -------------------------------------------------------------------------------------


def options(**changes):
    defaults = {"device": "gpu:0", "seed": 3, "only": None, "contenders": None, "limit": 60.0}
    return Namespace(**defaults | {"quick": True, "out": None} | changes)


@pytest.fixture
def in_process(script, works, gpu, monkeypatch):
    """The script, with its child processes run in this process."""
    monkeypatch.setattr("benchmarks.gpu.checklist.times.SUMS", ((12, 5),))
    monkeypatch.setattr("benchmarks.gpu.checklist.memory.SMALL", works["small"].spec)
    processes = import_module("benchmarks.gpu.processes")

    def run(module, request, keep, *, limit, environment=None):
        for row in import_module(f"benchmarks.gpu.{module}").answer(request):
            keep(json.loads(json.dumps(row, default=processes.plain_value)))

    monkeypatch.setattr(processes, "run", run)
    return script


def test_every_contender_is_in_the_table_and_in_the_result(in_process, tmp_path, optional):
    optional("torch")
    table, out = io.StringIO(), tmp_path / "gpu-result.json"
    result = in_process.run(options(out=str(out)), table).content
    assert json.loads(out.read_text())["works"] == json.loads(json.dumps(result["works"]))
    for work, count in (("small", 5), ("population", 3)):
        (measured,) = [entry for entry in result["works"] if entry["name"] == work]
        torch_rows = [row for row in measured["rows"] if row["library"] == "PyTorch"]
        assert len(torch_rows) == count
        assert all(row["problem"] == "RuntimeError: this PyTorch sees no GPU" for row in torch_rows)
        assert sum("epoch" in row for row in measured["rows"]) == 3
    text = table.getvalue()
    assert "xpmlp captured " in text
    assert "no time: RuntimeError: this PyTorch sees no GPU" in text
    names = ["host-times", "node-cost", "row-sums", "flat-memory"]
    assert [name for name in names if f"\n{name} " in text] == names
    verdicts = {(goal["work"], goal["text"]): goal["verdict"] for goal in result["goals"]}
    assert verdicts["large", "ms a step"] == "not measured"
    assert verdicts["small", "MiB of GPU memory taken by 10,000 steps"] == "met"
    assert in_process.failed(result), "PyTorch that sees no GPU is a failure"


def test_contenders_are_chosen_by_name_and_by_library(in_process, contenders):
    def rows(selection):
        result = in_process.run(options(contenders=selection, only="small"), io.StringIO()).content
        return [(row["library"], row["variant"]) for row in result["works"][0]["rows"]]

    assert rows("xpmlp-captured") == [("xpmlp", "captured")]
    assert len(contenders.select_contenders("pytorch,xpmlp-eager")) == 6
    with pytest.raises(ValueError, match="did you mean 'xpmlp-captured'"):
        contenders.select_contenders("xpmlp-capture")


@pytest.mark.parametrize(
    "library", ["with_torch", *["with_jax"] * bool(importlib.util.find_spec("jax"))]
)
def test_the_contenders_of_a_library_are_its_variants(library, contenders, optional):
    optional(contenders.PACKAGES[library])
    module = import_module(f"benchmarks.gpu.{library}")
    variants = [c.variant for c in contenders.CONTENDERS if c.library == library]
    assert variants == list(module.VARIANTS)


def test_the_pairs_measured_first_exist(contenders):
    pairs = contenders.pairs(contenders.WORKS, contenders.CONTENDERS)
    known = [(work.name, contender.slug) for work, contender in pairs]
    assert set(contenders.PRIORITY) <= set(known)
    ordered = [(work.name, contender.slug) for work, contender in contenders.by_priority(pairs)]
    assert tuple(ordered[: len(contenders.PRIORITY)]) == contenders.PRIORITY
    assert sorted(ordered) == sorted(known)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda result: None, False),
        (lambda result: result["works"][0]["rows"].append({"variant": "-", "problem": "x"}), False),
        (lambda result: result["works"][0]["rows"].append({"variant": "a", "problem": "x"}), True),
        (lambda result: result["beneath"].update(memory={"verdict": "fault"}), True),
    ],
)
def test_the_exit_status_reports_failures(script, change, expected):
    result = {
        "works": [{"rows": [{"variant": "captured", "epoch": 1.0}]}],
        "beneath": {"times": {"verdict": "figure"}},
    }
    change(result)
    assert script.failed(result) is expected


def example_result(ours=60.0, eager=300.0, graph=60.0):
    """A result with these times of the small work, in microseconds."""
    rows = [
        {"library": "xpmlp", "variant": "captured", "epoch": ours, "step": 50.0, "off": 0.0,
         "version": "1"},
        {"library": "PyTorch", "variant": "eager", "epoch": eager, "step": 280.0, "off": 0.0,
         "version": "2"},
        {"library": "PyTorch", "variant": "CUDA graph, fused Adam", "epoch": graph, "step": 55.5,
         "off": 0.0, "version": "2"},
        {"library": "JAX", "variant": "-", "problem": "jax is not installed"},
    ]  # fmt: skip
    return {
        "date": "2030-01-02T03:04:05+00:00",
        "command": "python scripts/benchmark_gpu.py",
        "quick": False,
        "machine": {"name": "a card", "driver": 1, "runtime": 2, "cupy": "3"},
        "works": [{"name": "small", "title": "1-2-3, batch 4", "rows": rows}],
        "beneath": {"flat-memory": {"figures": {"lost": 2**20, "grown": 2**19}}},
    }


@pytest.mark.parametrize(
    ("times", "verdicts"),
    [
        ({}, ["met", "met", "met", "met"]),
        ({"ours": 100.0}, ["missed", "met", "missed", "missed"]),
        ({"ours": 131.0, "eager": 1000.0}, ["missed", "missed", "met", "missed"]),
        ({"ours": 69.0, "graph": 60.0}, ["met", "met", "met", "met"]),
        ({"ours": 70.0, "graph": 60.0}, ["met", "met", "met", "missed"]),
    ],
)
def test_goals_are_judged(script, times, verdicts):
    goals = script.evaluate_goals(example_result(**times))
    assert [goal["verdict"] for goal in goals][:4] == verdicts
    assert [goal["verdict"] for goal in goals][4:] == ["not measured"] * 3 + ["met"]
    assert goals[0]["measured"] == times.get("ours", 60.0)
    assert goals[-1]["measured"] == 1.5


# Arguments and processes ----------------------------------------------------------------------


def command(*arguments):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no usable GPU: stage "),
        (("--only", "smal"), "did you mean 'small'"),
        (("--only", ","), "names no work"),
        (("--contenders", "pytorch-eage"), "did you mean 'pytorch-eager'"),
        (("--device", "cpu"), "--device must be gpu"),
        (("--seed", "-1"), "--seed must be"),
    ],
)
def test_a_wrong_argument_is_a_one_line_error(arguments, message):
    result = command(*arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_process_returns_its_row_or_the_problem(script, contender, tmp_path):
    """A process that fails gives a row, too."""
    processes = import_module("benchmarks.gpu.processes")
    request = contender.Request("with_torch", "nothing", "population", "cpu", 0, 1, True, "nowhere")
    row = processes.run_for_row("contender", request._asdict())
    assert row["library"] == "PyTorch"
    assert "nowhere" in row["problem"] or row["problem"] == "torch is not installed"
    broken = processes.run_for_row("contender", {})
    assert broken["problem"].startswith("exit status 1: TypeError")


def test_a_process_that_takes_too_long_is_stopped(script):
    processes = import_module("benchmarks.gpu.processes")
    assert processes.run_for_row("contender", {}, 0.01) == {"problem": "not done after 0.01 s"}


# The README's table ----------------------------------------------------------------------------


@pytest.fixture
def table(script, tmp_path):
    module = load("benchmark_gpu_table")
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    page = f"# A page\n{module.BEGIN}\nold\n{module.END}\nafter\n"
    (tmp_path / "README.md").write_text(page)
    return module


def write_page(table, folder, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["benchmark_gpu_table.py", *arguments])
    return table.main(folder), (folder / "README.md").read_text()


def test_without_a_result_the_page_says_so(table, tmp_path, monkeypatch):
    assert write_page(table, tmp_path, monkeypatch, "--check")[0] == 1
    status, page = write_page(table, tmp_path, monkeypatch)
    assert status == 0
    assert page == f"# A page\n{table.BEGIN}\nNot yet measured on a GPU.\n{table.END}\nafter\n"
    assert write_page(table, tmp_path, monkeypatch, "--check")[0] == 0


def test_the_newest_result_is_shown_and_an_older_page_is_stale(
    script, table, tmp_path, monkeypatch
):
    folder = tmp_path / "benchmarks" / "results"
    for name, times, date in (
        ("gpu-a", {"ours": 60.0}, "2030-05-01"),
        ("gpu-b", {"ours": 1234.5}, "2030-04-01"),
        ("gpu-c", {"ours": 99.9}, "2031-01-01"),
        ("cpu", {"ours": 88.8}, "2032-01-01"),
    ):
        result = example_result(**times) | {"date": date, "quick": name == "gpu-c"}
        result["goals"] = script.evaluate_goals(result)
        (folder / f"{name}.json").write_text(json.dumps(result))
    _, page = write_page(table, tmp_path, monkeypatch)
    assert "| xpmlp, captured | 60 (50) |" in page
    assert "| PyTorch, CUDA graph, fused Adam | 60 (55.5) |" in page
    assert "JAX" not in page.partition("Over whole epochs")[0]
    assert "| 1-2-3, batch 4: at most 70 us a step | 60 | met |" in page
    assert "| large: at most 3.2 ms a step | - | not measured |" in page
    assert "a card (driver 1, CUDA 2, CuPy 3), xpmlp 1, PyTorch 2" in page
    assert write_page(table, tmp_path, monkeypatch, "--check")[0] == 0
    result["date"], result["quick"] = "2033-01-01", False
    (folder / "gpu-d.json").write_text(json.dumps(result))
    assert write_page(table, tmp_path, monkeypatch, "--check")[0] == 1


def test_a_page_without_its_markers_is_refused(table, tmp_path, monkeypatch):
    (tmp_path / "README.md").write_text("nothing here")
    with pytest.raises(ValueError, match="once each"):
        write_page(table, tmp_path, monkeypatch)


def test_the_readme_is_up_to_date():
    result = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "benchmark_gpu_table.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
