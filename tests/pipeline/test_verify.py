"""Results are compared with those of a git revision, and the spread of seeds is that revision's."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from graph import run
from stages import Outcome, error_line, run_script
from verify import SEEDS, spread

METRICS = {"elbo": -96.5985, "elbo_se": 0.25, "images": 10000, "iwae_k": 50, "kl": 26.9}
COMMIT = "git -c user.name=Test -c user.email=test@localhost commit --quiet --all --message x"


def write_metrics(tree: Path, path: str, **changes: object) -> None:
    file = tree / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({**METRICS, **changes}))


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Path:
    """A repository with committed results and five seeds of k = 20, as the current folder."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    tree = tmp_path / "tree"
    for k in (3, 20):
        write_metrics(tree, f"results/metrics/k{k}-seed0.json")
    for seed in range(5):
        elbo, kl = -96.6 + 0.1 * seed, 26.9 + 0.1 * seed
        write_metrics(tree, f"{SEEDS}/k20-seed{seed}.json", elbo=elbo, kl=kl)
    for file in ("history/k3-seed0.csv", "history/k20-seed0.csv", "comparison/table.md"):
        (tree / "results" / file).parent.mkdir(parents=True, exist_ok=True)
        (tree / "results" / file).write_bytes(b"made\r\n\n")
    monkeypatch.chdir(tree)
    run("git init --quiet", tree)
    run("git add .", tree)
    run(COMMIT, tree)
    run("git tag published", tree)
    return tree


def verdicts(outcome: Outcome) -> dict[str, str]:
    """The verdict in each line of the table."""
    assert all(len(line) <= 100 for line in outcome.out.splitlines())
    rows = [re.split(" {2,}|: ", line) for line in outcome.out.splitlines()[2:]]
    return {" ".join(row[: 2 if len(row) > 2 else 1]): row[-1] for row in rows}


@pytest.mark.usefixtures("tree")
def test_unchanged_results_are_the_same():
    outcome = run_script("verify")
    assert outcome.code == 0
    assert outcome.out.startswith("The results are those of HEAD (")
    found = verdicts(outcome)
    assert {*found.values()} == {"the same"}
    assert found.keys() >= {"k3-seed0 elbo", "k20-seed0 kl", "comparison/table.md"}
    assert run("git status --porcelain", Path.cwd()) == ""  # nothing was checked out


def test_a_difference_within_the_spread_of_seeds(tree):
    write_metrics(tree, "results/metrics/k20-seed0.json", elbo=-96.2)
    for file in ("history/k20-seed0.csv", "comparison/table.md"):
        (tree / "results" / file).write_text("other bytes")
    # The seeds of the working tree do not count.
    write_metrics(tree, f"{SEEDS}/k20-seed0.json", elbo=0.0)
    outcome = run_script("verify")
    assert outcome.code == 0
    assert "agree with those of HEAD" in outcome.out
    assert "-96.5985      -96.2      0.3985  within the spread of seeds" in outcome.out
    within = [name for name, verdict in verdicts(outcome).items() if verdict != "the same"]
    assert within == ["k20-seed0 elbo", "comparison/table.md", "history/k20-seed0.csv"]


@pytest.mark.parametrize(
    ("k", "change"),
    [
        (20, {"elbo": -95.0}),  # more than the spread
        (3, {"elbo": -96.5984}),  # of k = 3 there are no seeds
        (20, {"elbo_se": 0.26}),  # is the same in all seeds
        (20, {"images": 9999}),
        (20, {"elbo": math.nan}),
        (20, {"extra": 1.0}),
    ],
    ids=str,
)
def test_other_metrics_are_different(tree, k, change):
    write_metrics(tree, f"results/metrics/k{k}-seed0.json", **change)
    outcome = run_script("verify")
    assert outcome.code == 4
    assert outcome.out.startswith("The results are not those of HEAD (")
    different = [name for name, verdict in verdicts(outcome).items() if verdict == "different"]
    assert different == [f"k{k}-seed0 {next(iter(change))}"]


def test_missing_and_new_files_are_different(tree):
    (tree / "results/history/k3-seed0.csv").unlink()
    (tree / "results/history/k20-seed0.csv").write_text("but its metrics are the same")
    write_metrics(tree, "results/metrics/k3-seed1.json")
    outcome = run_script("verify")
    assert outcome.code == 4
    different = {name for name, verdict in verdicts(outcome).items() if verdict == "different"}
    assert {"history/k20-seed0.csv", "history/k3-seed0.csv (missing here)"} <= different
    assert {"k3-seed1 elbo", "k3-seed1 images"} <= different


def test_a_damaged_file_is_reported(tree):
    for content in ("{torn", "3"):
        (tree / "results/metrics/k3-seed0.json").write_text(content)
        assert "k3-seed0.json: damaged" in error_line(run_script("verify"))


def test_an_older_revision(tree):
    write_metrics(tree, "results/metrics/k3-seed0.json", kl=9.0)
    run(COMMIT, tree)
    assert run_script("verify").code == 0
    assert run_script("verify", "--against", "published").code == 4


@pytest.mark.parametrize("revision", ["nowhere", "--help", "", "HEAD:results"])
@pytest.mark.usefixtures("tree")
def test_what_is_not_a_revision_is_reported(revision):
    assert revision in error_line(run_script("verify", f"--against={revision}"))


def test_results_without_metrics_and_folders_without_git_are_reported(tree, monkeypatch):
    run("git rm --quiet -r results/metrics", tree)
    assert "this folder holds no results/metrics" in error_line(run_script("verify"))
    monkeypatch.chdir(tree.parent)
    assert "not a git repository" in error_line(run_script("verify"))


@pytest.mark.parametrize("count", [3, 10])
def test_one_pair_of_runs_in_a_hundred_is_further_apart_than_the_spread(count):
    random = np.random.default_rng(1)
    trials = 20_000
    seeds, pairs = random.normal(-96, 0.2, (trials, count)), random.normal(-96, 0.2, (trials, 2))
    limits = np.array([spread(values) for values in seeds.tolist()])
    apart = (np.abs(pairs[:, 0] - pairs[:, 1]) > limits).mean()
    assert apart == pytest.approx(0.01, abs=4 * math.sqrt(0.01 / trials))
