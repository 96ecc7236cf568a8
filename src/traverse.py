"""Walk through the latent space of one model: its manifold, single dimensions, between images.

Everything shown is the decoder's mean E[x|z]; the code of a test image is mu, the mean of q(z|x).
"""

from argparse import Namespace
from pathlib import Path

import numpy as np
import torch

from aevb.data import model_inputs, read_set
from aevb.evaluation import mean_kl_per_dimension
from aevb.files import write_tensors
from aevb.model import read_model
from aevb.plumbing import cli
from aevb.plumbing.devices import repeatable
from aevb.plumbing.params import Traverse
from aevb.report.figures import save_figure
from aevb.rng import generator
from aevb.traversals import (
    interpolations,
    interpolations_figure,
    main_dimensions,
    manifold,
    manifold_figure,
    names,
    pairs_of_classes,
    traversals,
    traversals_figure,
)


def arguments() -> cli.Parser:
    """The command line of this stage."""
    parser = cli.parser(__doc__, Traverse)
    add = parser.add_argument
    add("--test", type=Path, required=True, help="test images (.safetensors)")
    add("--model", type=Path, required=True, help="the trained model (.safetensors)")
    add("--manifold", type=Path, required=True, help="grid over two dimensions to write (.png)")
    add("--traversals", type=Path, required=True, help="rows, a dimension each, to write (.png)")
    add("--interpolations", type=Path, required=True, help="rows between images to write (.png)")
    add("--images", type=Path, required=True, help="z and all images to write (.safetensors)")
    return parser


@torch.inference_mode()
def main(args: Namespace) -> None:
    """Encode, choose where to go, decode, write the figures and what they show."""
    settings = cli.settings(Traverse, args)
    repeatable()
    model, metadata = read_model(args.model)
    test = read_set(args.test)
    random = generator("traverse", settings.seed)
    image = int(random.integers(len(test)))
    pairs = pairs_of_classes(test.labels, settings.pairs, random)
    q_mu, q_log_var = model.encode(torch.from_numpy(model_inputs(test, metadata["binarisation"])))
    mu = q_mu.numpy()
    kl = mean_kl_per_dimension(mu, q_log_var.numpy())

    plane = main_dimensions(kl, 2)
    dimensions = main_dimensions(kl, settings.dimensions)
    values = np.linspace(-settings.extent, settings.extent, settings.steps, dtype=np.float32)
    code, others = mu[image], f"mu of test image {image}, a {test.labels[image]}"
    if settings.around == "origin":
        code, others = np.zeros_like(code), "0"
    z = {
        "manifold": manifold(model.latent_dim, plane, settings.grid),
        "traversals": traversals(code, dimensions, values),
        "interpolations": interpolations(mu[pairs[:, 0]], mu[pairs[:, 1]], settings.steps),
    }
    means = {name: model.mean(torch.from_numpy(places)).numpy() for name, places in z.items()}
    originals = model_inputs(test, "none")[pairs]

    run = f"k = {model.latent_dim}, seed {metadata['seed']}"
    arrays = {
        **{f"{name}_z": places for name, places in z.items()},
        **{f"{name}_means": images for name, images in means.items()},
        "manifold_dimensions": plane,
        "traversals_dimensions": dimensions,
        "traversals_code": code,
        "interpolations_index": pairs,
        "interpolations_originals": originals,
        "kl_per_dimension": kl,
    }
    write_tensors(args.images, "traversals", arrays, metadata)
    figures = {
        args.manifold: manifold_figure(means["manifold"], settings.grid, names(plane, kl), run),
        args.traversals: traversals_figure(
            means["traversals"], values, names(dimensions, kl), others, run
        ),
        args.interpolations: interpolations_figure(
            originals, means["interpolations"], test.labels[pairs], run
        ),
    }
    for path, figure in figures.items():
        save_figure(path, figure)
    cli.log.info("traverse %s: %d dimensions, wrote %s", run, len(dimensions), args.images)


if __name__ == "__main__":
    cli.run(main, arguments())
