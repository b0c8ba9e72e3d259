"""`train` and `epochs`: the one place where a training is assembled from a user's arguments."""

import warnings
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from functools import partial
from hashlib import sha256
from typing import Any

from xpmlp.devices.namespace import CPU, running, to_host, to_place
from xpmlp.devices.words import choose_place, release
from xpmlp.layers.layer import AnyActivation
from xpmlp.layout import padded_size, views
from xpmlp.names import with_hints
from xpmlp.spec import AnyLoss, Spec
from xpmlp.training.checks import numbers, warn_of_constant_data
from xpmlp.training.data import Data, own_dtype, prepare
from xpmlp.training.held_out import check_metrics
from xpmlp.training.interruption import finish_step_on_signal, interruption_error
from xpmlp.training.labels import Labels
from xpmlp.training.memory import estimate_training, explain_memory_error, load_rows
from xpmlp.training.model import Model
from xpmlp.training.report import Report
from xpmlp.training.settings import ELSEWHERE, Number, Settings
from xpmlp.training.setup import initial_params
from xpmlp.training.trainer import Callbacks, Start, Trainer
from xpmlp.training.validation import validate_callables

BATCH_SIZE = 32  # rows per update, where nobody says


def make_trainer(
    spec: Any,
    X: Any,
    y: Any,
    *,
    loss: AnyLoss | None = None,
    activation: Any = "relu",
    dropout: Any = 0.0,
    params: Any = None,
    batch_size: int | None = None,
    members: int | None = None,
    device: str | None = None,
    precision: str = "full",
    X_val: Any = None,
    y_val: Any = None,
    sample_weight: Any = None,
    sample_weight_val: Any = None,
    metrics: Any = None,
    optimizer_params: Any = None,
    **others: Any,
) -> Trainer:
    """A trainer at epoch 0 from the arguments of `train`, everything checked.

    others: fields of `Settings`.
    """
    model = spec if isinstance(spec, Model) else None
    if model is not None:
        spec = model.spec
        members = model.members if members is None else members
        if params is None and members != model.members:
            raise ValueError(f"members is {members}; the model has {model.members or 'none'}")
        params = model.params if params is None else params
    spec = Spec.parse(spec, loss=loss, activation=activation, dropout=dropout)
    settings = Settings(
        batch_size=BATCH_SIZE if batch_size is None else batch_size,
        members=members,
        optimizer_params={} if optimizer_params is None else optimizer_params,
        **others,
    )
    if params is not None and settings.initializer != Settings.initializer:
        raise ValueError("initializer would be overlooked: the model or params has the weights")
    place = choose_place(device, X, precision)
    dtype = settings.dtype or own_dtype(X)
    if (X_val is None) != (y_val is None):
        raise ValueError(f"{'X_val' if X_val is None else 'y_val'} is missing: give both or none")
    if sample_weight_val is not None and X_val is None:
        raise ValueError("sample_weight_val is given without X_val and y_val")
    metrics = check_metrics(metrics)
    memory = estimate_training(place, spec, settings, dtype)
    load = partial(load_rows, memory)
    take = partial(prepare, spec=spec, place=place, dtype=dtype, load_rows=load)
    with running(place), explain_memory_error(memory):
        data, labels = take(
            X,
            y,
            sample_weight=sample_weight,
            class_weight=settings.class_weight,
            known_labels=None if model is None else model._labels,
        )
        val_data = None
        if X_val is not None:
            val_data, _ = take(
                X_val, y_val, sample_weight=sample_weight_val, known_labels=labels, suffix="_val"
            )
        validate_callables(place, spec, settings)
        warn(data, labels, 0 if batch_size is None else settings.batch_size)
        signature = None
        if params is None:
            flat = initial_params(place, spec, settings, dtype)
        else:
            host = packed_params(spec, params, settings.lead)
            flat, signature = to_place(place, host, dtype), partial(with_start, host)
        return Trainer(
            spec,
            settings,
            place,
            data,
            Start(flat),
            labels=labels,
            need=memory,
            val_data=val_data,
            metrics=metrics,
            signature=signature,
        )


