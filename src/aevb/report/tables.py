"""The tables and the discussion of a comparison, from the results and settings of its runs.

± is a standard error over images; [low, high] is a 95 % interval by Student's t, over images if
each model was trained once, over trainings if there are several seeds.
"""

from collections.abc import Iterable, Iterator, Sequence
from math import isnan
from statistics import stdev
from typing import Any

from aevb.intervals import Estimate, estimate, mean
from aevb.report.runs import MARK, TERMS, Models, Run, first_runs, seeds, setting

import pandas as pd
from numpy.typing import NDArray

USED = 0.01
"""Latent dimensions are counted if their mean KL is larger, in nats."""
NOTE = f"{MARK} Not a log-likelihood: this likelihood does not suit this binarisation."
ONE_SEED = {"{seed}": "{:.2f} ± {se:.2f}"}
ALL_SEEDS = {"all, mean (sd)": "{:.2f} ({sd:.2f})", "all, 95 %": "[{low:.2f}, {high:.2f}]"}
"""For each row of text, its cell in the column `seed` and those in the columns of the terms."""
PIXELS = {
    "dynamic": "zeros and ones: drawn again in each epoch, once for validation and test",
    "static": "zeros and ones, drawn once",
    "none": "gray levels in [0, 1]",
}


def texts(models: Models) -> dict[str, str]:
    """The contents of all files of text, by their names."""
    runs, changes = table(models), differences(models)
    return {
        "table.csv": as_csv(runs),
        "table.md": as_markdown(runs),
        "differences.csv": as_csv(changes),
        "differences.md": differences_as_markdown(changes, over(models)),
        "discussion.md": discussion(models),
    }


def table(models: Models) -> pd.DataFrame:
    """The metrics of every run, with a column `variant` if there are several variants.

    Of several seeds, a further row for each model, with seed `all`, has the mean over seeds of each
    term, the standard error of this mean (`_se`), the standard deviation over seeds (`_sd`) and the
    95 % interval of the mean (`_low`, `_high`).
    """
    rows: list[dict[str, Any]] = []
    for runs in models.values():
        first = runs[0]
        named: dict[str, Any] = {"variant": first.variant} if first.variant else {}
        named |= {"latent_dim": first.latent_dim, "seed": "all"}
        named |= {name: first.metadata[name] for name in ("binarisation", "likelihood")}
        rows += [{**named, "seed": run.seed, **run.metrics} for run in runs]
        if len(runs) > 1:
            row = named | {name: first.metrics[name] for name in ("is_log_likelihood", "iwae_k")}
            for term in TERMS:
                numbers = [run.metrics[term] for run in runs]
                centre, se, low, high = estimate(numbers)
                row |= {term: centre, f"{term}_se": se, f"{term}_sd": stdev(numbers)}
                row |= {f"{term}_low": low, f"{term}_high": high}
            rows.append(row)
    return pd.DataFrame(rows)


def as_csv(frame: pd.DataFrame) -> str:
    """A table as data, with six significant digits."""
    return str(frame.to_csv(index=False, lineterminator="\n", float_format="%.6g"))


def as_markdown(frame: pd.DataFrame) -> str:
    """The table to read: a row for each run, two rows over all seeds, and what the numbers are."""
    lines = []
    for row in frame.to_dict("records"):
        mark = "" if row["is_log_likelihood"] else f" {MARK}"
        for seed, cell in (ALL_SEEDS if row["seed"] == "all" else ONE_SEED).items():
            line = {"variant": row["variant"]} if "variant" in row else {}
            line |= {"k": row["latent_dim"], "seed": seed.format_map(row)}
            line |= {"binarisation": row["binarisation"]}
            line |= {"likelihood": row["likelihood"].replace("_", " ") + mark}
            for term, title in TERMS.items():
                name = f"{title} (K = {row['iwae_k']})" if term == "iwae_bound" else title
                numbers = {end: row.get(f"{term}_{end}") for end in ("se", "sd", "low", "high")}
                line[name] = cell.format(row[term], **numbers) + mark
            lines.append(line)
    text = "Test set, nats per image; ± is the standard error over images."
    if "all" in frame["seed"].tolist():
        text += " Over all seeds: the mean with the standard deviation over seeds (sd), and the "
        text += "95 % interval of the mean by Student's t."
    if not frame["is_log_likelihood"].all():
        text += f" {NOTE}"
    return f"{_markdown(pd.DataFrame(lines))}\n\n{text}\n"


