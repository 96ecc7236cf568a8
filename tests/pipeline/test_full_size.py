"""At full size, too, the published results are reproduced byte by byte, whatever else differs.

It takes twenty minutes, on the kind of CPU that has computed them: make full-test.
"""

import random
import subprocess
from pathlib import Path

import graph
from graph import ROOT, run
from processes import kill_at_random, start, steps_saved
from repository import clone

import pytest

pytestmark = pytest.mark.full

STEPS = 196
"""Of a training: 40 epochs."""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh clone of the last commit, and enough time."""
    monkeypatch.setattr(graph, "TIMEOUT", 3600)
    return clone(ROOT, tmp_path / "tree")


def assert_published(tree: Path) -> None:
    """Figures, tables and metrics are those in git, and models have the hashes in dvc.lock."""
    run("snakemake --cores 1 register", tree)
    assert run("git status --porcelain", tree) == ""


@pytest.mark.parametrize(("cores", "threads"), [(1, "1"), (4, "2")])
def test_snakemake_with_other_settings(cores: int, threads: str, tree: Path) -> None:
    run(f"snakemake --cores {cores}", tree, OMP_NUM_THREADS=threads, MKL_NUM_THREADS=threads)
    assert_published(tree)


def test_dvc(tree: Path) -> None:
    run("dvc repro", tree)
    assert run("git status --porcelain", tree) == ""


def test_a_training_killed_at_20_moments(tree: Path) -> None:
    run("snakemake --cores 1 data/split/train.safetensors", tree)
    command = graph.dvc_graph(tree)["train@20-0"].command

    def begin(_: random.Random) -> subprocess.Popen[bytes]:
        return start([*command, "--checkpoint_seconds", "1"], tree, tree.parent / "said")

    def reached() -> int:
        return steps_saved(tree / "checkpoints", STEPS)

    assert kill_at_random(20, 3, 40 * STEPS, begin, reached)[-1] > 0
    run("snakemake --cores 2", tree)
    assert_published(tree)
