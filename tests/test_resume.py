"""A training that is killed, stopped or disturbed ends with the bytes of one that was left alone.

Trainings run as processes of their own where they are killed, in this process elsewhere.
"""

# ruff: noqa: F401 (fixtures of another file)

import json
import math
import os
import random
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

import aevb
import test_cli
from aevb.data import write_set
from aevb.files import InputError, read_tensors, write_tensors
from aevb.plumbing.checkpoints import Checkpoint
from aevb.plumbing.params import Model, Train
from aevb.training import Training
from graph import ROOT, TIMEOUT, changed, code_of, read_values, run, write_values
from test_cli import Outcome, captured, the_error
from test_pipeline import MODEL, clone, commit, made, mirror, origin

STEPS = 30
"""An epoch, of 300 images."""
SHORT = ("--max_epochs", "4")
MEDIUM = ("--max_epochs", "30")
LONG = ("--max_epochs", "100")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


@pytest.fixture(scope="module")
def sets(small_sets, tmp_path_factory) -> Path:
    """A folder with the files of the small sets."""
    folder = tmp_path_factory.mktemp("sets")
    for name, images in zip(("train", "validation", "test"), small_sets, strict=True):
        write_set(folder / name, images)
    return folder


def words(sets: Path, output: Path, *more: str) -> list[str]:
    """The command line of a training, its outputs and its checkpoint in one folder."""
    flags = [
        "--latent_dim",
        "2",
        "--hidden",
        "16",
        "--batch_size",
        "10",
        "--patience",
        "1000",
        "--device",
        "cpu",
    ]
    for flag in ("train", "validation"):
        flags += [f"--{flag}", str(sets / flag)]
    for flag in ("model", "history", "checkpoints"):
        flags += [f"--{flag}", str(output / flag)]
    return [*flags, *more]


def train(sets: Path, output: Path, *more: str) -> Outcome:
    """A training in this process."""
    return test_cli.run("train", *words(sets, output, *more))


def results(output: Path) -> tuple[bytes, bytes]:
    """The bytes of model and history; beside them nothing is left."""
    left = {path.name for path in output.rglob("*")} - {"log"}
    assert left == {"model", "history", "checkpoints"}
    return (output / "model").read_bytes(), (output / "history").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(sets, tmp_path_factory) -> Callable[..., tuple[bytes, bytes]]:
    """Model and history of a training that is left alone."""

    @cache
    def whole(*more: str) -> tuple[bytes, bytes]:
        output = tmp_path_factory.mktemp("undisturbed")
        outcome = train(sets, output, *more)
        assert outcome.code == 0, outcome.error
        return results(output)

    return whole


# Processes that are watched while they run.


