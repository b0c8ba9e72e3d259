"""Types and names that type checkers and editors see: real signatures, only public names."""

import os
import re
import rlcompleter
import subprocess
import sys
from pathlib import Path

import pytest

import xpmlp

MISTAKES = {  # a line, and mypy's message
    "xpmlp.trian": 'Module has no attribute "trian"',
    'xpmlp.train("1-1", X, y, leaning_rate=1.0)': 'did you mean "learning_rate"?',
    'xpmlp.train("1-1", X)': 'Missing positional argument "y"',
    "model.prdict(X)": '"Model" has no attribute "prdict"',
    "model.predict(X, 3)": 'Too many positional arguments for "predict"',
    "xpmlp.MLPClassifier(hiden_layer_sizes=(3,))": 'did you mean "hidden_layer_sizes"?',
    "xpmlp.MLPClassifier().fit(X, y, X_vall=X)": 'did you mean "X_val"?',
    "xpmlp.MLPRegressor().partial_fit(X)": 'Missing positional argument "y"',
    "xpmlp.MLPClassifier().prdict(X)": '"MLPClassifier" has no attribute "prdict"',
    "xpmlp.MLPRegressor().alhpa": '"MLPRegressor" has no attribute "alhpa"',
    'xpmlp.epochs("1-1", X, y, leaning_rate=1.0)': 'did you mean "learning_rate"?',
    'xpmlp.ledger("1-1", batch=8)': 'Unexpected keyword argument "batch"',
    "xpmlp.optimizers.adamm": 'Module has no attribute "adamm"',
}
HEAD = """
import numpy as np
import xpmlp

X, y = np.zeros((4, 1)), np.zeros(4)
model = xpmlp.train("1-1", X, y)
"""
CORRECT = """
from collections.abc import Generator
from typing import Any, assert_type

import numpy as np
import xpmlp
from xpmlp import Batch, MLPClassifier, MLPRegressor, Model, Report, Spec, State, TableModel
from xpmlp.layers import Dense, Layer
from xpmlp.shape_ledger import Ledger
from xpmlp.training.gradient_check import Check


def halve(xp: Any, now: xpmlp.schedules.Progress) -> Any:
    return 0.5**now.epoch


def stop(report: Report) -> bool:
    return bool(report.loss < 0.1)


X, y = np.zeros((4, 1)), np.zeros(4)
model = xpmlp.train("1-1", X, y, schedule=halve, callbacks=[stop, xpmlp.stop_at("loss", 0.1)])
assert_type(model, Model)
assert_type(model.spec, Spec)
assert_type(model.spec.layers, tuple[Layer, ...])
assert_type(xpmlp.epochs("1-1", X, y), Generator[Report, None, None])
assert_type(MLPClassifier(), MLPClassifier)
assert_type(MLPClassifier().fit(X, y, X_val=X, y_val=y), MLPClassifier)
assert_type(MLPRegressor().partial_fit(X, y), MLPRegressor)
assert_type(MLPRegressor.load("a.safetensors"), MLPRegressor)
assert_type(MLPClassifier().score(X, y), float)
assert_type(MLPClassifier().coefs_, list[Any])
assert_type(MLPClassifier().set_params(alpha=0.1), MLPClassifier)
assert_type(MLPRegressor().learning_rate_init, float)
spec = Spec.parse([Dense(1, 2, "tanh"), Dense(2, 1)], loss="huber")
assert_type(spec, Spec)
assert_type(xpmlp.gradcheck(spec), Check)
assert_type(xpmlp.gradcheck(spec).passed, bool)
assert_type(xpmlp.ledger("1-1"), Ledger)
assert_type(xpmlp.load("a.safetensors"), Model | TableModel)
state = xpmlp.new_state(np, spec, "adam", np.zeros(96))
assert_type(state, State)
xpmlp.gradient(np, spec, state, Batch(X, y[:, None], np.ones(4)))
xpmlp.save(model, "a.safetensors")
"""


@pytest.fixture(scope="module")
def messages(tmp_path_factory) -> dict[str, dict[int, list[str]]]:
    """The errors of `mypy --strict` in the two samples, by file and line."""
    pytest.importorskip("mypy", reason="mypy is not installed")
    folder = tmp_path_factory.mktemp("samples")
    (folder / "mistakes.py").write_text(HEAD + "\n".join(MISTAKES) + "\n")
    (folder / "correct.py").write_text(CORRECT)
    # checks the package only, whatever the configuration of the repository
    (folder / "mypy.ini").write_text("[mypy]\n[mypy-xpmlp.*]\nfollow_imports = silent\n")
    package, env = Path(xpmlp.__file__).parent, dict(os.environ)
    if package.parent.name != "site-packages":
        env["MYPYPATH"] = str(package.parent)
    command = [sys.executable, "-m", "mypy", "--strict", "mistakes.py", "correct.py"]
    result = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1, result.stdout + result.stderr
    errors: dict[str, dict[int, list[str]]] = {}
    for name, line, text in re.findall(r"^(\S+):(\d+): error: (.*)$", result.stdout, re.M):
        errors.setdefault(name, {}).setdefault(int(line), []).append(text)
    return errors


@pytest.mark.slow  # mypy reads everything that the package imports
def test_mistakes_are_errors(messages):
    first = HEAD.count("\n") + 1
    errors = messages["mistakes.py"]
    assert set(errors) == set(range(first, first + len(MISTAKES)))
    for (code, expected), line in zip(MISTAKES.items(), sorted(errors), strict=True):
        assert any(expected in text for text in errors[line]), f"{code}: {errors[line]}"


@pytest.mark.slow
def test_public_functions_and_classes_have_types(messages):
    assert "correct.py" not in messages, messages["correct.py"]


def test_the_package_has_only_public_names():
    assert dir(xpmlp) == sorted([*xpmlp.__all__, "__version__"])


def test_completion_offers_only_public_names():
    completions = rlcompleter.Completer({"xpmlp": xpmlp}).attr_matches("xpmlp.")
    assert {completion.removeprefix("xpmlp.").rstrip("()") for completion in completions} == set(
        xpmlp.__all__
    )
