"""What the optional stages found, on all runs side by side: a table, sentences, figures."""

import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from aevb.files import Arrays
from aevb.intervals import mean_and_se, student_half_width
from aevb.report.discussion import paragraphs
from aevb.report.figures import PALETTE, new_figure

Found = Mapping[tuple[int, int | str], Mapping[str, Mapping[str, float]]]
"""For each (latent_dim, seed) the metrics of each stage."""

ALL = "all seeds"

ESTIMATORS = {
    "score": "score function",
    "baseline": "score function with a baseline",
    "reparametrised": "reparametrised",
}
"""The estimators of the gradient as figures spell them."""


def findings(found: Found) -> pd.DataFrame:
    """A row for each number: stage, metric, latent_dim, seed, value and, where it has one, se."""
    rows = [
        (stage, name, k, seed, value, metrics.get(f"{name}_se"))
        for (k, seed), stages in found.items()
        for stage, metrics in stages.items()
        for name, value in metrics.items()
        if not (name.endswith("_se") and name.removesuffix("_se") in metrics)
    ]
    return pd.DataFrame(rows, columns=["stage", "metric", "latent_dim", "seed", "value", "se"])


def over_seeds(found: Found) -> Found:
    """For each k the metrics' means over trainings, and as `_se` half their 95 % intervals.

    What is the same in all of them, as a number of images or the value of real images, stays so.
    """
    groups: dict[int, list[Mapping[str, Mapping[str, float]]]] = {}
    for (k, _), stages in found.items():
        groups.setdefault(k, []).append(stages)
    return {
        (k, ALL): {stage: _mean([run[stage] for run in runs]) for stage in runs[0]}
        for k, runs in groups.items()
    }


