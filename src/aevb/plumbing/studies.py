"""Studies: the same experiment under other parameters, several variants side by side.

A study is a file studies/NAME.yaml with a mapping `params`, laid over params.yaml, and a mapping
`variants`, each laid over that. Its results lie in results/studies/NAME/VARIANT.
"""

import re
from pathlib import Path
from typing import Any

from aevb.plumbing import params

Values = dict[str, dict[str, Any]]
SHARED = ("data", "split")
"""Sections that a study leaves alone: its variants are compared on the same images."""


def read_studies(folder: Path, base: Values) -> dict[str, dict[str, Values]]:
    """The parameters of each variant of each study in a folder.

    Raises:
        ValueError: in one line, naming the file.
    """
    return {path.stem: read_study(path, base) for path in sorted(folder.glob("*.yaml"))}


def read_study(path: Path, base: Values) -> dict[str, Values]:
    """The parameters of each variant of a study, in its order.

    Raises:
        ValueError: in one line, naming the file.
    """
    import yaml

    try:
        study = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(params.one_line(str(error)).split())
        raise ValueError(f"{path}: cannot be read as YAML ({reason})") from None
    if not isinstance(study, dict) or study.keys() != {"params", "variants"}:
        raise ValueError(f"{path} should hold `params` and `variants` and nothing else")
    common, variants = study["params"], study["variants"]
    if not isinstance(variants, dict) or not variants:
        raise ValueError(f"{path}: variants should hold a name with its parameters, or several")
    result = {}
    for name, own in variants.items():
        if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name):
            raise ValueError(
                f"{path}: variant {params.shown(name)} should be named in letters, digits, _ and -"
            )
        if isinstance(own, dict) and "runs" in own:
            raise ValueError(
                f"{path}: variants.{name}: runs belong under `params`, for all variants"
            )
        values = base
        for over in (common, own):
            values = overlaid(values, over, f"{path}: variants.{name}")
        params.check(values, f"{path}: variants.{name}")
        result[name] = values
    return result


def overlaid(base: Values, over: Any, where: str) -> Values:
    """The parameters `base` with the entries of `over` in their place.

    Raises:
        ValueError: if `over` is no mapping of sections, or touches those that studies share.
    """
    if not isinstance(over, dict) or not all(
        isinstance(entries, dict) for entries in over.values()
    ):
        raise ValueError(f"{where} should hold sections with parameters, as train: {{decay: 0}}")
    for section in SHARED:
        if section in over:
            raise ValueError(f"{where}: {section} is the same for all studies; see params.yaml")
    unknown = over.keys() - base.keys()
    if unknown:
        raise ValueError(f"{where}: {params.shown(sorted(map(str, unknown))[0])} is no section")
    return {section: {**entries, **over.get(section, {})} for section, entries in base.items()}
