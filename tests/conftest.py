"""Fixtures and helpers that several test files share.

A few real images, as sets, as a mirror folder and as raw files; a small repository; stages that run
in this process.
"""

import gzip
import hashlib
import json
import logging
import os
import runpy
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pytest
import torch

import graph
from aevb.data import RAW_FILES, ImageSet, fixed_draw
from aevb.plumbing.params import Params
from graph import ROOT

SIZES = {"train": 600, "t10k": 200}


@cache
def first_images(name: str) -> np.ndarray:
    """The first images or labels of one of the bundled files."""
    size = SIZES[name.split("-")[0]]
    start, shape = (16, (size, 28, 28)) if "images" in name else (8, (size,))
    with gzip.open(ROOT / "data" / "mnist" / f"{name}.gz") as file:
        content = file.read(start + int(np.prod(shape)))
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def as_idx(array: np.ndarray) -> bytes:
    """An array of bytes in the IDX format."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


@pytest.fixture(scope="session")
def small_sets() -> tuple[ImageSet, ImageSet, ImageSet]:
    """300 training, 100 validation and 100 test images."""
    images, labels = first_images(RAW_FILES[0]), first_images(RAW_FILES[1])
    metadata = {"name": "mnist", "seed": 0}
    kept, held_out, rest = np.split(np.arange(500), [300, 400])
    return (
        ImageSet(images[kept], labels[kept], kept, None, metadata),
        *(
            ImageSet(
                images[index], labels[index], index, fixed_draw(images[index], name, 0), metadata
            )
            for name, index in (("validation", held_out), ("test", rest))
        ),
    )


def write_mirror(folder: Path) -> Path:
    """A folder with MNIST's four .gz files, cut to 600 training and 200 test images."""
    folder.mkdir()
    for name in RAW_FILES:
        (folder / f"{name}.gz").write_bytes(gzip.compress(as_idx(first_images(name)), 1))
    return folder


@pytest.fixture
def mnist_subset(tmp_path: Path) -> Path:
    """A mirror folder of this test's own."""
    return write_mirror(tmp_path / "mnist")


@pytest.fixture(scope="session")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirror folder that all tests share; it is only read."""
    return write_mirror(tmp_path_factory.mktemp("mirror") / "mnist")


def write_raw(folder: Path) -> Path:
    """The same images as the download stage leaves them."""
    folder.mkdir()
    for name in RAW_FILES:
        (folder / name).write_bytes(as_idx(first_images(name)))
    (folder / "dataset.json").write_text(json.dumps({"name": "mnist", "sha256": {}}))
    return folder


@pytest.fixture
def raw_subset(tmp_path: Path) -> Path:
    """A folder with the unpacked files of the subset and dataset.json."""
    return write_raw(tmp_path / "raw")


def digests(mirror: Path) -> list[str]:
    """SHA-256 of the unpacked files of a mirror."""
    files = [gzip.decompress((mirror / f"{name}.gz").read_bytes()) for name in RAW_FILES]
    return [hashlib.sha256(file).hexdigest() for file in files]


SMALL: dict[str, dict[str, Any]] = {
    "split": {"validation_size": 100},
    "model": {"hidden": 16},
    "train": {"batch_size": 50, "max_epochs": 2, "device": "cpu"},
    "evaluate": {"iwae_k": 3},
    "sample": {"rows": 2, "columns": 3},
    "reconstruct": {"images": 5},
    "iwae": {"images": 2, "samples": 10},
    "ais": {"images": 2, "chains": 1, "temperatures": 2, "leapfrog": 1, "iwae_k": 1},
    "gradient_variance": {"images": 2, "samples": 2},
    "latents": {"samples": 1},
    "traverse": {"grid": 2, "dimensions": 1, "steps": 2, "pairs": 1},
    "classifier": {"epochs": 1},
    "sample_quality": {"images": 60},
    "runs": {"latent_dims": [2], "seeds": [0]},
}
"""Parameters with which no stage takes longer than its imports."""


def small(mirror: Path) -> graph.Values:
    """The default parameters with small values and the images of a mirror folder."""
    data = {"mirror": str(mirror), "sha256": digests(mirror)}
    defaults: graph.Values = Params().model_dump()
    return {name: section | (SMALL | {"data": data})[name] for name, section in defaults.items()}


@pytest.fixture(scope="session")
def origin(tmp_path_factory: pytest.TempPathFactory, mirror: Path) -> Path:
    """A git repository with the files of this working tree and small parameters."""
    tree = tmp_path_factory.mktemp("origin") / "tree"
    files = graph.run("git ls-files --cached --others --exclude-standard -z", ROOT)
    for name in filter(None, files.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    graph.run("git init --quiet", tree)
    graph.write_values(tree, small(mirror))
    graph.commit(tree, "all files")
    return tree


class Outcome(NamedTuple):
    """What a command left: its exit code and what it printed."""

    code: object
    out: str
    error: str


def captured(act: Callable[[], object], *words: object) -> Outcome:
    """The outcome of a call with these words as command line; this process stays as it was."""
    logger, environment = logging.getLogger("aevb"), dict(os.environ)
    handlers, threads = list(logger.handlers), torch.get_num_threads()
    out, error = StringIO(), StringIO()
    code: object = 0
    try:
        with (
            mock.patch.object(sys, "argv", [str(word) for word in words]),
            redirect_stdout(out),
            redirect_stderr(error),
        ):
            act()
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        logger.handlers[:] = handlers
        os.environ.clear()
        os.environ.update(environment)
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
    return Outcome(code, out.getvalue(), error.getvalue())


def run(stage: str, *words: object) -> Outcome:
    """A stage's script, run in this process since importing torch takes seconds."""
    script = str(ROOT / "src" / f"{stage}.py")
    return captured(lambda: runpy.run_path(script, run_name="__main__"), script, *words)


def the_error(outcome: Outcome, code: int) -> str:
    """The one line that says what is wrong; nothing comes after it."""
    lines = outcome.error.splitlines()
    assert outcome.code == code, outcome.error
    assert outcome.out == ""
    assert "Traceback" not in outcome.error
    assert [line for line in lines if "error" in line.lower()] == lines[-1:]
    return lines[-1]
