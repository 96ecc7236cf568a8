"""The chain of custody of an experiment, from params.yaml to the tables.

Each set, model and file made of a model holds the parameters that decided it and the SHA-256 of the
files that it was made from or with (see `aevb.files.write_tensors`).
"""

from collections.abc import Iterable, Mapping
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from aevb.data import DATASET_FILE, RAW_FILES, read_raw
from aevb.datasets import DATASETS
from aevb.files import REPAIR, InputError, read_json, read_tensors, sha256
from aevb.report.runs import RECORD, files_of, read_run, record

Values = Mapping[str, Any]

FILES = {
    **{name: f"data/raw/{name}" for name in RAW_FILES},
    **{name: f"data/split/{name}.safetensors" for name in ("train", "validation", "test")},
    "model": "results/models/{}.safetensors",
    "history": "results/history/{}.csv",
    "means": "results/samples/{}-means.png",
    "draws": "results/samples/{}-draws.png",
    "figure": "results/reconstructions/{}.png",
}
"""Where the files are that others name; {} is the run, as `k3-seed0`."""
MADE_OF_A_MODEL = {
    "evaluation": ("evaluate", ("test", "model")),
    "terms": ("evaluate", ("test", "model")),
    "samples": ("sample", ("model", "means", "draws")),
    "reconstructions": ("reconstruct", ("test", "model", "figure")),
}
"""For each kind of file its section of params.yaml and the files that it names."""


def walk(values: Values, root: Path) -> None:
    """Read every file of the experiment in the folder `root` and check that they belong together.

    Args:
        values: the parameters in params.yaml, by section.

    Raises:
        InputError: for the first file that is missing or damaged, or was made with other parameters
            or files than the present ones. The message says how to repair it.
    """
    digest = cache(sha256)

    def check(file: str, kind: str, settings: Values, names: Iterable[str], run: str = "") -> None:
        path = root / file.format(run)
        _, metadata = read_tensors(path, kind)
        require(path, metadata, settings)
        present = {name: digest(root / FILES[name].format(run)) for name in names}
        require(path, metadata.get("files", {}), present)

    data, split, own = values["data"], values["split"], {**values["model"], **values["train"]}
    train, test = (read_raw(root / "data/raw", part)[2] for part in ("train", "t10k"))
    raw = {"name": train["name"], **train["files"], **test["files"]}
    official = zip(RAW_FILES, data["sha256"] or DATASETS[data["name"]].sha256, strict=False)
    require(root / "data/raw" / DATASET_FILE, raw, {"name": data["name"], **dict(official)})
    for name, source in (("train", train), ("validation", train), ("test", test)):
        size = {} if name == "test" else {"validation_size": split["validation_size"]}
        settings = {"set": name, "name": data["name"], "seed": split["seed"], **size}
        check(FILES[name], "split", settings, source["files"])

    if own["precision"] == "exact":
        del own["threads"]  # which has no effect then
    own = {name: value for name, value in own.items() if value != "auto"}
    results = root / "results"
    runs = list(product(values["runs"]["latent_dims"], values["runs"]["seeds"]))
    for latent_dim, seed in runs:
        run = f"k{latent_dim}-seed{seed}"
        check(FILES["model"], "model", own, ("train", "validation", "history"), run)
        for kind, (section, names) in MADE_OF_A_MODEL.items():
            file = f"results/{kind}/{{}}.safetensors"
            check(file, kind, {section: values[section]}, names, run)
        read_run(results, latent_dim, seed)

    path = results / "comparison" / RECORD
    recorded = read_json(path)
    read = [file for each in runs for file in files_of(results, *each).values()]
    written = [results / name for name in recorded if name.startswith("comparison/")]
    require(path, recorded, {**dict.fromkeys(recorded), **record([*read, *written])})


def require(path: Path, found: Values, expected: Values) -> None:
    """Raise an InputError unless the values that a file names are the expected ones."""
    for name, value in expected.items():
        if found.get(name) != value:
            was, now = f"{found.get(name)!s:.40}", f"{value!s:.40}"
            raise InputError(f"{path}: made with {name} = {was}, not {now}; {REPAIR}")
