"""Draw walks through the latent space: manifold, traversals, interpolations.

All images are decoder means E[x|z]; the code of a test image is mu, the mean of q(z|x).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from aevb.data import model_inputs
from aevb.evaluation import Floats, mean_kl_per_dimension
from aevb.files import write_tensors
from aevb.plumbing import cli
from aevb.plumbing.params import Traverse
from aevb.report.figures import grid_figure, rows_figure, save_figure
from aevb.research import scoring
from aevb.rng import generator

Indices = NDArray[np.int64]
Labels = NDArray[np.uint8]

CELL, MIDDLE = 30, 13.5
"""Pixels from one image of a mosaic to the next, and to the middle of an image."""


def main_dimensions(kl: Floats, count: int) -> Indices:
    """The dimensions of the largest KL, at most `count`, largest first, for KL [k]."""
    return np.argsort(-kl, kind="stable")[:count]


def quantiles(size: int) -> Floats:
    """Equally spaced quantiles of N(0, 1), ascending, [size]: the inverse CDF of (i + ½) / size."""
    shares = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    return np.asarray(torch.special.ndtri(shares).float())


def manifold(latent_dim: int, dimensions: Indices, size: int) -> Floats:
    """Latents [size², k] that are quantiles of N(0, 1) in two dimensions and 0 in the others.

    Kingma & Welling 2013, figure 4. Row by row as in a plot: the first dimension rises to the
    right, the second upwards. With one dimension a single row, [size, k].
    """
    values = quantiles(size)
    z = np.zeros((size ** len(dimensions), latent_dim), np.float32)
    z[:, dimensions[0]] = np.tile(values, len(z) // size)
    if len(dimensions) > 1:
        z[:, dimensions[1]] = np.repeat(values[::-1], size)
    return z


def traversals(code: Floats, dimensions: Indices, values: Floats) -> Floats:
    """Latents [d, V, k]: the code [k], in each row with one of d dimensions set to the V values."""
    z = np.tile(code, (len(dimensions), len(values), 1))
    z[range(len(dimensions)), :, dimensions] = values
    return z


def interpolations(start: Floats, end: Floats, steps: int) -> Floats:
    """Latents [P, steps, k] on the lines between codes [P, k], including both ends."""
    share = np.linspace(0, 1, steps, dtype=np.float32)[:, None]
    return np.asarray((1 - share) * start[:, None] + share * end[:, None])


def pairs_of_classes(labels: Labels, count: int, random: np.random.Generator) -> Indices:
    """Pairs of images of different classes, [count, 2]; InputError if there are too few."""
    classes = len(np.unique(labels))
    scoring.require(
        count <= len(labels) and classes > 1,
        f"--pairs {count}: the test set has {len(labels)} images of {classes} classes",
    )
    first = random.choice(len(labels), count, replace=False)
    second = [random.choice(np.flatnonzero(labels != labels[image])) for image in first]
    return np.stack((first, second), 1)


def names(dimensions: Indices, kl: Floats) -> list[str]:
    """Dimensions, counted from 0 as in the files, with their KL."""
    return [f"z[{dimension}], {kl[dimension]:.2f} nats" for dimension in dimensions]


def manifold_figure(images: Floats, size: int, dimensions: Sequence[str], run: str) -> Figure:
    """Decoder means on the grid of `manifold`, [size², 784], with named axes."""
    where = " and ".join(dimensions)
    title = f"Decoder means at quantiles of N(0, 1) in\n{where}, others 0, {run}"
    figure = grid_figure(images, size, title)
    width, height = figure.get_size_inches()
    figure.set_size_inches(width + 0.8, height + 0.4)  # room for the names of the axes
    (axis,) = figure.axes
    places, values = ticks(quantiles(size))
    axis.set_xticks(places, values)
    axis.set_xlabel(dimensions[0])
    if len(dimensions) > 1:
        axis.set_yticks(places, values[::-1])
        axis.set_ylabel(dimensions[1])
    axis.tick_params(length=0)
    return figure


def traversals_figure(
    images: Floats, values: Floats, dimensions: Sequence[str], others: str, run: str
) -> Figure:
    """Decoder means along `traversals`, [d, V, 784], a row for each dimension."""
    title = f"Decoder means, one dimension changed per row\nthe others at {others}, {run}"
    figure = rows_figure(list(zip(dimensions, images, strict=True)), len(values), title)
    (axis,) = figure.axes
    axis.set_xticks(*ticks(values))
    return figure


def ticks(values: Floats) -> tuple[list[float], list[str]]:
    """Positions and values of four or five images of a row, evenly spread."""
    count = 4 + len(values) % 2  # so that they can be placed symmetrically
    shown = np.unique(np.linspace(0, len(values) - 1, count).round().astype(int))
    places = [CELL * place + MIDDLE for place in shown.tolist()]
    return places, [f"{values[place]:.1f}".replace("-", "−") for place in shown]


def interpolations_figure(originals: Floats, images: Floats, labels: Labels, run: str) -> Figure:
    """A row for each of P pairs: an image, decoder means [P, steps, 784], the other image."""
    gap = np.zeros_like(images[:, :1])
    pictures = np.concatenate((originals[:, :1], gap, images, gap, originals[:, 1:]), 1)
    rows = [(f"{a} to {b}", row) for (a, b), row in zip(labels, pictures, strict=True)]
    title = f"Test images, and decoder means on the line between their codes mu, {run}"
    return rows_figure(rows, pictures.shape[1], title)


class Files(scoring.ModelAndTestSet):
    """With the figures and what they show."""

    manifold: Annotated[Path, "grid over two dimensions to write (.png)"]
    traversals: Annotated[Path, "figure of single dimensions, one per row, to write (.png)"]
    interpolations: Annotated[Path, "figure of rows between two images to write (.png)"]
    arrays: Annotated[Path, "latents and all images to write (.safetensors)"]


def main(files: Files, settings: Traverse) -> None:
    """Choose the latents, decode them, write the figures and what they show."""
    inputs = scoring.read_inputs("traverse", files)
    model, labels, run = inputs.model, inputs.test.labels, inputs.run
    random = generator("traverse", settings.seed)
    image = int(random.integers(len(labels)))
    pairs = pairs_of_classes(labels, settings.pairs, random)
    mu, log_var = inputs.encode(inputs.x)
    kl = mean_kl_per_dimension(mu, log_var)
    plane, dimensions = main_dimensions(kl, 2), main_dimensions(kl, settings.dimensions)
    values = np.linspace(-settings.extent, settings.extent, settings.steps, dtype=np.float32)
    code, others = mu[image], f"mu of test image {image}, a {labels[image]}"
    if settings.around == "origin":
        code, others = np.zeros_like(code), "0"
    z = {
        "manifold": manifold(model.latent_dim, plane, settings.grid),
        "traversals": traversals(code, dimensions, values),
        "interpolations": interpolations(mu[pairs[:, 0]], mu[pairs[:, 1]], settings.steps),
    }
    grid, rows, lines = means = [model.mean(torch.from_numpy(x)).numpy() for x in z.values()]
    originals = model_inputs(inputs.test, "none")[pairs]
    in_plane, in_rows = names(plane, kl), names(dimensions, kl)
    save_figure(files.manifold, manifold_figure(grid, settings.grid, in_plane, run))
    save_figure(files.traversals, traversals_figure(rows, values, in_rows, others, run))
    figure = interpolations_figure(originals, lines, labels[pairs], run)
    save_figure(files.interpolations, figure)
    arrays = {
        **{f"{name}_z": places for name, places in z.items()},
        **{f"{name}_means": images for name, images in zip(z, means, strict=True)},
        "manifold_dimensions": plane,
        "traversals_dimensions": dimensions,
        "traversals_code": code,
        "interpolations_index": pairs,
        "interpolations_originals": originals,
        "kl_per_dimension": kl,
    }
    write_tensors(files.arrays, "traversals", arrays, inputs.metadata)
    cli.log.info("traverse %s: %d dimensions, wrote %s", run, len(dimensions), files.arrays)
