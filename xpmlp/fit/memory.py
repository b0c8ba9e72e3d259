"""What a training asks of a GPU's memory: what lies there, and what would fit where it did not."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from xpmlp.backends.devices import free_bytes
from xpmlp.backends.graphs import Captured
from xpmlp.backends.namespace import Place, place_of
from xpmlp.core.layout import padded_size
from xpmlp.core.spec import Spec
from xpmlp.fit import inference
from xpmlp.fit.data import Elsewhere, Rows, resident
from xpmlp.fit.settings import Settings

BYTES = {"float32": 4, "float64": 8}
USABLE = 0.95  # of what is free: memory comes in blocks
PER_NEURON = 6  # arrays of a step that live at once: products, z, a, masks, deltas


WINDOWS = 4  # at once: one being gathered, one under way, and those of two graphs


class DeviceMemoryError(MemoryError):
    """A GPU ran out of memory: says how many bytes were asked for and what would fit."""


class DataWarning(UserWarning):
    """Rows stay in the host's memory, because the GPU has no room for them."""


@dataclass
class Need:
    """Bytes that a training takes, estimated."""

    place: Place
    free: int | None  # on the device before it began; None for a host
    state: int  # parameters, gradient, memory, copies of them, and a chunk that is measured
    row: int  # each row of a batch, of all members
    batch: int  # rows
    members: int | None
    data: int = 0  # what was brought so far

    @property
    def training(self) -> int:
        """All but the data."""
        return self.state + self.row * self.batch

    def smaller(self) -> str:
        """What would fit, in the words of `train`'s arguments."""
        left = int((self.free or 0) * USABLE) - self.data
        fitting = (left - self.state) // self.row
        if fitting < 1:
            members = left // (self.training // (self.members or 1) + 1)
            if self.members and members >= 1:
                return f"members={min(members, self.members - 1)} would fit"
            return "no batch would fit: take a smaller network, or device='cpu'"
        return f"batch={max(1, min(fitting, self.batch // 2))} would fit"


def need(place: Place, spec: Spec, chosen: Settings, dtype: str) -> Need:
    """The estimate before any data is brought."""
    size, members = BYTES[dtype], chosen.members or 1
    held = 2 * (2 + chosen.rule().memories) + 2  # a recording keeps a copy of all that moves
    neurons = sum(layer.n_out for layer in spec.layers)
    row = PER_NEURON * neurons + WINDOWS * Captured.UNROLLED * (spec.n_in + spec.n_out)
    return Need(
        place,
        free_bytes(place),
        state=size * (members * held * padded_size(spec) + inference.AT_ONCE),
        row=size * members * row,
        batch=chosen.batch,
        members=chosen.members,
    )


def brought(asked: Need, place: Place, x: Any, dtype: str, name: str) -> Rows:
    """Rows (N, n_in) at a place, or in the host's memory where they do not fit."""
    there, free = int(x.shape[0]) * int(x.shape[1]) * BYTES[dtype], free_bytes(place)
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
def explained(asked: Need | None) -> Iterator[None]:
    """Inside it a device that runs out of memory gives a DeviceMemoryError."""
    try:
        yield
    except MemoryError as error:
        if asked is None or asked.free is None or isinstance(error, DeviceMemoryError):
            raise
        raise DeviceMemoryError(
            f"{asked.place.name} ran out of memory: {shown(asked.free)} were free, and this "
            f"training takes about {shown(asked.data + asked.training)} ({shown(asked.data)} of "
            f"data, {shown(asked.state)} of parameters and what belongs to them, "
            f"{shown(asked.row * asked.batch)} for batches of {asked.batch}"
            + (f" of {asked.members} members" if asked.members else "")
            + f"); {asked.smaller()}"
        ) from error
