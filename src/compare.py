"""Compare the runs of an experiment, or the variants of a study: tables, figures and a discussion.

Only the files of the runs named by --variants, --latent_dims and --seeds are read.
"""

from itertools import product
from pathlib import Path
from typing import Annotated

from aevb.files import write_json, write_text
from aevb.plumbing import cli
from aevb.plumbing.params import Runs
from aevb.report import tables
from aevb.report.comparison import FIGURES, STUDY_FIGURES
from aevb.report.figures import save_figure
from aevb.report.runs import NAMES_THE_RECORD, RECORD, files_of, read_models, record


def main(
    results: Annotated[
        Path, "folder with the folders metrics, history, evaluation, samples, reconstructions"
    ],
    output: Annotated[Path, "folder to write to"],
    settings: Runs,
    variants: Annotated[
        list[str] | None,
        "variants of a study, in this order; each has its folders in RESULTS/VARIANT",
    ] = None,
) -> None:
    """Read the runs; write tables, discussion and figures."""
    models = read_models(results, variants or [], settings.latent_dims, settings.seeds)
    texts = tables.texts(models)
    if not variants:
        texts["settings.md"] = tables.settings(models)
    for name, text in texts.items():
        write_text(output / name, text)
    source = None
    if not variants:
        runs = product(settings.latent_dims, settings.seeds)
        read = [path for run in runs for path in files_of(results, *run).values()]
        figures = {f"{output.name}/{name}.png": NAMES_THE_RECORD for name in FIGURES}
        source = output / RECORD
        write_json(source, {**record([*read, *(output / name for name in texts)]), **figures})
    for name in STUDY_FIGURES if variants else FIGURES:
        save_figure(output / f"{name}.png", FIGURES[name](models), source)
    cli.log.info("compare: %d models, wrote %s", len(models), output)


if __name__ == "__main__":
    cli.run(main, __doc__)
