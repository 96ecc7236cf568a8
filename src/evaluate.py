"""Evaluate one model on the test set: ELBO, its two terms, importance-weighted bound.

Likelihood and binarisation are read from the model file.
"""

from argparse import Namespace
from pathlib import Path

from aevb.data import model_inputs, read_set
from aevb.evaluation import bound_metrics, evaluate, mean_kl_per_dimension
from aevb.files import write_json, write_tensors
from aevb.likelihoods import is_likelihood
from aevb.model import read_model
from aevb.plumbing import cli
from aevb.plumbing.devices import repeatable
from aevb.plumbing.params import Evaluate


def arguments() -> cli.Parser:
    """The command line of this stage."""
    parser = cli.parser(__doc__, Evaluate)
    add = parser.add_argument
    add("--test", type=Path, required=True, help="test images (.safetensors)")
    add("--model", type=Path, required=True, help="the trained model (.safetensors)")
    add("--metrics", type=Path, required=True, help="the metrics to write (.json)")
    add("--evaluation", type=Path, required=True, help="terms per image to write (.safetensors)")
    return parser


def main(args: Namespace) -> None:
    """Evaluate, write the terms of each image and their means."""
    settings = cli.settings(Evaluate, args)
    repeatable()
    model, metadata = read_model(args.model)
    test = read_set(args.test)
    x = model_inputs(test, metadata["binarisation"])
    name = f"evaluate k = {model.latent_dim}, seed {metadata['seed']}"
    with cli.progress(None, name, len(x), "image") as bar:
        terms = evaluate(model, x, settings.iwae_k, settings.seed, bar.update)
    metrics = bound_metrics(terms, settings.iwae_k)
    metrics["is_log_likelihood"] = int(
        is_likelihood(metadata["likelihood"], metadata["binarisation"])
    )
    terms["kl_per_dimension"] = mean_kl_per_dimension(terms["mu"], terms["log_var"])
    write_tensors(args.evaluation, "evaluation", {**terms, "labels": test.labels}, metadata)
    write_json(args.metrics, metrics)
    mark = "" if metrics["is_log_likelihood"] else " († no log-likelihood)"
    cli.log.info(
        "%s: ELBO %.2f ± %.2f nats per image%s, wrote %s",
        *(name, metrics["elbo"], metrics["elbo_se"], mark, args.metrics),
    )


if __name__ == "__main__":
    cli.run(main, arguments())
