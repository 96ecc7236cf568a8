"""Encode and decode randomly chosen test images, the same ones for every model.

The figure shows the decoder's mean at z = mu, the mean of q(z|x).
"""

from pathlib import Path
from typing import Annotated

from aevb.data import model_inputs, read_set
from aevb.exact import exact
from aevb.files import Arrays, InputError, write_tensors
from aevb.model import read_model
from aevb.plumbing import cli
from aevb.plumbing.machine import repeatable
from aevb.plumbing.params import Reconstruct, TestSet, TrainedModel
from aevb.report.figures import rows_figure, save_figure
from aevb.rng import Random

import numpy as np
import torch

COLUMNS = 10


@torch.inference_mode()
def main(
    test: TestSet,
    model: TrainedModel,
    figure: Annotated[Path, "images and reconstructions to write (.png)"],
    reconstructions: Annotated[Path, "its images to write (.safetensors)"],
    settings: Reconstruct,
) -> None:
    """Choose, encode and decode images, write them and the figure."""
    repeatable()
    vae, metadata = read_model(model)
    images = read_set(test, "test", metadata.get("data", {}))
    if settings.images > len(images):
        raise InputError(f"--images {settings.images}: the test set has {len(images)} images")
    order = Random("reconstruct", settings.seed).permutation(len(images))
    chosen = np.sort(order[: settings.images])
    inputs = model_inputs(images, metadata["binarisation"])[chosen]
    with exact():
        mu, _ = vae.encode(torch.from_numpy(inputs))
        decoded = vae.mean(mu).numpy()
    arrays: Arrays = {
        "index": chosen,
        "originals": model_inputs(images, "none")[chosen],
        "inputs": inputs,
        "reconstructions": decoded,
    }
    rows = [("test image", arrays["originals"]), ("decoded", arrays["reconstructions"])]
    if metadata["binarisation"] != "none":
        rows.insert(1, ("binarised", inputs))
    run = f"k = {vae.latent_dim}, seed {metadata['seed']}"
    title = f"Test images, encoded and decoded at z = mu, {run}"
    metadata["reconstruct"] = settings.model_dump()
    write_tensors(reconstructions, "reconstructions", arrays, metadata, test=test, model=model)
    save_figure(figure, rows_figure(rows, COLUMNS, title), reconstructions)
    cli.log.info("reconstruct %s: %d images, wrote %s", run, len(chosen), figure)


if __name__ == "__main__":
    cli.run(main, __doc__)
