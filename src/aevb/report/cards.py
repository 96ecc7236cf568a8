"""A model card (Mitchell et al. 2019, arXiv:1810.03993): what a model is and what it is for."""

from collections.abc import Mapping
from typing import Any

from aevb.intervals import Z95
from aevb.report.comparison import BINARISATIONS, DATASETS, LIKELIHOODS
from aevb.report.tables import COLUMNS, MARK, NOTE

LICENCES = {
    "mnist": "CC BY-SA 3.0 (LeCun, Cortes, Burges)",
    "fashion_mnist": "MIT (Zalando)",
    "kmnist": "CC BY-SA 4.0 (ROIS-DS Center for Open Data in the Humanities)",
}


def card(metadata: Mapping[str, Any], metrics: Mapping[str, float]) -> str:
    """The card of one model as Markdown, from what its file says and from its metrics."""
    k, seed, data = metadata["latent_dim"], metadata["seed"], metadata["data"]["name"]
    facts = {
        "model": "variational autoencoder of Kingma & Welling 2013 (arXiv:1312.6114)",
        "encoder": f"784 pixels, {metadata['hidden']} units, mu and log sigma² of {k} latents",
        "decoder": f"{k} latents, {metadata['hidden']} units, "
        f"{LIKELIHOODS[metadata['likelihood']]}",
        "prior": "N(0, I)",
        "data": f"{DATASETS[data]}, {metadata['train_images']:,} training images of 28 × 28 pixels",
        "licence of the data": LICENCES[data],
        "pixels": BINARISATIONS[metadata["binarisation"]],
        "training": f"{metadata['optimiser']} at {metadata['learning_rate']:g}, "
        f"{metadata['batch_size']} images a step, {metadata['mc_samples']} sample(s) of z each; "
        f"the weights of epoch {metadata['best_epoch']} of at most {metadata['max_epochs']}",
        "arithmetic": f"{metadata['precision']} products on {metadata['device']}; float32 weights",
    }
    mark = "" if metrics["is_log_likelihood"] else f" {MARK}"
    names = {**COLUMNS, "iwae_bound": f"IWAE bound (K = {metrics['iwae_k']})"}
    rows = [
        f"| {name} | {metrics[key]:.2f} ± {Z95 * metrics[f'{key}_se']:.2f}{mark} |"
        for key, name in names.items()
    ]
    warning = f"\n{NOTE}\n" if mark else ""
    return TEMPLATE.format(
        title=f"VAE with k = {k}, seed {seed}",
        facts="\n".join(f"| {name} | {fact} |" for name, fact in facts.items()),
        images=f"{metrics['images']:,}",
        rows="\n".join(rows),
        warning=warning,
        name=f"k{k}-seed{seed}",
    )


TEMPLATE = """# Model card: {title}

| | |
|---|---|
{facts}

## Test set

{images} images, nats per image; ± is half the 95 % interval over images, for this one training:

| | |
|---|---|
{rows}
{warning}
## Intended use

Teaching and research about variational autoencoders: bounds, likelihoods, latent spaces. It
recognises nothing, and is no source of images for anything that depends on them being right.

## Limits

It has seen small, centred, upright images of one data set, and says nothing about others. Its
samples are not filtered, and need not look like the data. The numbers above are about one training
and the binarisation that is named; across binarisations and likelihoods they can't be compared.

## Use

`aevb.model.read_model` reads models/{name}.safetensors, which holds all that this card says
about the model; metrics/{name}.json holds the numbers.
"""
