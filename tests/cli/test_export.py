"""`xpmlp export`: a model file as ONNX, and what is said of it."""

import numpy as np
import pytest

import xpmlp
from xpmlp.cli.main import main
from xpmlp.storage.onnx import graph_of, serialize
from xpmlp.tabular.model import load

polars = pytest.importorskip("polars")
pytest.importorskip("sklearn")
pytest.importorskip("onnx")


def run(capsys, *words):
    """Exit code, output and error output of a command line."""
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a model on arrays and one on a table, to work in."""
    monkeypatch.chdir(tmp_path)
    rows = np.random.default_rng(0).normal(size=(60, 3))
    labels = np.where(rows[:, 0] > 0, "up", "down")
    xpmlp.train("3-4-2", rows, labels, loss="cross_entropy", epochs=1).save("net.safetensors")
    table = polars.DataFrame({"a": rows[:, 0], "c": labels, "price": rows[:, 1]})
    table.write_csv("t.csv")
    words = ["--target", "price", "--epochs", "2", "--hidden", "8", "--quiet"]
    assert main(["train", "t.csv", *words, "--save", "price.safetensors"]) == 0
    return tmp_path


def test_a_network_on_arrays_is_exported_beside_its_file(folder, capsys):
    code, out, err = run(capsys, "export", "net.safetensors")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "wrote net.onnx",
        "  input 'X': float32 (N, 3)",
        "  output 'label': string (N)",
        "  output 'probabilities': float32 (N, 2)",
    ]
    wanted = serialize(graph_of(load("net.safetensors")))
    assert (folder / "net.onnx").read_bytes() == wanted


def test_a_table_is_exported_where_it_was_asked(folder, capsys, run_onnx):
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
    found = run_onnx((folder / "p.onnx").read_bytes(), cells)["prediction"]
    np.testing.assert_allclose(found, load("price.safetensors").predict(table), rtol=1e-6)


BAD = {
    "a model that is not there": ("no", "model file no does not exist"),
    "a model that is a directory": (".", "model file . does not exist"),
    "a model that is none": ("t.csv", "t.csv is not a whole model file"),
    "another ending": ("net.safetensors", "--out", "net.pb", "--out must end in .onnx; got net.pb"),
    "no folder": ("net.safetensors", "--out", "no/net.onnx", "folder no does not exist"),
    "itself": ("model.onnx", "model.onnx is an input"),
    "labels that ONNX lacks": ("halves", "class labels such as 0.5"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_one_line_and_exit_two(kind, folder, capsys):
    (folder / "model.onnx").write_bytes((folder / "net.safetensors").read_bytes())
    rows, halves = np.arange(4.0)[:, None], np.array([0.5, 1.5] * 2)
    xpmlp.train("1-2", rows, halves, loss="cross_entropy", epochs=1).save("halves")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    *words, said = BAD[kind]
    code, out, err = run(capsys, "export", *words)
    assert (code, out) == (2, "")
    assert err.startswith("xpmlp export: ")
    assert said in err
    assert err.count("\n") == 1
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_missing_onnx_is_one_line(folder, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    code, out, err = run(capsys, "export", "net.safetensors")
    assert (code, out) == (2, "")
    assert "pip install 'xpmlp[onnx]'" in err
    assert err.count("\n") == 1
    assert not (folder / "net.onnx").exists()
