"""Evaluate one model on the test set: ELBO, its two terms, importance-weighted bound.

Likelihood and binarisation are read from the model file.
"""

from pathlib import Path
from typing import Annotated

from aevb.data import model_inputs, read_set
from aevb.evaluation import bound_metrics, evaluate, mean_kl_per_dimension
from aevb.exact import exact
from aevb.files import Arrays, InputError, write_json, write_tensors
from aevb.model import read_model
from aevb.plumbing import cli
from aevb.plumbing.machine import repeatable
from aevb.plumbing.params import Evaluate, TestSet, TrainedModel

import numpy as np


def main(
    test: TestSet,
    model: TrainedModel,
    metrics: Annotated[Path, "the metrics to write (.json)"],
    evaluation: Annotated[Path, "terms and codes per image to write (.safetensors)"],
    terms: Annotated[Path, "the terms alone, which are kept in git (.safetensors)"],
    settings: Evaluate,
) -> None:
    """Evaluate, write the terms of each image and their means."""
    repeatable()
    vae, metadata = read_model(model)
    images = read_set(test, "test", metadata.get("data", {}))
    if len(images) < 2:
        raise InputError(f"{test}: fewer than two images: no standard error can be given")
    x = model_inputs(images, metadata["binarisation"])
    name = f"evaluate k = {vae.latent_dim}, seed {metadata['seed']}"
    with exact(), cli.progress(name, len(x), "image") as bar:
        found = evaluate(vae, x, settings.iwae_k, settings.seed, bar.update)
    if not all(np.isfinite(values).all() for values in found.values()):
        raise InputError(f"{model}: its terms are not finite for some test images; train it again")
    metadata["evaluate"] = settings.model_dump()
    means = bound_metrics(found, metadata)
    found["kl_per_dimension"] = mean_kl_per_dimension(found["mu"], found["log_var"])
    arrays: Arrays = {**found, "labels": images.labels}
    alone = {name: found[name] for name in ("log_px_given_z", "kl", "iwae_bound")}
    for path, kind, content in ((evaluation, "evaluation", arrays), (terms, "terms", alone)):
        write_tensors(path, kind, content, metadata, test=test, model=model)
    write_json(metrics, means)
    mark = "" if means["is_log_likelihood"] else " († no log-likelihood)"
    elbo = f"ELBO {means['elbo']:.2f} ± {means['elbo_se']:.2f} nats per image{mark}"
    cli.log.info("%s: %s, wrote %s", name, elbo, metrics)


if __name__ == "__main__":
    cli.run(main, __doc__)
