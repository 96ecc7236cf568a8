"""Are fresh results the published ones? Verdicts on files and numbers, with derived tolerances.

Results are a dictionary from names, `metrics/k3-seed0.json`, to bytes. Metrics are judged number by
number; every other product has no tolerance of its own and follows the metrics it was made beside.
"""

import json
import math
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import PurePosixPath
from typing import Any

from aevb.intervals import student

Metrics = Mapping[str, Any]
Results = Mapping[str, bytes]

LEAST_SEEDS = 3
"""Fewer say too little about a standard deviation."""


class Verdict(IntEnum):
    """How far a fresh result is from the published one; the worst of several is their maximum."""

    SAME_BYTES = 0
    WITHIN_NUMERICS = 1
    WITHIN_SPREAD = 2
    DIFFERENT = 3

    def __str__(self) -> str:
        spread = "within the spread of seeds"
        return ("same bytes", "within numerics", spread, "different")[self]


@dataclass(frozen=True)
class Finding:
    """The verdict on one file or, with its `metric` and numbers, on one number in it."""

    file: str
    verdict: Verdict
    why: str = ""
    metric: str = ""
    published: Any = None
    fresh: Any = None
    numerics: float | None = None
    spread: float | None = None


def numerics_tolerance(metric: str, published: Metrics) -> float:
    """The largest |difference|, in nats, between two float32 evaluations of one Bernoulli model.

    A float32 sum of n terms whose magnitudes add up to A is off by √n u A in the root mean square,
    u = 2⁻²⁴, where its roundings are independent (Higham & Mary 2019, doi:10.1137/18M1226312).
    Without that premise it is n u A, some tenths of a nat in the end: as much as seeds differ.

    1. A logit comes through four layers of 784, 500, k and 500 terms, A being Σ |weight × input|
       + |bias|: on average 3 to 51 in trained models, here 64. It is off by δ = √1800 u A.
    2. log p(x|z) has the derivative x − λ by a logit, and |x − λ| is at most the pixel's −log p: it
       is off by δ |log p(x|z)|. Sums over pixels, exp and log add a tenth, which A has to spare.
    3. KL has the derivatives mu and (sigma² − 1) / 2 by mu and log sigma², both off by less than δ.
       Their squares add up to at most 2 KL (for sigma ≤ 1): it is off by δ √(2 KL).
    4. ELBO: 2 and 3. IWAE bound: a weighted mean of log weights, in which a draw of log q(z|x) −
       log p(z) stands for KL, with derivatives up to twice as large: 2 and twice 3.
    5. A mean over N images is off by at most their root mean square, √(mean² + N se²) for 2; that
       the errors of images cancel is not counted on. Its se is off by at most that over √N.
    6. Two independent evaluations: √2. Each is then rounded to six digits: one unit of the sixth.

    Where log p(x|z) is a density, above 0 as on gray levels, 2 does not hold: what contains it has
    the rounding for its tolerance, and so has any number that is not named here.
    """
    name = metric.removesuffix("_se")
    mean, se, kl, images = (
        float(published[key]) if is_number(published.get(key)) else math.nan
        for key in ("log_px_given_z", "log_px_given_z_se", "kl", "images")
    )
    delta = math.sqrt(2) * math.sqrt(1800) * 2**-24 * 64
    of_log_px = delta * math.hypot(mean, math.sqrt(images) * se) if mean <= 0 else math.nan
    of_kl = delta * math.sqrt(2 * max(kl, 0))
    bound = {
        "log_px_given_z": of_log_px,
        "reconstruction_error": of_log_px,
        "kl": of_kl,
        "elbo": of_log_px + of_kl,
        "iwae_bound": of_log_px + 2 * of_kl,
    }.get(name, 0.0)
    if name != metric:
        bound /= math.sqrt(images) if images > 0 else math.nan
    value = abs(published[metric])
    sixth_digit = 10.0 ** (math.floor(math.log10(value)) - 5) if value else 0.0
    return sixth_digit + (bound if math.isfinite(bound) else 0.0)


def spread_tolerance(values: Sequence[float]) -> float | None:
    """The largest |difference| that two trainings apart only in their seeds show, in 99 of 100.

    Both are draws from N(m, s²), so their difference is one from N(0, 2 s²); with s estimated by
    the standard deviation of n other seeds, difference / (√2 s) has Student's distribution with
    n − 1 degrees of freedom. Where the published run is one of the n, fewer than one in 100 exceed
    it. None for fewer than three seeds.
    """
    if len(values) < LEAST_SEEDS:
        return None
    return student(len(values) - 1, 0.995) * math.sqrt(2) * statistics.stdev(values)


