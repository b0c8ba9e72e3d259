"""The long run, made short; and leaks of every kind, which it must notice."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")
SCRIPT = Path(__file__).parent / "soak.py"
pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")


@pytest.mark.slow
def test_a_short_run_is_flat():
    done = subprocess.run(
        [sys.executable, SCRIPT, "--minutes", "0.2", "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["grown"] == {}
    assert found["rounds"] >= 8
    for of in ("files", "threads", "descriptors"):
        assert found[of]["last"] <= found[of]["first"]
    assert done.stderr.endswith("flat\n")


def test_bad_arguments_are_named():
    done = subprocess.run(
        [sys.executable, SCRIPT, "--minutes", "0"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "--minutes must be above 0" in done.stderr


@pytest.fixture
def script(monkeypatch):
    spec = importlib.util.spec_from_file_location("soak", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "soak", module)
    spec.loader.exec_module(module)
    return module


KEPT: list = []


def kept_array(r):
    KEPT.append(np.ones(500_000))


def kept_objects(r):
    KEPT.append([object() for _ in range(3000)])


def kept_file(r):
    (r.folder / f"left behind {time.perf_counter_ns()}").touch()


def kept_temporary_file(r):
    os.close(tempfile.mkstemp()[0])


def kept_descriptor(r):
    KEPT.append(open("/dev/null"))  # noqa: SIM115 - the leak


def kept_thread(r):
    done = next((item for item in KEPT if isinstance(item, threading.Event)), None)
    if done is None:
        KEPT.append(done := threading.Event())
    threading.Thread(target=done.wait, daemon=True).start()


LEAKS = {
    "memory": kept_array,
    "blocks": kept_objects,
    "files": kept_file,
    "files ": kept_temporary_file,
    "descriptors": kept_descriptor,
    "threads": kept_thread,
}


def slowly(activity):
    """At most 200 rounds a second."""

    def round_of(r):
        time.sleep(0.005)
        activity(r)

    return round_of


def found_in(script, activity, monkeypatch, capsys):
    monkeypatch.setattr(script, "ACTIVITIES", {"activity": slowly(activity)})
    monkeypatch.setattr(sys, "argv", ["soak.py", "--minutes", "0.03", "--json"])
    status = script.main()
    return status, json.loads(capsys.readouterr().out)["grown"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", LEAKS)
def test_a_leak_is_noticed(kind, script, monkeypatch, capsys):
    try:
        status, grown = found_in(script, LEAKS[kind], monkeypatch, capsys)
    finally:
        for item in KEPT:
            if hasattr(item, "close"):
                item.close()
            if isinstance(item, threading.Event):
                item.set()
        KEPT.clear()
    assert status == 1
    assert kind.strip() in grown


@pytest.mark.slow
def test_what_is_let_go_is_no_leak(script, monkeypatch, capsys):
    def careful(r):
        np.ones(500_000)
        [object() for _ in range(3000)]
        with tempfile.TemporaryFile():
            pass
        thread = threading.Thread(target=time.sleep, args=(0,))
        thread.start()
        thread.join()

    assert found_in(script, careful, monkeypatch, capsys) == (0, {})


def test_the_slope_is_not_bent_by_a_few_odd_readings(script):
    readings = [script.Reading(i / 60, 10**8 + (i % 7 == 0) * 10**7, 0, 0, 0, 0) for i in range(99)]
    assert script.slope(readings, "memory") == 0
    rising = [one._replace(memory=one.memory + 60 * int(60 * one.minutes)) for one in readings]
    assert script.slope(rising, "memory") == pytest.approx(3600, rel=0.01)


@pytest.mark.parametrize("name", ["fit and predict", "estimators", "save and load", "go on",
                                  "resume", "populations", "threads", "bad input"])  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_every_activity_does_what_it_says(name, script, tmp_path):
    """Each asserts its own results."""
    script.ACTIVITIES[name](script.drawn(1, 1, tmp_path))
