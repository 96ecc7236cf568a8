"""The figures of a comparison.

Where there are several seeds, curves and bars are means over seeds, and bands and error bars are
one standard deviation over seeds; images, KL per dimension and codes are those of the first seed.
"""

from aevb.report.figures import PALETTE, new_figure, panels_figure, rows_figure, show
from aevb.report.runs import TERMS, Models, first_runs, seeds, setting

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.decomposition import PCA

IMAGES = 10
"""Images in a row."""
LINES = {
    "train": ("-", "training, mean over the epoch"),
    "validation": ("--", "validation, after the epoch"),
}
"""The style and the label of the curve of a set."""


def learning_curves(models: Models) -> Figure:
    """Learning curves on training and validation images, as in Kingma & Welling, figure 2.

    Of one variant: a panel for each term, a colour for each k. Of several: the ELBO, a panel for
    each k and scale, a colour for each variant; panels of one scale have the same limits.
    """
    curves = []
    for runs in models.values():
        variant, k, scale = runs[0].variant, f"k = {runs[0].latent_dim}", runs[0].scale
        if variant:
            curves.append((f"ELBO, {k}, {scale}", scale, variant, "elbo", runs))
        else:
            terms = ("elbo", "log_px_given_z", "kl")
            curves += [(TERMS[term], term, k, term, runs) for term in terms]
    panels = {panel: limits for panel, limits, *_ in curves}
    labels = list(dict.fromkeys(label for _, _, label, *_ in curves))
    colours = dict(zip(labels, sns.color_palette(PALETTE, len(labels)), strict=True))
    title = f"Learning curves{_over_seeds(models)}\n{setting(models)}"
    figure, axes = panels_figure(panels, 4.5, 3.7, title)
    first: dict[str, Axes] = {}
    for axis, limits in zip(axes, panels.values(), strict=True):
        if first.setdefault(limits, axis) is not axis:
            axis.sharey(first[limits])
    for panel, _, label, term, runs in curves:
        axis, colour = axes[[*panels].index(panel)], colours[label]
        epochs = pd.concat([run.history for run in runs]).groupby("epoch").agg(["mean", "std"])
        rate = epochs["learning_rate"]["mean"]
        mark = [int((rate == rate.iloc[0]).sum()) - 1]
        for kind, (style, _) in LINES.items():
            mean, sd = epochs[f"{kind}_{term}"].to_numpy().T
            line = {"marker": "o", "fillstyle": "none", "markevery": mark, "color": colour}
            axis.plot(epochs.index, mean, style, **line)
            axis.fill_between(epochs.index, mean - sd, mean + sd, color=colour, alpha=0.2, lw=0)
        images = runs[0].metadata["train_images"]
        axis.set(xlabel=f"epoch of {images:,} training images", ylabel="nats per image")
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:.0f}")
        axis.grid(alpha=0.3)
    lines = [Line2D([], [], color=colour, label=label) for label, colour in colours.items()]
    lines += [Line2D([], [], color="black", ls=ls, label=label) for ls, label in LINES.values()]
    label = "end of the constant learning rate"
    lines.append(Line2D([], [], color="black", marker="o", fillstyle="none", ls="", label=label))
    figure.legend(handles=lines, loc="outside right center", frameon=False)
    return figure


def terms(models: Models) -> Figure:
    """Bars of the reconstruction error, the KL term and their sum, −ELBO, on the test set."""
    errors = _over_seeds(models) or ", mean and standard error over images"
    figure = new_figure(7.5, 4.5, f"The two terms on the test set{errors}\n{setting(models)}")
    axis = figure.add_subplot()
    places, width = np.arange(3), 0.8 / len(models)
    colours = sns.color_palette(PALETTE, len(models))
    for number, (name, runs) in enumerate(models.items()):
        values = pd.DataFrame([run.metrics for run in runs])
        heights = values[["reconstruction_error", "kl", "elbo"]] * [1, 1, -1]
        ses = values[["reconstruction_error_se", "kl_se", "elbo_se"]]
        error = heights.std() if len(runs) > 1 else ses.iloc[0]
        bars = axis.bar(
            places + number * width, heights.mean(), width, yerr=error, capsize=3, label=name,
            color=colours[number],
        )  # fmt: skip
        axis.bar_label(bars, fmt="%.1f", padding=3)
    labels = ["reconstruction error", "KL term", "sum: −ELBO"]
    axis.set_xticks(places + (len(models) - 1) * width / 2, labels)
    axis.set_ylabel("nats per image")
    axis.margins(y=0.1)
    axis.legend()
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def kl_per_dimension(models: Models) -> Figure:
    """The mean KL term of each latent dimension, in descending order."""
    shown = first_runs(models)
    title = f"Mean KL of each latent dimension\n{setting(models)}"
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


