"""Estimate log p(x) of test images by annealed importance sampling, without the encoder.

How far the estimate falls short is measured on images simulated from the model, where the same
chains backwards give an upper bound.
"""

from argparse import Namespace
from pathlib import Path

import numpy as np

from aevb import ais
from aevb.data import model_inputs, read_set
from aevb.evaluation import evaluate
from aevb.files import Arrays, InputError, write_json, write_tensors
from aevb.likelihoods import is_likelihood
from aevb.model import read_model
from aevb.plumbing import cli
from aevb.plumbing.devices import repeatable
from aevb.plumbing.params import Ais

TUNING = 25
"""Test images, the last ones, that the step sizes are tuned on."""


def arguments() -> cli.Parser:
    """The command line of this stage."""
    parser = cli.parser(__doc__, Ais)
    add = parser.add_argument
    add("--test", type=Path, required=True, help="test images (.safetensors)")
    add("--model", type=Path, required=True, help="the trained model (.safetensors)")
    add("--metrics", type=Path, required=True, help="means over images to write (.json)")
    add("--estimates", type=Path, required=True, help="estimates per image (.safetensors)")
    return parser


def main(args: Namespace) -> None:
    """Tune, anneal, bound from both sides, write the means and what they were computed from."""
    settings = cli.settings(Ais, args)
    repeatable()
    model, metadata = read_model(args.model)
    test = read_set(args.test)
    if settings.images + TUNING > len(test):
        raise InputError(
            f"--images {settings.images}: the test set has {len(test)} images, of which the last "
            f"{TUNING} are kept for tuning"
        )
    x = model_inputs(test, metadata["binarisation"])
    plan = ais.tuned(model, x[-TUNING:], settings.temperatures, settings.leapfrog, settings.seed)
    x = x[: settings.images]
    simulated, z = ais.simulate(model, settings.images, settings.seed)
    name = f"AIS k = {model.latent_dim}, seed {metadata['seed']}"
    with cli.progress(None, name, 3 * len(x) * settings.temperatures, "step") as bar:
        fixed = (plan, settings.chains, settings.seed)
        log_weights, accepted = ais.log_weights(model, x, *fixed, callback=bar.update)
        forward, _ = ais.log_weights(model, simulated, *fixed, callback=bar.update)
        backward, _ = ais.log_weights(model, simulated, *fixed, z, callback=bar.update)
    terms = evaluate(model, x, settings.iwae_k, settings.seed)
    arrays: Arrays = {
        "log_px": ais.lower_bound(log_weights),
        "elbo": terms["log_px_given_z"].astype(float) - terms["kl"],
        "iwae_bound": terms["iwae_bound"],
        "simulated_lower": ais.lower_bound(forward),
        "simulated_upper": ais.upper_bound(backward),
    }
    metrics = {**ais.summarise(arrays), "iwae_k": settings.iwae_k, "acceptance": accepted}
    metrics["is_log_likelihood"] = int(
        is_likelihood(metadata["likelihood"], metadata["binarisation"])
    )
    arrays = {name: values.astype(np.float32) for name, values in arrays.items()}
    arrays |= {"log_weights": log_weights, "betas": plan.betas, "step_sizes": plan.steps}
    arrays |= {"simulated": simulated, "simulated_z": z, "labels": test.labels[: len(x)]}
    write_tensors(args.estimates, "ais", arrays, metadata)
    write_json(args.metrics, metrics)
    mark = "" if metrics["is_log_likelihood"] else " († no log-likelihood)"
    cli.log.info(
        "%s: log p(x) %.2f, %.2f ± %.2f above the ELBO, in nats per image%s; gap %.2f, wrote %s",
        *(name, metrics["log_px"], metrics["log_px_minus_elbo"], metrics["log_px_minus_elbo_se"]),
        *(mark, metrics["simulated_gap"], args.metrics),
    )


if __name__ == "__main__":
    cli.run(main, arguments())
