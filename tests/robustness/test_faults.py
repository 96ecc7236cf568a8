"""Full disks, read-only folders, unusable inputs, several processes at once, for every stage."""

import errno
import fcntl
import io
import os
import pickle
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aevb.data import read_set
from aevb.files import InputError, read_tensors, write_tensors
from aevb.model import read_model
from aevb.plumbing.checkpoints import exclusive
from graph import ROOT
from processes import running
from repository import contents
from stages import STAGES, edit_tensors, error_line, run_stage, stage_words

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
    assert run_stage(stage, workspace, output).code == 0
    good = contents(output, ".")
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
    left = contents(output, ".")
    assert left.keys() == good.keys()
    assert all(content in (b"old", good[name]) for name, content in left.items())

    (disk / "filler").unlink()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert str(output) in error_line(run_stage(stage, workspace, output))
    assert contents(output, ".") == left
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert run_stage(stage, workspace, output).code == 0
    assert contents(output, ".") == good


# Inputs that cannot be used.


class Payload:
    """Creates a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def damage(path: Path, marker: Path) -> Iterator[None]:
    """Make a file unusable, in one way after another; `marker` is made if it is unpickled."""
    content, payload = path.read_bytes(), Payload(marker)
    torch.save({"weight": payload}, by_torch := io.BytesIO())
    np.save(by_numpy := io.BytesIO(), np.array([payload], object), allow_pickle=True)
    for bad in (
        b"",
        content[: len(content) // 2],
        b"<!doctype html><title>404</title>",
        pickle.dumps(payload),
        by_torch.getvalue(),
        by_numpy.getvalue(),
    ):
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


RUN = "k2-seed0"
FILES = [
    *((stage, file) for stage in STAGES for file in STAGES[stage].inputs.values()),
    ("split", "raw/t10k-labels-idx1-ubyte"),
    ("compare", f"metrics/{RUN}.json"),
    ("compare", f"history/{RUN}.csv"),
    *(("compare", f"{kind}/{RUN}.safetensors") for kind in ("evaluation", "samples")),
]
FOLDERS = ("raw", "")


@pytest.mark.parametrize(
    ("stage", "file"), [(stage, file) for stage, file in FILES if file not in FOLDERS]
)
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


def test_no_code_can_unpickle():
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"import pickle|allow_pickle|torch\.load|np\.load|joblib", text), path


BIAS = "encoder.output.bias"
BAD_MODELS: dict[str, dict[str, Any]] = {
    "another k": {"latent_dim": 3},
    "no k": {"latent_dim": None},
    "text for k": {"latent_dim": "2"},
    "negative k": {"latent_dim": -1},
    "list for a likelihood": {"likelihood": ["bernoulli"]},
    "another likelihood": {"likelihood": "gaussian"},
    "unknown binarisation": {"binarisation": "colour"},
    "no seed": {"seed": None},
    "missing weight": {BIAS: None},
    "additional weight": {"more": np.zeros(2, np.float32)},
    "another shape": {BIAS: np.zeros(3, np.float32)},
    "infinite weight": {BIAS: np.full(4, -np.inf, np.float32)},
}
BAD_SETS: dict[str, dict[str, Any]] = {
    "no images": {"images": None},
    "too few labels": {"labels": np.zeros(3, np.uint8)},
    "another size": {"images": np.zeros((200, 32, 32), np.uint8)},
    "another type": {"images": np.zeros((200, 28, 28), np.float32)},
    "no seed": {"seed": None},
}
UNUSABLE = [
    *(pytest.param(read_model, "model", "model", x, id=f"model: {how}")
      for how, x in BAD_MODELS.items()),
    *(pytest.param(read_set, "split/test", "split", x, id=f"set: {how}")
      for how, x in BAD_SETS.items()),
]  # fmt: skip


@pytest.mark.parametrize(("read", "file", "kind", "entries"), UNUSABLE)
def test_a_file_with_unusable_content_is_refused(read, file, kind, entries, workspace, tmp_path):
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


@pytest.mark.parametrize("binarisation", ["dynamic", "static", "none"])
@pytest.mark.parametrize("sizes", [(1, 100), (1, 0), (1, 1), (50, 0)])
def test_a_training_with_few_images(sizes, binarisation, workspace_copy, tmp_path):
    """Fewer than a batch, one, none."""
    for name, size in zip(("train", "validation"), sizes, strict=True):
        cut(workspace_copy / "split" / name, size)
    outcome = run_stage("train", workspace_copy, tmp_path, "--binarisation", binarisation)
    assert outcome.code == 0, outcome.error
    read_model(tmp_path / "model")


@pytest.mark.parametrize(
    ("stage", "name", "size", "message"),
    [
        ("train", "train", 0, "no training images"),
        ("evaluate", "test", 0, "test set has"),
        ("evaluate", "test", 1, "test set has"),
        ("reconstruct", "test", 1, "test set has"),
    ],
)
def test_too_few_images(stage, name, size, message, workspace_copy, tmp_path):
    cut(workspace_copy / "split" / name, size)
    assert message in error_line(run_stage(stage, workspace_copy, tmp_path / "output"))
    assert not (tmp_path / "output").exists()


# Several processes at once.


def test_two_processes_leave_the_bytes_of_one(workspace, tmp_path):
    """A stage without a lock: whatever is visible is whole at every moment."""
    path, log = tmp_path / "output", tmp_path / "log"
    expected = contents(workspace, "split")
    command = [sys.executable, str(ROOT / "src" / "split.py")]
    command += stage_words("split", workspace, path)
    with running(command, tmp_path, log) as one, running(command, tmp_path, log) as other:
        while None in (one.poll(), other.poll()):
            for file in path.rglob("[!.]*"):
                if file.is_file():
                    assert file.read_bytes() == expected[str(file.relative_to(path))]
            time.sleep(0.001)
        assert (one.returncode, other.returncode) == (0, 0), log.read_text()
    assert contents(path, ".") == expected


def test_a_lock_is_held_by_one_at_a_time(tmp_path):
    path = tmp_path / "new" / "file"
    for _ in range(2):
        with exclusive(path):
            for _ in range(2):  # being refused leaves it locked
                with pytest.raises(InputError, match=f"process {os.getpid()} "), exclusive(path):
                    pass
        assert not list(path.parent.iterdir())
    with pytest.raises(ZeroDivisionError), exclusive(path):
        raise ZeroDivisionError
    with exclusive(path):
        pass


def test_a_lock_file_that_was_removed_is_no_lock(tmp_path, monkeypatch):
    """The previous holder may remove the file after the next process has opened it."""
    path = tmp_path / "file"
    lock = fcntl.flock

    def late(*arguments: Any) -> None:
        (tmp_path / ".file.lock").unlink()
        lock(*arguments)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(InputError, match="just finished it; run again"), exclusive(path):
        pass
    monkeypatch.undo()
    with exclusive(path):
        pass


def test_a_file_system_without_locks_is_reported(tmp_path, monkeypatch, caplog):
    def unsupported(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with exclusive(tmp_path / "file"):
        assert "start no second training" in caplog.text
    assert not list(tmp_path.iterdir())
