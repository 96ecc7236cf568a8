"""The stages at the command line: help, wrong usage, bad files, logs, progress."""

import os
import re
import shutil
import subprocess
import sys
from io import StringIO
from unittest.mock import Mock

from aevb.files import InputError
from aevb.plumbing import cli
from aevb.plumbing.dependencies import code_of
from graph import ROOT
from stages import STAGES, error_line, run_script, run_stage

import pytest
import torch

# Usage.


@pytest.mark.parametrize("stage", STAGES)
def test_help_describes_every_flag_and_its_default(stage, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    outcome = run_script(stage, "--help")
    assert (outcome.code, outcome.error) == (0, "")
    lines = outcome.out.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[lines.index("") + 1].endswith(".")  # the summary
    text = " ".join(outcome.out.split())
    for section in STAGES[stage].sections:
        for name, field in section.model_fields.items():
            assert f"--{name} " in text
            assert f"{field.description} (default: {field.default})" in text
    assert "None" not in text
    for name in [*STAGES[stage].inputs, *STAGES[stage].outputs]:
        assert re.search(rf"--{name} PATH [^-]+ \(required\)", text), name


@pytest.mark.parametrize("stage", ["split", "research inference_gap"])
@pytest.mark.parametrize("words", [["--unheard", "1"], ["a\nb"], ["--lo", "x"], ["--log"]])
def test_wrong_usage_is_reported_in_one_line(workspace, tmp_path, stage, words):
    outcome = run_stage(stage, workspace, tmp_path / "output", *words)
    assert (outcome.code, outcome.out) == (2, "")
    (line,) = outcome.error.splitlines()
    assert re.match(rf"{stage.split()[0]}\.py.*: error: ", line)
    assert words[0].split()[0] in line
    assert "--help" in line
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    ("stage", "flag", "value", "code"),
    [
        ("train", "--likelihood", "poisson", 2),
        ("train", "--latent_dim", "0", 1),
        ("compare", "--latent_dims", "3,20", 2),
        ("split", "--validation_size", "600", 1),  # of 600
        ("train", "--learning_rate", "nan", 1),
        ("reconstruct", "--images", "201", 1),  # of 200
    ],
)
def test_values_that_are_not_allowed(workspace, tmp_path, stage, flag, value, code):
    line = error_line(run_stage(stage, workspace, tmp_path / "output", flag, value), code)
    assert flag in line
    assert value in line
    assert not (tmp_path / "output").exists()


# Files.


def test_an_output_that_cannot_be_written_is_reported(workspace, tmp_path):
    (tmp_path / "output").write_text("a file in place of the folder")
    outcome = run_stage("evaluate", workspace, tmp_path / "output")
    assert str(tmp_path / "output") in error_line(outcome)


def test_a_device_that_is_not_available(workspace, tmp_path):
    if torch.backends.mps.is_available():
        pytest.skip("this machine has an mps device")
    outcome = run_stage("train", workspace, tmp_path, "--device", "mps")
    assert "--device mps" in error_line(outcome)


def test_the_code_that_a_stage_loads_is_the_code_that_it_depends_on():
    """Apart from what plumbing loads for itself."""
    program = "import sys, train\nprint(*(module.__file__ for name, module in "
    program += 'sys.modules.items() if name.startswith("aevb.") and module.__file__), sep="\\n")'
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    loaded = subprocess.check_output([sys.executable, "-c", program], env=environment, text=True)
    plumbing = [str(path) for path in (ROOT / "src/aevb/plumbing").glob("*.py")]
    declared = {str(ROOT / file) for file in code_of("src/train.py", *plumbing)}
    assert set(loaded.split()) <= declared


# Errors, logs and progress.


@pytest.mark.parametrize("script", sorted(path.stem for path in (ROOT / "src").glob("*.py")))
def test_without_the_environment_one_line_says_how_to_activate_it(script):
    command = [sys.executable, "-S", ROOT / "src" / f"{script}.py"]  # -S: without its packages
    outcome = subprocess.run(command, env={}, capture_output=True, text=True, check=False)
    assert outcome.returncode == 1
    assert re.fullmatch(
        r"error: No module named '\w+'; run `source .venv/bin/activate`, or `make` first\n",
        outcome.stderr,
    )


@pytest.fixture
def fails(workspace, tmp_path, monkeypatch):
    """Runs a stage that raises an error; its outcome and its log."""

    def run(error):
        monkeypatch.setattr("aevb.data.write_set", Mock(side_effect=error))
        log = tmp_path / "logs" / "new" / "stage.log"
        outcome = run_stage("split", workspace, tmp_path, "--log", log)
        return outcome, log.read_text(encoding="utf-8")

    return run


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("wrong\n  twice"), 1, "split: error: wrong twice"),
        (OSError(28, "No space left"), 1, "split: error: [Errno 28] No space left"),
        (MemoryError("cannot allocate"), 1, "split: error: not enough memory: cannot allocate"),
        (RuntimeError("can't allocate"), 1, "split: error: not enough memory: can't allocate"),
        (KeyboardInterrupt(), 130, "split: interrupted from the keyboard"),
    ],
)
def test_expected_errors_are_one_line_of_the_terminal_and_of_the_log(fails, error, code, message):
    for number in (1, 2):  # the log is appended to
        outcome, log = fails(error)
        assert outcome.code == code
        assert outcome.error.splitlines()[1:] == [message]
        assert len(re.findall(rf" \$ .*split\.py.*\n.* {re.escape(message)}\n", log)) == number


@pytest.mark.parametrize("error", [ZeroDivisionError("unexpected"), RuntimeError("unexpected")])
def test_the_log_holds_the_traceback_of_an_unexpected_error(fails, error):
    outcome, log = fails(error)
    assert outcome.code == 1
    for text in (outcome.error, log):
        assert "Traceback" in text
        assert f"{type(error).__name__}: unexpected" in text


def test_the_log_holds_the_traceback_of_an_error_in_the_code_of_a_module(tmp_path):
    shutil.copytree(ROOT / "src", tmp_path / "src")
    (tmp_path / "src/aevb/data.py").write_text("one mistake")
    command = [sys.executable, tmp_path / "src/split.py", "--log", tmp_path / "logs/split.log"]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    assert outcome.returncode == 1
    assert outcome.stderr.endswith("SyntaxError: invalid syntax\n")
    assert (tmp_path / "logs/split.log").read_text() == outcome.stderr


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


@pytest.mark.parametrize("shown", [True, False])
def test_a_terminal_shows_the_remaining_time_unless_it_is_told_not_to(monkeypatch, shown):
    screen = StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", screen)
    if not shown:
        monkeypatch.setenv("TQDM_DISABLE", "1")
    with cli.progress("work", 4, "epoch", initial=1) as bar:
        bar.n = 2
        bar.refresh()
    assert ("1 of 4 epochs, ? left" in screen.getvalue()) == shown
    assert bool(re.search(r"work: .* 2 of 4 epochs, 00:0\d left", screen.getvalue())) == shown
