"""Exact arithmetic: PyTorch code that gives the same bits on any CPU.

    with exact():
        loss = model(x)
        loss.backward()

Within the context, results in float32 and float64 are the same on any x86-64 or 64-bit ARM
processor, with any number of threads and whichever libraries PyTorch calls. It was tried with
PyTorch 2.8.0, 2.13.0 and 2.14.1. An operation that is not known to be exact is refused with
`NotImplementedError`.

Why the bits are fixed, operation by operation:

- **Copies.** Views, copies, selections and comparisons do no arithmetic.
- **Arithmetic.** IEEE 754 prescribes every bit of the sum, difference, product and quotient of two
  numbers, and of conversions. PyTorch's kernels for `add`, `sub`, `mul` and `div` do one such
  operation per element. Where one kernel does two, a compiler may fuse them, so that the first is
  not rounded: `add` with a factor `alpha`, `addcmul` and `lerp` are refused; the derivatives of
  `tanh` and `sigmoid`, `pow` and `reciprocal` are written as single operations.
- **Choices.** `amax`, `clamp` and so on return one of their arguments, but which of −0 and +0 is
  left open. The addition of +0 makes both +0.
- **Sums.** A sum depends on its order, and PyTorch's order depends on the vector width and on the
  number of threads. Here the second half of the terms is added to the first one until one term is
  left, so the order depends on the number of terms alone.
- **Matrix products.** Both operands are rounded to p bits: to multiples of a power of two, the
  unit, one for each row of the first operand and for each column of the second one. All terms of
  an element of the product are multiples of the product of two units, and p is so small that every
  partial sum is at most 2⁵³ of them. In float64 nothing is then rounded, so the result depends
  neither on the order of the sum nor on fused operations, which BLAS may choose. p is 21 for
  2048 terms, where float32 has 24; longer sums are split, and the parts are added in their order.
  A row of the result depends on that row of the first operand and not on the others.
- **Fast matrix products**, `exact(fast=True)`, use float32 in the same way, in half the time. Every
  partial sum is at most 2²⁴ units: p is 9 for 64 terms, where bfloat16 has 8. An operand of zeros
  and ones needs no rounding; the other one is then rounded to 14 bits, for 1024 terms. Numbers
  below 2⁻⁶⁰ become 0, since their products could underflow, and those above 2⁶⁰ become NaN.
- **Functions** are those of `aevb.elementary`. IEEE 754 prescribes the square root as well; NumPy
  follows it, but PyTorch on x86 does not, because MKL computes it there.

Results that are not finite are so in float32 too, except that a matrix product has NaN in all rows
and columns of an infinite operand, and a fast one in those of a number above 2⁶⁰. The bits of a NaN
are not fixed, and neither is a conversion to integers of a number outside their range.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from aevb import elementary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Floats = NDArray[Any]

DTYPES = {torch.float32, torch.float64, torch.int64, torch.int32, torch.uint8, torch.bool}

COPIES = {
    *("_local_scalar_dense", "_to_copy", "_unsafe_view", "abs", "alias", "all", "any"),
    *("as_strided", "bitwise_and", "bitwise_not", "bitwise_or", "cat", "clone", "copy", "detach"),
    *("empty", "empty_like", "empty_strided", "eq", "equal", "expand", "fill", "full", "full_like"),
    *("gather", "ge", "gt", "index", "index_select", "isinf", "isnan", "le", "lift_fresh"),
    *("logical_and", "logical_not", "logical_or", "lt", "masked_fill", "ne", "neg", "new_empty"),
    *("new_empty_strided", "new_full", "new_ones", "new_zeros", "ones", "ones_like", "permute"),
    *("repeat", "scalar_tensor", "select", "select_backward", "slice", "slice_backward", "split"),
    *("split_with_sizes", "squeeze", "stack", "t", "transpose", "unbind", "unsqueeze", "view"),
    *("where", "zero", "zeros", "zeros_like"),
}
ARITHMETIC = {
    f"{name}.{kind}"
    for name in ("add", "sub", "rsub", "mul", "div")
    for kind in ("Tensor", "Scalar")
}
CHOICES = {"amax", "amin", "clamp", "clamp_max", "clamp_min", "maximum", "minimum", "sgn", "sign"}


def with_numpy(function: Callable[[Any], Any]) -> Callable[[Tensor], Tensor]:
    """The function of arrays as one of tensors."""
    return lambda x: torch.from_numpy(function(x.detach().numpy()))


exp, log = with_numpy(elementary.exp), with_numpy(elementary.log)


class Method(NamedTuple):
    """A way to multiply matrices without rounding: every sum fits into the mantissa of dtype."""

    dtype: torch.dtype
    bits: tuple[int, int]
    """To which the operands are rounded; zeros and ones need no rounding, which is written as 0."""
    terms: int
    """The longest sum that is computed at once."""


ACCURATE = Method(torch.float64, (21, 21), 2048)
FAST = Method(torch.float32, (9, 9), 64)
BINARY_ROWS, BINARY_COLUMNS = (Method(torch.float32, bits, 1024) for bits in ((0, 14), (14, 0)))
LOWEST, HIGHEST = -50, 60
"""Exponents between which FAST products can neither underflow nor overflow."""


def on_grid(x: Tensor, exponent: Floats, bits: int, dtype: torch.dtype) -> Tensor:
    """x rounded to multiples of 2 to the (exponent − bits), for the exponent of its row or column.

    Adding and subtracting 1.5 · 2²³ of these multiples rounds in float32, 1.5 · 2⁵² in float64.
    """
    if not bits:
        return x
    mantissa = 52 if dtype == torch.float64 else 23
    anchor = torch.from_numpy(np.ldexp(1.5, exponent + (mantissa - bits))).to(dtype)
    return (x + anchor).sub_(anchor)


def is_binary(x: Tensor, top: Floats) -> NDArray[np.bool_]:
    """Which rows contain zeros and ones only, [rows, 1]."""
    rows: NDArray[np.bool_] = top == 1
    for some in (x[:, :8], x):  # a few columns are enough to see that most rows are not binary
        if rows.any():
            rows &= (some * some == some).all(1, keepdim=True).numpy()
    rows |= top == 0
    return rows


def rounded_product(
    a: Tensor, exponent_a: Floats, b: Tensor, exponent_b: Floats, method: Method
) -> Tensor:
    """The matrix product of the rounded operands; sums of many terms are added in their order."""
    dtype, (bits_a, bits_b), terms = method
    a, b = on_grid(a, exponent_a, bits_a, dtype), on_grid(b, exponent_b, bits_b, dtype)
    (x, y), *rest = zip(a.split(terms, 1), b.split(terms, 0), strict=True)
    result: Tensor = x @ y
    part = torch.empty_like(result)  # used again, since memory that is new each time takes longer
    for x, y in rest:
        result += torch.mm(x, y, out=part)
    return result


def product(a: Tensor, b: Tensor, fast: bool) -> Tensor:
    """The matrix product of float32, as described above."""
    if a.dtype != torch.float32 or b.dtype != torch.float32:
        raise NotImplementedError("matrix products are exact in float32 only")
    if not a.numel() or not b.numel():
        return torch.zeros(a.shape[0], b.shape[1])
    top_a, top_b = a.abs().amax(1, keepdim=True).numpy(), b.abs().amax(0, keepdim=True).numpy()
    operands = a, np.frexp(top_a)[1], b, np.frexp(top_b)[1]
    if not fast:
        result = rounded_product(*operands, ACCURATE)
    else:
        for top, exponent in zip((top_a, top_b), operands[1::2], strict=True):
            np.maximum(exponent, LOWEST, out=exponent)
            top[exponent > HIGHEST] = np.inf
        rows = is_binary(a, top_a)
        if is_binary(b.t(), top_b.T).all():
            result = rounded_product(*operands, BINARY_COLUMNS)
        elif rows.all():
            result = rounded_product(*operands, BINARY_ROWS)
        else:
            result = rounded_product(*operands, FAST)
            if (rows & (top_a > 0)).any():
                short = rounded_product(*operands, BINARY_ROWS)
                result = torch.where(torch.from_numpy(rows), short, result)
    result = result.add_(0).float()  # no −0
    if not (np.isfinite(top_a).all() and np.isfinite(top_b).all()):
        # NaN, even if BLAS skips products with 0.
        result += torch.from_numpy(top_a) * 0 + torch.from_numpy(top_b) * 0
    return result


def total(
    x: Tensor,
    dim: list[int] | None = None,
    keepdim: bool = False,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The sum over some dimensions, or over all, by halving."""
    if not x.is_floating_point():  # integers have no rounding
        return torch.sum(x, dim, keepdim, dtype=dtype)
    x = x.to(dtype or x.dtype)
    dims = tuple(d % x.dim() for d in dim or range(x.dim()))
    for d in dims:
        if x.shape[d] == 0:
            x = x.new_zeros([1 if i == d else size for i, size in enumerate(x.shape)])
        while x.shape[d] > 1:
            half, odd = divmod(x.shape[d], 2)
            first, last = x.narrow(d, 0, half), x.narrow(d, 2 * half, odd)
            x = first + x.narrow(d, half, half)
            if odd:
                x.narrow(d, 0, 1).add_(last)
    return (x if keepdim else x.squeeze(dims)) + 0


