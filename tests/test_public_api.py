"""The public names, pinned, so that adding or removing one is deliberate."""

import inspect
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pytest

import xpmlp
from xpmlp import MODULES

PUBLIC = {
    "Activation", "Batch", "Checkpoint", "DivergedError", "GPUUnavailableError", "Loss",
    "MLPClassifier", "MLPRegressor", "Model", "ProgressBar", "Report", "ShapeError", "Spec",
    "State", "TableModel", "backward", "epochs", "forward", "from_sklearn", "gradcheck", "gradient",
    "ledger", "load", "new_state", "plateau", "plot_history", "save", "stop_at", "to_onnx", "train",
    "update", "activations", "initializers", "layers", "losses", "optimizers", "schedules",
}  # fmt: skip


def run(code: str) -> Any:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return result.stdout.strip()


def test_public_names():
    assert set(xpmlp.__all__) == PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_name_is_documented(name):
    assert getattr(xpmlp, name).__doc__


def test_a_model_has_only_documented_public_names():
    model = xpmlp.train("1-1", [[0.0], [1.0]], [0.0, 1.0], epochs=1)
    assert {name for name in dir(model) if not name.startswith("_")} == {
        "classes_", "flat", "history", "member", "members", "params", "place", "predict",
        "predict_proba", "save", "scores", "spec",
    }  # fmt: skip


@pytest.mark.parametrize("module", MODULES)
def test_a_public_module_offers_what_it_documents(module):
    """Whatever has examples is public; what a module imports is not."""
    public = getattr(xpmlp, module)
    assert dir(public) == sorted(public.__all__)
    assert not {"Any", "math", "lru_cache", "partial", "lookup", "layer"} & {*dir(public)}
    documented = {
        name
        for name, value in vars(public).items()
        if inspect.isroutine(value) or inspect.isclass(value)
        if value.__module__ == public.__name__ and "Examples" in str(value.__doc__)
    }
    assert documented <= {*public.__all__}


def test_an_unknown_name_raises_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = xpmlp.trian


PROGRAM = """
import sys
before = set(sys.modules)
{code}
tops = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(*sorted(tops - sys.stdlib_module_names), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "code",
    ["import xpmlp", "from xpmlp.cli.main import main; main(['shapes', '2,3,1'])"],
    ids=["import", "shapes"],
)
def test_import_and_shapes_load_no_other_package(code):
    """This keeps the start fast; `benchmarks/startup.py` measures how fast."""
    command = [sys.executable, "-c", PROGRAM.format(code=code)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stderr.split() == ["xpmlp"]


def test_training_loads_neither_scikit_learn_nor_compat():
    """NumPy is its own namespace; slow imports happen only where they are needed."""
    code = (
        "import sys, numpy, xpmlp; xpmlp.train('1-1', numpy.ones((4, 1)), numpy.ones(4), epochs=1);"
        "print([m for m in ('sklearn', 'scipy', 'torch', 'cupy', 'array_api_compat', 'matplotlib',"
        " 'tqdm', 'numba', 'polars', 'narwhals', 'safetensors', 'onnx') if m in sys.modules])"
    )
    assert run(code) == "[]"


@pytest.mark.parametrize("package", ["sklearn", "narwhals"])
def test_estimators_name_the_missing_extra(package):
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "import xpmlp\n"
        "try:\n    xpmlp.MLPClassifier\nexcept ImportError as error:\n    print(error)"
    )
    assert "pip install 'xpmlp[sklearn]'" in run(code)


def test_version_matches_the_package_metadata():
    try:
        installed = version("xpmlp")
    except PackageNotFoundError:
        pytest.skip("the package is imported from its source, not installed")
    assert installed == xpmlp.__version__
