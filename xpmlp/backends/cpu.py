"""What NumPy needs to run the math well."""

from contextlib import AbstractContextManager

import numpy as np


def quiet() -> AbstractContextManager[None]:
    """No warnings where floats overflow on the way to a result that is checked by itself."""
    return np.errstate(all="ignore")