def start(command: list[str], cwd: Path, output: Path) -> subprocess.Popen[bytes]:
    """Start a command as the head of its own group, what it says appended to a file."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    foreign = ("SNAKEMAKE_", "DVC_", "AEVB_", "GIT_", "OMP_", "MKL_", "PYTHONPATH")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    with output.open("ab") as file:
        return subprocess.Popen(
            command, cwd=cwd, env={**inherited, "PATH": path}, stdin=subprocess.DEVNULL,
            stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip


@contextmanager
def running(command: str | list[str], cwd: Path, output: Path):
    """A command that runs during the block; after it the whole group is gone."""
    given = shlex.split(command) if isinstance(command, str) else command
    process = start(given, cwd, output)
    try:
        yield process
    finally:
        kill_group(process)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill -9 a process and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(TIMEOUT)


def wait_for(ready: Callable[[], object], *processes: subprocess.Popen[bytes]) -> bool:
    """Wait until something is true; False if a process ended before that."""
    end = time.monotonic() + TIMEOUT
    while not ready():
        if any(process.poll() is not None for process in processes):
            return bool(ready())
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.003)
    return True


def position(checkpoints: Path, steps: int = STEPS) -> int:
    """How many steps the one checkpoint in a folder holds; 0 without one."""
    for path in checkpoints.glob("[!.]*.safetensors"):
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = json.loads(file.metadata()["aevb"])
        except FileNotFoundError:  # removed just now
            return 0
        return int(metadata["epoch"] * steps + metadata["step"])
    return 0


def kill_at_random(
    number: int, seed: int, total: int, begin: Callable[[random.Random], Any],
    reached: Callable[[], int],
) -> list[int]:  # fmt: skip
    """Start something and kill -9 it, again and again, at seeded moments.

    Three quarters of the moments are steps of the training, and some time more, which fall anywhere
    in a step or in the writing of a checkpoint. The others are times after the start, which fall
    into imports and reading; a training that is faster than that is killed at its step.

    Returns:
        The steps that the checkpoint held at each kill.
    """
    chance = random.Random(seed)
    aims = sorted(chance.uniform(0, 0.7 * total) for _ in range(number))
    held = []
    for aim in aims:
        aim = max(aim, reached())
        process = begin(chance)
        timed = chance.random() < 0.25
        after = time.monotonic() + chance.uniform(0, 3) if timed else math.inf
        wait_for(lambda aim=aim, after=after: reached() > aim or time.monotonic() > after, process)
        if not timed:
            time.sleep(chance.uniform(0, 0.02))
        kill_group(process)
        assert process.returncode == -signal.SIGKILL, "the training ended before the kill"
        held.append(reached())
    return held


def taken_up(log: str, steps: int = STEPS) -> list[int]:
    """The steps at which trainings say that they were resumed."""
    found = re.findall(r"resumed in epoch (\d+), step (\d+), ", log)
    return [(int(epoch) - 1) * steps + int(step) for epoch, step in found]


# Killed with -9.


@pytest.mark.parametrize(
    ("kills", "length"), [(5, MEDIUM), pytest.param(20, LONG, marks=pytest.mark.slow)]
)
def test_a_killed_training_ends_with_the_same_bytes(sets, undisturbed, tmp_path, kills, length):
    log, output = tmp_path / "log", tmp_path / "output"

    def begin(chance: random.Random) -> subprocess.Popen[bytes]:
        interval = chance.choice(["0", "0.01", "0.05"])
        script = [sys.executable, str(ROOT / "src" / "train.py")]
        more = (*length, "--checkpoint_seconds", interval)
        return start([*script, *words(sets, output, *more)], tmp_path, log)

    total = int(length[1]) * STEPS
    held = kill_at_random(kills, kills, total, begin, lambda: position(output / "checkpoints"))
    assert not (output / "model").exists()
    outcome = train(sets, output, *length)
    assert outcome.code == 0, outcome.error
    assert results(output) == undisturbed(*length)
    # Each life began where the one before it had left off, and no checkpoint was torn.
    text = log.read_text() + outcome.error
    assert "afresh" not in text
    assert taken_up(text)[-1] == held[-1] > 0
    assert set(taken_up(text)) <= {0, *held}
    assert held == sorted(held)


@pytest.fixture(scope="module")
def tree(request, tmp_path_factory) -> Path:
    """A clone with small parameters, in which train writes its checkpoint often."""
    tree = clone(request.getfixturevalue("origin"), tmp_path_factory.mktemp("resume") / "tree")
    for name in ("dvc.yaml", "workflow/rules/model.smk"):
        text = (tree / name).read_text(encoding="utf-8")
        often = "--checkpoint_seconds 0.02 --checkpoints"
        assert text.count("--checkpoints") == 1
        (tree / name).write_text(text.replace("--checkpoints", often))
    values = changed(read_values(tree), "train", batch_size=20, max_epochs=80, patience=1000)
    write_values(tree, values)
    commit(tree, "checkpoints written often")
    return tree


TREE_STEPS = 25
HISTORY = MODEL.replace("models", "history").replace("safetensors", "csv")
LOG = "logs/train/k2-seed0.log"
ENGINES = {
    "snakemake": f"snakemake --cores 1 --rerun-incomplete {MODEL}",
    "dvc": "dvc repro train@2-0",
}
EACH_ENGINE = pytest.mark.parametrize("engine", ENGINES)


@pytest.fixture(scope="module")
def prepared(tree, tmp_path_factory) -> dict[str, Path]:
    """A copy for each engine, in which it has made all that train needs."""
    trees = {}
    for engine, command in (
        ("snakemake", "snakemake --cores 1 data/split/train.safetensors"),
        ("dvc", "dvc repro split"),
    ):
        trees[engine] = shutil.copytree(
            tree, tmp_path_factory.mktemp(engine) / "tree", symlinks=True
        )
        run(command, trees[engine])
    return trees


def copy(prepared: dict[str, Path], engine: str, folder: Path) -> Path:
    """A copy with all time stamps, so that the engine sees no difference."""
    return shutil.copytree(prepared[engine], folder / "tree", symlinks=True)


@pytest.fixture(scope="module")
def by_engine(prepared, tmp_path_factory) -> tuple[bytes, bytes]:
    """Model and history as an undisturbed Snakemake makes them."""
    tree = copy(prepared, "snakemake", tmp_path_factory.mktemp("by-engine"))
    run(ENGINES["snakemake"], tree)
    return trained(tree)


def trained(tree: Path) -> tuple[bytes, bytes]:
    """The bytes of model and history; of the training nothing else is left."""
    assert [path.name for path in (tree / MODEL).parent.iterdir()] == [Path(MODEL).name]
    assert not list((tree / "checkpoints").iterdir())
    return (tree / MODEL).read_bytes(), (tree / HISTORY).read_bytes()


def trainer(tree: Path) -> int:
    """The process that trains, as its lock says."""
    lock = tree / Path(MODEL).parent / f".{Path(MODEL).name}.lock"
    return int(lock.read_text().split()[1])


def under_way(tree: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until a training that an engine runs has written a checkpoint."""
    assert wait_for(lambda: position(tree / "checkpoints", TREE_STEPS) > 0, process)


