"""Queued experiments of DVC, run through Snakemake: src/experiments.py."""

import json
from pathlib import Path

from graph import run
from processes import kill_group, start, wait_for
from repository import commit, copy, made

import pytest

pytestmark = pytest.mark.slow
COMMAND = "python src/experiments.py"


@pytest.fixture
def tree(by_dvc: Path, tmp_path: Path) -> Path:
    """A repository with results that are committed."""
    tree = copy(by_dvc, tmp_path)
    commit(tree, "results")
    return tree


def queue(tree: Path, name: str, parameter: str) -> None:
    """Queue an experiment."""
    run(f"dvc exp run --queue --name {name} -S {parameter}", tree)


def queued(tree: Path) -> list[str]:
    """The names of the experiments that are in the queue."""
    lines = run("dvc queue status", tree).splitlines()
    return [line.split()[1] for line in lines if line.endswith("Queued")]


def git_tree(tree: Path, experiment: str) -> str:
    """The hash of all files that git has of an experiment, dvc.lock and parameters included."""
    ref = run(f"git for-each-ref --format=%(refname) refs/exps/*/*/{experiment}", tree).strip()
    return run(f"git rev-parse {ref}^{{tree}}", tree)


def test_results_are_those_of_dvc_and_the_working_tree_is_unchanged(tree: Path) -> None:
    run("dvc exp run --temp --name by-dvc -S evaluate.iwae_k=2", tree)
    queue(tree, "two", "evaluate.iwae_k=2")
    queue(tree, "four", "evaluate.iwae_k=4")
    queue(tree, "wrong", "evaluate.iwae_k=0")
    before = made(tree)
    said = run(COMMAND, tree, code=1)
    assert made(tree) == before
    assert run("git status --short", tree) == ""
    assert "wrong: evaluate.iwae_k" in said
    assert said.splitlines()[-1].endswith("error: 1 of 3 are still in the queue")
    assert said.count("2 epochs, best") == 1  # both have the same model
    assert queued(tree) == ["wrong"]
    assert git_tree(tree, "two") == git_tree(tree, "by-dvc")
    metrics = json.loads(run("dvc exp diff --json two four", tree))["metrics"]
    assert metrics["results/metrics/k2-seed0.json"]["iwae_k"] == {"old": 2, "new": 4, "diff": 2}
    run("dvc exp apply four", tree)  # all files are in DVC's cache


def test_a_killed_run_continues_and_a_failure_leaves_the_others(tree: Path, tmp_path: Path) -> None:
    queue(tree, "small", "model.hidden=8")
    queue(tree, "fails", "reconstruct.images=201")  # of 200
    queue(tree, "other", "split.validation_size=50")
    head = start(COMMAND, tree, tmp_path / "output")
    models = tree / ".dvc/tmp/queue/results/studies"
    assert wait_for(lambda: list(models.glob("queue-*/all/models/k2-seed0.safetensors")), head)
    kill_group(head)
    assert "fails failed" in run(COMMAND, tree, code=1)
    assert queued(tree) == ["fails"]
    assert git_tree(tree, "small") != git_tree(tree, "other")
    run("dvc queue remove fails", tree)
    run(COMMAND, tree)
    assert not (tree / ".dvc/tmp/queue").exists()
