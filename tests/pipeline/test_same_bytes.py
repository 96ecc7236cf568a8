"""A small experiment in exact arithmetic has the published bytes on every machine."""

import hashlib

from stages import run_stage

import pytest

PUBLISHED = {
    "split/train": "0e146aa862f89e23",
    "split/test": "8bcd2af1a3e494b3",
    "model": "84ff0daf98ad4e15",
    "history/k2-seed0.csv": "876db4b8e24efc57",
    "metrics/k2-seed0.json": "3e6d76c3f29f9496",
    "evaluation/k2-seed0.safetensors": "3947829378e8af1e",
    "samples/k2-seed0.safetensors": "bc749f7f65a84fa3",
    "reconstructions/k2-seed0.safetensors": "fc8b819feb3e6e01",
    "comparison/table.csv": "851c1e2a627e08d1",
    "comparison/discussion.md": "d42d1a8be9dcda45",
    "comparison/record.json": "f6e6c7f3f03d1d49",
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
