"""What the runs show, in sentences: every number is computed, and every claim is one it supports.

Intervals are 95 %: over test images where each k was trained once, over trainings where there are
several seeds. Where the interval of a difference holds zero, the sentence says so and no more.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aevb.intervals import Z95, mean_and_se, student_half_width
from aevb.plumbing.params import Latents
from aevb.report.comparison import Run, first_seed, principal_axes, setting
from aevb.report.tables import COLUMNS

BLURRED = 0.1, 0.9
"""A pixel between these is neither paper nor ink."""


def observations(runs: list[Run], differences: pd.DataFrame) -> str:
    """All sentences, as Markdown; `differences` are the runs', as `tables.differences` has them."""
    return paragraphs(
        {
            "What is compared": what(runs),
            "The two terms": two_terms(runs, differences),
            "What the dimensions carry": dimensions(runs),
            "How tight the bound is": tightness(runs),
            "Training": training(runs),
            "Images": blur(runs),
            "The latent space": axes(runs),
            "What is not shown": limits(runs),
        }
    )


def paragraphs(sentences: Mapping[str, Iterable[str]]) -> str:
    """A paragraph for each title that has sentences."""
    texts = {title: " ".join(some) for title, some in sentences.items()}
    return "\n".join(f"**{title}.** {text}\n" for title, text in texts.items() if text)


def what(runs: list[Run]) -> Iterator[str]:
    """The setting: data, units, what the intervals are about."""
    dims = listed([f"{run.latent_dim}" for run in first_seed(runs)])
    yield f"k = {dims} on {runs[0].metrics['images']:,} test images of {setting(runs)}."
    seeds = list(dict.fromkeys(run.seed for run in runs))
    if len(seeds) == 1:
        yield f"Each k was trained once (seed {seeds[0]}); intervals are over the test images."
    else:
        yield (
            f"Each k was trained {len(seeds)} times (seeds {listed(seeds)}); intervals are over "
            "these trainings, by Student's t."
        )
    yield "Numbers are nats per image, intervals 95 %."


def two_terms(runs: list[Run], differences: pd.DataFrame) -> Iterator[str]:
    """The ELBO; how it, its reconstruction term and its KL term differ from the first k's."""
    elbos = [f"{interval(group, lambda e: e['elbo'])} at k = {k}" for k, group in by_k(runs)]
    yield f"The ELBO is {listed(elbos)}."
    for k, terms in over_seeds(differences).items():
        changes = [f"the {COLUMNS[name]} is {changed(terms[name])}" for name in list(COLUMNS)[:3]]
        yield f"Against k = {terms['kl']['against']}, at k = {k} {listed(changes)}."
        gain, price = terms["log_px_given_z"], terms["kl"]
        if min(gain["low"], price["low"]) > 0:
            share = price["difference"] / gain["difference"]
            yield f"Of what it gains in reconstruction the KL term takes {share:.0%} back."


def over_seeds(differences: pd.DataFrame) -> dict[int, dict[str, dict[str, Any]]]:
    """The differences of each k, a row for each term: those over all seeds, or of the only one."""
    several = (differences["seed"] == "all").any()
    rows = differences[differences["seed"] == "all"] if several else differences
    result: dict[int, dict[str, dict[str, Any]]] = {}
    for row in rows.to_dict("records"):
        result.setdefault(row["latent_dim"], {})[row["term"]] = {
            str(key): value for key, value in row.items()
        }
    return result


def changed(row: Mapping[str, Any]) -> str:
    """A difference in words, as far as its interval allows."""
    half = (row["high"] - row["low"]) / 2
    if row["low"] <= 0 <= row["high"]:
        return f"not told apart ({row['difference']:+.2f} ± {half:.2f})"
    way = "higher" if row["difference"] > 0 else "lower"
    return f"{way} by {abs(row['difference']):.2f} ± {half:.2f}"


def dimensions(runs: list[Run]) -> Iterator[str]:
    """How the KL term is spread over the latent dimensions, and how many of them are active."""
    threshold = Latents().threshold
    for k, group in by_k(runs):
        kl = np.concatenate([run.evaluation["kl_per_dimension"] for run in group])
        active = [int((run.evaluation["mu"].var(0) > threshold).sum()) for run in group]
        yield (
            f"At k = {k} a dimension carries between {kl.min():.1f} and {kl.max():.1f} nats, and "
            f"{spanned(active)} of {k} are active."
        )
    yield f"(Active: the variance of mu over the test images is above {threshold:g}.)"


