"""A training that is killed, stopped or disturbed ends with the bytes of an undisturbed one."""

import errno
import os
import pkgutil
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Timer
from typing import Any
from unittest.mock import Mock

from aevb.files import InputError, read_tensors
from aevb.plumbing import dependencies
from aevb.plumbing.checkpoints import Checkpoint
from aevb.plumbing.params import Model, Train
from graph import ROOT, TIMEOUT, run
from processes import (
    kill_at_random,
    kill_group,
    lives,
    running,
    start,
    steps_resumed,
    steps_saved,
    wait_for,
)
from repository import MODEL, clone, commit, copy, edit, made
from stages import Outcome, edit_tensors, error_line, run_script

import numpy as np
import pytest
import torch

EPOCH = 30
"""Steps in an epoch, which has 300 images."""
FLAGS = "--latent_dim 2 --hidden 16 --batch_size 10 --patience 1000 --device cpu"
SHORT = ("--max_epochs", "4", "--snapshots", "1", "3")
MEDIUM = ("--max_epochs", "30")
OFTEN = ("--checkpoint_seconds", "0")
SCRIPT = [sys.executable, str(ROOT / "src" / "train.py")]


def words(sets: Path, output: Path, *more: str) -> list[str]:
    """The command line of a training with model, history and checkpoint in one folder."""
    line = FLAGS.split()
    for flag in ("train", "validation"):
        line += [f"--{flag}", str(sets / flag)]
    for flag in ("model", "history", "checkpoints"):
        line += [f"--{flag}", str(output / flag)]
    return [*line, *more]


def train(sets: Path, output: Path, *more: str) -> Outcome:
    """A training in this process."""
    return run_script("train", *words(sets, output, *more))


def saved(output: Path) -> int:
    """The number of steps that the checkpoint in an output folder holds."""
    return steps_saved(output / "checkpoints", EPOCH)


def results(output: Path) -> tuple[bytes, bytes]:
    """The bytes of model and history; no other file may be left."""
    left = {path.name for path in output.rglob("*")} - {"log"}
    assert left == {"model", "history", "checkpoints", "model-finished.safetensors"}
    return (output / "model").read_bytes(), (output / "history").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(set_files, tmp_path_factory) -> Callable[..., tuple[bytes, bytes]]:
    """Model and history of an undisturbed training with given flags."""

    @cache
    def whole(*more: str) -> tuple[bytes, bytes]:
        output = tmp_path_factory.mktemp("undisturbed")
        outcome = train(set_files, output, *more)
        assert outcome.code == 0, outcome.error
        return results(output)

    return whole


DUE = "aevb.plumbing.checkpoints.Checkpoint.due"


