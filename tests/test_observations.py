"""The sentences about the runs: their numbers are the data's, their claims those it allows."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from aevb.report import survey, tables
from aevb.report.comparison import Run, per_image
from aevb.report.discussion import listed, observations

N = 400


def a_run(latent_dim: int, seed: int, gain: float, price: float, likelihood: int = 1) -> Run:
    """A run whose reconstruction term lies `gain` above a common level, its KL term `price`."""
    images = np.random.default_rng(0).normal(0, 30, N)
    random = np.random.default_rng([latent_dim, seed])
    noise = stats.zscore(random.normal(0, 1, N))
    terms = {
        "log_px_given_z": images - 120 + gain + noise + 0.1 * seed,
        "kl": 9 + price + random.normal(0, 0.1, N),
    }
    terms["elbo"] = terms["log_px_given_z"] - terms["kl"]
    terms["iwae_bound"] = terms["elbo"] + 2 + random.normal(0, 0.5, N)
    mu = random.standard_normal((N, latent_dim))
    mu[:, 0] *= 0.01  # a unit that is not active
    history = pd.DataFrame({"epoch": [1.0, 2, 3], "train_elbo": [-150.0, -130, -125]})
    history["validation_elbo"] = [-151.0, -132.25, -133]
    pixels = random.random((4, 784))
    return Run(
        latent_dim,
        seed,
        {"is_log_likelihood": likelihood, "iwae_k": 50, "images": N},
        history,
        {**terms, "mu": mu, "kl_per_dimension": np.linspace(0.5, 2.5, latent_dim)},
        {"means": pixels},
        {"originals": np.zeros((4, 784)), "reconstructions": pixels / 2},
        {
            "data": {"name": "mnist"},
            "binarisation": "dynamic",
            "likelihood": "bernoulli",
            "best_epoch": 2,
        },
    )


def elbo(run: Run) -> str:
    """Its mean over images and 95 % interval."""
    values = run.evaluation["elbo"]
    return f"{values.mean():.2f} ± {1.96 * stats.sem(values):.2f}"


def text(*runs: Run) -> str:
    """What is said of them."""
    return observations([*runs], tables.differences(per_image(runs)))


def test_clear_differences_are_told_with_their_size_and_their_interval():
    runs = a_run(3, 0, 0, 0), a_run(20, 0, 50, 17.5)
    said = text(*runs)
    for term, name in (
        ("elbo", "ELBO"),
        ("log_px_given_z", "reconstruction term"),
        ("kl", "KL term"),
    ):
        values = runs[1].evaluation[term] - runs[0].evaluation[term]
        half = stats.norm.ppf(0.975) * stats.sem(values)
        assert f"the {name} is higher by {values.mean():.2f} ± {half:.2f}" in said
    assert f"The ELBO is {elbo(runs[0])} at k = 3 and {elbo(runs[1])} at k = 20." in said
    ratio = np.diff([run.evaluation["kl"].mean() for run in runs]) / np.diff(
        [run.evaluation["log_px_given_z"].mean() for run in runs]
    )
    assert f"the KL term takes {ratio.item():.0%} back" in said
    gap = runs[1].evaluation["iwae_bound"] - runs[1].evaluation["elbo"]
    assert f"{gap.mean():.2f} ± {1.96 * stats.sem(gap):.2f} at k = 20" in said


def test_what_the_images_cannot_tell_apart_is_not_told_apart():
    said = text(a_run(3, 0, 0, 0), a_run(20, 0, 0, -3))
    assert "the reconstruction term is not told apart" in said
    assert "the KL term is lower by 3.0" in said
    assert "takes" not in said


def test_several_seeds_give_intervals_over_trainings():
    runs = [a_run(k, seed, k, 0) for k in (3, 20) for seed in (0, 1, 2)]
    means = [run.evaluation["elbo"].mean() for run in runs]
    pairs = np.subtract(means[3:], means[:3])
    half = stats.t.interval(0.95, 2, pairs.mean(), stats.sem(pairs))[1] - pairs.mean()
    said = text(*runs)
    assert f"the ELBO is higher by {pairs.mean():.2f} ± {half:.2f}" in said
    assert "(seeds 0, 1 and 2)" in said
    assert "trained once" not in said
    assert "one training of each k" not in said


def test_one_seed_is_said_to_be_one():
    said = text(a_run(3, 7, 0, 0), a_run(20, 7, 50, 0))
    assert "trained once (seed 7)" in said
    assert "one training of each k cannot" in said


def test_units_epochs_and_pixels_are_counted():
    said = text(a_run(3, 0, 0, 0), a_run(20, 0, 50, 17))
    assert "between 0.5 and 2.5 nats, and 2 of 3 are active" in said
    assert "19 of 20 are active" in said
    assert "3 epochs, weights of epoch 2" in said
    assert "2.25 above that of the validation images" in said
    pixels = [a_run(k, 0, 0, 0).samples["means"] for k in (3, 20)]
    shares = [np.mean((some > 0.1) & (some < 0.9)) for some in pixels]
    assert f"the sampled means {shares[0]:.0%} and {shares[1]:.0%} lie between" in said
    assert "the test images that are reconstructed 0%." in said


def test_a_training_without_validation_says_nothing_of_it():
    run = a_run(3, 0, 0, 0)
    run.history["validation_elbo"] = np.nan
    assert "3 epochs, weights of epoch 2." in text(run)


def test_what_is_no_log_likelihood_is_not_called_a_bound():
    said = text(a_run(3, 0, 0, 0, likelihood=0), a_run(20, 0, 50, 17, likelihood=0))
    assert said.count("†") == 2
    assert "no number here is about log p(x)" in said
    assert "importance-weighted" not in said
    assert "†" not in text(a_run(3, 0, 0, 0))


def test_one_latent_dimension_is_compared_with_none():
    assert "Against" not in text(a_run(3, 0, 0, 0))


def test_no_number_survives_other_data():
    """Each sentence about results changes with them: none is typed."""
    pairs = [((0, 0), (50, 17)), ((2, 1), (43, 13))]
    said = [text(a_run(3, 0, *low), a_run(20, 0, *high)) for low, high in pairs]
    terms = [re.search(r"\*\*The two terms\.\*\* (.*)", one)[1] for one in said]
    numbers = [set(re.findall(r"(?<!± )\b\d+\.\d+|\d+%", one)) for one in terms]
    assert not numbers[0] & numbers[1]


@pytest.mark.parametrize(
    ("items", "words"), [(["a"], "a"), (["a", "b"], "a and b"), ([1, 2, 3], "1, 2 and 3")]
)
def test_lists_read_as_english(items, words):
    assert listed(items) == words


def test_variants_are_compared_on_one_scale_only():
    said = survey.observations(
        {
            "one": [a_run(20, 0, 0, 0)],
            "better": [a_run(20, 1, 5, 0)],
            "foreign": [a_run(20, 2, 9, 0, likelihood=0)],
        }
    )
    gain = a_run(20, 1, 5, 0).evaluation["elbo"] - a_run(20, 0, 0, 0).evaluation["elbo"]
    size = f"{gain.mean():.2f} ± {1.96 * stats.sem(gain):.2f}"
    assert f"The ELBO of better, against that of one, is higher by {size}." in said
    assert "No other variant is on the scale of foreign (no log-likelihood †)." in said
    assert said.count("against") == 1


def test_variants_with_several_seeds_are_paired_by_seed():
    seeds = (0, 1, 2)
    variants = {
        name: [a_run(20, seed, gain, 0) for seed in seeds]
        for name, gain in {"one": 0, "other": 5}.items()
    }
    pairs = [
        (other.evaluation["elbo"] - one.evaluation["elbo"]).mean()
        for one, other in zip(*variants.values(), strict=True)
    ]
    half = stats.t.interval(0.95, 2, np.mean(pairs), stats.sem(pairs))[1] - np.mean(pairs)
    assert f"higher by {np.mean(pairs):.2f} ± {half:.2f}" in survey.observations(variants)


def test_an_only_variant_is_described_as_an_experiment_is():
    runs = [a_run(3, 0, 0, 0), a_run(20, 0, 50, 17)]
    assert survey.observations({"only": runs}) == text(*runs)
