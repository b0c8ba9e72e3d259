"""Losses: value and delta against PyTorch and against exact decimals, for any finite number."""

from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import example, given, strategies as st

from xpmlp.devices.namespace import to_host, to_place
from xpmlp.losses import LOSSES, Loss, loss, softmax

NAMES = [*LOSSES, "huber:0.3", "quantile:0.1,0.5,0.9", "cross_entropy:0.1"]
MANY = "quantile:" + ",".join(f"{level / 12:.3f}" for level in range(1, 12))
FLOATS = ("float32", "float64")

AGREEMENT = 1e-10  # with PyTorch in float64, where a row's parts of about 10 may cancel to 1e-3
NAMESPACE = {"float32": 2e-5, "float64": 5e-14}  # roundings of exp and log, and cancelling parts
ROUNDINGS = 16  # of a value's largest part, each half an epsilon
DIGITS = 60  # of the decimal reference; float64 has 17
FARTHEST = Decimal(10) ** 5  # exp of this overflows any dtype, and is still quick in decimals


def sample(name, rng, lead=(6,), n_out=3):
    """Scores (*lead, n_out) and targets this loss accepts."""
    measure = loss(name)
    score = 3 * rng.standard_normal((*lead, n_out * measure.scores_per_target))
    if measure.labels == "classes":
        return score, rng.dirichlet([0.5] * n_out, lead)
    if measure.labels == "binary":
        return score, rng.choice([0.0, 1.0, 0.3], score.shape)
    if name == "poisson":
        return score, rng.poisson(2, score.shape).astype(float)
    return score, 3 * rng.standard_normal((*lead, n_out))


@pytest.mark.parametrize("name", [*NAMES, MANY])
def test_value_and_delta_match_pytorch(name, rng, torch, torch_loss):
    score, target = sample(name, rng, (200,))
    leaf = torch.from_numpy(score).requires_grad_()
    reference = torch_loss(name)(leaf, torch.from_numpy(target))
    reference.sum().backward()
    measure = loss(name)
    near = {"rtol": AGREEMENT, "atol": AGREEMENT}
    np.testing.assert_allclose(measure.value(np, score, target), reference.detach(), **near)
    np.testing.assert_allclose(measure.delta(np, score, target), leaf.grad, **near)


@pytest.mark.parametrize("name", [*NAMES, MANY])
def test_delta_is_the_derivative_of_the_value(name, rng, torch):
    import array_api_compat.torch as xp

    score, target = sample(name, rng, (200,))
    leaf = torch.from_numpy(score).requires_grad_()
    measure = loss(name)
    measure.value(xp, leaf, torch.from_numpy(target)).sum().backward()
    delta = measure.delta(np, score, target)
    np.testing.assert_allclose(delta, leaf.grad, rtol=AGREEMENT, atol=AGREEMENT)


@pytest.mark.parametrize("name", [*NAMES, MANY])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("lead", [(5,), (3, 5)])
def test_matches_numpy_on_every_namespace(place, name, dtype, lead, rng):
    score, target = (part.astype(dtype) for part in sample(name, rng, lead))
    measure = loss(name)
    s, t = (to_place(place, part, dtype) for part in (score, target))
    near = {"rtol": NAMESPACE[dtype], "atol": NAMESPACE[dtype]}
    value = to_host(measure.value(place.xp, s, t))
    assert measure.delta(np, score, target).shape == score.shape
    assert value.dtype == dtype
    assert value.shape == lead
    np.testing.assert_allclose(value, measure.value(np, score, target), **near)
    for actual, expected in (
        (measure.delta(place.xp, s, t), measure.delta(np, score, target)),
        (measure.link(place.xp, s), measure.link(np, score)),
    ):
        assert to_host(actual).dtype == dtype
        assert actual.shape == expected.shape
        np.testing.assert_allclose(to_host(actual), expected, **near)


