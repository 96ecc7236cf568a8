"""Results are compared with those of a git revision or experiment, paired over the test images."""

import json
import math
import re
from pathlib import Path

from aevb.files import write_tensors
from aevb.intervals import means_with_errors
from aevb.plumbing.params import Params
from graph import run
from stages import Outcome, error_line, run_script
from verify import SEEDS, Run, difference, spread

import numpy as np
import pytest
import yaml

IMAGES = 200
SAME = {"the same bytes"}


def write_run(tree: Path, k: int, shift: float = 0.0, noise: float = 0.0, **settings: str) -> None:
    """Write terms and metrics of a run: fixed terms plus a shift, and noise with the mean 0."""
    random = np.random.default_rng(k)
    common = random.normal(-100, 10, IMAGES)
    kl, noise_of_image = random.normal(20, 1, IMAGES), random.normal(0, noise, IMAGES)
    own = common + shift + noise_of_image - noise_of_image.mean()
    terms = {"log_px_given_z": own, "kl": kl, "iwae_bound": own + 1}
    terms = {name: values.astype(np.float32) for name, values in terms.items()}
    metadata = {"latent_dim": k, "seed": 0, "data": {"name": "mnist", "seed": 0}}
    metadata |= {"likelihood": "bernoulli", "binarisation": "dynamic"} | settings
    write_tensors(tree / f"results/terms/k{k}-seed0.safetensors", "terms", terms, metadata)
    metrics: dict[str, float] = {"images": IMAGES, "iwae_k": 50, "is_log_likelihood": 1}
    for name, values in {**terms, "elbo": terms["log_px_given_z"] - terms["kl"]}.items():
        metrics |= means_with_errors({name: values})
    write_metrics(tree / f"results/metrics/k{k}-seed0.json", metrics)


def write_metrics(path: Path, metrics: dict[str, float]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(metrics))


