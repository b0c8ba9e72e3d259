"""Training by replays of captured steps."""

import gc
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from benchmarks.gpu.checklist.check import depth, nodes
from benchmarks.gpu.checklist.runs import longest, sized, under_way
from benchmarks.parity import CASES, Case, case, rows_for
from xpmlp.devices.graphs import RecordedGraph, recording_problem
from xpmlp.devices.namespace import CPU, to_host
from xpmlp.recording.captured import CaptureWarning, CudaGraphExecutor
from xpmlp.recording.cuda_writer import FEATURES
from xpmlp.recording.engine import MIN_RECORDED_STEPS
from xpmlp.spec import Spec
from xpmlp.storage.checkpoint import Checkpoint
from xpmlp.training.batches import per_batch, unbiased
from xpmlp.training.train import finish, make_trainer

ORDER = 1e-12  # relative, float64: libraries round exp and tanh, and add up, in their own ways
EPOCHS = 20

RAGGED = (  # beside the cases of parity: windows of every kind
    case("one window an epoch", "5-4-1", batch_size=10),
    case("whole windows only", "5-4-1", batch_size=2, epochs=4),
    case("a tail of its own", "5-4-2", batch_size=1, epochs=3, loss="quantile:0.1,0.9"),
    case("scikit-learn's weights", "5-8-3", loss="cross_entropy", weigh=per_batch, l2=1e-3),
    case(
        "a population by itself", "5-4-1", members=5, batch_size=7, clip=0.1, schedule="one_cycle"
    ),
)


@pytest.fixture
def begun(gpu):
    """A function from a case to its run, at the GPU or where it is said."""

    def begin(asked: Case, place=gpu, dtype="float64", **more):
        arguments = {"batch_size": 16, "epochs": EPOCHS, **asked.arguments, **more}
        weigh = arguments.pop("weigh", unbiased)
        arguments |= rows_for(asked.spec, dtype, CPU, arguments)
        X, y = arguments.pop("X"), arguments.pop("y")
        run = make_trainer(asked.spec, X, y, dtype=dtype, device=place.name, **arguments)
        run.row_weights = weigh
        return run

    return begin


def same(one, other) -> bool:
    return all(
        to_host(a).tobytes() == to_host(b).tobytes()
        for a, b in zip(one.step.buffers, other.step.buffers, strict=True)
    )


LONG_CASES = {"selu, one row at a time", *(case.name for case in (*CASES[1:9:2], *RAGGED))}
EVERY = [
    pytest.param(case, id=case.name, marks=[pytest.mark.slow] * (case.name in LONG_CASES))
    for case in (*CASES, *RAGGED)
]


@pytest.mark.parametrize("asked", EVERY)
def test_replays_are_the_eager_steps_bit_for_bit(asked, begun):
    captured, eager = begun(asked), begun(asked, capture=False)
    for one, other in zip(captured.reports(), eager.reports(), strict=True):
        assert (one.executor, other.executor) == ("captured", "eager")
        assert same(captured, eager)
        assert np.all(one.loss == other.loss)
    assert int(captured.state.step) >= MIN_RECORDED_STEPS
    assert np.isfinite(to_host(captured.state.params)).all()


@pytest.mark.slow
@pytest.mark.parametrize("asked", [*CASES, *RAGGED], ids=lambda asked: asked.name)
def test_replays_are_what_numpy_computes(asked, begun):
    captured, host = finish(begun(asked), []), finish(begun(asked, place=CPU), [])
    found, expected = to_host(captured.flat), host.flat
    assert np.abs(found - expected).max() <= ORDER * EPOCHS * np.abs(expected).max()


# What is yours


def bent(xp, z):
    return z + 0.1 * xp.sin(z), 1 + 0.1 * xp.cos(z)


def far(xp, score, target):
    e = score - target
    return xp.sum(e * e, axis=-1), 2 * e


