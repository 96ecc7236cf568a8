"""Check params.yaml, or print a file that is generated from the definition of the parameters.

`make check` and `make generated` do this for the files of the repository.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aevb.plumbing.checking import check, read_yaml
from aevb.plumbing.cli import Parser
from aevb.plumbing.dependencies import with_code
from aevb.plumbing.params import IN_WORDS, Params, Section

HEAD_OF_YAML = """\
# Every parameter of every stage, in one section per stage. After a change,
# `snakemake` or `make repro` runs again what depends on it, and nothing else.
# yaml-language-server: $schema=workflow/schemas/params.schema.json
"""

HEAD_OF_MARKDOWN = """\
# Every parameter

Written by `make generated` from [params.py](../src/aevb/plumbing/params.py). Values are
set in [params.yaml](../params.yaml). Each parameter is also a flag of its stage:
`train.decay` is `--decay` of `src/train.py`. 1–10 means an integer.
"""


def rows(section: Section) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Name, default and JSON schema of each parameter of a section."""
    for key, schema in section.model_json_schema()["properties"].items():
        yield key, json.dumps(getattr(section, key)).strip('"'), schema


def as_yaml() -> str:
    """params.yaml with the default of every parameter and its description as a comment."""
    text = HEAD_OF_YAML
    for name, section in Params():
        text += f"\n{name}:  # {type(section).__doc__}\n"
        for key, default, schema in rows(section):
            choices = f"{' | '.join(schema['enum'])}; " if "enum" in schema else ""
            text += f"{f'  {key}: {default}':<26}# {choices}{schema['description']}\n"
    return text


def as_schema() -> str:
    """The JSON schema of params.yaml, for editors."""
    return json.dumps(Params.model_json_schema(), indent=2, sort_keys=True) + "\n"


def as_markdown() -> str:
    """docs/parameters.md: one list per section."""
    text = HEAD_OF_MARKDOWN
    for name, section in Params():
        text += f"\n## `{name}`\n\n{type(section).__doc__}\n\n"
        for key, default, schema in rows(section):
            text += f"- `{key}` ({allowed(schema)}; default `{default}`): {schema['description']}\n"
    return text


def allowed(schema: dict[str, Any]) -> str:
    """The values that a JSON schema allows, in words: `1–1000000`, or `0 < number ≤ 1`."""
    match schema:
        case {"enum": choices}:
            return ", ".join(f"`{choice}`" for choice in choices)
        case {"type": "array", "items": items}:
            return f"list, each {allowed(items)}"
        case {"pattern": pattern}:
            return IN_WORDS[pattern]
    if schema["type"] == "integer":
        largest = schema.get("maximum") or schema["exclusiveMaximum"] - 1
        return f"{schema['minimum']}–{largest}"
    text = str(schema["type"])
    for key, before, after in (
        ("minimum", "{} ≤ ", ""),
        ("exclusiveMinimum", "{} < ", ""),
        ("maximum", "", " ≤ {}"),
        ("exclusiveMaximum", "", " < {}"),
    ):
        if key in schema:
            limit = f"{schema[key]:.15g}"
            text = before.format(limit) + text + after.format(limit)
    return text


FILES = {
    "yaml": as_yaml,
    "schema": as_schema,
    "markdown": as_markdown,
    "dvc": lambda: with_code(Path("dvc.yaml").read_text(encoding="utf-8")),
}

if __name__ == "__main__":
    parser = Parser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "what",
        choices=["check", *FILES],
        help="check: report a mistake in PATH in one line; yaml: params.yaml with all defaults; "
        "schema: its JSON schema; markdown: docs/parameters.md; dvc: dvc.yaml, in which the code "
        "that each stage depends on is brought up to date",
    )
    help_of_path = "file to check (default: params.yaml)"
    parser.add_argument("path", type=Path, nargs="?", default="params.yaml", help=help_of_path)
    args = parser.parse_args()
    if args.what in FILES:
        print(FILES[args.what](), end="")
    else:
        try:
            check(read_yaml(args.path), args.path)
        except ValueError as error:
            parser.exit(1, f"params: error: {error}\n")