def commit(tree: Path) -> None:
    run("git add --all", tree)
    run("git -c user.name=Test -c user.email=test@localhost commit --quiet --message x", tree)


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Path:
    """A repository with committed results and five seeds of k = 20, as the current folder."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    tree = tmp_path / "tree"
    for k in (3, 20):
        write_run(tree, k)
    published = json.loads((tree / "results/metrics/k20-seed0.json").read_text())
    for seed in range(5):
        shifted = {name: published[name] + 0.1 * seed for name in published if "_se" not in name}
        counts = {name: published[name] for name in ("images", "iwae_k", "is_log_likelihood")}
        write_metrics(tree / SEEDS / f"k20-seed{seed}.json", shifted | counts)
    (tree / "results/comparison").mkdir()
    (tree / "results/comparison/table.md").write_text("made\n")
    (tree / "params.yaml").write_text(yaml.safe_dump(Params().model_dump()))
    monkeypatch.chdir(tree)
    run("git init --quiet", tree)
    commit(tree)
    run("git tag published", tree)
    return tree


def verdicts(outcome: Outcome) -> dict[str, str]:
    """The verdict in each line of the table, after a check of its width."""
    lines = outcome.out.splitlines()
    assert max(map(len, lines)) <= 100
    found, name = {}, ""
    for line in lines[: lines.index("")]:
        if re.match(r"k\d", line):
            name = line.split(",")[0]
        elif row := re.match(r"  (\w+) .* (?:unknown|[\d.]+) *(.*)$", line):
            found[f"{name} {row[1]}"] = row[2]
    return found


def sentence(outcome: Outcome) -> str:
    """The sentence before the table, in one line."""
    return " ".join(outcome.out.split("\n   ")[0].split())


@pytest.mark.usefixtures("tree")
def test_unchanged_results_are_the_same_bytes():
    outcome = run_script("verify")
    assert outcome.code == 0
    assert sentence(outcome).startswith("The present results are the same bytes as those of HEAD (")
    found = verdicts(outcome)
    assert {*found.values()} == SAME
    assert found.keys() >= {"k3-seed0 elbo", "k20-seed0 iwae_bound", "k20-seed0 kl"}
    assert run("git status --porcelain", Path.cwd()) == ""  # nothing was checked out


def test_another_file_with_other_bytes_is_named(tree):
    (tree / "results/comparison/table.md").unlink()
    outcome = run_script("verify")
    assert outcome.code == 0
    assert sentence(outcome).endswith(": other bytes in results/comparison/table.md.")


SPREAD = 1.03
"""For k = 20: t₄(0.995) · √2 · the standard deviation of 0, 0.1, …, 0.4."""


@pytest.mark.parametrize(
    ("k", "shift", "noise", "verdict", "code"),
    [
        (3, 0.1, 0.1, "better", 0),  # its spread of seeds is unknown
        (3, -0.1, 0.1, "worse", 3),
        (3, -0.1, 10.0, "no clear difference", 0),
        (20, SPREAD + 0.1, 0.1, "better", 0),
        (20, SPREAD - 0.1, 0.1, "no clear difference", 0),
        (20, -SPREAD + 0.1, 0.1, "no clear difference", 0),
        (20, -SPREAD - 0.1, 0.1, "worse", 3),
        (20, -SPREAD - 0.1, 10.0, "no clear difference", 0),
    ],
)
def test_verdict_and_exit_code(k, shift, noise, verdict, code, tree):
    write_run(tree, k, shift, noise)
    (tree / SEEDS / "k20-seed0.json").write_text("of the working tree, which is not read")
    outcome = run_script("verify")
    found = verdicts(outcome)
    assert outcome.code == code
    assert {found.pop(f"k{k}-seed0 {bound}") for bound in ("elbo", "iwae_bound")} == {verdict}
    assert {found.pop(f"k{k}-seed0 {term}") for term in ("log_px_given_z", "kl")} == {""}
    assert {*found.values()} == SAME
    names = f": k{k}-seed0 elbo, k{k}-seed0 iwae_bound." if verdict in ("better", "worse") else ")."
    assert sentence(outcome).endswith(names)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"likelihood": "gaussian"}, "likelihood gaussian instead of bernoulli"),
        ({"binarisation": "static"}, "binarisation static instead of dynamic"),
        ({"data": {"name": "kmnist", "seed": 0}}, "data kmnist instead of mnist"),
        ({"data": {"name": "mnist", "seed": 1}}, "split.seed 1 instead of 0"),
    ],
)
def test_other_data_and_likelihoods_are_not_comparable(settings, reason, tree):
    write_run(tree, 3, **settings)
    write_run(tree, 20, -10)  # is worse
    outcome = run_script("verify")
    assert outcome.code == 4
    assert sentence(outcome).endswith(f": k3-seed0 has {reason}.")
    assert verdicts(outcome)["k20-seed0 elbo"] == "worse"


def test_other_metrics_and_missing_runs_are_not_comparable(tree):
    metrics = tree / "results/metrics/k3-seed0.json"
    write_metrics(metrics, {**json.loads(metrics.read_text()), "iwae_k": 100})
    assert sentence(run_script("verify")).endswith(": k3-seed0 has iwae_k 100 instead of 50.")
    metrics.unlink()
    outcome = run_script("verify")
    assert outcome.code == 4
    assert sentence(outcome).endswith(": k3-seed0 is missing.")
    commit(tree)
    write_run(tree, 3)
    outcome = run_script("verify")  # a new run is no obstacle
    assert outcome.code == 0
    assert "k3-seed0 is not in HEAD\n" in outcome.out


def test_without_terms_the_comparison_is_unpaired_and_params_yaml_describes_the_run(tree):
    run("git rm --quiet -r results/terms", tree)
    commit(tree)
    write_run(tree, 3, -1.0, 0.1)
    outcome = run_script("verify")
    assert outcome.code == 0
    assert "k3-seed0, unpaired" in outcome.out
    assert verdicts(outcome)["k3-seed0 elbo"] == "no clear difference"
    assert run_script("verify", "--against", "published").code == 3
    write_run(tree, 3, -1.0, 0.1, likelihood="gaussian")
    assert run_script("verify").code == 4


def test_an_experiment_is_read_from_git(tree):
    write_run(tree, 3, 1.0, 0.1)
    commit(tree)
    started = run("git rev-parse published", tree).strip()
    ref = f"refs/exps/{started[:2]}/{started[2:]}/faster-1"
    run(f"git update-ref {ref} HEAD", tree)
    run("git reset --quiet --hard published", tree)
    assert run_script("verify").code == 0
    outcome = run_script("verify", "--experiment", "faster-1")
    assert outcome.code == 0
    assert outcome.out.startswith("The results of faster-1 (")
    assert verdicts(outcome)["k3-seed0 elbo"] == "better"
    assert verdicts(run_script("verify", "--against", "faster-1"))["k3-seed0 elbo"] == "worse"


@pytest.mark.parametrize("revision", ["nowhere", "--help", "", "HEAD:results", "$(touch x)"])
@pytest.mark.usefixtures("tree")
def test_what_is_not_a_revision_is_reported(revision):
    assert revision in error_line(run_script("verify", f"--against={revision}"))


def test_damaged_files_and_folders_without_git_are_reported(tree, monkeypatch):
    for content in ("{torn", "3", "{}"):
        (tree / "results/metrics/k3-seed0.json").write_text(content)
        assert "k3-seed0.json: " in error_line(run_script("verify"))
    monkeypatch.chdir(tree.parent)
    assert "not a git repository" in error_line(run_script("verify"))


def test_differences_are_paired_if_both_runs_have_terms():
    random = np.random.default_rng(0)
    old, new = random.normal(-100, 10, IMAGES), random.normal(-99, 10, IMAGES)
    runs = [Run(means_with_errors({"kl": values}), {"kl": values}, {}) for values in (old, new)]
    error = np.std(new - old, ddof=1) / math.sqrt(IMAGES)
    assert difference("kl", *runs) == pytest.approx((np.mean(new - old), error))
    runs[0] = runs[0]._replace(terms={})
    error = math.sqrt((np.var(old, ddof=1) + np.var(new, ddof=1)) / IMAGES)
    assert difference("kl", *runs) == pytest.approx((np.mean(new) - np.mean(old), error))


@pytest.mark.parametrize("count", [3, 10])
def test_one_pair_of_runs_in_a_hundred_is_further_apart_than_the_spread(count):
    random = np.random.default_rng(1)
    trials = 20_000
    seeds, pairs = random.normal(-96, 0.2, (trials, count)), random.normal(-96, 0.2, (trials, 2))
    limits = np.array([spread(values) for values in seeds.tolist()])
    apart = (np.abs(pairs[:, 0] - pairs[:, 1]) > limits).mean()
    assert apart == pytest.approx(0.01, abs=4 * math.sqrt(0.01 / trials))
