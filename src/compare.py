"""Set the runs side by side: two tables, six figures, and what they show in sentences.

Reads the files of the runs named by --latent_dims and --seeds and no others, whatever else lies in
the folders.
"""

from argparse import Namespace
from itertools import product
from pathlib import Path

from aevb.files import write_text
from aevb.plumbing import cli
from aevb.plumbing.params import Runs
from aevb.report import tables
from aevb.report.comparison import FIGURES, described, per_image, read_run
from aevb.report.discussion import observations
from aevb.report.figures import save_figure


def arguments() -> cli.Parser:
    """The command line of this stage."""
    parser = cli.parser(__doc__, Runs)
    for folder in ("metrics", "history", "evaluation", "samples", "reconstructions"):
        parser.add_argument(f"--{folder}", type=Path, required=True, help=f"folder of {folder}")
    parser.add_argument("--output", type=Path, required=True, help="folder to write into")
    return parser


def main(args: Namespace) -> None:
    """Read the runs, write tables, sentences and figures."""
    settings = cli.settings(Runs, args)
    runs = [read_run(vars(args), *run) for run in product(settings.latent_dims, settings.seeds)]
    table = tables.table([described(run) for run in runs])
    write_text(args.output / "table.csv", tables.as_csv(table))
    write_text(args.output / "table.md", tables.as_markdown(table))
    write_text(args.output / "table.tex", tables.as_latex(table))
    changes = tables.differences(per_image(runs))
    write_text(args.output / "differences.csv", tables.as_csv(changes))
    write_text(args.output / "differences.md", tables.differences_as_markdown(changes))
    write_text(args.output / "observations.md", observations(runs, changes))
    for name, draw in FIGURES.items():
        save_figure(args.output / f"{name}.png", draw(runs))
    cli.log.info("compare: %d runs, wrote %s", len(runs), args.output)


if __name__ == "__main__":
    cli.run(main, arguments())
