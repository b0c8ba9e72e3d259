"""Optional packages: imported where needed, and named with the line that installs them."""

from importlib import import_module
from types import ModuleType


class MissingExtraError(ImportError):
    """A package of an extra is not installed; the message has the line that installs it."""


def import_extra(module: str, extra: str) -> ModuleType:
    """The module of that name; MissingExtraError naming the extra where it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingExtraError(
            f"{package} is not usable here ({error}). Install it with: pip install 'xpmlp[{extra}]'"
        ) from error
