"""How the files in version-1/ were made: `python tests/data/make.py` in an empty version-2/.

One file of every kind, and beside it what it was asked and what it answered then. Beside a
checkpoint stands what `train` was asked, and what the whole training answered of the same rows.
Files of a released version are never made again: they must load for ever.
"""

import json
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

import xpmlp
from xpmlp.storage.checksummed import BLANK
from xpmlp.storage.model_file import VERSION
from xpmlp.tabular.fitting import Plan, fit_table
from xpmlp.training.train import finish, make_trainer

ROWS = np.random.default_rng(7).normal(size=(24, 3))
CLASS = np.arange(24) % 3
STRANGE = np.array(['a "quoted"\n', f'"sha256":"{BLANK}"', "né 🦉"])  # a user may name things so
NAMES = ["__metadata__", "layers.0.weights", "table.center"]
SHORT = {"hidden_layer_sizes": (3,), "max_iter": 3, "random_state": 0}


def table() -> dict[str, list]:
    return {
        "table.center": ROWS[:, 0].tolist(),
        "gaps": [None if i % 5 == 0 else i / 3 for i in range(24)],
        "__metadata__": ["é \"x\"", '"sha256":"', None] * 8,
        "target": (2 * ROWS[:, 0] + ROWS[:, 1]).tolist(),
    }  # fmt: skip


def fitted_table(column: str, **settings):
    import polars

    frame = table() | {"label": [f"is {c}" for c in CLASS]}
    plan = Plan(column, drop=[{"target": "label", "label": "target"}[column]])
    network = {"hidden": [3], "activation": "tanh", "dropout": 0.0}
    return fit_table(
        polars.DataFrame(frame), plan, network=network, settings={"epochs": 2} | settings
    ).model


def models():
    """(name, what is saved) of every kind; the first word of the name is the kind."""
    number, classes = ROWS[:, :2] ** 2, {"loss": "cross_entropy", "epochs": 2}
    days = CLASS.astype("M8[D]")
    yield "model-numbers", xpmlp.train("3-4-2", ROWS, number, epochs=2)
    yield "model-population", xpmlp.train(
        xpmlp.Spec.parse("3-4-1", activation="elu:0.5", dropout=0.1, loss="huber:1.5"),
        ROWS, ROWS[:, 0], epochs=2, members=3, dtype="float32",
    )  # fmt: skip
    yield "model-strange-labels", xpmlp.train("3-3", ROWS, STRANGE[CLASS], **classes)
    yield "model-days", xpmlp.train("3-2-3", ROWS, days, **classes)
    yield (
        "model-two-classes",
        xpmlp.train("3-2-1", ROWS, CLASS > 1, loss="binary_cross_entropy", epochs=2),
    )
    yield "table-number", fitted_table("target")
    yield "table-classes", fitted_table("label")
    classifier, regressor = xpmlp.MLPClassifier, xpmlp.MLPRegressor
    yield "classifier-early", classifier(
        **SHORT, early_stopping=True, validation_fraction=0.3, class_weight={"né 🦉": 2.0},
    ).fit(named(), STRANGE[CLASS])  # fmt: skip
    yield "classifier-labels", classifier(**SHORT, solver="sgd").fit(ROWS, ROWS[:, :2] > 0)
    yield (
        "classifier-objects",
        classifier(
            **SHORT | {"hidden_layer_sizes": (3, 2)},
            activation=("elu:0.5", "logistic"),
            dtype="float32",
        ).fit(ROWS, np.array(["no", "yes"], dtype=object)[CLASS % 2]),
    )
    yield (
        "regressor-quantiles",
        regressor(**SHORT, solver="adamw", quantiles=(0.1, 0.9)).fit(ROWS, ROWS[:, 0]),
    )
    yield "regressor-lbfgs", regressor(**SHORT, solver="lbfgs").fit(ROWS, number)


def named():
    import pandas

    return pandas.DataFrame(ROWS, columns=NAMES)


def asked(name: str) -> object:
    """What a model of that name is asked to predict."""
    if name.startswith("table"):
        cells = table()
        return {column: cells[column][:5] for column in cells if column != "target"}
    return ROWS[:5].tolist()


def trainings() -> dict[str, tuple[int, dict[str, Any]]]:
    """By name: the step after which a training stops, and what was asked of it."""
    given = {"X": ROWS.tolist(), "y": ROWS[:, 0].tolist(), "epochs": 4, "batch_size": 5}
    held = {"X_val": ROWS[:5].tolist(), "y_val": ROWS[:5, 0].tolist(), "patience": 3}
    return {
        "checkpoint-network": (10, given | {"spec": "3-4-1"}),
        "checkpoint-population": (
            12,
            given | held | {
                "spec": [[4, 3, "tanh", 0.1], [1, 4, None, 0.0]], "members": 3, "dtype": "float32",
                "optimizer": "momentum", "learning_rate": [0.01, 1e30, 0.1],
                "on_divergence": "restore",
            },
        ),
    }  # fmt: skip


def stopped_at(step: int, asked: dict[str, Any], path: Path) -> None:
    """Leave the checkpoint of a training that a signal stopped after that step."""
    run = make_trainer(**asked)
    turns = run.counter.steps

    def counted(steps: int, first: int = 0) -> Any:
        for t in turns(steps, first):
            run.counter.stop_signal = int(run.state.step) + 1 == step
            yield t

    run.counter.steps = counted  # type: ignore[method-assign]
    with xpmlp.Checkpoint(path).opened(run, resume=False) as write, suppress(KeyboardInterrupt):
        finish(run, [], write)


def main() -> None:
    folder = Path(__file__).parent / f"version-{VERSION}"
    folder.mkdir()
    warnings.simplefilter("ignore")
    for name, model in models():
        question = asked(name)
        with_names = hasattr(model, "feature_names_in_")
        answer = np.asarray(model.predict(named()[:5] if with_names else question))
        if answer.dtype.kind == "M":
            answer = answer.astype(str)
        model.save(folder / f"{name}.safetensors")
        story = {"asked": question, "answered": answer.tolist()}
        (folder / f"{name}.json").write_text(json.dumps(story, indent=1) + "\n")
    for name, (step, given) in trainings().items():
        stopped_at(step, given, folder / f"{name}.safetensors")
        answer = xpmlp.train(**given).predict(given["X"])
        story = {"asked": given, "answered": answer.tolist()}
        (folder / f"{name}.json").write_text(json.dumps(story, indent=1) + "\n")


if __name__ == "__main__":
    main()
