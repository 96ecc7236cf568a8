"""Full disks, read-only folders, two at once, dead engines, bad files: what happens, how it heals.

The stages run in this process, the engines as processes of their own.
"""

# ruff: noqa: F401, F811 (fixtures of other files, by their names)

import contextlib
import errno
import fcntl
import hashlib
import io
import os
import pickle
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import test_cli
import test_resume
from aevb.data import RAW_FILES
from aevb.files import InputError, read_tensors, write_tensors
from aevb.plumbing.checkpoints import exclusive
from conftest import ROOT, write_raw
from graph import TIMEOUT, run
from test_cli import INPUTS, OUTPUTS, Outcome, the_error
from test_pipeline import MODEL, mirror, origin
from test_resume import (
    EACH_ENGINE,
    ENGINES,
    LOG,
    SHORT,
    by_engine,
    position,
    prepared,
    results,
    running,
    sets,
    stop_after,
    taken_up,
    trained,
    trainer,
    tree,
    under_way,
    undisturbed,
    wait_for,
)

STAGES = (*(stage for stage in OUTPUTS if stage != "card"), "compare")
READERS = ("evaluate", "sample", "reconstruct")
PLACES = {  # where compare looks for what the others make, with the run's name
    "evaluate": {"metrics": "metrics/{}.json", "evaluation": "evaluation/{}.safetensors"},
    "sample": {
        "means": "samples/{}-means.png",
        "draws": "samples/{}-draws.png",
        "samples": "samples/{}.safetensors",
    },
    "reconstruct": {
        "figure": "reconstructions/{}.png",
        "reconstructions": "reconstructions/{}.safetensors",
    },
    "train": {"history": "history/{}.csv"},
    "fidelity": {  # which compare does not read
        "metrics": "fidelity/{}.json",
        "fidelity": "fidelity/{}.safetensors",
        "figure": "fidelity/{}-neighbours.png",
    },
    "latents": {"metrics": "latents/{}.json", "latents": "latents/{}.safetensors"},
    "ladder": {"metrics": "ladder/{}.json", "bounds": "ladder/{}.safetensors"},
    "ais": {"metrics": "ais/{}.json", "estimates": "ais/{}.safetensors"},
    "estimators": {
        "metrics": "estimators/{}.json",
        "gradients": "estimators/{}.safetensors",
    },
}


def place(stage: str, output: str) -> str:
    """Where an output of a stage lies in its folder."""
    return PLACES.get(stage, {}).get(output, output).format("k2-seed0")


def command(stage: str, made: Path, output: Path) -> list[str]:
    """The words of a stage's command, its inputs in `made`, its outputs in `output`."""
    if stage == "compare":
        folders = ("metrics", "history", "evaluation", "samples", "reconstructions")
        flags = [word for name in folders for word in (f"--{name}", str(made / name))]
        return [*flags, "--latent_dims", "2", "--seeds", "0", "--output", str(output)]
    words = test_cli.command(stage, made, output)
    for flag in OUTPUTS[stage]:
        words[words.index(f"--{flag}") + 1] = str(output / place(stage, flag))
    return words


