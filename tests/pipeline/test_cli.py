"""The stages at the command line: help, wrong usage, bad files, each told in one line."""

import os
import re
import signal
import subprocess
import sys
from argparse import ArgumentTypeError, Namespace
from io import StringIO
from pathlib import Path

import pytest
import torch

from aevb.files import InputError
from aevb.plumbing import cli, params
from conftest import ROOT, Outcome, captured, run, the_error, write_raw

STAGES: dict[str, tuple[type[params.Section], ...]] = {
    "download": (params.Data,),
    "split": (params.Split,),
    "train": (params.Model, params.Train),
    "evaluate": (params.Evaluate,),
    "sample": (params.Sample,),
    "reconstruct": (params.Reconstruct,),
    "compare": (params.Runs,),
    "latents": (params.Latents,),
    "traverse": (params.Traverse,),
    "classify": (params.Classifier,),
    "fidelity": (params.SampleQuality,),
    "ladder": (params.Iwae,),
    "ais": (params.Ais,),
    "estimators": (params.GradientVariance,),
}
EACH_STAGE = pytest.mark.parametrize("stage", STAGES)
SETS = ("train", "validation", "test")

INPUTS = {
    "split": {"raw": "raw"},
    "train": {"train": "split/train", "validation": "split/validation"},
    "evaluate": {"test": "split/test", "model": "model"},
    "sample": {"model": "model"},
    "reconstruct": {"test": "split/test", "model": "model"},
    "latents": {"train": "split/train", "test": "split/test", "model": "model"},
    "traverse": {"test": "split/test", "model": "model"},
    "classify": {"train": "split/train", "test": "split/test"},
    "fidelity": {
        "train": "split/train",
        "test": "split/test",
        "model": "model",
        "classifier": "classifier",
    },
    "ladder": {"test": "split/test", "model": "model"},
    "ais": {"test": "split/test", "model": "model"},
    "card": {"model": "model", "metrics": "metrics"},
    "estimators": {"test": "split/test", "model": "model"},
}
OUTPUTS = {
    "split": SETS,
    "train": ("model", "history"),
    "evaluate": ("metrics", "evaluation"),
    "sample": ("means", "draws", "samples"),
    "reconstruct": ("figure", "reconstructions"),
    "latents": ("metrics", "latents"),
    "traverse": ("manifold", "traversals", "interpolations", "images"),
    "classify": ("classifier", "accuracy"),
    "fidelity": ("metrics", "fidelity", "figure"),
    "ladder": ("metrics", "bounds"),
    "ais": ("metrics", "estimates"),
    "card": ("card",),
    "estimators": ("metrics", "gradients"),
}
SETTINGS = {
    "split": "--validation_size 100",
    "train": "--latent_dim 2 --hidden 4 --max_epochs 1 --device cpu",
    "evaluate": "--iwae_k 2",
    "sample": "--rows 1 --columns 2",
    "reconstruct": "--images 2",
    "latents": "--samples 1",
    "traverse": "--grid 2 --dimensions 1 --steps 2 --pairs 1",
    "classify": "--epochs 1",
    "fidelity": "--images 60",
    "ladder": "--images 2 --samples 2",
    "ais": "--images 2 --chains 1 --temperatures 2 --leapfrog 1 --iwae_k 1",
    "card": "",
    "estimators": "--images 2 --samples 2",
}


def command(stage: str, made: Path, output: Path) -> list[str]:
    """The words of a stage's command, its inputs in `made`, its outputs in `output`."""
    words = SETTINGS[stage].split()
    for flag, place in INPUTS[stage].items():
        words += [f"--{flag}", str(made / place)]
    for flag in OUTPUTS[stage]:
        words += [f"--{flag}", str(output / flag)]
    return words if stage != "train" else [*words, "--checkpoints", str(output / "checkpoints")]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """What the first stages make of the small subset."""
    folder = tmp_path_factory.mktemp("made")
    write_raw(folder / "raw")
    assert run("split", *command("split", folder, folder / "split")).code == 0
    for stage in ("train", "classify", "evaluate"):
        assert run(stage, *command(stage, folder, folder)).code == 0
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """The same, to be damaged."""
    subprocess.run(["cp", "-r", str(made), str(tmp_path / "copy")], check=True)
    return tmp_path / "copy"


