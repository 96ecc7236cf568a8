"""Exact arithmetic: correct, and the same to the bit on any machine."""

import json
import math
import os
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import exact_steps
from aevb import elementary
from aevb.bounds import bound_terms, elbo
from aevb.exact import exact
from aevb.likelihoods import LIKELIHOODS
from aevb.optimiser import Optimiser

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor

GOLDEN = {
    "functions": "21e2dfb8f1e973dd",
    "products": "c6748397789377b1",
    "bernoulli": "58faf4247f276274",
    "bernoulli, evaluation": "0b11dec84c977d64",
    "continuous_bernoulli": "a98c71c21b440aeb",
    "continuous_bernoulli, evaluation": "b84f923222abe567",
    "gaussian": "e068d7ed31c6a13d",
    "gaussian, evaluation": "625325b747b7b391",
    "adagrad": "61f41c818aac462d",
}
TESTS = Path(__file__).parents[1]


def test_digests_are_the_published_ones_with_any_number_of_threads() -> None:
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        assert exact_steps.main() == GOLDEN
    torch.set_num_threads(before)


def run_steps(*command: str, **environment: str) -> dict[str, str]:
    run = subprocess.run(
        [*command, str(TESTS / "exact_steps.py")],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_digests_do_not_depend_on_the_kernels() -> None:
    kernels = {"MKL_CBWR": "COMPATIBLE", "ATEN_CPU_CAPABILITY": "default"}
    kernels |= {"OPENBLAS_CORETYPE": "Nehalem", "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4"}
    assert run_steps(sys.executable, **kernels) == GOLDEN


@pytest.mark.slow
@pytest.mark.parametrize("model", ["Nehalem", "Haswell", "EPYC-Rome", "arm64"])
def test_digests_are_the_same_on_an_emulated_processor(
    model: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for tool in ("apt-get", "qemu-aarch64") if model == "arm64" else ("qemu-x86_64",):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is missing; on Debian: apt-get install qemu-user")
    tree = os.environ.get("EMULATION") or str(tmp_path_factory.mktemp("arm64"))
    script = str(TESTS / "emulation.sh")
    settings = {"EMULATION": tree, "OMP_NUM_THREADS": "1"}
    assert run_steps(script, model, sys.executable, **settings) == GOLDEN


def reference_sigmoid(x: mpmath.mpf) -> mpmath.mpf:
    return 1 / (1 + mpmath.exp(-x))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("name", "reference", "limits", "ulp"),
    [
        ("exp", mpmath.exp, (-1, 1), 1.5),
        ("expm1", mpmath.expm1, (-1, 1), 3),
        ("tanh", mpmath.tanh, (-1, 1), 3),
        ("sigmoid", reference_sigmoid, (-0.98, 1), 2.5),
        ("log", mpmath.log, (0, 1), 1.5),
        ("log1p", mpmath.log1p, (-0.01, 1), 3),
    ],
)
def test_a_function_is_as_accurate_as_stated(kind, name, reference, limits, ulp) -> None:
    random, range_ = np.random.default_rng(0), 88 if kind is np.float32 else 708
    low, high = limits
    x = np.concatenate(
        [
            random.uniform(low * range_, high * range_, 300),
            np.linspace(3 * low, 3, 300),
            random.normal(size=300) * 10.0 ** random.uniform(-37, 0, 300),
            [1e-40, np.finfo(kind).tiny, np.finfo(kind).eps, 1.0, 1 + np.finfo(kind).eps],
        ]
    ).astype(kind)
    x = x[x > low] if low > -0.5 else x
    function = getattr(elementary, name)
    with mpmath.workprec(120):
        for argument, result in zip(x.tolist(), function(x), strict=True):
            true = reference(mpmath.mpf(argument))
            spacing = float(np.spacing(abs(kind(float(true)))))
            assert abs(mpmath.mpf(float(result)) - true) <= ulp * spacing, argument


def test_cosine_and_sine_of_turns() -> None:
    turns = np.concatenate([np.random.default_rng(0).random(1000), np.arange(9) / 8])
    with mpmath.workprec(120):
        for turn, cos, sin in zip(turns, *elementary.cos_sin_turns(turns), strict=True):
            angle = 2 * mpmath.pi * mpmath.mpf(turn)
            assert abs(mpmath.mpf(cos) - mpmath.cos(angle)) <= 2 * 2.0**-53
            assert abs(mpmath.mpf(sin) - mpmath.sin(angle)) <= 2 * 2.0**-53


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["exp", "expm1", "tanh", "sigmoid", "log", "log1p", "sqrt"])
def test_a_function_has_the_limits_that_pytorch_has(kind: torch.dtype, name: str) -> None:
    limits = [math.inf, -math.inf, math.nan, 0.0, -1.0, 1e38, -1e38, 89.0, -104.0, 1.0]
    x = torch.tensor(limits, dtype=kind)
    function = getattr(torch, name)
    with exact():
        result = function(x)
    torch.testing.assert_close(result, function(x), equal_nan=True)