def with_start(params: Any, trainer: Trainer) -> dict[str, Any]:
    """A trainer's settings with a digest of the weights that it starts from, so that a checkpoint
    of another start is refused."""
    settings = {entry.name: getattr(trainer.settings, entry.name) for entry in fields(Settings)}
    return settings | {"params": f"SHA-256 {sha256(params.tobytes()).hexdigest()}"}


def packed_params(spec: Spec, params: Any, lead: tuple[int, ...]) -> Any:
    """The layers' blocks as a flat buffer (..., P) on the host; ValueError where they are not the
    network's."""
    np = CPU.xp
    flat = np.zeros((*lead, padded_size(spec)))
    if not isinstance(params, Sequence) or len(params) != len(spec.layers):
        raise ValueError(f"params must be one tuple of blocks for each layer of network {spec}")
    arrays = [
        array for layer, p in zip(spec.layers, params, strict=True) for array in layer.unpack(p)
    ]
    into = views(np, spec, flat)
    if len(arrays) != len(into):
        raise ValueError(f"params has {len(arrays)} blocks; network {spec} has {len(into)}")
    for number, (view, values) in enumerate(zip(into, arrays, strict=True)):
        name, shape = f"params, block {number},", tuple(np.shape(values))
        if shape != view.shape:
            raise ValueError(f"{name} is {shape} but must be {view.shape}")
        view[...] = to_host(numbers(values, name, (view.ndim,)))
    return flat


def warn(data: Data, labels: Labels, batch_size: int) -> None:
    """Of what trains, but not as the caller may think. batch_size: asked for, 0 where none was."""
    warn_of_constant_data(data.x.x, None if labels.classes is None else data.target)
    if batch_size > data.rows:
        warnings.warn(
            f"batch_size is larger than the {data.rows:,} rows of X: it is clipped to that",
            stacklevel=2,
        )


