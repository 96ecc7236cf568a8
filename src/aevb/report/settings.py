"""How the models of an experiment were trained and tested, as a table for documents."""

from collections.abc import Iterable, Sequence

from aevb.data import DATASETS
from aevb.report.runs import Run

PIXELS = {
    "dynamic": "zeros and ones: drawn again in each epoch, once for validation and test",
    "static": "zeros and ones, drawn once",
    "none": "gray levels in [0, 1]",
}


def settings(runs: Sequence[Run]) -> str:
    """A Markdown table of the settings of runs that differ only in k and the seed."""
    metrics, values = runs[0].metrics, runs[0].metadata
    validated = runs[0].history["validation_elbo"].notna().all()
    training = f"{values['train_images']:,} training images"
    training += ", the rest of the original training set for validation" if validated else ""
    stopping = f"after {values['max_epochs']} epochs"
    kept = "the last"
    if validated:
        stopping += f", or when the validation ELBO has not risen for {values['patience']} epochs"
        kept = "those with the best validation ELBO"
    optimiser = f"{values['optimiser'].title()}, {values['batch_size']} images per minibatch"
    if values["weight_decay"]:
        optimiser += f", weight decay {values['weight_decay']:g}"
    if values["initialisation"] == "paper":
        optimiser += ", initial weights from N(0, 0.01)"
    rows = {
        "data": f"{DATASETS[values['data']['name']].title}: {training}; "
        f"{metrics['images']:,} test images",
        "pixels": PIXELS[values["binarisation"]],
        "likelihood": values["likelihood"].replace("_", " "),
        "dimensions of z": f"k = {_listed(run.latent_dim for run in runs)}",
        "hidden layers": f"{values['hidden']} tanh units each",
        "optimiser": optimiser,
        "learning rate": f"{values['learning_rate']}, decaying linearly to 0 in the last "
        f"{100 * values['decay']:g} % of training",
        "samples of z per image": f"r = {values['mc_samples']} in training, "
        f"{metrics['iwae_k']} in testing",
        "stopping": stopping,
        "weights": kept,
        "seeds": _listed(run.seed for run in runs),
        "arithmetic": f"{values['precision']}, on {values['device']}",
    }
    lines = [("setting", "value"), (":---", ":---"), *rows.items()]
    return "".join(f"| {name} | {value} |\n" for name, value in lines)


def _listed(values: Iterable[int]) -> str:
    return ", ".join(str(value) for value in dict.fromkeys(values))