# Usage.


@EACH_STAGE
def test_help_names_every_parameter_with_its_default(stage):
    outcome = run(stage, "--help")
    assert (outcome.code, outcome.error) == (0, "")
    text = " ".join(outcome.out.split())
    for section in STAGES[stage]:
        for name, field in section.model_fields.items():
            assert f"--{name} " in text
            assert f"{field.description} (default: {field.default})" in text
    assert "--log PATH file to append the log to" in text
    assert "None" not in text
    for name in [*INPUTS.get(stage, {}), *OUTPUTS.get(stage, ())]:
        assert re.search(rf"--{name} PATH [^-]+ \(required\)", text), name


@pytest.mark.parametrize("script", sorted(path.stem for path in (ROOT / "src").glob("*.py")))
def test_help_fits_a_terminal_and_begins_with_one_line(script, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    lines = run(script, "--help").out.splitlines()
    assert max(map(len, lines)) <= 100
    summary, gap = lines[lines.index("") + 1 :][:2]
    assert summary.endswith(".")
    assert gap == ""


@pytest.mark.parametrize("stage", INPUTS)
@pytest.mark.parametrize(
    "words",
    [["--unheard", "1"], ["stray"], ["a\nb"], ["--lo", "x"], ["--log"]],
    ids=["unknown", "stray", "two lines", "shortened", "no value"],
)
def test_wrong_usage_is_one_line(made, tmp_path, stage, words):
    output = tmp_path / "output"
    outcome = run(stage, *command(stage, made, output), *words)
    assert outcome.code == 2
    assert outcome.out == ""
    (line,) = outcome.error.splitlines()
    assert line.startswith(f"{stage}.py: error: ")
    assert words[0].split()[0] in line
    assert "--help" in line
    assert not output.exists()


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("split", "--seed zero"),
        ("train", "--likelihood poisson"),
        ("train", "--latent_dim 0"),
        ("train", "--seed -1"),
        ("train", "--batch_size 1.5"),
        ("evaluate", "--iwae_k"),
        ("train", "--checkpoint_seconds nan"),
        ("compare", "--latent_dims 3,20"),
    ],
)
def test_values_of_another_type_are_wrong_usage(stage, words):
    outcome = run(stage, *words.split())
    assert outcome.code == 2
    (line,) = outcome.error.splitlines()
    assert words.split()[0] in line


@EACH_STAGE
def test_required_files_are_asked_for(stage):
    outcome = run(stage)
    assert outcome.code == 2
    (line,) = outcome.error.splitlines()
    assert "required" in line
    required = [*INPUTS.get(stage, {}), *OUTPUTS.get(stage, ())] or ["output"]
    assert all(f"--{name}" in line for name in required)


@pytest.mark.parametrize(
    ("stage", "flag", "value"),
    [
        ("split", "--validation_size", "-1"),
        ("split", "--validation_size", "60000"),
        ("split", "--seed", "4294967296"),
        ("train", "--learning_rate", "0"),
        ("train", "--learning_rate", "nan"),
        ("train", "--decay", "1.1"),
        ("train", "--patience", "0"),
        ("evaluate", "--iwae_k", "0"),
        ("sample", "--rows", "101"),
        ("reconstruct", "--images", "0"),
        ("latents", "--threshold", "0"),
        ("traverse", "--steps", "1"),
        ("ladder", "--samples", "0"),
        ("ais", "--temperatures", "1"),
        ("estimators", "--samples", "1"),
    ],
)
def test_values_out_of_range_are_one_line(made, tmp_path, stage, flag, value):
    output = tmp_path / "output"
    line = the_error(run(stage, *command(stage, made, output), flag, value), 1)
    assert flag in line
    assert value in line
    assert not output.exists()


# Bad files.