@pytest.mark.slow
@EACH_ENGINE
def test_a_killed_engine_ends_with_the_same_bytes(engine, prepared, tmp_path):
    """Killed with all its children; metrics, tables and figures are compared as well."""
    trees = [copy(prepared, engine, tmp_path / name) for name in ("killed", "undisturbed")]
    for each in trees:
        write_values(each, changed(read_values(each), "train", max_epochs=160))
    tree, log = trees[0], tmp_path / "log"

    def begin(_: random.Random) -> subprocess.Popen[bytes]:
        if engine == "snakemake":
            run("snakemake --unlock", tree)
        return start(shlex.split(ENGINES[engine]), tree, log)

    def reached() -> int:
        return position(tree / "checkpoints", TREE_STEPS)

    held = kill_at_random(20, 2, 160 * TREE_STEPS, begin, reached)
    assert not (tree / MODEL).exists()
    if engine == "snakemake":
        run("snakemake --unlock", tree)
        run("snakemake --cores 2 --rerun-incomplete", tree)
    else:
        run("dvc repro", tree)
    said = (tree / LOG).read_text()
    assert "afresh" not in said
    assert taken_up(said, TREE_STEPS)[-1] == held[-1] > 0
    assert held == sorted(held)
    run("snakemake --cores 2", trees[1])
    trained(tree)
    ours, theirs = made(tree), made(trees[1])
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []


# Signals.


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_with_a_checkpoint(sets, undisturbed, tmp_path, number):
    log, output = tmp_path / "log", tmp_path / "output"
    script = [sys.executable, str(ROOT / "src" / "train.py")]
    command = [*script, *words(sets, output, *MEDIUM, "--checkpoint_seconds", "0")]
    with running(command, tmp_path, log) as process:
        assert wait_for(lambda: position(output / "checkpoints") > 20, process)
        process.send_signal(number)
        assert process.wait(TIMEOUT) == 128 + number
    held = position(output / "checkpoints")
    (file,) = (output / "checkpoints").iterdir()
    assert log.read_text().splitlines()[-1] == (
        f"train k = 2, seed 0: stopped by {number.name}, checkpoint {file}"
    )
    assert "Traceback" not in log.read_text()
    assert not (output / "model").exists()
    assert not (output / "history").exists()
    outcome = train(sets, output, *MEDIUM)
    assert taken_up(outcome.error) == [held]
    assert results(output) == undisturbed(*MEDIUM)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_obeyed_after_the_present_step(
    sets, undisturbed, tmp_path, monkeypatch, number
):
    """Wherever it comes: in a step, while a checkpoint is written, in validation."""
    places = ((Training, "update", 47), (Checkpoint, "save", 3), (Training, "validate", 2))
    for owner, name, call in places:
        output = tmp_path / name
        calls = 0
        original = getattr(owner, name)

        def signalled(*arguments: Any, original: Any = original, call: int = call) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                os.kill(os.getpid(), number)
            return original(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, signalled)
            seconds = "0" if name == "save" else "1000"
            outcome = train(sets, output, *SHORT, "--checkpoint_seconds", seconds)
        assert outcome.code == 128 + number
        assert calls == call
        held = position(output / "checkpoints")
        assert held == {"update": 47, "save": 3, "validate": 61}[name]
        assert taken_up(train(sets, output, *SHORT).error) == [held]
        assert results(output) == undisturbed(*SHORT)