def signed(xp, h, t, theta, g, m):
    m = 0.9 * m + g
    return theta - h.learning_rate * m / (1 + xp.abs(m)), m


def test_functions_of_yours_are_recorded_too(begun):
    yours = Case(
        "yours",
        Spec.parse("5-6-2", activation=bent, loss=far),
        {"optimizer": signed, "schedule": lambda xp, now: 1 / (1 + now.epoch)},
    )
    captured, eager = begun(yours), begun(yours, capture=False)
    assert finish(captured, []).history["executor"] == ["captured"] * EPOCHS
    finish(eager, [])
    assert same(captured, eager)


PLAIN = case("plain", "5-4-1")


def test_a_callback_moves_the_rate_of_recorded_steps(begun):
    def slower(report):
        report.scale_learning_rate(0.5)
        return report.epoch == 7

    captured, eager = begun(PLAIN), begun(PLAIN, capture=False)
    ends = [finish(run, [slower]) for run in (captured, eager)]
    assert same(captured, eager)
    assert ends[0].history["learning_rate"] == [1e-3 * 0.5**k for k in range(7)]


# When it is not done


def reading(xp, now):
    return 0.5 if float(now.step) < 1e9 else 2.0


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"schedule": reading}, "the current stream is capturing"),
        ({"schedule": lambda xp, now: xp.asarray([0.5])[0]}, "the current stream is capturing"),
    ],
)
def test_a_step_that_cannot_be_recorded_runs_eagerly_and_says_so_once(begun, what, said):
    captured, eager = begun(PLAIN, **what), begun(PLAIN, capture=False, **what)
    with pytest.warns(CaptureWarning, match=said) as warned:
        model = finish(captured, [])
    assert len(warned) == 1
    assert "one by one" in str(warned[0].message)
    finish(eager, [])
    assert model.history["executor"] == ["eager"] * EPOCHS
    assert same(captured, eager)


@pytest.mark.parametrize("first", [0, 1])
def test_a_failure_in_the_midst_of_training_loses_nothing(begun, first, monkeypatch):
    """Of the first recording, or of the second, which the last window of an epoch asks for."""
    asked = case("two graphs", "5-4-2", batch_size=2, epochs=4)
    import cupy

    captured, eager = begun(asked), begun(asked, capture=False)
    end, seen = cupy.cuda.Stream.end_capture, []

    def failing(stream):
        seen.append(stream)
        graph = end(stream)
        if len(seen) > first:
            raise RuntimeError("the graph could not be made\nat line 7")
        return graph

    monkeypatch.setattr(cupy.cuda.Stream, "end_capture", failing)
    with pytest.warns(CaptureWarning, match="RuntimeError: the graph could not be made$"):
        finish(captured, [])
    finish(eager, [])
    assert same(captured, eager)


def test_an_interruption_of_the_warm_up_leaves_everything_as_it_was(begun):
    asked = []

    def once(xp, now):
        asked.append(now)
        if len(asked) == 3:  # the first was the check of the function, before training
            raise KeyboardInterrupt
        return 0.5

    run = begun(PLAIN, schedule=once)
    before = [to_host(b).copy() for b in run.step.buffers[:3]]
    with pytest.raises(KeyboardInterrupt):
        finish(run, [])
    assert all(
        (to_host(b) == saved).all() for b, saved in zip(run.step.buffers, before, strict=False)
    )


