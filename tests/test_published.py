"""What the documents show of the results is what stands in results/."""

import re
from pathlib import Path

import pandas as pd
import pytest

from aevb.documents import filled, shown

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_documents_show_the_present_results(page):
    text = page.read_text(encoding="utf-8")
    assert filled(text, page.parent) == text, "run `make documents`"
    for name in shown(text):
        assert (page.parent / name).exists()


def test_some_documents_show_results():
    """A marker that is misspelt would be held to nothing."""
    texts = (page.read_text(encoding="utf-8") for page in PAGES)
    names = {Path(name).name for text in texts for name in shown(text)}
    assert {"table.md", "differences.md", "observations.md", "samples.png"} <= names


@pytest.mark.parametrize("document", ["README.md", "docs/guarantees.md"])
def test_what_is_said_of_five_seeds_is_what_was_measured(document):
    table = pd.read_csv(ROOT / "results" / "studies" / "seeds" / "table.csv")
    text = (ROOT / document).read_text(encoding="utf-8")
    for k in (3, 20):
        row = table[(table["latent_dim"] == k) & (table["seed"] == "all, sd")].iloc[0]
        assert re.search(rf"{row['elbo']:.2f} ± {row['elbo_se']:.2f}\s+at\s+k = {k}", text)
