"""Generate images from the prior: z ~ N(0, I), then the decoder's mean and a draw from p(x|z)."""

from argparse import Namespace
from pathlib import Path

import torch

from aevb.files import write_tensors
from aevb.model import read_model
from aevb.plumbing import cli
from aevb.plumbing.devices import repeatable
from aevb.plumbing.params import Sample
from aevb.report.figures import grid_figure, save_figure
from aevb.rng import Random


def arguments() -> cli.Parser:
    """The command line of this stage."""
    parser = cli.parser(__doc__, Sample)
    add = parser.add_argument
    add("--model", type=Path, required=True, help="the trained model (.safetensors)")
    add("--means", type=Path, required=True, help="grid of decoder means to write (.png)")
    add("--draws", type=Path, required=True, help="grid of drawn images to write (.png)")
    add("--samples", type=Path, required=True, help="z, means and draws to write (.safetensors)")
    return parser


@torch.inference_mode()
def main(args: Namespace) -> None:
    """Sample, write both grids and the images in them."""
    settings = cli.settings(Sample, args)
    repeatable()
    model, metadata = read_model(args.model)
    shape = (settings.rows * settings.columns, model.latent_dim)
    random = Random("sample", settings.seed)
    z = torch.from_numpy(random.normal(shape))
    params = model.decoder(z)
    means = model.likelihood.mean(params)
    draws = model.likelihood.sample(params, random)
    arrays = {"z": z.numpy(), "means": means.numpy(), "draws": draws.numpy()}
    write_tensors(args.samples, "samples", arrays, metadata)
    run = f"k = {model.latent_dim}, seed {metadata['seed']}"
    for name, path, what in (
        ("means", args.means, "Decoder means E[x|z]"),
        ("draws", args.draws, "Draws x ~ p(x|z)"),
    ):
        title = f"{what}\nfor z ~ N(0, I), {run}"
        save_figure(path, grid_figure(arrays[name], settings.columns, title))
    cli.log.info("sample %s: %d images, wrote %s", run, len(z), args.samples)


if __name__ == "__main__":
    cli.run(main, arguments())
