"""Multi-layer perceptrons whose math is written once, on NumPy for CPU or CuPy for CUDA GPUs."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:  # what editors and type checkers see; at run time each comes with its first use
    from xpmlp import (
        activations as activations,
        initializers as initializers,
        layers as layers,
        losses as losses,
        optimizers as optimizers,
        schedules as schedules,
    )
    from xpmlp.activations import Activation as Activation
    from xpmlp.cli.plots import plot_history as plot_history
    from xpmlp.devices.cuda import GPUUnavailableError as GPUUnavailableError
    from xpmlp.estimators.classifier import MLPClassifier as MLPClassifier
    from xpmlp.estimators.from_sklearn import from_sklearn as from_sklearn
    from xpmlp.estimators.regressor import MLPRegressor as MLPRegressor
    from xpmlp.losses import Loss as Loss
    from xpmlp.network import backward as backward, forward as forward
    from xpmlp.shape_ledger import ledger as ledger
    from xpmlp.shapes import ShapeError as ShapeError
    from xpmlp.spec import Spec as Spec
    from xpmlp.step import (
        Batch as Batch,
        State as State,
        gradient as gradient,
        new_state as new_state,
        update as update,
    )
    from xpmlp.storage.checkpoint import Checkpoint as Checkpoint
    from xpmlp.storage.model_file import save as save
    from xpmlp.storage.onnx import to_onnx as to_onnx
    from xpmlp.tabular.model import TableModel as TableModel, load as load
    from xpmlp.training.callbacks import (
        ProgressBar as ProgressBar,
        plateau as plateau,
        stop_at as stop_at,
    )
    from xpmlp.training.divergence import DivergedError as DivergedError
    from xpmlp.training.gradient_check import gradcheck as gradcheck
    from xpmlp.training.model import Model as Model
    from xpmlp.training.report import Report as Report
    from xpmlp.training.train import epochs as epochs, train as train

MODULES = ("activations", "initializers", "layers", "losses", "optimizers", "schedules")
HOMES = {
    "Activation": "activations",
    "Batch": "step",
    "Checkpoint": "storage.checkpoint",
    "DivergedError": "training.divergence",
    "GPUUnavailableError": "devices.cuda",
    "Loss": "losses",
    "MLPClassifier": "estimators.classifier",
    "MLPRegressor": "estimators.regressor",
    "Model": "training.model",
    "ProgressBar": "training.callbacks",
    "Report": "training.report",
    "ShapeError": "shapes",
    "Spec": "spec",
    "State": "step",
    "TableModel": "tabular.model",
    "backward": "network",
    "epochs": "training.train",
    "forward": "network",
    "from_sklearn": "estimators.from_sklearn",
    "gradcheck": "training.gradient_check",
    "gradient": "step",
    "ledger": "shape_ledger",
    "load": "tabular.model",
    "new_state": "step",
    "plateau": "training.callbacks",
    "plot_history": "cli.plots",
    "save": "storage.model_file",
    "stop_at": "training.callbacks",
    "to_onnx": "storage.onnx",
    "train": "training.train",
    "update": "step",
}

__all__ = sorted((*HOMES, *MODULES))  # noqa: PLE0605 - each name is found by __getattr__ below


if not TYPE_CHECKING:  # a type checker would take every name for one that exists

    def __getattr__(name: str) -> Any:
        """Import a public name when it is first used, so that `import xpmlp` costs nothing."""
        if name in MODULES:
            return import_module(f"xpmlp.{name}")
        if name not in HOMES:
            raise AttributeError(f"module 'xpmlp' has no attribute {name!r}")
        return getattr(import_module(f"xpmlp.{HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