def damage(path: Path, how: str, made: Path) -> None:
    """Make a file unusable."""
    content = path.read_bytes()
    match how:
        case "missing":
            path.unlink()
        case "torn":
            path.write_bytes(content[: len(content) // 2])
        case "garbage":
            path.write_bytes(b"garbage")
        case "empty":
            path.write_bytes(b"")
        case "another":
            other = "split/test" if path.name == "model" else "model"
            path.write_bytes((made / other).read_bytes())
        case "folder":
            path.unlink()
            path.mkdir()


@pytest.mark.parametrize("how", ["missing", "torn", "garbage", "empty", "another", "folder"])
@pytest.mark.parametrize(
    ("stage", "flag"),
    [(stage, flag) for stage, flags in INPUTS.items() for flag in flags if stage != "split"],
)
def test_a_bad_input_is_one_line_and_nothing_is_written(made, copy, tmp_path, stage, flag, how):
    bad = copy / INPUTS[stage][flag]
    damage(bad, how, made)
    output = tmp_path / "output"
    line = the_error(run(stage, *command(stage, copy, output)), 1)
    assert line.startswith(f"{stage}: error: ")
    assert str(bad) in line
    assert not output.exists()


@pytest.mark.parametrize("stage", INPUTS)
def test_what_was_there_stays_when_a_stage_fails(copy, tmp_path, stage):
    output = tmp_path / "output"
    output.mkdir()
    for name in OUTPUTS[stage]:
        (output / name).write_text("old")
    bad = copy / next(iter(INPUTS[stage].values()))
    bad.rename(bad.with_name("elsewhere"))
    the_error(run(stage, *command(stage, copy, output)), 1)
    assert {path.name: path.read_text() for path in output.iterdir()} == dict.fromkeys(
        OUTPUTS[stage], "old"
    )


@pytest.mark.parametrize("stage", INPUTS)
def test_an_output_that_cannot_be_written_is_one_line(made, tmp_path, stage):
    (tmp_path / "output").write_text("a file where a folder should be")
    line = the_error(run(stage, *command(stage, made, tmp_path / "output")), 1)
    assert str(tmp_path / "output") in line


@pytest.mark.parametrize("stage", INPUTS)
def test_stopped_at_the_keyboard_while_it_writes(made, tmp_path, monkeypatch, stage):
    monkeypatch.setattr(os, "fsync", lambda _: signal.raise_signal(signal.SIGINT))
    # As at a keyboard, also where the tests run in the background, which ignores the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    outcome = run(stage, *command(stage, made, tmp_path / "output"))
    signal.signal(signal.SIGINT, before)
    assert outcome.code == 130
    assert outcome.error.splitlines()[-1] == f"{stage}: stopped at the keyboard"
    assert "Traceback" not in outcome.error
    assert list((tmp_path / "output").rglob(".*")) == []  # half a file


@pytest.mark.parametrize(
    ("stage", "images"),
    [("reconstruct", 201), ("ladder", 201), ("ais", 176), ("estimators", 201)],
)
def test_more_images_than_there_are(made, tmp_path, stage, images):
    words = command(stage, made, tmp_path / "output")
    line = the_error(run(stage, *words, "--images", str(images)), 1)
    assert str(images) in line
    assert "200" in line
    assert not (tmp_path / "output").exists()


def test_compare_tells_which_file_of_which_run_is_missing(tmp_path):
    words = ["--latent_dims", "3", "--seeds", "5", "--output", tmp_path / "output"]
    for folder in ("metrics", "history", "evaluation", "samples", "reconstructions"):
        words += [f"--{folder}", tmp_path / folder]
    line = the_error(run("compare", *words), 1)
    assert "k3-seed5" in line
    assert not (tmp_path / "output").exists()


def test_a_device_that_is_not_there(made, tmp_path):
    if torch.backends.mps.is_available():
        pytest.skip("this machine has it")
    words = command("train", made, tmp_path / "output")
    assert "--device mps" in the_error(run("train", *words, "--device", "mps"), 1)


# What all stages share.


@pytest.fixture
def parser() -> cli.Parser:
    return cli.parser("A stage.\n\nMore about it.", params.Evaluate)


def test_the_log_is_appended_to_and_holds_the_command_and_its_end(parser, tmp_path):
    path = tmp_path / "logs" / "new" / "stage.log"

    def stage(_: Namespace) -> None:
        cli.log.info("done\nin two lines")
        raise InputError("wrong\n  twice")

    for _ in range(2):
        outcome = captured(lambda: cli.run(stage, parser), "stage.py", "--log", path)
        assert outcome.error.splitlines()[-1] == "stage: error: wrong twice"
        assert outcome.code == 1
    text = path.read_text(encoding="utf-8")
    assert text.count(f"$ stage.py --log {path}\n") == 2
    assert text.count("stage: error: wrong twice\n") == 2


def test_a_log_that_cannot_be_written_is_one_line(parser, tmp_path):
    (tmp_path / "file").write_text("")
    outcome = captured(lambda: cli.run(print, parser), "stage.py", "--log", tmp_path / "file" / "x")
    assert str(tmp_path / "file") in the_error(outcome, 1)


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
def test_exit_codes(parser, error, code):
    def stage(_: Namespace) -> None:
        raise error

    outcome = captured(lambda: cli.run(stage, parser), "stage.py")
    assert outcome.code == code
    assert "Traceback" not in outcome.error
    assert len(outcome.error.splitlines()) == 2  # the command, the error


def test_a_mistake_in_the_code_keeps_its_traceback(parser):
    """Only what the user can mend is told in one line."""
    errors = iter((ZeroDivisionError(), RuntimeError("shapes do not fit")))

    def stage(_: Namespace) -> None:
        raise next(errors)

    with pytest.raises(ZeroDivisionError):
        captured(lambda: cli.run(stage, parser), "stage.py")
    with pytest.raises(RuntimeError):
        captured(lambda: cli.run(stage, parser), "stage.py")


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (cli.natural, {"0": 0, "7": 7}, ["-1", "1.0", "x", ""]),
        (cli.positive, {"1": 1, "20": 20}, ["0", "-3", "2.5", "x", "1000001", "9" * 5000]),
    ],
)
def test_counts(kind, good, bad):
    assert {text: kind(text) for text in good} == good
    for text in bad:
        with pytest.raises((ValueError, ArgumentTypeError)):
            kind(text)


