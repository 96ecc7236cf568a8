"""Check params.yaml, or print a file that is generated from the definition of the parameters.

`make check` and `make generated` do this for the files of the repository.
"""

import json
from pathlib import Path

from aevb.plumbing.checking import check, read_yaml
from aevb.plumbing.cli import Parser
from aevb.plumbing.dependencies import with_code
from aevb.plumbing.params import Params

HEAD_OF_YAML = """\
# Every parameter of every stage, in one section per stage. After a change,
# `snakemake` or `make repro` runs again what depends on it, and nothing else.
# yaml-language-server: $schema=workflow/schemas/params.schema.json
"""


def as_yaml() -> str:
    """params.yaml with the default of every parameter and its description as a comment."""
    text = HEAD_OF_YAML
    for name, section in Params():
        text += f"\n{name}:  # {type(section).__doc__}\n"
        for key, schema in section.model_json_schema()["properties"].items():
            default = json.dumps(getattr(section, key)).strip('"')
            choices = f"{' | '.join(schema['enum'])}; " if "enum" in schema else ""
            text += f"{f'  {key}: {default}':<26}# {choices}{schema['description']}\n"
    return text


def as_schema() -> str:
    """The JSON schema of params.yaml, for editors."""
    return json.dumps(Params.model_json_schema(), indent=2, sort_keys=True) + "\n"


FILES = {
    "yaml": as_yaml,
    "schema": as_schema,
    "dvc": lambda: with_code(Path("dvc.yaml").read_text(encoding="utf-8")),
}

if __name__ == "__main__":
    parser = Parser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "what",
        choices=["check", *FILES],
        help="check: report a mistake in PATH in one line; yaml: params.yaml with all defaults; "
        "schema: its JSON schema; dvc: dvc.yaml, in which the code that each stage depends on is "
        "brought up to date",
    )
    parser.add_argument("path", type=Path, nargs="?", default="params.yaml", help="file to check")
    args = parser.parse_args()
    if args.what in FILES:
        print(FILES[args.what](), end="")
    else:
        try:
            check(read_yaml(args.path), args.path)
        except ValueError as error:
            parser.exit(1, f"params: error: {error}\n")
