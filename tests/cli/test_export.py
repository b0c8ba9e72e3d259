"""`xpmlp export`: a model file as ONNX, and the output of the command."""

import numpy as np
import pytest

import xpmlp
from xpmlp.cli.main import main
from xpmlp.storage.onnx import graph_of, serialize
from xpmlp.tabular.model import load

polars = pytest.importorskip("polars")
pytest.importorskip("sklearn")
pytest.importorskip("onnx")


def run(capsys, *arguments):
    """Exit code, output and error output of a command line."""
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a model on arrays and one on a table."""
    monkeypatch.chdir(tmp_path)
    rows = np.random.default_rng(0).normal(size=(60, 3))
    labels = np.where(rows[:, 0] > 0, "up", "down")
    xpmlp.train("3-4-2", rows, labels, loss="cross_entropy", epochs=1).save("net.safetensors")
    table = polars.DataFrame({"a": rows[:, 0], "c": labels, "price": rows[:, 1]})
    table.write_csv("t.csv")
    arguments = ["--target", "price", "--epochs", "2", "--hidden", "8", "--quiet"]
    assert main(["train", "t.csv", *arguments, "--save", "price.safetensors"]) == 0
    return tmp_path


def test_a_network_on_arrays_is_exported_next_to_its_file(folder, capsys):
    code, out, err = run(capsys, "export", "net.safetensors")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "wrote net.onnx",
        "  input 'X': float32 (N, 3)",
        "  output 'label': string (N)",
        "  output 'probabilities': float32 (N, 2)",
    ]
    expected = serialize(graph_of(load("net.safetensors")))
    assert (folder / "net.onnx").read_bytes() == expected


def test_a_table_model_is_exported_to_the_given_path(folder, capsys, run_onnx):
    code, out, err = run(capsys, "export", "price.safetensors", "--out", "p.onnx")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "wrote p.onnx",
        "  input 'a': float64 (N)",
        "  input 'c': string (N)",
        "  output 'prediction': float64 (N)",
    ]
    table = polars.read_csv("t.csv")
    cells = {"a": table["a"].to_numpy(), "c": np.array(table["c"].to_list(), dtype=object)}
    actual = run_onnx((folder / "p.onnx").read_bytes(), cells)["prediction"]
    np.testing.assert_allclose(actual, load("price.safetensors").predict(table), rtol=1e-6)


BAD = {
    "a missing model": ("no", "model file no does not exist"),
    "a model that is a directory": (".", "model file . does not exist"),
    "a file that is not a model": ("t.csv", "t.csv is not a whole model file"),
    "another suffix": ("net.safetensors", "--out", "net.pb", "--out must end in .onnx; got net.pb"),
    "a missing folder": ("net.safetensors", "--out", "no/net.onnx", "folder no does not exist"),
    "an output that is the input": ("model.onnx", "model.onnx is an input"),
    "labels that ONNX lacks": ("halves", "class labels such as 0.5"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_one_line_and_exit_two(kind, folder, capsys):
    (folder / "model.onnx").write_bytes((folder / "net.safetensors").read_bytes())
    rows, halves = np.arange(4.0)[:, None], np.array([0.5, 1.5] * 2)
    xpmlp.train("1-2", rows, halves, loss="cross_entropy", epochs=1).save("halves")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    *arguments, message = BAD[kind]
    code, out, err = run(capsys, "export", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("xpmlp export: ")
    assert message in err
    assert err.count("\n") == 1
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_missing_onnx_is_one_line(folder, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    code, out, err = run(capsys, "export", "net.safetensors")
    assert (code, out) == (2, "")
    assert "pip install 'xpmlp[onnx]'" in err
    assert err.count("\n") == 1
    assert not (folder / "net.onnx").exists()