def test_every_line_of_a_training_says_whose_it_is(made, tmp_path):
    """Several write to one terminal and to one log of their engine; neither is one to redraw."""
    words = command("train", made, tmp_path / "output")
    outcome = run("train", *words, "--seed", "3", "--max_epochs", "2", "--log", tmp_path / "log")
    assert "\r" not in outcome.error
    first, *lines = outcome.error.splitlines()
    assert first.startswith("$ ")
    ours = "train k = 2, seed 3: "
    assert [line[: len(ours) + 12] for line in lines] == [
        *(f"{ours}epoch 1 of 2", f"{ours}epoch 2 of 2"),
        f"{ours}2 epochs, be",
    ]
    log = (tmp_path / "log").read_text(encoding="utf-8")
    assert [line.split(" ", 2)[2] for line in log.splitlines()] == [first, *lines]


def test_a_line_is_written_in_one_piece(parser, monkeypatch):
    """Else the lines of two processes run into one another."""
    pieces = []

    class Terminal(StringIO):
        def write(self, text: str) -> int:
            pieces.append(text)
            return len(text)

    monkeypatch.setattr("conftest.StringIO", Terminal)
    captured(lambda: cli.run(lambda _: cli.log.info("done"), parser), "stage.py")
    assert [piece for piece in pieces if piece] == ["$ stage.py\n", "done\n"]


def test_a_terminal_is_told_the_time_that_is_left(monkeypatch):
    terminal = StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", terminal)
    with cli.progress(None, "work", 4, "epoch", initial=1) as bar:
        bar.n = 2
        bar.refresh()
    shown = terminal.getvalue().split("\r")
    assert shown[1].endswith("1 of 4 epochs, ? left")
    assert re.fullmatch(r"work: .* 2 of 4 epochs, 00:0\d left", shown[2])


def test_progress_passes_its_items_on(capsys):
    assert list(cli.progress([1, 2, 3], "work", 3, "step")) == [1, 2, 3]
    assert capsys.readouterr() == ("", "")


def test_a_script_runs_alone_in_an_empty_folder(tmp_path):
    """As a process of its own, without any setting of paths."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [sys.executable, str(ROOT / "src" / "split.py"), "--raw", "raw"]
    words += [word for name in SETS for word in (f"--{name}", f"split/{name}")]
    result = subprocess.run(
        words, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )
    outcome = Outcome(result.returncode, result.stdout, result.stderr)
    assert "raw/train-images-idx3-ubyte" in the_error(outcome, 1)
    assert not list(tmp_path.iterdir())
