"""The command line: exit codes, one line for an error, help that fits a terminal."""

import os
import subprocess
import sys

import pytest

from xpmlp import __version__, ledger
from xpmlp.cli.main import COMMANDS, main


def run(capsys, *arguments):
    """Exit code, output and error output of a command line."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as stop:  # from argparse
        code = stop.code
    out, err = capsys.readouterr()
    return code, out, err


def test_shapes_prints_the_ledger(capsys):
    code, out, err = run(capsys, "shapes", "2,16,16,1", "--batch-size", "8")
    assert (code, err) == (0, "")
    assert out.strip() == str(ledger("2-16-16-1", batch_size=8))
    assert "(8, 2) @ (2, 16) -> (8, 16)" in out


def test_a_closed_pipe_is_silent():
    """As in `xpmlp shapes 2-3-1 | true`: such a short output is flushed when Python exits."""
    program = "import sys; from xpmlp.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "shapes", "2-3-1"]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=env, **pipes) as process:
        process.stdout.close()
        errors = process.stderr.read()
        assert (process.wait(60), errors) == (1, b"")


def test_nothing_is_written_without_stdout(monkeypatch):
    """As in `xpmlp shapes 2-3-1 >&-`, and in pythonw."""
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["shapes", "2-3-1"]) == 0


def test_shapes_uses_every_option(capsys):
    code, out, _ = run(
        capsys, "shapes", "4-5-3", "--members", 7, "--activation", "tanh", "--dropout", 0.2,
        "--loss", "cross_entropy",
    )  # fmt: skip
    assert code == 0
    for word in ("(7, ", "tanh", "cross_entropy", "32"):
        assert word in out


def test_gradcheck_agrees(capsys):
    code, out, err = run(capsys, "gradcheck", "3-4-2", "--activation", "tanh")
    assert (code, err) == (0, "")
    assert "they agree" in out


def test_gradcheck_exits_with_one_on_disagreement(capsys):
    code, out, err = run(capsys, "gradcheck", "3-4-2", "--tolerance", "1e-30")
    assert (code, err) == (1, "")
    assert "DO NOT AGREE" in out


def test_gradcheck_uses_seed_and_rows(capsys):
    outputs = {
        run(capsys, "gradcheck", "3-4-2", *options)[1]
        for options in ((), ("--seed", 5), ("--rows", 3))
    }
    assert len(outputs) == 3


BAD = {
    "a size that is not a number": ("shapes", "2-x-1"),
    "one size": ("shapes", "2"),
    "no size": ("shapes", ""),
    "a misspelt activation": ("shapes", "2-3-1", "--activation", "rellu"),
    "a misspelt loss": ("shapes", "2-3-1", "--loss", "sqared_error"),
    "an empty batch": ("shapes", "2-3-1", "--batch-size", "0"),
    "no members": ("shapes", "2-3-1", "--members", "0"),
    "a dropout of 1": ("shapes", "2-3-1", "--dropout", "1"),
    "a loss that does not fit": ("shapes", "2-3-1", "--loss", "cross_entropy"),
    "no rows": ("gradcheck", "3-4-2", "--rows", "0"),
    "negative rows": ("gradcheck", "3-4-2", "--rows", "-3"),
    "a seed below zero": ("gradcheck", "3-4-2", "--seed", "-1"),
    "a seed beyond 64 bits": ("gradcheck", "3-4-2", "--seed", str(2**64)),
    "a network larger than memory": ("gradcheck", "3-100000000000-2"),
    "a misspelt device": ("demo", "--device", "gqu"),
    "a missing folder": ("demo", "--out", "/nowhere/at/all"),
    "a demo's seed below zero": ("demo", "--seed", "-1"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_one_line_and_exit_two(kind, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *BAD[kind])
    assert (code, out) == (2, "")
    assert err.startswith(f"xpmlp {BAD[kind][0]}: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("shape",),
        ("shapes",),
        ("shapes", "2-1", "--bach", "3"),
        ("shapes", "2-1", "--batch-size", "x"),
        ("shapes", "2-1", "3"),
        ("--nothing",),
    ],
    ids=str,
)
def test_bad_usage_exits_with_two_and_prints_the_usage(arguments, capsys):
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("usage: xpmlp")
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("train", "f.csv", "--lr", "0.1"), "no option --lr; here it is --learning-rate"),
        (("train", "--learning_rate=1"), "no option --learning_rate; here it is --learning-rate"),
        (("train", "--random-state", "1"), "no option --random-state; here it is --seed"),
        (("train", "--optimiser", "sgd"), "no option --optimiser; did you mean 'optimizer'?"),
        (("train", "--max-iter", "9"), "no option --max-iter; here it is --epochs"),
        (("train", "--decay", "0"), "no option --decay; here it is --weight-decay"),
        (("train", "--threads", "1"), "no option --threads; here it is --n-threads"),
        (("train", "--alpha", "1"), "no option --alpha."),
        (("shapes", "2-1", "--batch", "3"), "no option --batch; here it is --batch-size"),
        (("gradcheck", "2-1", "--random_state", "3"), "here it is --seed"),
        (("predict", "--outt", "x"), "no option --outt; did you mean 'out'?"),
        (("shapes", "2-1", "3"), "unrecognized arguments: 3"),
    ],
    ids=str,
)
def test_an_unknown_option_is_answered_with_the_one_that_is_meant(arguments, hint, capsys):
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"usage: xpmlp {arguments[0]} ")
    assert err.endswith(hint + "\n")


def test_what_follows_two_dashes_is_no_option(capsys):
    assert run(capsys, "shapes", "--", "2-3-1")[0] == 0
    assert "size must be a whole number" in run(capsys, "shapes", "--", "--lr")[2]


def test_a_missing_gpu_is_a_one_line_error(capsys, tmp_path):
    from xpmlp import GPUUnavailableError
    from xpmlp.devices.words import place_for

    try:
        place_for("gpu")
    except GPUUnavailableError:
        code, _, err = run(capsys, "demo", "--device", "gpu", "--out", tmp_path)
        assert code == 2
        assert err.startswith("xpmlp demo: no usable GPU: stage ")
        assert err.count("\n") == 1
    else:
        pytest.skip("there is a GPU here")


def test_an_interruption_is_a_one_line_error(capsys, monkeypatch):
    from xpmlp.cli import shapes

    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(shapes, "run", interrupted)
    code, _, err = run(capsys, "shapes", "2-1")
    assert (code, err) == (130, "xpmlp: interrupted\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_terminal_and_shows_one_example(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = run(capsys, command, "--help")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    # the height of a classic terminal; train has thirty options, one per line
    assert len(lines) <= (50 if command == "train" else 24)
    assert max(map(len, lines)) <= 80
    assert out.count("example: xpmlp " + command) == 1


@pytest.mark.parametrize("command", ["shapes", "gradcheck"])
def test_the_example_of_the_help_runs(command, capsys):
    _, out, _ = run(capsys, command, "--help")
    example = out.partition("example: xpmlp ")[2].split()
    assert run(capsys, *example)[0] == 0


def test_help_names_every_command(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert len(out.splitlines()) <= 24
    for command, line in COMMANDS.items():
        assert command in out
        assert line in out


def test_version_is_that_of_the_package(capsys):
    assert run(capsys, "--version") == (0, f"xpmlp {__version__}\n", "")


def run_module(*arguments):
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "xpmlp", *arguments],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_the_package_runs_as_a_module():
    valid = run_module("shapes", "2-3-1")
    assert (valid.returncode, valid.stderr) == (0, "")
    assert "(32, 2) @ (2, 3) -> (32, 3)" in valid.stdout
    invalid = run_module("shapes", "2-x")
    assert (invalid.returncode, invalid.stdout) == (2, "")
    assert "Traceback" not in invalid.stderr
    assert run_module("gradcheck", "2-3-1", "--tolerance", "1e-30").returncode == 1


def test_a_closed_pipe_prints_no_traceback():
    program = f"{sys.executable} -m xpmlp shapes 2-3-1 | true"
    result = subprocess.run(
        ["/bin/sh", "-c", program], check=False, capture_output=True, text=True, timeout=60
    )
    assert "Traceback" not in result.stderr
