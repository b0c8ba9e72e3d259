"""Training by replays of captured CUDA graphs."""

import gc
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from benchmarks.gpu.checklist.check import depth, nodes
from benchmarks.gpu.checklist.runs import longest_graph, open_reports, sized_trainer
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

ORDER = 1e-12  # relative, float64: other rounding of exp and tanh, other order of sums
EPOCHS = 20

RAGGED = (  # in addition to the parity cases: windows of every kind
    case("one window an epoch", "5-4-1", batch_size=10),
    case("whole windows only", "5-4-1", batch_size=2, epochs=4),
    case("a tail of its own", "5-4-2", batch_size=1, epochs=3, loss="quantile:0.1,0.9"),
    case("scikit-learn's weights", "5-8-3", loss="cross_entropy", weigh=per_batch, l2=1e-3),
    case(
        "a population by itself", "5-4-1", members=5, batch_size=7, clip=0.1, schedule="one_cycle"
    ),
)


@pytest.fixture
def make_run(gpu):
    """A function from a case to its trainer, on the GPU or at the given place."""

    def make(case: Case, place=gpu, dtype="float64", **options):
        arguments = {"batch_size": 16, "epochs": EPOCHS, **case.arguments, **options}
        weigh = arguments.pop("weigh", unbiased)
        arguments |= rows_for(case.spec, dtype, CPU, arguments)
        X, y = arguments.pop("X"), arguments.pop("y")
        run = make_trainer(case.spec, X, y, dtype=dtype, device=place.name, **arguments)
        run.row_weights = weigh
        return run

    return make


def same_bits(a, b) -> bool:
    return all(
        to_host(x).tobytes() == to_host(y).tobytes()
        for x, y in zip(a.step.buffers, b.step.buffers, strict=True)
    )


LONG_CASES = {"selu, one row at a time", *(case.name for case in (*CASES[1:9:2], *RAGGED))}
EVERY = [
    pytest.param(case, id=case.name, marks=[pytest.mark.slow] * (case.name in LONG_CASES))
    for case in (*CASES, *RAGGED)
]


@pytest.mark.parametrize("parity_case", EVERY)
def test_replays_are_the_eager_steps_bit_for_bit(parity_case, make_run):
    captured, eager = make_run(parity_case), make_run(parity_case, capture=False)
    for captured_report, eager_report in zip(captured.reports(), eager.reports(), strict=True):
        assert (captured_report.executor, eager_report.executor) == ("captured", "eager")
        assert same_bits(captured, eager)
        assert np.all(captured_report.loss == eager_report.loss)
    assert int(captured.state.step) >= MIN_RECORDED_STEPS
    assert np.isfinite(to_host(captured.state.params)).all()


@pytest.mark.slow
@pytest.mark.parametrize("parity_case", [*CASES, *RAGGED], ids=lambda parity_case: parity_case.name)
def test_replays_match_numpy(parity_case, make_run):
    captured, host = finish(make_run(parity_case), []), finish(make_run(parity_case, place=CPU), [])
    actual, expected = to_host(captured.flat), host.flat
    assert np.abs(actual - expected).max() <= ORDER * EPOCHS * np.abs(expected).max()


# User-defined functions


def wavy(xp, z):
    return z + 0.1 * xp.sin(z), 1 + 0.1 * xp.cos(z)


def squared(xp, score, target):
    e = score - target
    return xp.sum(e * e, axis=-1), 2 * e


def signed(xp, h, t, theta, g, m):
    m = 0.9 * m + g
    return theta - h.learning_rate * m / (1 + xp.abs(m)), m


def test_user_functions_are_captured(make_run):
    yours = Case(
        "yours",
        Spec.parse("5-6-2", activation=wavy, loss=squared),
        {"optimizer": signed, "schedule": lambda xp, now: 1 / (1 + now.epoch)},
    )
    captured, eager = make_run(yours), make_run(yours, capture=False)
    assert finish(captured, []).history["executor"] == ["captured"] * EPOCHS
    finish(eager, [])
    assert same_bits(captured, eager)


SMALL = case("plain", "5-4-1")


def test_a_callback_changes_the_learning_rate_of_captured_steps(make_run):
    def slower(report):
        report.scale_learning_rate(0.5)
        return report.epoch == 7

    captured, eager = make_run(SMALL), make_run(SMALL, capture=False)
    models = [finish(run, [slower]) for run in (captured, eager)]
    assert same_bits(captured, eager)
    assert models[0].history["learning_rate"] == [1e-3 * 0.5**k for k in range(7)]


# Training without recording