def over(models: Models) -> str:
    """What the intervals are over."""
    return "trainings" if len(seeds(models)) > 1 else "test images"


def overall(values: Sequence[NDArray[Any]]) -> Estimate:
    """The mean of values [N] of each seed: over seeds if there are several, else over images."""
    return estimate(values[0] if len(values) == 1 else [mean(of_seed) for of_seed in values])


def difference(term: str, runs: Sequence[Run], reference: Sequence[Run]) -> Estimate:
    """The mean of a term minus that of the reference runs, for the same images and seeds."""
    pairs = zip(runs, reference, strict=True)
    return overall([a.evaluation[term].astype(float) - b.evaluation[term] for a, b in pairs])


def differences(models: Models) -> pd.DataFrame:
    """Mean differences in nats per image of every k from the first k of the same variant.

    Differences are taken for the same test images and seeds; they are positive if the term of k is
    higher. Standard errors and intervals are over images, or over trainings for several seeds.
    """
    first: dict[str, Sequence[Run]] = {}
    rows = []
    for runs in models.values():
        variant, k = runs[0].variant, runs[0].latent_dim
        reference = first.setdefault(variant, runs)
        if reference is not runs:
            named = variant, k, reference[0].latent_dim
            rows += [(*named, term, *difference(term, runs, reference)) for term in TERMS]
    names = ["variant", "latent_dim", "against", "term", "difference", "se", "low", "high"]
    frame = pd.DataFrame(rows, columns=names)
    return frame if any(first) else frame.drop(columns="variant")


def differences_as_markdown(frame: pd.DataFrame, what: str) -> str:
    """The differences to read, with intervals over `what`."""
    if frame.empty:
        return "There is only one latent dimension: nothing to compare.\n"
    numbers = frame[["difference", "se", "low", "high"]].to_numpy()
    cells = frame.drop(columns=["se", "low", "high"]).rename(columns={"latent_dim": "k"})
    cells["term"] = cells["term"].map(TERMS)
    cells["difference"] = [Estimate(*row).text("+") for row in numbers]
    note = "Mean differences for the same test images, in nats per image, with 95 % intervals over"
    return f"{_markdown(cells)}\n\n{note} {what}.\n"


def _markdown(cells: pd.DataFrame) -> str:
    return str(cells.to_markdown(index=False, disable_numparse=True))


def settings(models: Models) -> str:
    """A Markdown table of the settings of an experiment."""
    runs = [run for of_model in models.values() for run in of_model]
    metrics, values = runs[0].metrics, runs[0].metadata
    validated = runs[0].history["validation_elbo"].notna().all()
    training = f"{values['train_images']:,} training images"
    training += ", the rest of the original training set for validation" if validated else ""
    stopping = f"after {values['max_epochs']} epochs"
    kept = "the last"
    if validated:
        stopping += f", or when the validation ELBO has not risen for {values['patience']} epochs"
        kept = "those with the best validation ELBO"
    optimiser = f"{values['optimiser'].title()}, {values['batch_size']} images per minibatch"
    if values["weight_decay"]:
        optimiser += f", weight decay {values['weight_decay']:g}"
    if values["initialisation"] == "paper":
        optimiser += ", initial weights from N(0, 0.01)"
    rate = f"{values['learning_rate']}, constant"
    if values["decay"]:
        share = f"{100 * values['decay']:g} % of training"
        rate = f"{values['learning_rate']}, decaying linearly to 0 in the last {share}"
    rows = {
        "data": f"{runs[0].dataset}: {training}; {metrics['images']:,} test images",
        "pixels": PIXELS[values["binarisation"]],
        "likelihood": values["likelihood"].replace("_", " "),
        "dimensions of z": "k = " + ", ".join(dict.fromkeys(str(run.latent_dim) for run in runs)),
        "hidden layers": f"{values['hidden']} tanh units each",
        "optimiser": optimiser,
        "learning rate": rate,
        "samples of z per image": f"r = {values['mc_samples']} in training, "
        f"{metrics['iwae_k']} in testing",
        "stopping": stopping,
        "weights": kept,
        "seeds": ", ".join(dict.fromkeys(str(run.seed) for run in runs)),
        "arithmetic": f"{values['precision']}, on {values['device']}",
    }
    lines = [("setting", "value"), (":---", ":---"), *rows.items()]
    return "".join(f"| {name} | {value} |\n" for name, value in lines)


