"""Bad settings and devices, too little data, and training that is interrupted."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from fuzz.inputs.arrays import LABELS, ONES, PREDICT, N, X, Y, strict, tensor
from fuzz.inputs.case import Case, Refused, Same, Warned
from fuzz.inputs.interrupting import interrupt

CORE, ESTIMATORS = ("core",), ("estimators",)


def case(row: str, name: str, arguments: dict[str, Any], expected: Any, **options: Any) -> Case:
    """A case with constant arguments."""
    return Case(name, row, lambda: arguments, lambda: expected, **options)


def setting(name: str, value: Any, says: str | None = None, **options: Any) -> Case:
    """A setting out of its range: the error names it and its value."""
    pattern = f"(?i)got.*{re.escape(str(value)[:8])}" if says is None else says
    expected = Refused(name, pattern)
    return case("settings", f"{name}={str(value)[:20]}", {name: value}, expected, **options)


# Constant columns, a single class, one row


def little(id: str, arguments: dict[str, Any], says: str, **options: Any) -> Case:
    return case("little", id, arguments, Warned(says), **options)


ONE = {"X": X[:1], "y": Y[:1], "batch_size": 1}
LITTLE = [
    little("X of one number", {"X": X * 0 + 3}, "X .*constant"),
    little("X of zeros", {"X": X * 0}, "X .*constant"),
    little("constant columns", {"X": X[:1].repeat(N, axis=0)}, "X .*constant"),
    little("one row", ONE, "X has one row"),
    little("one row of float32", {"X": X[:1].astype("f4"), "y": Y[:1], "batch_size": 1}, "one row"),
    little("one row of labels", ONE | {"y": LABELS[:1]}, "one", task="labels"),
    little("a single class", {"y": LABELS * 0}, "y .*single class", task="labels"),
    little("a single class of ones", {"y": LABELS * 0 + 1}, "y .*single class", task="labels"),
    little("a single class, true", {"y": LABELS < 9}, "y .*single class", task="labels"),
    little(
        "a single class of texts", {"y": ["no"] * N}, "single class", task="labels",
        surfaces=ESTIMATORS,
    ),
    little("y constant", {"y": Y * 0 + 2}, ""),
    case("little", "one constant column", {"X": X * [1, 0, 1]}, Warned("")),
    case("little", "one row to predict", {"X": X[:1]}, Same({"X": X[:1].copy()}), calls=PREDICT),
    case("little", "X constant to predict", {"X": X * 0}, Same({"X": X * 0.0}), calls=PREDICT),
    case("little", "one column", {"X": X[:, :1]}, Same({"X": X[:, :1].copy()}),
         surfaces=ESTIMATORS),
]  # fmt: skip


# A batch larger than n


def large_batch(id: str, size: int, **given: Any) -> Case:
    rows = len(given.get("X", X))
    plain = given | {"batch_size": rows}
    return case("batch", id, given | {"batch_size": size}, Warned("(?i)batch.*clipped", plain))


BATCH = [
    large_batch("a batch of n + 1", N + 1),
    large_batch("a batch of a thousand", 1000),
    large_batch("a batch of 2**40", 2**40),
    large_batch("a batch of 2**70", 2**70),
    large_batch("a batch and a held-out set", 100, X_val=X, y_val=Y),
    large_batch("a batch and weights", 100, sample_weight=np.arange(1.0 * N)),
    large_batch("a batch of n + 1 in float32", N + 1, dtype="float32"),
    case("batch", "a batch of n", {"batch_size": N}, Same({"batch_size": N})),
]


# Settings

SETTINGS = [
    *(setting("learning_rate", value) for value in (-1.0, float("nan"), float("inf"), "fast", 1j)),
    setting("learning_rate", [0.1, 0.2], "(?i)2 values|0.1, 0.2"),
    setting("learning_rate", True, surfaces=CORE),
    *(setting("batch_size", value) for value in (0, -3, 2.5, "all", float("nan"))),
    *(setting("epochs", value) for value in (0, -1, 1.5, "many", None)),
    *(setting("seed", value) for value in (-1, "seed", float("nan"), 2**64)),
    setting("seed", 1.5),
    setting("seed", True, surfaces=CORE),
    *(setting("hidden", (value,), str(value)[:3]) for value in (0, -5, 2.5, "many", True, None)),
    setting("hidden", (4, 0), "0"),
    *(setting("dropout", value, str(value)) for value in (1.0, -0.1, float("nan"), "half", 7)),
    setting("dropout", (0.1, 0.2, 0.3), "3"),
    setting("dropout", True, "True", surfaces=CORE),
    *(setting("activation", value, str(value)) for value in ("rellu", "leaky_relu:7", 3)),
    setting("activation", len, "len"),
    *(setting("optimizer", value, str(value)) for value in ("adamm", 3)),
    *(setting("schedule", value, str(value)) for value in ("cosin", "step:x", 0.5)),
    setting("schedule", len, "len"),
    *(setting("clip", value) for value in (0, -1.0, float("nan"), "tight", float("inf"))),
    *(setting("weight_decay", value) for value in (-1, float("nan"), "some")),
    *(setting("l2", value) for value in (-1, float("nan"), "some", float("inf"))),
    *(setting("dtype", value, str(value)) for value in ("float16", "int64", 32)),
    *(setting("precision", value, str(value)) for value in ("half", "tf32")),
    *(setting("callbacks", value, "") for value in (len, "stop", [3])),
    *(setting("patience", value) for value in (0, -1, 2.5, "long")),
    *(setting("min_delta", value) for value in (-1.0, float("nan"), "some")),
    *(setting("members", value, surfaces=CORE) for value in (0, -1, 2.5, "two", True)),
    *(setting("keep", value, surfaces=CORE) for value in ("worst", 3)),
    setting("monitor", "loss", surfaces=CORE),
    *(setting("on_divergence", value, surfaces=CORE) for value in ("x", None, True, 3)),
    *(setting("checkpoint", value, surfaces=CORE) for value in (3, True, float("nan"), ["a"], len)),
    *(
        case(
            "settings",
            f"resume={value!r}",
            {"resume": value, "checkpoint": "run.ckpt"},
            Refused("resume", f"got {value!r}"),
            surfaces=CORE,
        )
        for value in ("yes", 1, 0, None, float("nan"))
    ),
    setting("resume", True, "give checkpoint=", surfaces=CORE),
    setting("initializer", "he_norml", "he_norml", surfaces=CORE),
    case(
        "settings",
        "beta1=-1",
        {"optimizer_params": {"beta1": -1.0}},
        Refused("beta1", "got -1"),
        surfaces=CORE,
    ),
    setting("optimizer_params", {"beta9": 0.5}, "beta9", surfaces=CORE),
    setting("loss", "sqared_error", "sqared_error"),
    setting("loss", len, "len"),
    setting("rate", 0.1, "learning_rate", surfaces=CORE),
    *(
        setting("class_weight", value, says, task="labels")
        for value, says in (
            ("even", ""),
            ({9: 1.0}, "names 9"),
            ({0: 1.0, 1: 1.0, 9: 1.0}, "names 9"),
            ({0: -1.0}, "at least 0"),
            ({0: float("nan")}, "at least 0"),
            ({0: "a"}, ""),
            (3, ""),
        )
    ),
]


# Devices

DEVICES = [
    *(
        case("devices", f"device={word!r}", {"device": word}, Refused("device", "Known"))
        for word in ("tpu", "gpu:-1", "gpu:x", "GPU", "cuda:", "cpu:0")
    ),
    case("devices", "device=0", {"device": 0}, Refused("device")),
    case("devices", "device=b'cpu'", {"device": b"cpu"}, Refused("device")),
    case("devices", "precision='tf32' on a CPU", {"precision": "tf32", "device": "cpu"},
         Refused("precision", "GPU")),
]  # fmt: skip


def on_other_device(argument: str, kind: str, move: Callable[[Any], Any]) -> Case:
    """One argument on another device than the others: it is moved."""
    arguments = {"X": X, "y": Y, "sample_weight": ONES}
    return Case(
        f"only {argument} on {kind}",
        "devices",
        lambda: arguments | {argument: move(arguments[argument]), "device": "cpu"},
        lambda: Same(arguments | {"device": "cpu"}),
    )


DEVICES += [
    on_other_device(argument, kind, move)
    for argument in ("X", "y", "sample_weight")
    for kind, move in (
        ("another device", lambda value: strict(value, "device1")),
        ("PyTorch", tensor),
    )
]


# Divergence: the last good weights are kept

LINEAR = {"optimizer": "sgd", "activation": "identity"}
LOST = Refused("learning_rate", r"(?i)diverged in epoch \d", (ValueError,), early=False)
DIVERGENCE = [
    case("divergence", f"{kind}", LINEAR | given, LOST)
    for kind, given in {
        "a rate of 1e10": {"learning_rate": 1e10, "epochs": 50},
        "a rate of 1e300": {"learning_rate": 1e300, "epochs": 20},
        "X scaled by 1e30": {"X": X * 1e30, "epochs": 50},
        "y scaled by 1e200": {"y": Y * 1e200, "epochs": 50},
        "a rate of 1e10 in float32": {"learning_rate": 1e10, "epochs": 50, "dtype": "float32"},
        "a penalty of 1e10": {"l2": 1e10, "epochs": 100},
    }.items()
] + [
    case("divergence", "one member of two", LINEAR | {"learning_rate": [1e-3, 1e10], "members": 2,
         "epochs": 50}, Warned(""), surfaces=CORE),
]  # fmt: skip


# Ctrl-C


class CtrlC:
    """A user's function during whose n-th call Ctrl-C is pressed."""

    def __init__(self, function: Callable[..., Any], call: int) -> None:
        self.function, self.remaining, self.__name__ = function, call, "mine"

    def __call__(self, *arguments: Any) -> Any:
        self.remaining -= 1
        if self.remaining == 0:
            interrupt()
        return self.function(*arguments)