def reading(xp, now):
    return 0.5 if float(now.step) < 1e9 else 2.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": reading}, "the current stream is capturing"),
        ({"schedule": lambda xp, now: xp.asarray([0.5])[0]}, "the current stream is capturing"),
    ],
)
def test_a_step_that_cannot_be_captured_runs_eagerly_with_one_warning(make_run, options, message):
    captured, eager = make_run(SMALL, **options), make_run(SMALL, capture=False, **options)
    with pytest.warns(CaptureWarning, match=message) as warned:
        model = finish(captured, [])
    assert len(warned) == 1
    assert "one by one" in str(warned[0].message)
    finish(eager, [])
    assert model.history["executor"] == ["eager"] * EPOCHS
    assert same_bits(captured, eager)


@pytest.mark.parametrize("first", [0, 1])
def test_a_failed_capture_during_training_does_not_change_the_result(make_run, first, monkeypatch):
    """In the first recording, or in the second, for the shorter last window of an epoch."""
    two_graphs = case("two graphs", "5-4-2", batch_size=2, epochs=4)
    import cupy

    captured, eager = make_run(two_graphs), make_run(two_graphs, capture=False)
    end, captures = cupy.cuda.Stream.end_capture, []

    def failing(stream):
        captures.append(stream)
        graph = end(stream)
        if len(captures) > first:
            raise RuntimeError("the graph could not be made\nat line 7")
        return graph

    monkeypatch.setattr(cupy.cuda.Stream, "end_capture", failing)
    with pytest.warns(CaptureWarning, match="RuntimeError: the graph could not be made$"):
        finish(captured, [])
    finish(eager, [])
    assert same_bits(captured, eager)


def test_an_interruption_of_the_warm_up_leaves_the_state_unchanged(make_run):
    calls = []

    def once(xp, now):
        calls.append(now)
        if len(calls) == 3:  # the first call validates the function, before training
            raise KeyboardInterrupt
        return 0.5

    run = make_run(SMALL, schedule=once)
    before = [to_host(b).copy() for b in run.step.buffers[:3]]
    with pytest.raises(KeyboardInterrupt):
        finish(run, [])
    assert all(
        (to_host(b) == saved).all() for b, saved in zip(run.step.buffers, before, strict=False)
    )


