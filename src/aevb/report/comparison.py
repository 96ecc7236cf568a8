"""The figures that set the runs side by side: curves, terms, images, latent space.

Colours are seaborn's colour-blind palette; where there are several seeds, bands and bars span one
standard deviation over them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from numpy.typing import NDArray

from aevb.files import Arrays, read_csv, read_json, read_tensors
from aevb.report.figures import Images, mosaic, new_figure, rows_figure, show
from aevb.report.tables import COLUMNS

PALETTE = "colorblind"
DATASETS = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "kmnist": "KMNIST"}
BINARISATIONS = {
    "dynamic": "dynamic binarisation",
    "static": "static binarisation",
    "none": "gray levels",
}
LIKELIHOODS = {
    "bernoulli": "Bernoulli",
    "continuous_bernoulli": "continuous Bernoulli",
    "gaussian": "Gaussian",
}

LABEL = 0.07
"""The width of a label in the latent space, as a share of what the points span."""


@dataclass(frozen=True)
class Run:
    """All that one training left behind, as compare reads it."""

    latent_dim: int
    seed: int
    metrics: dict[str, float]
    history: pd.DataFrame
    evaluation: Arrays
    samples: Arrays
    reconstructions: Arrays
    metadata: dict[str, Any]


def read_run(folders: Mapping[str, Path], latent_dim: int, seed: int) -> Run:
    """All files of one run, each kind in its folder: `metrics`, `history`, `evaluation` and on.

    Raises:
        InputError: if one is missing or is something else.
    """
    name = f"k{latent_dim}-seed{seed}"
    evaluation, metadata = read_tensors(folders["evaluation"] / f"{name}.safetensors", "evaluation")
    return Run(
        latent_dim,
        seed,
        read_json(folders["metrics"] / f"{name}.json"),
        pd.DataFrame(read_csv(folders["history"] / f"{name}.csv")),
        evaluation,
        read_tensors(folders["samples"] / f"{name}.safetensors", "samples")[0],
        read_tensors(folders["reconstructions"] / f"{name}.safetensors", "reconstructions")[0],
        metadata,
    )


def described(run: Run) -> dict[str, Any]:
    """A run as a row of the table: what it is, then its metrics."""
    names = ("latent_dim", "seed", "binarisation", "likelihood")
    return {name: run.metadata[name] for name in names} | run.metrics


def per_image(runs: Sequence[Run]) -> dict[tuple[int, int], Arrays]:
    """For each (latent_dim, seed) the terms of the bound of every test image, float64 [N] each."""
    return {
        (run.latent_dim, run.seed): {key: run.evaluation[key].astype(float) for key in COLUMNS}
        for run in runs
    }


def setting(runs: list[Run]) -> str:
    """Data, binarisation and likelihood of the runs, for titles; says what is no log-likelihood."""
    metadata = runs[0].metadata
    text = (
        f"{DATASETS[metadata['data']['name']]}, {BINARISATIONS[metadata['binarisation']]}, "
        f"{LIKELIHOODS[metadata['likelihood']]}"
    )
    return text if runs[0].metrics["is_log_likelihood"] else f"{text} († no log-likelihood)"


def first_seed(runs: list[Run]) -> list[Run]:
    """One run for each latent dimension, of the first seed: the ones whose images are shown."""
    return [run for run in runs if run.seed == runs[0].seed]


def colours(runs: list[Run]) -> dict[str, Any]:
    """A colour for each latent dimension, the same in every figure."""
    names = list(dict.fromkeys(f"k = {run.latent_dim}" for run in runs))
    return dict(zip(names, sns.color_palette(PALETTE, len(names)), strict=True))


def learning_curves(runs: list[Run]) -> Figure:
    """ELBO, reconstruction term and KL term against the epoch, training and validation."""
    frames = []
    for run in runs:
        long = run.history.drop(columns="learning_rate").melt("epoch").dropna()
        long[["set", "term"]] = long["variable"].str.split("_", n=1, expand=True)
        frames.append(long.assign(model=f"k = {run.latent_dim}", seed=run.seed))
    data = pd.concat(frames, ignore_index=True)
    titles = {
        "elbo": "ELBO",
        "log_px_given_z": "reconstruction term E[log p(x|z)]",
        "kl": "KL(q(z|x) ‖ p(z))",
    }
    figure = new_figure(12, 4, f"Learning curves\n{setting(runs)}")
    for axis, (term, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
        chosen = data[data["term"] == term]
        sns.lineplot(
            chosen,
            x="epoch",
            y="value",
            hue="model",
            style="set",
            ax=axis,
            errorbar="sd",
            palette=colours(runs),
            style_order=["train", "validation"],
            legend=term == "elbo",
        )
        axis.set(title=title, xlabel="epoch", ylabel="nats per image")
        # The first epochs dwarf all that follows.
        late = chosen.loc[chosen["epoch"] > min(2, chosen["epoch"].max() - 1), "value"]
        margin = 0.05 * (late.max() - late.min()) + 0.1
        axis.set_ylim(late.min() - margin, late.max() + margin)
        axis.locator_params(axis="x", integer=True)
        axis.grid(alpha=0.3)
    legend = figure.axes[0].get_legend_handles_labels()
    figure.axes[0].legend().remove()
    figure.legend(*legend, loc="outside right center", frameon=False)
    return figure


def terms(runs: list[Run]) -> Figure:
    """Reconstruction error, KL and their sum, the negative ELBO, on the test set, for each k."""
    names = {
        "reconstruction_error": "reconstruction error\n−E[log p(x|z)]",
        "kl": "KL(q(z|x) ‖ p(z))",
        "negative_elbo": "sum: −ELBO",
    }
    records = [
        {
            "model": f"k = {run.latent_dim}",
            "term": label,
            "value": -run.metrics["elbo"] if key == "negative_elbo" else run.metrics[key],
        }
        for run in runs
        for key, label in names.items()
    ]
    seeds = len({run.seed for run in runs})
    figure = new_figure(7.5, 4.5, f"The two terms on the test set\n{setting(runs)}")
    axis = figure.add_subplot()
    sns.barplot(
        pd.DataFrame(records),
        x="term",
        y="value",
        hue="model",
        ax=axis,
        palette=colours(runs),
        errorbar="sd" if seeds > 1 else None,
        capsize=0.1,
    )
    for bars in axis.containers:
        axis.bar_label(bars, fmt="%.1f", padding=3 if seeds == 1 else 12)  # type: ignore[arg-type]
    axis.set(xlabel="", ylabel="nats per image" + (" (mean ± sd of seeds)" if seeds > 1 else ""))
    axis.margins(y=0.1)
    axis.legend(title="")
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def kl_per_dimension(runs: list[Run]) -> Figure:
    """The KL term of each latent dimension, largest first: what each one carries."""
    shown = first_seed(runs)
    title = f"KL per latent dimension, mean over test images\n{setting(runs)}"
    figure = new_figure(4.2 * len(shown), 3.8, title)
    all_axes = figure.subplots(1, len(shown), squeeze=False, sharey=True)[0]
    for axis, run in zip(all_axes, shown, strict=True):
        values = np.sort(run.evaluation["kl_per_dimension"])[::-1]
        places = np.arange(1, len(values) + 1)
        axis.bar(places, values, color=colours(runs)[f"k = {run.latent_dim}"])
        axis.set(
            title=f"k = {run.latent_dim}, seed {run.seed}: {values.sum():.1f} nats in all",
            xlabel="latent dimension, sorted by its KL",
            ylabel="nats per image",
            xlim=(0.4, len(values) + 0.6),
        )
        axis.locator_params(axis="x", integer=True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelleft=True)
    return figure


def samples(runs: list[Run]) -> Figure:
    """Decoder means and draws from the prior, a column for each k."""
    shown = first_seed(runs)
    figure = new_figure(4.2 * len(shown), 8.6, f"Samples: z ~ N(0, I), decoded\n{setting(runs)}")
    grid = figure.subplots(2, len(shown), squeeze=False)
    for column, run in enumerate(shown):
        for row, (name, what) in enumerate(
            (("means", "means E[x|z]"), ("draws", "draws x ~ p(x|z)"))
        ):
            images: Images = run.samples[name]
            columns = max(1, round(len(images) ** 0.5))
            show(grid[row, column], mosaic(images, columns))
            grid[row, column].set_title(f"k = {run.latent_dim}, {what}", fontsize=11)
    return figure


def reconstructions(runs: list[Run]) -> Figure:
    """The same test images, decoded by each k."""
    shown = first_seed(runs)
    first = shown[0].reconstructions
    rows = [("test image", first["originals"])]
    if runs[0].metadata["binarisation"] != "none":
        rows.append(("binarised", first["inputs"]))
    rows += [(f"k = {run.latent_dim}", run.reconstructions["reconstructions"]) for run in shown]
    return rows_figure(rows, 10, f"Test images, encoded and decoded at z = mu\n{setting(runs)}")


def latent_space(runs: list[Run]) -> Figure:
    """Posterior means of the test images on their two main axes, coloured by class.

    A label stands at the median of its class, or beside it where it would hide another.
    """
    shown = first_seed(runs)
    palette = sns.color_palette(PALETTE, 10)
    figure = new_figure(
        5.2 * len(shown), 5.4, f"Posterior means mu(x) of the test images\n{setting(runs)}"
    )
    for axis, run in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        points, shares = principal_axes(run.evaluation["mu"])
        labels = run.evaluation["labels"]
        axis.scatter(*points.T, s=3, alpha=0.5, linewidths=0, c=[palette[i] for i in labels])
        digits = np.unique(labels)
        centres = np.array([np.median(points[labels == digit], 0) for digit in digits])
        places = pushed_apart(centres, LABEL * np.ptp(points, 0).max())
        for digit, place in zip(digits, places, strict=True):
            axis.text(
                *place, str(digit), color="black", fontsize=13, weight="bold", ha="center",
                va="center", bbox={"boxstyle": "circle,pad=0.15", "fc": "white",
                                   "ec": palette[digit], "lw": 2},
            )  # fmt: skip
        for name, share in zip("xy", [*shares, 0.0], strict=False):
            number = "xy".index(name) + 1
            label = f"principal axis {number} of mu ({share:.0%} of its variance)"
            axis.set(**{f"{name}label": label if number <= run.latent_dim else ""})
        axis.set_title(f"k = {run.latent_dim}, seed {run.seed}", fontsize=11)
        axis.set_aspect("equal", adjustable="datalim")
    return figure


def pushed_apart(places: NDArray[np.float64], distance: float) -> NDArray[np.float64]:
    """Places [N, 2], each two that were closer moved along their line until `distance` apart."""
    places = places.copy()
    for _ in range(1000):
        still = True
        for one, other in combinations(range(len(places)), 2):
            between = places[other] - places[one]
            apart = float(np.hypot(*between))
            if apart < 0.999 * distance:
                direction = between / apart if apart > 0 else np.array([1.0, 0.0])
                places[one] -= (distance - apart) / 2 * direction
                places[other] += (distance - apart) / 2 * direction
                still = False
        if still:
            break
    return places


def principal_axes(mu: Images) -> tuple[NDArray[np.float64], list[float]]:
    """Points [N, k] on their first two principal axes, [N, 2], and the axes' shares of variance.

    Each axis points where its largest loading is positive, since its sign means nothing.
    """
    centred = mu.astype(np.float64) - mu.mean(0, dtype=np.float64)
    variances, axes = np.linalg.eigh(centred.T @ centred / len(mu))
    axes = axes[:, ::-1][:, :2]
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), range(axes.shape[1])])
    points = np.zeros((len(mu), 2))
    points[:, : axes.shape[1]] = centred @ axes
    return points, (variances[::-1][:2] / max(variances.sum(), 1e-30)).tolist()


FIGURES = {
    "learning_curves": learning_curves,
    "terms": terms,
    "kl_per_dimension": kl_per_dimension,
    "samples": samples,
    "reconstructions": reconstructions,
    "latent_space": latent_space,
}