@pytest.mark.parametrize("name", NAMES)
def test_does_not_modify_its_arguments(name, rng):
    score, target = sample(name, rng)
    originals = score.copy(), target.copy()
    measure = loss(name)
    measure.value(np, score, target)
    measure.delta(np, score, target)
    measure.link(np, score)
    assert np.array_equal(score, originals[0])
    assert np.array_equal(target, originals[1])


# Any finite number, checked against exact decimal arithmetic


def exp(x: Decimal) -> Decimal:
    """exp(x), clipped beyond +-FARTHEST: larger than any dtype's maximum, or 0."""
    if x < -FARTHEST:
        return Decimal(0)
    return min(x, FARTHEST).exp()


def true_value(name: str, score: list[float], target: list[float]) -> tuple[Decimal, Decimal]:
    """The exact loss of one row, and the magnitude of its largest term."""
    word, _, arguments = name.partition(":")
    numbers = [Decimal(float(piece)) for piece in arguments.split(",") if piece]
    s, t = ([Decimal(v) for v in part] for part in (score, target))
    if word == "quantile":
        t = t * (len(s) // len(t))
    e = [a - b for a, b in zip(s, t, strict=word != "gaussian")]
    if word == "squared_error":
        parts = [v * v / 2 for v in e]
    elif word == "absolute_error":
        parts = [abs(v) for v in e]
    elif word == "huber":
        h = numbers[0] if numbers else Decimal(1)
        parts = [v * v / 2 if abs(v) <= h else h * (abs(v) - h / 2) for v in e]
    elif word == "quantile":
        levels = [q for q in numbers or [Decimal("0.5")] for _ in target]
        parts = [max(-q * v, (1 - q) * v) for q, v in zip(levels, e, strict=True)]
    elif word == "gaussian":
        log_variances = s[len(t) :]
        parts = [v * v * exp(-w) / 2 for v, w in zip(e, log_variances, strict=True)]
        parts += [w / 2 for w in log_variances]
    elif word == "poisson":
        parts = [exp(a) - (b * (1 + a - b.ln()) if b else 0) for a, b in zip(s, t, strict=True)]
    elif word == "binary_cross_entropy":
        log_terms = [(1 + exp(-abs(a))).ln() for a in s]
        up, down = [max(a, Decimal(0)) for a in s], [max(-a, Decimal(0)) for a in s]
        linear = [b * d + (1 - b) * u for b, u, d in zip(t, up, down, strict=True)]
        parts = [v + w for v, w in zip(linear, log_terms, strict=True)]
        return sum(parts), max(Decimal(1), *linear)
    else:
        q = numbers[0] if numbers else Decimal(0)
        smoothed = [(1 - q) * b + q / len(t) for b in t]
        shifted = [a - max(s) for a in s]
        total = sum(exp(v) for v in shifted).ln()
        parts = [w * (total - v) for w, v in zip(smoothed, shifted, strict=True)]
        return sum(parts), max(
            Decimal(1), *(abs(v * w) for v, w in zip(shifted, smoothed, strict=True))
        )
    return sum(parts), max(map(abs, parts))


def finite(dtype, low=None, high=None):
    width = np.finfo(dtype).bits
    bounds = {"min_value": low, "max_value": high} if low is not None else {}
    return st.floats(width=width, allow_nan=False, allow_infinity=False, **bounds)


def rows(name, dtype):
    """Finite scores and targets of one row that the loss accepts."""
    measure = loss(name)
    count = 3
    n_out = count * measure.scores_per_target
    scores = st.lists(finite(dtype), min_size=n_out, max_size=n_out) | st.lists(
        finite(dtype, -200, 200), min_size=n_out, max_size=n_out
    )
    if measure.labels == "classes":
        one_hot = st.sampled_from(np.eye(n_out).tolist())
        return st.tuples(scores, one_hot | st.just([0.5, 0.25, 0.25]))
    if measure.labels == "binary":
        return st.tuples(scores, st.lists(finite(dtype, 0, 1), min_size=n_out, max_size=n_out))
    low = 0.0 if name == "poisson" else None
    high = float(np.finfo(dtype).max) if name == "poisson" else None
    return st.tuples(scores, st.lists(finite(dtype, low, high), min_size=count, max_size=count))


def extremes(name, dtype):
    """Rows of the largest and smallest numbers, in every combination of signs."""
    measure = loss(name)
    large, small = float(np.finfo(dtype).max), float(np.finfo(dtype).smallest_subnormal)
    targets = {"classes": ([0, 1, 0],), "binary": ([0, 1, 0.5],)}.get(
        measure.labels, ([large, small, 0.0], [0.0, large, small])
    )
    if measure.labels == "none" and name != "poisson":
        targets += ([-large, large, -small],)
    scores = ([large, -large, small], [-large, -large, -large], [large, large, 0.0])
    for s in scores:
        for t in targets:
            yield s * measure.scores_per_target, t


def check_row(name, dtype, score, target):
    """Check that the value is exact up to rounding, and inf only where it exceeds the dtype."""
    s, t = (np.array([part], dtype=dtype) for part in (score, target))
    measure, info = loss(name), np.finfo(dtype)
    with np.errstate(all="ignore"):
        value = measure.value(np, s, t)[0]
        delta = measure.delta(np, s, t)
        link = measure.link(np, s)
    assert not np.isnan(value)
    assert not np.isnan(delta).any()
    assert not np.isnan(link).any()
    with localcontext() as context:
        context.prec, context.Emax, context.Emin = DIGITS, 10**17, -(10**17)
        exact, part = true_value(name, s[0].tolist(), t[0].tolist())
        slack = ROUNDINGS * Decimal(float(info.eps))
        largest = Decimal(float(info.max))
        if np.isposinf(value):
            assert exact + slack * part > largest, f"inf, but the value is {exact:.6e}"
            return
        assert np.isfinite(value)
        near = slack * part + ROUNDINGS * Decimal(float(info.smallest_subnormal))
        assert abs(Decimal(float(value)) - exact) <= near, f"{value}, but it is {exact:.17e}"


# poisson cancels and has its own test; at level 0.1 an overflowing difference has a finite loss
ACCURATE = [*(name for name in NAMES if name != "poisson"), "quantile:0.1"]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ACCURATE)
def test_value_is_accurate_for_any_finite_number(name, dtype):
    for score, target in extremes(name, dtype):
        check_row(name, dtype, score, target)

    @given(rows(name, dtype))
    def holds(row):
        check_row(name, dtype, *row)

    holds()


