"""Compare what the other stages found on all runs: tables and figures.

Only the files of the runs named by --latent_dims and --seeds are read. ± is a standard error;
with several seeds, [low, high] is the 95 % interval of the mean over trainings.
"""

import math
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from aevb.files import read_json, write_text
from aevb.intervals import estimate
from aevb.plumbing import cli
from aevb.plumbing.params import Runs
from aevb.report.figures import PALETTE, panels_figure, save_figure
from aevb.report.tables import as_csv

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

Found = Mapping[tuple[int, int], Mapping[str, Mapping[str, float]]]
"""For each (latent_dim, seed) the metrics of each stage."""

STAGES = ("inference_gap", "gradient_variance", "latents", "sample_quality")
ESTIMATORS = {
    "score": "score function",
    "baseline": "score function with a baseline",
    "reparametrised": "reparametrised",
}
"""Labels of the gradient estimators."""
BOUNDS = {
    "IWAE bound, q of the encoder": r"iwae_\d+_minus_elbo",
    "IWAE bound, optimised q": r"optimised_iwae_\d+_minus_elbo",
    "quasi-Monte Carlo": "qmc_minus_elbo",
    "AIS": "ais_minus_elbo",
}
"""Labels and metrics of the estimates of log p(x)."""


def table(found: Found) -> pd.DataFrame:
    """A row for each metric of each run: its value and, where it has one, its standard error.

    With several seeds, further rows of seed `all` have the mean over trainings, its standard error
    and its 95 % interval, `low` to `high`.
    """
    columns = ["stage", "metric", "latent_dim", "seed", "value", "se"]
    frame = pd.DataFrame(
        (
            (stage, name, k, seed, float(value), metrics.get(f"{name}_se", math.nan))
            for (k, seed), stages in found.items()
            for stage, metrics in stages.items()
            for name, value in metrics.items()
            if not (name.endswith("_se") and name.removesuffix("_se") in metrics)
        ),
        columns=columns,
    )
    over_seeds = [
        (*names, "all", *estimate(values))
        for names, values in frame.groupby(columns[:3], sort=False)["value"]
        if len(values) > 1
    ]
    means = pd.DataFrame(over_seeds, columns=[*columns, "low", "high"])
    return pd.concat([frame, means]) if over_seeds else frame.assign(low=math.nan, high=math.nan)


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows to read, those of seed `all` if there are any, each with its run and its number."""
    over_seeds = frame["seed"] == "all"
    shown = frame[over_seeds] if over_seeds.any() else frame
    seeds = "all seeds" if over_seeds.any() else "seed " + shown["seed"].astype(str)
    runs = "k = " + shown["latent_dim"].astype(str) + ", " + seeds
    return shown.assign(run=runs, cell=shown.apply(text, axis=1))


def text(row: Any) -> str:
    """A number with its standard error or interval, to two digits of the standard error."""
    value, se, low, high = row["value"], row["se"], row["low"], row["high"]
    if not se > 0:
        return f"{value:,.0f}" if value.is_integer() else f"{value:.4g}"
    number = f",.{max(0, 1 - math.floor(math.log10(se)))}f"
    if math.isnan(low):
        return f"{value:{number}} ± {se:{number}}"
    return f"{value:{number}} [{low:{number}}, {high:{number}}]"


def as_markdown(shown: pd.DataFrame) -> str:
    """The readable rows as a table: a row for each metric, a column for each run."""
    wide = shown.pivot_table("cell", ["stage", "metric"], "run", aggfunc="first", sort=False)
    body = wide.fillna("").reset_index().to_markdown(index=False, disable_numparse=True)
    return f"{body}\n\n{note(shown)}\n"


def note(shown: pd.DataFrame) -> str:
    """What ± and brackets mean, and whether these are log-likelihoods."""
    errors = (
        "[low, high] is the 95 % interval of the mean over trainings, by Student's t."
        if (shown["seed"] == "all").any()
        else "± is the standard error over images; for precision, recall and the "
        "Fréchet distance over ten parts of the sets. Each model was trained once."
    )
    if shown.loc[shown["metric"] == "is_log_likelihood", "value"].all():
        return errors
    return (
        f"{errors} † The likelihood does not suit the binarisation of the pixels: log p(x) and its "
        "bounds are not log-likelihoods."
    )


SUMMARY = {
    "ELBO": "{inference_gap.elbo}",
    "log p(x)": "{inference_gap.log_px}",
    "gap, log p(x) − ELBO": "{inference_gap.gap}",
    "– approximation gap, log p(x) − ELBO(q*)": "{inference_gap.approximation_gap}",
    "– amortisation gap, ELBO(q*) − ELBO": "{inference_gap.amortisation_gap}",
    "gap, training images": "{inference_gap.train_gap}",
    "overfitting of the encoder": "{inference_gap.overfitting}",
    "AIS estimate of log p(x) − log p(x)": "{inference_gap.ais_minus_log_px}",
    "upper − lower bound of AIS, simulated images": "{inference_gap.simulated_gap}",
    "gradient variance, score / reparametrised": "{gradient_variance.variance_ratio_score}",
    "gradient variance, baseline / reparametrised": "{gradient_variance.variance_ratio_baseline}",
    "active units": "{latents.active_units}",
    "mutual information (its limit, log N)": "{latents.mutual_information} ({latents.log_images})",
    "KL(q(z) ‖ p(z)) is at most": "{latents.marginal_kl}",
    "KL(q(z) ‖ p(z)) is at least": "{latents.marginal_kl_lower}",
    "digit changed by reconstruction (classifier error)": (
        "{sample_quality.digit_changes} ({sample_quality.classifier_error})"
    ),
    "precision (real)": "{sample_quality.precision} ({sample_quality.real_precision})",
    "precision, z from the mixture": "{sample_quality.mixture_precision}",
    "recall (real)": "{sample_quality.recall} ({sample_quality.real_recall})",
    "recall, z from the mixture": "{sample_quality.mixture_recall}",
    "Fréchet distance (real)": "{sample_quality.frechet} ({sample_quality.real_frechet})",
    "Fréchet distance, z from the mixture": "{sample_quality.mixture_frechet}",
}
"""The rows of the summary, with the names of stages and metrics in place of their values."""


def summary(shown: pd.DataFrame) -> str:
    """The findings that matter as a table: a row for each, a column for each run."""
    columns = {}
    for run, rows in shown.groupby("run", sort=False):
        cells = rows.set_index(["stage", "metric"])["cell"]
        words = {stage: cells[stage] for stage in STAGES}
        columns[run] = {title: cell.format(**words) for title, cell in SUMMARY.items()}
    body = pd.DataFrame(columns).to_markdown(disable_numparse=True)
    return (
        f"{body}\n\nBounds and information in nats per image. Real: training images in place of "
        f"samples. {note(shown)}\n"
    )


def above_the_elbo(shown: pd.DataFrame) -> Figure:
    """The mean difference of each bound from the ELBO, a panel for each run.

    All are of the same test images: the IWAE bound against K with the encoder and with the q that
    is optimised for each image, and the estimates of log p(x), which have no K, as lines.
    """
    runs = dict([*shown.groupby("run", sort=False)])
    title = "Bounds on log p(x) on the same test images; bars and bands: ± standard error"
    figure, axes = panels_figure(runs, 5, 4, title)
    colours = sns.color_palette(PALETTE, len(BOUNDS))
    for axis, rows in zip(axes, runs.values(), strict=True):
        found = rows.set_index("metric")
        for (label, pattern), colour in zip(BOUNDS.items(), colours, strict=True):
            some = found.filter(regex=rf"^{pattern}$", axis=0)
            x = some.index.str.extract(r"(\d+)", expand=False)
            if "iwae" in pattern:
                axis.errorbar(
                    x.astype(int), some["value"], some["se"], marker="o", color=colour, label=label
                )
            elif len(some):
                value, se = some.iloc[0][["value", "se"]]
                axis.axhline(value, color=colour, label=label)
                axis.axhspan(value - se, value + se, color=colour, alpha=0.2)
        axis.set(xscale="log", xlabel="K, samples of z per image")
    axes[0].set_ylabel("nats above the ELBO")
    most = max(axes, key=lambda axis: len(axis.get_legend_handles_labels()[0]))
    figure.legend(*most.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def noise_of_the_gradient(shown: pd.DataFrame) -> Figure:
    """Standard deviation of each estimate of the gradient against its number of draws, L.

    It is √(variance of one draw / L), root mean square over images: a line for each estimator, a
    panel for each run. The baseline is the mean of all draws of the stage, not of L.
    """
    runs = dict([*shown.groupby("run", sort=False)])
    title = "Noise of the gradient of E log p(x|z) by μ(x), mean over L draws, test images"
    figure, axes = panels_figure(runs, 4, 4, title)
    draws, colours = np.array([1, 1000]), sns.color_palette(PALETTE, len(ESTIMATORS))
    for axis, rows in zip(axes, runs.values(), strict=True):
        values = rows.set_index("metric")["value"]
        for (name, label), colour in zip(ESTIMATORS.items(), colours, strict=True):
            noise = np.sqrt(values[f"variance_{name}"] / draws)
            axis.plot(draws, noise, color=colour, label=label)
        # The estimate is unbiased, so with few draws it may be below 0.
        norm = math.sqrt(max(values["squared_norm_reparametrised"], 0))
        axis.axhline(norm, color="black", linestyle="--", label="norm of the gradient")
        axis.set(xscale="log", yscale="log", xlabel="L, draws of z per image")
        axis.sharey(axes[0])
    axes[0].set_ylabel("standard deviation, nats per unit of μ")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def main(
    results: Annotated[Path, "folder that has one of each stage"],
    output: Annotated[Path, "folder to write into"],
    settings: Runs,
) -> None:
    """Read the metrics of all runs; write tables and figures."""
    found = {
        (k, seed): {stage: read_json(results / stage / f"k{k}-seed{seed}.json") for stage in STAGES}
        for k, seed in product(settings.latent_dims, settings.seeds)
    }
    frame = table(found)
    shown = readable(frame)
    write_text(output / "table.csv", as_csv(frame))
    write_text(output / "table.md", as_markdown(shown))
    write_text(output / "summary.md", summary(shown))
    save_figure(output / "bounds.png", above_the_elbo(shown))
    save_figure(output / "gradient_variance.png", noise_of_the_gradient(shown))
    cli.log.info("compare: %d runs, wrote %s", len(found), output)
