"""Costs of a training step: floating-point operations, memory, and the share of a device's peak.

Operations are counted in what JAX traces, not in what XLA makes of it: a loop is
counted as often as it runs, and the count is the same on every device.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, jaxprs_in_params
from jax.interpreters import partial_eval

from music_diffusion.speed import MEGABYTE, peak_memory_mb

Flops = Mapping[str, int]  # by the dtype of the operands, such as {'float32': 1024}

# Device kinds without the words 'NVIDIA' and 'Tesla', then 1e12 operations/s of dense products in
# float32 and in bfloat16; see `peak_flops`.
PEAKS: tuple[tuple[tuple[str, ...], float, float], ...] = (
    (("V100-SXM2-16GB", "V100-SXM2-32GB"), 15.7, 15.7),
    (("V100-PCIE-16GB", "V100-PCIE-32GB"), 14.0, 14.0),
    (("V100S-PCIE-32GB",), 16.4, 16.4),
    (("T4",), 8.1, 8.1),
    (("A100-SXM4-40GB", "A100-SXM4-80GB", "A100-PCIE-40GB", "A100 80GB PCIe"), 156.0, 312.0),
    (("A10",), 62.5, 125.0),
    (("A40",), 74.8, 149.7),
    (("L4",), 60.0, 121.0),
    (("L40S",), 183.0, 362.0),
    (("GeForce RTX 3090",), 35.6, 71.0),
    (("GeForce RTX 4090",), 82.6, 165.2),
    (("H100 80GB HBM3", "H200", "GH200 480GB"), 494.5, 989.5),
    (("H100 PCIe",), 378.0, 756.0),
    (("H100 NVL", "H200 NVL"), 417.5, 835.5),
    (("B200",), 1125.0, 2250.0),
    (("GB200",), 1250.0, 2500.0),
    (("TPU v2",), 22.5, 22.5),
    (("TPU v3",), 61.5, 61.5),
    (("TPU v4 lite",), 138.0, 138.0),
    (("TPU v4",), 275.0, 275.0),
    (("TPU v5 lite", "TPU v5e"), 197.0, 197.0),
    (("TPU v5", "TPU v5p"), 459.0, 459.0),
    (("TPU v6 lite", "TPU v6e"), 918.0, 918.0),
    (("TPU7x",), 1153.5, 1153.5),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepCost:
    """Work and memory of one training step, whatever the time."""

    flops: int  # floating-point operations, of all devices together
    device_bytes: int | None  # that XLA reserves on one device for the step; None: it does not tell
    seconds_at_peak: float | None = None  # see the function of this name

    def summary(self) -> str:
        """Returns words for people: '1.23 TFLOP and 4.5 GB on each device a step'."""
        memory = ""
        if self.device_bytes is not None:
            memory = f" and {self.device_bytes / 1e9:.3g} GB on each device"
        return f"{self.flops / 1e12:.3g} TFLOP{memory} a step"

    def rates(self, steps_per_second: float) -> dict[str, float]:
        """`flops_per_second` of all devices; `peak_fraction` where their peak is known."""
        rates = {"flops_per_second": self.flops * steps_per_second}
        if self.seconds_at_peak is not None:
            rates["peak_fraction"] = self.seconds_at_peak * steps_per_second
        return rates


def count_flops(fn: Callable[..., Any], *args: Any) -> int:
    """Floating-point operations of the matrix products and convolutions of `fn(*args)`.

    Args:
      fn: a function that can be traced, such as a train step, jitted or not.
      args: its arguments, or their shapes (`jax.ShapeDtypeStruct`); nothing is computed.

    See `flops_by_dtype` for what counts.
    """
    return sum(flops_by_dtype(jax.jit(fn).trace(*args).jaxpr).values())


def flops_by_dtype(jaxpr: ClosedJaxpr) -> Flops:
    """Floating-point operations of all matrix products and convolutions, by dtype of the operands.

    A multiplication and its addition are two operations. What nothing depends on
    does not count, nor do a convolution's products with padding and with the zeros
    between dilated entries: its two gradients take as much as itself. A scan counts
    as often as it runs, what rematerialisation computes again counts again, the
    share of one device under `shard_map` counts for all of them, and of the
    branches of a `cond` the most expensive counts. A `while` loop, whose turns are
    not known, and the body of a custom kernel count once. Nothing else counts:
    elementwise work, reductions, sorting, Fourier transforms.

    Args:
      jaxpr: as in `jax.jit(fn).trace(*args).jaxpr`.
    """
    live, _ = partial_eval.dce_jaxpr(jaxpr.jaxpr, [True] * len(jaxpr.jaxpr.outvars))
    return dict(_flops(live))


def _flops(jaxpr: Jaxpr) -> collections.Counter[str]:
    total: collections.Counter[str] = collections.Counter()
    for eqn in jaxpr.eqns:
        inner = [_flops(j) for j in jaxprs_in_params(eqn.params)]
        if eqn.primitive.name == "cond":
            inner = [max(inner, key=lambda counts: counts.total())]
        times = _times(eqn)
        for counts in inner:
            for dtype, flops in counts.items():
                total[dtype] += times * flops
        if eqn.primitive.name in _PRODUCTS:
            dtype = jnp.promote_types(*(_aval(v).dtype for v in eqn.invars))
            if jnp.issubdtype(dtype, jnp.inexact):
                # A complex product is four real ones.
                real = 4 if jnp.issubdtype(dtype, jnp.complexfloating) else 1
                total[dtype.name] += 2 * real * _PRODUCTS[eqn.primitive.name](eqn)
    return total


def _aval(v: Any) -> Any:
    """Shape and dtype of a variable; JAX's stubs do not know that arrays have them."""
    return v.aval


