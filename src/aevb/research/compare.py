"""Compare what the other stages found on all runs: table, sentences, figures.

Only the files of the runs named by --latent_dims and --seeds are read. ± is a standard error;
with several seeds, [low, high] is the 95 % interval of the mean over trainings.
"""

import math
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from aevb.files import Arrays, read_json, read_tensors, write_text
from aevb.intervals import mean_and_se, student_half_width
from aevb.plumbing import cli
from aevb.plumbing.params import Runs
from aevb.report.figures import PALETTE, new_figure, save_figure
from aevb.report.tables import as_csv

Found = Mapping[tuple[int, int], Mapping[str, Mapping[str, float]]]
"""For each (latent_dim, seed) the metrics of each stage."""

STAGES = ("iwae", "ais", "gradient_variance", "latents", "sample_quality")
ALL = "all seeds"
SATURATED = 0.95
"""Mutual information above this share of its limit, log N, is called saturated."""

ESTIMATORS = {
    "score": "score function",
    "baseline": "score function with a baseline",
    "reparametrised": "reparametrised",
}
"""Labels of the gradient estimators."""


def table(found: Found) -> pd.DataFrame:
    """A row for each metric of each run: its value and, where it has one, its standard error."""
    rows = [
        (stage, name, k, seed, value, metrics.get(f"{name}_se"))
        for (k, seed), stages in found.items()
        for stage, metrics in stages.items()
        for name, value in metrics.items()
        if not (name.endswith("_se") and name.removesuffix("_se") in metrics)
    ]
    columns = ["stage", "metric", "latent_dim", "seed", "value", "se"]
    frame = pd.DataFrame(rows, columns=columns).astype({"value": float, "se": float})
    return frame.assign(low=np.nan, high=np.nan)


