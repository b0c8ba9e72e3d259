"""`xpmlp train`: what it writes and says, and that bad input leaves nothing behind."""

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


def run(capsys, *words):
    """Exit code, output and error output of a command line."""
    try:
        code = main([str(word) for word in words])
    except SystemExit as stop:  # argparse's own way out
        code = stop.code
    out, err = capsys.readouterr()
    return code, out, err


def made(rows=80):
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
    made().drop("gaps", "wide").write_csv("houses.csv")
    made().write_csv("raw.csv")
    return tmp_path


# what it says and writes


@pytest.mark.parametrize("target", ["price", "sold"])
def test_json_is_exactly_one_object(target, folder, capsys):
    code, out, err = run(
        capsys, "train", "houses.csv", "--target", target, *QUICK, "--json", "--seed", 3,
        "--save", "m.safetensors",
    )  # fmt: skip
    assert code == 0
    assert out.count("\n") == 1
    found = json.loads(out)
    assert list(found) == KEYS
    number = target == "price"
    assert found["task"] == ("regression" if number else "classification")
    scores = ["rmse", "mae", "r2"] if number else ["accuracy", "log_loss", "auc"]
    assert list(found["metrics"]) == list(found["baseline"]) == scores
    assert (found["device"], found["epochs"], found["seed"]) == ("cpu", 2, 3)
    assert found["model"] == "m.safetensors"
    assert list(found["rows"]) == ["training", "validation", "held_out"]
    assert (sum(found["rows"].values()), found["rows"]["held_out"]) == (80, 16)
    assert found["seconds"] > 0
    assert "baseline" in err


def test_a_person_sees_the_scores_beside_the_baseline(folder, capsys):
    code, out, err = run(capsys, "train", "houses.csv", "--target", "sold", *QUICK)
    assert code == 0
    assert re.search(r"held-out +this model +baseline\naccuracy +[\d.]+ +[\d.]+\n", out)
    said = "classification of 'sold' (guessed) on device cpu; rows: 55 training, 9 validation, 16"
    assert said in out
    assert "inputs: 5 numbers, 1 category\n" in out
    assert "Traceback" not in err


@pytest.mark.parametrize(("target", "said"), [
    ("price", "regression of 'price' (guessed; --task classification for the other) on"),
    ("flag", "classification of 'flag' (guessed; --task regression for the other) on"),
])  # fmt: skip
def test_a_guess_says_how_to_ask_for_the_other(target, said, folder, capsys):
    made().select("a", "price", flag=polars.Series([0, 1] * 40)).write_csv("guess.csv")
    code, out, _ = run(capsys, "train", "guess.csv", "--target", target, *QUICK)
    assert code == 0
    assert said in out
    asked = said.partition(" ")[0]
    _, out, _ = run(capsys, "train", "guess.csv", "--target", target, *QUICK, "--task", asked)
    assert "guessed" not in out


def test_a_column_of_numbers_with_a_text_is_named(folder, capsys):
    cells = [str(i / 2) for i in range(79)]
    made().select("price", odd=polars.Series([*cells[:20], "-", *cells[20:]])).write_csv("odd.csv")
    _, out, _ = run(capsys, "train", "odd.csv", "--target", "price", *QUICK)
    assert "column 'odd' is read as strings, as not all cells are numbers: row 21 has '-'\n" in out


