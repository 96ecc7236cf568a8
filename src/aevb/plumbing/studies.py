"""Studies: the same experiment with other parameters, in several variants.

A study is a file studies/NAME.yaml with the mappings `params`, which replaces values of params.yaml
for all variants, and `variants`, which replaces further values for each of them. The results are
stored in results/studies/NAME/VARIANT.
"""

import re
from pathlib import Path

from aevb.plumbing.checking import Values, check, read_yaml


def read_studies(folder: Path, base: Values) -> dict[str, dict[str, Values]]:
    """The parameters of each variant of each study in a folder, in the order of the files.

    Raises:
        ValueError: in one line that names the file.
    """
    return {path.stem: read_study(path, base) for path in sorted(folder.glob("*.yaml"))}


def read_study(path: Path, base: Values) -> dict[str, Values]:
    """The parameters of each variant of a study, in the order of the file.

    Raises:
        ValueError: in one line that names the file.
    """
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
