"""What the runs show, in sentences whose numbers are computed from the results.

Intervals are 95 % intervals by Student's t: over test images if each model was trained once, over
trainings if there are several seeds.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isnan
from typing import Any

from numpy.typing import NDArray

from aevb.intervals import Estimate
from aevb.report.comparison import principal_axes
from aevb.report.runs import (
    MARK,
    TERMS,
    Run,
    Variants,
    models,
    overall,
    paired_differences,
    scale,
    seeds,
    setting,
)

GREY = 0.1, 0.9
"""Pixels between these values are counted as grey."""
USED = 0.01
"""Latent dimensions are counted if their mean KL is larger, in nats."""


def discussion(variants: Variants) -> str:
    """All paragraphs as Markdown: about each k of an experiment, or the variants of a study."""
    groups = models(variants)
    dims = list(dict.fromkeys(runs[0].latent_dim for runs in groups.values()))
    if len(variants) > 1:
        results = {f"k = {k}": _variants(variants, k) for k in dims}
    else:
        results = {name: _model(groups, name) for name in groups}
    paragraphs = {"Setting": _setting(variants, dims), **results, "Limits": _limits(variants)}
    return "\n".join(f"**{title}.** {' '.join(text)}\n" for title, text in paragraphs.items())


def _setting(variants: Variants, dims: Sequence[int]) -> Iterator[str]:
    names = f"{listed(variants)}, each with " if len(variants) > 1 else ""
    images = next(iter(variants.values()))[0].metrics["images"]
    yield f"{names}k = {listed(dims)} on {images:,} test images of {setting(variants)}."
    trained, over = seeds(variants), "trainings" if len(seeds(variants)) > 1 else "test images"
    word = "seeds" if len(trained) > 1 else "seed"
    yield f"Each model was trained with {word} {listed(trained)}."
    yield f"Numbers are in nats per image, with 95 % intervals over {over} by Student's t."


def _variants(variants: Variants, latent_dim: int) -> Iterator[str]:
    """The ELBO of each variant compared with the first variant on the same scale, for one k."""
    scales: dict[str, dict[str, list[Run]]] = {}
    for name, all_runs in variants.items():
        runs = [run for run in all_runs if run.latent_dim == latent_dim]
        scales.setdefault(scale(runs[0]), {})[name] = runs
    for what, groups in scales.items():
        first, *others = groups
        if not others:
            yield f"No other variant is on the scale of {first} ({what})."
        for name in others:
            change = changed(_difference("elbo", groups[name], groups[first]))
            yield f"Compared with {first}, the ELBO of {name} is {change}."


def _model(groups: Mapping[str, Sequence[Run]], name: str) -> Iterator[str]:
    """The results for one k, compared with those for the first k."""
    runs, (reference, *_) = groups[name], groups
    run, metrics = runs[0], runs[0].metrics
    elbo = overall([run.evaluation["elbo"] for run in runs])
    yield f"The ELBO is {_with_interval(elbo)}."
    if metrics["iwae_k"] > 1 and metrics["is_log_likelihood"]:
        terms = [run.evaluation for run in runs]
        gap = overall([term["iwae_bound"].astype(float) - term["elbo"] for term in terms])
        yield f"The IWAE bound with K = {metrics['iwae_k']} is higher by {_with_interval(gap)}."
    if name != reference:
        names = ("elbo", "log_px_given_z", "kl")
        changes = {term: _difference(term, runs, groups[reference]) for term in names}
        texts = [f"the {TERMS[term]} is {changed(change)}" for term, change in changes.items()]
        gain, cost = changes["log_px_given_z"], changes["kl"]
        yield f"Compared with {reference}, {listed(texts)}."
        if min(gain.low, cost.low) > 0:
            share = _percent(cost.mean / gain.mean)
            yield f"The larger KL term offsets {share} of the gain in reconstruction."

    best = run.metadata["best_epoch"]
    epoch = run.history.set_index("epoch").loc[best]
    gap = epoch["train_elbo"] - epoch["validation_elbo"]
    text = f"Training took {len(run.history)} epochs; the weights are those of epoch {best}"
    if not isnan(gap):  # there are validation images
        way = "higher" if gap > 0 else "lower"
        text += f", when the training ELBO was {abs(gap):.2f} {way} than the validation ELBO"
    yield f"{text}."

    kl = run.evaluation["kl_per_dimension"]
    share = _percent(sum(principal_axes(run.evaluation["mu"])[1]))
    yield (
        f"The mean KL of a latent dimension is between {kl.min():.2f} and {kl.max():.2f}, and over "
        f"{USED} in {(kl > USED).sum()} of {len(kl)} dimensions. The first two principal axes of "
        f"mu explain {share} of its variance over the test images."
    )
    images = run.reconstructions
    yield (
        f"The share of pixels between {GREY[0]} and {GREY[1]} is {_grey(run.samples['means'])} in "
        f"the decoder means of samples, {_grey(images['reconstructions'])} in reconstructions of "
        f"test images, and {_grey(images['originals'])} in these test images."
    )


def _grey(images: NDArray[Any]) -> str:
    """The share of pixels that are neither nearly black nor nearly white, a sign of blur."""
    return _percent(((images > GREY[0]) & (images < GREY[1])).mean())


def _limits(variants: Variants) -> Iterator[str]:
    """What these numbers do not show."""
    first = next(iter(variants.values()))[0]
    if len(variants) == 1 and not first.metrics["is_log_likelihood"]:
        yield f"{MARK} The likelihood does not suit the binarisation: no number bounds log p(x)."
    if len(seeds(variants)) == 1:
        yield "One training per model does not show how much the results vary between trainings."
    else:
        yield f"Images, and numbers without an interval, are those of seed {first.seed}."


def changed(change: Estimate) -> str:
    """A difference in words; one whose interval includes zero is not significant."""
    mean, se, low, high = change
    if low <= 0 <= high:
        return f"not significantly different ({_with_interval(change, '+')})"
    if mean < 0:
        return f"lower by {_with_interval(Estimate(-mean, se, -high, -low))}"
    return f"higher by {_with_interval(change)}"


def listed(items: Iterable[Any]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *others, last = (str(item) for item in items)
    return f"{', '.join(others)} and {last}" if others else last


def _difference(term: str, runs: Sequence[Run], reference: Sequence[Run]) -> Estimate:
    return overall(paired_differences(term, runs, reference))


def _with_interval(mean: Estimate, sign: str = "") -> str:
    return f"{mean.mean:{sign}.2f} [{mean.low:{sign}.2f}, {mean.high:{sign}.2f}]"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
