"""The GPU's checklist, as far as it goes without one: the table, the result, the names it uses."""

import ast
import importlib.util
import inspect
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from xpmlp.backends import gpu_bench, gpu_checks
from xpmlp.backends.gpu_bench import (
    FAULT,
    FIGURE,
    NOTE,
    OK,
    Check,
    Result,
    Setting,
    distance,
    held_to,
    perform,
)  # fmt: skip
from xpmlp.backends.namespace import CPU
from xpmlp.fit import gpu_checks as trainings
from xpmlp.fit.loop import train_epoch
from xpmlp.fit.parity import CASES

SCRIPT = Path(__file__).parents[2] / "scripts" / "gpu_check.py"
SETTING = Setting(SimpleNamespace(device=None, name="nowhere"), 0, True)


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def raising(on):
    raise RuntimeError("the card\nfell out")


REGISTRY = (
    Check(1, "passing", lambda on: held_to(1e-9, 1e-6)),
    Check(2, "failing", lambda on: held_to(1e-3, 1e-6, "too far")),
    Check(2, "raising", raising),
    Check(3, "noting", lambda on: Result("3 of 4", "4", NOTE, "one is missing")),
    Check(4, "timing", lambda on: Result("7 us", verdict=FIGURE, figures={"us": np.float64(7)})),
)


def command(*arguments, **environment):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_a_gpu_one_line_names_the_stage_and_the_mend():
    done = command()
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("gpu_check.py: no usable GPU: stage ")
    assert "To mend it: " in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--only", "gem-out"), "did you mean 'gemm-out'"),
        (("--only", ","), "names no check"),
        (("--device", "cpu"), "--device must be gpu"),
        (("--seed", "-1"), "--seed must be"),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(arguments, words):
    done = command(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_checks_are_chosen_by_name_and_by_number(script):
    def names(asked):
        return [check.name for check in script.select(REGISTRY, asked)]

    assert names(None) == [check.name for check in REGISTRY]
    assert names("timing, 2") == ["failing", "raising", "timing"]
    with pytest.raises(ValueError, match="'passin' is unknown; did you mean 'passing'"):
        names("passin")


def test_a_fault_is_a_row_and_the_rest_go_on():
    rows = list(perform(REGISTRY, SETTING))
    assert [row.verdict for row in rows] == [OK, FAULT, FAULT, NOTE, FIGURE]
    assert rows[1].detail == "too far"
    assert rows[2].detail == "RuntimeError: the card"
    assert all(row.seconds >= 0 for row in rows)


def test_nan_never_passes():
    assert held_to(float("nan"), 1.0).verdict == FAULT
    assert held_to(1.0, 1.0).verdict == OK


def test_table_and_result_hold_every_row(script, tmp_path):
    table, out = io.StringIO(), tmp_path / "result.json"
    result = script.run(REGISTRY, SETTING, {"device": "gpu:0"}, table, str(out))
    lines = table.getvalue().splitlines()
    assert lines[0].split() == ["no", "check", "figure", "allowed", "verdict", "sec"]
    assert "    fault: RuntimeError: the card" in lines
    assert "    note: one is missing" in lines
    assert lines[-1].startswith("2 faults in 5 checks")
    written = json.loads(out.read_text())
    assert written["device"] == "gpu:0"
    assert written["faults"] == result["faults"] == 2
    assert [row["name"] for row in written["checks"]] == [check.name for check in REGISTRY]
    keys = {"number", "name", "figure", "allowed", "verdict", "detail", "seconds", "figures"}
    assert all(set(row) == keys for row in written["checks"])
    assert written["checks"][4]["figures"] == {"us": 7}


@pytest.mark.parametrize(("count", "status"), [(1, 0), (3, 1)])
def test_json_goes_to_standard_output_and_the_table_aside(
    script, monkeypatch, capsys, count, status
):
    monkeypatch.setattr(script, "place_for", lambda word: SETTING.place)
    monkeypatch.setattr(script.beneath, "identity", lambda place: {"name": "a card"})
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--json", "--quick"])
    assert script.main(REGISTRY[:count]) == status
    said = capsys.readouterr()
    result = json.loads(said.out)
    assert result["machine"] == {"name": "a card"}
    assert {"xpmlp", "commit", "date", "device", "seed", "quick", "checks"} <= set(result)
    assert "passing" in said.err


def test_the_checklist_is_whole_and_its_names_differ(script):
    assert {check.number for check in script.CHECKS} == set(range(1, 12))
    names = [check.name for check in script.CHECKS]
    assert len(set(names)) == len(names)
    assert not any(name.isdecimal() or "," in name for name in names)
    for check in script.CHECKS:
        inspect.signature(check.run).bind(SETTING)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_captured_step_is_the_loops_own(case):
    """On the CPU: static buffers and the step that is captured, against the loop."""
    run, plain = (trainings.begun(CPU, case, "float64", 3) for _ in range(2))
    static = trainings.frozen(run)
    saved = trainings.copies(run)
    trainings.step(run, static)
    trainings.restore(run, saved)
    captured = SimpleNamespace(launch=lambda: trainings.step(run, static))
    for _ in range(2):
        trainings.replay(run, static, captured)
        train_epoch(plain)
        plain.epoch += 1
    assert int(run.state.step) > 0
    assert trainings.same(run, plain)


@pytest.mark.parametrize("case", gpu_checks.OPERANDS, ids=lambda case: case.name)
def test_distance_is_small_for_the_product_and_large_for_another(case, rng):
    a, b = case.of_a(rng.standard_normal(case.a)), case.of_b(rng.standard_normal(case.b))
    assert distance(np.matmul(a, b), a, b) < gpu_checks.PRODUCT_ALLOWED["float64"]
    single = np.matmul(a.astype("float32"), b.astype("float32"))
    assert distance(single, a, b) < gpu_checks.PRODUCT_ALLOWED["float32"]
    assert distance(np.matmul(a, b) * 1.01, a, b) > 1e-5
    assert not distance(np.matmul(a, b) * np.nan, a, b) <= 1e9
    assert distance(np.zeros((1, 1, 1)), a, b) == float("inf")


@pytest.mark.parametrize("count", [0, 1, 2])
def test_rules_are_asked_for_in_their_own_form(count):
    on = Setting(CPU, 0, True)
    for name in trainings.OPTIMIZERS:
        function, arguments = trainings.ruled(on, name, "float64")
        theta, *memory = function(*arguments)
        assert theta.shape == (1000,)
        assert len(memory) == len(arguments) - 5
        assert np.isfinite(theta).all()


# What the checks ask of CuPy, NVIDIA's bindings and the standard library -----------------------


def chains(tree, roots):
    """Every dotted name in the source that starts at one of the roots."""
    found = set()
    for node in ast.walk(tree):
        written = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        root, *names = written.split(".")
        if root in roots and all(name.isidentifier() for name in names):
            found.add((root, *names))
    return found


MODULES = (gpu_bench, gpu_checks, trainings)


def test_every_name_of_cupy_exists(optional):
    cupy = optional("cupy")
    found = set().union(*(chains(ast.parse(inspect.getsource(m)), {"cupy"}) for m in MODULES))
    assert ("cupy", "cuda", "using_allocator") in found
    for _, *names in found:
        value = cupy
        for name in names:
            assert hasattr(value, name), "cupy." + ".".join(names)
            value = getattr(value, name)


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        ("cuda.Stream", "begin_capture end_capture is_capturing synchronize __enter__ ptr"),
        ("cuda.Graph", "launch graph"),
        ("cuda.Event", "record synchronize"),
        ("cuda.MemoryPool", "malloc free_all_blocks used_bytes total_bytes"),
        ("cuda.Device", "synchronize id __enter__"),
        ("ndarray", "fill get mT"),
    ],
)
def test_every_method_of_cupy_exists(optional, owner, names):
    value = optional("cupy")
    for part in owner.split("."):
        value = getattr(value, part)
    missing = [name for name in names.split() if not hasattr(value, name)]
    assert missing in ([], ["ptr"])  # a stream's pointer is set when it is made


