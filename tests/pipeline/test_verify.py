"""Verifying a rerun: verdicts, tolerances held against real evaluations and known spreads."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from aevb.bounds import bound_terms, elbo
from aevb.data import ImageSet, model_inputs
from aevb.evaluation import evaluate, summarise
from aevb.model import VAE
from aevb.plumbing.verification import (
    Verdict,
    numerics_tolerance,
    spread_tolerance,
    verify,
)
from graph import ROOT
from stages import Outcome
from stages import error_line as the_error
from stages import run_script as run

SPREAD = "results/studies/seeds/default/metrics"
METRICS = {
    "elbo": -96.5985, "elbo_se": 0.244615, "images": 10000, "is_log_likelihood": 1,
    "iwae_bound": -92.8347, "iwae_bound_se": 0.236967, "iwae_k": 50, "kl": 26.9821,
    "kl_se": 0.0425566, "log_px_given_z": -69.6164, "log_px_given_z_se": 0.210744,
    "reconstruction_error": 69.6164, "reconstruction_error_se": 0.210744,
}  # fmt: skip
FILE = "metrics/k20-seed0.json"


def as_json(metrics: dict) -> bytes:
    return json.dumps(metrics, indent=2).encode()


def seeds(count: int, sd: float = 0.1, **changes: object) -> dict[str, bytes]:
    """Metrics of several seeds, the standard deviation of each about `sd`."""
    random = np.random.default_rng(0)
    spread = {}
    for seed in range(count):
        moved = {key: value + sd * random.standard_normal() if isinstance(value, float) else value
                 for key, value in METRICS.items()}  # fmt: skip
        spread[f"k20-seed{seed}.json"] = as_json({**moved, **changes})
    return spread


def verdicts(spread: dict[str, bytes] | None = None, **changes: object) -> dict[str, Verdict]:
    """Verdicts on metrics that differ so from the published ones, and on their file as `""`."""
    fresh = {key: value for key, value in {**METRICS, **changes}.items() if value is not None}
    found = verify({FILE: as_json(METRICS)}, {FILE: as_json(fresh)}, spread or {})
    return {finding.metric: finding.verdict for finding in found}


# Verdicts on numbers.


def test_the_same_bytes_need_no_number():
    assert verdicts() == {"": Verdict.SAME_BYTES}


def test_the_same_numbers_in_another_layout_are_within_numerics():
    found = list(verify({FILE: as_json(METRICS)}, {FILE: json.dumps(METRICS).encode()}, {}))
    assert {item.verdict for item in found if item.metric} == {Verdict.SAME_BYTES}
    assert found[-1].verdict == Verdict.WITHIN_NUMERICS


@pytest.mark.parametrize("value", [-96.5985001, -96.5986, -96.6])
def test_a_nudge_of_the_last_digits_is_within_numerics(value):
    found = verdicts(elbo=value)
    assert found["elbo"] == found[""] == Verdict.WITHIN_NUMERICS
    assert found["kl"] == Verdict.SAME_BYTES


def test_one_unit_of_the_sixth_digit_is_rounding_whatever_the_number():
    for value, near, far in ((131.742, 131.741, 131.74), (0.0999999, 0.1, 0.100001)):
        published = {FILE: as_json({"other": value})}
        for fresh, expected in ((near, Verdict.WITHIN_NUMERICS), (far, Verdict.DIFFERENT)):
            assert list(verify(published, {FILE: as_json({"other": fresh})}, {}))[-1].verdict == (
                expected
            )


def test_what_seeds_explain_is_within_their_spread_and_more_is_different():
    spread = seeds(5)
    assert verdicts(spread, elbo=-96.3)[""] == Verdict.WITHIN_SPREAD
    assert verdicts(spread, elbo=-90.0)[""] == Verdict.DIFFERENT
    assert verdicts(spread, elbo=-96.3, kl=20.0)[""] == Verdict.DIFFERENT
    assert verdicts(elbo=-96.3)[""] == Verdict.DIFFERENT


@pytest.mark.parametrize(
    "spread",
    [seeds(2), seeds(5, iwae_k=10), {f"k3-{name[4:]}": text for name, text in seeds(5).items()},
     seeds(5, elbo="none")],
    ids=["two seeds", "of another bound", "of another k", "no numbers"],
)  # fmt: skip
def test_seeds_that_do_not_serve_leave_the_spread_unknown(spread):
    assert verdicts(spread, elbo=-96.3)["elbo"] == Verdict.DIFFERENT


@pytest.mark.parametrize(
    "change",
    [{"images": 9999}, {"iwae_k": 51}, {"is_log_likelihood": 0}, {"elbo": None}, {"extra": 1.0},
     {"elbo": math.nan}, {"elbo": math.inf}, {"elbo": "-96.5985"}, {"elbo": [1]}, {"kl": 10**400}],
    ids=str,
)  # fmt: skip
def test_counts_and_flags_are_equal_and_no_key_comes_or_goes(change):
    (name,) = change
    found = verdicts(seeds(5, sd=1e4), **change)
    assert found[name] == found[""] == Verdict.DIFFERENT
    assert {found[key] for key in found if key not in (name, "")} == {Verdict.SAME_BYTES}


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_is_no_json_object_is_told(content):
    good = as_json(METRICS)
    for published, fresh, where in ((content, good, "published"), (good, content, "here")):
        (found,) = verify({FILE: published}, {FILE: fresh}, {})
        assert found.verdict == Verdict.DIFFERENT
        assert where in found.why


def test_other_products_follow_the_metrics_of_their_run():
    other = "metrics/k3-seed0.json"
    products = ["history/k3-seed0.csv", "history/k20-seed0.csv", "comparison/terms.png"]
    published = {name: as_json(METRICS) for name in (FILE, other)} | dict.fromkeys(products, b"a")
    fresh = published | dict.fromkeys(products, b"b")
    fresh[FILE] = as_json({**METRICS, "elbo": -96.5986})
    found = {item.file: item.verdict for item in verify(published, fresh, {})}
    assert found == {
        FILE: Verdict.WITHIN_NUMERICS,
        other: Verdict.SAME_BYTES,
        "history/k20-seed0.csv": Verdict.WITHIN_NUMERICS,
        "history/k3-seed0.csv": Verdict.DIFFERENT,  # no number of that run changed
        "comparison/terms.png": Verdict.WITHIN_NUMERICS,
    }


# Tolerances.


class InDouble:
    """The Bernoulli model in float64, from its formulas."""

    def __init__(self, model: VAE) -> None:
        self.weights = {name: value.double() for name, value in model.state_dict().items()}

    def layer(self, name: str, x: Tensor) -> Tensor:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh(self.layer("encoder.hidden", x.double()))
        mu, log_var = self.layer("encoder.output", h).chunk(2, -1)
        return mu, log_var

    def log_px_given_z(self, x: Tensor, z: Tensor) -> Tensor:
        logits = self.layer("decoder.output", torch.tanh(self.layer("decoder.hidden", z)))
        return (x.double() * logits - torch.nn.functional.softplus(logits)).sum(-1)


class OneByOne:
    """The model in float32, another shape of every matrix product: an image at a time."""

    def __init__(self, model: VAE) -> None:
        self.model = model

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pairs = [self.model.encode(image[None]) for image in x]
        return torch.cat([mu for mu, _ in pairs]), torch.cat([log_var for _, log_var in pairs])

    def log_px_given_z(self, x: Tensor, z: Tensor) -> Tensor:
        images = [self.model.log_px_given_z(x[i : i + 1], z[:, i : i + 1]) for i in range(len(x))]
        return torch.cat(images, 1)


@pytest.fixture(scope="module", params=[3, 20])
def trained(request, small_sets: tuple[ImageSet, ...]) -> VAE:
    """A model fitted to a few images, so that its magnitudes are those of trained ones."""
    model = VAE(request.param, 500, "bernoulli")
    random = torch.Generator().manual_seed(0)
    x = torch.from_numpy(model_inputs(small_sets[1], "dynamic"))
    model.initialise(random, x.mean(0))
    optimiser = torch.optim.Adam(model.parameters(), 0.003)
    for _ in range(300):
        eps = torch.randn((1, len(x), request.param), generator=random)
        loss = -elbo(bound_terms(model, x, eps)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval().requires_grad_(False)


@torch.inference_mode()
def test_magnitudes_are_those_of_the_derivation(trained: VAE, small_sets):
    """Σ |weight × input| + |bias| is at most 64 in every layer."""
    x = torch.from_numpy(model_inputs(small_sets[2], "dynamic"))
    mu, log_var = trained.encode(x)
    z = mu + torch.exp(log_var / 2) * torch.randn(mu.shape, generator=torch.Generator())
    inputs = {
        trained.encoder.hidden: x,
        trained.encoder.output: torch.tanh(trained.encoder.hidden(x)),
        trained.decoder.hidden: z,
        trained.decoder.output: torch.tanh(trained.decoder.hidden(z)),
    }
    for layer, values in inputs.items():
        assert (values.abs() @ layer.weight.abs().T + layer.bias.abs()).mean() < 64


def test_numerics_hold_and_are_not_absurdly_wide(trained: VAE, small_sets):
    """Float32 in several orders of summation against float64, on images and in the mean."""
    x = model_inputs(small_sets[2], "dynamic")
    exact = evaluate(InDouble(trained), x, 10, seed=0)
    metrics = summarise(exact, 10)
    found = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(evaluate(trained, x, 10, seed=0))
    finally:
        torch.set_num_threads(threads)
    found.append(evaluate(OneByOne(trained), x, 10, seed=0))
    assert any((terms["iwae_bound"] != found[0]["iwae_bound"]).any() for terms in found[1:])
    for terms in found:
        for name, value in summarise(terms, 10).items():
            if isinstance(value, float):
                assert abs(value - metrics[name]) < numerics_tolerance(name, metrics)
        for name in ("log_px_given_z", "iwae_bound", "kl"):
            errors = terms[name].astype(float) - exact[name]
            width = numerics_tolerance(name, metrics) / math.sqrt((errors**2).mean())
            assert 1 < width < 10_000


def test_numerics_are_far_below_the_standard_error():
    for name in ("elbo", "kl", "iwae_bound", "log_px_given_z"):
        assert 1e-4 < numerics_tolerance(name, METRICS) < METRICS[f"{name}_se"] / 5
        assert numerics_tolerance(f"{name}_se", METRICS) < METRICS[f"{name}_se"] / 100


def test_the_likelihood_of_a_density_is_held_to_the_rounding():
    density = {**METRICS, "log_px_given_z": 1234.56, "elbo": 1200.0}
    assert numerics_tolerance("log_px_given_z", density) == pytest.approx(0.01)
    assert numerics_tolerance("elbo", {"elbo": -96.5}) == pytest.approx(1e-4)


@pytest.mark.parametrize("count", [3, 5, 10])
def test_one_fresh_run_in_a_hundred_is_different_by_chance(count):
    random = np.random.default_rng(1)
    trials = 20_000
    spreads, pairs = random.normal(-96, 0.2, (trials, count)), random.normal(-96, 0.2, (trials, 2))
    limits = np.array([spread_tolerance(values) for values in spreads.tolist()])
    apart = (np.abs(pairs[:, 0] - pairs[:, 1]) > limits).mean()
    assert apart == pytest.approx(0.01, abs=4 * math.sqrt(0.01 / trials))
    # The published run is one of the spread: fewer false alarms, not more.
    assert (np.abs(pairs[:, 0] - spreads[:, 0]) > limits).mean() < 0.01
    # A shift of a dozen standard deviations is seen, with as few as five seeds.
    assert count < 5 or (np.abs(pairs[:, 0] - pairs[:, 1] + 2.4) > limits).mean() > 0.8


def test_two_seeds_tell_no_spread():
    assert spread_tolerance([1.0, 2.0]) is None
    assert spread_tolerance([1.0] * 30) == 0


# The command.


def git(tree: Path, *words: str) -> None:
    names = ("-c", "user.name=test", "-c", "user.email=test", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *names, *words], cwd=tree, check=True, capture_output=True)


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Path:
    """A repository with the results of this one, the current folder."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    folder = tmp_path / "tree"
    for product, file in (
        ("metrics", "k3-seed0.json"),
        ("metrics", "k20-seed0.json"),
        ("history", "k3-seed0.csv"),
        ("comparison", "table.md"),
    ):
        (folder / "results" / product).mkdir(parents=True, exist_ok=True)
        (folder / "results" / product / file).write_bytes(b"made\r\n\n")
    for k in (3, 20):
        write_metrics(folder, k)
    monkeypatch.chdir(folder)
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "Publish")
    git(folder, "tag", "published")
    return folder


