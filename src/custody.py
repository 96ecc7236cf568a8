"""Check that all results belong together and to params.yaml; every file is read.

`snakemake register` does this before DVC records the results.
"""

from pathlib import Path

from aevb.files import InputError
from aevb.plumbing import checking, cli
from aevb.report.custody import walk


def main() -> None:
    """Walk from params.yaml to the tables; report the first file that does not belong there."""
    try:
        values = checking.check(checking.read_yaml(Path("params.yaml")))
    except ValueError as error:
        raise InputError(str(error)) from None
    walk(values, Path())
    cli.log.info("custody: all results belong together and to params.yaml")


if __name__ == "__main__":
    cli.run(main, __doc__)