def is_number(value: object) -> bool:
    """Whether it is a finite number or a count, neither true nor false."""
    if isinstance(value, float):
        return math.isfinite(value)
    return type(value) is int and 0 <= value < 2**53


def verify(published: Results, fresh: Results, spread: Results) -> Iterator[Finding]:
    """Judge every file that stands on one side at least, metrics first: of each number in a file of
    metrics that is not the same bytes, then of the file.

    `spread` holds the metrics of several seeds, `k3-seed0.json` and on.
    """
    verdicts: dict[str, Verdict] = {}
    for file in sorted({*published, *fresh}, key=lambda name: (not is_metrics(name), name)):
        findings = list(_judge_file(file, published, fresh, spread, verdicts))
        verdicts[file] = findings[-1].verdict
        yield from findings


def is_metrics(file: str) -> bool:
    """Whether a file is judged number by number."""
    return file.startswith("metrics/") and file.endswith(".json")


def comparable_seeds(file: str, published: Metrics, spread: Results) -> list[Metrics]:
    """The metrics of all seeds of a file's k that agree in all that has to be equal."""
    if not (k := re.fullmatch(r"metrics/(k\d+)-seed\d+\.json", file)):
        return []
    exact = {key: value for key, value in published.items() if not isinstance(value, float)}
    seeds = [parsed(spread[name]) for name in sorted(spread) if name.startswith(f"{k[1]}-seed")]
    return [seed for seed in seeds if seed and exact.items() <= seed.items()]


def parsed(content: bytes) -> dict[str, Any] | None:
    """A JSON object, or None for anything else."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _judge_file(
    file: str, published: Results, fresh: Results, spread: Results, so_far: Mapping[str, Verdict]
) -> Iterator[Finding]:
    """Findings on one file, the last of them on the whole of it."""
    if file not in fresh or file not in published:
        yield Finding(file, Verdict.DIFFERENT, _only_in(file in fresh))
    elif published[file] == fresh[file]:
        yield Finding(file, Verdict.SAME_BYTES)
    elif is_metrics(file):
        before, after = parsed(published[file]), parsed(fresh[file])
        if before is None or after is None:
            where = "the published one" if before is None else "the one here"
            yield Finding(file, Verdict.DIFFERENT, f"{where} is no JSON object")
            return
        seeds = comparable_seeds(file, before, spread)
        findings = [_judge(file, key, before, after, seeds) for key in sorted({*before, *after})]
        yield from findings
        worst = max((finding.verdict for finding in findings), default=Verdict.SAME_BYTES)
        layout = "" if worst else "the same numbers, written in another way"
        yield Finding(file, max(worst, Verdict.WITHIN_NUMERICS), layout)
    else:
        own = f"metrics/{PurePosixPath(file).stem}.json"
        beside = [so_far[own]] if own in so_far else [so_far[name] for name in so_far
                                                      if is_metrics(name)]  # fmt: skip
        worst = max(beside, default=Verdict.SAME_BYTES)
        if worst == Verdict.SAME_BYTES:
            yield Finding(file, Verdict.DIFFERENT, "other bytes, though its metrics are the same")
        else:
            yield Finding(file, worst, "other bytes, as its metrics")


def _only_in(fresh: bool) -> str:
    return "is not published" if fresh else "is missing here"


def _judge(
    file: str, metric: str, published: Metrics, fresh: Metrics, seeds: list[Metrics]
) -> Finding:
    """The verdict on one number."""
    if metric not in published or metric not in fresh:
        return Finding(file, Verdict.DIFFERENT, _only_in(metric in fresh), metric)
    before, after = published[metric], fresh[metric]
    if before == after:
        return Finding(file, Verdict.SAME_BYTES, "", metric, before, after)
    if not all(isinstance(value, float) and math.isfinite(value) for value in (before, after)):
        return Finding(file, Verdict.DIFFERENT, "has to be equal", metric, before, after)
    numerics = numerics_tolerance(metric, published)
    values = [seed.get(metric) for seed in seeds]
    numbers = [float(value) for value in values if value is not None and is_number(value)]
    spread = spread_tolerance(numbers) if len(numbers) == len(values) else None
    verdict = Verdict.DIFFERENT
    # A decimal number is not the double next to it: one unit of the sixth digit may be 1 + 1e-10.
    distance = abs(after - before) / (1 + 1e-9)
    if distance <= numerics:
        verdict = Verdict.WITHIN_NUMERICS
    elif spread is not None and distance <= spread:
        verdict = Verdict.WITHIN_SPREAD
    return Finding(file, verdict, "", metric, before, after, numerics, spread)
