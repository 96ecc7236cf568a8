"""The tables of a comparison as CSV, Markdown and LaTeX: all runs, and their differences."""

from itertools import product
from typing import Any

import pandas as pd

from aevb.intervals import Estimate, estimate
from aevb.report.runs import MARK, NOTE, TERMS, Variants, difference, models

FACTS = ["variant", "latent_dim", "binarisation", "likelihood", "is_log_likelihood", "iwae_k"]
"""What all runs of one row over all seeds have in common."""
ONE_SEED = {"{seed}": "{:.2f} ± {se:.2f}"}
ALL_SEEDS = {"all, mean (sd)": "{:.2f} ({sd:.2f})", "all, 95 %": "[{low:.2f}, {high:.2f}]"}
"""For each row of text, its cell in the column `seed` and those in the columns of the terms."""


def table(variants: Variants) -> pd.DataFrame:
    """The metrics of every run, with a column `variant` if there are several variants.

    Of several seeds, a further row for each k, with seed `all`, has the mean over seeds of each
    term, the standard error of this mean (`_se`), the standard deviation over seeds (`_sd`) and the
    95 % interval of the mean (`_low`, `_high`).
    """
    names = ("latent_dim", "seed", "binarisation", "likelihood")
    frame = pd.DataFrame(
        {"variant": variant, **{name: run.metadata[name] for name in names}, **run.metrics}
        for variant, runs in variants.items()
        for run in runs
    )
    for _, group in frame.groupby(["variant", "latent_dim"], sort=False):
        if len(group) > 1:
            row: dict[str, Any] = {**group[FACTS].iloc[0], "seed": "all"}
            for term in TERMS:
                mean, se, low, high = estimate(group[term])
                row |= {term: mean, f"{term}_se": se, f"{term}_sd": group[term].std()}
                row |= {f"{term}_low": low, f"{term}_high": high}
            frame = pd.concat([frame, pd.DataFrame([row])], ignore_index=True)
    return frame if len(variants) > 1 else frame.drop(columns="variant")


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """The table as text: `mean ± standard error` of each run, then two rows over all seeds."""
    lines = []
    for row in frame.to_dict("records"):
        mark = "" if row["is_log_likelihood"] else f" {MARK}"
        for seed, cell in (ALL_SEEDS if row["seed"] == "all" else ONE_SEED).items():
            line = {"variant": row["variant"]} if "variant" in row else {}
            line |= {"k": row["latent_dim"], "seed": seed.format_map(row)}
            line |= {"binarisation": row["binarisation"]}
            line |= {"likelihood": row["likelihood"].replace("_", " ") + mark}
            for term, title in TERMS.items():
                name = f"{title} (K = {row['iwae_k']})" if term == "iwae_bound" else title
                numbers = {end: row.get(f"{term}_{end}") for end in ("se", "sd", "low", "high")}
                line[name] = cell.format(row[term], **numbers) + mark
            lines.append(line)
    return pd.DataFrame(lines)


def caption(frame: pd.DataFrame) -> str:
    """What the numbers in the table are."""
    text = "Test set, nats per image; ± is the standard error over images."
    if "all" in frame["seed"].tolist():
        text += " Over all seeds: the mean with the standard deviation over seeds (sd), and the "
        text += "95 % interval of the mean by Student's t."
    return text if frame["is_log_likelihood"].all() else f"{text} {NOTE}"


def as_csv(frame: pd.DataFrame) -> str:
    """A table as data, with six significant digits."""
    return str(frame.to_csv(index=False, lineterminator="\n", float_format="%.6g"))


def as_markdown(frame: pd.DataFrame) -> str:
    """The readable table and its caption in Markdown."""
    text = readable(frame).to_markdown(index=False, disable_numparse=True)
    return f"{text}\n\n{caption(frame)}\n"


def as_latex(frame: pd.DataFrame) -> str:
    """The readable table in LaTeX, its caption as a comment."""
    symbols = str.maketrans({"±": r"$\pm$", MARK: r"$\dagger$", "-": "$-$", "%": r"\%"})
    cells = readable(frame).map(lambda cell: str(cell).translate(symbols))
    body = cells.to_latex(index=False, column_format="rrll" + "r" * len(TERMS))
    return f"% {caption(frame)}\n{body}"


def differences(variants: Variants) -> pd.DataFrame:
    """Mean differences in nats per image of every k from the first k of the same variant.

    Differences are taken for the same test images and seeds; they are positive if the term of k is
    higher. If there are several seeds, rows with seed `all` have the mean over them.
    """
    rows = []
    for variant, all_runs in variants.items():
        first, *others = models({variant: all_runs}).values()
        for runs, term in product(others, TERMS):
            ks = runs[0].latent_dim, first[0].latent_dim
            pairs: dict[Any, Any] = {run.seed: ([run], [first[i]]) for i, run in enumerate(runs)}
            if len(runs) > 1:
                pairs["all"] = runs, first
            for seed, pair in pairs.items():
                rows.append((variant, *ks, term, seed, *difference(term, *pair)))
    names = ["variant", "latent_dim", "against", "term", "seed", "difference", "se", "low", "high"]
    frame = pd.DataFrame(rows, columns=names)
    return frame if len(variants) > 1 else frame.drop(columns="variant")


def differences_as_markdown(frame: pd.DataFrame) -> str:
    """The differences as text: a row for each pair of k and each term, a column for each seed."""
    if frame.empty:
        return "There is only one latent dimension: nothing to compare.\n"
    numbers = frame[["difference", "se", "low", "high"]].to_numpy()
    ks = frame[["latent_dim", "against"]].to_numpy()
    cells = frame.assign(
        comparison=[f"k = {k} against k = {other}" for k, other in ks],
        term=frame["term"].map(TERMS),
        seed=[f"{seed} seeds" if seed == "all" else f"seed {seed}" for seed in frame["seed"]],
        cell=[Estimate(*row).text("+") for row in numbers],
    )
    rows = [name for name in ("variant", "comparison", "term") if name in cells]
    shown = cells.pivot_table("cell", rows, "seed", aggfunc="first", sort=False).reset_index()
    text = shown.to_markdown(index=False, disable_numparse=True)
    over = "images; for all seeds, over trainings" if "all seeds" in shown else "images"
    note = "Mean differences for the same test images, in nats per image, with 95 % intervals over"
    return f"{text}\n\n{note} {over}.\n"
