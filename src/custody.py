"""Check that all results belong together and to params.yaml; every file is read.

`snakemake register` does this before DVC records the results. Each set, model and file made of a
model contains the parameters and the SHA-256 of the files that it was made with (see
`aevb.files.write_tensors`).
"""

from collections.abc import Iterable, Mapping
from functools import cache
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any

from aevb.data import DATASET_FILE, RAW_FILES, read_raw
from aevb.datasets import DATASETS
from aevb.files import REPAIR, InputError, read_bytes, read_json, read_tensors, sha256
from aevb.plumbing import checking, cli
from aevb.report.runs import NAMES_THE_RECORD, RECORD, files_of, read_run, record

from PIL import Image

Values = Mapping[str, Any]

FILES = {
    **{name: f"data/raw/{name}" for name in RAW_FILES},
    **{name: f"data/split/{name}.safetensors" for name in ("train", "validation", "test")},
    "model": "results/models/{}.safetensors",
    "history": "results/history/{}.csv",
}
"""Where the files are that others name; {} is the run, as `k3-seed0`."""
MADE_OF_A_MODEL = {
    "evaluation": ("evaluate", ("test", "model")),
    "terms": ("evaluate", ("test", "model")),
    "samples": ("sample", ("model",)),
    "reconstructions": ("reconstruct", ("test", "model")),
}
"""For each kind of file its section of params.yaml and the files that it names."""
FIGURES = {"samples": ("{}-means.png", "{}-draws.png"), "reconstructions": ("{}.png",)}
"""The figures of a kind of file."""


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
            file = f"results/{kind}/{run}.safetensors"
            check(file, kind, {section: values[section]}, names, run)
            for name in FIGURES.get(kind, ()):
                check_figure(results / kind / name.format(run), root / file)
        read_run(results, latent_dim, seed)

    path = results / "comparison" / RECORD
    recorded = read_json(path)
    read = [file for each in runs for file in files_of(results, *each).values()]
    written = [results / name for name in recorded if name.startswith("comparison/")]
    figures = [file for file in written if file.suffix == ".png"]
    expected = record([*read, *(file for file in written if file not in figures)])
    expected |= {f"comparison/{figure.name}": NAMES_THE_RECORD for figure in figures}
    require(path, recorded, {**dict.fromkeys(recorded), **expected})
    for figure in figures:
        check_figure(figure, path)


def check_figure(path: Path, source: Path) -> None:
    """Raise an InputError unless a PNG file is whole and shows the file `source`."""
    try:
        with Image.open(BytesIO(read_bytes(path))) as image:
            found = {str(name): text for name, text in image.info.items()}
            image.verify()
    except (OSError, SyntaxError, ValueError):
        raise InputError(f"{path}: damaged; {REPAIR}") from None
    require(path, found, {"Title": path.stem, "Source": sha256(source)})


def require(path: Path, found: Values, expected: Values) -> None:
    """Raise an InputError unless the values that a file names are the expected ones."""
    for name, value in expected.items():
        if found.get(name) != value:
            was, now = f"{found.get(name)!s:.40}", f"{value!s:.40}"
            raise InputError(f"{path}: made with {name} = {was}, not {now}; {REPAIR}")


def main() -> None:
    """Walk from params.yaml to the tables; report the first file that does not belong there."""
    try:
        values = checking.check(checking.read_yaml(Path("params.yaml")))
    except ValueError as error:
        raise InputError(str(error)) from None
    walk(values, Path())
    cli.log.info("custody: all results belong together and to params.yaml")


if __name__ == "__main__":
    cli.run(main, __doc__)
