"""What a fit was asked for, that the one of its checkpoint can be compared with."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.base import is_classifier

from xpmlp.devices.namespace import to_host
from xpmlp.storage.checkpoint import buffers
from xpmlp.storage.signature import digest, to_jsonable
from xpmlp.training.train import checkpointing
from xpmlp.training.trainer import Trainer

# parameters that leave the bits alone, or that the start, the dtype and the epochs tell
NO_DIFFERENCE = (
    "max_iter", "max_fun", "verbose", "warm_start", "continuation", "callbacks", "checkpoint",
    "resume", "device", "dtype", "n_threads", "output",
)  # fmt: skip
SO_FAR = ("t_", "_no_improvement_count", "best_loss_", "best_validation_score_")


def refuse(est: Any) -> None:
    """ValueError for a checkpoint that no fit could go on from."""
    checkpointing(est.checkpoint, est.resume)
    if est.checkpoint is not None and est.random_state is None:
        raise ValueError(
            "checkpoint needs a random_state, such as 0: with None another process would begin "
            "another training, and never go on with this one"
        )


def signature_of(est: Any, trainer: Trainer) -> dict[str, Any]:
    """Parameters and classes of a fit, and a digest of what it starts from."""
    parameters = est.get_params(deep=False)
    found = {name: value for name, value in parameters.items() if name not in NO_DIFFERENCE}
    if is_classifier(est):
        found["classes_"] = f"{est.classes_.dtype.str} {est.classes_.tolist()}"
    return found | {"the start": f"SHA-256 {digest(start(est, trainer))}"}


def start(est: Any, trainer: Trainer) -> Iterator[np.ndarray | bytes]:
    """Weights, slots, seed and whatever else a warm start goes on from."""
    numbers = [getattr(est, name, None) for name in SO_FAR]
    numbers += [trainer.settings.seed, trainer.epoch, est._optimizer.learning_rate]
    yield repr(to_jsonable(numbers)).encode()
    for buffer in buffers(trainer).values():
        yield to_host(buffer)