@with_hints(ELSEWHERE)
def train(
    spec: Any,
    X: Any,
    y: Any,
    *,
    loss: AnyLoss | None = None,
    activation: AnyActivation | Sequence[AnyActivation] = "relu",
    dropout: float | Sequence[float] = 0.0,
    optimizer: Any = "adam",
    learning_rate: Number = 1e-3,
    schedule: Any = None,
    epochs: int = 100,
    batch_size: int | None = None,
    seed: int | Sequence[int] = 0,
    device: str | None = None,
    dtype: Any = None,
    precision: str = "full",
    members: int | None = None,
    params: Any = None,
    initializer: Any = "auto",
    X_val: Any = None,
    y_val: Any = None,
    sample_weight: Any = None,
    sample_weight_val: Any = None,
    class_weight: Any = None,
    metrics: Mapping[str, Callable[..., Any]] | None = None,
    callbacks: Iterable[Callable[[Report], Any]] = (),
    patience: int | None = None,
    monitor: str = "val_loss",
    min_delta: float = 0.0,
    keep: str | None = None,
    weight_decay: Number | None = None,
    l1: Number = 0.0,
    l2: Number = 0.0,
    clip: float | None = None,
    ema_decay: float | None = None,
    optimizer_params: Mapping[str, Number] | None = None,
    shuffle: bool = True,
    on_divergence: str = "raise",
    checkpoint: Any = None,
    resume: bool = False,
    n_threads: int | None = None,
    capture: bool = True,
) -> Model:
    """Train a network on arrays and return it.

    Parameters
    ----------
    spec : Spec, Model, or anything `Spec.parse` reads, such as "64-100-10"
        A Model is trained further: its network, its weights, its labels.
    X : array of shape (N, n_in)
        Finite numbers: NumPy, CuPy, PyTorch, lists.
    y : array of shape (N,) or (N, n_out)
        Numbers; with a cross-entropy loss (N,) labels of any kind, or probabilities (N, n_out).
    loss : str, Loss or function, optional
        A name such as "squared_error", "huber:1.35", "quantile:0.1,0.5,0.9", "poisson",
        "binary_cross_entropy", "cross_entropy", or a function (xp, score, target) ->
        (value, delta). None is the spec's own.
    activation, dropout : one for all hidden layers or one for each
        Where spec is written as sizes: a name such as "relu" or a function (xp, z) -> (a, slope);
        probabilities in [0, 1).
    optimizer : str, Optimizer or rule
        A name such as "adam", "adamw", "nesterov" (see `xpmlp.optimizers`).
    learning_rate : float at least 0, or one per member
    schedule : str or function, optional
        What the learning rate is multiplied by: a name such as "cosine", "step:30,0.1",
        "warmup:5 * cosine", or a function (xp, now) of now.step, now.epoch, now.fraction.
    epochs : int
        Passes over the rows.
    batch_size : int, optional
        Rows per update, at most N; None is 32.
    seed : int, or one per member
        Initial weights, orders and dropout follow from it; member k has seed + k.
    device : {"auto", "cpu", "gpu", "gpu:N"}, optional
        None is the environment variable XPMLP_DEVICE, else where X lies.
    dtype : {"float32", "float64"}, optional
        None is X's own, float64 for other host numbers.
    precision : {"full", "tf32"}
        "tf32" is for faster float32 products on a GPU.
    members : int, optional
        K networks trained at once; learning_rate, l1, l2, weight_decay and optimizer_params may
        then hold one number per member.
    params : list, optional
        Weights to start from, per layer its blocks, as `Model.params` has them.
    initializer : str or function
        A name such as "he_normal", a function (generator, n_in, n_out), or "auto".
    X_val, y_val : arrays, optional
        A held-out set, measured after every epoch.
    sample_weight, sample_weight_val : array of shape (N,), optional
        At least 0.
    class_weight : dict or "balanced", optional
        {label: weight}.
    metrics : dict, optional
        {name: function (y, prediction)}, measured after every epoch on the held-out rows (the
        training rows without any), as `y` and `predict` have them in NumPy; a function with an
        argument called proba is given what `predict_proba` gives. They stand in report.metrics
        and in the history.
    callbacks : functions of a Report
        One that returns True (or one boolean per member) stops, None or False goes on, anything
        else is an error. Ready made: `stop_at("val_score", 0.97)`, `plateau()`, `ProgressBar()`.
    patience : int, optional
        Epochs without a better held-out result (`monitor` "val_loss" or "val_score", better by
        more than `min_delta`), or without held-out rows a lower training loss, after which
        training stops.
    keep : {"best", "last"}, optional
        Which weights are returned; None is the best where there is a held-out set.
    weight_decay : float at least 0, or one per member, optional
        Decoupled, on weights alone; None is the optimizer's own.
    l1, l2 : float at least 0, or one per member
        Penalties on weights alone.
    clip : float above 0, optional
        The largest norm that a gradient keeps.
    ema_decay : float in [0, 1), optional
        Measure and return the exponential moving average of the weights over the updates, such
        as 0.999 (Polyak & Juditsky 1992); it begins as their plain mean.
    optimizer_params : dict, optional
        The optimizer's other parameters by name, such as {"beta2": 0.95}.
    shuffle : bool
        Whether every epoch has an order of its own.
    on_divergence : {"raise", "restore"}
        "restore" goes on from the best weights so far, the first among them, at half the learning
        rate, up to ten times in a row (a history's "restored" counts).
    checkpoint : path or Checkpoint, optional
        What the training is written to after every epoch, or as often as a Checkpoint says.
    resume : bool
        Go on from the checkpoint where the file is, to the same bits as if training had never
        stopped; refused with other data or settings, but more epochs are none where the schedule
        does not look ahead (with numba they may round otherwise: what is compiled goes by the
        number of steps).
    n_threads : int, optional
        The most threads of a product on the CPU (it takes threadpoolctl; None is what BLAS has;
        of two trainings at once the first one's limit is that of both).
    capture : bool
        Whether the steps are recorded and replayed, on a GPU as a CUDA graph (a history's
        "executor" says how they ran).

    Returns
    -------
    Model

    Raises
    ------
    ValueError
        Naming what is wrong: ShapeError for shapes, DivergedError for a training that diverged.
    MemoryError
        With the bytes that are needed, and what would fit.
    KeyboardInterrupt
        Ctrl-C ends training after the present step: it is written to the checkpoint, and the
        error's `model` has the weights.

    Warns
    -----
    UserWarning
        Of a batch larger than N and of rows that are all alike.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.linspace(-1, 1, 50)[:, None]
    >>> model = train("1-16-1", X, X[:, 0] ** 2, learning_rate=0.01, epochs=500)
    >>> bool(abs(model.predict([[0.5]])[0] - 0.25) < 0.02)
    True
    """
    arguments = dict(locals())
    for name in ("callbacks", "checkpoint", "resume"):
        del arguments[name]
    functions = check_callbacks(callbacks)
    open_checkpoint = checkpointing(checkpoint, resume)
    trainer = make_trainer(**arguments)
    place = trainer.place
    with open_checkpoint(trainer) as writer:
        model = finish(trainer, functions, writer)
    del trainer, writer
    release(place)
    return model


