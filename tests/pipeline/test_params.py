"""Parameters: what params.yaml may hold, and the errors that are reported for anything else.

tests/robustness/test_hostile.py generates more invalid values.
"""

import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, get_args

from aevb import likelihoods
from aevb.plumbing import checking, params
from aevb.plumbing.params import Params
from graph import ROOT
from stages import error_line, run_script

import pytest
import yaml

DEFAULTS: checking.Values = Params().model_dump()
FIELDS = [
    (name, key, schema)
    for name, section in Params()
    for key, schema in section.model_json_schema()["properties"].items()
]


def complaint(changes: Any) -> str:
    """The error for changes of the defaults that are not allowed, which is one line."""
    with pytest.raises(ValueError, match=r"^params\.yaml[^\n]+$") as caught:
        checking.check(changes, base=DEFAULTS)
    assert len(str(caught.value)) < 300
    return str(caught.value)


# Generated files: `make lint` compares those of the repository with what the code makes.


def test_the_generated_parameters_are_the_defaults_with_comments():
    text = run_script("params", "yaml").out
    assert yaml.safe_load(text) == DEFAULTS
    for _, key, schema in FIELDS:
        assert re.search(rf"^  {key}: .*# .*{re.escape(schema['description'])}$", text, re.M)
    assert max(map(len, text.splitlines())) <= 100


def test_likelihoods_are_those_of_the_library():
    assert get_args(params.Likelihood) == tuple(likelihoods.LIKELIHOODS)


# Values.


def limits(schema: dict[str, Any]) -> Iterator[tuple[float, bool]]:
    """Numbers at the ends of a range and beyond, and whether they are in it."""
    step = 1 if schema["type"] == "integer" else 1e-9
    for key, outward in (("minimum", -step), ("maximum", step)):
        if key in schema:
            yield from ((schema[key], True), (schema[key] + outward, False))
        exclusive = f"exclusive{key.capitalize()}"
        if exclusive in schema:
            yield from ((schema[exclusive], False), (schema[exclusive] - outward, True))


def wrong(schema: dict[str, Any]) -> Iterator[Any]:
    """Values that a parameter must not have."""
    yield from (None, True, {}, [[]], b"x", complex(1))
    match schema:
        case {"type": "array", "items": items}:
            yield from ("1", 1, *([value] for value in wrong(items)))
        case {"enum": _}:
            yield from ("unheard", "", 1, [])
        case {"type": "string"}:
            yield from (1, [], "", " ", "a b", "a;b", "$(a)", "`a`", "a\nb", "a\n", "'", "a&b")
        case {"type": kind}:
            yield from ("1", "1e-3", "text", [1], math.nan, math.inf, -math.inf)
            yield from (1.0, 1.5) if kind == "integer" else ()
            yield from (value for value, inside in limits(schema) if not inside)


@pytest.mark.parametrize(
    ("section", "key", "schema"), FIELDS, ids=[f"{section}.{key}" for section, key, _ in FIELDS]
)
def test_wrong_values_are_named_and_the_ends_of_a_range_are_allowed(section, key, schema):
    for value in wrong(schema):
        message = complaint({section: {key: value}})
        assert f"{section}.{key}" in message, value
        assert "^" not in message  # no regular expression
    items = schema.get("items", schema)
    longest = {"max_epochs": 10**6} if key == "snapshots" else {}
    if items["type"] in ("integer", "number"):
        for value, inside in limits(items):
            if inside:
                value = value if items is schema else [value]
                checking.check({section: longest | {key: value}}, base=DEFAULTS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": {"treatment": "fixed"}}, "train.treatment is now called train.binarisation"),
        ({"train": {"binarisation": "fixed"}}, "fixed is now called static"),
        ({"ais": {}}, "ais is now called inference_gap"),
        ({"train": {"hidden": 500}}, "did you mean model.hidden?"),
        ({"train": {"decayed": 1}}, "did you mean train.decay?"),
        ({"trian": {}}, "trian is not a parameter; did you mean train?"),
        ({"train": {"max_epochs": "40"}}, "should be a valid integer; write it without quotes"),
        ({"train": {"decay": "0.5"}}, "should be a valid number; write it without quotes"),
        ({"runs": {"latent_dims": [3, 20, 3]}}, "[3, 20, 3] and should hold each number once"),
        ({"train": {"snapshots": [4, 2]}}, "train.snapshots is [4, 2] and should ascend"),
        ({"train": {"snapshots": [1, 41]}}, "up to at most max_epochs"),
        ({"data": {"sha256": ["0" * 64] * 3}}, "should hold four checksums or none"),
        ({"data": {"sha256": ["0"]}}, "should be a SHA-256 checksum"),
        ({"data": {"mirror": "a b" * 9999}}, "should be a path or URL without spaces"),
        ({"train": {"x": 1}, "model": {"hidden": 0}}, "model.hidden is 0 and should be"),
        ({"runs": {"seeds": []}}, "runs.seeds is []"),
        ({"train": 3}, "train is 3"),
        *((content, "should hold sections") for content in (None, [], "text", 3)),
    ],
)
def test_messages(changes, message):
    assert message in complaint(changes)


# Files.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {b: 0100}", "Snakemake reads `b: 64` and DVC `b: 100`; write numbers plainly"),
        ("a: [1:30]", "Snakemake reads `- 90` and DVC `- '1:30'`"),
        ("a: 1e-3", "Snakemake reads `a: 1e-3` and DVC `a: 0.001`"),
        ("a: 1\na: 2", 'found duplicate key "a"'),
        ("a: {", "cannot be read as YAML"),
        ("a: 0x" + "f" * 5000, "cannot be read as YAML"),
        ("[" * 100_000, "cannot be read as YAML"),
        ("a: &a [x]\nb: *a", "aliases"),
        ("a: &a {x: 1}\nb:\n" + "  <<: *a\n" * 10, "aliases"),
        ("\0", "cannot be read as YAML"),
    ],
)
def test_files_that_engines_read_differently_or_not_at_once_are_refused(text, message, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    line = error_line(run_script("params", "check", path))
    assert line.startswith(f"params: error: {path}: ")
    assert message in line


def test_the_script_checks_a_file(tmp_path):
    assert run_script("params", "check", ROOT / "params.yaml") == (0, "", "")
    path = tmp_path / "params.yaml"
    assert "No such file" in error_line(run_script("params", "check", path))
    values = DEFAULTS | {"model": {"likelihood": "gaussian"}}
    path.write_text(yaml.safe_dump(values))
    line = error_line(run_script("params", "check", path))
    assert line == f"params: error: {path}: model.hidden is missing"
    assert "'unheard'" in error_line(run_script("params", "unheard"), 2)


@pytest.mark.parametrize(
    ("imports", "slow"),
    [
        ("aevb.plumbing.checking", ["torch", "numpy", "tqdm"]),
        ("download", ["torch", "torchvision", "pandas"]),
    ],
)
def test_what_each_process_of_an_engine_imports_is_light(imports, slow):
    program = f"import sys\nfor name in {slow}: sys.modules[name] = None\nimport {imports}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
