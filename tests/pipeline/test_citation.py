"""CITATION.cff agrees with the other files of the project."""

import tomllib

from graph import ROOT

from ruamel.yaml import YAML


def test_the_citation_agrees_with_the_other_files():
    citation = YAML(typ="safe", pure=True).load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    (author,) = citation["authors"]
    assert author["name"] in (ROOT / "LICENSE").read_text(encoding="utf-8")
    references = {entry["type"]: entry for entry in citation["references"]}
    assert references["data"]["url"] in (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    assert references["article"]["url"] in (ROOT / "README.md").read_text(encoding="utf-8")
