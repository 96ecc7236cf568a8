"""Generate images from the prior: z ~ N(0, I), then the decoder's mean and a draw from p(x|z)."""

from pathlib import Path
from typing import Annotated

from aevb.exact import exact
from aevb.files import write_tensors
from aevb.model import read_model
from aevb.plumbing import cli
from aevb.plumbing.machine import repeatable
from aevb.plumbing.params import Sample, TrainedModel
from aevb.report.figures import grid_figure, save_figure
from aevb.rng import Random

import torch


@torch.inference_mode()
def main(
    model: TrainedModel,
    means: Annotated[Path, "grid of decoder means to write (.png)"],
    draws: Annotated[Path, "grid of drawn images to write (.png)"],
    samples: Annotated[Path, "z, means and draws to write (.safetensors)"],
    settings: Sample,
) -> None:
    """Sample, write both grids and the images in them."""
    repeatable()
    vae, metadata = read_model(model)
    shape = (settings.rows * settings.columns, vae.latent_dim)
    random = Random("sample", settings.seed)
    z = torch.from_numpy(random.normal(shape))
    with exact():
        params = vae.decoder(z)
        arrays = {
            "z": z.numpy(),
            "means": vae.likelihood.mean(params).numpy(),
            "draws": vae.likelihood.sample(params, random).numpy(),
        }
    run = f"k = {vae.latent_dim}, seed {metadata['seed']}"
    metadata["sample"] = settings.model_dump()
    write_tensors(samples, "samples", arrays, metadata, model=model)
    for name, path, what in (
        ("means", means, "Decoder means E[x|z]"),
        ("draws", draws, "Draws x ~ p(x|z)"),
    ):
        title = f"{what}\nfor z ~ N(0, I), {run}"
        save_figure(path, grid_figure(arrays[name], settings.columns, title), samples)
    cli.log.info("sample %s: %d images, wrote %s", run, len(z), samples)


if __name__ == "__main__":
    cli.run(main, __doc__)