def mean(x: Tensor, dim: list[int] | None = None, *args: Any, **kwargs: Any) -> Tensor:
    result = total(x, dim, *args, **kwargs)
    return result / (x.numel() // max(result.numel(), 1))


def logsumexp(x: Tensor, dim: list[int], keepdim: bool = False) -> Tensor:
    top = x.amax(dim, keepdim=True)
    top = torch.where(top.isinf(), 0, top) + 0
    result = log(total(exp(x - top), dim, True)) + top
    return result if keepdim else result.squeeze(dim)


def power(x: Tensor, exponent: float) -> Tensor:
    if exponent not in (1, 2, 3):
        raise NotImplementedError(f"the power {exponent} is not known to be exact")
    result = x.clone()
    for _ in range(int(exponent) - 1):
        result *= x
    return result


def logit(x: Tensor, eps: float | None = None) -> Tensor:
    x = x if eps is None else x.clamp(eps, 1 - eps)
    return log(x / (1 - x))


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "exp": exp,
    "expm1": with_numpy(elementary.expm1),
    "log": log,
    "log1p": with_numpy(elementary.log1p),
    "logit": logit,
    "logsumexp": logsumexp,
    "mean": mean,
    "pow": power,
    "reciprocal": lambda x: torch.ones_like(x) / x,
    "sigmoid": with_numpy(elementary.sigmoid),
    "sigmoid_backward": lambda gradient, y: gradient * ((1 - y) * y),
    "sqrt": with_numpy(elementary.sqrt),
    "sum": total,
    "tanh": with_numpy(elementary.tanh),
    "tanh_backward": lambda gradient, y: gradient * (1 - y * y),
}


