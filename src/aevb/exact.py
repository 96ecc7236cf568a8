"""Exact arithmetic: PyTorch code whose every bit is the same on any CPU.

    with exact():
        loss = model(x)
        loss.backward()

Within the context, results in float32 and float64 are the same on any x86-64 or 64-bit ARM
processor, with any number of threads and whichever libraries PyTorch calls. It was tried with
PyTorch 2.8.0 and 2.14.1. An operation that is not known to be exact is refused with
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
  neither on the order of the sum nor on fused operations: BLAS may do as it likes. p is 21 for
  2048 terms, where float32 has 24; longer sums are split. If one operand holds zeros and ones only,
  float32 suffices, with 2²⁴ and 14 bits for 1024 terms, in half the time. In either case a row
  of the result depends on that row of the first operand and not on the others.
- **Functions** are those of `aevb.elementary`. IEEE 754 prescribes the square root as well; NumPy
  keeps to it, but PyTorch does not on x86, where MKL computes it.

Results that are not finite are so in float32 too, except that a matrix product has NaN in all rows
and columns of an infinite operand. The bits of a NaN are not fixed, nor is a conversion to integers
of a number outside their range.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from aevb import elementary

Floats = NDArray[Any]

TERMS = 2048
"""The longest sum of products that is computed at once."""
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


def on_grid(x: Tensor, top: Floats, bits: int) -> Tensor:
    """x in float64, rounded to so many bits of `top`, the largest magnitude of its row or column.

    The sum of a number and of 1.5 · 2⁵² units has no bits below one unit.
    """
    anchor = torch.from_numpy(np.ldexp(1.5, np.frexp(top)[1] + (52 - bits)))
    return (x + anchor).sub_(anchor)


def binary(x: Tensor, top: Floats) -> NDArray[np.bool_]:
    """Which rows hold zeros and ones only, [rows, 1]."""
    rows: NDArray[np.bool_] = top == 1
    if rows.any():
        rows &= (x * x == x).all(1, keepdim=True).numpy()
    rows |= top == 0
    return rows


def partial_product(a: Tensor, top_a: Floats, b: Tensor, top_b: Floats) -> Tensor:
    """The matrix product for at most `TERMS` terms."""
    log_terms = (a.shape[1] - 1).bit_length()
    in_double, in_single = (53 - log_terms) // 2, 24 - log_terms
    if binary(b.t(), top_b.T).all():
        return on_grid(a, top_a, in_single).float() @ b
    rows = binary(a, top_a)
    if rows.all():
        return a @ on_grid(b, top_b, in_single).float()
    result = on_grid(a, top_a, in_double) @ on_grid(b, top_b, in_double)
    if (rows & (top_a > 0)).any():
        short = a @ on_grid(b, top_b, in_single).float()
        result = torch.where(torch.from_numpy(rows), short, result)
    return result


def product(a: Tensor, b: Tensor) -> Tensor:
    """The matrix product of float32, as described above."""
    if a.dtype != torch.float32 or b.dtype != torch.float32:
        raise NotImplementedError("matrix products are exact in float32 only")
    if not a.numel() or not b.numel():
        return torch.zeros(a.shape[0], b.shape[1])
    top_a, top_b = a.abs().amax(1, keepdim=True).numpy(), b.abs().amax(0, keepdim=True).numpy()
    first, *others = (
        partial_product(left, top_a, right, top_b)
        for left, right in zip(a.split(TERMS, 1), b.split(TERMS, 0), strict=True)
    )
    for other in others:
        first = first.double() + other
    result = torch.add(first, 0, out=torch.empty(first.shape))  # no −0
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
            first, second, *odd = x.split(x.shape[d] // 2, d)
            x = first + second
            if odd:
                x.narrow(d, 0, 1).add_(odd[0])
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
    "addmm": lambda bias, a, b: product(a, b) + bias,
    "exp": exp,
    "expm1": with_numpy(elementary.expm1),
    "log": log,
    "log1p": with_numpy(elementary.log1p),
    "logit": logit,
    "logsumexp": logsumexp,
    "mean": mean,
    "mm": product,
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

    Raises:
        RuntimeError: if arithmetic is set to be faster than IEEE 754 allows.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Not: to mark the class for PyTorch's compiler would import that, in two seconds."""
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
        if base in FUNCTIONS and "out" not in kwargs:
            result = FUNCTIONS[base](*args, **kwargs)
            return result if base == name else args[0].copy_(result)
        with self:  # in inference mode, `linear` and others arrive undivided
            result = func.decompose(*args, **kwargs)
        if result is NotImplemented:
            raise NotImplementedError(f"{func} is not known to be exact")
        return result
