"""Fetching the public data sets: only bytes with the expected digest are written."""

import gzip
import hashlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "fetch_data.py"
ROWS = b"39,State-gov,<=50K\n54,?,>50K"


def digest(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("fetch_data", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up the module
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules[spec.name]


@pytest.fixture
def served(script, tmp_path, monkeypatch):
    """Three sets served from local files: one plain, one converted, one compressed."""
    folder = tmp_path / "served"
    folder.mkdir()
    contents = {
        "plain": (ROWS, ROWS, script.unchanged),
        "table": (ROWS, script.with_header(ROWS), script.with_header),
        "packed": (gzip.compress(ROWS, mtime=0), ROWS, gzip.decompress),
    }
    sets = {}
    for name, (public, content, convert) in contents.items():
        (folder / name).write_bytes(public)
        url = (folder / name).as_uri()
        source = script.Source(url, digest(public), digest(content), convert)
        sets[name] = {f"{name}.csv.gz": source}
    monkeypatch.setattr(script, "SETS", sets)
    return folder


def test_every_set_is_written_with_its_content(script, served, tmp_path, capsys):
    out = tmp_path / "deep" / "data"
    assert script.main(["--out", str(out)]) == 0
    assert gzip.decompress((out / "plain.csv.gz").read_bytes()) == ROWS
    assert gzip.decompress((out / "packed.csv.gz").read_bytes()) == ROWS
    table = gzip.decompress((out / "table.csv.gz").read_bytes()).decode().splitlines()
    assert table[0].split(",")[0] == "age"
    assert table[0].split(",")[-1] == "income"
    assert table[1:] == ["39,State-gov,<=50K", "54,,>50K"]
    assert sorted(path.name for path in out.iterdir()) == [
        "packed.csv.gz", "plain.csv.gz", "table.csv.gz",
    ]  # fmt: skip
    assert capsys.readouterr().out.count(": written, ") == 3


def test_the_same_bytes_are_written_every_time(script, served, tmp_path):
    for folder in ("first", "second"):
        assert script.main(["plain", "--out", str(tmp_path / folder)]) == 0
    first, second = (tmp_path / folder / "plain.csv.gz" for folder in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()


def test_an_existing_file_is_not_fetched_again(script, served, tmp_path, capsys):
    assert script.main(["plain", "--out", str(tmp_path)]) == 0
    (served / "plain").unlink()
    assert script.main(["plain", "--out", str(tmp_path)]) == 0
    assert "is there already" in capsys.readouterr().out


@pytest.mark.parametrize("damage", [b"", b"half", gzip.compress(b"other", mtime=0)])
def test_a_damaged_file_is_fetched_again(damage, script, served, tmp_path):
    (tmp_path / "plain.csv.gz").write_bytes(damage)
    assert script.main(["plain", "--out", str(tmp_path)]) == 0
    assert gzip.decompress((tmp_path / "plain.csv.gz").read_bytes()) == ROWS


@pytest.mark.parametrize("name", ["plain", "table", "packed"])
def test_unexpected_bytes_are_refused_and_not_written(name, script, served, tmp_path, capsys):
    (served / name).write_bytes(ROWS + b"\n")
    out = tmp_path / "out"
    assert script.main([name, "--out", str(out)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("fetch_data: ")
    assert digest(ROWS + b"\n") in err
    assert err.count("\n") == 1
    assert list(out.iterdir()) == []


def test_an_unexpected_conversion_is_refused(script, served, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "ADULT_HEADER", b"other\n")
    sets = script.SETS["table"]["table.csv.gz"]
    assert script.with_header(ROWS).startswith(b"other")
    assert script.main(["table", "--out", str(tmp_path / "out")]) == 2
    assert sets.content in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


BAD = {
    "a misspelt set": (["plian"], "did you mean 'plain'?"),
    "a missing source": (["plain"], "plain"),
    "a folder that is a file": (["table", "--out", "served/table"], "table"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_one_line_and_exit_two(kind, script, served, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (served / "plain").unlink()
    arguments, message = BAD[kind]
    assert script.main(arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


def test_sources_are_pinned_and_digests_are_well_formed(script):
    sources = [source for files in script.SETS.values() for source in files.values()]
    assert list(script.SETS) == ["california", "diamonds", "adult", "mnist-10k"]
    for source in sources:
        assert re.fullmatch(
            r"https://raw\.githubusercontent\.com/[\w-]+/[\w-]+/[0-9a-f]{40}/[\w/.-]+", source.url
        )
        assert re.fullmatch(r"[0-9a-f]{64}", source.public)
        assert re.fullmatch(r"[0-9a-f]{64}", source.content)
        assert (source.public == source.content) == (source.convert is script.unchanged)


def test_runs_as_a_script(tmp_path):
    result = subprocess.run(
        [sys.executable, SCRIPT, "nothing"],
        cwd=tmp_path, check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert result.returncode == 2
    assert "data set 'nothing' is unknown" in result.stderr
    assert list(tmp_path.iterdir()) == []
