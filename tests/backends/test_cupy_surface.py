"""Every call that a training makes of its namespace, held against what CuPy offers.

Trainings run on NumPy under a namespace that records each call. CuPy imports without a driver,
so the recorded names and arguments can be bound to the signatures of its functions: a keyword
or a function that CuPy lacks shows here, without a GPU.
"""

import inspect
from typing import NamedTuple

import numpy as np
import pytest

from xpmlp.backends.namespace import CPU, Place
from xpmlp.core.activations import ACTIVATIONS
from xpmlp.core.losses import LOSSES
from xpmlp.core.optimizers import OPTIMIZERS
from xpmlp.core.schedules import SCHEDULES
from xpmlp.core.spec import Spec
from xpmlp.fit import run as assembly
from xpmlp.fit.parity import CASES, Case, trained


class Call(NamedTuple):
    name: str
    positional: int
    keywords: tuple[str, ...]


class Recording:
    """NumPy, remembering every function that is called through it."""

    def __init__(self) -> None:
        self.calls: set[Call] = set()

    def __getattr__(self, name: str):
        found = getattr(np, name)
        if isinstance(found, type) or not callable(found):
            return found

        def recorded(*arguments, **keywords):
            self.calls.add(Call(name, len(arguments), tuple(sorted(keywords))))
            return found(*arguments, **keywords)

        return recorded


def trainings() -> list[Case]:
    """The parity cases, and every entry of every table once."""
    spec = Spec.parse("5-4-1")
    cases = list(CASES)
    cases += [
        Case(name, Spec.parse("5-4-2", activation=name), {"epochs": 1}) for name in ACTIVATIONS
    ]
    cases += [
        Case(name, Spec.parse("5-4-2" if name != "quantile" else "5-4-1", loss=name), {})
        for name in LOSSES
    ]
    cases += [Case(name, spec, {"optimizer": name}) for name in OPTIMIZERS]
    return cases + [Case(name, spec, {"schedule": name}) for name in SCHEDULES]


@pytest.fixture(scope="module")
def recorded() -> Recording:
    """What all trainings and predictions call."""
    xp = Recording()
    place = Place(xp, None, "recorded")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assembly, "choose", lambda word, X, precision: place)
        for case in trainings():
            model = trained(CPU, case, "float32")
            model.predict(np.zeros((3, case.spec.n_in), dtype=np.float32))
    return xp


def binds(function, call: Call) -> bool:
    """Whether `function` of CuPy takes the arguments of `call`."""
    if hasattr(function, "nin"):  # a ufunc: its signature is (*args, **kwargs)
        return call.positional <= function.nin + function.nout and set(call.keywords) <= {
            "out",
            "dtype",
            "casting",
        }
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return True  # compiled, without a signature: only its name can be checked
    try:
        signature.bind(*[None] * call.positional, **dict.fromkeys(call.keywords))
    except TypeError:
        return False
    return True


def test_every_call_of_a_training_binds_to_cupy(recorded, optional):
    optional("cupy")
    from array_api_compat import cupy

    assert len(recorded.calls) > 30, "the recording saw too little to mean anything"
    assert {"matmul", "take", "astype", "exp", "where"} <= {call.name for call in recorded.calls}
    missing = [call for call in recorded.calls if not hasattr(cupy, call.name)]
    assert not missing
    unbound = [call for call in recorded.calls if not binds(getattr(cupy, call.name), call)]
    assert not unbound


def test_calls_avoid_what_breaks_a_capture(recorded):
    """array_api_compat's clip and sign read through a mask on CuPy; these shape by values."""
    names = {call.name for call in recorded.calls}
    assert not names & {"clip", "sign", "nonzero", "unique_values", "argwhere", "unique"}


def test_a_missing_keyword_is_noticed(optional):
    optional("cupy")
    from array_api_compat import cupy

    assert not binds(cupy.sum, Call("sum", 1, ("axes",)))
    assert not binds(cupy.exp, Call("exp", 1, ("axis",)))
    assert binds(cupy.sum, Call("sum", 1, ("axis", "keepdims")))


def test_namespace_has_what_the_recording_saw(recorded, optional):
    """`cuda.namespace` hands out copies of the names: none may be missing there."""
    optional("cupy")
    from array_api_compat import cupy

    public = {name for name in vars(cupy) if name[0] != "_"} | {"__array_namespace_info__"}
    assert {call.name for call in recorded.calls} <= public
