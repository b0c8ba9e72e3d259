"""`plot_history`: lines, labels, and histories of every kind."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest

import xpmlp
from xpmlp import plot_history, train

pytestmark = pytest.mark.filterwarnings("ignore:.* diverged and (is|are) stopped")

pytest.importorskip("matplotlib")


@pytest.fixture
def rows(rng):
    X = rng.normal(size=(20, 2))
    return X, np.sin(X).sum(axis=1)


def lines(figure):
    """Label -> y values, of every line in the figure."""
    return {
        line.get_label(): np.asarray(line.get_ydata(), dtype=float)
        for axis in figure.axes
        for line in axis.get_lines()
    }


def legend(figure):
    return {text.get_text() for legend in figure.legends for text in legend.texts}


def test_the_lines_show_the_history(rows):
    X, y = rows
    model = train("2-4-1", X, y, epochs=5, X_val=X, y_val=y, schedule="cosine")
    figure = plot_history(model, title="sines")
    plotted = lines(figure)
    assert plotted["training loss"].tolist() == model.history["loss"]
    assert plotted["validation loss"].tolist() == model.history["val_loss"]
    assert plotted["learning rate"].tolist() == model.history["learning_rate"]
    best = model.history["best_epoch"][-1]
    words = {"training loss", "validation loss", "learning rate", f"best: epoch {best}"}
    assert legend(figure) == words
    assert plotted[f"best: epoch {best}"] == [model.history["val_loss"][best - 1]]
    left, right = figure.axes
    assert left.get_title() == "sines"
    assert (left.get_xlabel(), left.get_ylabel()) == ("epoch", "loss")
    assert right.get_ylabel() == "learning rate"
    assert left.get_lines()[0].get_xdata().tolist() == [1, 2, 3, 4, 5]


def test_no_validation_line_without_validation_data(rows):
    figure = plot_history(train("2-4-1", *rows, epochs=3))
    assert legend(figure) == {"training loss", "learning rate"}


def test_estimators_reports_and_wrapped_models_are_plotted(rows, optional):
    optional("sklearn")
    X, y = rows
    for settings in ({}, {"early_stopping": True}):
        est = xpmlp.MLPRegressor(hidden_layer_sizes=(4,), max_iter=3, **settings)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            est.fit(X, y)
        plotted = lines(plot_history(est))
        assert plotted["training loss"].tolist() == est.history_["loss"]
    with pytest.raises(TypeError, match=r"\(lbfgs keeps none\); got MLPRegressor"):
        plot_history(xpmlp.MLPRegressor(solver="lbfgs").fit(X, y))
    figures = []
    model = train("2-4-1", *rows, epochs=3, callbacks=[lambda r: figures.append(plot_history(r))])
    assert [len(lines(figure)["training loss"]) for figure in figures] == [1, 2, 3]
    wrapper = SimpleNamespace(model=model)
    assert lines(plot_history(wrapper)).keys() == lines(plot_history(model)).keys()


@pytest.mark.parametrize("value", [[0.5, 0.4], 3, "model.safetensors", None])
def test_an_object_without_a_history_is_refused(value):
    with pytest.raises(TypeError, match=r"^plot_history draws a trained model"):
        plot_history(value)


def test_a_history_is_plotted_without_its_model(rows):
    model = train("2-4-1", *rows, epochs=3)
    assert lines(plot_history(model.history)).keys() == lines(plot_history(model)).keys()


def test_a_population_has_a_colour_per_member_and_its_best_is_marked(rows):
    X, y = rows
    model = train(
        "2-4-1", X, y, epochs=4, members=3, learning_rate=[0.1, 0.01, 0.001], X_val=X, y_val=y
    )
    figure = plot_history(model)
    left, right = figure.axes
    lines = [line for line in left.get_lines() if len(line.get_xdata()) == 4]
    assert len(lines) == 6  # three of each set
    rates = [line for line in right.get_lines() if len(line.get_xdata()) == 4]
    assert [line.get_color() for line in rates] == [line.get_color() for line in lines[:3]]
    plotted = np.array([line.get_ydata() for line in lines[:3]])
    assert (plotted == np.array(model.history["loss"]).T).all()
    assert len({line.get_color() for line in lines[:3]}) == 3
    val_loss = np.array(model.history["val_loss"])
    epoch, best = np.unravel_index(val_loss.argmin(), val_loss.shape)
    (thick,) = (line for line in lines if line.get_linewidth() > 2)
    assert (thick.get_ydata() == val_loss[:, best]).all()
    assert (thick.get_color(), thick.get_linestyle()) == (lines[best].get_color(), "--")
    assert legend(figure) == {
        *(f"member {k}" for k in range(3)), "training loss", "validation loss", "learning rate",
        f"best: member {best}, epoch {epoch + 1}",
    }  # fmt: skip


def test_rates_that_are_equal_are_one_line(rows):
    right = plot_history(train("2-4-1", *rows, epochs=3, members=5)).axes[1]
    assert [line.get_ydata().tolist() for line in right.get_lines()] == [[1e-3] * 3]


def test_the_best_epoch_is_that_of_the_monitored_score(rows):
    history = {"loss": [3.0, 2.0, 1.0], "val_loss": [1.0, 2.0, 3.0], "learning_rate": [0.1] * 3}
    plotted = lines(plot_history(history | {"best_epoch": [1, 2, 2]}))
    assert plotted["best: epoch 2"] == [2.0]
    assert "best: epoch 1" in lines(plot_history(history))


def test_the_legend_hides_nothing(rows):
    figure = plot_history(train("2-4-1", *rows, epochs=3, members=9))
    figure.draw_without_rendering()
    for axis in figure.axes:
        assert not axis.get_tightbbox().overlaps(figure.legends[0].get_tightbbox())


def test_the_lowest_panel_alone_names_the_epochs(rows):
    metrics = {name: lambda y, p: abs(y - p).mean() for name in ("mae", "again")}
    figure = plot_history(train("2-4-1", *rows, epochs=3, metrics=metrics))
    assert [axis.get_xlabel() for axis in figure.axes] == ["", "", "epoch", ""]


def test_a_loss_of_zero_or_less_is_plotted_on_a_linear_scale(rows):
    history = {"loss": [1.0, 0.0], "val_loss": [None, None], "learning_rate": [0.1, 0.1]}
    assert plot_history(history).axes[0].get_yscale() == "linear"
    history["loss"] = [1.0, 0.5]
    assert plot_history(history).axes[0].get_yscale() == "log"


@pytest.mark.parametrize("members", [None, 2])
def test_a_single_epoch_is_plotted(rows, members, tmp_path):
    figure = plot_history(train("2-1", *rows, epochs=1, members=members), tmp_path / "one.png")
    assert all(line.get_marker() in "ox" for axis in figure.axes for line in axis.get_lines())
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_a_population_with_a_diverged_member_is_plotted(rows, tmp_path):
    X, y = rows
    model = train("2-4-4-1", X, y, members=2, learning_rate=[1e-3, 1e30], optimizer="sgd", epochs=8)
    figure = plot_history(model, tmp_path / "diverged.png")
    assert "member 1 (diverged)" in legend(figure)
    assert (tmp_path / "diverged.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("suffix", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")]
)
def test_the_plot_is_written_in_the_format_of_the_suffix(rows, tmp_path, suffix, start):
    path = tmp_path / f"history.{suffix}"
    plot_history(train("2-1", *rows, epochs=2), path)
    assert path.read_bytes().startswith(start)


def test_plotting_opens_no_window_and_closes_its_figure(rows):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    before = pyplot.get_fignums()
    plot_history(train("2-1", *rows, epochs=2))
    assert pyplot.get_fignums() == before


def test_a_model_without_a_history_is_refused(rows, tmp_path):
    train("2-1", *rows, epochs=2).save(tmp_path / "model")
    with pytest.raises(ValueError, match="history"):
        plot_history(xpmlp.load(tmp_path / "model"))
