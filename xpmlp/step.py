"""One training step: `gradient` fills a state's gradient, `update` spends it.

Only these functions write, and only into the buffers of State, which never move. That is what
lets the same step be recorded once as a CUDA graph and replayed.
"""

from collections.abc import Callable, Sequence
from math import prod
from types import SimpleNamespace
from typing import Any, NamedTuple

from xpmlp.apply import account, plain
from xpmlp.layout import blocks, padded_size, starts, windows
from xpmlp.losses import loss
from xpmlp.network import backward, forward
from xpmlp.optimizers import Optimizer, optimizer as find_optimizer
from xpmlp.shape_ledger import bad_target, bad_weight
from xpmlp.spec import Spec
from xpmlp.types import Array, Namespace


class Batch(NamedTuple):
    """Rows to learn from, with what each weighs.

    Parameters
    ----------
    x : array of shape (..., B, n_in)
    target : array of shape (..., B, n_targets)
        Numbers, 0 or 1, or one-hot rows, as the loss has them.
    weight : array of shape (..., B)
        For row i with the sample weight s_i it is s_i / (mean of s over the training rows x real
        rows of the batch), 1 / B without sample weights; 0 marks padding. So a batch's gradient is
        unbiased.

    Examples
    --------
    >>> x = np.linspace(-1, 1, 64)[:, None]
    >>> rows = Batch(x, x**2, weight=np.full(64, 1 / 64))
    >>> float(rows.weight.sum())
    1.0
    """

    x: Array
    target: Array
    weight: Array


class Matrix(NamedTuple):
    """Where a layer's weights lie in a flat buffer, for a rule that sees matrices."""

    start: int
    shape: tuple[int, ...]  # (n_in, n_out), with axes of its own before them

    def window(self, xp: Namespace, flat: Array) -> Array:
        """The view onto `flat` (..., P), (..., n_in, n_out)."""
        part = flat[..., self.start : self.start + prod(self.shape)]
        return xp.reshape(part, (*flat.shape[:-1], *self.shape))

    def hyperparameter(self, xp: Namespace, value: Any, size: int) -> Any:
        """A hyper-parameter that broadcasts against (..., P) as one against the matrix."""
        if not hasattr(value, "ndim"):
            return value
        if value.ndim and value.shape[-1] == size:
            return self.window(xp, value)
        return value[..., *(None,) * (len(self.shape) - 1)] if value.ndim else value


class State(NamedTuple):
    """All that training changes: flat buffers, and the layers' windows onto them.

    `new_state` makes one, `gradient` and `update` write into it.

    Attributes
    ----------
    step : array of shape (), int64
        Updates done so far.
    params, grad : array of shape (..., P)
        Parameters and their gradient; P counts padding.
    slots : tuple of arrays of shape (..., P)
        The optimizer's.
    layers, grads : tuple
        Windows onto params and grad: per layer its blocks, such as `layers[0].weights`
        (..., n_in, n_out) and `layers[0].bias` (..., 1, n_out).
    t : array of shape ()
        The number of the last update in params' dtype, for its rule.
    matrices : tuple of Matrix
        The weights, where the optimizer has a matrix rule.
    """

    step: Array
    params: Array
    grad: Array
    slots: tuple[Array, ...]
    layers: tuple[Any, ...]
    grads: tuple[Any, ...]
    t: Array
    matrices: tuple[Matrix, ...] = ()


