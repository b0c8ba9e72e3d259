"""`xpmlp demo`: trains on digits, plots the history and saves the model."""

import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from xpmlp import load
from xpmlp.cli.main import main

SKLEARN = pytest.importorskip("sklearn.datasets")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")


class Demo(NamedTuple):
    """One run of the demo: its folder and its output."""

    folder: Path
    out: str


def run_demo(folder):
    with redirect_stdout(StringIO()) as out:
        assert main(["demo", "--device", "cpu", "--out", str(folder)]) == 0
    return Demo(folder, out.getvalue())


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return run_demo(tmp_path_factory.mktemp("demo"))


def test_the_demo_reaches_97_percent_accuracy(demo):
    accuracy = float(re.search(r"held-out accuracy ([\d.]+)%", demo.out).group(1))
    assert accuracy >= 97
    assert "device cpu" in demo.out
    assert str(demo.folder / "demo-loss.png") in demo.out
    assert str(demo.folder / "demo-model.safetensors") in demo.out


def test_the_demo_writes_two_files_and_nothing_else(demo):
    written = sorted(file.name for file in demo.folder.iterdir())
    assert written == ["demo-loss.png", "demo-model.safetensors"]


def test_the_plot_is_a_valid_png(demo):
    image = pytest.importorskip("PIL.Image")
    with image.open(demo.folder / "demo-loss.png") as picture:
        assert picture.format == "PNG"
        picture.verify()
    with image.open(demo.folder / "demo-loss.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    assert min(pixels.shape) > 400
    assert len(np.unique(pixels)) > 10


def test_the_model_classifies_the_digits(demo):
    X, y = SKLEARN.load_digits(return_X_y=True)
    model = load(demo.folder / "demo-model.safetensors")
    assert model.classes_.tolist() == list(range(10))
    assert (model.predict((X / 16).astype("float32")) == y).mean() > 0.98


@pytest.mark.slow
def test_the_same_seed_gives_the_same_model(demo, tmp_path):
    second, first = (
        load(run.folder / "demo-model.safetensors") for run in (run_demo(tmp_path), demo)
    )
    assert second.flat.tobytes() == first.flat.tobytes()


def test_a_missing_folder_is_named_before_any_work(tmp_path, capsys):
    folder = tmp_path / "no"
    assert main(["demo", "--device", "cpu", "--out", str(folder)]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"xpmlp demo: --out must be an existing folder; got {folder}\n")
    assert not folder.exists()


@pytest.mark.parametrize("seed", ["-1", str(2**32)])
def test_a_seed_out_of_range_is_named(seed, tmp_path, capsys):
    assert main(["demo", "--device", "cpu", "--out", str(tmp_path), "--seed", seed]) == 2
    assert capsys.readouterr().err == f"xpmlp demo: --seed must be in [0, 2**32); got {seed}\n"
    assert not any(tmp_path.iterdir())
