"""Set the variants of a study side by side: two tables, three figures, and sentences.

Reads the files of the runs named by --variants, --latent_dims and --seeds and no others.
"""

from argparse import Namespace
from itertools import product
from pathlib import Path

import pandas as pd

from aevb.files import write_text
from aevb.plumbing import cli
from aevb.plumbing.params import Runs
from aevb.report import survey, tables
from aevb.report.comparison import described, per_image, read_run
from aevb.report.figures import save_figure

FOLDERS = ("metrics", "history", "evaluation", "samples", "reconstructions")


def arguments() -> cli.Parser:
    """The command line of this stage."""
    parser = cli.parser(__doc__, Runs)
    add = parser.add_argument
    add("--study", type=Path, required=True, help="folder with a folder of results a variant")
    add("--variants", nargs="+", required=True, help="the variants, in their order")
    add("--output", type=Path, required=True, help="folder to write into")
    return parser


def main(args: Namespace) -> None:
    """Read the runs of all variants, write tables, sentences and figures."""
    settings = cli.settings(Runs, args)
    runs = {
        variant: [
            read_run({name: args.study / variant / name for name in FOLDERS}, *run)
            for run in product(settings.latent_dims, settings.seeds)
        ]
        for variant in args.variants
    }
    rows = [{"variant": variant, **described(run)} for variant in runs for run in runs[variant]]
    table = tables.table(rows)
    write_text(args.output / "table.csv", tables.as_csv(table))
    write_text(args.output / "table.md", tables.as_markdown(table))
    changes = pd.concat(
        tables.differences(per_image(runs[variant])).assign(variant=variant) for variant in runs
    )
    write_text(args.output / "differences.csv", tables.as_csv(changes))
    write_text(args.output / "differences.md", tables.differences_as_markdown(changes))
    write_text(args.output / "observations.md", survey.observations(runs))
    for name, draw in survey.FIGURES.items():
        save_figure(args.output / f"{name}.png", draw(runs))
    cli.log.info("survey: %d variants, wrote %s", len(runs), args.output)


if __name__ == "__main__":
    cli.run(main, arguments())