def new_state(xp: Namespace, spec: Spec, optimizer: Optimizer | str, params: Array) -> State:
    """A state at step 0.

    Parameters
    ----------
    xp : namespace
        Of the Array API, such as NumPy.
    spec : Spec
    optimizer : str, Optimizer or rule
        As for `train`; how many slots there are.
    params : array of shape (..., P)
        Flat buffer to start from a copy of, such as `initializers.initial` gives.

    Returns
    -------
    State

    Raises
    ------
    ValueError
        Where P is not the network's.

    Examples
    --------
    >>> from xpmlp.initializers import initial
    >>> spec = Spec.parse("2-16-1")
    >>> state = new_state(np, spec, "adam", initial(spec, seed=0))
    >>> state.layers[0].weights.shape, len(state.slots)
    ((2, 16), 2)
    """
    if params.shape[-1] != padded_size(spec):
        raise ValueError(
            f"a flat buffer of network {spec} has {padded_size(spec)} elements (padding "
            f"included); got {params.shape[-1]}"
        )
    slots = find_optimizer(optimizer).slots
    params = xp.asarray(params, copy=True)
    grad = xp.zeros_like(params)
    return State(
        step=xp.zeros((), dtype=xp.int64, device=params.device),
        params=params,
        grad=grad,
        slots=tuple(xp.zeros_like(params) for _ in range(slots)),
        layers=windows(xp, spec, params),
        grads=windows(xp, spec, grad),
        t=xp.zeros((), dtype=params.dtype, device=params.device),
        matrices=matrices_of(spec) if find_optimizer(optimizer).matrix_rule else (),
    )


def matrices_of(spec: Spec) -> tuple[Matrix, ...]:
    """The layers' weights: blocks of two axes that decay."""
    pairs = zip(starts(spec), blocks(spec), strict=False)
    return tuple(Matrix(at, b.shape) for at, b in pairs if b.decay_factor and min(b.shape[-2:]) > 1)


def outcome(
    xp: Namespace,
    value: Callable[..., Array],
    delta: Callable[..., Array],
    score: Array,
    target: Array,
    weight: Array,
) -> tuple[Array, Array]:
    """Each row's loss (..., B), and dL/dscore (..., B, n_out), times the row's weight
    (..., B, 1)."""
    return value(xp, score, target), delta(xp, score, target) * weight


def weighted(xp: Namespace, losses: Array, weight: Array) -> Array:
    """The batch's loss (...) of its rows' (..., B)."""
    return xp.vecdot(losses, weight)


def gradient(
    xp: Namespace,
    spec: Spec,
    state: State,
    batch: Batch,
    masks: Sequence[Array | None] = (),
    *,
    apply: Callable[..., Any] = plain,
) -> Array:
    """Fill state.grad with the gradient of the batch's weighted mean loss.

    Parameters
    ----------
    xp : namespace
        That of the arrays.
    spec : Spec
    state : State
    batch : Batch
    masks : sequence of arrays or None
        Dropout factors per layer, (..., B, n_out); none by default.
    apply : function
        How the functions of a step are run; for backends.

    Returns
    -------
    array of shape (...)
        The loss.

    Raises
    ------
    ShapeError
        Where rows, targets, weights and layers do not fit.

    Examples
    --------
    >>> spec = Spec.parse("1-1")
    >>> state = new_state(np, spec, "sgd", np.zeros(64))
    >>> rows = Batch(np.ones((1, 1)), np.full((1, 1), 2.0), np.ones(1))
    >>> float(gradient(np, spec, state, rows)), state.grads[0].bias
    (2.0, array([[-2.]]))
    """
    measure = loss(spec.loss)
    traces = forward(xp, spec, state.layers, batch.x, masks, apply=apply)
    score, target, weight = traces[-1].y, batch.target, batch.weight
    if target.shape[-2:] != (score.shape[-2], measure.targets(score.shape[-1])):
        raise bad_target(spec, target.shape, score.shape)
    if weight.shape[-1:] != score.shape[-2:-1]:
        raise bad_weight(weight.shape, score.shape)
    rows = (measure.value, measure.delta, score, target, weight[..., None])
    losses, g = apply(outcome, xp, *rows)
    value = apply(weighted, xp, losses, weight)
    backward(xp, spec, state.layers, traces, g, state.grads, apply=apply)
    return value


def l1_cost(xp: Namespace, strength: Array, scale: Any, theta: Array) -> Array:
    """strength * scale * |theta|, parameter by parameter."""
    return scale * strength * xp.abs(theta)