def signal_after(
    patch: pytest.MonkeyPatch, function: str, call: int, number: int = signal.SIGTERM
) -> None:
    """Send this process a signal at the end of a function's given call."""
    owner, name = function.rsplit(".", 1)
    original = pkgutil.resolve_name(function)
    calls = 0

    def then_signal(*arguments: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        result = original(*arguments, **more)
        if calls == call:
            os.kill(os.getpid(), number)
        return result

    patch.setattr(pkgutil.resolve_name(owner), name, then_signal)


@pytest.fixture
def stopped(set_files, tmp_path) -> Path:
    """The output folder of a training that was stopped in its second epoch, after 44 steps."""
    with pytest.MonkeyPatch.context() as patch:
        signal_after(patch, DUE, 43)
        assert train(set_files, tmp_path / "output", *SHORT).code == 128 + signal.SIGTERM
    assert saved(tmp_path / "output") == 44
    return tmp_path / "output"


# Killed trainings.


def test_a_killed_training_ends_with_the_same_bytes(set_files, undisturbed, tmp_path):
    log, output = tmp_path / "log", tmp_path / "output"

    def begin(chance: random.Random) -> subprocess.Popen[bytes]:
        interval = ("--checkpoint_seconds", chance.choice(["0", "0.01", "0.05"]))
        return start([*SCRIPT, *words(set_files, output, *MEDIUM, *interval)], tmp_path, log)

    held = kill_at_random(5, 4, 30 * EPOCH, begin, lambda: saved(output))
    assert not (output / "model").exists()
    outcome = train(set_files, output, *MEDIUM)
    assert results(output) == undisturbed(*MEDIUM)
    # Each process resumed where the one before had stopped, and no checkpoint was torn.
    text = log.read_text() + outcome.error
    assert "restarts" not in text
    assert steps_resumed(text, EPOCH)[-1] == held[-1] > 0
    assert set(steps_resumed(text, EPOCH)) <= {0, *held}
    assert held == sorted(held)


def test_files_of_a_killed_process_are_removed(set_files, stopped, undisturbed):
    (path,) = (stopped / "checkpoints").iterdir()
    for target in (path, stopped / "model"):
        target.with_name(f".{target.name}.01234567.tmp").write_bytes(b"half")
    (stopped / ".model.lock").write_bytes(b"process 1 on nowhere")
    assert steps_resumed(train(set_files, stopped, *SHORT).error, EPOCH) == [44]
    assert results(stopped) == undisturbed(*SHORT)


# Signals.


@pytest.mark.parametrize(
    ("number", "function", "call", "steps"),
    [
        (signal.SIGTERM, "os.fsync", 3, 3),
        (signal.SIGINT, DUE, 60, 61),
        (signal.SIGUSR1, "aevb.training.Training.end_epoch", 1, 31),
    ],
    ids=["while a checkpoint is written", "before validation", "after validation"],
)
def test_a_signal_is_obeyed_after_the_current_step(
    set_files, undisturbed, tmp_path, monkeypatch, number, function, call, steps
):
    with monkeypatch.context() as patch:
        signal_after(patch, function, call, number)
        more = OFTEN if function == "os.fsync" else ()
        outcome = train(set_files, tmp_path, *SHORT, *more)
    assert outcome.code == 128 + number
    (path,) = (tmp_path / "checkpoints").iterdir()
    last = f"train k = 2, seed 0: stopped by {number.name}, checkpoint {path}"
    assert outcome.error.splitlines()[-1] == last
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoints"]
    assert steps_resumed(train(set_files, tmp_path, *SHORT).error, EPOCH) == [steps]
    assert results(tmp_path) == undisturbed(*SHORT)


def test_the_best_weights_survive_a_stop(set_files, tmp_path, monkeypatch):
    """With 20 images it overfits, so the best epoch is long over when the training stops."""
    sets = shutil.copytree(set_files, tmp_path / "sets")
    arrays, _ = read_tensors(sets / "train", "split")
    edit_tensors(sets / "train", "split", **{name: array[:20] for name, array in arrays.items()})
    flags = "--hidden 100 --latent_dim 10 --learning_rate 0.02 --decay 0 --max_epochs 40"
    more = flags.split()
    assert train(sets, tmp_path / "whole", *more).code == 0
    with monkeypatch.context() as patch:
        signal_after(patch, DUE, 70)  # two steps an epoch
        assert train(sets, tmp_path / "stopped", *more).code == 128 + signal.SIGTERM
    assert train(sets, tmp_path / "stopped", *more).code == 0
    assert results(tmp_path / "stopped") == results(tmp_path / "whole")
    assert read_tensors(tmp_path / "whole" / "model", "model")[1]["best_epoch"] < 30


# Checkpoints that cannot be used.


UNUSABLE: dict[str, dict[str, Any]] = {
    "torn": {},
    "missing array": {"sums": None},
    "another shape": {"sums": np.zeros((3, 2), np.float32)},
    "text for a number": {"step": "7"},
    "step outside the epoch": {"step": EPOCH + 1},
    "no history": {"history": []},
    "text in the history": {"history": [["1"] * 8] * 2},
    "text for an ELBO": {"best_elbo": "high"},
    "another run": {"key": "0" * 32},
}


@pytest.mark.parametrize("how", UNUSABLE)
def test_an_unusable_checkpoint_is_refused(how, set_files, stopped, undisturbed):
    (path,) = (stopped / "checkpoints").iterdir()
    if how == "torn":
        os.truncate(path, path.stat().st_size // 2)
    else:
        edit_tensors(path, "checkpoint", **UNUSABLE[how])
    outcome = train(set_files, stopped, *SHORT)
    assert outcome.code == 0, outcome.error
    (line,) = [line for line in outcome.error.splitlines() if "restarts" in line]
    assert str(path) in line
    assert not steps_resumed(outcome.error, EPOCH)
    assert results(stopped) == undisturbed(*SHORT)


def test_a_full_disk_leaves_the_last_checkpoint(set_files, stopped, undisturbed, monkeypatch):
    (path,) = (stopped / "checkpoints").iterdir()
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", Mock(side_effect=OSError(errno.ENOSPC, "No space left")))
        line = error_line(train(set_files, stopped, *SHORT, *OFTEN))
    assert "No space left" in line
    assert str(path) in line
    assert path.read_bytes() == before
    assert [left.name for left in path.parent.iterdir()] == [path.name]
    assert steps_resumed(train(set_files, stopped, *SHORT).error, EPOCH) == [44]
    assert results(stopped) == undisturbed(*SHORT)


def test_divergence_leaves_the_last_good_checkpoint(set_files, tmp_path):
    more = ("--learning_rate", "1", "--latent_dim", "50", "--hidden", "200", *OFTEN)
    line = error_line(train(set_files, tmp_path, *SHORT, *more))
    assert "diverged in epoch" in line
    (path,) = (tmp_path / "checkpoints").iterdir()
    for name, array in read_tensors(path, "checkpoint")[0].items():
        assert np.isfinite(array).all() or name.startswith("optimiser"), name
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoints"]
    assert error_line(train(set_files, tmp_path, *SHORT, *more)) == line  # from the checkpoint


# Two trainings at once.


@pytest.mark.parametrize("number", [signal.SIGCONT, signal.SIGKILL])
def test_a_second_training_of_a_model_waits(number, set_files, undisturbed, tmp_path):
    """It takes the result of the first one, or resumes where that was killed."""
    output = tmp_path / "output"
    with running(
        [*SCRIPT, *words(set_files, output, *MEDIUM, *OFTEN)], tmp_path, tmp_path / "log"
    ) as first:
        assert wait_for(lambda: saved(output) > 5, first)
        first.send_signal(signal.SIGSTOP)
        os.waitpid(first.pid, os.WUNTRACED)
        held = saved(output)
        Timer(1, lambda: first.send_signal(number)).start()
        said = train(set_files, output, *MEDIUM).error
    assert f"waiting for the training that is writing it (process {first.pid} on " in said
    assert steps_resumed(said, EPOCH) == ([held] if number == signal.SIGKILL else [])
    assert ("had finished" in said) == (number == signal.SIGCONT)
    assert results(output) == undisturbed(*MEDIUM)


# What identifies a run.


def key(sets: Path, *more: str) -> str:
    """The name of a run's checkpoint."""

    def report(self: Checkpoint) -> None:
        raise InputError(self.path.stem)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "load", report)
        return error_line(train(sets, sets / "output", *more)).split()[-1]


def test_every_parameter_is_in_the_key(set_files):
    other = {
        "likelihood": "gaussian", "hidden": "17", "binarisation": "none", "learning_rate": "0.004",
        "optimiser": "adagrad", "decay": "0.25", "batch_size": "11", "mc_samples": "2",
        "max_epochs": "41", "initialisation": "paper", "weight_decay": "1", "snapshots": "1",
        "patience": "1001", "threads": "2", "latent_dim": "3", "seed": "1",
    }  # fmt: skip
    resolved = {"precision", "device"}  # of these, what `auto` stands for
    parameters = {*Model.model_fields, *Train.model_fields, "latent_dim", "seed"}
    assert other.keys() | resolved == parameters
    plain = "--precision", "float32"
    keys = [key(set_files, *plain, f"--{name}", value) for name, value in other.items()]
    keys += [key(set_files, "--precision", name) for name in ("exact", "float32", "bfloat16")]
    assert len({*keys}) == len(keys)
    assert key(set_files) == key(set_files, "--threads", "2") == keys[-3]


def test_images_and_code_are_in_the_key(set_files, tmp_path, monkeypatch):
    """Each file of images or code, and the version of torch, but nothing that changes no byte."""
    sets = shutil.copytree(set_files, tmp_path / "sets")
    keys = [key(sets)]
    assert keys == [key(set_files, "--checkpoint_seconds", "1", "--log", str(tmp_path / "log"))]
    for name in ("train", "validation"):
        images = read_tensors(sets / name, "split")[0]["images"]
        edit_tensors(sets / name, "split", images=images[::-1])
        keys.append(key(sets))
    code = dependencies.code_of("src/train.py")
    for edited in ([*code[1:], "pyproject.toml"], [*code[:-1], "pyproject.toml"]):
        monkeypatch.setattr(dependencies, "code_of", lambda _, edited=edited: edited)
        keys.append(key(sets))
    monkeypatch.setattr(torch, "__version__", "0")
    keys.append(key(sets))
    assert len(set(keys)) == len(keys) == 6


# Engines, which run their trainings as child processes.

ENGINES = {
    "snakemake": f"snakemake --cores 1 --rerun-incomplete {MODEL}",
    "dvc": "dvc repro train@2-0",
}
FAILED = {"snakemake": 1, "dvc": 255}
REFUSED = {"snakemake": "Another Snakemake is running", "dvc": "lock"}
KILLS = 5
EACH_ENGINE = pytest.mark.parametrize("engine", ENGINES)
HISTORY = MODEL.replace("models", "history").replace("safetensors", "csv")
LOG = "logs/train/k2-seed0.log"
TREE_EPOCH = 25
LOCK = f"results/models/.{Path(MODEL).name}.lock"


@pytest.fixture(scope="module")
def prepared(origin, tmp_path_factory) -> Path:
    """A clone with both engines' inputs of a training that writes its checkpoint often."""
    tree = clone(origin, tmp_path_factory.mktemp("resume") / "tree")
    places = [tree / "dvc.yaml", *(tree / "workflow" / "rules").glob("*.smk")]
    texts = {path: path.read_text(encoding="utf-8") for path in places}
    assert "".join(texts.values()).count("--checkpoints") == 2
    for path, text in texts.items():
        path.write_text(text.replace("--checkpoints", "--checkpoint_seconds 0.02 --checkpoints"))
    edit(tree, "train", batch_size=20, max_epochs=160, patience=1000)
    commit(tree, "checkpoints written often")
    run("dvc repro split", tree)
    run("snakemake --cores 1 data/split/train.safetensors", tree)
    return tree


@pytest.fixture
def tree(prepared, tmp_path) -> Path:
    """A copy with all time stamps, so that neither engine sees a difference."""
    return shutil.copytree(prepared, tmp_path / "tree", symlinks=True)


@pytest.fixture(scope="module")
def by_engine(prepared, tmp_path_factory) -> tuple[bytes, bytes]:
    """Model and history of an undisturbed Snakemake."""
    folder = tmp_path_factory.mktemp("by-engine")
    tree = shutil.copytree(prepared, folder / "tree", symlinks=True)
    run(ENGINES["snakemake"], tree)
    return trained(tree)


def trained(tree: Path) -> tuple[bytes, bytes]:
    """The bytes of model and history; nothing else of the training may be left."""
    assert [path.name for path in (tree / MODEL).parent.iterdir()] == [Path(MODEL).name]
    return (tree / MODEL).read_bytes(), (tree / HISTORY).read_bytes()


def trainer(tree: Path, process: subprocess.Popen[bytes]) -> int:
    """The process that trains, once it has written a checkpoint."""
    assert wait_for(lambda: steps_saved(tree / "checkpoints", TREE_EPOCH) > 0, process)
    return int((tree / LOCK).read_text().split()[1])


@pytest.mark.slow
@EACH_ENGINE
def test_a_killed_engine_ends_with_the_same_bytes(engine, tree, by_engine):
    """Killed with all its children."""

    def begin(_: random.Random) -> subprocess.Popen[bytes]:
        return start(ENGINES[engine], tree, tree.parent / "log")

    def reached() -> int:
        return steps_saved(tree / "checkpoints", TREE_EPOCH)

    held = kill_at_random(5, 2, 160 * TREE_EPOCH, begin, reached)
    assert not (tree / MODEL).exists()
    run(ENGINES[engine], tree)
    said = (tree / LOG).read_text()
    assert "restarts" not in said
    assert steps_resumed(said, TREE_EPOCH)[-1] == held[-1] > 0
    assert held == sorted(held)
    assert trained(tree) == by_engine


@pytest.mark.slow
@EACH_ENGINE
def test_a_training_outlives_its_engine(engine, tree, by_engine):
    """The engine is refused while it lives; after its death the next one takes the result."""
    with running(ENGINES[engine], tree, tree.parent / "log") as process:
        pid = trainer(tree, process)
        os.kill(pid, signal.SIGSTOP)
        assert REFUSED[engine] in run(ENGINES[engine], tree, FAILED[engine])
        process.kill()
        process.wait(TIMEOUT)
        Timer(10, lambda: os.kill(pid, signal.SIGCONT)).start()
        run(ENGINES[engine], tree)
    said = (tree / LOG).read_text()
    assert f"waiting for the training that is writing it (process {pid} on " in said
    assert said.count("had finished") == 1
    assert not steps_resumed(said, TREE_EPOCH)
    assert trained(tree) == by_engine


@pytest.mark.slow
def test_snakemake_is_killed_at_random_moments_and_its_jobs_go_on(origin, tmp_path):
    """The same command takes up what is running: no step of a training is computed twice."""
    tree = clone(origin, tmp_path / "tree")
    shutil.rmtree(tree / "results")  # the published ones
    edit(tree, "train", max_epochs=60, batch_size=20, patience=1000)
    edit(tree, "runs", seeds=[0, 1])
    training = tree / "src" / "aevb" / "training.py"
    step = "                state.step = step + 1\n"
    note = "{self.seed} {state.epoch} {step}\\n"
    record = f"                open('steps', 'a').write(f'{note}')\n"
    training.write_text(training.read_text().replace(step, step + record))
    undisturbed = copy(tree, tmp_path)
    run("snakemake --cores 2", undisturbed)

    chance, heads = random.Random(6), []
    try:
        for _ in range(KILLS):
            heads.append(start("snakemake --cores 2", tree, tmp_path / "log"))
            with suppress(subprocess.TimeoutExpired):
                heads[-1].wait(chance.uniform(1, 15))
            heads[-1].kill()  # alone
            heads[-1].wait(TIMEOUT)
        run("snakemake --cores 2", tree)
        wait_for(lambda: not any(map(lives, heads)))
    finally:
        for head in heads:
            kill_group(head)
    assert made(tree) == made(undisturbed)
    steps = [sorted((each / "steps").read_text().splitlines()) for each in (tree, undisturbed)]
    assert steps[0] == steps[1]
    assert "Nothing to be done" in run("snakemake --cores 2", tree)
    assert not [file for file in (tree / "checkpoints").rglob("*") if file.is_file()]
