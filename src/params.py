"""Say what is wrong with params.yaml, or print a file that follows from the parameters' definition.

`make check` and `make generated` do this for the files of the repository.
"""

import sys
from argparse import Namespace
from pathlib import Path

from aevb.plumbing import params, reference
from aevb.plumbing.cli import Parser
from aevb.plumbing.dependencies import with_code

WRITERS = {
    "yaml": reference.as_yaml,
    "schema": reference.as_schema,
    "markdown": reference.as_markdown,
    "dvc": lambda: with_code(Path("dvc.yaml").read_text(encoding="utf-8")),
}


def arguments() -> Parser:
    """The command line of this script."""
    parser = Parser(description=__doc__.split("\n\n")[0])
    what = "check: one line on what is wrong, or nothing; yaml: params.yaml with every default; "
    what += "schema: its JSON schema; markdown: docs/parameters.md; dvc: dvc.yaml with present code"
    parser.add_argument("what", choices=["check", *WRITERS], help=what)
    parser.add_argument(
        "path", type=Path, nargs="?", default=Path("params.yaml"), help="to check (params.yaml)"
    )
    return parser


def main(args: Namespace) -> None:
    """Check or print."""
    if args.what in WRITERS:
        print(WRITERS[args.what](), end="")
        return
    try:
        params.check_text(args.path.read_text(encoding="utf-8"), str(args.path))
    except (OSError, ValueError) as error:
        print(f"params: error: {params.one_line(str(error))}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main(arguments().parse_args())
