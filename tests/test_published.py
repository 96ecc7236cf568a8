"""What the documents show of the results is what stands in results/."""

import re
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parent.parent
SHOWN = [
    ("README.md", "comparison/table.md"),
    ("docs/answers.md", "comparison/table.md"),
    ("docs/answers.md", "comparison/differences.md"),
    ("docs/answers.md", "studies/likelihoods/table.md"),
    ("docs/research.md", "studies/seeds/differences.md"),
    ("docs/research.md", "research/table.md"),
]


@pytest.mark.parametrize(("document", "table"), SHOWN)
def test_a_table_in_a_document_is_that_of_the_results(document, table):
    shown = (ROOT / document).read_text(encoding="utf-8").splitlines()
    rows = (ROOT / "results" / table).read_text(encoding="utf-8").splitlines()
    assert [row for row in rows if row.startswith("|") and row not in shown] == []


@pytest.mark.parametrize("document", ["README.md", "docs/guarantees.md"])
def test_what_is_said_of_five_seeds_is_what_was_measured(document):
    table = pd.read_csv(ROOT / "results" / "studies" / "seeds" / "table.csv")
    text = (ROOT / document).read_text(encoding="utf-8")
    for k in (3, 20):
        row = table[(table["latent_dim"] == k) & (table["seed"] == "all, sd")].iloc[0]
        assert re.search(rf"{row['elbo']:.2f} ± {row['elbo_se']:.2f}\s+at\s+k = {k}", text)
