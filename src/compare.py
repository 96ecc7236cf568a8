"""Set the runs side by side: one table and six figures.

Reads the files of the runs named by --latent_dims and --seeds and no others, whatever else lies in
the folders.
"""

from argparse import Namespace
from itertools import product
from pathlib import Path

import pandas as pd

from aevb import cli, tables
from aevb.comparison import FIGURES, Run
from aevb.figures import save_figure
from aevb.files import read_csv, read_json, read_tensors, write_text
from aevb.params import Runs


def arguments() -> cli.Parser:
    """The command line of this stage."""
    parser = cli.parser(__doc__, Runs)
    for folder in ("metrics", "history", "evaluation", "samples", "reconstructions"):
        parser.add_argument(f"--{folder}", type=Path, required=True, help=f"folder of {folder}")
    parser.add_argument("--output", type=Path, required=True, help="folder to write into")
    return parser


def read_run(args: Namespace, latent_dim: int, seed: int) -> Run:
    """All files of one run."""
    name = f"k{latent_dim}-seed{seed}"
    evaluation, about = read_tensors(args.evaluation / f"{name}.safetensors", "evaluation")
    return Run(
        latent_dim,
        seed,
        read_json(args.metrics / f"{name}.json"),
        pd.DataFrame(read_csv(args.history / f"{name}.csv")),
        evaluation,
        read_tensors(args.samples / f"{name}.safetensors", "samples")[0],
        read_tensors(args.reconstructions / f"{name}.safetensors", "reconstructions")[0],
        about,
    )


def main(args: Namespace) -> None:
    """Read the runs, write the table and the figures."""
    settings = cli.settings(Runs, args)
    runs = [read_run(args, *run) for run in product(settings.latent_dims, settings.seeds)]
    described = ("latent_dim", "seed", "treatment", "likelihood")
    table = tables.table([{key: run.about[key] for key in described} | run.metrics for run in runs])
    csv = table.to_csv(index=False, lineterminator="\n", float_format="%.6g")
    write_text(args.output / "table.csv", csv)
    write_text(args.output / "table.md", tables.as_markdown(table))
    write_text(args.output / "table.tex", tables.as_latex(table))
    for name, draw in FIGURES.items():
        save_figure(args.output / f"{name}.png", draw(runs))
    cli.log.info("compare: %d runs, wrote %s", len(runs), args.output)


if __name__ == "__main__":
    cli.run(main, arguments())
