"""The figures of a comparison.

Where there are several seeds, curves and bars are means over seeds, and bands and error bars are
one standard deviation over seeds; images, KL per dimension and codes are those of the first seed.
"""

from itertools import combinations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from aevb.report.figures import PALETTE, new_figure, panels_figure, rows_figure, show
from aevb.report.runs import TERMS, Variants, first_runs, models, principal_axes, seeds, setting

IMAGES = 10
"""Images in a row, and the number shown of each variant if there are several."""
LABEL = 0.07
"""Width of a label in the latent space as a share of the range of the points."""
STYLES = {"train": "-", "validation": "--"}


def learning_curves(variants: Variants) -> Figure:
    """Learning curves on training and validation images.

    Of one variant: a panel for each term against the epoch, a colour for each k. Of several: the
    ELBO against the training images seen, as in Kingma & Welling, figure 2; a panel for each k and
    scale, a colour for each variant. Panels of one scale have the same limits.
    """
    several = len(variants) > 1
    frames = []
    for variant, run in ((variant, run) for variant, runs in variants.items() for run in runs):
        curves = run.history.drop(columns="learning_rate").melt("epoch", var_name="column").dropna()
        curves[["set", "term"]] = curves["column"].str.split("_", n=1, expand=True)
        seen = curves["epoch"] * run.metadata["train_images"]
        names = {"variant": variant, "k": f"k = {run.latent_dim}", "scale": run.scale}
        frames.append(curves.assign(seen=seen, **names))
    data = pd.concat(frames, ignore_index=True)
    if several:
        data = data[data["term"] == "elbo"].assign(panel=data["k"] + ", " + data["scale"])
        x, hue, limits = "seen", "variant", "scale"
    else:
        data["panel"] = data["term"].map(TERMS)
        x, hue, limits = "epoch", "k", "term"
    panels, hues = data["panel"].unique(), data[hue].unique()
    title = f"Learning curves{_over_seeds(variants)}\n{setting(variants)}"
    figure, axes = panels_figure(panels, 6 if len(panels) == 1 else 4, 3.5, title)
    palette = dict(zip(hues, sns.color_palette(PALETTE, len(hues)), strict=True))
    for axis, (_, chosen) in zip(axes, data.groupby("panel", sort=False), strict=True):
        sns.lineplot(
            chosen, x=x, y="value", hue=hue, style="set", ax=axis, errorbar="sd",
            palette=palette, style_order=[*STYLES], legend=False,
        )  # fmt: skip
        # Cut off the first epochs, whose values are far below all others.
        low, high = data.loc[data[limits].isin(chosen[limits]), "value"].quantile([0.05, 1])
        margin = 0.05 * (high - low) + 0.1
        axis.set_ylim(low - margin, high + margin)
        axis.grid(alpha=0.3)
        if several:
            axis.set(xlabel="training images seen", ylabel="ELBO, nats per image", xscale="log")
        else:
            axis.set(xlabel="epoch", ylabel="nats per image")
            axis.locator_params(axis="x", integer=True, min_n_ticks=1)
    lines = [Line2D([], [], color=colour, label=hue) for hue, colour in palette.items()]
    lines += [Line2D([], [], color="black", ls=STYLES[s], label=s) for s in data["set"].unique()]
    figure.legend(handles=lines, loc="outside right center", frameon=False)
    return figure


