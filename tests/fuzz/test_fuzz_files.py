"""The program that makes hostile files: it counts them, finds faults, keeps and repeats them."""

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

from fuzz.mutate_bytes import joined, sealed
from fuzz.mutate_header import taken_apart
from fuzz.trial_files import LOADED, REFUSED, Case, judged

pytest.importorskip("sklearn")
SCRIPT = Path(__file__).parent / "fuzz_files.py"
DATA = Path(__file__).parents[1] / "data"


def run(*words):
    command = [sys.executable, SCRIPT, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_hundred_thousand_hostile_files_load_correctly_or_are_refused(tmp_path):
    done = run("--count", 100_000, "--keep", tmp_path / "faults", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["files"] == 100_000 == sum(found["answers"].values())
    assert found["faults"] == []
    assert found["sources"] == len(list(DATA.rglob("*.safetensors")))
    # a run that only refuses, or one that tries no change, would prove little
    assert min(found["answers"].values()) > 1000
    assert min(found["changes"].values()) > 1000


def test_it_reports_what_it_did(tmp_path):
    done = run("--count", 200, "--seed", 5, "--keep", tmp_path / "faults")
    assert done.returncode == 0, done.stderr
    assert "200 hostile files" in done.stdout
    assert not (tmp_path / "faults").exists()


def test_it_ends_in_time(tmp_path):
    done = run("--minutes", 0.02, "--count", 10**9, "--json")
    assert done.returncode == 0, done.stderr
    assert 1.2 < json.loads(done.stdout)["seconds"] < 30


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--data", "nowhere"], "no .safetensors file"), (["--count", "many"], "invalid int")],
)
def test_bad_arguments_are_named(words, said):
    done = run(*words)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("fuzz_files", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answer(case, victim, other, path):
    """What comes of a hostile file; Fault where that is not as it must be."""
    path.write_bytes(case.data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", victim.kind.warns)
        return judged(case, victim, other, path)


def test_a_good_file_of_another_kind_loads_or_is_refused(script, tmp_path):
    """A splice may be, byte for byte, another of the good files."""
    good, answers = script.sources(DATA, tmp_path), {}
    for victim, other in product(good, good):
        case, kinds = Case(other.data, ("splice",), False), (victim.name[:5], other.name[:5])
        answers.setdefault(kinds, set()).add(answer(case, victim, other, tmp_path / "spliced"))
    for kinds, found in answers.items():
        if "check" not in kinds:  # two trainings are two kinds
            assert found == {LOADED if kinds[0] in ("model", "table", kinds[1]) else REFUSED}, kinds


# JSON in the place of any value of a configuration
ODD = ("1" + "0" * 400, "1e999", "-1", str(2**63), "0.5", "true", '"\\ud800"', "null", "[]", "{}")


def places(value, way=()):
    """The keys that lead to each value that holds no other, at both ends of a list."""
    if not isinstance(value, dict | list) or not value:
        return [way]
    keys = value if isinstance(value, dict) else sorted({0, len(value) - 1})
    return [place for key in keys for place in places(value[key], (*way, key))]


def edited(data, place, text):
    """A file of that JSON at that place, whose digest holds."""
    parts = taken_apart(data)
    *way, last = place
    reduce(getitem, way, parts.config)[last] = "HERE"
    config = json.dumps(parts.config).replace('"HERE"', text)
    parts.header["__metadata__"]["config"] = config
    return sealed(joined(json.dumps(parts.header, separators=(",", ":")).encode(), parts.body))


@pytest.mark.slow
@pytest.mark.parametrize("text", ODD, ids=lambda text: text[:8])
def test_any_value_of_a_configuration_may_be_odd(text, script, tmp_path):
    answers = set()
    for good in script.sources(DATA, tmp_path):
        for place in places(taken_apart(good.data).config):
            case = Case(edited(good.data, place, text), (str(place),), True)
            answers.add(answer(case, good, good, tmp_path / "odd"))
    assert REFUSED in answers
    assert (LOADED in answers) == (text[:4] not in ("1000", "1e99", '"\\ud')), "nothing holds those"


def test_a_fault_is_kept_and_can_be_repeated(script, tmp_path, monkeypatch, capsys):
    good = script.KINDS["model"]

    def at_fault(path):
        data = path.read_bytes()
        if len(data) % 7 == 0:
            raise MemoryError("no memory")
        return good.load(path)

    folder = tmp_path / "good"
    folder.mkdir()
    data = (DATA / "version-1" / "model-numbers.safetensors").read_bytes()
    assert len(data) % 7
    (folder / "model-numbers.safetensors").write_bytes(data)
    monkeypatch.setitem(script.KINDS, "model", good._replace(load=at_fault))
    monkeypatch.setattr(sys, "argv", ["fuzz_files.py", "--count", "100", "--seed", "3", "--json",
                                      "--data", str(folder), "--keep", str(tmp_path)])  # fmt: skip
    assert script.main() == 1
    found = json.loads(capsys.readouterr().out)
    first = found["faults"][0]
    assert "MemoryError: no memory" in first["fault"]
    kept = tmp_path / f"fault-3-{first['number']}.safetensors"
    assert len(kept.read_bytes()) % 7 == 0
    before = kept.read_bytes()
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--only", str(first["number"])])
    assert script.main() == 1
    assert kept.read_bytes() == before
    assert "MemoryError: no memory" in capsys.readouterr().err