def _mean(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """One stage's metrics over seeds."""
    result: dict[str, float] = {}
    for name, first in runs[0].items():
        values = [run[name] for run in runs]
        if name.endswith("_se") and name.removesuffix("_se") in runs[0]:
            continue
        result[name] = first
        if len({*values}) > 1:
            result |= {name: float(np.mean(values)), f"{name}_se": student_half_width(values)}
    return result


def as_markdown(table: pd.DataFrame) -> str:
    """The findings to read: a row for each number, a column for each run."""
    cells = table.assign(
        cell=[
            f"{value:.4g}" if math.isnan(se) else _with_error(value, se)
            for value, se in zip(table["value"], table["se"].astype(float), strict=True)
        ],
        run=[_name(row.latent_dim, row.seed) for row in table.itertuples()],
    )
    wide = cells.pivot_table("cell", ["stage", "metric"], "run", aggfunc="first", sort=False)
    text = wide.fillna("").reset_index().to_markdown(index=False, disable_numparse=True)
    error = (
        "half the 95 % interval of the mean over trainings, by Student's t"
        if (table["seed"] == ALL).any()
        else "the standard error, over images unless the stage says otherwise"
    )
    return f"{text}\n\n± is {error}.\n"


def _name(latent_dim: Any, seed: Any) -> str:
    return f"k = {latent_dim}, {seed if seed == ALL else f'seed {seed}'}"


def _with_error(value: float, se: float) -> str:
    """Both with the digits that the error has: two of them."""
    digits = 2 if se <= 0 else max(0, 1 - int(np.floor(np.log10(se))))
    return f"{value:,.{digits}f} ± {se:,.{digits}f}"


SENTENCES = {
    "How tight the bound is": (
        "At {run} log p(x) by annealed importance sampling lies {ais.log_px_minus_elbo} nats above "
        "the ELBO and {ais.log_px_minus_iwae} above the importance-weighted bound with K = "
        "{ais.iwae_k} of the same {ais.images} images; on simulated images it is enclosed to "
        "{ais.simulated_gap} nats."
    ),
    "What reparametrisation saves": (
        "At {run} one draw of the score function's gradient has {estimators.variance_ratio_score} "
        "times the variance of a reparametrised one, with a baseline "
        "{estimators.variance_ratio_baseline} times. For noise as small as the gradient it takes "
        "{estimators.samples_needed_score} draws, with a baseline "
        "{estimators.samples_needed_baseline}, reparametrised "
        "{estimators.samples_needed_reparametrised}."
    ),
    "What the latents hold": (
        "At {run} {latents.active_units} units are active. Of the KL term "
        "{latents.mutual_information} nats are information about which of the {latents.images} "
        "images it is, whose entropy is {latents.log_images} nats; {latents.marginal_kl} are the "
        "distance of their codes from the prior. From mu, the nearest neighbours name the class of "
        "a share of {latents.knn_accuracy}, a linear classifier of {latents.linear_accuracy}."
    ),
    "What the samples are worth": (
        "At {run} precision is {fidelity.precision}, recall {fidelity.recall} and the Fréchet "
        "distance {fidelity.frechet}, where real images reach {fidelity.precision_real}, "
        "{fidelity.recall_real} and {fidelity.frechet_real}; {fidelity.closer_to_train} of the "
        "samples are nearer to a training image than to any of as many test images."
    ),
}
"""What is said of each run, with its stages' metrics in place of their names."""


def observations(found: Found) -> str:
    """The findings in sentences, a paragraph for each question; ± as in the table."""
    words = [
        {"run": f"{_name(k, seed)},", **{name: _words(stages[name]) for name in stages}}
        for (k, seed), stages in found.items()
    ]
    return paragraphs(
        {
            title: [sentence.format(**of_run) for of_run in words]
            for title, sentence in SENTENCES.items()
        }
    )


def _words(metrics: Mapping[str, float]) -> SimpleNamespace:
    """Metrics as text, with their standard errors where they have one."""
    return SimpleNamespace(
        **{
            name: _with_error(value, metrics[f"{name}_se"])
            if f"{name}_se" in metrics
            else f"{value:,}"
            if isinstance(value, int)
            else f"{value:.4g}"
            for name, value in metrics.items()
        }
    )


def above_the_elbo(found: Found, ladders: Mapping[tuple[int, int], Arrays]) -> Figure:
    """How far each bound lies above the ELBO, image by image, against the number of samples.

    Lines and marks belong to runs; the marks at the right are annealed importance sampling on its
    own images, which does not use q(z|x).
    """
    figure = new_figure(8, 4.8, "Bounds on log p(x) against the number of samples, test images")
    axis = figure.add_subplot()
    dims = list(dict.fromkeys(k for k, _ in ladders))
    colours = dict(zip(dims, sns.color_palette(PALETTE, len(dims)), strict=True))
    for number, ((k, seed), terms) in enumerate(ladders.items()):
        elbo = terms["log_px_given_z"].astype(float) - terms["kl"]
        points = [mean_and_se(bound - elbo) for bound in terms["iwae_bound"].T.astype(float)]
        heights, errors = zip(*points, strict=True)
        label = (
            f"IWAE bound, k = {k}"
            if (k, seed) == next(run for run in ladders if run[0] == k)
            else None
        )
        style: dict[str, Any] = {"color": colours[k], "capsize": 3}
        axis.errorbar(terms["k"], heights, errors, marker="o", label=label, **style)
        ais = found[k, seed]["ais"]
        place = terms["k"].max() * 4 * 1.15**number
        axis.errorbar(
            place, ais["log_px_minus_elbo"], ais["log_px_minus_elbo_se"], marker="D", **style
        )
    axis.set(
        xscale="log",
        xlabel="K, samples of z an image",
        ylabel="nats per image above the ELBO",
    )
    axis.margins(x=0.12)
    axis.grid(alpha=0.3)
    ais_mark = Line2D([], [], color="gray", marker="D", ls="", label="AIS, at no K")
    bounds = axis.get_legend_handles_labels()[0]
    axis.legend(handles=[*bounds, ais_mark], frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def noise_of_the_gradient(found: Found) -> Figure:
    """Standard deviation of each estimate of the gradient against its number of draws, L.

    It is √(variance of one draw / L), root mean square over images: a line for each estimator and
    run, a panel for each k. The baseline is that of all draws of the stage, not of L.
    """
    dims = list(dict.fromkeys(k for k, _ in found))
    title = "Noise of the gradient of E log p(x|z) by μ(x), mean over L draws, test images"
    figure = new_figure(1.2 + 3.4 * len(dims), 4.6, title)
    panels = figure.subplots(1, len(dims), sharey=True, squeeze=False)[0]
    colours = sns.color_palette(PALETTE, len(ESTIMATORS))
    ends = np.array([1, 1000])
    for (k, _), stages in found.items():
        axis, metrics = panels[dims.index(k)], stages["estimators"]
        for (name, label), colour in zip(ESTIMATORS.items(), colours, strict=True):
            axis.plot(ends, np.sqrt(metrics[f"variance_{name}"] / ends), color=colour, label=label)
        # The estimate is unbiased, so that with few draws it may lie below 0.
        norm = math.sqrt(max(metrics["squared_norm_reparametrised"], 0))
        axis.axhline(norm, color="black", linestyle="--", label="norm of the gradient")
        axis.set(title=f"k = {k}", xscale="log", yscale="log", xlabel="L, draws of z an image")
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("standard deviation, nats per unit of μ")
    labelled = dict(zip(*reversed(panels[0].get_legend_handles_labels()), strict=True))
    figure.legend(
        labelled.values(), labelled.keys(), loc="outside lower center", ncols=2, frameon=False
    )
    return figure