def test_the_best_weights_outlive_a_stop(sets, tmp_path, monkeypatch):
    """Stopped in the fourth epoch, of which the second is the best."""
    values = [-3.0, -1.0, -4.0, -2.0]
    monkeypatch.setattr(Training, "validate", lambda self: (values[self.state.epoch], 0.0))
    assert train(sets, tmp_path / "whole", *SHORT).code == 0
    with monkeypatch.context() as patch:
        stop_after(patch, 95)
        assert train(sets, tmp_path / "stopped", *SHORT).code == 143
    assert taken_up(train(sets, tmp_path / "stopped", *SHORT).error) == [95]
    assert results(tmp_path / "stopped") == results(tmp_path / "whole")
    assert read_tensors(tmp_path / "whole" / "model", "model")[1]["best_epoch"] == 2


@EACH_ENGINE
def test_an_engine_sees_a_stopped_training_as_failed(engine, prepared, by_engine, tmp_path):
    tree, log = copy(prepared, engine, tmp_path), tmp_path / "log"
    with running(ENGINES[engine], tree, log) as process:
        under_way(tree, process)
        os.kill(trainer(tree), signal.SIGTERM)
        assert process.wait(TIMEOUT) not in (0, -signal.SIGKILL)
    assert "stopped by SIGTERM" in (tree / LOG).read_text()
    assert not (tree / MODEL).exists()
    assert not (tree / HISTORY).exists()
    assert position(tree / "checkpoints", TREE_STEPS) > 0
    if engine == "dvc":
        run("dvc status --quiet", tree, code=1)
    # Snakemake goes on even where it is told to make everything again.
    run(
        "snakemake --forceall --cores 1 " + MODEL if engine == "snakemake" else ENGINES["dvc"], tree
    )
    assert "resumed" in (tree / LOG).read_text()
    assert trained(tree) == by_engine


# Checkpoints that cannot be used.


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Let trainings be stopped after so many steps, as SIGTERM would."""
    count = 0

    def due(self: Checkpoint) -> bool:
        nonlocal count
        count += 1
        self.signal = signal.SIGTERM
        return count == steps

    monkeypatch.setattr(Checkpoint, "due", due)


@pytest.fixture
def stopped(sets, tmp_path) -> Path:
    """The output folder of a training that was stopped in its second epoch."""
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 44)
        assert train(sets, tmp_path / "output", *SHORT).code == 143
    assert position(tmp_path / "output" / "checkpoints") == 44
    return tmp_path / "output"


def rewrite(path: Path, arrays: dict[str, Any] | None = None, **metadata: Any) -> None:
    """Write a checkpoint again with other arrays or metadata; None leaves one out."""
    old, callback = read_tensors(path, "checkpoint")
    merged = {k: v for k, v in {**old, **(arrays or {})}.items() if v is not None}
    described = {k: v for k, v in {**callback, **metadata}.items() if v is not None}
    write_tensors(path, "checkpoint", merged, described)


def newer(path: Path) -> None:
    """Say that a file is of the next format; the two numbers have the same length."""
    content = path.read_bytes()
    assert content.count(b'\\"format\\": 2') == 1
    path.write_bytes(content.replace(b'\\"format\\": 2', b'\\"format\\": 3'))


def torn(share: float) -> Callable[[Path], None]:
    """Leave the first part of a file."""
    return lambda path: os.truncate(path, int(share * path.stat().st_size))


def with_arrays(**arrays: Any) -> Callable[[Path], None]:
    """Give a checkpoint other arrays."""
    return lambda path: rewrite(path, arrays)


def with_state(**metadata: Any) -> Callable[[Path], None]:
    """Give a checkpoint another state."""
    return lambda path: rewrite(path, **metadata)


def flipped(path: Path, bit: int) -> None:
    """Turn one bit of a file; a negative number counts from its end."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


UNUSABLE: dict[str, Callable[[Path], Any]] = {
    "empty": torn(0),
    "torn in its header": torn(0.001),
    "torn": torn(0.6),
    "one byte short": lambda path: os.truncate(path, path.stat().st_size - 1),
    "garbage": lambda path: path.write_bytes(b"garbage" * 1000),
    "no array": with_arrays(generator=None),
    "an array more": with_arrays(more=np.zeros(3, np.float32)),
    "another shape": with_arrays(best=np.zeros(3, np.float32)),
    "another type": with_arrays(weights=np.zeros(3, np.float64)),
    "no position": with_state(step=None),
    "a word more": with_state(more=1),
    "a word for a number": with_state(step="7"),
    "no history": with_state(history=[]),
    "outside the epoch": with_state(step=31),
    "another key": with_state(key="0" * 32),
    "newer format": newer,
    "a bit of a weight": lambda path: flipped(path, -100),
    "a bit of the last byte": lambda path: flipped(path, -1),
}  # fmt: skip