def fractions(x: Tensor) -> list[list[Fraction]]:
    return [[Fraction(value) for value in row] for row in x.tolist()]


@pytest.mark.parametrize("terms", [1, 20, 500, 2048, 2049])
@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("kind", ["normal", "wide", "binary", "binary weights"])
def test_a_product_is_close_to_the_true_one(terms: int, fast: bool, kind: str) -> None:
    generator = torch.Generator().manual_seed(terms)
    a, b = (torch.randn(shape, generator=generator) for shape in ((3, terms), (terms, 4)))
    if kind == "wide":
        a = a * 10.0 ** (torch.arange(3)[:, None] * 15 - 15)
    elif kind == "binary":
        a = (a > 0).float()
    elif kind == "binary weights":
        b = (b > 0).float()
    with exact(fast):
        result = a @ b
    # Rounding to p bits changes an element by at most half a unit, 2⁻ᵖ of the largest one.
    bits = (14 if "binary" in kind else 9) if fast else 21
    columns = list(zip(*fractions(b), strict=True))
    for row, results in zip(fractions(a), result.tolist(), strict=True):
        for column, value in zip(columns, results, strict=True):
            true = sum(x * y for x, y in zip(row, column, strict=True))
            top = max(map(abs, row)) * max(map(abs, column))
            assert abs(Fraction(value) - true) <= Fraction(2 * terms, 2**bits) * top


@pytest.mark.parametrize(("fast", "limit"), [(False, 2000), (True, 500)])
def test_a_product_of_small_integers_is_the_one_of_pythons_integers(fast: bool, limit: int) -> None:
    random = np.random.default_rng(0)
    a, b = random.integers(-limit, limit, (5, 50)), random.integers(-limit, limit, (50, 6))
    with exact(fast):
        result = torch.from_numpy(a).float() @ torch.from_numpy(b).float()
    true = [[sum(int(x) * int(y) for x, y in zip(row, c, strict=True)) for c in b.T] for row in a]
    assert result.tolist() == torch.tensor(true).float().tolist()


@pytest.mark.parametrize("fast", [False, True])
def test_a_row_of_a_product_does_not_depend_on_the_other_rows(fast: bool) -> None:
    x = exact_steps.images(np.random.Philox(1), False)
    x[::3] = (x[::3] > 0.5).float()  # these are rounded less if fast
    x[1] *= 1e6
    weight = torch.randn(40, 784, generator=torch.Generator().manual_seed(0))
    with exact(fast):
        together = torch.nn.functional.linear(x, weight)
        apart = torch.cat([torch.nn.functional.linear(row[None], weight) for row in x])
    assert torch.equal(together, apart)


