"""Draw walks through the latent space: manifold, traversals, interpolations.

All images are decoder means E[x|z]; the code of a test image is mu, the mean of q(z|x).
"""

from pathlib import Path
from statistics import NormalDist
from typing import Annotated, Any

from aevb.evaluation import mean_kl_per_dimension
from aevb.plumbing.params import Traverse
from aevb.report.figures import grid_figure, rows_figure, save_figure
from aevb.research import scoring
from aevb.rng import Floats, Random

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def quantiles(size: int) -> Floats:
    """The quantiles (i + ½) / size of N(0, 1), ascending, [size].

    They have four decimals, since the last digits of `inv_cdf` depend on the machine.
    """
    places = ((i + 0.5) / size for i in range(size))
    return np.array([round(NormalDist().inv_cdf(place), 4) for place in places], np.float32)


def manifold(code: Floats, dimensions: Indices, size: int) -> Floats:
    """Latents [size², k]: the code [k], with two dimensions at quantiles of N(0, 1).

    Kingma & Welling 2013, figure 4, where k = 2. Row by row as in a plot: the first dimension rises
    to the right, the second upwards. With one dimension a single row, [size, k].
    """
    values = quantiles(size)
    z = np.tile(code, (size ** len(dimensions), 1))
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


def pairs_of_classes(labels: NDArray[np.uint8], count: int, random: Random) -> Indices:
    """Pairs of images of different classes, [count, 2]; InputError if there are too few."""
    classes = len(np.unique(labels))
    scoring.require(
        count <= len(labels) and classes > 1,
        f"--pairs {count}: the test set has {len(labels)} images of {classes} classes",
    )
    first = random.permutation(len(labels))[:count]
    orders = (random.permutation(len(labels)) for _ in first)
    second = [
        next(other for other in order if labels[other] != labels[image])
        for image, order in zip(first, orders, strict=True)
    ]
    return np.stack((first, second), 1)


class Files(scoring.Files):
    """With the figures."""

    manifold: Annotated[Path, "grid over two dimensions to write (.png)"]
    traversals: Annotated[Path, "figure of single dimensions, one per row, to write (.png)"]
    interpolations: Annotated[Path, "figure of rows between two images to write (.png)"]


def main(files: Files, settings: Traverse) -> None:
    """Choose the latents, decode them, write the figures and what they show."""
    inputs = scoring.read_inputs("traverse", files.model, files.test)
    labels, run = inputs.labels, inputs.run
    random = Random("traverse", settings.seed)
    image = int(random.permutation(len(labels))[0])
    pairs = pairs_of_classes(labels, settings.pairs, random)
    mu, log_var = inputs.encode(inputs.x)
    kl = mean_kl_per_dimension(mu, log_var)
    by_kl, extent = np.argsort(-kl, kind="stable"), settings.extent
    plane, dimensions = by_kl[:2], by_kl[: settings.dimensions]
    values = np.linspace(-extent, extent, settings.steps, dtype=np.float32)
    z = {
        "manifold": manifold(mu[image], plane, settings.grid),
        "traversals": traversals(mu[image], dimensions, values),
        "interpolations": interpolations(mu[pairs[:, 0]], mu[pairs[:, 1]], settings.steps),
    }
    grid, rows, lines = map(inputs.decode, z.values())
    names = [f"z[{dimension}], {kl[dimension]:.2f} nats" for dimension in dimensions]

    where = " and upwards in ".join(f"z[{dimension}]" for dimension in plane)
    others = f"others at\nmu of test image {image}, a {labels[image]}, {run}"
    title = f"Decoder means at quantiles of N(0, 1), rising\nto the right in {where}, {others}"
    save_figure(files.manifold, grid_figure(grid, settings.grid, title))

    title = f"Decoder means, one dimension from {-extent:g} to {extent:g} in each row, the {others}"
    figure = rows_figure(list(zip(names, rows, strict=True)), settings.steps, title)
    save_figure(files.traversals, figure)

    first, last = inputs.gray[pairs.T][:, :, None]
    blank = np.zeros_like(first)
    pictures = np.concatenate((first, blank, lines, blank, last), 1)
    title = f"Test images, and decoder means on the line between their codes mu, {run}"
    labelled = [(f"{a} to {b}", row) for (a, b), row in zip(labels[pairs], pictures, strict=True)]
    save_figure(files.interpolations, rows_figure(labelled, settings.steps + 4, title))

    arrays: dict[str, NDArray[Any]] = {
        **{f"{name}_z": latents for name, latents in z.items()},
        "manifold": grid,
        "traversals": rows,
        "interpolations": lines,
        "dimensions": dimensions,
        "pairs": pairs,
    }
    inputs.write_arrays(files, arrays)
