"""scikit-learn's base classes and decorators, as a type checker should see them.

Its own are untyped: of a class that inherits from them any attribute would pass, and a decorated
method would lose its signature.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, TypeVar

from sklearn.base import _fit_context
from sklearn.utils.metaestimators import available_if

if TYPE_CHECKING:

    class BaseEstimator:
        """What the estimators use of scikit-learn's."""

        def get_params(self, deep: bool = True) -> dict[str, Any]: ...
        def set_params(self, **params: Any) -> Self: ...
        def set_fit_request(self, **requests: bool | str | None) -> Self: ...
        def set_partial_fit_request(self, **requests: bool | str | None) -> Self: ...
        def set_score_request(self, **requests: bool | str | None) -> Self: ...
        def get_metadata_routing(self) -> Any: ...
        def _validate_params(self) -> None: ...
        def __getstate__(self) -> dict[str, Any]: ...
        def __sklearn_tags__(self) -> Any: ...

    class ClassifierMixin:
        """Tags alone."""

    class RegressorMixin:
        """Tags, and the request for `return_std`."""

        def set_predict_request(self, *, return_std: bool | str | None) -> Self: ...

else:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

__all__ = ["BaseEstimator", "ClassifierMixin", "RegressorMixin", "fit_context", "stochastic_only"]

LBFGS = "lbfgs"
Method = TypeVar("Method", bound=Callable[..., Any])


def fit_context(method: Method) -> Method:
    """`method`, before which the parameters are validated."""
    decorated: Method = _fit_context(prefer_skip_nested_validation=True)(method)
    return decorated


def has_partial_fit(est: Any) -> bool:
    """Whether `partial_fit` exists: AttributeError for the solver without epochs."""
    if est.solver == LBFGS:
        raise AttributeError(
            f"partial_fit is only available for stochastic optimizers. {est.solver} is not "
            "stochastic."
        )
    return True


def stochastic_only(method: Method) -> Method:
    """`method`, an attribute of estimators with a stochastic solver alone."""
    decorated: Method = available_if(has_partial_fit)(method)
    return decorated
