"""Multi-layer perceptrons whose math is written once, on NumPy for CPU or CuPy for CUDA GPUs."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

HOMES = {
    "Activation": "core.activations",
    "Batch": "core.training",
    "Checkpoint": "storage.checkpoint",
    "DivergedError": "fit.divergence",
    "GPUUnavailableError": "backends.cuda",
    "Layer": "core.layer",
    "Loss": "core.losses",
    "MLPClassifier": "estimators.classifier",
    "MLPRegressor": "estimators.regressor",
    "Model": "fit.model",
    "ShapeError": "core.ledger",
    "ProgressBar": "fit.callbacks",
    "Report": "fit.loop",
    "Spec": "core.spec",
    "TableModel": "table.model",
    "State": "core.training",
    "backward": "core.network",
    "epochs": "fit.run",
    "forward": "core.network",
    "from_sklearn": "estimators.from_sklearn",
    "gradcheck": "fit.gradcheck",
    "gradient": "core.training",
    "ledger": "core.ledger",
    "load": "table.model",
    "new_state": "core.training",
    "plateau": "fit.callbacks",
    "plot_history": "cli.plots",
    "save": "storage.model_file",
    "stop_at": "fit.callbacks",
    "to_onnx": "storage.onnx",
    "train": "fit.run",
    "update": "core.training",
}

__all__ = sorted(HOMES)  # noqa: PLE0605 - each name is found by __getattr__ below


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import xpmlp` costs nothing."""
    if name not in HOMES:
        raise AttributeError(f"module 'xpmlp' has no attribute {name!r}")
    return getattr(import_module(f"xpmlp.{HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