def test_every_name_of_nvidias_bindings_exists(optional):
    optional("cupy")
    cublas = optional("nvmath.bindings.cublas")
    driver = optional("cuda.bindings.driver")
    trees = [ast.parse(inspect.getsource(module)) for module in MODULES]
    for owner, name in ((cublas, "cublas"), (driver, "driver")):
        found = set().union(*(chains(tree, {name}) for tree in trees))
        assert found
        assert all(hasattr(owner, attribute) for _, attribute in found)
    kinds = {kind.name for kind in driver.CUgraphNodeType}
    assert {f"CU_GRAPH_NODE_TYPE_{kind}" for kind in ("KERNEL", "MEMSET", "MEMCPY")} <= kinds


def test_hidden_things_are_hidden(optional):
    """Each way of hiding a library makes CuPy or nvmath miss it, in a fresh process."""
    optional("cupy")
    hidden = {path.name: path.before for path in gpu_checks.PATHS if path.before}
    asks = {
        "no nvmath": "import nvmath",
        "no NVRTC": "import cupy; cupy.cuda.nvrtc.getVersion()",
    }
    for name, ask in asks.items():
        done = subprocess.run(
            [sys.executable, "-c", hidden[name] + ask], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert "hidden" in done.stderr or "nvmath" in done.stderr


@pytest.mark.parametrize("path", gpu_checks.PATHS, ids=lambda path: path.name)
def test_a_fresh_process_names_its_stage(path, optional):
    optional("cupy")
    said = gpu_checks.answer(path, "gpu")
    assert said.startswith("GPUUnavailableError: no usable GPU: stage ")
