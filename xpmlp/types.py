"""The two names that every signature uses."""

from typing import Any, TypeAlias

Array: TypeAlias = Any  # an array of any namespace: NumPy, CuPy, PyTorch, array-api-strict
Namespace: TypeAlias = Any  # an Array API namespace, always called xp
