"""Write a page with the trained models in it: draw an image, move its code, see the image decoded.

The page is one HTML file that needs no other file and no network. It contains one model for each
number of latent dimensions, trained with the first seed. Weights are rounded to 10 to 12 bits. With
the published models, pixels that the page decodes differ from the model's by at most 0.011, and by
less than 0.01 in at least 99.9 % of the reconstructions of the 10,000 test images.
"""

import json
from base64 import b64encode
from pathlib import Path
from typing import Annotated, Any

from aevb.data import read_set
from aevb.datasets import DATASETS
from aevb.files import read_bytes, read_tensors, write_text
from aevb.likelihoods import is_likelihood
from aevb.model import VAE, read_model
from aevb.plumbing import cli
from aevb.plumbing.params import Runs, TestSet

import numpy as np
from numpy.typing import NDArray

CODES = 400
"""Test images of which the page shows the codes."""
IMAGES = 50
"""Of these, the test images that the page contains."""


def text(array: NDArray[Any]) -> str:
    """The bytes of an array in base64."""
    return b64encode(array.tobytes()).decode()


def layer(model: VAE, name: str, bits: int) -> dict[str, Any]:
    """A linear layer: integer weights [out, in], a scale for each input, and biases.

    The weights are a sequence of integers of `bits` bits each, the lowest bit first.
    """
    weight, bias = (model.get_parameter(f"{name}.{part}").numpy() for part in ("weight", "bias"))
    half = 2 ** (bits - 1)
    scale = abs(weight).max(0) / (half - 1)
    integers = (np.rint(weight / scale) + half).astype("<u2").reshape(-1, 1)
    binary = np.unpackbits(integers.view(np.uint8), axis=1, bitorder="little")[:, :bits]
    packed = np.packbits(binary, bitorder="little")
    return {"bits": bits, "weight": text(packed), "scale": text(scale), "bias": text(bias)}


def run(results: Path, name: str) -> dict[str, Any]:
    """A model, the codes of the first test images, and the mean terms of its ELBO."""
    model, metadata = read_model(results / f"models/{name}.safetensors")
    found, _ = read_tensors(results / f"evaluation/{name}.safetensors", "evaluation")
    return {
        "k": model.latent_dim,
        "likelihood": metadata["likelihood"],
        "binarised": metadata["binarisation"] != "none",
        "is_likelihood": is_likelihood(metadata["likelihood"], metadata["binarisation"]),
        "encoder": [layer(model, "encoder.hidden", 10), layer(model, "encoder.output", 12)],
        "decoder": [layer(model, "decoder.hidden", 12), layer(model, "decoder.output", 11)],
        "codes": text(found["mu"][:CODES]),
        "kl_per_dimension": found["kl_per_dimension"].tolist(),
        "means": {term: float(found[term].mean()) for term in ("log_px_given_z", "kl", "elbo")},
    }


def main(
    results: Annotated[Path, "folder with the folders models and evaluation"],
    test: TestSet,
    template: Annotated[Path, "the page without its data (.html)"],
    output: Annotated[Path, "the page to write (.html)"],
    settings: Runs,
) -> None:
    """Read the models and their evaluation, write the page."""
    images = read_set(test, "test")
    names = [f"k{k}-seed{settings.seeds[0]}" for k in settings.latent_dims]
    data = {
        "dataset": DATASETS[images.metadata["name"]].title,
        "labels": images.labels[:CODES].tolist(),
        "images": text(images.images[:IMAGES]),
        "runs": [run(results, name) for name in names],
    }
    page = read_bytes(template).decode().replace("@data@", json.dumps(data))
    write_text(output, page)
    cli.log.info("playground: wrote %s (%.1f MB)", output, len(page) / 1e6)


if __name__ == "__main__":
    cli.run(main, __doc__)
