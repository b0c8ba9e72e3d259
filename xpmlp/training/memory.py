"""An estimate of the memory that a training takes, and what would fit where it does not."""

import sys
import warnings
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from xpmlp.devices.gemm import WORKSPACE
from xpmlp.devices.namespace import Place, place_of
from xpmlp.devices.words import free_bytes
from xpmlp.layout import padded_size
from xpmlp.recording.captured import CudaGraphExecutor
from xpmlp.spec import Spec
from xpmlp.training import inference
from xpmlp.training.data import Rows, StreamedRows, device_rows
from xpmlp.training.settings import Settings

BYTES = {"float32": 4, "float64": 8}
USABLE = 0.95  # of the free memory, which is allocated in blocks
PER_NEURON = 6  # arrays of a step that exist at the same time: products, z, a, masks, deltas
WINDOWS = 4  # at the same time: one being gathered, one in training, and those of two graphs


class TrainingMemoryError(MemoryError):
    """Out of memory; the message has the bytes that training takes, and what would fit."""


class DataWarning(UserWarning):
    """Rows stay in the host's memory, because they do not fit on the GPU."""


@dataclass
class MemoryEstimate:
    """An estimate of the bytes that a training takes, over all members."""

    place: Place
    free: int | None  # on the device before training; None for a host
    fixed: int  # a chunk of rows that is evaluated, and the workspaces of products
    state: int  # parameters, gradient, slots, and copies of them
    per_row: int  # activations of one row of a batch
    per_sample: int  # one row with its target
    window: int  # a window of minibatches
    batch_size: int
    members: int | None
    data: int = 0  # rows loaded so far

    @property
    def training(self) -> int:
        """All but the data."""
        return self.training_with(self.batch_size, self.members or 1)

    def training_with(self, batch_size: int, members: int) -> int:
        """The same for another batch size and number of members."""
        state, per_row, per_sample = (
            size * members // (self.members or 1)
            for size in (self.state, self.per_row, self.per_sample)
        )
        batch = per_sample * batch_size
        steps = min(CudaGraphExecutor.UNROLLED, max(1, self.window // max(1, batch)))
        return self.fixed + state + per_row * batch_size + WINDOWS * steps * batch

    def suggestion(self) -> str:
        """Arguments of `train` that would fit; a guess where the free memory is unknown."""
        if self.free is None:
            half = (self.members or 1) // 2
            tries = [f"members={half}"] if half else []
            tries += [f"batch_size={self.batch_size // 2}"] if self.batch_size > 1 else []
            return f"try {' or '.join([*tries, 'smaller hidden layers'])}"
        available, batch_size = int(self.free * USABLE) - self.data, self.batch_size // 2
        while batch_size and self.training_with(batch_size, self.members or 1) > available:
            batch_size //= 2
        if batch_size:
            return f"batch_size={batch_size} would fit"
        members = bisect_right(
            range(1, self.members or 1),
            available,
            key=lambda members: self.training_with(self.batch_size, members),
        )
        if members:
            return f"members={members} would fit"
        return "no batch size would fit: use smaller hidden layers, or device='cpu'"


def estimate_training(place: Place, spec: Spec, settings: Settings, dtype: str) -> MemoryEstimate:
    """The estimate before any data is loaded."""
    sizes = (settings.batch_size, settings.members, settings.rule().slots)
    return estimate_memory(
        place, spec, dtype, *sizes, streams=CudaGraphExecutor.STREAMS if settings.capture else 0
    )


def estimate_memory(
    place: Place,
    spec: Spec,
    dtype: str,
    batch_size: int,
    members: int | None = None,
    slots: int = 2,
    *,
    streams: int = 0,
) -> MemoryEstimate:
    """slots: of the optimizer; streams: those that products run on."""
    size = BYTES[dtype] * (members or 1)
    copies = 2 * (2 + slots) + 2  # a recording keeps a copy of all that changes
    neurons = sum(layer.n_out for layer in spec.layers)
    free = free_bytes(place)
    workspaces = 0 if free is None else WORKSPACE * streams
    return MemoryEstimate(
        place,
        free,
        fixed=2 * inference.CHUNK_BYTES + workspaces,
        state=size * copies * padded_size(spec),
        per_row=size * PER_NEURON * neurons,
        per_sample=size * (spec.n_in + spec.n_out),
        window=BYTES[dtype] * CudaGraphExecutor.AT_ONCE,
        batch_size=batch_size,
        members=members,
    )


def load_rows(estimate: MemoryEstimate, place: Place, x: Any, dtype: str, name: str) -> Rows:
    """Rows (N, n_in) at a place, or streamed from the host's memory where they do not fit."""
    size, free = int(x.shape[0]) * int(x.shape[1]) * BYTES[dtype], free_bytes(place)
    if not estimate.data:  # the training rows, which come first
        estimate.batch_size = min(estimate.batch_size, int(x.shape[0]))
    available = None if free is None else int(free * USABLE) - estimate.training
    # where training alone does not fit, streaming the rows does not help
    load_all = available is None or not 0 <= available < size
    if load_all or place_of(x).name == place.name:
        estimate.data += size
        return device_rows(place, x, dtype, name)
    warnings.warn(
        f"{name} takes {format_bytes(size)} and training about {format_bytes(estimate.training)}, "
        f"but {place.name} has {format_bytes(free or 0)} free: {name} stays in the host's memory "
        "and is copied window by window, which is slower",
        DataWarning,
        stacklevel=2,
    )
    return StreamedRows(place, x, dtype, name)


def format_bytes(count: int) -> str:
    """A number of bytes with a unit.

    >>> format_bytes(1_500_000), format_bytes(72_300_000_000)
    ('1.5 MB', '72.3 GB')
    """
    units = ((1e9, "GB"), (1e6, "MB"))
    unit, name = next(((u, n) for u, n in units if count >= u), (1, "bytes"))
    return f"{count / unit:.1f} {name}" if unit > 1 else f"{count} {name}"


@contextmanager
def explain_memory_error(estimate: MemoryEstimate) -> Iterator[None]:
    """Raise a MemoryError again with the bytes that training needs and what needs fewer."""
    try:
        if estimate.state > sys.maxsize:  # NumPy would say that a dimension is too large
            raise MemoryError("larger than the address space")
        yield
    except MemoryError as error:
        if isinstance(error, TrainingMemoryError):
            raise
        free = "" if estimate.free is None else f", {format_bytes(estimate.free)} of it free"
        fixed = estimate.state + estimate.fixed
        raise TrainingMemoryError(
            f"{estimate.place.name} ran out of memory{free} ({str(error) or 'no details'}): "
            f"this training takes about {estimate.data + estimate.training:,} bytes "
            f"({format_bytes(estimate.data)} of data, {format_bytes(fixed)} of parameters and "
            f"optimizer state, {format_bytes(estimate.training - fixed)} for batches of "
            f"{estimate.batch_size}"
            + (f" of {estimate.members} members" if estimate.members else "")
            + f"); {estimate.suggestion()}"
        ) from error