def line(xp: Any, z: Any) -> Any:
    return z, xp.ones_like(z)


def half_square(xp: Any, score: Any, target: Any) -> Any:
    error = score - target
    return xp.sum(error * error, axis=-1) / 2, error


CUT = {
    "core": Refused("", "", (KeyboardInterrupt,), early=False),
    "estimators": Warned("interrupted"),
}
INTERRUPT = [
    Case(f"Ctrl-C in {kind}", "interrupt", make, lambda: CUT)
    for kind, make in {
        "the first epoch's callback": lambda: {"callbacks": [CtrlC(lambda report: None, 1)]},
        "a later callback": lambda: {"callbacks": [CtrlC(lambda report: None, 3)], "epochs": 9},
        "an activation": lambda: {"activation": CtrlC(line, 30), "epochs": 9},
        "a loss": lambda: {"loss": CtrlC(half_square, 30), "epochs": 9},
        "a schedule": lambda: {"schedule": CtrlC(lambda xp, now: 0.5, 5), "epochs": 9},
        "a held-out epoch": lambda: {
            "callbacks": [CtrlC(lambda report: None, 2)], "epochs": 9, "X_val": X, "y_val": Y,
        },
    }.items()
]  # fmt: skip


# More than the memory holds


class Exhausting:
    """An activation that runs out of memory for more than `fits` rows."""

    __name__ = "mine"

    def __init__(self, fits: int) -> None:
        self.fits = fits

    def __call__(self, xp: Any, z: Any) -> Any:
        if z.shape[-2] > self.fits:
            raise MemoryError(f"no memory for {z.shape}")
        return line(xp, z)


FULL = (MemoryError, ValueError)
MEMORY = [
    case("memory", kind, given, Refused(name, r"[\d,]+ bytes", FULL, early=False), **more)
    for kind, name, given, more in (
        ("a layer of 2**50", "hidden", {"hidden": (2**50,)}, {}),
        ("a layer of 2**70", "hidden", {"hidden": (2**70,)}, {}),
        ("two layers of 2**28", "hidden", {"hidden": (2**28, 2**28)}, {}),
        ("2**50 members", "members", {"members": 2**50}, {"surfaces": CORE}),
        ("a step of 12 rows", "batch_size", {"activation": Exhausting(4), "batch_size": 12}, {}),
        ("a step of 8 rows", "batch_size", {"activation": Exhausting(4), "batch_size": 8}, {}),
        ("a step in float32", "batch_size",
         {"activation": Exhausting(4), "batch_size": 8, "dtype": "float32"}, {}),
    )
]  # fmt: skip


CASES = [*LITTLE, *BATCH, *SETTINGS, *DEVICES, *DIVERGENCE, *INTERRUPT, *MEMORY]
