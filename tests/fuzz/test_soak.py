"""A short run of the soak test, and leaks of every kind, which it must notice."""

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
    result = subprocess.run(
        [sys.executable, SCRIPT, "--minutes", "0.2", "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["grown"] == {}
    assert report["rounds"] >= 8
    for name in ("files", "threads", "descriptors"):
        assert report[name]["last"] <= report[name]["first"]
    assert result.stderr.endswith("flat\n")


@pytest.mark.slow
def test_bad_arguments_are_named():
    result = subprocess.run(
        [sys.executable, SCRIPT, "--minutes", "0"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "--minutes must be above 0" in result.stderr


@pytest.fixture
def script(monkeypatch):
    spec = importlib.util.spec_from_file_location("soak", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "soak", module)
    spec.loader.exec_module(module)
    return module


LEAKED: list = []


def leak_array(r):
    LEAKED.append(np.ones(500_000))


def leak_objects(r):
    LEAKED.append([object() for _ in range(3000)])


def leak_file(r):
    (r.folder / f"left behind {time.perf_counter_ns()}").touch()


def leak_temporary_file(r):
    os.close(tempfile.mkstemp()[0])


def leak_descriptor(r):
    LEAKED.append(open("/dev/null"))  # noqa: SIM115 - the leak


def leak_thread(r):
    event = next((item for item in LEAKED if isinstance(item, threading.Event)), None)
    if event is None:
        LEAKED.append(event := threading.Event())
    threading.Thread(target=event.wait, daemon=True).start()


LEAKS = {
    "memory": leak_array,
    "blocks": leak_objects,
    "files": leak_file,
    "files ": leak_temporary_file,
    "descriptors": leak_descriptor,
    "threads": leak_thread,
}


def throttled(activity):
    """At most 200 rounds a second."""

    def round_of(r):
        time.sleep(0.005)
        activity(r)

    return round_of


def run_soak(script, activity, monkeypatch, capsys):
    monkeypatch.setattr(script, "ACTIVITIES", {"activity": throttled(activity)})
    monkeypatch.setattr(sys, "argv", ["soak.py", "--minutes", "0.03", "--json"])
    status = script.main()
    return status, json.loads(capsys.readouterr().out)["grown"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", LEAKS)
def test_a_leak_is_noticed(kind, script, monkeypatch, capsys):
    try:
        status, grown = run_soak(script, LEAKS[kind], monkeypatch, capsys)
    finally:
        for item in LEAKED:
            if hasattr(item, "close"):
                item.close()
            if isinstance(item, threading.Event):
                item.set()
        LEAKED.clear()
    assert status == 1
    assert kind.strip() in grown


@pytest.mark.slow
def test_released_resources_are_no_leak(script, monkeypatch, capsys):
    def careful(r):
        np.ones(500_000)
        [object() for _ in range(3000)]
        with tempfile.TemporaryFile():
            pass
        thread = threading.Thread(target=time.sleep, args=(0,))
        thread.start()
        thread.join()

    assert run_soak(script, careful, monkeypatch, capsys) == (0, {})


def test_the_slope_is_robust_against_outliers(script):
    readings = [script.Reading(i / 60, 10**8 + (i % 7 == 0) * 10**7, 0, 0, 0, 0) for i in range(99)]
    assert script.slope(readings, "memory") == 0
    rising = [r._replace(memory=r.memory + 60 * int(60 * r.minutes)) for r in readings]
    assert script.slope(rising, "memory") == pytest.approx(3600, rel=0.01)


@pytest.mark.parametrize("name", ["fit and predict", "estimators", "save and load", "continue",
                                  "resume", "populations", "threads", "bad input"])  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_every_activity_passes(name, script, tmp_path):
    """Each activity asserts its own results."""
    script.ACTIVITIES[name](script.make_round(1, 1, tmp_path))
