"""Compare the runs of an experiment, or the variants of a study: tables, figures and a discussion.

Only the files of the runs named by --variants, --latent_dims and --seeds are read.
"""

from argparse import SUPPRESS, Namespace
from itertools import product
from pathlib import Path

from aevb.files import write_text
from aevb.plumbing import cli
from aevb.plumbing.params import Runs
from aevb.report import tables
from aevb.report.comparison import FIGURES, STUDY_FIGURES
from aevb.report.discussion import discussion
from aevb.report.figures import save_figure
from aevb.report.runs import read_run


def arguments() -> cli.Parser:
    """The command line of this stage."""
    parser = cli.parser(__doc__, Runs)
    add = parser.add_argument
    folders = "metrics, history, evaluation, samples, reconstructions"
    add("--results", type=Path, required=True, help=f"folder with the folders {folders}")
    text = "variants of a study, in this order; each has its folders in RESULTS/VARIANT"
    add("--variants", nargs="+", default=SUPPRESS, help=text)
    add("--output", type=Path, required=True, help="folder to write to")
    return parser


def main(args: Namespace) -> None:
    """Read the runs; write tables, discussion and figures."""
    settings = cli.settings(Runs, args)
    runs = list(product(settings.latent_dims, settings.seeds))
    is_study = "variants" in args
    variants = {
        variant: [read_run(args.results / variant, *run) for run in runs]
        for variant in (args.variants if is_study else [""])
    }
    table, differences = tables.table(variants), tables.differences(variants)
    texts = {
        "table.csv": tables.as_csv(table),
        "table.md": tables.as_markdown(table),
        "differences.csv": tables.as_csv(differences),
        "differences.md": tables.differences_as_markdown(differences),
        "discussion.md": discussion(variants),
    }
    if not is_study:
        texts["table.tex"] = tables.as_latex(table)
    for name, text in texts.items():
        write_text(args.output / name, text)
    for name in STUDY_FIGURES if is_study else FIGURES:
        save_figure(args.output / f"{name}.png", FIGURES[name](variants))
    cli.log.info("compare: %d runs, wrote %s", len(variants) * len(runs), args.output)


if __name__ == "__main__":
    cli.run(main, arguments())
