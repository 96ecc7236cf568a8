"""Say what the latents of one model hold: active units, information about the image, the digit.

Test images are scored; training images only teach the two classifiers.
"""

from argparse import Namespace
from pathlib import Path

import numpy as np
import torch

from aevb.data import model_inputs, read_set
from aevb.evaluation import Floats, mean_kl_per_dimension
from aevb.files import Arrays, write_json, write_tensors
from aevb.latents import (
    active_units,
    information,
    predicted_digits,
    summarise,
    training_observations,
    unit_variances,
)
from aevb.model import VAE, read_model
from aevb.plumbing import cli
from aevb.plumbing.devices import repeatable
from aevb.plumbing.params import Latents

THRESHOLDS = np.logspace(-4, 1, 21)
"""Four a decade: how far the number of active units hangs on where the line is drawn."""


def arguments() -> cli.Parser:
    """The command line of this stage."""
    parser = cli.parser(__doc__, Latents)
    add = parser.add_argument
    add("--train", type=Path, required=True, help="training images (.safetensors)")
    add("--test", type=Path, required=True, help="test images (.safetensors)")
    add("--model", type=Path, required=True, help="the trained model (.safetensors)")
    add("--metrics", type=Path, required=True, help="the metrics to write (.json)")
    add("--latents", type=Path, required=True, help="terms per image to write (.safetensors)")
    return parser


@torch.inference_mode()
def encoded(model: VAE, x: Floats) -> tuple[Floats, Floats]:
    """mu and log sigma² of q(z|x), each [N, k]."""
    mu, log_var = model.encode(torch.from_numpy(x))
    return mu.numpy(), log_var.numpy()


def main(args: Namespace) -> None:
    """Encode, take the KL term apart, classify, write the metrics and what they came from."""
    settings = cli.settings(Latents, args)
    repeatable()
    model, metadata = read_model(args.model)
    train, test = read_set(args.train), read_set(args.test)
    mu, log_var = encoded(model, model_inputs(test, metadata["binarisation"]))
    train_mu, _ = encoded(model, training_observations(train, metadata["binarisation"]))
    predictions = predicted_digits(train_mu, train.labels, mu, settings.neighbours)
    name = f"latents k = {model.latent_dim}, seed {metadata['seed']}"
    with cli.progress(None, name, len(test), "image") as bar:
        terms = information(mu, log_var, settings.samples, settings.seed, bar.update)
    variances = unit_variances(mu)
    (active,) = active_units(variances, np.array([settings.threshold]))
    metrics = {
        "active_units": int(active),
        "threshold": settings.threshold,
        "samples": settings.samples,
        "neighbours": settings.neighbours,
        **summarise(terms, predictions, test.labels),
    }
    arrays: Arrays = {
        **{f"{key}_prediction": predicted for key, predicted in predictions.items()},
        "labels": test.labels,
        "unit_variances": variances,
        "kl_per_dimension": mean_kl_per_dimension(mu, log_var),
        "thresholds": THRESHOLDS,
        "active_units": active_units(variances, THRESHOLDS),
    }
    write_tensors(args.latents, "latents", {**terms, **arrays}, metadata)
    write_json(args.metrics, metrics)
    cli.log.info(
        "%s: %d active units, KL %.2f = I %.2f (at most %.2f) + marginal KL %.2f, "
        "digits right %.1f %% (neighbours), %.1f %% (linear), wrote %s",
        *(name, active, metrics["kl"], metrics["mutual_information"], metrics["log_images"]),
        *(metrics["marginal_kl"], 100 * metrics["knn_accuracy"], 100 * metrics["linear_accuracy"]),
        args.metrics,
    )


if __name__ == "__main__":
    cli.run(main, arguments())
