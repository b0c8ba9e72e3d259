"""`xpmlp predict`, `score` and `inspect`: a model file on tables other than the training table."""

import io
import json
from pathlib import Path

import numpy as np
import pytest

import xpmlp
from xpmlp.cli.main import main
from xpmlp.tabular.model import load

polars = pytest.importorskip("polars")
pytest.importorskip("sklearn")
pytest.importorskip("tqdm")


def run(capsys, *arguments):
    """Exit code, output and error output of a command line."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as stop:  # from argparse
        code = stop.code
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a table and a model of each task."""
    folder = tmp_path_factory.mktemp("trained")
    rng = np.random.default_rng(4)
    a = rng.normal(size=100)
    table = polars.DataFrame(
        {
            "a": a,
            "c": rng.choice(["x", "y"], 100),
            "price": 100 + 3 * a,
            "sold": np.where(a > 0, "yes", "no"),
        }
    )
    table.write_csv(folder / "t.csv")
    for target, other in (("price", "sold"), ("sold", "price")):
        options = ["--target", target, "--drop", other, "--epochs", "3", "--hidden", "8", "--quiet"]
        path = folder / f"{target}.safetensors"
        assert main(["train", str(folder / "t.csv"), *options, "--save", str(path)]) == 0
    return folder


@pytest.fixture
def folder(trained, tmp_path, monkeypatch):
    """A working copy of `trained`."""
    for path in trained.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table():
    return polars.read_csv("t.csv")


# predict


@pytest.mark.parametrize("target", ["price", "sold"])
def test_predictions_equal_those_of_the_library(target, folder, capsys):
    arguments = ("predict", f"{target}.safetensors", "t.csv")
    code, out, err = run(capsys, *arguments)
    assert code == 0
    assert err == f"ignored columns: {'sold' if target == 'price' else 'price'}\n"
    actual = polars.read_csv(io.StringIO(out))
    assert actual.columns == [target]
    expected = load(f"{target}.safetensors").predict(table())
    assert actual[target].to_list() == expected.tolist()
    assert run(capsys, *arguments, "--out", "p.csv")[:2] == (0, "")
    assert (folder / "p.csv").read_text() == out


def test_probabilities_are_written_next_to_the_labels(folder, capsys):
    code, out, _ = run(capsys, "predict", "sold.safetensors", "t.csv", "--proba")
    assert code == 0
    actual = polars.read_csv(io.StringIO(out))
    assert actual.columns == ["sold", "p(no)", "p(yes)"]
    expected = load("sold.safetensors").predict_proba(table())
    np.testing.assert_allclose(actual.drop("sold").to_numpy(), expected, rtol=1e-6)


def test_column_order_is_free_and_unknown_columns_and_categories_are_noted(folder, capsys):
    changed = table()[:3].select(
        polars.Series("more", [1, 2, 3]), polars.Series("c", ["x", "q", "q"]), "a"
    )
    changed.write_csv("changed.csv")
    code, out, err = run(capsys, "predict", "price.safetensors", "changed.csv")
    assert code == 0
    assert "ignored columns: more\n" in err
    assert "column 'c': 2 cells of an unknown category\n" in err
    assert out.count("\n") == 4


def test_one_row_can_be_predicted(folder, capsys):
    table()[:1].write_csv("one.csv")
    code, out, _ = run(capsys, "predict", "price.safetensors", "one.csv")
    assert code == 0
    assert out.count("\n") == 2


# score


@pytest.mark.parametrize("target", ["price", "sold"])
def test_scores_match_the_predictions(target, folder, capsys):
    code, out, _ = run(capsys, "score", f"{target}.safetensors", "t.csv", "--json")
    assert code == 0
    report = json.loads(out)
    assert list(report) == ["model", "rows", "metrics"]
    assert report["rows"] == 100
    predicted, expected = load(f"{target}.safetensors").predict(table()), table()[target].to_numpy()
    if target == "price":
        mae = float(abs(predicted - expected).mean())
        assert report["metrics"]["mae"] == pytest.approx(mae, rel=1e-5)
    else:
        assert report["metrics"]["accuracy"] == pytest.approx((predicted == expected).mean())
    code, out, _ = run(capsys, "score", f"{target}.safetensors", "t.csv")
    assert code == 0
    printed = dict(line.split() for line in out.splitlines())
    assert list(printed) == list(report["metrics"])  # no baseline, which was for other rows
    for name, value in report["metrics"].items():
        assert float(printed[name]) == pytest.approx(value, rel=1e-4)


def test_rows_of_one_class_can_be_scored(folder, capsys):
    table().filter(polars.col("sold") == "yes").write_csv("yes.csv")
    code, out, _ = run(capsys, "score", "sold.safetensors", "yes.csv", "--json")
    assert code == 0
    assert set(json.loads(out)["metrics"]) == {"accuracy", "log_loss"}


def test_missing_targets_are_dropped_with_the_option(folder, capsys):
    gaps = table().with_columns(price=polars.Series([None, *table()["price"].to_list()[1:]]))
    gaps.write_csv("gaps.csv")
    arguments = ("score", "price.safetensors", "gaps.csv", "--json")
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert "'price' has 1 missing cell, the first in row 1; --drop-missing-target" in err
    code, out, _ = run(capsys, *arguments, "--drop-missing-target")
    assert code == 0
    assert json.loads(out)["rows"] == 99


# inspect


def test_inspect_shows_columns_scores_and_ledger(folder, capsys):
    code, out, err = run(capsys, "inspect", "sold.safetensors")
    assert (code, err) == (0, "")
    for line in (
        "classification of 'sold' from 2 columns", "a (number, 1 input): median ",
        "c (category, 2 inputs): ", "classes: no, yes", "3-8-2, loss cross_entropy", "accuracy",
        "(32, 3) @ (3, 8) -> (32, 8)", "training: epochs 3",
    ):  # fmt: skip
        assert line in out


