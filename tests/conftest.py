"""All fixtures: a few real images in several forms, and what the stages and engines make of them.

Fixtures with a scope of `session` are shared and must not be altered; copy them first.
"""

import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from aevb.data import RAW_FILES, ImageSet, fixed_draw, write_set
from graph import ROOT, run
from repository import clone, small_repository
from stages import SETS, STAGES, call_main, run_stage

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


def write_mirror(folder: Path) -> Path:
    """MNIST's four .gz files, cut to 600 training and 200 test images."""
    folder.mkdir(parents=True)
    for name in RAW_FILES:
        (folder / f"{name}.gz").write_bytes(gzip.compress(as_idx(first_images(name)), 1, mtime=0))
    return folder


def write_raw(folder: Path) -> Path:
    """The same images as the download stage writes them."""
    folder.mkdir(parents=True)
    for name in RAW_FILES:
        (folder / name).write_bytes(as_idx(first_images(name)))
    (folder / "dataset.json").write_text(json.dumps({"name": "mnist", "sha256": {}}))
    return folder


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


@pytest.fixture(scope="session")
def set_files(small_sets, tmp_path_factory) -> Path:
    """A folder with the files `train`, `validation` and `test` of the small sets."""
    folder = tmp_path_factory.mktemp("sets")
    for name, images in zip(SETS, small_sets, strict=True):
        write_set(folder / name, images)
    return folder


@pytest.fixture
def mnist_subset(tmp_path: Path) -> Path:
    """A mirror folder of 600 training and 200 test images."""
    return write_mirror(tmp_path / "mnist")


@pytest.fixture
def raw_subset(tmp_path: Path) -> Path:
    """A folder with the unpacked files of the subset and dataset.json."""
    return write_raw(tmp_path / "raw")


@pytest.fixture(scope="session")
def workspace(tmp_path_factory) -> Path:
    """What all stages make of the subset, run in this process; `stages.STAGES` says where."""
    folder = tmp_path_factory.mktemp("workspace")
    write_raw(folder / "raw")
    for stage in STAGES:
        outcome = run_stage(stage, folder, folder)
        assert outcome.code == 0, outcome.error
    return folder


@pytest.fixture
def workspace_copy(workspace, tmp_path) -> Path:
    """A copy of the workspace, to be damaged."""
    return shutil.copytree(workspace, tmp_path / "copy")


@pytest.fixture(scope="session")
def mirror(tmp_path_factory) -> Path:
    """A mirror folder of 600 training and 200 test images, for clones."""
    return write_mirror(tmp_path_factory.mktemp("mirror") / "mnist")


@pytest.fixture(scope="session")
def origin(mirror, tmp_path_factory) -> Path:
    """A git repository with the files of this working tree and small parameters."""
    return small_repository(tmp_path_factory.mktemp("origin") / "tree", mirror)


@pytest.fixture(scope="session")
def by_snakemake(origin, tmp_path_factory) -> Path:
    """A clone in which Snakemake has made everything."""
    tree = clone(origin, tmp_path_factory.mktemp("snakemake") / "tree")
    run("snakemake --cores 2", tree)
    return tree


@pytest.fixture(scope="session")
def by_dvc(origin, tmp_path_factory) -> Path:
    """A clone in which DVC has made everything."""
    tree = clone(origin, tmp_path_factory.mktemp("dvc") / "tree")
    run("dvc repro", tree)
    return tree


@pytest.fixture(scope="session")
def untrained() -> Callable:
    """Makes a small VAE with its initial weights."""
    from aevb.model import VAE  # here, since few tests need it
    from aevb.rng import Random

    def make(latent_dim: int = 2, hidden: int = 20, likelihood: str = "bernoulli") -> VAE:
        model = VAE(latent_dim, hidden, likelihood)
        model.initialise(Random("test"), np.full(784, 0.3))
        return model.eval().requires_grad_(False)

    return make


@pytest.fixture
def run_research() -> Iterator[Callable[..., None]]:
    """Runs a stage of src/research.py in this process, given its name and the words after it."""
    import torch

    def run(stage: str, *words: object) -> None:
        call_main(import_module(f"aevb.research.{stage}").main, *words)

    with mock.patch.dict(os.environ):
        yield run
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def research_inputs(tmp_path: Path, small_sets) -> Callable[..., list[str]]:
    """Writes a model and the sets, and returns the flags that name them: `--model PATH …`."""
    from aevb.data import write_set
    from aevb.model import write_model

    def write(model, *sets: str) -> list[str]:
        write_model(tmp_path / "model", model, {"seed": 4, "binarisation": "dynamic"})
        for name, images in zip(("train", "validation", "test"), small_sets, strict=True):
            write_set(tmp_path / name, images)
        return [word for name in ("model", *sets) for word in (f"--{name}", f"{tmp_path / name}")]

    return write


@pytest.fixture
def scored(tmp_path: Path, research_inputs, run_research) -> Callable[..., tuple[dict, dict]]:
    """Runs a stage of src/research.py on a model and returns its metrics and arrays.

    A second run, called with another number of threads, has to write the same bytes.
    """
    import torch
    from threadpoolctl import threadpool_limits

    from aevb.files import read_json, read_tensors

    def run(stage: str, model, *words: object, sets: tuple[str, ...] = ("test",)):
        content = []
        for threads in (1, 2):
            files = tmp_path / f"{threads}/metrics.json", tmp_path / f"{threads}/arrays"
            torch.set_num_threads(threads)
            with threadpool_limits(threads):
                inputs = research_inputs(model, *sets)
                run_research(stage, *inputs, "--metrics", files[0], "--arrays", files[1], *words)
            content.append([file.read_bytes() for file in files])
        assert content[0] == content[1]
        return read_json(files[0]), read_tensors(files[1], stage)[0]

    return run
