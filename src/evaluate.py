"""Evaluate one model on the test set: ELBO, its two terms, importance-weighted bound.

Likelihood and binarisation are read from the model file.
"""

from pathlib import Path
from typing import Annotated

import numpy as np

from aevb.data import model_inputs, read_set
from aevb.evaluation import bound_metrics, evaluate, mean_kl_per_dimension
from aevb.exact import exact
from aevb.files import Arrays, InputError, write_json, write_tensors
from aevb.likelihoods import is_likelihood
from aevb.model import read_model
from aevb.plumbing import cli
from aevb.plumbing.machine import repeatable
from aevb.plumbing.params import Evaluate, TestSet, TrainedModel


def main(
    test: TestSet,
    model: TrainedModel,
    metrics: Annotated[Path, "the metrics to write (.json)"],
    evaluation: Annotated[Path, "terms per image to write (.safetensors)"],
    settings: Evaluate,
) -> None:
    """Evaluate, write the terms of each image and their means."""
    repeatable()
    vae, metadata = read_model(model)
    images = read_set(test, "test", metadata.get("data", {}))
    x = model_inputs(images, metadata["binarisation"])
    name = f"evaluate k = {vae.latent_dim}, seed {metadata['seed']}"
    with exact(), cli.progress(None, name, len(x), "image") as bar:
        terms = evaluate(vae, x, settings.iwae_k, settings.seed, bar.update)
    if not all(np.isfinite(values).all() for values in terms.values()):
        raise InputError(f"{model}: its terms are not finite for some test images; train it again")
    means = bound_metrics(terms, settings.iwae_k)
    suits = is_likelihood(metadata["likelihood"], metadata["binarisation"])
    means["is_log_likelihood"] = int(suits)
    terms["kl_per_dimension"] = mean_kl_per_dimension(terms["mu"], terms["log_var"])
    arrays: Arrays = {**terms, "labels": images.labels}
    metadata["evaluate"] = settings.model_dump()
    write_tensors(evaluation, "evaluation", arrays, metadata, test=test, model=model)
    write_json(metrics, means)
    mark = "" if suits else " († no log-likelihood)"
    elbo = f"ELBO {means['elbo']:.2f} ± {means['elbo_se']:.2f} nats per image{mark}"
    cli.log.info("%s: %s, wrote %s", name, elbo, metrics)


if __name__ == "__main__":
    cli.run(main, __doc__)
