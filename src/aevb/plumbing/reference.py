"""What follows from the parameters' definition: params.yaml, its schema, docs/parameters.md."""

import json
from typing import Any

from aevb.plumbing.params import Params


def as_yaml() -> str:
    """params.yaml with every default and a comment on every parameter."""
    lines = [
        "# Every parameter of every stage, a section each. Change a value and run",
        "# `snakemake --cores 4` or `dvc repro`: what depends on it is made again, nothing else.",
        "# yaml-language-server: $schema=workflow/schemas/params.schema.json",
    ]
    for name, section in Params():
        lines += ["", f"{name}:  # {(type(section).__doc__ or '').strip()}"]
        for key, field in type(section).model_fields.items():
            value = json.dumps(getattr(section, key)).strip('"')
            lines.append(f"{f'  {key}: {value}':<26}# {field.description}")
    return "\n".join(lines) + "\n"


def as_schema() -> str:
    """The JSON schema of params.yaml, for editors."""
    return json.dumps(Params.model_json_schema(), indent=2, sort_keys=True) + "\n"


def as_markdown() -> str:
    """docs/parameters.md: a table of each section and what it runs again."""
    lines = [
        "# Every parameter",
        "",
        "Written by `make generated` from [params.py](../src/aevb/params.py). The values stand in",
        "[params.yaml](../params.yaml); `make check` says in one line what is wrong with them. A",
        "parameter is a flag of its stage: `train.decay` is `--decay` of `src/train.py`. A value",
        "added to a list in `runs` also runs all stages of the new runs.",
    ]
    for name, section in Params():
        stages = ", ".join(section.reruns)
        lines += ["", f"## `{name}`", "", (type(section).__doc__ or "").strip(), ""]
        lines += [f"Runs again when a value changes: {stages}.", ""]
        lines += ["| parameter | may be | default | is |", "|---|---|---|---|"]
        schemas = type(section).model_json_schema()["properties"]
        for key, field in type(section).model_fields.items():
            default = json.dumps(getattr(section, key)).strip('"')
            cells = (f"`{key}`", allowed(schemas[key]), f"`{default}`", field.description or "")
            lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def allowed(schema: dict[str, Any]) -> str:
    """The values that a JSON schema allows, in a few words: `0 < number ≤ 1`."""
    match schema:
        case {"enum": choices}:
            return ", ".join(f"`{choice}`" for choice in choices)
        case {"type": "array", "items": items}:
            return f"list of {allowed(items)}"
        case {"type": "string", "pattern": pattern}:
            return f"text, `{pattern}`"
    words = [str(schema["type"])]
    for key, sign in (("minimum", "≤"), ("exclusiveMinimum", "<")):
        if key in schema:
            words = [f"{schema[key]:.15g}", sign, *words]
    for key, sign in (("maximum", "≤"), ("exclusiveMaximum", "<")):
        if key in schema:
            words += [sign, f"{schema[key]:.15g}"]
    return " ".join(words)
