"""The stages at the command line: help, wrong usage, bad files, logs, progress."""

import logging
import os
import re
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
import torch

from aevb.files import InputError
from aevb.plumbing import cli
from aevb.plumbing.dependencies import code_of
from graph import ROOT
from stages import STAGES, captured, error_line, run_script, run_stage, stage_words

EACH_STAGE = pytest.mark.parametrize("stage", STAGES)
LOADED = """
import pkgutil, runpy, sys
sys.argv = sys.argv[1:]
sys.path.insert(0, "src")
import aevb.plumbing
for module in pkgutil.iter_modules(aevb.plumbing.__path__, "aevb.plumbing."):
    __import__(module.name)
before = {*sys.modules}
runpy.run_path(sys.argv[0], run_name="__main__")
for name, module in sys.modules.items():
    if name.startswith("aevb.") and module.__file__:  # a namespace package has no file
        print(module.__file__, name in before)
"""
"""A program that runs a script and prints the library files that it loaded.

It says of each whether plumbing alone would have loaded it, too.
"""


# Usage.


@EACH_STAGE
def test_help_describes_every_flag_and_its_default(stage):
    outcome = run_script(stage, "--help")
    assert (outcome.code, outcome.error) == (0, "")
    text = " ".join(outcome.out.split())
    for section in STAGES[stage].sections:
        for name, field in section.model_fields.items():
            assert f"--{name} " in text
            assert f"{field.description} (default: {field.default})" in text
    assert "--log PATH file to append the log to" in text
    assert "None" not in text
    for name in [*STAGES[stage].inputs, *STAGES[stage].outputs]:
        assert re.search(rf"--{name} PATH [^-]+ \(required\)", text), name