def terms(variants: Variants) -> Figure:
    """Bars of the reconstruction error, the KL term and their sum, −ELBO, on the test set."""
    bars = pd.DataFrame(
        {
            "model": name,
            "reconstruction error": run.metrics["reconstruction_error"],
            "KL term": run.metrics["kl"],
            "sum: −ELBO": -run.metrics["elbo"],
        }
        for name, runs in models(variants).items()
        for run in runs
    ).melt("model", var_name="term")
    title = f"The two terms on the test set{_over_seeds(variants)}\n{setting(variants)}"
    figure = new_figure(7.5, 4.5, title)
    axis = figure.add_subplot()
    sns.barplot(
        bars, x="term", y="value", hue="model", ax=axis, palette=PALETTE, errorbar="sd", capsize=0.1
    )
    for container in axis.containers:
        padding = 3 if len(seeds(variants)) == 1 else 12
        axis.bar_label(container, fmt="%.1f", padding=padding)  # type: ignore[arg-type]
    axis.set(xlabel="", ylabel="nats per image")
    axis.margins(y=0.1)
    axis.legend(title="")
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def kl_per_dimension(variants: Variants) -> Figure:
    """The mean KL term of each latent dimension, in descending order."""
    shown = first_runs(variants)
    title = f"Mean KL of each latent dimension\n{setting(variants)}"
    figure, axes = panels_figure(shown, 4.2, 3.4, title)
    colours = sns.color_palette(PALETTE, len(shown))
    highest = max(run.evaluation["kl_per_dimension"].max() for run in shown.values())
    for axis, (name, run), colour in zip(axes, shown.items(), colours, strict=True):
        values = np.sort(run.evaluation["kl_per_dimension"])[::-1]
        axis.bar(np.arange(1, len(values) + 1), values, color=colour)
        axis.set_title(f"{name}, seed {run.seed}: {values.sum():.1f} nats in total", fontsize=11)
        axis.set(xlabel="latent dimension, sorted by its KL", ylabel="nats per image")
        axis.set(xlim=(0.4, len(values) + 0.6), ylim=(0, 1.05 * highest))
        axis.locator_params(axis="x", integer=True, min_n_ticks=1)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def samples(variants: Variants) -> Figure:
    """Decoder means and draws for z from the prior; of several variants, a few of each."""
    shown = first_runs(variants)
    count = 2 * IMAGES if len(variants) > 1 else None
    size = len(next(iter(shown.values())).samples["means"][:count])
    columns = max(1, round(size**0.5)) if count is None else IMAGES
    blank = np.zeros((columns + -size % columns, 784), np.float32)
    rows = 2 * -(-size // columns) + 1
    title = "Samples: z ~ N(0, I), decoded; above means E[x|z], below draws x ~ p(x|z)"
    title = f"{title}\n{setting(variants)}"
    figure, axes = panels_figure(shown, 4.5, 4.1 * rows / columns + 0.3, title)
    for axis, run in zip(axes, shown.values(), strict=True):
        means, draws = run.samples["means"][:count], run.samples["draws"][:count]
        show(axis, np.concatenate((means, blank, draws)), columns)
    return figure


def reconstructions(variants: Variants) -> Figure:
    """The same test images, encoded and decoded by every model; few if there are variants."""
    shown = first_runs(variants)
    count = IMAGES if len(variants) > 1 else None
    first = next(iter(shown.values())).reconstructions
    rows = [("test image", first["originals"][:count])]
    if all(run.metadata["binarisation"] != "none" for run in shown.values()):
        rows.append(("binarised", first["inputs"][:count]))
    rows += [(name, run.reconstructions["reconstructions"][:count]) for name, run in shown.items()]
    title = f"Test images, encoded and decoded at z = mu\n{setting(variants)}"
    return rows_figure(rows, IMAGES, title)


def latent_space(variants: Variants) -> Figure:
    """Posterior means of the test images on their first two principal axes, coloured by class.

    The label of a class is at the median of its points, or next to it to avoid overlaps.
    """
    shown = first_runs(variants)
    palette = np.array(sns.color_palette(PALETTE, 10))
    title = f"Posterior means mu(x) of the test images\n{setting(variants)}"
    figure, axes = panels_figure(shown, 5.2, 4.9, title)
    for axis, run in zip(axes, shown.values(), strict=True):
        points, shares = principal_axes(run.evaluation["mu"])
        labels = run.evaluation["labels"]
        axis.scatter(points[:, 0], points[:, 1], 3, palette[labels], alpha=0.5, linewidths=0)
        classes = np.unique(labels)
        centres = np.array([np.median(points[labels == label], 0) for label in classes])
        places = pushed_apart(centres, LABEL * np.ptp(points, 0).max())
        for label, (x, y) in zip(classes, places, strict=True):
            box = {"boxstyle": "circle,pad=0.15", "fc": "white", "ec": palette[label], "lw": 2}
            axis.text(x, y, str(label), size=13, weight="bold", ha="center", va="center", bbox=box)
        for name, share in zip(("first", "second"), shares, strict=False):
            text = f"{name} principal axis of mu ({100 * share:.0f} % of its variance)"
            axis.set(**{"xlabel" if name == "first" else "ylabel": text})
        axis.set_aspect("equal", adjustable="datalim")
    return figure


def pushed_apart(places: NDArray[np.float64], distance: float) -> NDArray[np.float64]:
    """Places [N, 2], of which each two that were closer are moved apart to this distance."""
    places = places.copy()
    for _ in range(100):
        for one, other in combinations(range(len(places)), 2):
            between = places[other] - places[one]
            apart = np.hypot(*between)
            if apart < distance:
                direction = between / apart if apart > 0 else np.array([1.0, 0.0])
                places[one] -= (distance - apart) / 2 * direction
                places[other] += (distance - apart) / 2 * direction
    return places


def _over_seeds(variants: Variants) -> str:
    """What curves and bars are, for titles."""
    count = len(seeds(variants))
    return f", mean and standard deviation over {count} seeds" if count > 1 else ""


FIGURES = {
    make.__name__: make
    for make in (learning_curves, samples, reconstructions, terms, kl_per_dimension, latent_space)
}
STUDY_FIGURES = ("learning_curves", "samples", "reconstructions")
"""The figures of a study."""
