"""Images as grids, and how every figure is saved: the same pixels and bytes on every run.

Figures are made without pyplot and without the user's matplotlibrc, so that no backend, window or
local style decides what they look like.
"""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from aevb.files import write_bytes

Images = NDArray[np.float32]

DPI = 150


def new_figure(width: float, height: float, title: str) -> Figure:
    """An empty figure of so many inches, in the default style, its title wrapped to the width."""
    mpl.rcdefaults()
    figure = Figure(figsize=(width, height), layout="constrained")
    lines = [
        textwrap.fill(line, int(10 * width), break_on_hyphens=False) for line in title.splitlines()
    ]
    figure.suptitle("\n".join(lines), fontsize=12)
    return figure


def save_figure(path: Path, figure: Figure) -> None:
    """Write a PNG, atomically, without the version that matplotlib would put in."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    write_bytes(path, buffer.getvalue())


def mosaic(images: Images, columns: int, gap: int = 2) -> Images:
    """Images [N, 784] as one picture, filled row by row, with a white gap between them."""
    side = 28 + gap
    rows = -(-len(images) // columns)
    picture = np.ones((rows * side - gap, columns * side - gap), np.float32)
    for place, image in enumerate(images):
        top, left = place // columns * side, place % columns * side
        # Ink is dark on paper: 1 in the data, black in the picture.
        picture[top : top + 28, left : left + 28] = 1 - image.reshape(28, 28).clip(0, 1)
    return picture


def grid_figure(images: Images, columns: int, title: str) -> Figure:
    """A grid of images under a title."""
    rows = -(-len(images) // columns)
    figure = new_figure(max(0.45 * columns, 4.2), 0.45 * rows + 0.6, title)
    show(figure.add_subplot(), mosaic(images, columns))
    return figure


def rows_figure(rows: Sequence[tuple[str, Images]], columns: int, title: str) -> Figure:
    """Labelled rows of images, [N, 784] each, that belong together column by column.

    More images than columns go on in further blocks of rows below.
    """
    count = len(rows[0][1])
    blocks = -(-count // columns)
    height = 0.5 * len(rows) * blocks + 0.25 * blocks + 0.5
    label_width = max(1.4, 0.2 + 0.09 * max(len(label) for label, _ in rows))
    figure = new_figure(0.5 * columns + label_width, height, title)
    axes = figure.subplots(blocks, 1, squeeze=False)[:, 0]
    for block, axis in enumerate(axes):
        chosen = [images[block * columns : (block + 1) * columns] for _, images in rows]
        width = len(chosen[0])
        blank = np.zeros((columns - width, chosen[0].shape[1]), np.float32)
        show(
            axis, mosaic(np.concatenate([np.concatenate((row, blank)) for row in chosen]), columns)
        )
        axis.set_yticks([30 * row + 13.5 for row in range(len(rows))], [label for label, _ in rows])
        axis.tick_params(length=0)
        axis.set_anchor("W")  # in the middle, the layout would reserve too little for the labels
    return figure


def show(axis: mpl.axes.Axes, picture: Images) -> None:
    """A gray picture without frame and ticks."""
    axis.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