@pytest.mark.parametrize("script", sorted(path.stem for path in (ROOT / "src").glob("*.py")))
def test_help_fits_a_terminal_and_begins_with_a_summary(script, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    lines = run_script(script, "--help").out.splitlines()
    assert max(map(len, lines)) <= 100
    summary, gap = lines[lines.index("") + 1 :][:2]
    assert summary.endswith(".")
    assert gap == ""


@EACH_STAGE
@pytest.mark.parametrize(
    "words",
    [["--unheard", "1"], ["stray"], ["a\nb"], ["--lo", "x"], ["--log"]],
    ids=["unknown", "stray", "two lines", "shortened", "no value"],
)
def test_wrong_usage_is_reported_in_one_line(workspace, tmp_path, stage, words):
    outcome = run_stage(stage, workspace, tmp_path / "output", *words)
    assert (outcome.code, outcome.out) == (2, "")
    (line,) = outcome.error.splitlines()
    assert re.match(rf"{stage.split()[0]}\.py.*: error: ", line)
    assert words[0].split()[0] in line
    assert "--help" in line
    assert not (tmp_path / "output").exists()


@EACH_STAGE
def test_required_files_are_named(stage):
    outcome = run_script(stage)
    assert outcome.code == 2
    (line,) = outcome.error.splitlines()
    assert "required" in line
    assert all(f"--{name}" in line for name in [*STAGES[stage].inputs, *STAGES[stage].outputs])


@pytest.mark.parametrize(
    ("stage", "flag", "value", "code"),
    [
        ("split", "--seed", "zero", 2),
        ("train", "--likelihood", "poisson", 2),
        ("train", "--latent_dim", "0", 1),
        ("compare", "--latent_dims", "3,20", 2),
        ("split", "--validation_size", "-1", 1),
        ("train", "--learning_rate", "nan", 1),
        ("evaluate", "--iwae_k", "0", 1),
        ("reconstruct", "--images", "201", 1),  # of 200
    ],
)
def test_values_that_are_not_allowed(workspace, tmp_path, stage, flag, value, code):
    line = error_line(run_stage(stage, workspace, tmp_path / "output", flag, value), code)
    assert flag in line
    assert value in line
    assert not (tmp_path / "output").exists()


# Files.


def damage(path: Path, how: str, workspace: Path) -> None:
    """Make a file unusable."""
    content = path.read_bytes()
    path.unlink()
    match how:
        case "torn":
            path.write_bytes(content[: len(content) // 2])
        case "garbage":
            path.write_bytes(b"garbage")
        case "another":
            other = "split/test" if path.name == "model" else "model"
            path.write_bytes((workspace / other).read_bytes())
        case "folder":
            path.mkdir()


FILES = [  # tests of data and of comparisons damage the others
    (stage, flag)
    for stage, parts in STAGES.items()
    for flag in parts.inputs
    if stage not in ("split", "compare")
]


@pytest.mark.parametrize("how", ["missing", "torn", "garbage", "another", "folder"])
@pytest.mark.parametrize(("stage", "flag"), FILES)
def test_a_bad_input_is_reported_and_nothing_is_written(workspace, tmp_path, stage, flag, how):
    for path in STAGES[stage].inputs.values():
        copy = tmp_path / "inputs" / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((workspace / path).read_bytes())
    bad = tmp_path / "inputs" / STAGES[stage].inputs[flag]
    damage(bad, how, workspace)
    outputs = [tmp_path / "outputs" / path for path in STAGES[stage].outputs.values()]
    for output in outputs:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text("old")
    line = error_line(run_stage(stage, tmp_path / "inputs", tmp_path / "outputs"))
    assert f"{stage.split()[0]}: error: " in line
    assert str(bad) in line
    assert [output.read_text() for output in outputs] == ["old"] * len(outputs)


@EACH_STAGE
def test_an_output_that_cannot_be_written_is_reported(workspace, tmp_path, stage):
    (tmp_path / "output").write_text("a file in place of the folder")
    assert str(tmp_path / "output") in error_line(run_stage(stage, workspace, tmp_path / "output"))


@EACH_STAGE
def test_an_interrupt_while_a_stage_writes(workspace, tmp_path, monkeypatch, stage):
    monkeypatch.setattr(os, "fsync", lambda _: signal.raise_signal(signal.SIGINT))
    # Tests that run in the background inherit a handler that ignores the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    outcome = run_stage(stage, workspace, tmp_path / "output")
    signal.signal(signal.SIGINT, before)
    assert outcome.code == 130
    assert outcome.error.splitlines()[-1] == f"{stage.split()[0]}: interrupted from the keyboard"
    assert "Traceback" not in outcome.error
    assert [path for path in (tmp_path / "output").rglob("*") if path.is_file()] == []


def test_a_device_that_is_not_available(workspace, tmp_path):
    if torch.backends.mps.is_available():
        pytest.skip("this machine has an mps device")
    outcome = run_stage("train", workspace, tmp_path, "--device", "mps")
    assert "--device mps" in error_line(outcome)


@pytest.mark.parametrize("stage", ["train", "sample"])
def test_the_code_that_a_stage_loads_is_the_code_that_it_depends_on(workspace, tmp_path, stage):
    """Apart from what plumbing loads for itself."""
    words = ["-c", LOADED, f"src/{stage}.py", *stage_words(stage, workspace, tmp_path)]
    result = subprocess.run(
        [sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    loaded = dict(line.split() for line in result.stdout.splitlines())
    declared = {str(ROOT / file) for file in code_of(f"src/{stage}.py")[1:]}
    assert declared <= loaded.keys()
    assert {file for file in loaded if loaded[file] == "False"} <= declared


# Logs and progress.


def test_the_log_is_appended_to_and_holds_the_command_and_the_error(tmp_path):
    path = tmp_path / "logs" / "new" / "stage.log"

    def stage() -> None:
        raise InputError("wrong\n  twice")

    for _ in range(2):
        outcome = captured(lambda: cli.run(stage, "A stage."), "stage.py", "--log", path)
        assert outcome.error.splitlines()[-1] == "stage: error: wrong twice"
        assert outcome.code == 1
    text = path.read_text(encoding="utf-8")
    assert text.count(f"$ stage.py --log {path}\n") == 2
    assert text.count("stage: error: wrong twice\n") == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("x"), 1),
        (OSError(28, "No space left on device"), 1),
        (MemoryError("Unable to allocate 8.00 EiB"), 1),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes_of_expected_errors(error, code):
    def stage() -> None:
        raise error

    outcome = captured(lambda: cli.run(stage, "A stage."), "stage.py")
    assert outcome.code == code
    assert "Traceback" not in outcome.error
    assert len(outcome.error.splitlines()) == 2  # the command, the error


@pytest.mark.parametrize("error", [ZeroDivisionError("unexpected"), RuntimeError("unexpected")])
def test_the_log_holds_the_traceback_of_an_unexpected_error(error, tmp_path):
    def stage() -> None:
        raise error

    outcome = captured(lambda: cli.run(stage, "A stage."), "stage.py", "--log", tmp_path / "log")
    assert outcome.code == 1
    for text in (outcome.error, (tmp_path / "log").read_text(encoding="utf-8")):
        assert "Traceback" in text
        assert f"{type(error).__name__}: unexpected" in text


def test_every_line_of_a_training_names_its_run(workspace, tmp_path):
    """Several trainings write to one terminal and to one log of their engine."""
    words = ["--seed", "3", "--max_epochs", "2", "--log", tmp_path / "log"]
    outcome = run_stage("train", workspace, tmp_path, *words)
    first, *lines = outcome.error.splitlines()
    assert first.startswith("$ ")
    assert all(line.startswith("train k = 2, seed 3: ") for line in lines)
    assert [line.split(": ")[1][:12] for line in lines[:2]] == ["epoch 1 of 2", "epoch 2 of 2"]
    log = (tmp_path / "log").read_text(encoding="utf-8")
    assert [line.split(" ", 2)[2] for line in log.splitlines()] == [first, *lines]


def test_a_line_is_written_in_one_call(monkeypatch):
    """Otherwise the lines of two processes could be mixed."""
    pieces = []
    monkeypatch.setattr(sys, "stderr", StringIO())
    monkeypatch.setattr(sys.stderr, "write", pieces.append)
    cli._Terminal().emit(logging.makeLogRecord({"msg": "done"}))
    assert [piece for piece in pieces if piece] == ["done\n"]


def test_a_terminal_shows_the_remaining_time(monkeypatch):
    terminal = StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", terminal)
    with cli.progress(None, "work", 4, "epoch", initial=1) as bar:
        bar.n = 2
        bar.refresh()
    shown = terminal.getvalue().split("\r")
    assert shown[1].endswith("1 of 4 epochs, ? left")
    assert re.fullmatch(r"work: .* 2 of 4 epochs, 00:0\d left", shown[2])


def test_without_a_terminal_no_progress_is_shown(capsys):
    assert list(cli.progress([1, 2, 3], "work", 3, "step")) == [1, 2, 3]
    assert capsys.readouterr() == ("", "")