def write_metrics(tree: Path, k: int, **changes: object) -> None:
    content = as_json({**METRICS, **changes})
    (tree / "results" / "metrics" / f"k{k}-seed0.json").write_bytes(content)


def verdict(outcome: Outcome) -> str:
    """The last line; the error stream holds nothing but the command."""
    assert len(outcome.error.splitlines()) == 1, outcome.error
    return outcome.out.splitlines()[-1]


def test_an_untouched_tree_is_told_in_few_lines(tree):
    (tree / "results" / "models").mkdir()
    (tree / "results" / "models" / "k3-seed0.safetensors").write_bytes(b"not published")
    (tree / "results" / "metrics" / ".k3-seed0.json.0a.tmp").write_bytes(b"half")
    outcome = run("verify")
    assert outcome.code == 0
    assert verdict(outcome).startswith("same bytes: of 4 files, against HEAD (")
    assert len(outcome.out.splitlines()) == 5


def test_a_nudge_is_shown_with_its_tolerance(tree):
    write_metrics(tree, 20, elbo=-96.5986)
    outcome = run("verify")
    assert outcome.code == 0
    assert verdict(outcome).startswith("within numerics: of 4 files")
    (row,) = (line.split() for line in outcome.out.splitlines() if line.startswith("  elbo"))
    assert row[1:4] == ["-96.5985", "-96.5986", "-0.0001"]
    assert "kl" not in outcome.out  # which did not change


