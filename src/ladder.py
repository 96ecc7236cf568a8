"""Bound log p(x) of test images with ever more samples: ELBO, then K = 1, 10, 100 … samples.

Beside each bound stands the effective sample size, which says how far its weights are from equal.
"""

from argparse import Namespace
from pathlib import Path

from aevb.data import model_inputs, read_set
from aevb.files import InputError, write_json, write_tensors
from aevb.ladder import ladder, summarise
from aevb.likelihoods import is_likelihood
from aevb.model import read_model
from aevb.plumbing import cli
from aevb.plumbing.devices import repeatable
from aevb.plumbing.params import Iwae


def arguments() -> cli.Parser:
    """The command line of this stage."""
    parser = cli.parser(__doc__, Iwae)
    add = parser.add_argument
    add("--test", type=Path, required=True, help="test images (.safetensors)")
    add("--model", type=Path, required=True, help="the trained model (.safetensors)")
    add("--metrics", type=Path, required=True, help="means over images to write (.json)")
    add("--bounds", type=Path, required=True, help="bounds per image to write (.safetensors)")
    return parser


def main(args: Namespace) -> None:
    """Climb, write the means and what they were computed from."""
    settings = cli.settings(Iwae, args)
    repeatable()
    model, metadata = read_model(args.model)
    test = read_set(args.test)
    if settings.images > len(test):
        raise InputError(f"--images {settings.images}: the test set has {len(test)} images")
    x = model_inputs(test, metadata["binarisation"])[: settings.images]
    name = f"ladder k = {model.latent_dim}, seed {metadata['seed']}"
    with cli.progress(None, name, len(x), "image") as bar:
        terms = ladder(model, x, settings.samples, settings.seed, bar.update)
    metrics = summarise(terms)
    metrics["is_log_likelihood"] = int(
        is_likelihood(metadata["likelihood"], metadata["binarisation"])
    )
    write_tensors(args.bounds, "ladder", {**terms, "labels": test.labels[: len(x)]}, metadata)
    write_json(args.metrics, metrics)
    mark = "" if metrics["is_log_likelihood"] else " († no log-likelihood)"
    cli.log.info(
        "%s: ELBO %.2f, with K = %d %.2f ± %.2f nats per image%s, wrote %s",
        *(name, metrics["elbo"], settings.samples, metrics[f"iwae_{settings.samples}"]),
        *(metrics[f"iwae_{settings.samples}_se"], mark, args.metrics),
    )


if __name__ == "__main__":
    cli.run(main, arguments())
