"""Bring the images: four IDX files, verified, from the bundled copy or from a mirror.

Sources are tried in turn: the bundled copy of MNIST, the mirror in the environment variable
AEVB_MIRROR, data.mirror, the public mirrors. Which one served makes no difference to the output.
"""

from argparse import Namespace
from pathlib import Path

from aevb import sources
from aevb.plumbing import cli
from aevb.plumbing.params import Data


def arguments() -> cli.Parser:
    """The command line of this stage."""
    parser = cli.parser(__doc__, Data)
    add = parser.add_argument
    add("--bundled", type=Path, default=Path("data/mnist"), help="folder with MNIST's .gz files")
    add("--output", type=Path, required=True, help="folder to write the IDX files into")
    return parser


def main(args: Namespace) -> None:
    """Find, verify and write the files."""
    sources.download(cli.settings(Data, args), args.bundled, args.output)


if __name__ == "__main__":
    cli.run(main, arguments())