def test_the_spread_of_seeds_has_its_own_exit_code(tree):
    (tree / SPREAD).mkdir(parents=True)
    for name, content in seeds(5).items():
        (tree / SPREAD / name).write_bytes(content)
    write_metrics(tree, 20, elbo=-96.3)
    (tree / "results" / "comparison" / "table.md").write_text("another")
    outcome = run("verify")
    assert outcome.code == 3
    assert verdict(outcome).startswith("within the spread of seeds: ")
    assert verdict(outcome).endswith(": 2 same bytes, 2 within the spread of seeds")
    assert "unknown" not in outcome.out
    write_metrics(tree, 3, elbo=-96.3)
    outcome = run("verify")
    assert outcome.code == 4
    assert f"The spread of seeds is unknown for k = 3: {SPREAD} holds 0" in outcome.out
    assert run("verify", "--spread", "nowhere").code == 4


def test_missing_and_additional_files_and_keys_are_named(tree):
    (tree / "results" / "history" / "k3-seed0.csv").unlink()
    (tree / "results" / "metrics" / "k3-seed1.json").write_bytes(as_json(METRICS))
    (tree / "results" / "metrics" / "k3-seed0.json").write_bytes(b"{torn")
    write_metrics(tree, 20, extra=1.0)
    outcome = run("verify")
    assert outcome.code == 4
    assert verdict(outcome).startswith("different: of 5 files")
    found = {line.split()[0]: line for line in outcome.out.splitlines() if line.split()}
    assert "different: is missing here" in found["history/k3-seed0.csv"]
    assert "different: is not published" in found["metrics/k3-seed1.json"]
    assert "different: the one here is no JSON object" in found["metrics/k3-seed0.json"]
    assert "different: is not published" in found["extra"]


