"""Write a model card: what a model is, how good it is, and what it is for.

The headings are those of Mitchell et al. 2019, arXiv:1810.03993.
"""

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aevb.datasets import DATASETS
from aevb.files import read_json, read_tensors, write_text
from aevb.likelihoods import LIKELIHOODS
from aevb.plumbing import cli
from aevb.report.runs import BINARISATIONS, MARK, NOTE, TERMS

TEMPLATE = """# Model card: VAE with k = {latent_dim}, seed {seed}

| | |
|---|---|
| model | variational autoencoder of Kingma & Welling 2013 (arXiv:1312.6114) |
| encoder | 784 pixels, {hidden} units, mu and log sigma² of {latent_dim} latent dimensions |
| decoder | {latent_dim} latent dimensions, {hidden} units, {likelihood_title} |
| prior | N(0, I) |
| data | {dataset}, {train_images:,} training images of 28 × 28 pixels |
| licence of the data | {licence} |
| binarisation | {pixels} |
| training | {optimiser} with learning rate {learning_rate:g}, {batch_size} images per step, \
{mc_samples} sample(s) of z per image; the weights are those of epoch {best_epoch} of at most \
{max_epochs} |
| arithmetic | {precision} on {device}; float32 weights |

## Test set

{images:,} images, nats per image; ± is the standard error over images, for this one training.{note}

| | |
|---|---|
{metrics}

## Intended use and limits

Teaching and research about variational autoencoders: bounds, likelihoods, latent spaces. The model
does not classify images, and its samples, which are not filtered, should not be used where correct
images matter. It was trained on small, centred, upright images of one data set; its behaviour on
others is unknown. The numbers describe one training, and must not be compared across binarisations
and likelihoods.
"""


def card(metadata: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """The card as Markdown, from the metadata of the model's file and its metrics."""
    names = {**TERMS, "iwae_bound": f"IWAE bound (K = {metrics['iwae_k']})"}
    mark = "" if metrics["is_log_likelihood"] else f" {MARK}"
    rows = [
        f"| {name} | {metrics[term]:.2f} ± {metrics[f'{term}_se']:.2f}{mark} |"
        for term, name in names.items()
    ]
    data = DATASETS[metadata["data"]["name"]]
    return TEMPLATE.format(
        **metadata,
        likelihood_title=LIKELIHOODS[metadata["likelihood"]].title,
        pixels=BINARISATIONS[metadata["binarisation"]],
        dataset=data.title,
        licence=data.licence,
        images=metrics["images"],
        metrics="\n".join(rows),
        note=f" {NOTE}" if mark else "",
    )


def arguments() -> cli.Parser:
    """The command line of this script."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--model", type=Path, required=True, help="the trained model (.safetensors)")
    add("--metrics", type=Path, required=True, help="its metrics on the test set (.json)")
    add("--card", type=Path, required=True, help="the card to write (.md)")
    return parser


def main(args: Namespace) -> None:
    """Read the model's metadata and metrics, write the card."""
    _, metadata = read_tensors(args.model, "model")
    write_text(args.card, card(metadata, read_json(args.metrics)))
    cli.log.info("card: wrote %s", args.card)


if __name__ == "__main__":
    cli.run(main, arguments())
