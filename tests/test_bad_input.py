"""All hostile inputs: an error that names the argument, or the right result."""

import signal

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("polars")

from fuzz.inputs.case import NAMED, RIGHT, ROWS, Outcome, Refused, Same, Warned, judge
from fuzz.inputs.runs import ARRAYS, SURFACES, TRIALS, count_inputs
from fuzz.inputs.tables import CASES as TABLES

SECONDS = 60  # the slowest takes one


@pytest.fixture
def in_time():
    """Raise TimeoutError if the test hangs."""

    def raise_timeout(*_):
        raise TimeoutError(f"still running after {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, raise_timeout)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.id)
@pytest.mark.usefixtures("in_time")
def test_a_hostile_input_raises_a_named_error_or_gives_the_right_result(trial):
    try:
        verdict, reason = trial.run()
    except ModuleNotFoundError as error:
        pytest.skip(f"{error.name} is not installed")
    assert reason == ""
    assert verdict in (NAMED, RIGHT)


def test_every_row_has_five_inputs_on_every_surface():
    for row, counts in count_inputs().items():
        for surface in SURFACES:
            assert counts[surface] >= 5, (row, surface)
    assert count_inputs().keys() == ROWS.keys()


def test_every_input_has_its_own_id():
    ids = [trial.id for trial in TRIALS]
    assert len(set(ids)) == len(ids)
    assert len({(case.row, case.id) for case in [*ARRAYS, *TABLES]}) >= 150


# Judging outcomes


REFUSAL = Outcome(ValueError("X has 1 value that is not finite at row 2"))
GOOD, OTHER = Outcome(None, b"bits"), Outcome(None, b"other bits")


@pytest.mark.parametrize(
    ("outcome", "expected", "verdict", "right"),
    [
        (REFUSAL, Refused("X", "row 2"), "named error", True),
        (REFUSAL, Refused("X", "row 3"), "named error", False),
        (REFUSAL, Refused("y"), "unclear error", False),
        (REFUSAL, Refused("X", "", (TypeError,)), "unclear error", False),
        (REFUSAL._replace(worked=True), Refused("X"), "named error", False),
        (REFUSAL._replace(worked=True), Refused("X", early=False), "named error", True),
        (REFUSAL._replace(finite=False), Refused("X", early=False), "silent", False),
        (Outcome(KeyError("X")), Refused("X"), "unclear error", False),
        (REFUSAL, Same({}), "named error", False),
        (GOOD, Refused("X"), "silent", False),
        (GOOD, Same({}), "accepted, right", True),
        (OTHER, Same({}), "silent", False),
        (GOOD._replace(warned=("odd",)), Same({}), "accepted, right", False),
        (GOOD._replace(finite=False), Same({}), "silent", False),
        (GOOD, Warned("batch"), "silent", False),
        (GOOD._replace(warned=("batch is clipped",)), Warned("batch"), "accepted, right", True),
        (GOOD._replace(finite=False), Warned(""), "silent", False),
        (OTHER._replace(warned=("batch",)), Warned("batch", {}), "silent", False),
    ],
)
def test_judge_is_strict(outcome, expected, verdict, right):
    actual, reason = judge(outcome, expected, (getattr(expected, "name", "X"),), lambda plain: GOOD)
    assert (actual, reason == "") == (verdict, right)


def test_a_name_must_be_a_whole_word():
    outcome = Outcome(ValueError("LogicX and Xray are no rows"))
    assert judge(outcome, Refused("X"), ("X",), lambda plain: GOOD)[0] == "unclear error"
