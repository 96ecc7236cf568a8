"""Full disks, read-only folders, unusable inputs, for every stage, and locks."""

import errno
import fcntl
import io
import os
import pickle
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from time import sleep
from typing import Any

from aevb.data import read_set
from aevb.files import InputError, read_tensors, write_tensors
from aevb.model import read_model
from aevb.plumbing.checkpoints import exclusive
from repository import contents
from stages import STAGES, edit_tensors, error_line, run_stage

import numpy as np
import pytest
import torch

# Outputs that cannot be written.


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A disk of 2 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"mount failed: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("stage", STAGES)
def test_a_disk_that_is_full_or_read_only(stage, workspace, disk):
    """The error is one line, every file on the disk is whole, and the next run completes."""
    output = disk / "output"

    def made() -> dict[str, bytes]:
        shutil.rmtree(output / "checkpoints", ignore_errors=True)
        return contents(output, ".")

    assert run_stage(stage, workspace, output).code == 0
    good = made()
    assert good.items() <= contents(workspace, ".").items()  # a stage repeats its bytes
    for name in good:
        (output / name).write_bytes(b"old")
    with (disk / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    line = error_line(run_stage(stage, workspace, output, "--log", disk / "log"))
    assert line.startswith(f"{stage.split()[0]}: error: ")
    assert "No space left on device" in line
    assert str(output) in line
    left = made()
    assert left.keys() == good.keys()
    assert all(content in (b"old", good[name]) for name, content in left.items())

    (disk / "filler").unlink()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert str(output) in error_line(run_stage(stage, workspace, output))
    assert made() == left
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert run_stage(stage, workspace, output).code == 0
    assert made() == good


# Inputs that cannot be used.


class Payload:
    """Creates a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def damage(path: Path, marker: Path) -> Iterator[None]:
    """Make a file unusable, in one way after another; `marker` is made if it is unpickled."""
    content = path.read_bytes()
    torch.save({"weight": Payload(marker)}, by_torch := io.BytesIO())
    half = content[: len(content) // 2]
    for bad in (b"", half, pickle.dumps(Payload(marker)), by_torch.getvalue()):
        path.write_bytes(bad)
        yield
    path.unlink()
    yield
    path.mkdir()
    yield
    path.rmdir()
    write_tensors(path, "another kind", {"x": np.zeros(2)}, {})
    yield
    path.write_bytes(content)


INPUTS = [
    *((stage, file) for stage in STAGES for file in STAGES[stage].inputs.values()),
    ("split", "raw/t10k-labels-idx1-ubyte"),
    ("compare", "metrics/k2-seed0.json"),
    ("compare", "history/k2-seed0.csv"),
    ("compare", "evaluation/k2-seed0.safetensors"),
    ("compare", "samples/k2-seed0.safetensors"),
]
FOLDERS = ("raw", "")


@pytest.mark.parametrize(("stage", "file"), [case for case in INPUTS if case[1] not in FOLDERS])
def test_a_bad_input_is_one_line_and_nothing_is_written(stage, file, workspace_copy, tmp_path):
    """In particular nothing is unpickled."""
    path = workspace_copy / file
    output, marker = tmp_path / "output", tmp_path / "unpickled"
    for _ in damage(path, marker):
        line = error_line(run_stage(stage, workspace_copy, output))
        assert line.startswith(f"{stage.split()[0]}: error: ")
        assert str(path) in line
        assert not output.exists()
        assert not marker.exists()
    assert run_stage(stage, workspace_copy, output).code == 0


BIAS = "encoder.output.bias"
BAD_MODELS: list[dict[str, Any]] = [
    {"latent_dim": None},
    {"latent_dim": "2"},
    {"latent_dim": -1},
    {"likelihood": ["bernoulli"]},
    {"likelihood": "gaussian"},
    {"binarisation": "colour"},
    {"seed": None},
    {BIAS: None},
    {BIAS: np.full(4, -np.inf, np.float32)},
]
BAD_SETS: list[dict[str, Any]] = [
    {"images": None},
    {"labels": np.zeros(3, np.uint8)},
    {"labels": np.zeros(200, np.int64)},
    {"index": np.zeros(3, np.int64)},
    {"binary": np.zeros((200, 28, 28), np.float32)},
    {"images": np.zeros((200, 32, 32), np.uint8)},
    {"images": np.zeros((200, 28, 28), np.float32)},
    {"seed": None},
    {"set": "validation"},
]


@pytest.mark.parametrize(
    ("read", "file", "kind", "mistakes"),
    [
        (read_model, "model", "model", BAD_MODELS),
        (partial(read_set, name="test"), "split/test", "split", BAD_SETS),
    ],
)
def test_a_file_with_wrong_content_is_refused(read, file, kind, mistakes, workspace, tmp_path):
    for entries in mistakes:
        path = Path(shutil.copy(workspace / file, tmp_path / "file"))
        read(path)
        edit_tensors(path, kind, **entries)
        with pytest.raises(InputError) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


def cut(path: Path, count: int) -> None:
    """Leave the first images of a set."""
    arrays, _ = read_tensors(path, "split")
    edit_tensors(path, "split", **{name: array[:count] for name, array in arrays.items()})


def test_a_training_with_few_images(workspace_copy, tmp_path):
    """Fewer than a batch, one, none."""
    for binarisation, sizes in {"dynamic": (50, 0), "static": (1, 1), "none": (0, 0)}.items():
        for name, size in zip(("train", "validation"), sizes, strict=True):
            cut(workspace_copy / "split" / name, size)
        output = tmp_path / binarisation
        outcome = run_stage("train", workspace_copy, output, "--binarisation", binarisation)
        assert (outcome.code == 0) == (sizes[0] > 0), outcome.error
        assert (output / "model").exists() == (sizes[0] > 0)
    assert " images" in error_line(outcome)


def test_an_evaluation_needs_two_images(workspace_copy, tmp_path):
    cut(workspace_copy / "split" / "test", 1)
    assert " images" in error_line(run_stage("evaluate", workspace_copy, tmp_path / "output"))
    assert not (tmp_path / "output").exists()


# Locks.


def alone(path: Path) -> AbstractContextManager[None]:
    """Lock a file, or wait for 0.3 s for a process that writes no checkpoint."""
    return exclusive(path, path.with_name("checkpoint"), 0.3)


def test_a_lock_is_held_by_one_at_a_time(tmp_path):
    path = tmp_path / "new" / "file"
    with alone(path), alone(path.with_name("another")):
        for _ in range(2):  # being refused leaves it locked
            with pytest.raises(InputError, match=f"process {os.getpid()} "), alone(path):
                pass
    assert not list(path.parent.iterdir())
    with pytest.raises(ZeroDivisionError), alone(path):
        raise ZeroDivisionError
    with alone(path):
        pass


def test_a_process_waits_while_the_holder_of_a_lock_writes_checkpoints(tmp_path):
    path, order = tmp_path / "file", []

    def wait() -> None:
        with alone(path):
            order.append("second")

    second = Thread(target=wait)
    with alone(path):
        second.start()
        for number in range(10):
            path.with_name("checkpoint").touch()
            os.utime(path.with_name("checkpoint"), (number, number))
            sleep(0.1)
        order.append("first")
    second.join()
    assert order == ["first", "second"]


def test_a_lock_file_that_was_removed_is_no_lock(tmp_path, monkeypatch):
    """The previous holder may remove the file after the next process has opened it."""
    path = tmp_path / "file"
    lock, calls = fcntl.flock, []

    def late(*arguments: Any) -> None:
        if not calls:
            path.with_name(".file.lock").unlink()
        calls.append(arguments)
        lock(*arguments)

    monkeypatch.setattr(fcntl, "flock", late)
    with alone(path):
        assert len(calls) == 2
        assert path.with_name(".file.lock").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_lock_file_of_another_user_blocks_only_while_it_is_locked():
    nobody = 65534
    with TemporaryDirectory() as name:
        os.chmod(name, 0o1777)  # nobody cannot remove the file
        path = Path(name, "file")
        lock = path.with_name(".file.lock")
        lock.touch(0o644)
        for locked in (True, False):
            with lock.open() as file:
                fcntl.flock(file, fcntl.LOCK_EX if locked else fcntl.LOCK_UN)
                os.seteuid(nobody)
                try:
                    with pytest.raises(InputError) if locked else nullcontext(), alone(path):
                        pass
                finally:
                    os.seteuid(0)


def test_a_file_system_without_locks_is_reported(tmp_path, monkeypatch, caplog):
    def unsupported(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with alone(tmp_path / "file"):
        assert "start no second training" in caplog.text
    assert not list(tmp_path.iterdir())
