"""What a trainer's steps run on: a namespace, a way to run elementwise functions, a beginning."""

from collections.abc import Callable
from typing import Any, NamedTuple

from xpmlp.backends.cpu import Workspace
from xpmlp.backends.namespace import CPU, Place
from xpmlp.core.apply import plain
from xpmlp.core.types import Namespace


class Engine(NamedTuple):
    """For `gradient` and `update` of one trainer, in one thread."""

    xp: Namespace
    apply: Callable[..., Any]
    restart: Callable[[], None]  # called before every step: what the last one made may go


def slow(place: Place) -> Engine:
    """The namespace as it is: what every other engine is compared with."""
    return Engine(place.xp, plain, lambda: None)


def engine(place: Place) -> Engine:
    """The fastest that there is at a place."""
    if place.xp is not CPU.xp:
        return slow(place)
    workspace = Workspace()
    return Engine(workspace.xp, workspace.apply, workspace.restart)
