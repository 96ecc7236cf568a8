"""A small experiment in exact arithmetic has the published bytes on every machine."""

import hashlib

import pytest

from stages import run_stage

PUBLISHED = {
    "split/train": "d7a2d1417663e1e5",
    "split/test": "74458b4350ed86c2",
    "model": "3a12fb0277cf2e32",
    "history/k2-seed0.csv": "8721b69623765029",
    "metrics/k2-seed0.json": "7b4a90627de33503",
    "evaluation/k2-seed0.safetensors": "6f78f1e597f4df8f",
    "samples/k2-seed0.safetensors": "982faa0e1a1fcafe",
    "reconstructions/k2-seed0.safetensors": "41fd25496f29c5cf",
    "comparison/table.csv": "4deead9164fbc7e9",
    "comparison/discussion.md": "c61f1ae6b12fcc2c",
}


@pytest.fixture(scope="module")
def experiment(workspace, tmp_path_factory):
    """A folder with the results of a training of 50 steps."""
    folder = tmp_path_factory.mktemp("experiment")
    (folder / "split").symlink_to(workspace / "split")
    words = {"train": ["--max_epochs", 5]}
    for stage in ("train", "evaluate", "sample", "reconstruct", "compare"):
        outcome = run_stage(stage, folder, folder, *words.get(stage, []))
        assert outcome.code == 0, outcome.error
    return folder


@pytest.mark.parametrize("path", PUBLISHED)
def test_a_file_has_the_published_bytes(experiment, path):
    assert hashlib.sha256((experiment / path).read_bytes()).hexdigest()[:16] == PUBLISHED[path]
