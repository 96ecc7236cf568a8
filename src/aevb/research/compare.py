"""Compare what the other stages found on all runs: table, sentences, figures.

Only the files of the runs named by --latent_dims and --seeds are read. ± is a standard error;
with several seeds, [low, high] is the 95 % interval of the mean over trainings.
"""

import math
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from aevb.files import Arrays, read_json, read_tensors, write_text
from aevb.intervals import mean_and_se, student_half_width
from aevb.report.figures import new_figure, save_figure
from aevb.research import scoring

Metrics = Mapping[str, float]
Found = Mapping[tuple[int, int | str], Mapping[str, Metrics]]
"""For each (latent_dim, seed) the metrics of each stage."""

STAGES = ("iwae", "ais", "gradient_variance", "latents", "sample_quality")
ALL = "all seeds"
SPREADS = ("se", "low", "high")
"""`elbo_se`, `elbo_low` and `elbo_high` are the standard error and the interval of `elbo`."""
SATURATED = 0.95
"""Mutual information above this share of its limit, log N, is called saturated."""

ESTIMATORS = {
    "score": "score function",
    "baseline": "score function with a baseline",
    "reparametrised": "reparametrised",
}
"""The estimators of the gradient and their labels."""


def values(metrics: Metrics) -> Iterator[tuple[str, float]]:
    """The metrics without their errors and intervals."""
    for name, value in metrics.items():
        stem, _, end = name.rpartition("_")
        if not (end in SPREADS and stem in metrics):
            yield name, value


def over_seeds(found: Found) -> Found:
    """For each k the means over trainings, with 95 % intervals by Student's t.

    Metrics that are equal in all trainings, such as a number of images, have no interval.
    """
    result: dict[tuple[int, int | str], dict[str, dict[str, float]]] = {}
    for k in dict.fromkeys(k for k, _ in found):
        runs = [stages for (other, _), stages in found.items() if other == k]
        result[k, ALL] = {stage: {} for stage in runs[0]}
        for stage, metrics in result[k, ALL].items():
            for name, first in values(runs[0][stage]):
                several = [run[stage][name] for run in runs]
                metrics[name] = first
                if len({*several}) > 1:
                    mean, half = float(np.mean(several)), student_half_width(several)
                    metrics |= {name: mean, f"{name}_low": mean - half, f"{name}_high": mean + half}
    return result


def text(metrics: Metrics, name: str) -> str:
    """A metric with its error or interval, to two digits of the error or of the half width."""
    value, se = metrics[name], metrics.get(f"{name}_se")
    if f"{name}_low" in metrics:
        low, high = metrics[f"{name}_low"], metrics[f"{name}_high"]
        digits = _digits((high - low) / 2)
        return f"{value:,.{digits}f} [{low:,.{digits}f}, {high:,.{digits}f}]"
    if se is not None:
        return f"{value:,.{_digits(se)}f} ± {se:,.{_digits(se)}f}"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _digits(error: float) -> int:
    return 2 if error <= 0 else max(0, 1 - int(np.floor(np.log10(error))))


def _name(latent_dim: int, seed: int | str) -> str:
    return f"k = {latent_dim}, {seed if seed == ALL else f'seed {seed}'}"


def as_csv(found: Found) -> str:
    """A row for each metric of each run: its value and, where it has them, error or interval."""
    rows = [
        (stage, name, k, seed, value, *(metrics.get(f"{name}_{end}") for end in SPREADS))
        for (k, seed), stages in found.items()
        for stage, metrics in stages.items()
        for name, value in values(metrics)
    ]
    columns = ["stage", "metric", "latent_dim", "seed", "value", *SPREADS]
    frame = pd.DataFrame(rows, columns=columns)
    return str(frame.to_csv(index=False, lineterminator="\n", float_format="%.6g"))


def as_markdown(found: Found) -> str:
    """The table to read: a row for each metric, a column for each run."""
    names = dict.fromkeys(
        (stage, name)
        for stages in found.values()
        for stage, metrics in stages.items()
        for name, _ in values(metrics)
    )
    columns = {
        _name(k, seed): [
            text(stages[stage], name) if name in stages.get(stage, {}) else ""
            for stage, name in names
        ]
        for (k, seed), stages in found.items()
    }
    stage, metric = zip(*names, strict=True)
    table = pd.DataFrame({"stage": stage, "metric": metric, **columns})
    return f"{table.to_markdown(index=False, disable_numparse=True)}\n\n{note(found)}\n"