def tightness(runs: list[Run]) -> Iterator[str]:
    """How far the importance-weighted bound lies above the ELBO, where both bound log p(x)."""
    samples = runs[0].metrics["iwae_k"]
    if samples > 1 and runs[0].metrics["is_log_likelihood"]:
        gaps = [
            f"{interval(group, lambda e: e['iwae_bound'] - e['elbo'])} at k = {k}"
            for k, group in by_k(runs)
        ]
        yield (
            f"The importance-weighted bound (K = {samples}) lies above the ELBO by {listed(gaps)}: "
            "at least so much does the ELBO lose because q(z|x) is not the posterior."
        )


def training(runs: list[Run]) -> Iterator[str]:
    """When the trainings ended, and how far training and validation were apart then."""
    for run in first_seed(runs):
        epochs, best = len(run.history), run.metadata["best_epoch"]
        row = run.history.set_index("epoch").loc[best]
        gap = row["train_elbo"] - row["validation_elbo"]
        text = f"k = {run.latent_dim}, seed {run.seed}: {epochs} epochs, weights of epoch {best}"
        if np.isfinite(gap):
            text += (
                f", with the ELBO of the training images {abs(gap):.2f} "
                f"{'above' if gap > 0 else 'below'} that of the validation images"
            )
        yield f"{text}."


def blur(runs: list[Run]) -> Iterator[str]:
    """How many pixels of what is shown are neither paper nor ink."""

    def share(images: NDArray[Any]) -> str:
        low, high = BLURRED
        return f"{((images > low) & (images < high)).mean():.0%}"

    shown = first_seed(runs)
    ks = listed([f"k = {run.latent_dim}" for run in shown])
    means = listed([share(run.samples["means"]) for run in shown])
    decoded = listed([share(run.reconstructions["reconstructions"]) for run in shown])
    real = share(shown[0].reconstructions["originals"])
    yield (
        f"Of the pixels of the sampled means {means} lie between {BLURRED[0]} and {BLURRED[1]}, "
        f"neither paper nor ink, at {ks}; of those of the reconstructions {decoded}; of those of "
        f"the test images that are reconstructed {real}."
    )


def axes(runs: list[Run]) -> Iterator[str]:
    """How much of the codes' variance a plane can show."""
    shares = [
        f"{sum(principal_axes(run.evaluation['mu'])[1]):.0%} at k = {run.latent_dim}"
        for run in first_seed(runs)
    ]
    yield f"The two main axes of mu hold {listed(shares)} of its variance over the test images."


def limits(runs: list[Run]) -> Iterator[str]:
    """What these numbers are not about."""
    if not runs[0].metrics["is_log_likelihood"]:
        yield "† This likelihood does not suit these pixels: no number here is about log p(x)."
    if len({run.seed for run in runs}) == 1:
        yield "Another seed gives other weights; one training of each k cannot show how other."
    yield "Figures of images show the first seed; none of these numbers says which looks better."


def interval(runs: Sequence[Run], of: Callable[[Any], NDArray[Any]]) -> str:
    """The mean of a value per image with its 95 % interval, as `1.23 ± 0.04`."""
    values = [of({key: x.astype(float) for key, x in run.evaluation.items()}) for run in runs]
    means = [value.mean() for value in values]
    half = student_half_width(means) if len(runs) > 1 else Z95 * mean_and_se(values[0])[1]
    return f"{np.mean(means):.2f} ± {half:.2f}"


def by_k(runs: list[Run]) -> Iterator[tuple[int, list[Run]]]:
    """The runs of each latent dimension, in their order."""
    for k in dict.fromkeys(run.latent_dim for run in runs):
        yield k, [run for run in runs if run.latent_dim == k]


def spanned(numbers: Sequence[int]) -> str:
    """`3`, or `2 to 3` where they differ."""
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"


def listed(items: Sequence[Any]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    texts = [str(item) for item in items]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