@pytest.mark.parametrize("how", UNUSABLE)
def test_an_unusable_checkpoint_is_refused(how, sets, stopped, undisturbed):
    (path,) = (stopped / "checkpoints").iterdir()
    UNUSABLE[how](path)
    refused(train(sets, stopped, *SHORT), path)
    assert results(stopped) == undisturbed(*SHORT)


def test_no_flipped_bit_gets_into_a_training(stopped, caplog):
    (path,) = (stopped / "checkpoints").iterdir()
    content, chance = path.read_bytes(), random.Random(0)
    checkpoint = Checkpoint(path.parent, path.stem, 0)
    assert checkpoint.load() is not None
    bits = [chance.randrange(8 * len(content)) for _ in range(50)]
    header = 8 * (8 + int.from_bytes(content[:8], "little"))
    for bit in [*bits, *(chance.randrange(header) for _ in range(50))]:
        flipped(path, bit)
        caplog.clear()
        assert checkpoint.load() is None, bit
        (line,) = caplog.messages
        assert "afresh" in line
        assert line.isprintable()
        path.write_bytes(content)
    assert checkpoint.load() is not None


def refused(outcome: Outcome, path: Path) -> None:
    """See that one line says which checkpoint is not used, and that the training is done."""
    assert outcome.code == 0, outcome.error
    lines = [line for line in outcome.error.splitlines() if "afresh" in line]
    assert len(lines) == 1
    assert str(path) in lines[0]
    assert "resumed" not in outcome.error
    assert "Traceback" not in outcome.error


@pytest.mark.parametrize("other", [("--latent_dim", "3"), ("--seed", "1")])
def test_a_checkpoint_under_another_name_is_refused(other, sets, stopped, tmp_path, monkeypatch):
    """One of other parameters or of another seed, renamed to this run's key."""
    (path,) = (stopped / "checkpoints").iterdir()
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        assert train(sets, tmp_path / "other", *SHORT, *other).code == 143
    (wrong,) = (tmp_path / "other" / "checkpoints").iterdir()
    assert wrong.name != path.name
    for name in ("alone", "renamed"):
        output = tmp_path / name
        shutil.copytree(stopped, output)
        target = output / "checkpoints" / path.name
        if name == "renamed":
            shutil.copy(wrong, target)
            refused(train(sets, output, *SHORT), target)
        else:  # under its own name it stays for its own run
            shutil.copy(wrong, target.parent)
            assert taken_up(train(sets, output, *SHORT).error) == [44]
            assert [left.name for left in target.parent.iterdir()] == [wrong.name]
    read = (tmp_path / "renamed" / "model").read_bytes()
    assert read == (tmp_path / "alone" / "model").read_bytes()


def test_what_a_killed_writer_left_is_removed(sets, stopped, undisturbed):
    (path,) = (stopped / "checkpoints").iterdir()
    for target in (path, stopped / "model"):
        target.with_name(f".{target.name}.01234567.tmp").write_bytes(b"half")
        target.with_name(f".{target.name}.lock").write_bytes(b"process 1 on nowhere")
    assert taken_up(train(sets, stopped, *SHORT).error) == [44]
    assert results(stopped) == undisturbed(*SHORT)


# Divergence.


def test_divergence_leaves_the_last_good_checkpoint(sets, tmp_path):
    more = ("--learning_rate", "1", "--latent_dim", "50", "--hidden", "200")
    lines = []
    for _ in range(2):  # and again, from the checkpoint
        outcome = train(sets, tmp_path, *SHORT, *more, "--checkpoint_seconds", "0")
        lines.append(the_error(outcome, 1))
        epoch, step = re.search(
            r"training diverged in epoch (\d+), step (\d+), at learning rate 1: ", lines[-1]
        ).groups()
        failed = (int(epoch) - 1) * STEPS + int(step)
        assert position(tmp_path / "checkpoints") == failed - 1 > 0
        (path,) = (tmp_path / "checkpoints").iterdir()
        arrays, _ = read_tensors(path, "checkpoint")
        assert all(np.isfinite(arrays[name]).all() for name in ("weights", "best", "sums"))
        assert [file.name for file in tmp_path.iterdir()] == ["checkpoints"]
    assert lines[0] == lines[1]
    assert taken_up(outcome.error) == [failed - 1]


