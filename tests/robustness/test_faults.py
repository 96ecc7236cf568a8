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
from collections.abc import Callable, Iterator
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
from stages import STAGES, error_line, run_stage, stage_words

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


def edited(kind: str, **entries: Any) -> Callable[[Path], None]:
    """Write a file again with other arrays or metadata; None leaves one out."""

    def act(path: Path) -> None:
        arrays, metadata = read_tensors(path, kind)
        for name, value in entries.items():
            place: dict[str, Any] = metadata if name in metadata else arrays
            place.pop(name, None)
            if value is not None:
                place[name] = value
        write_tensors(path, kind, arrays, metadata)

    return act


BIAS = "encoder.output.bias"
BAD_MODELS = {
    "another k": edited("model", latent_dim=3),
    "no k": edited("model", latent_dim=None),
    "text for k": edited("model", latent_dim="2"),
    "negative k": edited("model", latent_dim=-1),
    "list for a likelihood": edited("model", likelihood=["bernoulli"]),
    "another likelihood": edited("model", likelihood="gaussian"),
    "unknown binarisation": edited("model", binarisation="colour"),
    "no seed": edited("model", seed=None),
    "missing weight": edited("model", **{BIAS: None}),
    "additional weight": edited("model", more=np.zeros(2, np.float32)),
    "another shape": edited("model", **{BIAS: np.zeros(3, np.float32)}),
    "infinite weight": edited("model", **{BIAS: np.full(4, -np.inf, np.float32)}),
}
BAD_SETS = {
    "no images": edited("split", images=None),
    "too few labels": edited("split", labels=np.zeros(3, np.uint8)),
    "another size": edited("split", images=np.zeros((200, 32, 32), np.uint8)),
    "another type": edited("split", images=np.zeros((200, 28, 28), np.float32)),
    "no seed": edited("split", seed=None),
}


@pytest.mark.parametrize(
    ("read", "name", "act"),
    [
        *(pytest.param(read_model, "model", act, id=how) for how, act in BAD_MODELS.items()),
        *(pytest.param(read_set, "split/test", act, id=how) for how, act in BAD_SETS.items()),
    ],
)
def test_a_file_with_unusable_content_is_refused(read, name, act, workspace, tmp_path):
    path = tmp_path / "file"
    shutil.copy(workspace / name, path)
    read(path)
    act(path)
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def cut(path: Path, count: int) -> None:
    """Leave the first images of a set."""
    arrays, metadata = read_tensors(path, "split")
    write_tensors(path, "split", {name: array[:count] for name, array in arrays.items()}, metadata)


@pytest.mark.parametrize("binarisation", ["dynamic", "static", "none"])
@pytest.mark.parametrize("sizes", [(0, 100), (1, 100), (1, 0), (1, 1), (50, 0)])
def test_a_training_with_few_images(sizes, binarisation, workspace_copy, tmp_path):
    """Fewer than a batch, one, none."""
    for name, size in zip(("train", "validation"), sizes, strict=True):
        cut(workspace_copy / "split" / name, size)
    output = tmp_path / "output"
    outcome = run_stage("train", workspace_copy, output, "--binarisation", binarisation)
    if sizes[0]:
        assert outcome.code == 0, outcome.error
        read_model(output / "model")
    else:
        line = error_line(outcome)
        assert f"{workspace_copy / 'split' / 'train'}: has no training images" in line
        assert not output.exists()


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("stage", ["evaluate", "reconstruct"])
def test_a_test_set_of_few_images(stage, size, workspace_copy, tmp_path):
    cut(workspace_copy / "split" / "test", size)
    line = error_line(run_stage(stage, workspace_copy, tmp_path / "output"))
    assert "test set has" in line
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