@pytest.mark.parametrize(
    "options",
    [{"capture": False}, {"epochs": (MIN_RECORDED_STEPS - 1) // 4}],
    ids=["asked", "few steps"],
)
def test_nothing_is_captured_if_disabled_or_too_short(make_run, options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history = finish(make_run(SMALL, **options), []).history
    assert set(history["executor"]) == {"eager"}


def test_numpy_steps_are_replayed(make_run):
    assert set(finish(make_run(SMALL, place=CPU), []).history["executor"]) == {"replayed"}


# Stopped and resumed


def stop_at(step, run):
    """Ctrl-C during update `step`; a graph finishes its window first."""
    steps_of, launch = run.counter.steps, run.step.engine.executor.run

    def counted(steps, first=0):
        for t in steps_of(steps, first):
            run.counter.stop_signal = 2 * (int(run.state.step) + 1 == step)
            yield t

    def run_window(*args):
        before = int(run.state.step)
        launch(*args)
        if before < step <= int(run.state.step):
            run.counter.stop_signal = 2

    run.counter.steps, run.step.engine.executor.run = counted, run_window


LONG = (  # epochs of several windows, and a tail
    case("one by one", "5-4-2", batch_size=1, epochs=2, keep="best"),
    case("dropout", [[4, 5, "tanh", 0.3], [2, 4, None, 0.0]], batch_size=1, epochs=2),
    case("a population", "5-4-1", batch_size=1, epochs=2, members=3, schedule="cosine", clip=0.1),
)


@pytest.mark.slow
@pytest.mark.parametrize("parity_case", LONG, ids=lambda parity_case: parity_case.name)
@pytest.mark.parametrize(("capture", "step"), [(True, 85), (False, 7)])
def test_a_resumed_training_is_captured_again_with_the_same_bits(
    parity_case, capture, step, make_run, tmp_path, monkeypatch
):
    """Without capture, training stops in the middle of what would be a graph's window."""
    uninterrupted, path = make_run(parity_case), tmp_path / "run.ckpt"
    expected = finish(uninterrupted, [])
    stopped, resumed = make_run(parity_case, capture=capture), make_run(parity_case)
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
    assert to_host(model.flat).tobytes() == to_host(expected.flat).tobytes()
    assert same_bits(uninterrupted, resumed)
    np.testing.assert_array_equal(model.history["loss"], expected.history["loss"])


# Threads


@pytest.mark.slow
def test_trainings_in_threads_are_captured_with_the_same_bits(make_run):
    """No training synchronizes the whole device, which would invalidate another's capture."""

    def bits(parity_case):
        model = finish(make_run(parity_case, dtype="float32"), [])
        return to_host(model.flat).tobytes(), set(model.history["executor"])

    cases = [case(f"{n} rows", f"5-{n}-2", batch_size=n) for n in (6, 7, 8, 9)]
    expected = [bits(parity_case) for parity_case in cases]
    with ThreadPoolExecutor(4) as threads:
        actual = list(threads.map(bits, cases * 2))
    assert actual == expected * 2
    assert {executor for _, executors in actual for executor in executors} == {"captured"}


# Memory


def test_other_code_may_use_memory_between_replays(make_run):
    import cupy

    def junk(report):
        with cupy.cuda.Stream(non_blocking=True):
            blocks = [cupy.full((n,), float("nan")) for n in (4, 8, 16, 60, 64, 240)]
        del blocks

    captured, undisturbed = make_run(SMALL), make_run(SMALL)
    finish(captured, [junk])
    finish(undisturbed, [])
    assert same_bits(captured, undisturbed)


@pytest.mark.slow  # several seconds
def test_memory_is_constant_while_training_and_released_after_it(make_run):
    import cupy

    default = cupy.get_default_memory_pool()
    gc.collect()
    before = default.used_bytes()
    run, usage = make_run(SMALL), []

    def look(report):
        gc.collect()
        pools = [pool.total_bytes() for pool in report.trainer.step.engine.executor.pools]
        usage.append((*pools, default.used_bytes()))

    model = finish(run, [look])
    # the first epoch may allocate an array or two more
    assert len(set(usage[1:])) == 1
    assert usage[0][0] > 0
    assert sum(pool.total_bytes() for pool in run.step.engine.executor.pools) == 0
    model_bytes = model.flat.nbytes
    del run, model, look
    gc.collect()
    assert default.used_bytes() - before <= model_bytes


def test_a_generator_closed_early_releases_its_memory(make_run):
    run = make_run(SMALL)
    for report in run.reports():
        if report.epoch == 3:
            break
    gc.collect()
    assert sum(pool.total_bytes() for pool in run.step.engine.executor.pools) == 0
    assert run.step.engine.executor.graphs == {}


def test_a_window_is_bounded(gpu):
    import cupy

    executor = CudaGraphExecutor(gpu, cupy.cuda)
    assert executor.window(1000, 10) == CudaGraphExecutor.MAX_STEPS
    assert executor.window(3, 10) == 3
    assert executor.window(1000, CudaGraphExecutor.WINDOW_SIZE // 4) == 4
    assert executor.window(1000, 10 * CudaGraphExecutor.WINDOW_SIZE) == 1


def test_recording_problems_are_detected_in_advance(gpu, monkeypatch):
    import cupy

    assert recording_problem(gpu, cupy.cuda) is None

    def failing(stream):
        end(stream)
        raise RuntimeError("no graphs here")

    end = cupy.cuda.Stream.end_capture
    monkeypatch.setattr(cupy.cuda.Stream, "end_capture", failing)
    assert recording_problem(gpu, cupy.cuda) == "RuntimeError: no graphs here"


def nodes_per_step(run):
    """The number of nodes of a captured step, and the depth of its graph."""
    with open_reports(run) as reports:
        next(reports)
        steps, graph = longest_graph(run)
        return nodes(graph.graph).total() / steps, depth(graph.graph) / steps


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
def test_a_step_has_the_number_of_nodes_in_the_readme(without, nodes, depth, gpu, monkeypatch):
    """784-512-256-10, cross-entropy, Adam: the counts depend on the layers, not on their sizes."""
    monkeypatch.setenv("XPMLP_WITHOUT", without)
    spec = Spec.parse("64-64-64-10", loss="cross_entropy")
    assert nodes_per_step(sized_trainer(gpu, spec, 16, 16, 0)) == (nodes, depth)


def test_dropout_clipping_and_schedules_add_no_nodes(gpu, monkeypatch):
    """Without epilogues, because a layer with dropout has none."""
    monkeypatch.setenv("XPMLP_WITHOUT", "epilogues")
    without_dropout = Spec.parse("6-8-7-3", loss="cross_entropy")
    options = {"clip": 1.0, "schedule": "warmup:3 * cosine", "weight_decay": 0.1}
    with_all = nodes_per_step(sized_trainer(gpu, DROPOUT, 16, 16, 0, **options))
    assert with_all == nodes_per_step(sized_trainer(gpu, without_dropout, 16, 16, 0))


def test_an_unknown_feature_in_xpmlp_without_is_named(gpu, monkeypatch):
    monkeypatch.setenv("XPMLP_WITHOUT", "brunches")
    with pytest.raises(ValueError, match=r"XPMLP_WITHOUT knows branches.*; got brunches"):
        sized_trainer(gpu, DROPOUT, 16, 4, 0)
