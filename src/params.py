"""Check params.yaml, or print a file that is generated from the definition of the parameters.

`make check` and `make generated` do this for the files of the repository.
"""

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from aevb.plumbing.cli import Parser
from aevb.plumbing.dependencies import with_code
from aevb.plumbing.params import IN_WORDS, Params, check_text, one_line


def as_yaml() -> str:
    """params.yaml with the default of every parameter and its description as a comment."""
    lines = [
        "# Every parameter of every stage, in one section per stage. After a change,",
        "# `snakemake --cores 4` or `dvc repro` runs again what depends on it, and nothing else.",
        "# yaml-language-server: $schema=workflow/schemas/params.schema.json",
    ]
    for name, section in Params():
        lines += ["", f"{name}:  # {type(section).__doc__}"]
        schemas = type(section).model_json_schema()["properties"]
        for key, field in type(section).model_fields.items():
            value = json.dumps(getattr(section, key)).strip('"')
            choices = " | ".join(schemas[key].get("enum", []))
            comment = f"{choices}; {field.description}" if choices else field.description
            lines.append(f"{f'  {key}: {value}':<26}# {comment}")
    return "\n".join(lines) + "\n"


def as_schema() -> str:
    """The JSON schema of params.yaml, for editors."""
    return json.dumps(Params.model_json_schema(), indent=2, sort_keys=True) + "\n"


def as_markdown() -> str:
    """docs/parameters.md: one table per section."""
    lines = [
        "# Every parameter",
        "",
        "Written by `make generated` from [params.py](../src/aevb/plumbing/params.py). Values are",
        "set in [params.yaml](../params.yaml); `make check` reports mistakes in it in one line.",
        "Each parameter is a flag of its stage: `train.decay` is `--decay` of `src/train.py`.",
        "After a change of a value, both engines run the stages again that use the section, and",
        "those that use their results. A value added to a list in `runs` adds new runs, and leaves",
        "the existing ones as they are.",
    ]
    for name, section in Params():
        lines += ["", f"## `{name}`", "", str(type(section).__doc__), ""]
        lines += ["| parameter | values | default | meaning |", "|---|---|---|---|"]
        schemas = type(section).model_json_schema()["properties"]
        for key, field in type(section).model_fields.items():
            default = json.dumps(getattr(section, key)).strip('"')
            cells = (f"`{key}`", allowed(schemas[key]), f"`{default}`", field.description or "")
            lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def allowed(schema: dict[str, Any]) -> str:
    """The values that a JSON schema allows, in words: `0 < number ≤ 1`."""
    match schema:
        case {"enum": choices}:
            return ", ".join(f"`{choice}`" for choice in choices)
        case {"type": "array", "items": items}:
            return f"list of {allowed(items)}"
        case {"pattern": pattern}:
            return IN_WORDS[pattern]
    words = [str(schema["type"])]
    for key, sign in (("minimum", "≤"), ("exclusiveMinimum", "<")):
        if key in schema:
            words = [f"{schema[key]:.15g}", sign, *words]
    for key, sign in (("maximum", "≤"), ("exclusiveMaximum", "<")):
        if key in schema:
            words += [sign, f"{schema[key]:.15g}"]
    return " ".join(words)


FILES = {
    "yaml": as_yaml,
    "schema": as_schema,
    "markdown": as_markdown,
    "dvc": lambda: with_code(Path("dvc.yaml").read_text(encoding="utf-8")),
}


def arguments() -> Parser:
    """The command line of this script."""
    parser = Parser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "what",
        choices=["check", *FILES],
        help="check: report a mistake in PATH in one line; yaml: params.yaml with all defaults; "
        "schema: its JSON schema; markdown: docs/parameters.md; dvc: dvc.yaml, in which the code "
        "that each stage depends on is brought up to date",
    )
    parser.add_argument(
        "path",
        type=Path,
        nargs="?",
        default=Path("params.yaml"),
        help="file to check (default: params.yaml)",
    )
    return parser


def main(args: Namespace) -> None:
    """Check or print."""
    if args.what in FILES:
        print(FILES[args.what](), end="")
        return
    try:
        check_text(args.path.read_text(encoding="utf-8"), str(args.path))
    except (OSError, ValueError) as error:
        print(f"params: error: {one_line(str(error))}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main(arguments().parse_args())