def test_inspect_shows_a_network_on_arrays(folder, capsys):
    xpmlp.save(xpmlp.train("1-2-1", [[0.0], [1.0]], [0.0, 1.0], epochs=1), "net")
    code, out, _ = run(capsys, "inspect", "net")
    assert code == 0
    assert out.startswith("1-2-1, loss squared_error")


def test_inspect_rounds_what_training_came_to(folder, capsys):
    rates = [0.123456789, 1e-7]
    rows = [[0.0], [1.0]], [0.0, 1.0]
    xpmlp.save(xpmlp.train("1-2-1", *rows, epochs=1, members=2, learning_rate=rates), "net")
    code, out, _ = run(capsys, "inspect", "net")
    assert (code, "learning_rate [0.1235, 1e-07], " in out) == (0, True)


# Errors

BAD = {
    "a missing model": ("predict", "no", "t.csv", "model file no does not exist"),
    "a model that is a directory": ("predict", ".", "t.csv", "model file . does not exist"),
    "a file that is not a model": ("predict", "t.csv", "t.csv", "t.csv is not a whole model file"),
    "a damaged model": ("predict", "damaged", "t.csv", "damaged is not a whole model file"),
    "a network on arrays": ("predict", "net", "t.csv", "net holds a network on arrays"),
    "a missing table": ("predict", "price.safetensors", "no.csv", "does not exist"),
    "a table without rows": ("predict", "price.safetensors", "head.csv", "no rows"),
    "a missing column": (
        "predict", "price.safetensors", "renamed.csv", "no column 'a'; did you mean 'aa'?",
    ),
    "text as numbers": ("predict", "price.safetensors", "texts.csv", "'a' was a number in train"),
    "infinity": ("predict", "price.safetensors", "wide.csv", "'a' has 1 infinite value, the firs"),
    "probabilities of a regression": (
        "predict", "price.safetensors", "t.csv", "--proba", "--proba is for a classification",
    ),
    "an output in a missing folder": (
        "predict", "price.safetensors", "t.csv", "--out", "no/p.csv", "folder no does not exist",
    ),
    "an output that is a directory": (
        "predict", "price.safetensors", "t.csv", "--out", ".", "is a directory",
    ),
    "a score of a missing model": ("score", "no", "t.csv", "model file no does not exist"),
    "a score without a target": (
        "score", "price.safetensors", "head2.csv", "no column 'price'",
    ),
    "a score of an unknown label": ("score", "sold.safetensors", "label.csv", "'sold' is 'never'"),
    "a score of strings as numbers": (
        "score", "price.safetensors", "prices.csv", "'price' holds strings",
    ),
    "an inspection of a missing model": ("inspect", "no", "model file no does not exist"),
    "an inspection of a table": ("inspect", "t.csv", "t.csv is not a whole model file"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_one_line_and_exit_two(kind, folder, capsys):
    xpmlp.save(xpmlp.train("1-2-1", [[0.0], [1.0]], [0.0, 1.0], epochs=1), "net")
    data = bytearray((folder / "price.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "damaged").write_bytes(data)
    frame, price = table(), polars.col("price")
    (folder / "head.csv").write_text("a,c\n")
    frame.drop("price").write_csv("head2.csv")
    frame.rename({"a": "aa"}).write_csv("renamed.csv")
    frame.with_columns(a=polars.lit("word")).write_csv("texts.csv")
    infinite = polars.when(price == price.max()).then(float("inf")).otherwise(polars.col("a"))
    frame.with_columns(a=infinite).write_csv("wide.csv")
    frame.with_columns(sold=polars.lit("never")).write_csv("label.csv")
    frame.with_columns(price=polars.lit("much")).write_csv("prices.csv")
    before = sorted(folder.iterdir())
    *arguments, message = BAD[kind]
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    last = err.splitlines()[-1]  # before it there may be notes on the table's columns
    assert last.startswith(f"xpmlp {arguments[0]}: ")
    assert message in last
    assert err.count("xpmlp ") == 1
    assert sorted(folder.iterdir()) == before


def test_input_files_are_not_overwritten(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = "\n".join(f"{i},{2 * i + i % 3}" for i in range(60))
    Path("t.csv").write_text(f"a,y\n{rows}\n")
    fit = ["train", "t.csv", "--target", "y", "--task", "regression", "--epochs", "1", "--quiet"]
    assert main([*fit, "--save", "m"]) == 0
    before = {name: Path(name).read_bytes() for name in ("t.csv", "m")}
    Path("same.csv").symlink_to("t.csv")
    Path("x.svg").symlink_to("x.png")
    for arguments in (
        [*fit, "--save", "t.csv"],
        [*fit, "--save", "same.csv"],
        [*fit, "--test", "t.csv", "--save", "t.csv"],
        [*fit, "--save", "x.png", "--plot", "x.png"],
        [*fit, "--save", "x.png", "--plot", "x.svg"],
        ["predict", "m", "t.csv", "--out", "t.csv"],
        ["predict", "m", "t.csv", "--out", "m"],
    ):
        assert main(arguments) == 2
        _, err = capsys.readouterr()
        assert err.count("\n") == 1, err
    assert {name: Path(name).read_bytes() for name in before} == before


def test_an_error_is_one_line_without_quiet(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text("a,y\n1,2\n3,inf\n5,6\n7,9\n")
    assert main(["train", "t.csv", "--target", "y"]) == 2
    _, err = capsys.readouterr()
    assert err.startswith("xpmlp train: column 'y' has")
    assert err.count("\n") == 1
