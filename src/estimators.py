"""Measure how noisy the gradient of E_q[log p(x|z)] is: reparametrised, by the score function.

The gradient is that by the mean of q(z|x), on test images, one draw of z at a time.
"""

from argparse import Namespace
from pathlib import Path

from aevb.data import model_inputs, read_set
from aevb.estimators import gradients, summarise
from aevb.files import InputError, write_json, write_tensors
from aevb.likelihoods import is_likelihood
from aevb.model import read_model
from aevb.plumbing import cli
from aevb.plumbing.devices import repeatable
from aevb.plumbing.params import GradientVariance


def arguments() -> cli.Parser:
    """The command line of this stage."""
    parser = cli.parser(__doc__, GradientVariance)
    add = parser.add_argument
    add("--test", type=Path, required=True, help="test images (.safetensors)")
    add("--model", type=Path, required=True, help="the trained model (.safetensors)")
    add("--metrics", type=Path, required=True, help="means over images to write (.json)")
    add("--gradients", type=Path, required=True, help="terms per image to write (.safetensors)")
    return parser


def main(args: Namespace) -> None:
    """Estimate, write the means and what they were computed from."""
    settings = cli.settings(GradientVariance, args)
    repeatable()
    model, metadata = read_model(args.model)
    test = read_set(args.test)
    if settings.images > len(test):
        raise InputError(f"--images {settings.images}: the test set has {len(test)} images")
    x = model_inputs(test, metadata["binarisation"])[: settings.images]
    name = f"estimators k = {model.latent_dim}, seed {metadata['seed']}"
    with cli.progress(None, name, len(x), "image") as bar:
        terms = gradients(model, x, settings.samples, settings.seed, bar.update)
    metrics = summarise(terms, settings.samples)
    metrics["is_log_likelihood"] = int(
        is_likelihood(metadata["likelihood"], metadata["binarisation"])
    )
    write_tensors(
        args.gradients, "estimators", {**terms, "labels": test.labels[: len(x)]}, metadata
    )
    write_json(args.metrics, metrics)
    mark = "" if metrics["is_log_likelihood"] else " († no log-likelihood)"
    cli.log.info(
        "%s: variance of the score function %.0f ± %.0f times the reparametrised one, "
        "%.1f ± %.1f with a baseline%s, wrote %s",
        *(name, metrics["variance_ratio_score"], metrics["variance_ratio_score_se"]),
        *(metrics["variance_ratio_baseline"], metrics["variance_ratio_baseline_se"]),
        *(mark, args.metrics),
    )


if __name__ == "__main__":
    cli.run(main, arguments())
