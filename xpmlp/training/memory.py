"""What a training asks of memory: what lies on a GPU, and what would fit where it did not."""

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
from xpmlp.training.data import Elsewhere, Rows, resident
from xpmlp.training.settings import Settings

BYTES = {"float32": 4, "float64": 8}
USABLE = 0.95  # of what is free: memory comes in blocks
PER_NEURON = 6  # arrays of a step that live at once: products, z, a, masks, deltas
WINDOWS = 4  # at once: one being gathered, one under way, and those of two graphs


class TrainingMemoryError(MemoryError):
    """Memory ran out: says how many bytes a training takes, and what would fit."""


class DataWarning(UserWarning):
    """Rows stay in the host's memory, because the GPU has no room for them."""


@dataclass
class Need:
    """Bytes that a training takes, estimated."""

    place: Place
    free: int | None  # on the device before it began; None for a host
    fixed: int  # a chunk that is measured, and what products work in
    state: int  # parameters, gradient, memory, and copies of them, of all members
    row: int  # each row of a batch, of all members
    numbers: int  # a row with its target, of all members
    at_once: int  # a window of minibatches
    batch: int  # rows
    members: int | None
    data: int = 0  # what was brought so far

    @property
    def training(self) -> int:
        """All but the data."""
        return self.of(self.batch, self.members or 1)

    def of(self, batch: int, members: int) -> int:
        """The same with batches of another size, and another number of members."""
        state, row, numbers = (
            each * members // (self.members or 1) for each in (self.state, self.row, self.numbers)
        )
        steps = min(CudaGraphExecutor.MAX_STEPS, max(1, self.at_once // max(1, numbers * batch)))
        return self.fixed + state + row * batch + WINDOWS * steps * numbers * batch

    def smaller(self) -> str:
        """What would fit, in the words of `train`'s arguments; a guess where nobody counts."""
        if self.free is None:
            half = (self.members or 1) // 2
            tries = [f"members={half}"] if half else []
            tries += [f"batch_size={self.batch // 2}"] if self.batch > 1 else []
            return f"try {' or '.join([*tries, 'hidden layers of smaller sizes'])}"
        left, batch = int(self.free * USABLE) - self.data, self.batch // 2
        while batch and self.of(batch, self.members or 1) > left:
            batch //= 2
        if batch:
            return f"batch_size={batch} would fit"
        fitting = range(1, self.members or 1)
        members = bisect_right(fitting, left, key=lambda members: self.of(self.batch, members))
        if members:
            return f"members={members} would fit"
        return "no batch would fit: take hidden layers of smaller sizes, or device='cpu'"


def need(place: Place, spec: Spec, settings: Settings, dtype: str) -> Need:
    """The estimate before any data is brought."""
    sizes = (settings.batch_size, settings.members, settings.rule().slots)
    return estimate(
        place, spec, dtype, *sizes, streams=CudaGraphExecutor.STREAMS if settings.capture else 0
    )


def estimate(
    place: Place,
    spec: Spec,
    dtype: str,
    batch: int,
    members: int | None = None,
    slots: int = 2,
    *,
    streams: int = 0,
) -> Need:
    """slots: of the optimizer; streams: of its own, on which products are made."""
    size, many = BYTES[dtype], members or 1
    held = 2 * (2 + slots) + 2  # a recording keeps a copy of all that moves
    neurons = sum(layer.n_out for layer in spec.layers)
    free = free_bytes(place)
    workspaces = 0 if free is None else WORKSPACE * streams
    return Need(
        place,
        free,
        fixed=2 * inference.AT_ONCE + workspaces,
        state=size * many * held * padded_size(spec),
        row=size * many * PER_NEURON * neurons,
        numbers=size * many * (spec.n_in + spec.n_out),
        at_once=size * CudaGraphExecutor.WINDOW_SIZE,
        batch=batch,
        members=members,
    )


def brought(asked: Need, place: Place, x: Any, dtype: str, name: str) -> Rows:
    """Rows (N, n_in) at a place, or in the host's memory where they do not fit."""
    there, free = int(x.shape[0]) * int(x.shape[1]) * BYTES[dtype], free_bytes(place)
    if not asked.data:  # the rows to learn from, which come first
        asked.batch = min(asked.batch, int(x.shape[0]))
    left = None if free is None else int(free * USABLE) - asked.training
    # where training does not fit by itself, rows kept outside are no help
    if left is None or not 0 <= left < there or place_of(x).name == place.name:
        asked.data += there
        return resident(place, x, dtype, name)
    warnings.warn(
        f"{name} takes {shown(there)} and training about {shown(asked.training)}, but {place.name} "
        f"has {shown(free or 0)} free: {name} stays in the host's memory and is copied window by "
        "window, which is slower",
        DataWarning,
        stacklevel=2,
    )
    return Elsewhere(place, x, dtype, name)


def shown(count: int) -> str:
    """Bytes for a person.

    >>> shown(1_500_000), shown(72_300_000_000)
    ('1.5 MB', '72.3 GB')
    """
    units = ((1e9, "GB"), (1e6, "MB"))
    unit, name = next(((u, n) for u, n in units if count >= u), (1, "bytes"))
    return f"{count / unit:.1f} {name}" if unit > 1 else f"{count} {name}"


@contextmanager
def explained(asked: Need) -> Iterator[None]:
    """Inside it a want of memory is told with what was needed and what needs less."""
    try:
        if asked.state > sys.maxsize:  # NumPy would say that a dimension is too large
            raise MemoryError("no address space is that large")
        yield
    except MemoryError as error:
        if isinstance(error, TrainingMemoryError):
            raise
        free = "" if asked.free is None else f", {shown(asked.free)} of it free"
        held = asked.state + asked.fixed
        raise TrainingMemoryError(
            f"{asked.place.name} ran out of memory{free} ({str(error) or 'no more is said'}): "
            f"this training takes about {asked.data + asked.training:,} bytes "
            f"({shown(asked.data)} of data, {shown(held)} of parameters and what belongs "
            f"to them, {shown(asked.training - held)} for batches of {asked.batch}"
            + (f" of {asked.members} members" if asked.members else "")
            + f"); {asked.smaller()}"
        ) from error
