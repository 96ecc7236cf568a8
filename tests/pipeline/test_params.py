"""Parameters: what params.yaml may hold, and the errors that are reported for anything else.

tests/robustness/test_hostile.py generates more of what nobody would write.
"""

import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, get_args

import pytest
import yaml

from aevb import likelihoods
from aevb.plumbing import params
from aevb.plumbing.params import Params, Section
from graph import ROOT
from stages import error_line, run_script

SECTIONS: dict[str, type[Section]] = {name: type(section) for name, section in Params()}
FIELDS = [
    (name, key, schema)
    for name, section in SECTIONS.items()
    for key, schema in section.model_json_schema()["properties"].items()
]
EACH_FIELD = pytest.mark.parametrize(
    ("section", "key", "schema"), FIELDS, ids=[f"{section}.{key}" for section, key, _ in FIELDS]
)


def check(content: Any) -> Params:
    """`params.check` of the defaults with other values."""
    if isinstance(content, dict):
        whole: dict[str, Any] = Params().model_dump()
        for name, section in content.items():
            both = isinstance(section, dict) and name in whole
            whole[name] = {**whole[name], **section} if both else section
        content = whole
    return params.check(content)


def complaint(content: Any) -> str:
    """The error for parameters that are not allowed, which is one line."""
    with pytest.raises(ValueError, match=r"^params\.yaml") as caught:
        check(content)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


# Generated files.


@pytest.mark.parametrize(
    ("word", "path"),
    [
        ("schema", "workflow/schemas/params.schema.json"),
        ("markdown", "docs/parameters.md"),
        ("dvc", "dvc.yaml"),
    ],
)
def test_generated_files_are_up_to_date(word, path, monkeypatch):
    monkeypatch.chdir(ROOT)
    outcome = run_script("params", word)
    assert outcome == (0, (ROOT / path).read_text(encoding="utf-8"), ""), "run: make generated"


def test_the_generated_parameters_are_the_defaults_with_comments():
    text = run_script("params", "yaml").out
    assert check(yaml.safe_load(text)) == Params()
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


@EACH_FIELD
def test_wrong_values_are_named_and_the_ends_of_a_range_are_allowed(section, key, schema):
    for value in wrong(schema):
        message = complaint({section: {key: value}})
        assert f"{section}.{key}" in message, value
        assert "^" not in message  # no regular expression
    items = schema.get("items", schema)
    if items["type"] in ("integer", "number"):
        assert "minimum" in items or "exclusiveMinimum" in items
        for value, inside in limits(items):
            if inside:
                check({section: {key: value if items is schema else [value]}})


@pytest.mark.parametrize("section", SECTIONS)
def test_unknown_names_are_reported(section):
    assert f"{section}.unheard is not a parameter" in complaint({section: {"unheard": 1}})
    assert f"{section}s is not a parameter" in complaint({f"{section}s": {}})
    assert f"{section} is " in complaint({section: 3})
    for name in SECTIONS[section].model_fields:
        assert f"did you mean {section}.{name}?" in complaint({section: {f"{name}_": 1}})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train": {"treatment": "fixed"}}, "train.treatment is now called train.binarisation"),
        ({"train": {"binarisation": "fixed"}}, "fixed is now called static"),
        ({"ladder": {}}, "ladder is now called iwae"),
        ({"train": {"hidden": 500}}, "did you mean model.hidden?"),
        ({"train": {"learning_rate": "1e-3"}}, "should be a valid number; write numbers plainly"),
        ({"train": {"batch_size": "500"}}, "should be a valid integer; write numbers plainly"),
        ({"runs": {"latent_dims": [3, 20, 3]}}, "runs.latent_dims holds 3 more than once"),
        ({"data": {"sha256": ["0" * 64] * 3}}, "data.sha256 should hold four checksums or none"),
        ({"data": {"sha256": ["0"] * 4}}, "should be a SHA-256 checksum"),
        ({"train": {"x": 1}, "model": {"hidden": 0}}, "model.hidden is 0 and should be"),
        ({"runs": {"seeds": []}}, "runs.seeds is []"),
        *((content, "should hold sections") for content in (None, [], "text", 3)),
    ],
)
def test_messages(content, message):
    assert message in complaint(content)


def test_missing_names_are_reported():
    whole = Params().model_dump()
    del whole["model"]["hidden"]
    with pytest.raises(ValueError, match=r"^params.yaml: model.hidden is missing$"):
        params.check(whole)
    del whole["data"]
    with pytest.raises(ValueError, match=r"^params.yaml: data.name is missing$"):
        params.check(whole)


@pytest.mark.parametrize("value", ["[" * 100 + "]" * 100, "0x" + "f" * 5000, "a b" * 9999])
def test_messages_are_short_for_any_value(value):
    assert len(complaint({"data": {"mirror": yaml.safe_load(value)}})) < 300


@pytest.mark.parametrize(
    ("spelling", "ours", "theirs"), [("0100", "64", "100"), ("1:30", "90", "'1:30'")]
)
def test_values_that_the_engines_read_differently_are_named(spelling, ours, theirs):
    text = run_script("params", "yaml").out.replace("hidden: 500", f"hidden: {spelling}")
    with pytest.raises(ValueError, match=f"hidden is {ours} to Snakemake and {theirs} to DVC"):
        params.check_text(text)


# The script.


def test_the_script_checks_a_file(tmp_path):
    assert run_script("params", "check", ROOT / "params.yaml") == (0, "", "")
    path = tmp_path / "params.yaml"
    assert "No such file" in error_line(run_script("params", "check", path))
    path.write_text("train: {patience: 0}")
    line = error_line(run_script("params", "check", path))
    assert line.startswith("params: error: ")
    assert "train.patience" in line
    assert "'unheard'" in error_line(run_script("params", "unheard"), 2)


@pytest.mark.parametrize(
    ("imports", "slow"),
    [
        ("aevb.plumbing.params, aevb.plumbing.studies", ["torch", "numpy", "tqdm"]),
        ("download", ["torch", "torchvision", "pandas"]),
    ],
)
def test_what_each_process_of_an_engine_imports_is_light(imports, slow):
    program = f"import sys\nfor name in {slow}: sys.modules[name] = None\nimport {imports}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
