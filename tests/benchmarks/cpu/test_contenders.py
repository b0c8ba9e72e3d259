"""What is timed computes the same: every contender that is installed, against ours."""

from importlib import import_module
from importlib.util import find_spec

import numpy as np
import pytest

import xpmlp
from benchmarks.cpu.contest import ALLOWED, OWN, distance
from benchmarks.cpu.peers import PEERS
from benchmarks.cpu.problems import CHECK_EPOCHS, SHAPES, Case, compared, joined, timed

# PyTorch's own, when it compiles
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
NEEDED = {"pytorch": ["torch"], "jax_jit": ["jax"], "onnx_runtime": ["onnx", "onnxruntime"]}
SIZES = {"train": 1, "population": 3, "predict": 32}


def entries():
    """(task, contender) of all but ours and the floor; of peers, those that are installed."""
    found = [(task, c) for task, own in OWN.items() for c in own[1:] if c.rule]
    for task, peers in PEERS.items():
        for peer in peers:
            module = peer.address.partition(":")[0].rpartition(".")[2]
            if all(find_spec(name) for name in NEEDED[module]):
                marks = [pytest.mark.slow] if "compile" in peer.name else []
                found.append(pytest.param(task, peer, marks=marks))
    return found


def title(one):
    return getattr(one, "name", one)


def make(contender, problem):
    module, _, name = contender.address.partition(":")
    return getattr(import_module(module), name)(problem)


@pytest.mark.parametrize("shape", ["a32", "b32"])
@pytest.mark.parametrize(("task", "contender"), entries(), ids=title)
def test_results_are_ours(task, contender, shape):
    problem = compared(Case(task, shape, SIZES[task]), "cpu", contender.rule)
    expected = make(OWN[task][0], problem).result(CHECK_EPOCHS)
    found = make(contender, problem).result(CHECK_EPOCHS)
    assert found.dtype == np.float64
    assert distance(found, expected) <= ALLOWED


def test_the_two_adams_are_told_apart():
    case = Case("train", "b32")
    one, other = (
        make(OWN["train"][0], compared(case, "cpu", rule)).result(CHECK_EPOCHS)
        for rule in ("adam", "adam_sklearn")
    )
    assert distance(one, other) > 1e-7  # more than ALLOWED: the wrong one is found out


@pytest.mark.parametrize(("task", "contender"), entries(), ids=title)
def test_passes_take_time_and_have_units(task, contender):
    made = make(contender, timed(Case(task, "a32", SIZES[task]), "cpu"))
    assert made.units == (32 if task == "predict" else SHAPES["a32"].steps)
    assert made.seconds(2) > 0


def test_a_population_counts_every_member():
    made = make(OWN["population"][0], timed(Case("population", "a32", 5), "cpu"))
    assert made.units == 5 * SHAPES["a32"].steps
    assert made.seconds(1) > 0
    assert made.train(1).epoch == 2  # it goes on where the timed pass ended


def test_ours_begins_with_the_weights_of_the_problem():
    problem = compared(Case("train", "b32"), "cpu", "adam")
    model = xpmlp.train(problem.shape.spec, problem.X, problem.y, learning_rate=0.0, epochs=1)
    assert (joined(model.params) == joined(problem.start)).all()


@pytest.mark.parametrize("contender", [c for c in OWN["train"] if "fits" in c.address], ids=title)
def test_the_clock_has_every_epochs_end(contender, capsys):
    made = make(contender, timed(Case("train", "a32"), "cpu"))
    ends = made.fit(4).ends
    assert len(ends) == 4
    assert ends == sorted(ends)
    assert capsys.readouterr().out == ""