def discussion(models: Models) -> str:
    """All paragraphs as Markdown: about each k of an experiment, or the variants of a study."""
    first = first_runs(models).values()
    dims = list(dict.fromkeys(run.latent_dim for run in first))
    variants = list(dict.fromkeys(run.variant for run in first))
    about = {"Setting": _setting(models, variants, dims)}
    if len(variants) > 1:
        about |= {f"k = {k}": _variants(models, k) for k in dims}
    else:
        about |= {name: _model(models, name) for name in models}
    return "\n".join(f"**{title}.** {' '.join(text)}\n" for title, text in about.items())


def _setting(models: Models, variants: Sequence[str], dims: Sequence[int]) -> Iterator[str]:
    names = f"{_listed(variants)}, each with " if len(variants) > 1 else ""
    images = next(iter(first_runs(models).values())).metrics["images"]
    yield f"{names}k = {_listed(dims)} on {images:,} test images of {setting(models)}."
    first, *others = seeds(models)
    if others:
        yield f"Each model was trained with seeds {_listed(seeds(models))}."
        yield f"Numbers without an interval are those of seed {first}."
    else:
        yield f"Each model was trained once, with seed {first}."
        yield "No interval includes the variation between trainings."
    interval = f"[low, high] is a 95 % interval over {over(models)} by Student's t"
    yield f"Numbers are in nats per image; {interval}."


def _variants(models: Models, k: int) -> Iterator[str]:
    """The ELBO of each variant compared with the first variant on the same scale, for one k."""
    groups = [runs for runs in models.values() if runs[0].latent_dim == k]
    scales = [runs[0].scale for runs in groups]
    for runs, scale in zip(groups, scales, strict=True):
        name, reference = runs[0].variant, groups[scales.index(scale)]
        if runs is not reference:
            change = difference("elbo", runs, reference).text("+")
            yield f"Compared with {reference[0].variant}, the ELBO of {name} differs by {change}."
        elif scales.count(scale) == 1:
            yield f"No other variant is on the scale of {name} ({scale})."


def _model(models: Models, name: str) -> Iterator[str]:
    """The results for one k, compared with those for the first k."""
    runs, (first, *_) = models[name], models
    run, metrics = runs[0], runs[0].metrics
    yield f"The ELBO is {overall([run.evaluation['elbo'] for run in runs]).text()}."
    if metrics["iwae_k"] > 1 and metrics["is_log_likelihood"]:
        terms = [run.evaluation for run in runs]
        gain = overall([term["iwae_bound"].astype(float) - term["elbo"] for term in terms])
        yield f"The IWAE bound with K = {metrics['iwae_k']} is higher by {gain.text()}."
    if name != first:
        elbo, gain, cost = (
            difference(term, runs, models[first]) for term in ("elbo", "log_px_given_z", "kl")
        )
        yield (
            f"Compared with {first}, the ELBO differs by {elbo.text('+')}, the reconstruction term "
            f"by {gain.text('+')} and the KL term by {cost.text('+')}."
        )
        if min(gain.low, cost.low) > 0:
            share = 100 * cost.mean / gain.mean
            yield f"The larger KL term offsets {share:.0f} % of the gain in reconstruction."

    best = run.metadata["best_epoch"]
    epoch = run.history.set_index("epoch").loc[best]
    text = f"Training took {len(run.history)} epochs; the weights are those of epoch {best}"
    gap = epoch["train_elbo"] - epoch["validation_elbo"]
    if not isnan(gap):  # there are validation images
        way = "higher" if gap > 0 else "lower"
        text += f", when the training ELBO was {abs(gap):.2f} {way} than the validation ELBO"
    yield f"{text}."
    kl = run.evaluation["kl_per_dimension"]
    yield (
        f"The mean KL of a latent dimension is between {kl.min():.2f} and {kl.max():.2f}, and over "
        f"{USED} in {(kl > USED).sum()} of {len(kl)} dimensions."
    )


def _listed(items: Iterable[Any]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *others, last = (str(item) for item in items)
    return f"{', '.join(others)} and {last}" if others else last
