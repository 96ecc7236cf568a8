"""The figures and sentences that set the variants of a study side by side.

Each variant is a list of runs, of the same latent dimensions and seeds in all of them.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from aevb.report.comparison import DATASETS, PALETTE, Run, first_seed, per_image
from aevb.report.discussion import changed, over_seeds, paragraphs
from aevb.report.discussion import observations as observations_on
from aevb.report.figures import new_figure, rows_figure
from aevb.report.tables import differences

Variants = Mapping[str, Sequence[Run]]

STYLES = ["train", "validation"]
COLUMNS = 3
"""Panels beside each other, so that they can be read on a page."""
IMAGES = 10
"""Shown of each kind, beside each other."""


def title(variants: Variants) -> str:
    """The data, for titles; binarisation and likelihood may differ between variants."""
    metadata = next(iter(variants.values()))[0].metadata
    return DATASETS[metadata["data"]["name"]]


def scale(run: Run) -> str:
    """What a bound of the run is a bound of: only numbers on one scale can be compared."""
    if not run.metrics["is_log_likelihood"]:
        return "no log-likelihood †"
    return "log-density" if run.metadata["binarisation"] == "none" else "log-probability"


def curves(variants: Variants) -> Figure:
    """The bound against the training images seen, as in Kingma & Welling, figure 2.

    A panel for each k and each scale, since probabilities and densities share no axis; panels of
    one scale have one range, as in the paper, unless an only variant is to be seen in detail. With
    several seeds, lines are means and bands one standard deviation.
    """
    frames = []
    for variant, runs in variants.items():
        for run in runs:
            names = {"train_elbo": "train", "validation_elbo": "validation"}
            long = run.history.rename(columns=names).melt("epoch", [*names.values()], "set", "elbo")
            long["images"] = long["epoch"] * run.metadata["train_images"]
            panel = f"k = {run.latent_dim}, {scale(run)}"
            shared = scale(run) if len(variants) > 1 else panel
            frames.append(long.assign(variant=variant, panel=panel, range=shared, seed=run.seed))
    data = pd.concat(frames, ignore_index=True).dropna()
    panels = list(dict.fromkeys(data["panel"]))
    columns = min(len(panels), COLUMNS)
    rows = -(-len(panels) // columns)
    figure = new_figure(
        3.6 * columns + 2.4, 3.7 * rows + 0.5, f"ELBO in training and validation, {title(variants)}"
    )
    colours = dict(zip(variants, sns.color_palette(PALETTE, len(variants)), strict=True))
    for place, panel in enumerate(panels):
        axis = figure.add_subplot(rows, columns, place + 1)
        chosen = data[data["panel"] == panel]
        sns.lineplot(
            chosen,
            x="images",
            y="elbo",
            hue="variant",
            style="set",
            ax=axis,
            errorbar="sd",
            palette=colours,
            style_order=STYLES,
            legend=False,
        )
        axis.set(title=panel, xscale="log", xlabel="training images seen")
        axis.set_ylabel("" if place % columns else "ELBO, nats per image")
        axis.title.set_fontsize(10)
        ranged = data[data["range"] == chosen["range"].iloc[0]].groupby("panel")["elbo"]
        low, high = ranged.quantile(0.05).min(), ranged.max().max()
        axis.set_ylim(low - 0.1 * (high - low), high + 0.05 * (high - low))
        axis.grid(alpha=0.3)
    lines = [Line2D([], [], color=colour, label=name) for name, colour in colours.items()]
    dashes = zip(STYLES, ("-", "--"), strict=True)
    lines += [Line2D([], [], color="black", ls=dash, label=name) for name, dash in dashes]
    figure.legend(handles=lines, loc="outside right center", frameon=False)
    return figure


def observations(variants: Variants) -> str:
    """How the ELBO of the variants differs, test image by test image, where the scale is one.

    Of an only variant, what there is to say of an experiment.
    """
    if len(variants) == 1:
        (runs,) = ([*some] for some in variants.values())
        return observations_on(runs, differences(per_image(runs)))
    dims = dict.fromkeys(run.latent_dim for runs in variants.values() for run in runs)
    return paragraphs({f"k = {k}": _against_the_first(variants, k) for k in dims})


def _against_the_first(variants: Variants, latent_dim: int) -> Iterator[str]:
    """A sentence for each variant but the first on its scale, at one k."""
    scales: dict[str, dict[str, list[Run]]] = {}
    for name, runs in variants.items():
        of_k = [run for run in runs if run.latent_dim == latent_dim]
        scales.setdefault(scale(of_k[0]), {})[name] = of_k
    for what, (first, *others) in scales.items():
        if not others:
            yield f"No other variant is on the scale of {first} ({what})."
        for other in others:
            terms = [list(per_image(scales[what][name]).values()) for name in (first, other)]
            pairs = {(place, i): x for place, some in enumerate(terms) for i, x in enumerate(some)}
            row = over_seeds(differences(pairs))[1]["elbo"]
            yield f"The ELBO of {other}, against that of {first}, is {changed(row)}."


def samples(variants: Variants) -> Figure:
    """Decoder means and draws from the prior, a row for each variant and k."""
    rows = []
    for name, run in _shown(variants):
        means, draws = (run.samples[what][:IMAGES] for what in ("means", "draws"))
        rows.append((name, np.concatenate((means, np.zeros_like(means[:1]), draws))))
    columns = max(len(images) for _, images in rows)
    what = "Samples: z ~ N(0, I), decoded; left means E[x|z], right draws x ~ p(x|z)"
    return rows_figure(rows, columns, f"{what}\n{title(variants)}")


def reconstructions(variants: Variants) -> Figure:
    """The same test images, decoded by each variant and k."""
    shown = list(_shown(variants))
    rows = [("test image", shown[0][1].reconstructions["originals"][:IMAGES])]
    rows += [(name, run.reconstructions["reconstructions"][:IMAGES]) for name, run in shown]
    what = "Test images, encoded and decoded at z = mu"
    return rows_figure(rows, len(rows[0][1]), f"{what}\n{title(variants)}")


def _shown(variants: Variants) -> Iterator[tuple[str, Run]]:
    """The runs whose images are shown, named."""
    for variant, runs in variants.items():
        for run in first_seed(list(runs)):
            yield f"{variant}, k = {run.latent_dim}", run


FIGURES = {"curves": curves, "samples": samples, "reconstructions": reconstructions}
