"""How figures are created and saved, and how images are arranged in them.

Figures are made without pyplot and without the user's matplotlibrc, so that a figure has the same
bytes whatever backend or style the user has chosen.
"""

import io
import textwrap
from collections.abc import Collection, Sequence
from pathlib import Path

from aevb.files import sha256, write_bytes

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

Images = NDArray[np.float32]

DPI = 150
PALETTE = "colorblind"
"""The palette of seaborn that all figures use."""


def new_figure(width: float, height: float, title: str) -> Figure:
    """An empty figure in matplotlib's default style, in inches; a long title is wrapped."""
    mpl.rcdefaults()
    figure = Figure(figsize=(width, height), layout="constrained")
    width = int(10 * width)
    lines = [textwrap.fill(line, width, break_on_hyphens=False) for line in title.splitlines()]
    figure.suptitle("\n".join(lines), fontsize=12)
    return figure


def panels_figure(
    panels: Collection[str], width: float, height: float, title: str
) -> tuple[Figure, list[Axes]]:
    """A figure with titled panels of the given size, at most three in a row."""
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = new_figure(width * columns, height * rows + 0.6, title)
    axes = [figure.add_subplot(rows, columns, place + 1) for place in range(len(panels))]
    for axis, panel in zip(axes, panels, strict=True):
        axis.set_title(panel, fontsize=11)
    return figure, axes


def save_figure(path: Path, figure: Figure, source: Path | None = None) -> None:
    """Write a PNG file atomically, without matplotlib's version number in its metadata.

    The SHA-256 of `source`, the file that it shows, is stored in it. The reverse is not possible:
    on another processor the pixels may differ, but not what they show.
    """
    metadata: dict[str, str | None] = {"Software": None}
    if source is not None:
        metadata |= {"Title": path.stem, "Source": sha256(source)}
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata=metadata)
    write_bytes(path, buffer.getvalue())


def show(axis: Axes, images: Images, columns: int) -> None:
    """Show images [N, 784] row by row as one picture, black on white, with white gaps."""
    padding = (0, -len(images) % columns), (0, 2), (0, 2)
    tiles = np.pad(1 - images.reshape(-1, 28, 28).clip(0, 1), padding, constant_values=1)
    rows = tiles.reshape(-1, columns, 30, 30).swapaxes(1, 2)
    picture = rows.reshape(-1, columns * 30)[:-2, :-2]
    axis.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def grid_figure(images: Images, columns: int, title: str) -> Figure:
    """A grid of images [N, 784]."""
    rows = -(-len(images) // columns)
    figure = new_figure(max(0.45 * columns, 4.2), 0.45 * rows + 0.6, title)
    show(figure.add_subplot(), images, columns)
    return figure


def rows_figure(rows: Sequence[tuple[str, Images]], columns: int, title: str) -> Figure:
    """Labelled rows of corresponding images, [N, 784] each.

    If there are more images than columns, all rows continue in further blocks below.
    """
    labels = [label for label, _ in rows]
    blocks = -(-len(rows[0][1]) // columns)
    width = 0.5 * columns + max(1.4, 0.2 + 0.09 * max(map(len, labels)))
    figure = new_figure(width, (0.5 * len(rows) + 0.25) * blocks + 0.5, title)
    for block, axis in enumerate(figure.subplots(blocks, 1, squeeze=False)[:, 0]):
        chosen = [images[block * columns : (block + 1) * columns] for _, images in rows]
        blank = np.zeros((columns - len(chosen[0]), 784), np.float32)
        show(axis, np.concatenate([part for row in chosen for part in (row, blank)]), columns)
        axis.set_yticks([30 * row + 13.5 for row in range(len(rows))], labels)
        axis.tick_params(length=0)
        axis.set_anchor("W")  # if centred, the layout would reserve too little for the labels
    return figure
