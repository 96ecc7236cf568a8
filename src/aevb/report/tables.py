"""The runs side by side, as data (CSV), to read (Markdown) and to print (LaTeX): all of them in one
table, what another k changes in a second.
"""

from typing import Any

import numpy as np
import pandas as pd

from aevb.intervals import Z95, mean_and_se, student_half_width

COLUMNS = {
    "elbo": "ELBO",
    "log_px_given_z": "reconstruction term",
    "kl": "KL term",
    "iwae_bound": "IWAE bound",
}
SAME = ["variant", "latent_dim", "binarisation", "likelihood", "is_log_likelihood", "iwae_k"]
SUMMARIES = {"all, sd": "all, ± sd", "all, ci95": "all, ± 95 %"}
MARK = "†"
NOTE = "† Not a log-likelihood: this likelihood does not suit this binarisation of the pixels."


def table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """A row a run, then, with several seeds, two rows for each k with the mean over seeds.

    In the first of them, seed `all, sd`, standard deviations over seeds stand in place of the
    standard errors, in the second, `all, ci95`, the half widths of the means' 95 % intervals by
    Student's t.

    `rows` hold latent_dim, seed, binarisation, likelihood, is_log_likelihood, iwae_k, for each of
    COLUMNS the mean over test images and its standard error `…_se`, in nats per image; those of a
    study their variant too.
    """
    frame = pd.DataFrame(rows)
    if len(set(frame["seed"])) == 1:
        return frame
    same = [name for name in SAME if name in frame]
    groups = frame.groupby(same, sort=False)
    parts = [frame]
    for name, how in (("sd", "std"), ("ci95", student_half_width)):
        spreads = groups[[*COLUMNS]].agg(how).add_suffix("_se")
        summary = groups[[*COLUMNS]].mean().join(spreads).reset_index().assign(seed=f"all, {name}")
        parts.append(summary.reindex(columns=frame.columns))
    return pd.concat(parts, ignore_index=True)


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """The table as text: `value ± standard error` for each run, and two rows over all seeds."""
    lines = []
    for row in frame.to_dict("records"):
        mark = "" if row["is_log_likelihood"] else f" {MARK}"
        line = {"variant": row["variant"]} if "variant" in row else {}
        line |= {
            "k": row["latent_dim"],
            "seed": SUMMARIES.get(row["seed"], row["seed"]),
            "pixels": row["binarisation"],
            "likelihood": f"{row['likelihood']}{mark}".replace("_", " "),
        }
        for key, title in COLUMNS.items():
            name = f"{title} (K = {row['iwae_k']})" if key == "iwae_bound" else title
            line[name] = f"{row[key]:.2f} ± {row[f'{key}_se']:.2f}{mark}"
        lines.append(line)
    return pd.DataFrame(lines)


def differences(per_image: dict[tuple[int, int], dict[str, Any]]) -> pd.DataFrame:
    """What each k changes against the first one, pairwise: a row for each k, seed and term.

    Args:
        per_image: for each (latent_dim, seed) the values of COLUMNS for the same images, [N] each.

    Returns:
        difference (this k less the first, nats per image), its standard error over images, and the
        95 % interval: of the mean over images for one seed (normal; N is large), and in the rows
        of seed `all`, of the mean over trainings (Student's t), whose `se` is over seeds.
    """
    first = next(iter(per_image))[0]
    seeds = list(dict.fromkeys(seed for _, seed in per_image))
    rows: list[tuple[Any, ...]] = []
    for k in dict.fromkeys(k for k, _ in per_image if k != first):
        for key in COLUMNS:
            means = []
            for seed in seeds:
                mean, se = mean_and_se(per_image[k, seed][key] - per_image[first, seed][key])
                means.append(mean)
                rows.append((k, first, key, seed, mean, se, mean - Z95 * se, mean + Z95 * se))
            if len(seeds) > 1:
                mean, se = mean_and_se(np.array(means))
                half = student_half_width(means)
                rows.append((k, first, key, "all", mean, se, mean - half, mean + half))
    names = ["latent_dim", "against", "term", "seed", "difference", "se", "low", "high"]
    return pd.DataFrame(rows, columns=names)


def differences_as_markdown(frame: pd.DataFrame) -> str:
    """The differences to read: a row for each pair of k and term, a column for each seed."""
    if frame.empty:
        return "One latent dimension only: nothing to compare.\n"
    cells = frame.assign(
        cell=[
            f"{row.difference:+.2f} [{row.low:+.2f}, {row.high:+.2f}]" for row in frame.itertuples()
        ],
        pair=[f"k = {row.latent_dim} less k = {row.against}" for row in frame.itertuples()],
        term=frame["term"].map(COLUMNS),
        seed=[f"{'all seeds' if seed == 'all' else f'seed {seed}'}" for seed in frame["seed"]],
    )
    rows = ["variant", "pair", "term"] if "variant" in frame else ["pair", "term"]
    table = cells.pivot_table("cell", rows, "seed", aggfunc="first", sort=False)
    text = table.reset_index().to_markdown(index=False, disable_numparse=True)
    return (
        f"{text}\n\nDifferences on the same test images, nats per image, with 95 % intervals: of "
        "the mean over images for one seed, over trainings (Student's t) for all seeds.\n"
    )


def as_csv(frame: pd.DataFrame) -> str:
    """Either table as data, six significant digits."""
    return str(frame.to_csv(index=False, lineterminator="\n", float_format="%.6g"))


def as_markdown(frame: pd.DataFrame) -> str:
    """The readable table in Markdown, with its units and, where it is due, the warning."""
    text = readable(frame).to_markdown(index=False, disable_numparse=True)
    return f"{text}\n\n{caption(frame)}\n"


def as_latex(frame: pd.DataFrame) -> str:
    """The readable table in LaTeX."""
    symbols = {"±": r"$\pm$", MARK: r"$\dagger$", "-": "$-$"}
    text = readable(frame)
    cells = text.map(lambda cell: _replace(str(cell), symbols))
    body = cells.to_latex(index=False, column_format="rrll" + "r" * len(COLUMNS))
    return f"% {caption(frame)}\n{body}"


def caption(frame: pd.DataFrame) -> str:
    """What the numbers are."""
    text = "Test set, nats per image; ± is the standard error over images"
    if frame["seed"].isin(SUMMARIES).any():
        text += (
            ", in the rows over all seeds the standard deviation over seeds (sd) and the 95 % "
            "interval of their mean by Student's t"
        )
    return text + ("." if frame["is_log_likelihood"].all() else f". {NOTE}")


def _replace(text: str, symbols: dict[str, str]) -> str:
    for symbol, replacement in symbols.items():
        text = text.replace(symbol, replacement)
    return text
