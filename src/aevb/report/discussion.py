"""What the runs show, in sentences whose numbers are computed from the results.

Intervals are 95 % intervals by Student's t: over test images if each model was trained once, over
trainings if there are several seeds.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isnan
from typing import Any

from numpy.typing import NDArray

from aevb.report import runs as results
from aevb.report.runs import MARK, TERMS, Run, Variants, difference, overall

GREY = 0.1, 0.9
"""Pixels between these values are counted as grey."""
USED = 0.01
"""Latent dimensions are counted if their mean KL is larger, in nats."""


def discussion(variants: Variants) -> str:
    """All paragraphs as Markdown: about each k of an experiment, or the variants of a study."""
    models = results.models(variants)
    dims = list(dict.fromkeys(runs[0].latent_dim for runs in models.values()))
    about = {"Setting": _setting(variants, dims)}
    if len(variants) > 1:
        about |= {f"k = {k}": _variants(variants, k) for k in dims}
    else:
        about |= {name: _model(models, name) for name in models}
    about["Limits"] = _limits(variants)
    return "\n".join(f"**{title}.** {' '.join(text)}\n" for title, text in about.items())


def _setting(variants: Variants, dims: Sequence[int]) -> Iterator[str]:
    names = f"{_listed(variants)}, each with " if len(variants) > 1 else ""
    images = next(iter(variants.values()))[0].metrics["images"]
    setting, seeds = results.setting(variants), results.seeds(variants)
    yield f"{names}k = {_listed(dims)} on {images:,} test images of {setting}."
    word, over = ("seeds", "trainings") if len(seeds) > 1 else ("seed", "test images")
    yield f"Each model was trained with {word} {_listed(seeds)}."
    yield f"Numbers are in nats per image, with 95 % intervals over {over} by Student's t."


def _variants(variants: Variants, k: int) -> Iterator[str]:
    """The ELBO of each variant compared with the first variant on the same scale, for one k."""
    groups = {name: [run for run in runs if run.latent_dim == k] for name, runs in variants.items()}
    scales = [runs[0].scale for runs in groups.values()]
    for name, scale in zip(groups, scales, strict=True):
        first = [*groups][scales.index(scale)]
        if name != first:
            yield _compared(groups[name], first, groups[first], {"elbo": f"ELBO of {name}"})
        elif scales.count(scale) == 1:
            yield f"No other variant is on the scale of {name} ({scale})."


def _compared(
    runs: Sequence[Run], name: str, reference: Sequence[Run], titles: Mapping[str, str]
) -> str:
    """Runs compared with reference runs of this name, by the terms with these titles."""
    changes = {term: difference(term, runs, reference) for term in titles}
    texts = [f"the {titles[term]} is {change.as_change()}" for term, change in changes.items()]
    return f"Compared with {name}, {_listed(texts)}."


def _model(models: Variants, name: str) -> Iterator[str]:
    """The results for one k, compared with those for the first k."""
    runs, (first, *_) = models[name], models
    run, metrics = runs[0], runs[0].metrics
    yield f"The ELBO is {overall([run.evaluation['elbo'] for run in runs]).text()}."
    if metrics["iwae_k"] > 1 and metrics["is_log_likelihood"]:
        terms = [run.evaluation for run in runs]
        gain = overall([term["iwae_bound"].astype(float) - term["elbo"] for term in terms])
        yield f"The IWAE bound with K = {metrics['iwae_k']} is higher by {gain.text()}."
    if name != first:
        titles = {term: TERMS[term] for term in ("elbo", "log_px_given_z", "kl")}
        yield _compared(runs, first, models[first], titles)
        gain, cost = (difference(term, runs, models[first]) for term in ("log_px_given_z", "kl"))
        if min(gain.low, cost.low) > 0:
            share = _percent(cost.mean / gain.mean)
            yield f"The larger KL term offsets {share} of the gain in reconstruction."

    best = run.metadata["best_epoch"]
    epoch = run.history.set_index("epoch").loc[best]
    text = f"Training took {len(run.history)} epochs; the weights are those of epoch {best}"
    gap = epoch["train_elbo"] - epoch["validation_elbo"]
    if not isnan(gap):  # there are validation images
        way = "higher" if gap > 0 else "lower"
        text += f", when the training ELBO was {abs(gap):.2f} {way} than the validation ELBO"
    yield f"{text}."

    kl = run.evaluation["kl_per_dimension"]
    share = _percent(sum(results.principal_axes(run.evaluation["mu"])[1]))
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


def _limits(variants: Variants) -> Iterator[str]:
    """What these numbers do not show."""
    first = next(iter(variants.values()))[0]
    if len(variants) == 1 and not first.metrics["is_log_likelihood"]:
        yield f"{MARK} The likelihood does not suit the binarisation: no number bounds log p(x)."
    if len(results.seeds(variants)) == 1:
        yield "One training per model does not show how much the results vary between trainings."
    else:
        yield f"Images, and numbers without an interval, are those of seed {first.seed}."


def _listed(items: Iterable[Any]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *others, last = (str(item) for item in items)
    return f"{', '.join(others)} and {last}" if others else last


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _grey(images: NDArray[Any]) -> str:
    """The share of pixels that are neither nearly black nor nearly white, a sign of blur."""
    return _percent(((images > GREY[0]) & (images < GREY[1])).mean())
