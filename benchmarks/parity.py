"""The same trainings on NumPy and elsewhere, side by side: what "the same math" comes to.

Used by the tests on every namespace, by `scripts/parity.py` for a person, and by
`scripts/gpu_check.py` on a GPU.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from xpmlp.devices.namespace import CPU, Place, to_host, to_place
from xpmlp.losses import loss
from xpmlp.random import Stream, generator
from xpmlp.spec import Spec
from xpmlp.training.model import Model
from xpmlp.training.train import train

ROWS = 60
STEPS = 200
ALLOWED = {  # relative to the largest parameter, or to the largest loss
    "float64": 1e-9,  # 200 steps of reordered sums
    "float32": 1e-4,
}


class Case(NamedTuple):
    """One training: a network and the arguments of `train`."""

    name: str
    spec: Spec
    arguments: Mapping[str, Any]


class Difference(NamedTuple):
    """What a case came to on two places."""

    case: str
    dtype: str
    what: str  # "parameters" or "losses"
    here: float  # a number of the first, to look at: the last loss
    there: float
    largest: float  # relative difference
    allowed: float

    @property
    def passed(self) -> bool:
        return self.largest <= self.allowed


def case(name: str, sizes: str, **arguments: Any) -> Case:
    network = {k: arguments.pop(k) for k in ("activation", "dropout", "loss") if k in arguments}
    return Case(name, Spec.parse(sizes, **network), arguments)


CASES = (
    case("linear, sgd", "5-2", optimizer="sgd", learning_rate=0.05),
    case("relu, adam", "5-16-2"),
    case("four layers of tanh, nesterov", "5-8-8-8-2", activation="tanh", optimizer="nesterov"),
    case("classes, dropout", "5-16-8-3", dropout=0.3, loss="cross_entropy"),
    case("two classes, momentum", "5-16-1", loss="binary_cross_entropy", optimizer="momentum"),
    case("silu, smoothing, adamw", "5-16-3", activation="silu", loss="cross_entropy:0.1",
         optimizer="adamw"),
    case("gelu, huber, rmsprop", "5-16-2", activation="gelu", loss="huber:0.5",
         optimizer="rmsprop"),
    case("elu, poisson, adagrad", "5-8-1", activation="elu", loss="poisson", optimizer="adagrad",
         learning_rate=0.01),
    case("softplus, quantiles", "5-16-3", activation="softplus", loss="quantile:0.1,0.5,0.9"),
    case("mish, l1, l2, clipped", "5-16-2", activation="mish", l1=1e-4, l2=1e-3, clip=0.5),
    case("selu, one row at a time", "5-8-1", activation="selu", batch_size=1, learning_rate=1e-4),
    case("moving rate, weight decay", "5-16-2", activation="leaky_relu", weight_decay=0.1,
         schedule="warmup:3 * cosine"),
    case("weighted rows", "5-16-2", activation="sigmoid", sample_weight="drawn"),
    case("three members, dropout", "5-16-2", members=3, learning_rate=(1e-3, 3e-3, 1e-2),
         dropout=0.2),
    case("scikit-learn's adam, held-out rows", "5-16-2", optimizer="adam_sklearn",
         X_val="drawn"),
)  # fmt: skip


def rows_for(spec: Spec, dtype: str, place: Place, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """X, y and what else a case draws, at `place`: the same numbers everywhere."""
    rng = generator(20261123, Stream.SPLIT)
    measure = loss(spec.loss)
    x = rng.standard_normal((ROWS, spec.n_in))
    if measure.labels == "classes":
        y = rng.dirichlet([0.3] * spec.n_out, ROWS)
    elif measure.labels == "binary":
        y = rng.uniform(0, 1, (ROWS, spec.n_out)).round()
    else:
        y = x[:, :1] ** 2 + 0.1 * rng.uniform(0, 1, (ROWS, measure.targets(spec.n_out)))
    drawn = {"X": to_place(place, x, dtype), "y": to_place(place, y, dtype)}
    if "sample_weight" in arguments:
        drawn["sample_weight"] = to_place(place, rng.uniform(0, 2, ROWS), dtype)
    if "X_val" in arguments:
        drawn |= {"X_val": drawn["X"], "y_val": drawn["y"]}
    return drawn


def trained(place: Place, asked: Case, dtype: str) -> Model:
    """The model of a case, trained for STEPS updates where `place` is."""
    arguments = dict(asked.arguments)
    batch = arguments.setdefault("batch_size", 16)
    arguments["epochs"] = max(1, STEPS // -(-ROWS // batch))
    arguments |= rows_for(asked.spec, dtype, place, arguments)
    return train(asked.spec, arguments.pop("X"), arguments.pop("y"), dtype=dtype, **arguments)


def relative(here: Any, there: Any) -> float:
    """The largest difference, relative to the largest number of the first."""
    return float(abs(here - there).max() / (abs(here).max() + 1e-300))


def compare(place: Place, asked: Case, dtype: str) -> Difference:
    """A case on NumPy and at `place`: parameters in float64, the losses' course in float32."""
    here, there = trained(CPU, asked, dtype), trained(place, asked, dtype)
    losses = [CPU.xp.asarray(model.history["loss"]) for model in (here, there)]
    first, second = (float(values[-1].mean()) for values in losses)
    if dtype == "float64":
        pair, what = (here.flat, to_host(there.flat)), "parameters"
    else:
        pair, what = (losses[0], losses[1]), "losses"
    return Difference(asked.name, dtype, what, first, second, relative(*pair), ALLOWED[dtype])
