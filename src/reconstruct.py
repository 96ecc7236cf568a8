"""Encode and decode randomly chosen test images, the same ones for every model.

The figure shows the decoder's mean at z = mu, the mean of q(z|x).
"""

from argparse import Namespace
from pathlib import Path

import numpy as np
import torch

from aevb.data import model_inputs, read_set
from aevb.files import Arrays, InputError, write_tensors
from aevb.model import read_model
from aevb.plumbing import cli
from aevb.plumbing.devices import repeatable
from aevb.plumbing.params import Reconstruct
from aevb.report.figures import rows_figure, save_figure
from aevb.rng import Random

COLUMNS = 10


def arguments() -> cli.Parser:
    """The command line of this stage."""
    parser = cli.parser(__doc__, Reconstruct)
    add = parser.add_argument
    add("--test", type=Path, required=True, help="test images (.safetensors)")
    add("--model", type=Path, required=True, help="the trained model (.safetensors)")
    add("--figure", type=Path, required=True, help="images and reconstructions to write (.png)")
    add(
        "--reconstructions",
        type=Path,
        required=True,
        help="its images to write (.safetensors)",
    )
    return parser


@torch.inference_mode()
def main(args: Namespace) -> None:
    """Choose, encode and decode images, write them and the figure."""
    settings = cli.settings(Reconstruct, args)
    repeatable()
    model, metadata = read_model(args.model)
    test = read_set(args.test)
    if settings.images > len(test):
        raise InputError(f"--images {settings.images}: the test set has {len(test)} images")
    order = Random("reconstruct", settings.seed).permutation(len(test))
    chosen = np.sort(order[: settings.images])
    inputs = model_inputs(test, metadata["binarisation"])[chosen]
    mu, _ = model.encode(torch.from_numpy(inputs))
    arrays: Arrays = {
        "index": chosen,
        "originals": model_inputs(test, "none")[chosen],
        "inputs": inputs,
        "reconstructions": model.mean(mu).numpy(),
    }
    write_tensors(args.reconstructions, "reconstructions", arrays, metadata)
    rows = [("test image", arrays["originals"]), ("decoded", arrays["reconstructions"])]
    if metadata["binarisation"] != "none":
        rows.insert(1, ("binarised", inputs))
    run = f"k = {model.latent_dim}, seed {metadata['seed']}"
    title = f"Test images, encoded and decoded at z = mu, {run}"
    save_figure(args.figure, rows_figure(rows, COLUMNS, title))
    cli.log.info("reconstruct %s: %d images, wrote %s", run, len(chosen), args.figure)


if __name__ == "__main__":
    cli.run(main, arguments())
