"""Score the snapshots of trainings on training and test images, as in Kingma & Welling, figure 2.

Snapshots are the weights after the epochs in `train.snapshots`. One draw of z per image is used.
"""

from itertools import product
from pathlib import Path
from typing import Annotated, Any

from aevb.evaluation import evaluate
from aevb.exact import exact
from aevb.files import InputError, read_tensors, write_text
from aevb.intervals import mean_and_se
from aevb.model import SNAPSHOTS
from aevb.plumbing import cli
from aevb.plumbing.params import Runs, TestSet, TrainSet
from aevb.report.figures import PALETTE, panels_figure, save_figure
from aevb.report.runs import MARK
from aevb.report.tables import as_csv
from aevb.research import scoring

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure

STYLES = {"training": "-", "test": "--"}
"""The sets of images, and how their curves are drawn."""
ELBO = "ELBO of each test image"

Rows = list[dict[str, Any]]


def score(inputs: scoring.Inputs, path: Path, train: Path, threshold: float) -> Rows:
    """Score each snapshot in the file of the model on as many training as test images.

    Returns:
        For each snapshot, the training images seen, the number of active units on the test images,
        the ELBO of both sets with its standard error in nats per image, and the ELBO of each test
        image, [N].
    """
    model, metadata = inputs.model, inputs.metadata
    arrays, _ = read_tensors(path, "model")
    if not metadata.get("snapshots"):
        raise InputError(f"{path}: has no snapshots; set train.snapshots and train it again")
    sets = {"training": inputs.training_images(train)[: len(inputs.x)], "test": inputs.x}
    rows = []
    for number, epoch in enumerate(metadata["snapshots"]):
        weights = {name: arrays[f"{SNAPSHOTS}{name}"][number] for name in model.state_dict()}
        model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
        row: dict[str, Any] = {"latent_dim": model.latent_dim, "seed": metadata["seed"]}
        row["images_seen"] = epoch * metadata["train_images"]
        for name, x in sets.items():
            with exact():
                found = evaluate(model, x, samples=1, seed=0)
            row[name], row[f"{name}_se"] = mean_and_se(found["elbo"])
        variances = found["mu"].astype(np.float64).var(0, ddof=1)
        row |= {"active_units": int((variances > threshold).sum()), ELBO: found["elbo"]}
        rows.append(row)
        text = "k = {latent_dim}, {images_seen:,} images seen: test ELBO {test:.2f}"
        cli.log.debug("curves: %s", text.format(**row))
    return rows


def figure(frame: pd.DataFrame, title: str) -> Figure:
    """The bounds against the training images seen: a panel for each k, and one of differences."""
    dims = [*frame["latent_dim"].unique()]
    panels = [*(f"k = {k}" for k in dims), "training − test ELBO, all k"]
    result, axes = panels_figure(panels, 4, 3.4, title)
    colours = dict(zip(dims, sns.color_palette(PALETTE, len(dims)), strict=True))
    for (k, seed), rows in frame.groupby(["latent_dim", "seed"]):
        axis, seen = axes[dims.index(k)], rows["images_seen"]
        style = {"color": colours[k], "marker": "."}
        first = seed == frame["seed"].iloc[0]
        for name, line in STYLES.items():
            axis.plot(seen, rows[name], line, **style, label=name if first else None)
        gap = rows["training"] - rows["test"]
        axes[-1].plot(seen, gap, **style, label=f"k = {k}" if first else None)
        axis.sharey(axes[0])
    for axis in axes:
        axis.set(xscale="log", xlabel="training images seen", ylabel="nats per image")
        axis.grid(alpha=0.3)
    axes[0].legend()
    axes[-1].legend()
    return result


def change(row: dict[str, Any], other: dict[str, Any]) -> str:
    """The mean difference of the ELBO between the same test images, with its standard error."""
    return "{:+.2f} ± {:.2f}".format(*mean_and_se(row[ELBO].astype(float) - other[ELBO]))


def as_markdown(runs: list[Rows]) -> str:
    """The last snapshot of each run, and the differences of its test ELBO from others."""
    lines = []
    for rows, before in zip(runs, [None, *runs], strict=False):
        last, best = rows[-1], max(rows, key=lambda row: row["test"])
        cells = {"k": "{latent_dim}", "seed": "{seed}", "active units": "{active_units}"}
        cells |= {f"ELBO, {name}": f"{{{name}:.2f}} ± {{{name}_se:.2f}}" for name in STYLES}
        line = {title: cell.format(**last) for title, cell in cells.items()}
        line["images seen at the best test ELBO"] = f"{best['images_seen']:,}"
        line["test, this row − row above"] = change(last, before[-1]) if before else ""
        lines.append(line)
    table = pd.DataFrame(lines).to_markdown(index=False, disable_numparse=True)
    return (
        f"{table}\n\nNats per image at the last snapshot, after "
        f"{max(rows[-1]['images_seen'] for rows in runs):,} training images; ± is the standard "
        "error over images. Differences are those of the same test images. Along a curve the "
        "images are the same, so its changes are more certain than its level.\n"
    )


def main(
    results: Annotated[Path, "folder with the folder models"],
    train: TrainSet,
    test: TestSet,
    output: Annotated[Path, "folder to write to"],
    threshold: Annotated[float, "least variance of the mean of an active unit"],
    settings: Runs,
) -> None:
    """Score the snapshots of all runs; write tables and a figure."""
    names = product(settings.latent_dims, settings.seeds)
    paths = [results / "models" / f"k{k}-seed{seed}.safetensors" for k, seed in names]
    runs = []
    for path in paths:
        inputs = scoring.read_inputs("curves", path, test)
        runs.append(score(inputs, path, train, threshold))
    frame = pd.DataFrame([row for rows in runs for row in rows]).drop(columns=ELBO)
    mark = "" if inputs.is_log_likelihood() else f" ({MARK} not a log-likelihood)"
    title = "ELBO of training and of test images during training, both with the same weights\n"
    title += "likelihood: {likelihood}, binarisation: {binarisation}".format_map(inputs.metadata)
    write_text(output / "table.csv", as_csv(frame))
    write_text(output / "table.md", as_markdown(runs))
    save_figure(output / "curves.png", figure(frame, title + mark))
    cli.log.info("curves: %d models, wrote %s", len(runs), output)
