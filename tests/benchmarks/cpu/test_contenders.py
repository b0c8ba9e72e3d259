"""Every installed contender computes the same as ours."""

from importlib import import_module
from importlib.util import find_spec

import numpy as np
import pytest

import xpmlp
from benchmarks.cpu.contest import OWN, TOLERANCE, distance
from benchmarks.cpu.peers import PEERS
from benchmarks.cpu.problems import (
    CHECK_EPOCHS,
    SHAPES,
    Case,
    check_problem,
    flatten,
    timing_problem,
)

# raised by PyTorch when it compiles
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
PACKAGES = {"pytorch": ["torch"], "jax_jit": ["jax"], "onnx_runtime": ["onnx", "onnxruntime"]}
SIZES = {"train": 1, "population": 3, "predict": 32}


def entries():
    """(task, contender) of all except ours and the floor; of PEERS, those that are installed."""
    params = [(task, c) for task, own in OWN.items() for c in own[1:] if c.rule]
    for task, peers in PEERS.items():
        for peer in peers:
            module = peer.address.partition(":")[0].rpartition(".")[2]
            if all(find_spec(name) for name in PACKAGES[module]):
                marks = [pytest.mark.slow] if "compile" in peer.name else []
                params.append(pytest.param(task, peer, marks=marks))
    return params


def title(value):
    return getattr(value, "name", value)


def make(contender, problem):
    module, _, name = contender.address.partition(":")
    return getattr(import_module(module), name)(problem)


@pytest.mark.parametrize("shape", ["a32", "b32"])
@pytest.mark.parametrize(("task", "contender"), entries(), ids=title)
def test_results_match_ours(task, contender, shape):
    problem = check_problem(Case(task, shape, SIZES[task]), "cpu", contender.rule)
    expected = make(OWN[task][0], problem).result(CHECK_EPOCHS)
    actual = make(contender, problem).result(CHECK_EPOCHS)
    assert actual.dtype == np.float64
    assert distance(actual, expected) <= TOLERANCE


def test_the_two_variants_of_adam_differ():
    case = Case("train", "b32")
    adam, adam_sklearn = (
        make(OWN["train"][0], check_problem(case, "cpu", rule)).result(CHECK_EPOCHS)
        for rule in ("adam", "adam_sklearn")
    )
    assert distance(adam, adam_sklearn) > 1e-7  # above TOLERANCE: the wrong one is detected


@pytest.mark.parametrize(("task", "contender"), entries(), ids=title)
def test_passes_take_time_and_have_units(task, contender):
    instance = make(contender, timing_problem(Case(task, "a32", SIZES[task]), "cpu"))
    assert instance.units == (32 if task == "predict" else SHAPES["a32"].steps)
    assert instance.seconds(2) > 0


def test_units_of_a_population_count_every_member():
    population = make(OWN["population"][0], timing_problem(Case("population", "a32", 5), "cpu"))
    assert population.units == 5 * SHAPES["a32"].steps
    assert population.seconds(1) > 0
    assert population.train(1).epoch == 2  # it continues after the timed pass


def test_training_starts_from_the_weights_of_the_problem():
    problem = check_problem(Case("train", "b32"), "cpu", "adam")
    model = xpmlp.train(problem.shape.spec, problem.X, problem.y, learning_rate=0.0, epochs=1)
    assert (flatten(model.params) == flatten(problem.start)).all()


@pytest.mark.parametrize("contender", [c for c in OWN["train"] if "fits" in c.address], ids=title)
def test_a_fit_records_the_end_of_every_epoch(contender, capsys):
    fit = make(contender, timing_problem(Case("train", "a32"), "cpu"))
    ends = fit.fit(4).ends
    assert len(ends) == 4
    assert ends == sorted(ends)
    assert capsys.readouterr().out == ""
