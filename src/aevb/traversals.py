"""Walks through the latent space: where they go, and the figures of what is decoded there."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from aevb.data import Bytes
from aevb.evaluation import Floats
from aevb.files import InputError
from aevb.report.figures import Images, grid_figure, rows_figure

Places = NDArray[np.int64]

CELL, MIDDLE = 30, 13.5
"""Pixels from an image to the next one of a mosaic, and to its middle."""


def main_dimensions(kl: Floats, count: int) -> Places:
    """The dimensions of the largest KL, at most `count`, largest first, for KL [k]."""
    return np.argsort(-kl, kind="stable")[:count]


def quantiles(size: int) -> Floats:
    """Equally spaced quantiles of N(0, 1), ascending, [size]: the inverse CDF of (i + ½) / size."""
    shares = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    values: Floats = torch.special.ndtri(shares).float().numpy()
    return values


def manifold(latent_dim: int, dimensions: Places, size: int) -> Floats:
    """Latents [size², k] that are quantiles of N(0, 1) in two dimensions and 0 in the others.

    Kingma & Welling, figure 4. Row by row as in a plot: the first dimension rises to the right,
    the second upwards. With one dimension a single row, [size, k].
    """
    values = quantiles(size)
    z = np.zeros((size ** len(dimensions), latent_dim), np.float32)
    z[:, dimensions[0]] = np.tile(values, len(z) // size)
    if len(dimensions) > 1:
        z[:, dimensions[1]] = np.repeat(values[::-1], size)
    return z


def traversals(code: Floats, dimensions: Places, values: Floats) -> Floats:
    """Latents [d, V, k]: the code [k] with one of d dimensions a row set to each of the values."""
    z = np.tile(code, (len(dimensions), len(values), 1))
    z[range(len(dimensions)), :, dimensions] = values
    return z


def interpolations(start: Floats, end: Floats, steps: int) -> Floats:
    """Latents [P, steps, k] on the lines between codes [P, k], both ends among them."""
    share = np.linspace(0, 1, steps, dtype=np.float32)[:, None]
    between: Floats = (1 - share) * start[:, None] + share * end[:, None]
    return between


def pairs_of_classes(labels: Bytes, count: int, random: np.random.Generator) -> Places:
    """Pairs of images of different classes, [count, 2]; no image is the first of two pairs.

    Raises:
        InputError: if there are too few images or classes.
    """
    if count > len(labels) or len(np.unique(labels)) < 2:
        raise InputError(
            f"--pairs {count}: the test set has {len(labels)} images "
            f"of {len(np.unique(labels))} classes"
        )
    first = random.choice(len(labels), count, replace=False)
    second = [random.choice(np.flatnonzero(labels != labels[image])) for image in first]
    return np.stack((first, second), 1)


def names(dimensions: Places, kl: Floats) -> list[str]:
    """Dimensions as they are counted in the files, with their KL."""
    return [f"z[{dimension}], {kl[dimension]:.2f} nats" for dimension in dimensions]


def manifold_figure(images: Images, size: int, dimensions: Sequence[str], run: str) -> Figure:
    """Decoder means on the grid of `manifold`, [size², 784], its sides named."""
    where = " and ".join(dimensions)
    title = f"Decoder means at quantiles of N(0, 1) in\n{where}, others 0, {run}"
    figure = grid_figure(images, size, title)
    width, height = figure.get_size_inches()
    figure.set_size_inches(width + 0.8, height + 0.4)  # for the names of the sides
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
    images: Images, values: Floats, dimensions: Sequence[str], others: str, run: str
) -> Figure:
    """Decoder means along `traversals`, [d, V, 784], a row for each dimension."""
    title = f"Decoder means, one dimension changed a row\nthe others at {others}, {run}"
    rows = list(zip(dimensions, images, strict=True))
    figure = rows_figure(rows, len(values), title)
    (axis,) = figure.axes
    axis.set_xticks(*ticks(values))
    return figure


def ticks(values: Floats) -> tuple[list[float], list[str]]:
    """Where four or five of the images in a row stand, evenly spread, and their values."""
    count = 4 + len(values) % 2  # as many as let them stand symmetrically
    shown = np.unique(np.linspace(0, len(values) - 1, count).round().astype(int))
    places = [CELL * place + MIDDLE for place in shown.tolist()]
    return places, [f"{values[place]:.1f}".replace("-", "−") for place in shown]


def interpolations_figure(originals: Images, images: Images, labels: Bytes, run: str) -> Figure:
    """A row for each pair: an image, the decoder means of `interpolations`, the other image.

    Originals [P, 2, 784], decoder means [P, steps, 784] and labels [P, 2].
    """
    gap = np.zeros_like(images[:, :1])
    pictures = np.concatenate((originals[:, :1], gap, images, gap, originals[:, 1:]), 1)
    rows = [(f"{a} to {b}", row) for (a, b), row in zip(labels, pictures, strict=True)]
    title = f"Test images, and decoder means on the line between their codes mu, {run}"
    return rows_figure(rows, pictures.shape[1], title)