def samples(models: Models) -> Figure:
    """Decoder means and draws for z from the prior; of several variants, a few of each."""
    shown = first_runs(models)
    count = (2 if _several(models) else 10) * IMAGES
    count = min(count, *(len(run.samples["means"]) for run in shown.values()))
    blank = np.zeros((IMAGES + -count % IMAGES, 784), np.float32)
    rows = 2 * -(-count // IMAGES) + 1
    title = "Samples: z ~ N(0, I), decoded; above means E[x|z], below draws x ~ p(x|z)"
    title = f"{title}\n{setting(models)}"
    figure, axes = panels_figure(shown, 4.5, 4.1 * rows / IMAGES + 0.3, title)
    for axis, run in zip(axes, shown.values(), strict=True):
        means, draws = run.samples["means"][:count], run.samples["draws"][:count]
        show(axis, np.concatenate((means, blank, draws)), IMAGES)
    return figure


def reconstructions(models: Models) -> Figure:
    """The same test images, encoded and decoded by every model; few if there are variants."""
    shown = first_runs(models)
    count = IMAGES if _several(models) else None
    first = next(iter(shown.values())).reconstructions
    rows = [("test image", first["originals"][:count])]
    if all(run.metadata["binarisation"] != "none" for run in shown.values()):
        rows.append(("binarised", first["inputs"][:count]))
    rows += [(name, run.reconstructions["reconstructions"][:count]) for name, run in shown.items()]
    title = f"Test images, encoded and decoded at z = mu\n{setting(models)}"
    return rows_figure(rows, IMAGES, title)


def latent_space(models: Models) -> Figure:
    """Posterior means of the test images on their first two principal axes, coloured by class."""
    shown = first_runs(models)
    title = f"Posterior means mu(x) of the test images\n{setting(models)}"
    figure, axes = panels_figure(shown, 5.2, 4.9, title)
    colours = ListedColormap(sns.color_palette(PALETTE, 10))
    for axis, run in zip(axes, shown.values(), strict=True):
        mu = run.evaluation["mu"].astype(float)
        pca = PCA(min(2, mu.shape[1]))
        points = np.pad(pca.fit_transform(mu), ((0, 0), (0, 1)))  # for k = 1, a second axis of 0
        scatter = axis.scatter(
            points[:, 0], points[:, 1], 3, run.evaluation["labels"], cmap=colours, vmin=0, vmax=9,
            alpha=0.5, linewidths=0,
        )  # fmt: skip
        axis.set_aspect("equal", adjustable="datalim")
        shares = np.pad(100 * pca.explained_variance_ratio_, (0, 1))
        axis.set_xlabel(f"first principal axis of mu ({shares[0]:.0f} % of its variance)")
        axis.set_ylabel(f"second principal axis of mu ({shares[1]:.0f} % of its variance)")
    handles, classes = scatter.legend_elements(num=range(10), alpha=1)
    figure.legend(handles, classes, title="class", loc="outside right center", frameon=False)
    return figure


def _several(models: Models) -> bool:
    """Whether there are several variants."""
    return any(runs[0].variant for runs in models.values())


def _over_seeds(models: Models) -> str:
    """What curves and bars of several seeds are, for titles."""
    count = len(seeds(models))
    return f", mean and standard deviation over {count} seeds" if count > 1 else ""


FIGURES = {
    make.__name__: make
    for make in (learning_curves, samples, reconstructions, terms, kl_per_dimension, latent_space)
}
STUDY_FIGURES = ("learning_curves", "samples", "reconstructions")
"""The figures of a study."""