def l1_pull(xp: Namespace, strength: Array, scale: Any, theta: Array, g: Array) -> Any:
    above, below = (xp.astype(side, theta.dtype) for side in (theta > 0, theta < 0))
    return (g + scale * strength * (above - below),)


def l2_cost(xp: Namespace, strength: Array, scale: Any, theta: Array) -> Array:
    """strength * scale / 2 * theta**2, parameter by parameter."""
    return 0.5 * scale * strength * theta * theta


def l2_pull(xp: Namespace, strength: Array, scale: Any, theta: Array, g: Array) -> Any:
    return (g + scale * strength * theta,)


PENALTIES = {"l1": (l1_cost, l1_pull), "l2": (l2_cost, l2_pull)}


def penalize(
    xp: Namespace,
    state: State,
    name: str,
    strength: Array,
    scale: Any = 1.0,
    *,
    apply: Callable[..., Any] = plain,
) -> Array:
    """Add the gradient of the penalty "l1" or "l2" to state.grad; return the penalty (...).

    strength: an array that broadcasts against (..., P), 0 where nothing is penalized (biases).
    Once per step, never per row, batch part or rank.
    """
    cost, pull = PENALTIES[name]
    value = xp.sum(apply(cost, xp, strength, scale, state.params), axis=-1)
    apply(pull, xp, strength, scale, state.params, state.grad, into=(state.grad,))
    return value


def squared_norm(xp: Namespace, grad: Array) -> Array:
    """The Euclidean norm of each member's gradient, squared, (...)."""
    return xp.vecdot(grad, grad)


def shortened(xp: Namespace, limit: float, norm: Array, g: Array) -> Array:
    """The gradient g, of this norm, at most `limit` long (Pascanu et al. 2013)."""
    return g * (limit / xp.maximum(norm, xp.full_like(norm, limit)))


@account
def counted(xp: Namespace, step: Array, t: Array) -> tuple[Array, Array]:
    """The number of the update to come, whole and in t's dtype."""
    following = xp.asarray(step + 1)  # no scalar of NumPy's
    return following, xp.astype(following, t.dtype)


def update(
    xp: Namespace,
    optimizer: Optimizer | str,
    state: State,
    h: Any,
    *,
    apply: Callable[..., Any] = plain,
) -> None:
    """Move state.params by the optimizer's rule, spending state.grad.

    Parameters
    ----------
    xp : namespace
        That of the arrays.
    optimizer : str, Optimizer or rule
        The one of the state.
    state : State
    h : object
        The hyper-parameters as attributes, `h.learning_rate` among them (see `xpmlp.optimizers`).
    apply : function
        How the functions of a step are run; for backends.

    Examples
    --------
    >>> spec = Spec.parse("1-1")
    >>> state = new_state(np, spec, "sgd", np.zeros(64))
    >>> state.grad[...] = -2.0
    >>> update(np, "sgd", state, SimpleNamespace(learning_rate=0.1))
    >>> state.layers[0].bias
    array([[0.2]])
    """
    apply(counted, xp, state.step, state.t, into=(state.step, state.t))
    entry, moved = find_optimizer(optimizer), (state.params, *state.slots)
    flat, matrices = (state.params, state.grad, *state.slots), []
    for matrix in state.matrices:  # before the rule for vectors moves them too
        theta, g, *slots = (matrix.window(xp, buffer) for buffer in flat)
        size = state.params.shape[-1]
        own = {name: matrix.hyperparameter(xp, value, size) for name, value in vars(h).items()}
        results = apply(entry.matrix_rule, xp, SimpleNamespace(**own), state.t, theta, g, *slots)
        matrices.append(((theta, *slots), results))
    apply(entry.rule, xp, h, state.t, *flat, into=moved)
    for windows_, results in matrices:
        for window, result in zip(windows_, results, strict=True):
            window[...] = result