def poisson_value(dtype, score, target):
    with np.errstate(all="ignore"):
        s, t = np.array([[score]], dtype=dtype), np.array([[target]], dtype=dtype)
        value = loss("poisson").value(np, s, t)[0]
        delta = loss("poisson").delta(np, s, t)[0, 0]
    with localcontext() as context:
        context.prec, context.Emax, context.Emin = DIGITS, 10**17, -(10**17)
        exact, _ = true_value("poisson", s[0].tolist(), t[0].tolist())
        return float(value), float(delta), exact


@pytest.mark.parametrize("dtype", FLOATS)
def test_poisson_is_never_nan_and_infinite_only_beyond_the_dtype(dtype):
    info = np.finfo(dtype)
    largest = float(info.max)
    top = float(np.log(info.max))

    @given(
        finite(dtype) | finite(dtype, -100, 100),
        finite(dtype, 0.0, largest) | finite(dtype, 0, 1000),
    )
    @example(largest, 0.0)
    @example(-largest, 0.0)
    @example(largest, largest)
    @example(-largest, largest)
    @example(0.0, float(info.smallest_subnormal))
    @example(float(np.float32(0.9 * top)), float(info.smallest_subnormal))
    @example(float(np.float32(top - 0.01)), largest)
    @example(float(np.float32(top + 0.01)), largest)
    @example(float(np.float32(top + 0.3)), largest / 2)
    def holds(score, target):
        value, delta, exact = poisson_value(dtype, score, target)
        assert not np.isnan(value)
        assert not np.isnan(delta)
        # exp(score) has the relative error that rounding the score to half an epsilon causes
        size = Decimal(float(info.eps)) * ROUNDINGS * Decimal(1 + abs(score))
        if np.isinf(value):
            assert value > 0
            assert exact * (1 + size) > Decimal(largest), f"inf, but the value is {exact:.6e}"

    holds()