@pytest.mark.parametrize("fast", [False, True])
def test_what_is_not_finite_stays_so(fast: bool) -> None:
    a, b = torch.ones(3, 4), torch.ones(4, 2)
    a[0, 0], a[1, 0] = math.inf, math.nan
    b[:, 1] = 0
    with exact(fast):
        result = a @ b
        overflow = (torch.full((1, 4), 3e38) @ b)[0]
    assert result[:2].isnan().all()
    assert result[2].tolist() == [4, 0]
    # Fast products refuse large numbers and take tiny ones as 0.
    assert overflow.isnan().all() if fast else overflow.tolist() == [math.inf, 0]
    with exact(fast):
        assert (1e-30 * torch.ones(1, 4) @ b)[0, 0].item() == (0 if fast else pytest.approx(4e-30))


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: torch.add(x, x, alpha=0.3),
        lambda x: torch.addcmul(x, x, x),
        lambda x: torch.lerp(x, x, 0.3),
        lambda x: x.prod(),
        lambda x: x.std(),
        lambda x: x.erf(),
        lambda x: x**0.5,
        lambda x: x.bfloat16() + 1,
        lambda x: x.double() @ x.double(),
        torch.randn_like,
    ],
)
def test_an_operation_that_is_not_known_to_be_exact_is_refused(operation) -> None:
    x = torch.rand(3, 3)
    operation(x)
    with exact(), pytest.raises(NotImplementedError, match="exact"):
        operation(x)


def test_a_processor_that_flushes_subnormal_numbers_is_refused() -> None:
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot be set to flush subnormal numbers")
    try:
        with pytest.raises(RuntimeError, match="IEEE 754"), exact():
            pass
    finally:
        torch.set_flush_denormal(False)


def test_sums_are_close_to_the_true_ones() -> None:
    x = torch.randn(7, 5, 13, generator=torch.Generator().manual_seed(0))
    for dims in ((0,), (-1,), (0, 2), ()):
        with exact():
            result = x.sum(dims), x.mean(dims), x.logsumexp(dims or (0,)), x.sum(dims, True)
        true = x.sum(dims), x.mean(dims), x.logsumexp(dims or (0,)), x.sum(dims, True)
        torch.testing.assert_close(result, true)
    with exact():
        assert torch.zeros(0, 3).sum(0).tolist() == [0, 0, 0]
        assert torch.zeros(0).mean().isnan()
        assert torch.full((2,), -math.inf).logsumexp(0).item() == -math.inf


@pytest.mark.parametrize(("fast", "limit"), [(False, 1e-4), (True, 1e-2)])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_gradients_are_close_to_those_in_float64(likelihood: str, fast: bool, limit: float) -> None:
    raw = np.random.Philox(3)
    model = exact_steps.SmallVAE(likelihood, raw)
    x, eps = exact_steps.images(raw, model.likelihood.binary), exact_steps.normal(raw, 2, 50, 5)
    weights = list(model.parameters())
    with exact(fast):
        gradients = torch.autograd.grad(-elbo(bound_terms(model, x, eps)).mean(), weights)
    loss = -elbo(bound_terms(model.double(), x.double(), eps.double())).mean()
    true = torch.autograd.grad(loss, list(model.parameters()))
    for gradient, reference in zip(gradients, true, strict=True):
        error = (gradient - reference).abs().max() / reference.abs().max()
        assert error < limit


@pytest.mark.parametrize("name", ["adam", "adagrad"])
def test_exact_steps_are_close_to_those_of_pytorch(name: str) -> None:
    start = torch.randn(300, 150, generator=torch.Generator().manual_seed(0))
    weights = [torch.nn.Parameter(start.clone()) for _ in range(2)]
    optimisers = [Optimiser(name, [weight], exact=i == 1) for i, weight in enumerate(weights)]
    for _ in range(20):
        for weight, optimiser in zip(weights, optimisers, strict=True):
            weight.grad = weight.detach().cos() * 0.1
            optimiser.step(0.01)
    assert not torch.equal(weights[0], start)
    torch.testing.assert_close(*weights, rtol=0, atol=1e-5)