def note(found: Found) -> str:
    """What ± and brackets stand for, and whether these are log-likelihoods."""
    errors = (
        "[low, high] is the 95 % interval of the mean over trainings, by Student's t."
        if any(seed == ALL for _, seed in found)
        else "± is the standard error over images; for precision, recall, density, coverage and "
        "the Fréchet distance over ten parts of the sets. Each model was trained once."
    )
    stages = (metrics for run in found.values() for metrics in run.values())
    if all(metrics.get("is_log_likelihood", 1) for metrics in stages):
        return errors
    return (
        f"{errors} † The likelihood does not suit the binarisation of the pixels: log p(x) and its "
        "bounds are not log-likelihoods."
    )


SENTENCES = {
    "How tight the bound is": (
        "At {run}, the estimate of log p(x) by annealed importance sampling is "
        "{ais.log_px_minus_elbo} nats above the ELBO and {ais.log_px_minus_iwae} nats above the "
        "IWAE bound with K = {ais.iwae_k}, on the same {ais.images} images; on simulated images "
        "the upper and the lower bound on log p(x) differ by {ais.simulated_gap} nats."
    ),
    "The variance of the gradient": (
        "At {run}, the variance of one draw of the score function estimator is "
        "{gradient_variance.variance_ratio_score} times that of the reparametrised one, and "
        "{gradient_variance.variance_ratio_baseline} times with a baseline. A signal-to-noise "
        "ratio of 1 takes {gradient_variance.samples_needed_score} draws of the score function "
        "estimator, {gradient_variance.samples_needed_baseline} with a baseline and "
        "{gradient_variance.samples_needed_reparametrised} of the reparametrised one."
    ),
    "What the latents hold": (
        "At {run}, {latents.active_units} units are active. Of the KL term of {latents.kl} nats, "
        "{latents.mutual_information} are mutual information between the latents and the choice "
        "among the {latents.images} images, which is at most log {latents.images} = "
        "{latents.log_images} nats; {remainder} From mu, nearest neighbours predict the class with "
        "an accuracy of {latents.knn_accuracy}, a linear classifier of {latents.linear_accuracy}."
    ),
    "The quality of the samples": (
        "At {run}, precision is {sample_quality.precision}, recall {sample_quality.recall} and the "
        "Fréchet distance {sample_quality.frechet}; for training images in place of samples they "
        "are {sample_quality.precision_real}, {sample_quality.recall_real} and "
        "{sample_quality.frechet_real}. The share of samples that are closer to a training image "
        "than to any of as many test images is {sample_quality.closer_to_train}."
    ),
}
"""What is said of each run, with the names of stages and metrics in place of their values."""

REMAINDER = {
    False: (
        "the other {latents.marginal_kl} are the KL divergence of the aggregate posterior of these "
        "images from the prior."
    ),
    True: (
        "it has nearly reached this limit, so it shows only that the images can be told apart, and "
        "the remainder of {latents.marginal_kl} nats is not a distance between the aggregate "
        "posterior of all images and the prior."
    ),
}
"""What is said of the KL term beyond the mutual information, by whether that is saturated."""


def discussion(found: Found) -> str:
    """The findings in sentences, a paragraph for each question."""
    paragraphs: dict[str, list[str]] = {title: [] for title in SENTENCES}
    for (k, seed), stages in found.items():
        words: dict[str, Any] = {
            stage: SimpleNamespace(**{name: text(metrics, name) for name, _ in values(metrics)})
            for stage, metrics in stages.items()
        }
        latents = stages["latents"]
        saturated = latents["mutual_information"] > SATURATED * latents["log_images"]
        words |= {"run": _name(k, seed), "remainder": REMAINDER[saturated].format(**words)}
        for title, sentence in SENTENCES.items():
            paragraphs[title].append(sentence.format(**words))
    paragraphs["Errors"] = [note(found)]
    return "\n".join(f"**{title}.** {' '.join(some)}\n" for title, some in paragraphs.items())


