"""The program that makes hostile files: counts, and faults that it finds, keeps and repeats."""

import importlib.util
import json
import subprocess
import sys
import warnings
from functools import reduce
from itertools import product
from operator import getitem
from pathlib import Path

import pytest

from fuzz.mutate_bytes import joined, with_digest
from fuzz.mutate_header import split_file
from fuzz.trial_files import LOADED, REFUSED, Case, judge

pytest.importorskip("sklearn")
SCRIPT = Path(__file__).parent / "fuzz_files.py"
DATA = Path(__file__).parents[1] / "data"


def run(*arguments):
    command = [sys.executable, SCRIPT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_hundred_thousand_hostile_files_load_correctly_or_are_refused(tmp_path):
    result = run("--count", 100_000, "--keep", tmp_path / "faults", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["files"] == 100_000 == sum(report["answers"].values())
    assert report["faults"] == []
    assert report["sources"] == len(list(DATA.rglob("*.safetensors")))
    # a run that only refuses, or one that tries no change, would prove little
    assert min(report["answers"].values()) > 1000
    assert min(report["changes"].values()) > 1000


def test_reports_the_number_of_files(tmp_path):
    result = run("--count", 200, "--seed", 5, "--keep", tmp_path / "faults")
    assert result.returncode == 0, result.stderr
    assert "200 hostile files" in result.stdout
    assert not (tmp_path / "faults").exists()


@pytest.mark.slow
def test_ends_in_time(tmp_path):
    result = run("--minutes", 0.02, "--count", 10**9, "--json")
    assert result.returncode == 0, result.stderr
    assert 1.2 < json.loads(result.stdout)["seconds"] < 30


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--data", "nowhere"], "no .safetensors file"), (["--count", "many"], "invalid int")],
)
def test_bad_arguments_are_named(arguments, message):
    result = run(*arguments)
    assert result.returncode == 2
    assert message in result.stderr


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("fuzz_files", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def outcome(case, victim, other, path):
    """The outcome of loading a hostile file; Fault if it is not as it must be."""
    path.write_bytes(case.data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", victim.kind.warns)
        return judge(case, victim, other, path)


def test_a_good_file_of_another_kind_loads_or_is_refused(script, tmp_path):
    """A splice may equal another of the good files, byte for byte."""
    good, outcomes = script.sources(DATA, tmp_path), {}
    for victim, other in product(good, good):
        case, kinds = Case(other.data, ("splice",), False), (victim.name[:5], other.name[:5])
        outcomes.setdefault(kinds, set()).add(outcome(case, victim, other, tmp_path / "spliced"))
    for kinds, actual in outcomes.items():
        if "check" not in kinds:  # each training is a kind of its own
            assert actual == {LOADED if kinds[0] in ("model", "table", kinds[1]) else REFUSED}, (
                kinds
            )


# JSON that replaces any value of a configuration
JSON = ("1" + "0" * 400, "1e999", "-1", str(2**63), "0.5", "true", '"\\ud800"', "null", "[]", "{}")


def places(value, keys_so_far=()):
    """The keys of each value without further values, at both ends of a list."""
    if not isinstance(value, dict | list) or not value:
        return [keys_so_far]
    keys = value if isinstance(value, dict) else sorted({0, len(value) - 1})
    return [place for key in keys for place in places(value[key], (*keys_so_far, key))]


def replace_value(data, place, text):
    """The file with that JSON at that place, and a valid digest."""
    parts = split_file(data)
    *keys, last = place
    reduce(getitem, keys, parts.config)[last] = "HERE"
    config = json.dumps(parts.config).replace('"HERE"', text)
    parts.header["__metadata__"]["config"] = config
    return with_digest(joined(json.dumps(parts.header, separators=(",", ":")).encode(), parts.body))


@pytest.mark.slow
@pytest.mark.parametrize("text", JSON, ids=lambda text: text[:8])
def test_odd_values_of_a_configuration_load_or_are_refused(text, script, tmp_path):
    outcomes = set()
    for good in script.sources(DATA, tmp_path):
        for place in places(split_file(good.data).config):
            case = Case(replace_value(good.data, place, text), (str(place),), True)
            outcomes.add(outcome(case, good, good, tmp_path / "odd"))
    assert REFUSED in outcomes
    assert (LOADED in outcomes) == (text[:4] not in ("1000", "1e99", '"\\ud')), (
        "nothing holds those"
    )


def test_a_fault_is_kept_and_can_be_repeated(script, tmp_path, monkeypatch, capsys):
    good = script.KINDS["model"]

    def faulty(path):
        data = path.read_bytes()
        if len(data) % 7 == 0:
            raise MemoryError("no memory")
        return good.load(path)

    folder = tmp_path / "good"
    folder.mkdir()
    data = (DATA / "version-1" / "model-numbers.safetensors").read_bytes()
    assert len(data) % 7
    (folder / "model-numbers.safetensors").write_bytes(data)
    monkeypatch.setitem(script.KINDS, "model", good._replace(load=faulty))
    monkeypatch.setattr(sys, "argv", ["fuzz_files.py", "--count", "100", "--seed", "3", "--json",
                                      "--data", str(folder), "--keep", str(tmp_path)])  # fmt: skip
    assert script.main() == 1
    report = json.loads(capsys.readouterr().out)
    first = report["faults"][0]
    assert "MemoryError: no memory" in first["fault"]
    kept = tmp_path / f"fault-3-{first['number']}.safetensors"
    assert len(kept.read_bytes()) % 7 == 0
    before = kept.read_bytes()
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--only", str(first["number"])])
    assert script.main() == 1
    assert kept.read_bytes() == before
    assert "MemoryError: no memory" in capsys.readouterr().err