def test_quiet_says_nothing(folder, capsys):
    words = ("train", "houses.csv", "--target", "price", *QUICK, "--quiet")
    assert run(capsys, *words, "--save", "m.safetensors") == (0, "", "")
    code, out, err = run(capsys, *words, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["model"] is None


@pytest.mark.parametrize("target", ["price", "sold"])
def test_plot_writes_a_picture(target, folder, capsys):
    pytest.importorskip("matplotlib")
    words = ("--target", target, *QUICK, "--quiet", "--plot", "p.png")
    assert run(capsys, "train", "houses.csv", *words)[0] == 0
    data = (folder / "p.png").read_bytes()
    assert data.startswith(b"\x89PNG\r\n")
    assert len(data) > 10_000


def test_classes_that_are_real_numbers_are_scored_and_drawn(folder, capsys):
    pytest.importorskip("matplotlib")
    table = polars.read_csv("houses.csv")
    table.with_columns(half=polars.when(polars.col("a") > 0).then(0.5).otherwise(1.5)).write_csv(
        "half.csv"
    )
    words = ("--task", "classification", *QUICK, "--json", "--quiet", "--plot", "p.png")
    code, out, err = run(capsys, "train", "half.csv", "--target", "half", *words)
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
    words = ("--target", "price", *QUICK, "--json", "--quiet")
    one, two = (
        json.loads(run(capsys, "train", path, *words)[1])["metrics"]
        for path in ("houses.csv", name)
    )
    assert one == pytest.approx(two)


def test_the_same_seed_writes_the_same_model(folder, capsys):
    for name in ("one", "two"):
        words = ("--target", "price", *QUICK, "--quiet", "--save", name)
        assert run(capsys, "train", "houses.csv", *words)[0] == 0
    one, two = (taken_apart(folder / name) for name in ("one", "two"))
    assert one == two
    words = ("--target", "price", *QUICK, "--quiet", "--save", "three", "--seed", 1)
    assert run(capsys, "train", "houses.csv", *words)[0] == 0
    assert taken_apart(folder / "three") != one


def taken_apart(path):
    """Header and arrays, without what differs by the call: the seconds that training took, and
    the order in which safetensors writes the metadata, thus the digest."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    del header["__metadata__"]["sha256"]
    config = json.loads(header["__metadata__"].pop("config"))
    del config["trained"]["seconds"]
    return config, header, data[8 + size :]


SPLITS = {
    "a share": (("--test-size", "0.5"), 40),
    "groups": (("--group", "seller"), 20),
    "times": (("--time", "day"), 16),
    "a second table": (("--test", "raw.csv"), 80),
}


@pytest.mark.parametrize("kind", SPLITS)
def test_every_split_holds_out_its_rows(kind, folder, capsys):
    words, held = SPLITS[kind]
    code, out, _ = run(
        capsys, "train", "houses.csv", "--target", "price", *QUICK, "--json", "--quiet", *words
    )
    assert code == 0
    assert json.loads(out)["rows"]["held_out"] == held


def test_options_reach_the_training(folder, capsys):
    words = (
        "--hidden", "5,4", "--activation", "tanh", "--loss", "huber:1.35", "--optimizer", "sgd",
        "--learning-rate", "0.001", "--schedule", "constant", "--epochs", "3", "--batch-size", "16",
        "--dropout", "0.25", "--decay", "0", "--device", "cpu", "--seed", "7",
        "--dtype", "float64", "--threads", "1", "--task", "regression", "--drop", "sold",
        "--drop", "seller", "--save", "m.safetensors", "--json", "--quiet",
    )  # fmt: skip
    code, out, err = run(capsys, "train", "houses.csv", "--target", "price", *words)
    assert (code, err) == (0, "")
    found = load("m.safetensors")
    assert found.spec.sizes == (4, 5, 4, 1)
    assert [layer.activation for layer in found.spec.layers] == ["tanh", "tanh", "identity"]
    assert [layer.dropout for layer in found.spec.layers] == [0.25, 0.25, 0]
    assert found.spec.loss == "huber:1.35"
    assert found.model.flat.dtype == np.float64
    assert [known.name for known in found.columns] == ["a", "b", "flat", "day"]
    assert (json.loads(out)["epochs"], json.loads(out)["seed"]) == (3, 7)


@pytest.mark.parametrize("words", [("--learning-rate", "0.1"), ("--batch-size", "8"),
    ("--optimizer", "sgd"),
    ("--schedule", "constant"), ("--decay", "0.9"), ("--dropout", "0.5"),
    ("--loss", "absolute_error"),
])  # fmt: skip
def test_every_option_changes_the_training(words, folder, capsys):
    plain = ("train", "houses.csv", "--target", "price", *QUICK, "--json", "--quiet")
    results = [run(capsys, *plain, *more) for more in ((), words)]
    assert [code for code, _, _ in results] == [0, 0]
    one, two = (json.loads(out)["metrics"] for _, out, _ in results)
    assert one != two


def test_missing_targets_are_dropped_when_asked(folder, capsys):
    words = ("--target", "gaps", "--drop", "wide", *QUICK, "--json", "--quiet")
    code, out, _ = run(capsys, "train", "raw.csv", *words, "--drop-missing-target")
    assert code == 0
    assert sum(json.loads(out)["rows"].values()) == 78


# what is refused

TARGET = ("houses.csv", "--target", "price")
OPTIONS = {
    "a share of nothing": ("--test-size", "0", "test_size must be in (0, 1); got 0"),
    "a share of all": ("--test-size", "1", "test_size must be in (0, 1)"),
    "a size of nothing": ("--hidden", "8,0", "must be at least 1; got '0'"),
    "a size that is no number": ("--hidden", "8,x", "must be a whole number; got 'x'"),
    "no size": ("--hidden", "", "must be a whole number; got ''"),
    "an activation misspelt": ("--activation", "rellu", "'rellu' is unknown; did you mean 'relu'?"),
    "a loss misspelt": ("--loss", "hubber", "did you mean 'huber'?"),
    "a loss that does not fit": ("--loss", "cross_entropy", "cross_entropy"),
    "an optimizer misspelt": ("--optimizer", "adamv", "did you mean 'adam"),
    "a schedule misspelt": ("--schedule", "cosin", "did you mean 'cosine'?"),
    "a rate below nothing": ("--learning-rate", "-1", "learning_rate"),
    "a rate that is no number": ("--learning-rate", "nan", "learning_rate"),
    "no epoch": ("--epochs", "0", "epochs must be at least 1; got 0"),
    "no batch": ("--batch-size", "0", "batch_size must be at least 1; got 0"),
    "a dropout of all": ("--dropout", "1", "--dropout must be in [0, 1); got 1"),
    "a dropout below nothing": ("--dropout", "-0.1", "--dropout must be in [0, 1)"),
    "a decay below nothing": ("--decay", "-1", "decay"),
    "a device misspelt": ("--device", "gqu", "gqu"),
    "a seed below zero": ("--seed", "-1", "seed"),
    "a dtype misspelt": ("--dtype", "float23", "float32"),
    "a precision misspelt": ("--precision", "half", "half"),
    "no thread": ("--threads", "0", "--threads must be at least 1; got 0"),
    "a column to drop": ("--drop", "sellr", "did you mean 'seller'?"),
    "an unknown group": ("--group", "sellr", "did you mean 'seller'?"),
    "a time that is a text": ("--time", "seller", "'seller' is neither a time"),
    "another picture": ("--plot", "p.docx", "--plot must end in .png, .pdf, .svg; got p.docx"),
    "a folder that is not there": ("--save", "no/m", "folder no does not exist"),
    "a directory to save to": ("--save", ".", "is a directory"),
    "a directory to draw to": ("--plot", "no/p.png", "folder no does not exist"),
    "a second table that is not there": ("--test", "no.csv", "no.csv does not exist"),
}  # fmt: skip


def refused(capsys, folder, words, said):
    """One line, or two, exit 2, and a folder as it was."""
    before = sorted(folder.rglob("*"))
    code, out, err = run(
        capsys, "train", *words, *(() if "--epochs" in words else ("--epochs", "2")), "--quiet"
    )
    assert (code, out) == (2, "")
    assert err.startswith("xpmlp train: ")
    assert err.count("\n") <= 2
    assert said in err
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("kind", OPTIONS)
def test_an_option_out_of_range_is_refused(kind, folder, capsys):
    option, value, said = OPTIONS[kind]
    words = [*TARGET, option, value]
    if option not in ("--save",):
        words += ["--save", "m.safetensors"]
    refused(capsys, folder, words, said)


def test_a_training_that_diverges_says_where_and_leaves_no_model(folder, capsys):
    far = ["--learning-rate", "1e30", "--optimizer", "sgd", "--save", "m"]
    refused(capsys, folder, [*TARGET, *far], "no model was saved")
    _, _, err = run(capsys, "train", *TARGET, *far, "--epochs", "2", "--quiet")
    assert re.match(r"xpmlp train: training diverged in epoch \d at step \d+ at learning rate", err)
    assert "Try a lower --learning-rate" in err
    assert ".model" not in err


TABLES = {
    "not there": ("no.csv", None, "no.csv does not exist"),
    "empty": ("x.csv", b"", "x.csv is empty"),
    "noise": ("x.csv", b"\x80\xff,\xfe\n\x81\n\x82\n", "x.csv is not a readable table"),
    "noise in Parquet": ("x.parquet", bytes(range(256)), "x.parquet is not a readable table"),
    "a directory": (".", None, "is a directory"),
    "a header": ("x.csv", b"a,price\n", "has a header but no rows"),
    "one row": ("x.csv", b"a,price\n1,2\n", "has one row"),
    "the target alone": ("x.csv", b"price\n1.5\n2.5\n3.5\n", "no column is left"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_file_that_is_no_table_is_refused(kind, folder, capsys):
    name, data, said = TABLES[kind]
    if data is not None:
        (folder / name).write_bytes(data)
    refused(capsys, folder, [name, "--target", "price", "--save", "m"], said)


TARGETS = {
    "misspelt": ("prise", "there is no column 'prise'; did you mean 'price'?"),
    "with gaps": ("gaps", "'gaps' has 2 missing cells, the first in row 5; --drop-missing-target"),
    "constant": ("flat", "'flat' is constant (7)"),
    "infinite": ("wide", "column 'wide' has 1 infinite value, the first in row 6"),
    "beside an infinite column": ("price", "column 'wide' has 1 infinite value"),
}


@pytest.mark.parametrize("kind", TARGETS)
def test_a_target_that_cannot_be_learnt_is_refused(kind, folder, capsys):
    target, said = TARGETS[kind]
    drop = [] if "wide" in said else ["--drop", "wide"]
    refused(capsys, folder, ["raw.csv", "--target", target, *drop, "--save", "m"], said)


@pytest.mark.parametrize("words", [(), ("--test-size", "x"), ("--task", "x"), ("--epochs", "1.5"),
    ("--group", "a", "--time", "b"), ("--test", "x.csv", "--test-size", "0.2"), ("--hiden", "8"),
])  # fmt: skip
def test_bad_usage_exits_with_two_and_says_how(words, folder, capsys):
    given = ("train", "houses.csv") + (("--target", "price", *words) if words else ())
    code, out, err = run(capsys, *given)
    assert (code, out) == (2, "")
    assert err.startswith("usage: xpmlp")


def test_a_file_without_permission_is_found_before_training(folder, capsys, monkeypatch):
    (folder / "m").write_text("")
    (folder / "m").chmod(0o400)
    if os.geteuid() == 0:  # nothing is forbidden to root: ask as somebody else would be told
        monkeypatch.setattr("os.access", lambda path, mode: False)
    refused(capsys, folder, [*TARGET, "--save", "m"], "no permission")


# the process


# A process started in the background of a shell may inherit that Ctrl-C is ignored
HEEDING = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from xpmlp.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_an_interruption_exits_130_and_leaves_nothing(folder):
    made(4000).drop("gaps", "wide").write_csv("big.csv")
    before = sorted(folder.rglob("*"))
    process = subprocess.Popen(
        [sys.executable, "-c", HEEDING, "train", "big.csv", "--target", "price",
         "--epochs", "100000", "--save", "m.safetensors", "--plot", "p.png", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        said = process.stderr.read(1)  # the bar or the first note: training begins
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert said
    assert out == ""
    assert "xpmlp: interrupted" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert sorted(folder.rglob("*")) == before


def test_it_runs_as_a_module_without_a_warning(folder):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "xpmlp", "train", *TARGET, *QUICK, "--json"],
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)) == KEYS
    assert "Warning" not in done.stderr


def test_the_help_fits_a_screen(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run(capsys, "train", "--help")
    assert code == 0
    assert len(out.splitlines()) <= 60
    assert max(map(len, out.splitlines())) <= 80
    assert out.count("example: xpmlp train") == 1


# checkpoints and signals


def process(*words):
    command = [sys.executable, "-m", "xpmlp", "train", "houses.csv", "--target", "price", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_writes_the_checkpoint_that_resume_goes_on_from(number, code, folder):
    # each with its checkpoint, 400 epochs take seconds
    more = ("--schedule", "constant", "--learning-rate", "1e-5", "--quiet", "--epochs", "400")
    kept = ("--checkpoint", "run.ckpt")
    with process(*more, *kept) as first:
        while not (folder / "run.ckpt").exists():
            time.sleep(0.01)
        first.send_signal(number)
        _, said = first.communicate()
    assert first.returncode == code, said
    word = "interrupted" if code == 130 else "terminated"
    assert re.fullmatch(rf"xpmlp: {word}: stopped in epoch \d+, at step \d+\n", said)
    for words in (("resumed", *kept, "--resume"), ("through",)):
        with process(*more, "--save", *words) as other:
            assert other.wait() == 0
    resumed, through = load(folder / "resumed"), load(folder / "through")
    assert resumed.model.flat.tobytes() == through.model.flat.tobytes()


def test_a_checkpoint_that_is_there_is_not_overwritten(folder, capsys):
    (folder / "run.ckpt").touch()
    words = ["train", "houses.csv", "--target", "price", "--checkpoint", "run.ckpt"]
    assert main(words) == 2
    assert "run.ckpt already exists: add --resume" in capsys.readouterr().err


def test_resume_needs_a_checkpoint(folder, capsys):
    assert main(["train", "houses.csv", "--target", "price", "--resume"]) == 2
    assert "--resume needs --checkpoint FILE" in capsys.readouterr().err