def above_the_elbo(found: Found, bounds: Mapping[tuple[int, int], Arrays]) -> Figure:
    """The difference of each IWAE bound from the ELBO, image by image, against K.

    A line for each run; the marks at the right are the estimates by annealed importance sampling,
    on their own images.
    """
    figure = new_figure(8, 4.8, "Bounds on log p(x) against the number of samples, test images")
    axis = figure.add_subplot()
    dims = list(dict.fromkeys(k for k, _ in bounds))
    colours = dict(zip(dims, sns.color_palette("colorblind", len(dims)), strict=True))
    for number, ((k, seed), terms) in enumerate(bounds.items()):
        elbo = terms["log_px_given_z"].astype(float) - terms["kl"]
        points = [mean_and_se(bound - elbo) for bound in terms["iwae_bound"].T.astype(float)]
        heights, errors = zip(*points, strict=True)
        style: dict[str, Any] = {"color": colours[k], "capsize": 3}
        label = f"IWAE bound, k = {k}"
        axis.errorbar(terms["k"], heights, errors, marker="o", label=label, **style)
        ais = found[k, seed]["ais"]
        place = terms["k"].max() * 4 * 1.15**number
        axis.errorbar(
            place, ais["log_px_minus_elbo"], ais["log_px_minus_elbo_se"], marker="D", **style
        )
    axis.set(
        xscale="log",
        xlabel="K, samples of z per image",
        ylabel="nats per image above the ELBO",
    )
    axis.margins(x=0.12)
    axis.grid(alpha=0.3)
    ais_mark = Line2D([], [], color="gray", marker="D", ls="", label="AIS, at no K")
    handles, labels = axis.get_legend_handles_labels()
    of_k = dict(zip(labels[::-1], handles[::-1], strict=True))  # the first run of each
    axis.legend(
        handles=[*(of_k[label] for label in dict.fromkeys(labels)), ais_mark], frameon=False
    )
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def noise_of_the_gradient(found: Found) -> Figure:
    """Standard deviation of each estimate of the gradient against its number of draws, L.

    It is √(variance of one draw / L), root mean square over images: a line for each estimator and
    run, a panel for each k. The baseline is the mean of all draws of the stage, not of L.
    """
    dims = list(dict.fromkeys(k for k, _ in found))
    title = "Noise of the gradient of E log p(x|z) by μ(x), mean over L draws, test images"
    figure = new_figure(1.2 + 3.4 * len(dims), 4.6, title)
    panels = figure.subplots(1, len(dims), sharey=True, squeeze=False)[0]
    colours = sns.color_palette("colorblind", len(ESTIMATORS))
    ends = np.array([1, 1000])
    for (k, _), stages in found.items():
        axis, metrics = panels[dims.index(k)], stages["gradient_variance"]
        for (name, label), colour in zip(ESTIMATORS.items(), colours, strict=True):
            axis.plot(ends, np.sqrt(metrics[f"variance_{name}"] / ends), color=colour, label=label)
        # The estimate is unbiased, so with few draws it may be below 0.
        norm = math.sqrt(max(metrics["squared_norm_reparametrised"], 0))
        axis.axhline(norm, color="black", linestyle="--", label="norm of the gradient")
        axis.set(title=f"k = {k}", xscale="log", yscale="log", xlabel="L, draws of z per image")
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("standard deviation, nats per unit of μ")
    labelled = dict(zip(*reversed(panels[0].get_legend_handles_labels()), strict=True))
    figure.legend(
        labelled.values(), labelled.keys(), loc="outside lower center", ncols=2, frameon=False
    )
    return figure


def arguments() -> ArgumentParser:
    """The command line of this stage."""
    files = {"results": "folder that has one of each stage", "output": "folder to write into"}
    return scoring.arguments(__doc__, "runs", "", files)


def main(args: Namespace) -> None:
    """Read the metrics of all runs; write table, discussion and figures."""
    scoring.prepare(args)
    found: dict[tuple[int, int | str], dict[str, Metrics]] = {}
    bounds = {}
    for k, seed in product(args.latent_dims, args.seeds):
        name = f"k{k}-seed{seed}"
        found[k, seed] = {
            stage: read_json(args.results / stage / f"{name}.json") for stage in STAGES
        }
        bounds[k, seed], _ = read_tensors(args.results / f"iwae/{name}.safetensors", "iwae")
    # Several seeds are shown as their mean; table.csv has each of them as well.
    shown = over_seeds(found) if len(args.seeds) > 1 else found
    write_text(args.output / "table.csv", as_csv({**found, **shown}))
    write_text(args.output / "table.md", as_markdown(shown))
    write_text(args.output / "discussion.md", discussion(shown))
    save_figure(args.output / "bounds.png", above_the_elbo(found, bounds))
    save_figure(args.output / "gradient_variance.png", noise_of_the_gradient(found))
    scoring.finish(f"compare: {len(found)} runs", args.output)
