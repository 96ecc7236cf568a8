"""Studies: the same experiment with other parameters, in several variants.

A study is a file studies/NAME.yaml with the mappings `params`, which replaces values of params.yaml
for all variants, and `variants`, which replaces further values for each of them. The results are
stored in results/studies/NAME/VARIANT.
"""

import re
from pathlib import Path
from typing import Any

from aevb.plumbing import params

Values = dict[str, dict[str, Any]]
SHARED = ("data", "split")
"""Sections that no study changes, because variants are compared on the same images."""


def read_studies(folder: Path, base: Values) -> dict[str, dict[str, Values]]:
    """The parameters of each variant of each study in a folder.

    Raises:
        ValueError: in one line that names the file.
    """
    return {path.stem: read_study(path, base) for path in sorted(folder.glob("*.yaml"))}


def read_study(path: Path, base: Values) -> dict[str, Values]:
    """The parameters of each variant of a study, in the order of the file.

    Raises:
        ValueError: in one line that names the file.
    """
    study = params.read_yaml(path.read_bytes(), path)
    if not isinstance(study, dict) or study.keys() != {"params", "variants"}:
        raise ValueError(f"{path} should hold `params` and `variants` and nothing else")
    if not isinstance(study["variants"], dict) or not study["variants"]:
        raise ValueError(f"{path}: variants should hold at least one name with its parameters")
    result = {}
    for name, own in study["variants"].items():
        where = f"{path}: variants.{name}"
        if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name):
            raise ValueError(
                f"{path}: variant {params.shown(name)} should be named with letters, digits, _, -"
            )
        if isinstance(own, dict) and "runs" in own:
            raise ValueError(f"{where}: runs are the same for all variants; set them in `params`")
        values = base
        for changes in (study["params"], own):
            values = replaced(values, changes, where)
        params.check(values, where)
        result[name] = values
    return result


def replaced(base: Values, changes: Any, where: str) -> Values:
    """The parameters `base` with the values in `changes`, which are not checked yet.

    Raises:
        ValueError: if `changes` is not a mapping of sections, or has sections that studies share.
    """
    if not isinstance(changes, dict) or not all(
        isinstance(section, dict) for section in changes.values()
    ):
        raise ValueError(f"{where} should hold sections with parameters, as train: {{decay: 0}}")
    for section in SHARED:
        if section in changes:
            raise ValueError(f"{where}: {section} is the same for all studies; see params.yaml")
    return base | {name: base.get(name, {}) | section for name, section in changes.items()}