def over_seeds(frame: pd.DataFrame) -> pd.DataFrame:
    """The means over trainings in such a table, with 95 % intervals by Student's t.

    Metrics that are equal in all trainings, such as a number of images, have no interval.
    """
    groups = frame.groupby(["stage", "metric", "latent_dim"], sort=False)["value"]
    mean, half = groups.mean(), groups.agg(student_half_width).where(groups.max() > groups.min())
    means = pd.DataFrame({"value": mean, "low": mean - half, "high": mean + half}).reset_index()
    return means.assign(seed=ALL, se=np.nan)[list(frame)]


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with the name of each run and, as `cell`, the text of each number."""
    seeds = frame["seed"].map(lambda seed: seed if seed == ALL else f"seed {seed}")
    runs = "k = " + frame["latent_dim"].astype(str) + ", " + seeds
    return frame.assign(run=runs, cell=frame.apply(text, axis=1))


def text(row: Any) -> str:
    """A number with its error or interval, to two digits of the error or of the half width."""
    value, low = row["value"], row["low"]
    error = row["se"] if math.isnan(low) else (row["high"] - low) / 2
    if math.isnan(error):
        return f"{value:,.0f}" if value.is_integer() else f"{value:.4g}"
    digits = 2 if error <= 0 else max(0, 1 - math.floor(math.log10(error)))
    number = f",.{digits}f"
    if math.isnan(low):
        return f"{value:{number}} ± {error:{number}}"
    return f"{value:{number}} [{low:{number}}, {row['high']:{number}}]"


def as_markdown(frame: pd.DataFrame) -> str:
    """The table to read: a row for each metric, a column for each run."""
    cells = readable(frame)
    wide = cells.pivot_table("cell", ["stage", "metric"], "run", aggfunc="first", sort=False)
    body = wide.fillna("").reset_index().to_markdown(index=False, disable_numparse=True)
    return f"{body}\n\n{note(frame)}\n"


def note(frame: pd.DataFrame) -> str:
    """What ± and brackets stand for, and whether these are log-likelihoods."""
    errors = (
        "[low, high] is the 95 % interval of the mean over trainings, by Student's t."
        if (frame["seed"] == ALL).any()
        else "± is the standard error over images; for precision, recall, density, coverage and "
        "the Fréchet distance over ten parts of the sets. Each model was trained once."
    )
    if frame.loc[frame["metric"] == "is_log_likelihood", "value"].all():
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


def discussion(frame: pd.DataFrame) -> str:
    """The findings in sentences, a paragraph for each question."""
    said: dict[str, list[str]] = {title: [] for title in SENTENCES}
    for run, rows in readable(frame).groupby("run", sort=False):
        stages = {stage: some.set_index("metric") for stage, some in rows.groupby("stage")}
        latents = stages["latents"]["value"]
        saturated = latents["mutual_information"] > SATURATED * latents["log_images"]
        words = {"run": run, **{str(stage): some["cell"] for stage, some in stages.items()}}
        words["remainder"] = REMAINDER[bool(saturated)].format(**words)
        for title, sentence in SENTENCES.items():
            said[title].append(sentence.format(**words))
    said["Errors"] = [note(frame)]
    return "\n".join(f"**{title}.** {' '.join(some)}\n" for title, some in said.items())


def above_the_elbo(found: Found, bounds: Mapping[tuple[int, int], Arrays]) -> Figure:
    """The difference of each IWAE bound from the ELBO, image by image, against K.

    A line for each run; the marks at the right are the estimates by annealed importance sampling,
    on their own images.
    """
    figure = new_figure(8, 4.8, "Bounds on log p(x) against the number of samples, test images")
    axis = figure.add_subplot()
    dims = list(dict.fromkeys(k for k, _ in bounds))
    colours = dict(zip(dims, sns.color_palette(PALETTE, len(dims)), strict=True))
    for number, ((k, seed), terms) in enumerate(bounds.items()):
        elbo = terms["log_px_given_z"].astype(float) - terms["kl"]
        points = [mean_and_se(bound - elbo) for bound in terms["iwae_bound"].T.astype(float)]
        heights, errors = zip(*points, strict=True)
        style: dict[str, Any] = {"color": colours[k], "capsize": 3}
        label = f"IWAE bound, k = {k}"
        axis.errorbar(terms["k"], heights, errors, marker="o", label=label, **style)
        ais, place = found[k, seed]["ais"], terms["k"].max() * 4 * 1.15**number
        difference = ais["log_px_minus_elbo"], ais["log_px_minus_elbo_se"]
        axis.errorbar(place, *difference, marker="D", **style)
    axis.set(xscale="log", xlabel="K, samples of z per image")
    axis.set_ylabel("nats per image above the ELBO")
    axis.margins(x=0.12)
    axis.grid(alpha=0.3)
    ais_mark = Line2D([], [], color="gray", marker="D", ls="", label="AIS, at no K")
    handles, labels = axis.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))  # once, not for each seed
    axis.legend(handles=[*unique.values(), ais_mark], frameon=False)
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
    colours = sns.color_palette(PALETTE, len(ESTIMATORS))
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
    handles, labels = panels[0].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))  # once, not for each seed
    figure.legend(handles=[*unique.values()], loc="outside lower center", ncols=2, frameon=False)
    return figure


def main(
    results: Annotated[Path, "folder that has one of each stage"],
    output: Annotated[Path, "folder to write into"],
    settings: Runs,
) -> None:
    """Read the metrics of all runs; write table, discussion and figures."""
    found, bounds = {}, {}
    for run in product(settings.latent_dims, settings.seeds):
        name = "k{}-seed{}".format(*run)
        found[run] = {stage: read_json(results / stage / f"{name}.json") for stage in STAGES}
        bounds[run], _ = read_tensors(results / f"iwae/{name}.safetensors", "iwae")
    # Several seeds are shown as their mean; table.csv has each of them as well.
    every = shown = table(found)
    if len(settings.seeds) > 1:
        shown = over_seeds(every)
        every = pd.concat([every, shown])
    write_text(output / "table.csv", as_csv(every))
    write_text(output / "table.md", as_markdown(shown))
    write_text(output / "discussion.md", discussion(shown))
    save_figure(output / "bounds.png", above_the_elbo(found, bounds))
    save_figure(output / "gradient_variance.png", noise_of_the_gradient(found))
    cli.log.info("compare: %d runs, wrote %s", len(found), output)