@pytest.mark.parametrize("dtype", FLOATS)
def test_poisson_is_zero_at_a_perfect_fit_and_never_negative(dtype):
    eps = float(np.finfo(dtype).eps)

    @given(finite(dtype, float(np.float32(1e-3)), 1e6), st.sampled_from([0.0, 1e-3, -1e-3, 0.1]))
    @example(1e6, 0.0)
    @example(3.0, 0.0)
    def holds(target, off):
        score = float(np.asarray(np.log(target) + off, dtype=dtype))
        value, _, exact = poisson_value(dtype, score, target)
        # u = score - log(target) has an error of eps * (1 + |score|), the value t (exp(u) - 1 - u)
        # a slope of t |u| there, and the rounding of exp(u) - 1 - u itself is eps * t |u|
        blur = ROUNDINGS * eps * (1 + abs(score))
        allowed = target * (abs(off) + blur) * blur
        assert abs(value - float(exact)) <= allowed

    holds()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ["cross_entropy", "cross_entropy:0.1", "binary_cross_entropy"])
def test_probabilities_are_valid_for_any_finite_score(name, dtype):
    eps = float(np.finfo(dtype).eps)

    @given(rows(name, dtype))
    def holds(row):
        score = np.array([row[0]], dtype=dtype)
        with np.errstate(over="ignore"):
            p = loss(name).link(np, score)
        assert np.all((p >= 0) & (p <= 1))
        if name.startswith("cross"):
            assert abs(p.sum() - 1) <= 4 * eps

    holds()


# Links


def test_links_map_scores_to_predictions(rng):
    score = rng.standard_normal((4, 3))
    e = np.exp(score)
    expected = {
        "poisson": e,
        "binary_cross_entropy": e / (1 + e),
        "cross_entropy": e / e.sum(axis=-1, keepdims=True),
        "cross_entropy:0.1": e / e.sum(axis=-1, keepdims=True),
    }
    expected["gaussian"] = score[:, :1]  # the mean, without the log variance
    for name in NAMES:
        prediction = loss(name).link(np, score)
        np.testing.assert_allclose(prediction, expected.get(name, score), rtol=1e-14)


def test_softmax_is_invariant_to_a_shift_of_all_scores(rng):
    score = rng.integers(-20, 20, (4, 3)).astype(float)  # integers: the sums are exact
    assert np.array_equal(softmax(np, score + 1e6), softmax(np, score))


def test_delta_of_a_canonical_link_is_prediction_minus_target(rng):
    # with the canonical link, the derivative of the loss is prediction - target
    for name in ("squared_error", "poisson", "binary_cross_entropy", "cross_entropy"):
        score, target = sample(name, rng)
        measure = loss(name)
        expected = measure.link(np, score) - target
        np.testing.assert_allclose(measure.delta(np, score, target), expected, atol=1e-14)


def test_smoothing_moves_the_target_towards_uniform(rng):
    score, target = sample("cross_entropy", rng)
    smoothed = 0.9 * target + 0.1 / 3
    actual = loss("cross_entropy:0.1").value(np, score, target)
    np.testing.assert_allclose(actual, loss("cross_entropy").value(np, score, smoothed), rtol=1e-13)


