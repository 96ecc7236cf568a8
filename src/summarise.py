"""Gather what the optional stages found on every run: a table, sentences and two figures.

Reads the files of the runs named by --latent_dims and --seeds and no others.
"""

from argparse import Namespace
from itertools import product
from pathlib import Path

from aevb.files import read_json, read_tensors, write_text
from aevb.plumbing import cli
from aevb.plumbing.params import Runs
from aevb.report.figures import save_figure
from aevb.report.tables import as_csv
from aevb.research import (
    above_the_elbo,
    as_markdown,
    findings,
    noise_of_the_gradient,
    observations,
    over_seeds,
)

KINDS = ("ladder", "ais", "estimators", "latents", "fidelity")


def arguments() -> cli.Parser:
    """The command line of this stage."""
    parser = cli.parser(__doc__, Runs)
    for kind in KINDS:
        parser.add_argument(f"--{kind}", type=Path, required=True, help=f"folder of {kind}")
    parser.add_argument("--output", type=Path, required=True, help="folder to write into")
    return parser


def main(args: Namespace) -> None:
    """Read the findings on all runs, write table, sentences and figures."""
    settings = cli.settings(Runs, args)
    runs = list(product(settings.latent_dims, settings.seeds))
    found: dict[tuple[int, int | str], dict[str, dict[str, float]]] = {}
    ladders = {}
    for k, seed in runs:
        name = f"k{k}-seed{seed}"
        found[k, seed] = {kind: read_json(vars(args)[kind] / f"{name}.json") for kind in KINDS}
        ladders[k, seed] = read_tensors(args.ladder / f"{name}.safetensors", "ladder")[0]
    # Several seeds are read as one, with intervals; each of them stands in the data.
    shown = over_seeds(found) if len(settings.seeds) > 1 else found
    write_text(args.output / "table.csv", as_csv(findings({**found, **shown})))
    write_text(args.output / "table.md", as_markdown(findings(shown)))
    write_text(args.output / "observations.md", observations(shown))
    save_figure(args.output / "bounds.png", above_the_elbo(found, ladders))
    save_figure(args.output / "estimators.png", noise_of_the_gradient(found))
    cli.log.info("summarise: %d runs, wrote %s", len(runs), args.output)


if __name__ == "__main__":
    cli.run(main, arguments())
