"""All fixtures: a few real images in several forms, and what the stages and engines make of them.

Fixtures with a scope of `session` are shared and must not be altered; copy them first.
"""

import gzip
import json
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

from aevb.data import RAW_FILES, ImageSet, fixed_draw, write_set
from aevb.files import read_json, read_tensors, sha256
from aevb.model import VAE, write_model
from aevb.rng import Random
from graph import ROOT, copy_tree, dvc_graph, run, write_values
from repository import clone, copy, run_job, small_repository, small_values
from stages import SETS, STAGES, run_or_raise, run_stage

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

for name in ("MAKEFLAGS", "MAKELEVEL"):  # `make test` runs these tests, and they run make
    os.environ.pop(name, None)

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
    folder.mkdir(exist_ok=True)
    for name in RAW_FILES:
        (folder / f"{name}.gz").write_bytes(gzip.compress(as_idx(first_images(name)), 1, mtime=0))
    return folder


def write_raw(folder: Path) -> Path:
    """The same images as the download stage writes them."""
    folder.mkdir(parents=True)
    for name in RAW_FILES:
        (folder / name).write_bytes(as_idx(first_images(name)))
    digests = {name: sha256(folder / name) for name in RAW_FILES}
    (folder / "dataset.json").write_text(json.dumps({"name": "mnist", "sha256": digests}))
    return folder


@pytest.fixture(scope="session")
def small_sets() -> tuple[ImageSet, ImageSet, ImageSet]:
    """300 training, 100 validation and 100 test images."""
    images, labels = first_images(RAW_FILES[0]), first_images(RAW_FILES[1])
    metadata = {name: {"name": "mnist", "seed": 0, "set": name} for name in SETS}
    kept, held_out, rest = np.split(np.arange(500), [300, 400])
    return (
        ImageSet(images[kept], labels[kept], kept, None, metadata["train"]),
        *(
            ImageSet(
                images[index],
                labels[index],
                index,
                fixed_draw(images[index], name, 0),
                metadata[name],
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
    """A folder with MNIST's four .gz files, cut to 600 training and 200 test images."""
    return write_mirror(tmp_path_factory.mktemp("mirror"))


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
def finished(mirror, tmp_path_factory) -> Path:
    """The experiment with k = 2 and 3: the jobs that DVC declares, run in this process."""
    tree = copy_tree(tmp_path_factory.mktemp("finished") / "tree")
    write_values(tree, small_values(mirror, runs={"latent_dims": [2, 3]}))
    for job in dvc_graph(tree).values():
        run_job(job, tree)
    return tree


@pytest.fixture
def finished_copy(finished, tmp_path) -> Path:
    """A copy of the finished experiment, to be damaged."""
    return copy(finished, tmp_path)


@pytest.fixture(scope="session")
def untrained() -> Callable:
    """Makes a small VAE with its initial weights."""

    def make(latent_dim: int = 2, hidden: int = 20, likelihood: str = "bernoulli") -> VAE:
        model = VAE(latent_dim, hidden, likelihood)
        model.initialise(Random("test", 9), np.full(784, 0.3))
        return model.eval().requires_grad_(False)

    return make


@pytest.fixture
def run_research() -> Callable[..., None]:
    """Runs a stage of src/research.py in this process, given its name and the words after it."""
    return lambda stage, *words: run_or_raise(f"research {stage}", *words)


@pytest.fixture
def research_inputs(tmp_path: Path, set_files: Path) -> Callable[..., list[str]]:
    """Writes a model and returns the flags that name it and some sets: `--model PATH …`."""

    def write(model, *sets: str) -> list[str]:
        metadata = {"seed": 4, "binarisation": "dynamic", "data": {"name": "mnist", "seed": 0}}
        write_model(tmp_path / "model", model, metadata)
        paths = {"model": tmp_path / "model", **{name: set_files / name for name in sets}}
        return [word for name, path in paths.items() for word in (f"--{name}", str(path))]

    return write


@pytest.fixture
def scored(tmp_path: Path, research_inputs, run_research) -> Callable[..., tuple[dict, dict]]:
    """Runs a stage of src/research.py on a model and returns its metrics and arrays.

    A second run, called with another number of threads, has to write the same bytes.
    """

    def run(stage: str, model, *words: object, sets: tuple[str, ...] = ("test",)):
        content = []
        for threads in (1, 2):
            files = tmp_path / f"{threads}/metrics.json", tmp_path / f"{threads}/arrays"
            torch.set_num_threads(threads)
            with threadpool_limits(threads):
                inputs = research_inputs(model, *sets)
                run_research(stage, *inputs, "--metrics", files[0], "--arrays", files[1], *words)
            content.append([file.read_bytes() for file in files])
        torch.set_num_threads(1)
        assert content[0] == content[1]
        return read_json(files[0]), read_tensors(files[1], stage)[0]

    return run