@with_hints(
    ELSEWHERE
    | {
        "callbacks": "the loop over reports itself",
        "checkpoint": "an argument of train() alone",
        "resume": "an argument of train() alone",
    }
)
def epochs(
    spec: Any,
    X: Any,
    y: Any,
    *,
    loss: AnyLoss | None = None,
    activation: AnyActivation | Sequence[AnyActivation] = "relu",
    dropout: float | Sequence[float] = 0.0,
    optimizer: Any = "adam",
    learning_rate: Number = 1e-3,
    schedule: Any = None,
    epochs: int = 100,
    batch_size: int | None = None,
    seed: int | Sequence[int] = 0,
    device: str | None = None,
    dtype: Any = None,
    precision: str = "full",
    members: int | None = None,
    params: Any = None,
    initializer: Any = "auto",
    X_val: Any = None,
    y_val: Any = None,
    sample_weight: Any = None,
    sample_weight_val: Any = None,
    class_weight: Any = None,
    metrics: Mapping[str, Callable[..., Any]] | None = None,
    patience: int | None = None,
    monitor: str = "val_loss",
    min_delta: float = 0.0,
    keep: str | None = None,
    weight_decay: Number | None = None,
    l1: Number = 0.0,
    l2: Number = 0.0,
    clip: float | None = None,
    ema_decay: float | None = None,
    optimizer_params: Mapping[str, Number] | None = None,
    shuffle: bool = True,
    on_divergence: str = "raise",
    n_threads: int | None = None,
    capture: bool = True,
) -> Generator[Report, None, None]:
    """Train epoch by epoch: a generator of reports.

    Parameters
    ----------
    spec, X, y and all others
        As for `train`; a loop over reports needs no callbacks, and has no checkpoint.

    Yields
    ------
    Report
        After every epoch; leaving the loop ends the training.

    Examples
    --------
    >>> for report in epochs("1-1", [[0.0], [1.0]], [1.0, 3.0], learning_rate=0.1, epochs=200):
    ...     if report.loss < 1e-4:
    ...         break
    >>> bool(report.loss < 1e-4)
    True
    """
    return make_trainer(**locals()).reports()


def check_callbacks(callbacks: Any) -> list[Callable[[Report], Any]]:
    """The callbacks as a list; ValueError where one is no function."""
    if not isinstance(callbacks, Iterable) or isinstance(callbacks, str):
        raise ValueError(f"callbacks must be a list of functions of a report; got {callbacks!r}")
    functions = list(callbacks)
    for callback in functions:
        if not callable(callback) or isinstance(callback, type):
            raise ValueError(f"callbacks must be functions of a report; got {callback!r}")
    return functions


def checkpointing(checkpoint: Any, resume: Any) -> Callable[[Trainer], AbstractContextManager[Any]]:
    """What opens the checkpoint of a trainer and gives its writer; ValueError where it is none."""
    if not isinstance(resume, bool):
        raise ValueError(f"resume must be True or False; got {resume!r}")
    if checkpoint is None:
        if resume:
            raise ValueError("resume goes on from a checkpoint: give checkpoint= its path")
        return lambda trainer: nullcontext()
    import xpmlp

    target = checkpoint if hasattr(checkpoint, "opened") else xpmlp.Checkpoint(checkpoint)
    return partial(target.opened, resume=resume)


def finish(trainer: Trainer, callbacks: Callbacks = (), writer: Any = None) -> Model:
    """Train to the end, or until a signal says to stop. writer: the checkpoint's, if any."""
    with finish_step_on_signal(trainer):
        for _ in trainer.reports(callbacks, writer):
            pass
    if trainer.counter.stop_signal:
        raise interruption_error(trainer)
    return trainer.model()
