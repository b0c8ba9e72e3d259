"""A signature of a fit, to be compared with that of a checkpoint."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.base import is_classifier

from xpmlp.devices.namespace import to_host
from xpmlp.storage.checkpoint import buffers
from xpmlp.storage.signature import digest, to_jsonable
from xpmlp.training.train import checkpointing
from xpmlp.training.trainer import Trainer

# parameters that change no bits, or are covered by the initial state, the dtype and the epochs
IGNORED_PARAMETERS = (
    "max_iter", "max_fun", "verbose", "warm_start", "continuation", "callbacks", "checkpoint",
    "resume", "device", "dtype", "n_threads", "output",
)  # fmt: skip
PROGRESS_ATTRIBUTES = ("t_", "_no_improvement_count", "best_loss_", "best_validation_score_")


def check_checkpoint(est: Any) -> None:
    """ValueError for a checkpoint that could not be resumed."""
    checkpointing(est.checkpoint, est.resume)
    if est.checkpoint is not None and est.random_state is None:
        raise ValueError(
            "checkpoint needs a random_state, such as 0: with None another process would start "
            "another training, and never resume this one"
        )


def fit_signature(est: Any, trainer: Trainer) -> dict[str, Any]:
    """Parameters and classes of a fit, and a digest of its initial state."""
    parameters = est.get_params(deep=False)
    signature = {k: value for k, value in parameters.items() if k not in IGNORED_PARAMETERS}
    if is_classifier(est):
        signature["classes_"] = f"{est.classes_.dtype.str} {est.classes_.tolist()}"
    return signature | {"the start": f"SHA-256 {digest(initial_state_bytes(est, trainer))}"}


def initial_state_bytes(est: Any, trainer: Trainer) -> Iterator[np.ndarray | bytes]:
    """Weights, slots, seed and everything else that a warm start continues from."""
    numbers = [getattr(est, name, None) for name in PROGRESS_ATTRIBUTES]
    numbers += [trainer.settings.seed, trainer.epoch, est._optimizer.learning_rate]
    yield repr(to_jsonable(numbers)).encode()
    for buffer in buffers(trainer).values():
        yield to_host(buffer)