@pytest.mark.parametrize("step", [1, 5, 30, 33])
def test_weights_that_are_not_finite_are_divergence(sets, tmp_path, monkeypatch, step):
    """An update can break the weights and report a finite ELBO, that of the weights before it."""
    update, count = Training.update, 0

    def broken(self: Training, x: torch.Tensor) -> torch.Tensor:
        nonlocal count
        count += 1
        terms = update(self, x)
        if count == step:
            self.weights.data[7] = math.inf
        return terms

    monkeypatch.setattr(Training, "update", broken)
    outcome = train(sets, tmp_path, *SHORT, "--checkpoint_seconds", "0", "--decay", "0")
    epoch, place = (step - 1) // STEPS + 1, (step - 1) % STEPS + 1
    assert f"in epoch {epoch}, step {place}, at learning rate 0.005:" in the_error(outcome, 1)
    assert position(tmp_path / "checkpoints") == step - 1


# The key.


def key(sets: Path, *more: str, script: Path = ROOT / "src" / "train.py") -> str:
    """The name that a run's checkpoint has."""

    def tell(self: Checkpoint) -> None:
        raise InputError(self.key)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "load", tell)
        found = words(sets, sets / "output", *more)
        outcome = captured(lambda: runpy.run_path(str(script), run_name="__main__"), script, *found)
    return the_error(outcome, 1).split()[-1]


def test_every_parameter_is_in_the_key(sets):
    other = {
        "likelihood": "gaussian", "hidden": "17", "binarisation": "none", "learning_rate": "0.004",
        "optimiser": "adagrad",
        "decay": "0.25", "batch_size": "11", "mc_samples": "2", "max_epochs": "41",
        "patience": "1001", "threads": "2", "latent_dim": "3", "seed": "1",
    }  # fmt: skip
    resolved = {"precision", "device"}
    fields = {*Model.model_fields, *Train.model_fields, "latent_dim", "seed"}
    assert other.keys() | resolved == fields
    base = key(sets)
    assert re.fullmatch("[0-9a-f]{32}", base)
    keys = [base, *(key(sets, f"--{name}", value) for name, value in other.items())]
    precisions = [key(sets, "--precision", value) for value in ("float32", "bfloat16")]
    assert len({*keys, *precisions}) == len(keys) + 1
    # Of precision and device what counts is what `auto` stands for.
    assert base in precisions
    if not torch.cuda.is_available():
        assert key(sets, "--device", "auto") == base


def test_what_changes_no_byte_is_not_in_the_key(sets, tmp_path):
    same = ("--checkpoint_seconds", "1", "--log", str(tmp_path / "log"))
    elsewhere = shutil.copytree(sets, tmp_path / "elsewhere", ignore=lambda *_: ["output"])
    assert key(sets, *same) == key(sets) == key(elsewhere)


@pytest.mark.parametrize("name", ["train", "validation"])
@pytest.mark.parametrize("array", ["images", "labels"])
def test_the_images_are_in_the_key(sets, tmp_path, name, array):
    changed = shutil.copytree(sets, tmp_path / "sets")
    arrays, metadata = read_tensors(changed / name, "split")
    arrays[array].setflags(write=True)
    arrays[array].flat[-1] ^= 1
    write_tensors(changed / name, "split", arrays, metadata)
    assert key(changed) != key(sets)


def test_the_code_is_in_the_key(sets, tmp_path, monkeypatch):
    """All files whose change makes the engines train again; and the version of torch."""
    keys = [key(sets)]
    for file in sorted(code_of("train")):
        edited = tmp_path / Path(file).name
        edited.write_text((ROOT / file).read_text(encoding="utf-8") + "# edited\n")
        if file == "src/train.py":
            keys.append(key(sets, script=edited))
        else:
            with monkeypatch.context() as patch:
                patch.setattr(getattr(aevb, Path(file).stem), "__file__", str(edited))
                keys.append(key(sets))
    assert len(keys) > 8
    monkeypatch.setattr(torch, "__version__", "0")
    keys.append(key(sets))
    assert len(set(keys)) == len(keys)
