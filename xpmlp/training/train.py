"""`train` and `epochs`: the one place where a training is assembled."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from xpmlp.devices.namespace import running
from xpmlp.devices.words import choose, release
from xpmlp.spec import Spec
from xpmlp.training.begin import begin, drawn
from xpmlp.training.checks import warn_of_little
from xpmlp.training.data import Data, own_dtype, prepare
from xpmlp.training.interruption import interruption, patient
from xpmlp.training.labels import Labels
from xpmlp.training.loop import Report, reports, stop_members
from xpmlp.training.memory import brought, explained, need
from xpmlp.training.model import Model
from xpmlp.training.settings import settings
from xpmlp.training.steps import Run
from xpmlp.training.validation import probe

NOT_SETTINGS = (
    "loss", "device", "precision", "X_val", "y_val", "sample_weight", "sample_weight_val",
    "callbacks", "checkpoint", "resume",
)  # fmt: skip
BATCH = 32  # rows per update, where nobody says


def assemble(
    spec: Any,
    X: Any,
    y: Any,
    *,
    loss: Any = None,
    device: str | None = None,
    precision: str = "full",
    batch: int | None = None,
    X_val: Any = None,
    y_val: Any = None,
    sample_weight: Any = None,
    sample_weight_val: Any = None,
    **given: Any,
) -> Run:
    """A run at epoch 0 from the arguments of `train`, everything checked."""
    spec = Spec.parse(spec, loss=loss)
    chosen = settings(given | {"batch": BATCH if batch is None else batch}, NOT_SETTINGS)
    place = choose(device, X, precision)
    dtype = chosen.dtype or own_dtype(X)
    if (X_val is None) != (y_val is None):
        raise ValueError(f"{'X_val' if X_val is None else 'y_val'} is missing: give both or none")
    if sample_weight_val is not None and X_val is None:
        raise ValueError("sample_weight_val is given without X_val and y_val")
    asked = need(place, spec, chosen, dtype)
    bring = partial(brought, asked)
    with running(place), explained(asked):
        data, labels = prepare(
            X,
            y,
            spec,
            place,
            dtype,
            sample_weight=sample_weight,
            class_weight=chosen.class_weight,
            bring=bring,
        )
        held = None
        if X_val is not None:
            held, _ = prepare(
                X_val,
                y_val,
                spec,
                place,
                dtype,
                sample_weight=sample_weight_val,
                known=labels,
                suffix="_val",
                bring=bring,
            )
        probe(place, spec, chosen)
        warn(data, labels, 0 if batch is None else chosen.batch)
        params = drawn(place, spec, chosen, dtype)
        return begin(spec, chosen, place, data, held, labels, params, asked)


def warn(data: Data, labels: Labels, batch: int) -> None:
    """Of what trains, but not as the caller may think. batch: asked for, 0 where none was."""
    warn_of_little(data.x.x, None if labels.classes is None else data.target)
    if batch > data.rows:
        warnings.warn(
            f"batch is larger than the {data.rows:,} rows of X: it is clipped to that",
            stacklevel=2,
        )


def epochs(spec: Any, X: Any, y: Any, **arguments: Any) -> Iterator[Report]:
    """Train epoch by epoch: a generator of reports. Takes what `train` takes but callbacks and
    checkpoints.

    >>> for report in epochs("1-1", [[0.0], [1.0]], [1.0, 3.0], rate=0.1, epochs=200):
    ...     if report.loss < 1e-4:
    ...         break
    >>> bool(report.loss < 1e-4)
    True
    """
    if "callbacks" in arguments:
        raise TypeError("epochs() takes no callbacks: act on each report where you loop over them")
    for name in ("checkpoint", "resume"):
        if name in arguments:
            raise TypeError(f"epochs() takes no {name}: train() does")
    return reports(assemble(spec, X, y, **arguments))


def train(
    spec: Any,
    X: Any,
    y: Any,
    *,
    loss: Any = None,
    optimizer: Any = "adam",
    rate: Any = 1e-3,
    schedule: Any = None,
    epochs: int = 100,
    batch: int | None = None,
    seed: Any = 0,
    device: str | None = None,
    dtype: str | None = None,
    precision: str = "full",
    members: int | None = None,
    X_val: Any = None,
    y_val: Any = None,
    sample_weight: Any = None,
    sample_weight_val: Any = None,
    class_weight: Any = None,
    callbacks: Iterable[Callable[[Report], Any]] = (),
    patience: int | None = None,
    keep: str | None = None,
    initializer: Any = "auto",
    weight_decay: Any = None,
    l1: Any = 0.0,
    l2: Any = 0.0,
    clip: float | None = None,
    checkpoint: Any = None,
    resume: bool = False,
    **more: Any,
) -> Model:
    """Train a network on arrays and return it.

    spec: a Spec or anything `Spec.parse` reads, such as "64-100-10".
    X: (N, n_in) finite numbers: NumPy, CuPy, PyTorch, lists.
    y: (N,) or (N, n_out) numbers; with a cross-entropy loss (N,) labels of any kind, or
        probabilities (N, n_out).
    loss: a name such as "squared_error", "huber:1.35", "quantile:0.1,0.5,0.9", "poisson",
        "binary_cross_entropy", "cross_entropy"; a Loss; a function (xp, score, target) ->
        (value, delta). None is the spec's own.
    optimizer: a name such as "adam", "adamw", "nesterov", or a rule; rate: its learning rate.
    schedule: what the rate is multiplied by: a name such as "cosine", "step:30,0.1",
        "warmup:5 * cosine", or a function (xp, now) of now.step, now.epoch, now.fraction.
    epochs: passes over the rows; batch: rows per update, at most N; None is 32.
    seed: initial weights, orders and dropout follow from it; member k has seed + k. A list
        gives each member its own.
    device: "auto", "cpu", "gpu", "gpu:N"; None is the environment variable XPMLP_DEVICE, else
        where X lies.
    precision: "full", or "tf32" for faster float32 products on a GPU.
    dtype: "float32" or "float64"; None is X's own, float64 for other host numbers.
    members: K networks trained at once; rate, l1, l2, weight_decay and `hyper` may then hold one
        number per member.
    X_val, y_val: a held-out set, measured after every epoch.
    sample_weight: (N,) at least 0. class_weight: {label: weight} or "balanced".
    callbacks: functions of a Report; one that returns True (or a truth per member) stops, None
        or False goes on, anything else is an error. Ready
        made: xpmlp.stop_at("val_score", 0.97), xpmlp.plateau(), xpmlp.ProgressBar().
    patience: epochs without a better held-out result (`monitor` "val_loss" or "val_score",
        better by more than `min_delta`), or without held-out rows a lower training loss, after
        which training stops.
    keep: "best" or "last" weights; None is the best where there is a held-out set.
    initializer: a name such as "he_normal", a function (generator, n_in, n_out), or "auto".
    weight_decay: decoupled, on weights alone; l1, l2: penalties on weights alone.
    clip: the largest norm that a gradient keeps.
    checkpoint: a path that the training is written to after every epoch, or an
        `xpmlp.Checkpoint` that says how often. resume: go on from there where the file is, to
        the same bits as if training had never stopped; refused with other data or settings,
        but more epochs are none where the schedule does not look ahead (with numba they may
        round otherwise: what is compiled goes by the number of steps).
    more: `monitor`, `min_delta`, `shuffle`; `n_threads`, the most threads of a product on the
        CPU (it takes threadpoolctl; None is what BLAS has; of two trainings at once the first
        one's limit is that of both); `hyper`, the rule's other
        hyper-parameters by name, such as {"beta2": 0.95}; `capture=False`, not to record the
        steps and replay them, as a CUDA graph on a GPU (a history's "way" says which way they ran);
        `on_divergence="restore"`, to go on from the best weights so far, the first among them,
        at half the rate, up to ten times in a row (a history's "restored" counts), and not to
        raise DivergedError.

    Returns the Model. Ctrl-C ends training after the present step: it is written to the
    checkpoint, and KeyboardInterrupt is raised, whose `model` has the weights. Raises
    ValueError (ShapeError, DivergedError) naming what is wrong, and
    MemoryError with the bytes that are needed. Warns of a batch larger than N and of rows that
    are all alike.

    >>> import numpy as np
    >>> X = np.linspace(-1, 1, 50)[:, None]
    >>> model = train("1-16-1", X, X[:, 0] ** 2, rate=0.01, epochs=500)
    >>> bool(abs(model.predict([[0.5]])[0] - 0.25) < 0.02)
    True
    """
    callbacks = checked(callbacks)
    followed = following(checkpoint, resume)
    run = assemble(
        spec,
        X,
        y,
        loss=loss,
        optimizer=optimizer,
        rate=rate,
        schedule=schedule,
        epochs=epochs,
        batch=batch,
        seed=seed,
        device=device,
        dtype=dtype,
        precision=precision,
        members=members,
        X_val=X_val,
        y_val=y_val,
        sample_weight=sample_weight,
        sample_weight_val=sample_weight_val,
        class_weight=class_weight,
        patience=patience,
        keep=keep,
        initializer=initializer,
        weight_decay=weight_decay,
        l1=l1,
        l2=l2,
        clip=clip,
        **more,
    )
    place = run.place
    with followed(run) as write:
        model = finish(run, callbacks, write)
    del run, write
    release(place)
    return model


def checked(callbacks: Any) -> list[Callable[[Report], Any]]:
    """The callbacks as a list; ValueError where one is no function."""
    if not isinstance(callbacks, Iterable) or isinstance(callbacks, str):
        raise ValueError(f"callbacks must be a list of functions of a report; got {callbacks!r}")
    listed = list(callbacks)
    for callback in listed:
        if not callable(callback) or isinstance(callback, type):
            raise ValueError(f"callbacks must be functions of a report; got {callback!r}")
    return listed


def following(
    checkpoint: Any, resume: Any
) -> Callable[[Run], AbstractContextManager[Callable[[Report], Any] | None]]:
    """What opens the checkpoint of a run and gives its writer; ValueError where it is none."""
    if not isinstance(resume, bool):
        raise ValueError(f"resume must be True or False; got {resume!r}")
    if checkpoint is None:
        if resume:
            raise ValueError("resume goes on from a checkpoint: give checkpoint= its path")
        return lambda run: nullcontext()
    import xpmlp

    given = checkpoint if hasattr(checkpoint, "following") else xpmlp.Checkpoint(checkpoint)
    return partial(given.following, resume=resume)


def attended(
    run: Run, callbacks: list[Callable[[Report], Any]], write: Any = None
) -> Iterator[Report]:
    """The reports of a run, each after the callbacks were asked whether to go on.

    write: the checkpoint's writer, if any, which comes last and once more where a signal stops.
    """
    try:
        for report in reports(run):
            for callback in callbacks:
                answer = callback(report)
                if answer is not None:
                    stop_members(run, answer, "what a callback returns")
            if write:
                write(report)
            yield report
        if run.halted and write:
            write.write()
    finally:
        for callback in callbacks:
            getattr(callback, "close", lambda: None)()


def finish(run: Run, callbacks: list[Callable[[Report], Any]], write: Any = None) -> Model:
    """Train to the end, or until a signal says to stop. write: the checkpoint's writer, if any."""
    with patient(run):
        for _ in attended(run, callbacks, write):
            pass
    if run.halted:
        raise interruption(run)
    return run.model()