def test_another_revision_and_a_folder(tree):
    shutil.copytree("results", "old")
    write_metrics(tree, 3, kl=9.0)
    git(tree, "commit", "--quiet", "--all", "--message", "Change")
    assert run("verify").code == 0
    for against in ("published", "HEAD~1", "old"):
        outcome = run("verify", "--against", against)
        assert outcome.code == 4
        assert f"against {against}" in verdict(outcome)
    assert run("verify", "--results", "old", "--against", "published").code == 0
    status = subprocess.run(["git", "status", "--short"], capture_output=True, check=True)
    assert status.stdout == b"?? old/\n"  # nothing was checked out


@pytest.mark.parametrize("against", ["nowhere", "--help", "", "HEAD:results", "results/metrics"])
@pytest.mark.usefixtures("tree")
def test_what_is_no_revision_is_one_line(against):
    line = the_error(run("verify", f"--against={against}"), 1)
    assert against in line


def test_without_results_or_metrics_or_git(tree, tmp_path, monkeypatch):
    assert "nowhere: no such folder" in the_error(run("verify", "--results", "nowhere"), 1)
    (tree / "empty").mkdir()
    assert "empty: holds no metrics" in the_error(run("verify", "--against", "empty"), 1)
    git(tree, "rm", "--quiet", "-r", "--cached", "results")
    git(tree, "commit", "--quiet", "--message", "Remove")
    assert "holds no metrics" in the_error(run("verify"), 1)
    (tree / SPREAD).mkdir(parents=True)
    (tree / SPREAD / "k3-seed0.json").write_text("torn")
    line = the_error(run("verify", "--against", "published"), 1)
    assert f"{SPREAD}/k3-seed0.json" in line
    (tree / SPREAD / "k3-seed0.json").unlink()
    shutil.copytree("results", tmp_path / "bare" / "results")
    monkeypatch.chdir(tmp_path / "bare")
    assert "no git repository" in the_error(run("verify"), 1)
    assert run("verify", "--against", "results").code == 0
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "git is not installed" in the_error(run("verify"), 1)


def test_help_tells_the_exit_codes():
    text = " ".join(run("verify", "--help").out.split())
    assert "3 when the worst is within the spread of seeds, 4 when something is different" in text
    assert run("verify", "--unheard").code == 2


@pytest.mark.usefixtures("tree")
def test_as_a_process_of_its_own():
    words = [sys.executable, str(ROOT / "src" / "verify.py")]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert result.returncode == 0
    assert result.stdout.splitlines()[-1].startswith("same bytes: ")
