"""`xpmlp train`: its output and files, and that bad input leaves no files."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from xpmlp.cli.main import main
from xpmlp.tabular.model import load

polars = pytest.importorskip("polars")
pytest.importorskip("sklearn")
pytest.importorskip("tqdm")

KEYS = ["device", "task", "rows", "metrics", "baseline", "epochs", "seconds", "model", "seed"]
QUICK = ("--epochs", "2", "--hidden", "8", "--device", "cpu")


def run(capsys, *arguments):
    """Exit code, output and error output of a command line."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as stop:  # from argparse
        code = stop.code
    out, err = capsys.readouterr()
    return code, out, err


def data(rows=80):
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, rows))
    return polars.DataFrame(
        {
            "a": a,
            "b": b,
            "price": 3 * a + b,
            "sold": np.where(a > 0, "yes", "no"),
            "gaps": [None if i in (4, 9) else float(i) for i in range(rows)],
            "flat": [7] * rows,
            "wide": [float("inf") if i == 5 else 0.0 for i in range(rows)],
            "seller": [f"s{i % 8}" for i in range(rows)],
            "day": list(range(rows)),
        }
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data().drop("gaps", "wide").write_csv("houses.csv")
    data().write_csv("raw.csv")
    return tmp_path


# Output and files


@pytest.mark.parametrize("target", ["price", "sold"])
def test_json_is_exactly_one_object(target, folder, capsys):
    code, out, err = run(
        capsys, "train", "houses.csv", "--target", target, *QUICK, "--json", "--seed", 3,
        "--save", "m.safetensors",
    )  # fmt: skip
    assert code == 0
    assert out.count("\n") == 1
    report = json.loads(out)
    assert list(report) == KEYS
    number = target == "price"
    assert report["task"] == ("regression" if number else "classification")
    scores = ["rmse", "mae", "r2"] if number else ["accuracy", "log_loss", "auc"]
    assert list(report["metrics"]) == list(report["baseline"]) == scores
    assert (report["device"], report["epochs"], report["seed"]) == ("cpu", 2, 3)
    assert report["model"] == "m.safetensors"
    assert list(report["rows"]) == ["training", "validation", "held_out"]
    assert (sum(report["rows"].values()), report["rows"]["held_out"]) == (80, 16)
    assert report["seconds"] > 0
    assert "baseline" in err


def test_text_output_has_the_scores_next_to_the_baseline(folder, capsys):
    code, out, err = run(capsys, "train", "houses.csv", "--target", "sold", *QUICK)
    assert code == 0
    assert re.search(r"held-out +this model +baseline\naccuracy +[\d.]+ +[\d.]+\n", out)
    line = "classification of 'sold' (guessed) on device cpu; rows: 55 training, 9 validation, 16"
    assert line in out
    assert "inputs: 5 numbers, 1 category\n" in out
    assert "Traceback" not in err


@pytest.mark.parametrize(("target", "message"), [
    ("price", "regression of 'price' (guessed; --task classification for the other) on"),
    ("flag", "classification of 'flag' (guessed; --task regression for the other) on"),
])  # fmt: skip
def test_a_guessed_task_names_the_option_for_the_other(target, message, folder, capsys):
    data().select("a", "price", flag=polars.Series([0, 1] * 40)).write_csv("guess.csv")
    code, out, _ = run(capsys, "train", "guess.csv", "--target", target, *QUICK)
    assert code == 0
    assert message in out
    task = message.partition(" ")[0]
    _, out, _ = run(capsys, "train", "guess.csv", "--target", target, *QUICK, "--task", task)
    assert "guessed" not in out


def test_a_column_of_numbers_with_a_string_is_named(folder, capsys):
    cells = [str(i / 2) for i in range(79)]
    data().select("price", odd=polars.Series([*cells[:20], "-", *cells[20:]])).write_csv("odd.csv")
    _, out, _ = run(capsys, "train", "odd.csv", "--target", "price", *QUICK)
    assert "column 'odd' is read as strings, as not all cells are numbers: row 21 has '-'\n" in out


def test_quiet_prints_nothing(folder, capsys):
    arguments = ("train", "houses.csv", "--target", "price", *QUICK, "--quiet")
    assert run(capsys, *arguments, "--save", "m.safetensors") == (0, "", "")
    code, out, err = run(capsys, *arguments, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["model"] is None


@pytest.mark.parametrize("target", ["price", "sold"])
def test_plot_writes_an_image(target, folder, capsys):
    pytest.importorskip("matplotlib")
    arguments = ("--target", target, *QUICK, "--quiet", "--plot", "p.png")
    assert run(capsys, "train", "houses.csv", *arguments)[0] == 0
    data = (folder / "p.png").read_bytes()
    assert data.startswith(b"\x89PNG\r\n")
    assert len(data) > 10_000


def test_classes_that_are_real_numbers_are_scored_and_plotted(folder, capsys):
    pytest.importorskip("matplotlib")
    table = polars.read_csv("houses.csv")
    table.with_columns(half=polars.when(polars.col("a") > 0).then(0.5).otherwise(1.5)).write_csv(
        "half.csv"
    )
    arguments = ("--task", "classification", *QUICK, "--json", "--quiet", "--plot", "p.png")
    code, out, err = run(capsys, "train", "half.csv", "--target", "half", *arguments)
    assert (code, err) == (0, "")
    assert list(json.loads(out)["metrics"]) == ["accuracy", "log_loss", "auc"]
    assert (folder / "p.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", ["t.csv.gz", "t.tsv", "t.parquet"])
def test_every_kind_of_file_trains_the_same(name, folder, capsys):
    import gzip

    table = polars.read_csv("houses.csv")
    if name.endswith(".parquet"):
        table.write_parquet(name)
    elif name.endswith(".gz"):
        Path(name).write_bytes(gzip.compress(table.write_csv().encode()))
    else:
        table.write_csv(name, separator="\t")
    arguments = ("--target", "price", *QUICK, "--json", "--quiet")
    expected, actual = (
        json.loads(run(capsys, "train", path, *arguments)[1])["metrics"]
        for path in ("houses.csv", name)
    )
    assert expected == pytest.approx(actual)


def test_the_same_seed_writes_the_same_model(folder, capsys):
    for name in ("first", "second"):
        arguments = ("--target", "price", *QUICK, "--quiet", "--save", name)
        assert run(capsys, "train", "houses.csv", *arguments)[0] == 0
    first, second = (contents(folder / name) for name in ("first", "second"))
    assert first == second
    arguments = ("--target", "price", *QUICK, "--quiet", "--save", "three", "--seed", 1)
    assert run(capsys, "train", "houses.csv", *arguments)[0] == 0
    assert contents(folder / "three") != first


def contents(path):
    """Header and arrays, without what differs between calls: the seconds of training, and the
    order in which safetensors writes the metadata, thus the digest."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    del header["__metadata__"]["sha256"]
    config = json.loads(header["__metadata__"].pop("config"))
    del config["trained"]["seconds"]
    return config, header, data[8 + size :]


SPLITS = {
    "a test size": (("--test-size", "0.5"), 40),
    "groups": (("--group", "seller"), 20),
    "times": (("--time", "day"), 16),
    "a second table": (("--test", "raw.csv"), 80),
}


@pytest.mark.parametrize("kind", SPLITS)
def test_every_split_holds_out_its_rows(kind, folder, capsys):
    arguments, rows = SPLITS[kind]
    code, out, _ = run(
        capsys, "train", "houses.csv", "--target", "price", *QUICK, "--json", "--quiet", *arguments
    )
    assert code == 0
    assert json.loads(out)["rows"]["held_out"] == rows


def test_options_are_used_in_training(folder, capsys):
    arguments = (
        "--hidden", "5,4", "--activation", "tanh", "--loss", "huber:1.35", "--optimizer", "sgd",
        "--learning-rate", "0.001", "--schedule", "constant", "--epochs", "3", "--batch-size", "16",
        "--dropout", "0.25", "--weight-decay", "0", "--device", "cpu", "--seed", "7",
        "--dtype", "float64", "--n-threads", "1", "--task", "regression", "--drop", "sold",
        "--drop", "seller", "--save", "m.safetensors", "--json", "--quiet",
    )  # fmt: skip
    code, out, err = run(capsys, "train", "houses.csv", "--target", "price", *arguments)
    assert (code, err) == (0, "")
    table_model = load("m.safetensors")
    assert table_model.spec.sizes == (4, 5, 4, 1)
    assert [layer.activation for layer in table_model.spec.layers] == ["tanh", "tanh", "identity"]
    assert [layer.dropout for layer in table_model.spec.layers] == [0.25, 0.25, 0]
    assert table_model.spec.loss == "huber:1.35"
    assert table_model.model.flat.dtype == np.float64
    assert [column.name for column in table_model.columns] == ["a", "b", "flat", "day"]
    assert (json.loads(out)["epochs"], json.loads(out)["seed"]) == (3, 7)


@pytest.mark.parametrize("options", [("--learning-rate", "0.1"), ("--batch-size", "8"),
    ("--optimizer", "sgd"),
    ("--schedule", "constant"), ("--weight-decay", "0.9"), ("--dropout", "0.5"),
    ("--clip", "0.01"),
    ("--loss", "absolute_error"),
])  # fmt: skip
def test_every_option_changes_the_training(options, folder, capsys):
    arguments = ("train", "houses.csv", "--target", "price", *QUICK, "--json", "--quiet")
    results = [run(capsys, *arguments, *added) for added in ((), options)]
    assert [code for code, _, _ in results] == [0, 0]
    first, second = (json.loads(out)["metrics"] for _, out, _ in results)
    assert first != second


def test_a_gaussian_loss_goes_through_every_command(folder, capsys):
    target = ("houses.csv", "--target", "price", "--loss", "gaussian")
    assert run(capsys, "train", *target, *QUICK, "--save", "m.safetensors", "--quiet")[0] == 0
    for command in ("predict", "score"):
        assert run(capsys, command, "m.safetensors", "houses.csv")[0] == 0
    code, out, _ = run(capsys, "inspect", "m.safetensors")
    assert (code, "-8-2, loss gaussian" in out) == (0, True)


def test_patience_ends_a_training_that_gets_no_better(folder, capsys):
    frozen = ("--epochs", "9", "--learning-rate", "0", "--patience", "2", "--json", "--quiet")
    code, out, _ = run(capsys, "train", "houses.csv", "--target", "price", "--hidden", "4", *frozen)
    assert (code, json.loads(out)["epochs"]) == (0, 3)


def test_missing_targets_are_dropped_with_the_option(folder, capsys):
    arguments = ("--target", "gaps", "--drop", "wide", *QUICK, "--json", "--quiet")
    code, out, _ = run(capsys, "train", "raw.csv", *arguments, "--drop-missing-target")
    assert code == 0
    assert sum(json.loads(out)["rows"].values()) == 78


# Errors

TARGET = ("houses.csv", "--target", "price")
OPTIONS = {
    "a test size of 0": ("--test-size", "0", "test_size must be in (0, 1); got 0"),
    "a test size of 1": ("--test-size", "1", "test_size must be in (0, 1)"),
    "a size of 0": ("--hidden", "8,0", "must be at least 1; got '0'"),
    "a size that is not a number": ("--hidden", "8,x", "must be a whole number; got 'x'"),
    "no size": ("--hidden", "", "must be a whole number; got ''"),
    "a misspelt activation": ("--activation", "rellu", "'rellu' is unknown; did you mean 'relu'?"),
    "a misspelt loss": ("--loss", "hubber", "did you mean 'huber'?"),
    "a loss that does not fit": ("--loss", "cross_entropy", "cross_entropy"),
    "a misspelt optimizer": ("--optimizer", "adamv", "did you mean 'adam"),
    "a misspelt schedule": ("--schedule", "cosin", "did you mean 'cosine'?"),
    "a negative learning rate": ("--learning-rate", "-1", "learning_rate"),
    "a learning rate of NaN": ("--learning-rate", "nan", "learning_rate"),
    "no epochs": ("--epochs", "0", "epochs must be at least 1; got 0"),
    "no batch": ("--batch-size", "0", "batch_size must be at least 1; got 0"),
    "a dropout of 1": ("--dropout", "1", "--dropout must be in [0, 1); got 1"),
    "a negative dropout": ("--dropout", "-0.1", "--dropout must be in [0, 1)"),
    "a negative decay": ("--weight-decay", "-1", "decay"),
    "a clip of 0": ("--clip", "0", "clip must be above 0"),
    "no patience": ("--patience", "0", "patience must be at least 1; got 0"),
    "a misspelt device": ("--device", "gqu", "gqu"),
    "a negative seed": ("--seed", "-1", "seed"),
    "a misspelt dtype": ("--dtype", "float23", "float32"),
    "a misspelt precision": ("--precision", "half", "half"),
    "no threads": ("--n-threads", "0", "n_threads must be at least 1; got 0"),
    "an unknown column to drop": ("--drop", "sellr", "did you mean 'seller'?"),
    "an unknown group": ("--group", "sellr", "did you mean 'seller'?"),
    "a time that is a string": ("--time", "seller", "'seller' is neither a time"),
    "another image format": ("--plot", "p.docx", "--plot must end in .png, .pdf, .svg; got p.docx"),
    "a missing folder": ("--save", "no/m", "folder no does not exist"),
    "a directory to save to": ("--save", ".", "is a directory"),
    "a missing folder to plot to": ("--plot", "no/p.png", "folder no does not exist"),
    "a missing second table": ("--test", "no.csv", "no.csv does not exist"),
}  # fmt: skip


def assert_refused(capsys, folder, args, message):
    """Assert exit code 2, an error of one or two lines, and an unchanged folder."""
    before = sorted(folder.rglob("*"))
    code, out, err = run(
        capsys, "train", *args, *(() if "--epochs" in args else ("--epochs", "2")), "--quiet"
    )
    assert (code, out) == (2, "")
    assert err.startswith("xpmlp train: ")
    assert err.count("\n") <= 2
    assert message in err
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("kind", OPTIONS)
def test_an_option_out_of_range_is_refused(kind, folder, capsys):
    option, value, message = OPTIONS[kind]
    arguments = [*TARGET, option, value]
    if option not in ("--save",):
        arguments += ["--save", "m.safetensors"]
    assert_refused(capsys, folder, arguments, message)


def test_a_diverging_training_names_the_step_and_saves_no_model(folder, capsys):
    arguments = ["--learning-rate", "1e30", "--optimizer", "sgd", "--save", "m"]
    assert_refused(capsys, folder, [*TARGET, *arguments], "no model was saved")
    _, _, err = run(capsys, "train", *TARGET, *arguments, "--epochs", "2", "--quiet")
    assert re.match(r"xpmlp train: training diverged in epoch \d at step \d+ at learning rate", err)
    assert "Try a lower --learning-rate" in err
    assert ".model" not in err


TABLES = {
    "missing": ("no.csv", None, "no.csv does not exist"),
    "empty": ("x.csv", b"", "x.csv is empty"),
    "random bytes": ("x.csv", b"\x80\xff,\xfe\n\x81\n\x82\n", "x.csv is not a readable table"),
    "damaged Parquet": ("x.parquet", bytes(range(256)), "x.parquet is not a readable table"),
    "a directory": (".", None, "is a directory"),
    "a header": ("x.csv", b"a,price\n", "has a header but no rows"),
    "one row": ("x.csv", b"a,price\n1,2\n", "has one row"),
    "only the target": ("x.csv", b"price\n1.5\n2.5\n3.5\n", "no column is left"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_file_that_is_not_a_table_is_refused(kind, folder, capsys):
    name, data, message = TABLES[kind]
    if data is not None:
        (folder / name).write_bytes(data)
    assert_refused(capsys, folder, [name, "--target", "price", "--save", "m"], message)


TARGETS = {
    "misspelt": ("prise", "there is no column 'prise'; did you mean 'price'?"),
    "with gaps": ("gaps", "'gaps' has 2 missing cells, the first in row 5; --drop-missing-target"),
    "constant": ("flat", "'flat' is constant (7)"),
    "infinite": ("wide", "column 'wide' has 1 infinite value, the first in row 6"),
    "with an infinite column": ("price", "column 'wide' has 1 infinite value"),
}


@pytest.mark.parametrize("kind", TARGETS)
def test_an_unsuitable_target_is_refused(kind, folder, capsys):
    target, message = TARGETS[kind]
    drop = [] if "wide" in message else ["--drop", "wide"]
    assert_refused(capsys, folder, ["raw.csv", "--target", target, *drop, "--save", "m"], message)


@pytest.mark.parametrize("options", [(), ("--test-size", "x"), ("--task", "x"), ("--epochs", "1.5"),
    ("--group", "a", "--time", "b"), ("--test", "x.csv", "--test-size", "0.2"), ("--hiden", "8"),
])  # fmt: skip
def test_bad_usage_exits_with_two_and_prints_the_usage(options, folder, capsys):
    arguments = ("train", "houses.csv") + (("--target", "price", *options) if options else ())
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("usage: xpmlp")


def test_a_file_without_permission_is_refused_before_training(folder, capsys, monkeypatch):
    (folder / "m").write_text("")
    (folder / "m").chmod(0o400)
    if os.geteuid() == 0:  # root has every permission: answer as for another user
        monkeypatch.setattr("os.access", lambda path, mode: False)
    assert_refused(capsys, folder, [*TARGET, "--save", "m"], "no permission")


# Processes


# a background process of a shell may inherit that SIGINT is ignored
PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from xpmlp.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_an_interruption_exits_with_130_and_leaves_no_files(folder):
    data(4000).drop("gaps", "wide").write_csv("big.csv")
    before = sorted(folder.rglob("*"))
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "train", "big.csv", "--target", "price",
         "--epochs", "100000", "--save", "m.safetensors", "--plot", "p.png", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        start = process.stderr.read(1)  # the progress bar or the first note: training begins
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert start
    assert out == ""
    assert "xpmlp: interrupted" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert sorted(folder.rglob("*")) == before


def test_train_runs_as_a_module_without_warnings(folder):
    result = subprocess.run(
        [sys.executable, "-W", "error", "-m", "xpmlp", "train", *TARGET, *QUICK, "--json"],
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert list(json.loads(result.stdout)) == KEYS
    assert "Warning" not in result.stderr


def test_help_fits_a_screen(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run(capsys, "train", "--help")
    assert code == 0
    assert len(out.splitlines()) <= 60
    assert max(map(len, out.splitlines())) <= 80
    assert out.count("example: xpmlp train") == 1


# Checkpoints and signals


def process(*args):
    command = [sys.executable, "-m", "xpmlp", "train", "houses.csv", "--target", "price", *args]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_writes_a_checkpoint_that_can_be_resumed(number, code, folder):
    # 400 epochs with a checkpoint each take seconds
    options = ("--schedule", "constant", "--learning-rate", "1e-5", "--quiet", "--epochs", "400")
    checkpoint = ("--checkpoint", "run.ckpt")
    with process(*options, *checkpoint) as first:
        while not (folder / "run.ckpt").exists():
            time.sleep(0.01)
        first.send_signal(number)
        _, errors = first.communicate()
    assert first.returncode == code, errors
    word = "interrupted" if code == 130 else "terminated"
    assert re.fullmatch(rf"xpmlp: {word}: stopped in epoch \d+, at step \d+\n", errors)
    for arguments in (("resumed", *checkpoint, "--resume"), ("uninterrupted",)):
        with process(*options, "--save", *arguments) as second:
            assert second.wait() == 0
    resumed, uninterrupted = load(folder / "resumed"), load(folder / "uninterrupted")
    assert resumed.model.flat.tobytes() == uninterrupted.model.flat.tobytes()


def test_an_existing_checkpoint_is_not_overwritten(folder, capsys):
    (folder / "run.ckpt").touch()
    arguments = ["train", "houses.csv", "--target", "price", "--checkpoint", "run.ckpt"]
    assert main(arguments) == 2
    assert "run.ckpt already exists: add --resume" in capsys.readouterr().err


def test_resume_needs_a_checkpoint(folder, capsys):
    assert main(["train", "houses.csv", "--target", "price", "--resume"]) == 2
    assert "--resume needs --checkpoint FILE" in capsys.readouterr().err