def test_the_best_constant_of_a_quantile_loss_is_the_quantile(rng):
    draws = np.sort(rng.standard_normal(1001))
    for q in (0.1, 0.5, 0.9):
        costs = [
            loss(f"quantile:{q}").value(np, np.full((1001, 1), c), draws[:, None]).sum()
            for c in draws
        ]
        assert int(np.argmin(costs)) == int(q * 1001)


def test_labels_and_scores_per_target_of_every_loss():
    actual = {name: (loss(name).labels, loss(name).scores_per_target) for name in NAMES}
    assert actual == {
        "squared_error": ("none", 1),
        "absolute_error": ("none", 1),
        "huber": ("none", 1),
        "huber:0.3": ("none", 1),
        "poisson": ("none", 1),
        "quantile": ("none", 1),
        "quantile:0.1,0.5,0.9": ("none", 3),
        "binary_cross_entropy": ("binary", 1),
        "gaussian": ("none", 2),
        "cross_entropy": ("classes", 1),
        "cross_entropy:0.1": ("classes", 1),
    }


# Names and functions


@pytest.mark.parametrize("name", NAMES)
def test_a_stored_name_restores_the_loss(name, rng):
    measure = loss(name)
    restored = loss(measure.name)
    score, target = sample(name, rng)
    assert restored.name == measure.name
    assert np.array_equal(restored.value(np, score, target), measure.value(np, score, target))


def test_a_user_loss_is_value_and_delta(place):
    def cube(xp, score, target):
        e = score - target
        return xp.sum(xp.abs(e) ** 3, axis=-1), 3 * e * xp.abs(e)

    measure = loss(cube)
    s, t = to_place(place, np.array([[2.0, -1.0]])), to_place(place, np.zeros((1, 2)))
    assert to_host(measure.value(place.xp, s, t)) == pytest.approx([9.0])
    assert to_host(measure.delta(place.xp, s, t)) == pytest.approx(np.array([[12.0, -3.0]]))
    assert to_host(measure.link(place.xp, s)) == pytest.approx(np.array([[2.0, -1.0]]))
    assert (measure.name, measure.labels, measure.scores_per_target) == (None, "none", 1)


def test_accepts_a_loss_object():
    custom = Loss(lambda xp, s, t: s, lambda xp, s, t: t, lambda xp, s: s)
    assert loss(custom) == custom


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("mse", "loss 'mse' is unknown; here it is 'squared_error'. Known: absolute_error"),
        ("squared_eror", "did you mean 'squared_error'"),
        ("crossentropy", "did you mean 'cross_entropy'"),
        ("huber:0", "threshold must be positive and finite; got 0.0"),
        ("huber:-1", "threshold must be positive and finite; got -1.0"),
        ("huber:nan", "threshold must be positive and finite"),
        ("huber:inf", "threshold must be positive and finite"),
        ("quantile:0", r"quantiles must be in \(0, 1\); got 0"),
        ("quantile:0.5,1", r"quantiles must be in \(0, 1\); got 0.5, 1"),
        ("quantile:nan", "quantiles must be in"),
        ("cross_entropy:1", r"label smoothing must be in \[0, 1\); got 1"),
        ("cross_entropy:-0.1", "label smoothing must be in"),
        ("cross_entropy:nan", "label smoothing must be in"),
        ("poisson:3", "takes no argument"),
        (3, "a name or a function"),
    ],
)
def test_an_invalid_loss_raises_value_error(wrong, message):
    with pytest.raises(ValueError, match=message):
        loss(wrong)


def test_a_user_loss_that_returns_no_pair_raises():
    def careless(xp, score, target):
        return xp.sum(score - target, axis=-1)

    x = np.ones((1, 1))
    for call in (loss(careless).value, loss(careless).delta):
        with pytest.raises(TypeError, match=r"careless must return the pair \(value, delta\)"):
            call(np, x, x)
