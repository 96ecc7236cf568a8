"""The table of all runs: as data (CSV), to read (Markdown) and to print (LaTeX)."""

from typing import Any

import pandas as pd

COLUMNS = {
    "elbo": "ELBO",
    "log_px_given_z": "reconstruction term",
    "kl": "KL term",
    "iwae_bound": "IWAE bound",
}
MARK = "†"
NOTE = "† Not a log-likelihood: this likelihood does not suit this treatment of the pixels."


def table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """A row a run, then, with several seeds, mean and standard deviation over seeds for each k.

    `rows` hold latent_dim, seed, treatment, likelihood, is_log_likelihood, iwae_k and for each of
    COLUMNS the mean over test images and its standard error `…_se`, in nats per image.
    """
    frame = pd.DataFrame(rows)
    if len(set(frame["seed"])) == 1:
        return frame
    numbers = [name for key in COLUMNS for name in (key, f"{key}_se")]
    same = ["latent_dim", "treatment", "likelihood", "is_log_likelihood", "iwae_k"]
    groups = frame.groupby(same, sort=False)[numbers]
    summaries = [
        groups.agg(how).reset_index().assign(seed=how).reindex(columns=frame.columns)
        for how in ("mean", "std")
    ]
    return pd.concat([frame, *summaries], ignore_index=True)


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """The table as text: `mean ± standard error`, and `mean ± standard deviation` over seeds."""
    lines = []
    deviations = frame[frame["seed"] == "std"].set_index("latent_dim")
    for row in frame[frame["seed"] != "std"].to_dict("records"):
        over_seeds = row["seed"] == "mean"
        mark = "" if row["is_log_likelihood"] else f" {MARK}"
        line = {
            "k": row["latent_dim"],
            "seed": "all, ± sd" if over_seeds else row["seed"],
            "pixels": row["treatment"],
            "likelihood": f"{row['likelihood']}{mark}".replace("_", " "),
        }
        for key, title in COLUMNS.items():
            name = f"{title} (K = {row['iwae_k']})" if key == "iwae_bound" else title
            spread = deviations.loc[row["latent_dim"], key] if over_seeds else row[f"{key}_se"]
            line[name] = f"{row[key]:.2f} ± {spread:.2f}{mark}"
        lines.append(line)
    return pd.DataFrame(lines)


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
    if (frame["seed"] == "mean").any():
        text += ", in the rows over all seeds the standard deviation over seeds"
    return text + ("." if frame["is_log_likelihood"].all() else f". {NOTE}")


def _replace(text: str, symbols: dict[str, str]) -> str:
    for symbol, replacement in symbols.items():
        text = text.replace(symbol, replacement)
    return text