@pytest.mark.parametrize(
    "more",
    [{"capture": False}, {"epochs": (MIN_RECORDED_STEPS - 1) // 4}],
    ids=["asked", "few steps"],
)
def test_nothing_is_recorded_where_it_is_not_wanted(begun, more):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history = finish(begun(PLAIN, **more), []).history
    assert set(history["executor"]) == {"eager"}


def test_numpy_replays(begun):
    assert set(finish(begun(PLAIN, place=CPU), []).history["executor"]) == {"replayed"}


# Stopped and resumed


def stop_at(step, run):
    """Ctrl-C during that step, which a graph does not see before its window is done."""
    turns, launch = run.counter.steps, run.step.engine.executor.run

    def counted(steps, first=0):
        for t in turns(steps, first):
            run.counter.stop_signal = 2 * (int(run.state.step) + 1 == step)
            yield t

    def watched(*args):
        before = int(run.state.step)
        launch(*args)
        if before < step <= int(run.state.step):
            run.counter.stop_signal = 2

    run.counter.steps, run.step.engine.executor.run = counted, watched


LONG = (  # epochs of several windows, and a tail
    case("one by one", "5-4-2", batch_size=1, epochs=2, keep="best"),
    case("dropout", [[4, 5, "tanh", 0.3], [2, 4, None, 0.0]], batch_size=1, epochs=2),
    case("a population", "5-4-1", batch_size=1, epochs=2, members=3, schedule="cosine", clip=0.1),
)


@pytest.mark.slow
@pytest.mark.parametrize("asked", LONG, ids=lambda asked: asked.name)
@pytest.mark.parametrize(("capture", "step"), [(True, 85), (False, 7)])
def test_a_stopped_training_is_recorded_again_and_ends_with_the_same_bits(
    asked, capture, step, begun, tmp_path, monkeypatch
):
    """The step by step one is stopped in the middle of a graph's window."""
    through, path = begun(asked), tmp_path / "run.ckpt"
    whole = finish(through, [])
    stopped, resumed = begun(asked, capture=capture), begun(asked)
    stop_at(step, stopped)
    with (
        Checkpoint(path).opened(stopped, resume=False) as write,
        pytest.raises(KeyboardInterrupt),
    ):
        finish(stopped, [], write)
    assert 0 < stopped.counter.in_epoch < stopped.steps_per_epoch
    assert (stopped.counter.in_epoch % CudaGraphExecutor.MAX_STEPS == 0) == capture
    launch, launches = RecordedGraph.launch, []
    monkeypatch.setattr(RecordedGraph, "launch", lambda graph: launches.append(1) or launch(graph))
    with Checkpoint(path).opened(resumed, resume=True) as write:
        assert int(resumed.state.step) == int(stopped.state.step)
        model = finish(resumed, [], write)
    assert len(launches) > 1
    assert model.history["executor"][-1] == "captured"
    assert to_host(model.flat).tobytes() == to_host(whole.flat).tobytes()
    assert same(through, resumed)
    np.testing.assert_array_equal(model.history["loss"], whole.history["loss"])


# Threads


def test_trainings_in_threads_are_captured_and_have_the_bits_of_one_alone(begun):
    """None waits for the whole device, which would end what another captures."""

    def bits(asked):
        model = finish(begun(asked, dtype="float32"), [])
        return to_host(model.flat).tobytes(), set(model.history["executor"])

    cases = [case(f"{n} rows", f"5-{n}-2", batch_size=n) for n in (6, 7, 8, 9)]
    alone = [bits(asked) for asked in cases]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(bits, cases * 2))
    assert found == alone * 2
    assert {way for _, ways in found for way in ways} == {"captured"}


# Memory


def test_others_may_use_memory_between_the_replays(begun):
    import cupy

    def junk(report):
        with cupy.cuda.Stream(non_blocking=True):
            blocks = [cupy.full((n,), float("nan")) for n in (4, 8, 16, 60, 64, 240)]
        del blocks

    captured, alone = begun(PLAIN), begun(PLAIN)
    finish(captured, [junk])
    finish(alone, [])
    assert same(captured, alone)


@pytest.mark.slow  # several seconds
def test_memory_is_flat_while_training_and_comes_back_after_it(begun):
    import cupy

    default = cupy.get_default_memory_pool()
    gc.collect()
    before = default.used_bytes()
    run, seen = begun(PLAIN), []

    def look(report):
        gc.collect()
        pools = [pool.total_bytes() for pool in report.trainer.step.engine.executor.pools]
        seen.append((*pools, default.used_bytes()))

    model = finish(run, [look])
    # an array or two of what the first epoch found out
    assert len(set(seen[1:])) == 1
    assert seen[0][0] > 0
    assert sum(pool.total_bytes() for pool in run.step.engine.executor.pools) == 0
    kept = model.flat.nbytes
    del run, model, look
    gc.collect()
    assert default.used_bytes() - before <= kept


def test_a_generator_that_is_left_early_lets_go_of_its_memory(begun):
    run = begun(PLAIN)
    for report in run.reports():
        if report.epoch == 3:
            break
    gc.collect()
    assert sum(pool.total_bytes() for pool in run.step.engine.executor.pools) == 0
    assert run.step.engine.executor.graphs == {}


def test_a_window_is_bounded(gpu):
    import cupy

    way = CudaGraphExecutor(gpu, cupy.cuda)
    assert way.window(1000, 10) == CudaGraphExecutor.MAX_STEPS
    assert way.window(3, 10) == 3
    assert way.window(1000, CudaGraphExecutor.WINDOW_SIZE // 4) == 4
    assert way.window(1000, 10 * CudaGraphExecutor.WINDOW_SIZE) == 1


def test_what_stands_in_the_way_of_recording_is_found_out_beforehand(gpu, monkeypatch):
    import cupy

    assert recording_problem(gpu, cupy.cuda) is None

    def failing(stream):
        end(stream)
        raise RuntimeError("no graphs here")

    end = cupy.cuda.Stream.end_capture
    monkeypatch.setattr(cupy.cuda.Stream, "end_capture", failing)
    assert recording_problem(gpu, cupy.cuda) == "RuntimeError: no graphs here"


def per_step(run):
    """Nodes of a captured step, and how many of them wait for one another."""
    with under_way(run) as coming:
        next(coming)
        steps, made = longest(run)
        return nodes(made.graph).total() / steps, depth(made.graph) / steps


DROPOUT = Spec.parse("6-8-7-3", loss="cross_entropy", dropout=0.3)


@pytest.mark.parametrize(
    ("without", "nodes", "depth"),
    [
        ("", 14, 11),
        ("branches", 14, 14),
        ("epilogues", 22, 17),
        ("accounts", 15, 12),
        ("branches, epilogues, accounts", 23, 23),
        (",".join(FEATURES), 104, 104),
    ],
)
def test_a_step_is_as_many_nodes_as_the_readme_says(without, nodes, depth, gpu, monkeypatch):
    """784-512-256-10, cross-entropy, Adam: the counts depend on the layers, not on their sizes."""
    monkeypatch.setenv("XPMLP_WITHOUT", without)
    spec = Spec.parse("64-64-64-10", loss="cross_entropy")
    assert per_step(sized(gpu, spec, 16, 16, 0)) == (nodes, depth)


def test_dropout_clipping_and_schedules_take_no_nodes_of_their_own(gpu, monkeypatch):
    """Beside epilogues, which a layer with dropout has none of."""
    monkeypatch.setenv("XPMLP_WITHOUT", "epilogues")
    plain = Spec.parse("6-8-7-3", loss="cross_entropy")
    more = {"clip": 1.0, "schedule": "warmup:3 * cosine", "weight_decay": 0.1}
    with_all = per_step(sized(gpu, DROPOUT, 16, 16, 0, **more))
    assert with_all == per_step(sized(gpu, plain, 16, 16, 0))


def test_an_unknown_speed_to_leave_out_is_named(gpu, monkeypatch):
    monkeypatch.setenv("XPMLP_WITHOUT", "brunches")
    with pytest.raises(ValueError, match=r"XPMLP_WITHOUT knows branches.*; got brunches"):
        sized(gpu, DROPOUT, 16, 4, 0)
