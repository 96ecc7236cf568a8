"""Write a page with the trained models in it: draw an image, move its code, see the image decoded.

The page is one HTML file that needs no other file and no network. It contains one model for each
number of latent dimensions, trained with the first seed. The largest layer of the encoder is
rounded to 8 bits per weight and all others to 12, with a scale for each row, so that the page shows
any z with pixels that differ from the model's by less than 0.01.
"""

import json
from base64 import b64encode
from pathlib import Path
from typing import Annotated, Any

import aevb  # noqa: F401  # isort: skip  # first, since it reports missing packages
import numpy as np
from numpy.typing import NDArray

from aevb.data import read_set
from aevb.datasets import DATASETS
from aevb.files import read_bytes, read_tensors, write_text
from aevb.likelihoods import is_likelihood
from aevb.model import VAE, read_model
from aevb.plumbing import cli
from aevb.plumbing.params import Runs, TestSet

CODES = 400
"""Test images of which the page shows the codes."""
IMAGES = 100
"""Of these, the test images that the page contains."""
BASE64 = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", "S1")


def text(array: NDArray[Any]) -> str:
    """The bytes of an array in base64."""
    return b64encode(array.tobytes()).decode()


def layer(model: VAE, name: str, bits: int) -> dict[str, Any]:
    """A linear layer: integer weights [out, in], and for each row a scale and a bias.

    Weights of 12 bits are written as two letters of base64 each.
    """
    weight, bias = (model.get_parameter(f"{name}.{part}").numpy() for part in ("weight", "bias"))
    limit = 2 ** (bits - 1) - 1
    scale = abs(weight).max(1) / limit
    integers = np.rint(weight / scale[:, None]).astype(np.int16)
    pairs = np.stack([(integers + 2048) // 64, (integers + 2048) % 64], -1)
    return {
        "bits": bits,
        "weight": text(integers.astype(np.int8)) if bits == 8 else BASE64[pairs].tobytes().decode(),
        "scale": text(scale),
        "bias": text(bias),
    }


def run(results: Path, name: str) -> dict[str, Any]:
    """A model, the codes of the first test images, and the mean terms of its ELBO."""
    model, metadata = read_model(results / f"models/{name}.safetensors")
    found, _ = read_tensors(results / f"evaluation/{name}.safetensors", "evaluation")
    return {
        "k": model.latent_dim,
        "likelihood": metadata["likelihood"],
        "binarised": metadata["binarisation"] != "none",
        "is_likelihood": is_likelihood(metadata["likelihood"], metadata["binarisation"]),
        "encoder": [layer(model, "encoder.hidden", 8), layer(model, "encoder.output", 12)],
        "decoder": [layer(model, "decoder.hidden", 12), layer(model, "decoder.output", 12)],
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