def run_stage(stage: str, made: Path, output: Path, *more: str) -> Outcome:
    """A stage in this process."""
    return test_cli.run(stage, *command(stage, made, output), *more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """What all stages make of the small subset, and need."""
    folder = tmp_path_factory.mktemp("whole")
    write_raw(folder / "raw")
    for stage in STAGES:
        output = folder / {"split": "split", "compare": "comparison"}.get(stage, "")
        outcome = run_stage(stage, folder, output)
        assert outcome.code == 0, outcome.error
    return folder


def files(folder: Path) -> dict[str, bytes]:
    """Every file in a folder with its bytes, hidden ones too."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(paths)}


# Disk full.


@contextlib.contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """A mount on a folder during the block; skips the test where that is not allowed."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    found = subprocess.run(["mount", *options, str(folder)], capture_output=True, check=False)
    if found.returncode:
        pytest.skip(f"mount failed: {found.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A disk of 2 MiB."""
    (tmp_path / "disk").mkdir()
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=2m", "tmpfs"):
        yield tmp_path / "disk"


def fill(disk: Path) -> Path:
    """A file that leaves no byte on a disk."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return filler


@pytest.mark.parametrize("stage", STAGES)
def test_a_full_disk_is_one_line_and_nothing_half_written(stage, whole, disk):
    output = disk / "output"
    first = run_stage(stage, whole, output)
    assert first.code == 0, first.error
    good = files(output)
    for name in good:  # of another run, and complete
        (output / name).write_bytes(b"old")
    filler = fill(disk)
    line = the_error(run_stage(stage, whole, output, "--log", str(disk / "log")), 1)
    assert line.startswith(f"{stage}: error: ")
    assert "No space left on device" in line
    assert str(output) in line
    left = files(output)
    assert left.keys() == good.keys()
    assert all(content in (b"old", good[name]) for name, content in left.items())
    filler.unlink()
    assert run_stage(stage, whole, output).code == 0
    assert files(output) == good


def test_a_training_goes_on_when_the_disk_has_room_again(sets, undisturbed, disk):
    """The checkpoint does not fit: training stops, the one before it stays."""
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 44)
        assert test_resume.train(sets, disk, *SHORT).code == 143
    (path,) = (disk / "checkpoints").iterdir()
    filler, before = fill(disk), path.read_bytes()
    outcome = test_resume.train(sets, disk, *SHORT, "--checkpoint_seconds", "0")
    assert taken_up(outcome.error) == [44]
    assert str(path) in the_error(outcome, 1)
    assert files(disk / "checkpoints") == {path.name: before}
    filler.unlink()
    assert taken_up(test_resume.train(sets, disk, *SHORT).error) == [44]
    assert results(disk) == undisturbed(*SHORT)


def test_a_limit_of_file_sizes_is_like_a_full_disk(sets, undisturbed, tmp_path):
    """Needs no root: a quota that lets the history through and neither checkpoint nor model."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for seconds, file in (("0", "checkpoints/"), ("1000", "model")):
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        try:
            outcome = test_resume.train(sets, tmp_path, *SHORT, "--checkpoint_seconds", seconds)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        line = the_error(outcome, 1)
        assert os.strerror(errno.EFBIG) in line
        assert str(tmp_path / file) in line
        assert files(tmp_path).keys() <= {"history"}
    assert test_resume.train(sets, tmp_path, *SHORT).code == 0
    assert results(tmp_path) == undisturbed(*SHORT)


# Folders.


@pytest.mark.parametrize("stage", STAGES)
def test_a_read_only_folder_is_one_line(stage, whole, tmp_path):
    output = tmp_path / "output"
    assert run_stage(stage, whole, output).code == 0
    good = files(output)
    with contextlib.ExitStack() as stack:
        if os.geteuid() == 0:  # whom modes do not stop
            stack.enter_context(mounted(output, "--bind", str(output)))
            subprocess.run(["mount", "-o", "remount,bind,ro", str(output)], check=True)
        else:
            folders = [output, *(path for path in output.rglob("*") if path.is_dir())]
            for folder in folders:
                folder.chmod(0o555)
                stack.callback(folder.chmod, 0o755)
        line = the_error(run_stage(stage, whole, output), 1)
        assert str(output) in line
        assert files(output) == good
    assert run_stage(stage, whole, output).code == 0
    assert files(output) == good


def test_a_training_that_could_not_write_its_model_does_not_begin(sets, tmp_path, monkeypatch):
    """Told before the hours of training, not after them."""
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("aevb.training.Training.update", None)
    words = test_resume.words(sets, tmp_path / "output", *SHORT)
    outcome = test_cli.run("train", *words, "--model", str(tmp_path / "file" / "model"))
    assert str(tmp_path / "file") in the_error(outcome, 1)


@pytest.mark.parametrize("stage", STAGES)
def test_missing_folders_are_made(stage, whole, tmp_path):
    output = tmp_path / "a" / "b" / "c"
    assert run_stage(stage, whole, output, "--log", str(tmp_path / "d" / "e" / "log")).code == 0
    assert (tmp_path / "d" / "e" / "log").exists()
    expected = files(whole)
    for name, content in files(output).items():
        folder = {"split": "split/", "compare": "comparison/"}.get(stage, "")
        assert content == expected[folder + name]


# Two at once.


def test_a_second_training_of_a_model_is_refused(sets, undisturbed, tmp_path):
    """While the first lives, stopped or not; when it is dead the next one goes on."""
    output, log = tmp_path / "output", tmp_path / "log"
    script = [str(Path(sys.executable)), str(ROOT / "src" / "train.py")]
    words = test_resume.words(sets, output, *test_resume.MEDIUM)
    with running([*script, *words, "--checkpoint_seconds", "0"], tmp_path, log) as first:
        assert wait_for(lambda: position(output / "checkpoints") > 5, first)
        first.send_signal(signal.SIGSTOP)
        os.waitpid(first.pid, os.WUNTRACED)  # until it stands still
        held = files(output)
        # The same training; one of other parameters for the same model; for another model one
        # with the same checkpoint.
        for more, place in (
            ([], output / "model"),
            (["--seed", "1"], output / "model"),
            (["--model", str(tmp_path / "other")], output / "checkpoints"),
        ):
            line = the_error(test_cli.run("train", *words, *more), 1)
            assert f"process {first.pid} on " in line
            assert line.startswith(f"train: error: {place}")
            assert not (tmp_path / "other").exists()
        assert files(output) == held
        first.kill()
        first.wait(TIMEOUT)
        at = position(output / "checkpoints")
        outcome = test_cli.run("train", *words)
    assert taken_up(outcome.error) == [at]
    assert results(output) == undisturbed(*test_resume.MEDIUM)


def test_trainings_of_different_models_run_side_by_side(sets, tmp_path):
    with exclusive(tmp_path / "model"), exclusive(tmp_path / "checkpoints" / "x.safetensors"):
        words = test_resume.words(sets, tmp_path, *SHORT)
        outcome = test_cli.run("train", *words, "--model", str(tmp_path / "other"))
        assert outcome.code == 0, outcome.error


@pytest.mark.parametrize("stage", ["download", "split", *READERS, "compare"])
def test_two_at_once_leave_the_bytes_of_one(stage, whole, tmp_path):
    """Stages without a lock: both end well, and what they write is whole at every moment."""

    def words(output: Path) -> list[str]:
        if stage == "download":
            digests = [
                hashlib.sha256((whole / "raw" / name).read_bytes()).hexdigest()
                for name in RAW_FILES
            ]
            mirror = ["--bundled", str(whole / "none"), "--mirror", str(whole / "raw")]
            return [*mirror, "--sha256", *digests, "--output", str(output)]
        return command(stage, whole, output)

    alone, both = tmp_path / "alone", tmp_path / "both"
    outcome = test_cli.run(stage, *words(alone))
    assert outcome.code == 0, outcome.error
    expected = files(alone)
    script = [sys.executable, str(ROOT / "src" / f"{stage}.py"), *words(both)]
    with (
        running(script, tmp_path, tmp_path / "log") as one,
        running(script, tmp_path, tmp_path / "log") as other,
    ):
        while None in (one.poll(), other.poll()):
            for path, content in visible(both).items():
                assert content == expected[path], path
            time.sleep(0.001)
        assert (one.returncode, other.returncode) == (0, 0), (tmp_path / "log").read_text()
    assert files(both) == expected


def visible(folder: Path) -> dict[str, bytes]:
    """Every file in a folder that is no temporary one, with its bytes; one may go meanwhile."""
    found = {}
    for path in folder.rglob("[!.]*"):
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return found


def test_the_lock_is_held_by_one_and_left_by_all(tmp_path):
    path = tmp_path / "new" / "file"
    for _ in range(2):
        with exclusive(path):
            with pytest.raises(InputError, match=f"process {os.getpid()} on "), exclusive(path):
                pass
            with pytest.raises(InputError), exclusive(path):  # the refused one left it locked
                pass
        assert not list(path.parent.iterdir())
    with pytest.raises(ZeroDivisionError), exclusive(path):
        raise ZeroDivisionError
    with exclusive(path):
        pass


def test_a_lock_whose_name_is_gone_is_no_lock(tmp_path, monkeypatch):
    """The holder before may remove the file while the next one waits with it open."""
    path = tmp_path / "file"
    lock = fcntl.flock

    def late(*arguments: Any) -> None:
        (tmp_path / ".file.lock").unlink()
        lock(*arguments)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(InputError, match="just left it; run again"), exclusive(path):
        pass
    monkeypatch.undo()
    with exclusive(path):
        pass


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, caplog):
    def unsupported(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with exclusive(tmp_path / "file"):
        assert "start no second training" in caplog.text
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_two_engines_in_one_tree(prepared, by_engine, tmp_path):
    """Each keeps a second of its own kind out; of two kinds, the second training is refused."""
    for engine, refusal in (("snakemake", "lock"), ("dvc", "lock")):
        tree = test_resume.copy(prepared, engine, tmp_path / engine)
        with running(ENGINES[engine], tree, tmp_path / "log") as process:
            under_way(tree, process)
            pid = trainer(tree)
            os.kill(pid, signal.SIGSTOP)
            second = fails(ENGINES[engine], tree)
            assert refusal in second.lower()
            if engine == "snakemake":
                other = fails("dvc repro --single-item train@2-0", tree)
                assert f"another training is writing it (process {pid} on " in other
            os.kill(pid, signal.SIGCONT)
            assert process.wait(TIMEOUT) == 0
        assert trained(tree) == by_engine


def fails(command: str, tree: Path) -> str:
    """Run a command that has to fail; returns what it says."""
    with running(command, tree, tree.parent / "second") as process:
        assert process.wait(TIMEOUT) > 0
    return (tree.parent / "second").read_text()


# The engine is dead, its training lives.


@pytest.mark.slow
@EACH_ENGINE
def test_the_engine_dies_and_its_training_lives(engine, prepared, by_engine, tmp_path):
    """The commands are those of docs/recovery.md."""
    tree, log = test_resume.copy(prepared, engine, tmp_path), tmp_path / "log"
    with running(ENGINES[engine], tree, log) as process:
        under_way(tree, process)
        pid = trainer(tree)
        os.kill(pid, signal.SIGSTOP)
        process.kill()
        process.wait(TIMEOUT)
        if engine == "snakemake":
            assert "lock" in fails(ENGINES[engine], tree).lower()
            run("snakemake --unlock", tree)
        # The living one keeps a second one out.
        assert f"(process {pid} on " in fails(ENGINES[engine], tree)
        os.kill(pid, signal.SIGCONT)
        os.kill(pid, signal.SIGTERM)
        assert wait_for(lambda: not (tree / MODEL).with_name(f".{Path(MODEL).name}.lock").exists())
        # What it says goes where the engine's words went: Snakemake has removed its log by now.
        assert "stopped by SIGTERM" in log.read_text()
        run(ENGINES[engine], tree)
        assert "resumed" in (tree / LOG).read_text()
        assert trained(tree) == by_engine


@pytest.mark.slow
@EACH_ENGINE
def test_a_torn_model_is_made_again(engine, prepared, by_engine, tmp_path):
    """Snakemake's next stage refuses it, DVC sees for itself that it is another file."""
    tree = test_resume.copy(prepared, engine, tmp_path)
    run(ENGINES[engine], tree)
    os.truncate(tree / MODEL, 5000)
    if engine == "snakemake":
        said = fails("snakemake --cores 1 results/metrics/k2-seed0.json", tree)
        assert f"evaluate: error: {MODEL}: damaged or foreign" in said
        (tree / MODEL).unlink()
    run(ENGINES[engine], tree)
    assert trained(tree) == by_engine


# Bad models and sets.


def edited(
    kind: str, arrays: dict[str, Any] | None = None, **metadata: Any
) -> Callable[[Path], None]:
    """Write a file again with other arrays or metadata; None leaves one out."""

    def act(path: Path) -> None:
        old, callback = read_tensors(path, kind)
        merged = {k: v for k, v in {**old, **(arrays or {})}.items() if v is not None}
        described = {k: v for k, v in {**callback, **metadata}.items() if v is not None}
        write_tensors(path, kind, merged, described)

    return act


def with_value(value: float) -> Callable[[Path], None]:
    """Put a value into the last weight of a model."""

    def act(path: Path) -> None:
        arrays, metadata = read_tensors(path, "model")
        last = {name: array.copy() for name, array in arrays.items()}
        last["decoder.output.weight"].flat[-1] = value
        write_tensors(path, "model", last, metadata)

    return act


ANY_FILE: dict[str, Callable[[Path], Any]] = {
    "torn in its header": lambda path: os.truncate(path, 60),
    "one byte short": lambda path: os.truncate(path, path.stat().st_size - 1),
    "a byte more": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "a zip": lambda path: path.write_bytes(b"PK\x03\x04" + bytes(500)),
    "a page": lambda path: path.write_text("<!doctype html><title>404</title>"),
    "newer format": test_resume.newer,
    "a bit flipped": lambda path: test_resume.flipped(path, -100),
    "another kind": lambda path: write_tensors(path, "checkpoint", {"x": np.zeros(2)}, {}),
}
BAD_MODELS = {
    **ANY_FILE,
    "another k": edited("model", latent_dim=3),
    "another width": edited("model", hidden=5),
    "no k": edited("model", latent_dim=None),
    "k is a word": edited("model", latent_dim="2"),
    "negative k": edited("model", latent_dim=-1),
    "unknown likelihood": edited("model", likelihood="poisson"),
    "a list for a likelihood": edited("model", likelihood=["bernoulli"]),
    "another likelihood": edited("model", likelihood="gaussian"),
    "no likelihood": edited("model", likelihood=None),
    "unknown binarisation": edited("model", binarisation="colour"),
    "no binarisation": edited("model", binarisation=None),
    "no seed": edited("model", seed=None),
    "a weight missing": edited("model", {"encoder.output.bias": None}),
    "a weight too many": edited("model", {"encoder.more.bias": np.zeros(2, np.float32)}),
    "another shape": edited("model", {"encoder.output.bias": np.zeros(3, np.float32)}),
    "nan": with_value(np.nan),
    "infinite": with_value(-np.inf),
}
BAD_SETS = {
    **ANY_FILE,
    "no images": edited("split", {"images": None}),
    "no labels": edited("split", {"labels": None}),
    "no fixed draw": edited("split", {"binary": None}),
    "too few labels": edited("split", {"labels": np.zeros(3, np.uint8)}),
    "another size": edited("split", {"images": np.zeros((200, 32, 32), np.uint8)}),
    "another type": edited("split", {"images": np.zeros((200, 28, 28), np.float32)}),
    "one image": edited(
        "split",
        {
            "images": np.zeros((1, 28, 28), np.uint8),
            "binary": np.zeros((1, 28, 28), np.uint8),
            "labels": np.zeros(1, np.uint8),
            "index": np.zeros(1, np.int64),
        },
    ),
}


def refused(stage: str, made: Path, bad: Path, output: Path) -> None:
    """See that a stage refuses a file in one line and writes nothing."""
    line = the_error(run_stage(stage, made, output), 1)
    assert line.startswith(f"{stage}: error: ")
    assert str(bad) in line or bad.name in line
    assert not output.exists()


@pytest.fixture
def damaged(whole, tmp_path) -> Path:
    """A copy of what the readers read."""
    copy = tmp_path / "copy"
    shutil.copytree(whole / "split", copy / "split")
    for name in ("model", "classifier"):
        shutil.copy(whole / name, copy / name)
    return copy


@pytest.mark.parametrize("how", BAD_MODELS)
@pytest.mark.parametrize("stage", READERS)
def test_a_bad_model_is_refused(stage, how, damaged, tmp_path):
    BAD_MODELS[how](damaged / "model")
    refused(stage, damaged, damaged / "model", tmp_path / "output")


@pytest.mark.parametrize("how", BAD_SETS)
@pytest.mark.parametrize("stage", ["evaluate", "reconstruct"])
def test_a_bad_set_is_refused(stage, how, damaged, tmp_path):
    BAD_SETS[how](damaged / "split" / "test")
    refused(stage, damaged, damaged / "split" / "test", tmp_path / "output")


@pytest.mark.parametrize("how", ANY_FILE)
@pytest.mark.parametrize("name", ["train", "validation"])
def test_a_bad_training_set_is_refused(name, how, damaged, tmp_path):
    ANY_FILE[how](damaged / "split" / name)
    refused("train", damaged, damaged / "split" / name, tmp_path / "output")


def first(count: int, path: Path) -> None:
    """Leave the first images of a set."""
    arrays, metadata = read_tensors(path, "split")
    write_tensors(path, "split", {name: array[:count] for name, array in arrays.items()}, metadata)


@pytest.mark.parametrize("binarisation", ["dynamic", "static", "none"])
@pytest.mark.parametrize("sizes", [(0, 100), (0, 0), (1, 100), (1, 0), (1, 1), (50, 1), (50, 0)])
def test_a_training_of_few_images(sizes, binarisation, damaged, tmp_path):
    """Fewer than a batch, one, none."""
    for name, size in zip(("train", "validation"), sizes, strict=True):
        first(size, damaged / "split" / name)
    output = tmp_path / "output"
    outcome = run_stage("train", damaged, output, "--binarisation", binarisation)
    if sizes[0]:
        assert outcome.code == 0, outcome.error
        assert {path.name for path in output.iterdir()} >= {"model"}
        return
    line = the_error(outcome, 1)
    assert f"{damaged / 'split' / 'train'}: a training set without images" in line
    assert not output.exists()


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("stage", ["evaluate", "reconstruct"])
def test_a_test_set_of_few_images(stage, size, damaged, tmp_path):
    first(size, damaged / "split" / "test")
    line = the_error(run_stage(stage, damaged, tmp_path / "output"), 1)
    assert "test set has" in line
    assert not (tmp_path / "output").exists()


# Never unpickled.


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def hostile(kind: str, path: Path) -> bytes:
    """A file that makes a folder when it is unpickled."""
    buffer = io.BytesIO()
    payload = Payload(path)
    match kind:
        case "pickle":
            pickle.dump(payload, buffer)
        case "torch":
            torch.save({"weight": payload}, buffer)
        case "old torch":
            torch.save(payload, buffer, _use_new_zipfile_serialization=False)
        case "numpy":
            np.save(buffer, np.array([payload], object), allow_pickle=True)
        case "numpy archive":
            np.savez(buffer, x=np.array([payload], object), allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["pickle", "torch", "old torch", "numpy", "numpy archive"])
def test_nothing_is_unpickled(kind, damaged, sets, undisturbed, tmp_path):
    marker = tmp_path / "unpickled"
    content = hostile(kind, marker)
    if kind == "pickle":  # it would work
        pickle.loads(content)
        marker.rmdir()
    for stage, flags in INPUTS.items():
        for flag in flags if stage not in ("split", "card") else ():
            bad = damaged / INPUTS[stage][flag]
            good = bad.read_bytes()
            bad.write_bytes(content)
            refused(stage, damaged, bad, tmp_path / "output")
            assert not marker.exists()
            bad.write_bytes(good)
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 3)
        test_resume.train(sets, tmp_path / "trained", *SHORT)
    (checkpoint,) = (tmp_path / "trained" / "checkpoints").iterdir()
    checkpoint.write_bytes(content)
    test_resume.refused(test_resume.train(sets, tmp_path / "trained", *SHORT), checkpoint)
    assert results(tmp_path / "trained") == undisturbed(*SHORT)
    assert not marker.exists()


def test_no_code_can_unpickle():
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"import pickle|allow_pickle|torch\.load|np\.load|joblib", text), path