def _times(eqn: JaxprEqn) -> int:
    """Returns how often what is inside an equation runs."""
    if eqn.primitive.name == "scan":
        return eqn.params["length"]
    if eqn.primitive.name == "shard_map":
        return math.prod(eqn.params["mesh"].shape[a] for a in eqn.params["newly_manual_axes"])
    return 1


def _matrix_product(eqn: JaxprEqn) -> int:
    """Multiplications: entries of the result times entries that each is summed over."""
    (contracted, _), _ = eqn.params["dimension_numbers"]
    lhs = _aval(eqn.invars[0]).shape
    return math.prod(_aval(eqn.outvars[0]).shape) * math.prod(lhs[axis] for axis in contracted)


def _convolution(eqn: JaxprEqn) -> int:
    """Multiplications of two entries, neither of which is padding or a zero of dilation."""
    p = eqn.params
    lhs, rhs = (_aval(v).shape for v in eqn.invars)
    out = _aval(eqn.outvars[0]).shape
    lhs_spec, rhs_spec, out_spec = p["dimension_numbers"]
    pairs = [
        _pairs(out[out_spec[2 + i]], rhs[rhs_spec[2 + i]], lhs[lhs_spec[2 + i]],
               p["window_strides"][i], p["padding"][i][0], p["lhs_dilation"][i],
               p["rhs_dilation"][i])
        for i in range(len(out) - 2)]
    batch, features, in_channels = out[out_spec[0]], out[out_spec[1]], rhs[rhs_spec[1]]
    return batch * features * in_channels * math.prod(pairs)


def _pairs(out: int, taps: int, size: int, stride: int, padding: int, lhs_dilation: int,
           rhs_dilation: int) -> int:
    """Along one axis: pairs of an output entry and a kernel's tap that meet an input entry."""
    outer, inner = np.arange(out) * stride - padding, np.arange(taps) * rhs_dilation
    few, many = sorted((outer, inner), key=len)  # NumPy runs over the longer one
    reach = (size - 1) * lhs_dilation
    count = 0
    for at in few:
        met = at + many
        count += int(((met >= 0) & (met <= reach) & (met % lhs_dilation == 0)).sum())
    return count


_PRODUCTS: dict[str, Callable[[JaxprEqn], int]] = {
    "dot_general": _matrix_product, "conv_general_dilated": _convolution}


def step_cost(compiled: jax.stages.Compiled, flops: int, *, seconds_at_peak: float | None = None
              ) -> StepCost:
    """Returns what a compiled step costs.

    Args:
      compiled: `jax.jit(step).lower(...).compile()`.
      flops: by `count_flops`.
      seconds_at_peak: by the function of this name.
    """
    memory = compiled.memory_analysis()
    device_bytes = None
    if memory is not None:
        # A donated argument and the result in its place are one.
        device_bytes = (
            memory.argument_size_in_bytes + memory.output_size_in_bytes
            + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
            - memory.alias_size_in_bytes)
    return StepCost(flops=flops, device_bytes=device_bytes, seconds_at_peak=seconds_at_peak)


def seconds_at_peak(flops: Flops, devices: Sequence[jax.Device]) -> float | None:
    """The least time in which devices, all alike, could do it; None where that is not known.

    Args:
      flops: by `flops_by_dtype`; each dtype has a peak of its own.
      devices: that share the work.
    """
    seconds = 0.0
    for dtype, count in flops.items():
        peak = peak_flops(devices[0], dtype)
        if peak is None:
            return None
        seconds += count / peak / len(devices)
    return seconds


def peak_flops(device: jax.Device, dtype: str) -> float | None:
    """Floating-point operations a second of one device at dense matrix products, as published.

    As XLA computes a product of this dtype unless asked otherwise
    (`jax.default_matmul_precision`): 'float32' as TensorFloat-32 on NVIDIA GPUs from
    Ampere on and in one pass of bfloat16 on TPUs; 'bfloat16' in float32 on NVIDIA
    GPUs before Ampere, which have no such units. None for other dtypes and for
    devices that are not in `PEAKS`, among them CPUs and parts of a GPU (MIG).

    Sources: NVIDIA's data sheets of V100, T4, A100, A10, A40, L4, L40S, H100, H200,
    GH200, HGX B200 and GB200 NVL72, and its whitepapers of the Ampere GA102 and Ada
    architectures (appendix A of each); figures with sparsity are halved. Google
    Cloud's TPU pages, 'System architecture'. One JAX device is a whole chip, but on
    TPU v2, v3 and 7x one of its two cores.
    """
    kind = device.device_kind.removeprefix("NVIDIA ").removeprefix("Tesla ")
    for kinds, float32, bfloat16 in PEAKS:
        if kind in kinds:
            peak = {"float32": float32, "bfloat16": bfloat16}.get(dtype)
            return None if peak is None else 1e12 * peak
    return None


def device_peak_bytes(devices: Sequence[jax.Device]) -> int | None:
    """The most memory in use at once so far on any of these devices of this process.

    On a CPU, the most that the process ever held. None where nothing is known.
    """
    if devices[0].platform == "cpu":
        peak = peak_memory_mb()
        return None if peak is None else round(peak * MEGABYTE)
    stats = [device.memory_stats() or {} for device in devices]
    return max((s["peak_bytes_in_use"] for s in stats if "peak_bytes_in_use" in s), default=None)
