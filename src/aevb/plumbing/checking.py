"""Reading and checking parameters; mistakes are reported in one line."""

import difflib
import re
import reprlib
import shlex
from itertools import zip_longest
from pathlib import Path
from typing import Any

from aevb.plumbing.params import IN_WORDS, Params

import yaml
from pydantic import ValidationError

Values = dict[str, dict[str, Any]]
"""Sections of parameters, as params.yaml holds them."""

RENAMED = {
    "train.treatment": "train.binarisation",
    "iwae": "inference_gap",
    "ais": "inference_gap",
    "estimators": "gradient_variance",
    "fidelity": "sample_quality",
    "fixed": "static",
    "gray": "none",
}
"""Former names of parameters, sections and values of train.binarisation."""


def one_line(text: str) -> str:
    """Text without line ends or other characters that would move the cursor of a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in " ".join(text.split()))


def suggestion(where: str) -> str:
    """The present name of an unknown parameter, or the most similar name, if there is one."""
    if where in RENAMED:
        return f"{where} is now called {RENAMED[where]}"
    sections = {name: [key for key, _ in section] for name, section in Params()}
    section, _, key = where.rpartition(".")
    near = difflib.get_close_matches(key, sections.get(section, sections), 1)
    names = [f"{section}.{name}" if section else name for name in near]
    names = names or [f"{name}.{key}" for name, keys in sections.items() if key in keys]
    hint = f"; did you mean {names[0]}?" if len(names) == 1 else ""
    return f"{where} is not a parameter{hint}"


def problems(error: ValidationError) -> str:
    """Pydantic's findings in one line: `train.decay is 2 and should be less than or equal to 1`."""
    lines = []
    for item in error.errors():
        where, value = ".".join(str(part) for part in item["loc"]), item["input"]
        if item["type"] == "extra_forbidden":
            lines.append(suggestion(where))
            continue
        message = item["msg"][max(item["msg"].find("should"), 0) :]
        if item["type"] == "string_pattern_mismatch":
            message = f"should be a {IN_WORDS[item['ctx']['pattern']]}"
        elif item["type"] in ("int_type", "float_type") and re.fullmatch(r"-?[\d.]+", str(value)):
            message += "; write it without quotes"
        elif item["type"] == "literal_error" and str(value) in RENAMED:
            message += f"; {value} is now called {RENAMED[value]}"
        lines.append(f"{where} is {reprlib.repr(value)} and {message}")
    return one_line("; ".join(lines))


def check(values: Any, where: object = "params.yaml", base: Values | None = None) -> Values:
    """The parameters of all stages, validated; what is not in `values` is taken from `base`.

    Raises:
        ValueError: in one line, for an unknown or missing key or for a value that is not allowed.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{where} should hold sections with parameters, as data: {{name: mnist}}")
    whole = dict(base or {})
    for name, section in values.items():
        both = isinstance(section, dict) and name in whole
        whole[name] = {**whole[name], **section} if both else section
    try:
        checked = Params.model_validate(whole)
    except ValidationError as error:
        raise ValueError(f"{where}: {problems(error)}") from None
    # A missing key would silently get its default, but params.yaml is to describe the whole run.
    for name, section in checked:
        for key, _ in section:
            if key not in section.model_fields_set:
                raise ValueError(f"{where}: {name}.{key} is missing")
    return whole


class WithoutAliases(yaml.SafeLoader):
    """A loader that refuses aliases, since a short text with aliases may take minutes to load."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Read the next value."""
        if self.check_event(yaml.AliasEvent):
            raise ValueError("aliases are not supported")
        return super().compose_node(parent, index)


def read_yaml(path: Path) -> Any:
    """What a YAML file holds, if Snakemake (YAML 1.1) and DVC (YAML 1.2) read the same.

    Raises:
        ValueError: in one line, if it cannot be read or if they differ: 0100 is 64 in YAML 1.1.
    """
    from ruamel.yaml import YAML

    try:
        text = path.read_text(encoding="utf-8")
        values = yaml.load(text, WithoutAliases), YAML(typ="safe", pure=True).load(text)
        ours, theirs = (yaml.safe_dump(value, sort_keys=False).splitlines() for value in values)
    except Exception as error:  # KeyError for `!!bool x` …
        raise ValueError(f"{path}: cannot be read as YAML ({one_line(str(error))})") from None
    section = ""
    for mine, other in zip_longest(ours, theirs, fillvalue=""):
        if not mine.startswith((" ", "-")):
            section = mine.partition(":")[0]
        if mine != other:
            differ = f"{section}: Snakemake reads `{mine.strip()}` and DVC `{other.strip()}`"
            raise ValueError(f"{path}: {one_line(differ)}; write numbers plainly, as 0.001")
    return values[0]


def read_studies(folder: Path, base: Values) -> dict[str, dict[str, Values]]:
    """The parameters of each variant of each study in a folder, in the order of the files.

    A study is the same experiment with other parameters, in several variants: a file NAME.yaml with
    the mappings `params`, which replaces values of params.yaml (`base`) for all variants, and
    `variants`, which replaces further values for each of them. The results are stored in
    results/studies/NAME/VARIANT. A mistake is a ValueError that names the file.
    """
    return {path.stem: read_study(path, base) for path in sorted(folder.glob("*.yaml"))}


def read_study(path: Path, base: Values) -> dict[str, Values]:
    """The parameters of each variant; ValueError, which names the file, if one is wrong."""
    study = read_yaml(path)
    if not isinstance(study, dict) or study.keys() != {"params", "variants"}:
        raise ValueError(f"{path} should hold `params` and `variants` and nothing else")
    variants = study["variants"]
    if not isinstance(variants, dict) or not variants:
        raise ValueError(f"{path}: variants should hold at least one name with its parameters")
    for name in (path.stem, *variants):
        if not isinstance(name, str) or not re.fullmatch(r"\w[\w-]*", name):
            raise ValueError(f"{path}: the name {name!r:.50} should be letters, digits, _ and -")
    shared = check(study["params"], f"{path}: params", base)
    result = {
        name: check(own, f"{path}: variants.{name}", shared) for name, own in variants.items()
    }
    for values in result.values():
        if any(values[section] != base[section] for section in ("data", "split")):
            raise ValueError(
                f"{path}: data and split are the same for all studies; see params.yaml"
            )
        if values["runs"] != shared["runs"]:
            raise ValueError(f"{path}: runs are the same for all variants; set them in `params`")
    return result


def flags(section: dict[str, Any]) -> str:
    """A section as flags of a stage, as DVC unpacks `${section}`: `--hidden 500 --likelihood …`."""
    words: list[str] = []
    for name, value in section.items():
        values = value if isinstance(value, list) else [value]
        if values:  # DVC leaves out empty lists
            words += [f"--{name}", *(shlex.quote(str(item)) for item in values)]
    return " ".join(words)
