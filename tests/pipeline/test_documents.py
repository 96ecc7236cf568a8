"""Results in documents: inserted, and typeset as HTML and PDF."""

import base64
import re
from pathlib import Path

from aevb.files import InputError
from aevb.plumbing.params import Model, Train
from aevb.report.runs import Run
from aevb.report.tables import settings
from document import BLOCK, filled, typeset
from graph import ROOT
from stages import run_or_raise

import pandas as pd
import pytest
from matplotlib.image import imsave

DOCUMENT = """# A title

See [the code](../src/a.py#L3), [a page](https://example.org/x.md) and [below](#end).

<!-- ../results/table.md -->
| old |
<!-- end -->

<!-- bench -->
kept
<!-- end -->

![A picture](../results/a.png)

| k | 3 |
|---|---|
| ± | <1 |

## End

$$
q_\\phi(z|x) = \\frac{1}{2} \\odot \\mathcal{N}(0, I)
$$
"""


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """The folder of the document, next to the folder of the results."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "results").mkdir()
    (tmp_path / "results/table.md").write_text("| new |\n|---|\n| ± 2 |\n", encoding="utf-8")
    imsave(tmp_path / "results/a.png", [[0.0, 1.0]])
    return tmp_path / "docs"


def test_files_are_inserted_and_nothing_else_changes(docs):
    text = filled(DOCUMENT, docs)
    assert text.replace("\n| new |\n|---|\n| ± 2 |\n\n", "| old |\n") == DOCUMENT
    assert filled(text, docs) == text


def test_the_page_and_the_pdf_contain_all_they_show(docs):
    page, pdf = typeset(filled(DOCUMENT, docs), docs)
    picture = base64.b64encode((docs / "../results/a.png").read_bytes()).decode()
    assert re.findall(r'(?:href|src)="(.*?)"', page) == [
        "#end",  # in the table of contents
        "https://example.org/x.md",
        "#end",
        f"data:image/png;base64,{picture}",
    ]
    assert 'id="end"' in page
    assert 'name="viewport"' in page
    assert "See the code, <a" in page
    assert "±\N{NO-BREAK SPACE}2</td>" in page
    assert page.count("<table>") == 2
    assert "<title>A title</title>" in page
    assert "&lt;1" in page
    assert page.count("<math ") == 1
    assert "<mfrac>" in page
    assert pdf.startswith(b"%PDF")
    assert typeset(filled(DOCUMENT, docs), docs) == (page, pdf)


def test_the_script_fills_the_document(docs):
    (docs / "a.md").write_text(DOCUMENT, encoding="utf-8")
    run_or_raise("document", "--document", docs / "a.md")
    assert (docs / "a.md").read_text(encoding="utf-8") == filled(DOCUMENT, docs)


@pytest.mark.parametrize("name", ["a.png", "table.md"])
def test_the_script_names_a_missing_file_and_writes_nothing(name, docs):
    (docs / "a.md").write_text(DOCUMENT, encoding="utf-8")
    (docs / "../results" / name).unlink()
    words = ["--html", docs / "out/a.html", "--pdf", docs / "out/a.pdf"]
    with pytest.raises(InputError, match=f"results/{name}: no such file"):
        run_or_raise("document", "--document", docs / "a.md", *words)
    assert not (docs / "out").exists()


def test_the_documents_of_this_project_show_results():
    """A misspelt marker would never be replaced; `make lint` checks the text of the others."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    shown = [name for path in pages for name, _ in BLOCK.findall(path.read_text(encoding="utf-8"))]
    assert {"table.md", "settings.md", "differences.md"} <= {Path(name).name for name in shown}


def test_all_formulas_of_the_answers_are_typeset():
    """Pandoc leaves TeX that it cannot read as it is, and so does GitHub."""
    docs = ROOT / "docs"
    text = re.sub(r"!\[.*", "", (docs / "answers.md").read_text(encoding="utf-8"))
    page, _ = typeset(text, docs)
    formulas = re.findall(r"\$\$.*?\$\$|\$[^$]+\$", text, re.DOTALL)
    assert page.count("<math ") == len(formulas) > 50
    assert "$" not in page
    # In GitHub's Markdown these are lists, quotes, headings, escapes or forbidden.
    for formula in formulas:
        assert re.search(r"^[-+*>=]|\\[^a-zA-Z]|\\operatorname", formula, re.MULTILINE) is None


@pytest.mark.parametrize("validated", [True, False])
def test_the_settings_are_those_of_the_runs(validated):
    values = {**Model(hidden=30).model_dump(), **Train(max_epochs=7, decay=0.25).model_dump()}
    values |= {"data": {"name": "kmnist"}, "train_images": 1234, "device": "cpu"}
    history = pd.DataFrame({"validation_elbo": [-1.0 if validated else float("nan")]})
    metrics = {"images": 4321, "iwae_k": 9}
    models = {
        f"k = {k}": [Run(k, seed, metrics, history, {}, {}, {}, values) for seed in (0, 1)]
        for k in (2, 5)
    }
    rows = dict(re.findall(r"\| (.*) \| (.*) \|", settings(models)))
    assert rows["dimensions of z"] == "k = 2, 5"
    assert rows["seeds"] == "0, 1"
    assert rows["hidden layers"].startswith("30 ")
    assert rows["learning rate"].endswith("25 % of training")
    assert rows["samples of z per image"] == "r = 1 in training, 9 in testing"
    assert "1,234 training images" in rows["data"]
    assert "4,321 test images" in rows["data"]
    assert rows["stopping"].startswith("after 7 epochs")
    assert ("validation" in rows["stopping"]) == validated
    assert ("validation" in rows["data"]) == validated
    assert (rows["weights"] == "the last") == (not validated)