class exact(TorchDispatchMode):
    """The context in which PyTorch computes exactly, in the forward and in the backward pass.

    Args:
        fast: multiply matrices in half the time, with operands rounded to 9 instead of 21 bits.

    Raises:
        RuntimeError: if arithmetic is set to be faster than IEEE 754 allows.
    """

    def __init__(self, fast: bool = False) -> None:
        super().__init__()
        self.fast = fast

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No, because the mark for PyTorch's compiler would import it, which takes two seconds."""
        return False

    def __enter__(self) -> "exact":
        tiny, epsilon = torch.tensor([2.0**-126, 2.0**-24])
        rounds = tiny / 2 > 0 and 1 + epsilon == 1 and 1 + 1.5 * epsilon > 1
        if not rounds or torch.get_float32_matmul_precision() != "highest":
            raise RuntimeError("PyTorch or the processor is set not to compute by IEEE 754")
        super().__enter__()
        return self

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name, _, kind = func.__name__.partition(".")
        base = name.removesuffix("_")
        for x in args:
            if isinstance(x, Tensor) and (x.device.type != "cpu" or x.dtype not in DTYPES):
                raise NotImplementedError(f"{x.dtype} on {x.device.type} is not exact")
        if base in COPIES:
            return func(*args, **kwargs)
        if f"{base}.{kind}" in ARITHMETIC and len(args) == 2 and not kwargs:
            return func(*args)
        if base in CHOICES:
            result = func(*args, **kwargs)
            return result.add_(0) if result.is_floating_point() else result
        if base in ("mm", "addmm") and not kwargs:
            *bias, a, b = args
            result = product(a, b, self.fast)
            return result.add_(*bias) if bias else result
        if base in FUNCTIONS and "out" not in kwargs:
            result = FUNCTIONS[base](*args, **kwargs)
            return result if base == name else args[0].copy_(result)
        with self:  # in inference mode, `linear` and others arrive as one operation
            result = func.decompose(*args, **kwargs)
        if result is NotImplemented:
            raise NotImplementedError(f"{func} is not known to be exact")
        return result
