"""Operations against counting by hand, by ones, and by XLA; peaks against data sheets."""

import types

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import PartitionSpec

from music_diffusion.models.spectrogram_diffusion import SpectrogramDiffusionModel
from music_diffusion.networks.transformer import T5Config
from music_diffusion.speed import peak_memory_mb
from music_diffusion.training import cost
from music_diffusion.training.cost import (
    StepCost,
    count_flops,
    device_peak_bytes,
    flops_by_dtype,
    peak_flops,
    seconds_at_peak,
    step_cost,
)
from music_diffusion.training.optimizers import Optimizer
from music_diffusion.training.state import init_state, make_train_step


def shaped(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


X, W = shaped(5, 8), shaped(8, 8)
PRODUCT = 2 * 5 * 8 * 8  # of X and W


def test_matrix_products_by_hand():
    assert count_flops(jnp.matmul, shaped(3, 5), shaped(5, 7)) == 2 * 3 * 5 * 7
    assert count_flops(jnp.dot, shaped(9), shaped(9)) == 2 * 9
    attention = lambda q, k: jnp.einsum("BQHD,BNHD->BHQN", q, k)  # noqa: E731
    assert count_flops(attention, shaped(2, 5, 3, 4), shaped(2, 7, 3, 4)) == 2 * 2 * 3 * 5 * 7 * 4
    assert count_flops(lambda x: jnp.fft.rfft(jnp.sin(x)).real.sum(), X) == 0


def test_gradients_of_a_product_take_two_more():
    loss = lambda x, w: (x @ w).sum()  # noqa: E731
    # The loss is asked for, so the product itself is needed, too.
    assert count_flops(jax.value_and_grad(loss, (0, 1)), X, W) == 3 * PRODUCT
    assert count_flops(jax.grad(loss), X, W) == PRODUCT


@pytest.mark.parametrize("dtype, factor", [("complex64", 4), ("bfloat16", 1), ("int32", 0)])
def test_dtypes_count_apart(dtype, factor):
    def f(x, w, y):
        return x @ w, y @ y

    jaxpr = jax.jit(f).trace(shaped(2, 3, dtype=dtype), shaped(3, 4, dtype=dtype), W).jaxpr
    expected = {dtype: factor * 2 * 2 * 3 * 4, "float32": 2 * 8**3}
    assert flops_by_dtype(jaxpr) == {k: v for k, v in expected.items() if v}


CONVOLUTIONS = {
    "plain": dict(lhs=(2, 3, 10, 12), rhs=(4, 3, 3, 2), window_strides=(1, 1), padding="VALID"),
    "same": dict(lhs=(2, 3, 10), rhs=(4, 3, 5), window_strides=(1,), padding="SAME"),
    "strided": dict(lhs=(1, 2, 11, 9), rhs=(3, 2, 4, 3), window_strides=(3, 2),
                    padding=((2, 1), (0, 4))),
    "cut": dict(lhs=(1, 2, 11), rhs=(3, 2, 4), window_strides=(2,), padding=((-2, 3),)),
    "grouped": dict(lhs=(2, 6, 10), rhs=(9, 2, 3), window_strides=(1,), padding="VALID",
                    feature_group_count=3),
    "batch_grouped": dict(lhs=(6, 2, 10), rhs=(9, 2, 3), window_strides=(1,), padding="VALID",
                          batch_group_count=3),
    "dilated_kernel": dict(lhs=(2, 3, 16), rhs=(4, 3, 3), window_strides=(1,), padding=((4, 4),),
                           rhs_dilation=(4,)),
    "dilated_input": dict(lhs=(2, 3, 7, 4), rhs=(4, 3, 5, 3), window_strides=(2, 1),
                          padding=((4, 3), (1, 1)), lhs_dilation=(3, 2)),
    "last": dict(lhs=(2, 12, 3), rhs=(5, 3, 4), window_strides=(1,), padding="SAME",
                 dimension_numbers=("NWC", "WIO", "NWC"))}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_of_ones_counts_its_own_products(name):
    options = dict(CONVOLUTIONS[name])
    lhs, rhs = jnp.ones(options.pop("lhs")), jnp.ones(options.pop("rhs"))

    def convolve(x, w):
        return jax.lax.conv_general_dilated(x, w, **options)

    products = int(convolve(lhs, rhs).sum())  # each contributes 1 * 1
    assert count_flops(convolve, lhs, rhs) == 2 * products

    def gradients(x, w, cotangent):
        return jax.vjp(convolve, x, w)[1](cotangent)

    # A product x * w is one of dw * x and one of dw * w.
    assert count_flops(gradients, lhs, rhs, convolve(lhs, rhs)) == 2 * 2 * products


def test_what_nothing_depends_on_does_not_count():
    def f(x, w):
        dead = jax.lax.scan(lambda c, _: (c @ w, None), x, length=3)[0]

        @jax.jit
        def two(x):
            return x @ w, jnp.sin(x @ w)

        del dead
        return two(x)[0].sum() + 0 * x.sum()

    assert count_flops(f, X, W) == PRODUCT


@pytest.mark.parametrize("unroll", [1, 2])
def test_a_scan_is_as_many_copies(unroll):
    def scanned(x, w):
        return jax.lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, length=6, unroll=unroll)[0].sum()

    def copied(x, w):
        for _ in range(6):
            x = jnp.tanh(x @ w)
        return x.sum()

    assert count_flops(scanned, X, W) == count_flops(copied, X, W) == 6 * PRODUCT
    both = [count_flops(jax.grad(f, (0, 1)), X, W) for f in (scanned, copied)]
    assert both == [3 * 6 * PRODUCT] * 2


def test_branches_and_loops():
    def branch(x, w):
        return jax.lax.switch(x[0, 0].astype(int), [
            lambda: x, lambda: (x @ w) @ w, lambda: x @ w])

    def loop(x, w):
        return jax.lax.while_loop(lambda c: (c @ w).sum() < 5, lambda c: (c @ w) @ w, x)

    assert count_flops(branch, X, W) == 2 * PRODUCT  # the most expensive
    assert count_flops(loop, X, W) == 3 * PRODUCT  # one turn, one question


def test_own_derivatives_count():
    @jax.custom_vjp
    def f(x, w):
        return x @ w

    f.defvjp(lambda x, w: (f(x, w), (x, w)), lambda kept, g: (g @ kept[1], (kept[0].T @ g) @ kept[1]))
    assert count_flops(f, X, W) == PRODUCT
    once_more = 2 * 8 * 8 * 8
    assert count_flops(jax.value_and_grad(lambda x, w: f(x, w).sum(), (0, 1)), X, W) == (
        3 * PRODUCT + once_more)

    @jax.custom_jvp
    def g(x, w):
        return x @ w

    g.defjvp(lambda p, t: (g(*p), t[0] @ p[1]))
    assert count_flops(g, X, W) == PRODUCT


def test_rematerialisation_counts_the_layer_once_more():
    def loss(layer, x, w, v):
        return layer(layer(x, w, v), w, v).sum()

    def layer(x, w, v):
        return jnp.sin(jnp.sin(x @ w) @ v)

    def flops(layer):
        return count_flops(jax.value_and_grad(lambda *args: loss(layer, *args), (1, 2)), X, W, W)

    # Two layers of two products: forward, by the weights, and by the inputs (but the first's).
    plain = 4 * PRODUCT + 4 * PRODUCT + 3 * PRODUCT
    assert flops(layer) == plain
    assert flops(jax.checkpoint(layer)) == plain + 4 * PRODUCT
    saved = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    assert flops(jax.checkpoint(layer, policy=saved)) == plain


def test_the_share_of_every_device_counts():
    mesh = jax.sharding.AbstractMesh((4, 2), ("data", "model"))
    rows = PartitionSpec("data")
    f = jax.shard_map(jnp.matmul, mesh=mesh, in_specs=(rows, PartitionSpec()), out_specs=rows)
    whole = PartitionSpec()
    copied = jax.shard_map(jnp.matmul, mesh=mesh, in_specs=(whole, whole), out_specs=whole)
    x = shaped(16, 8)
    # The two devices of the second axis do the same.
    assert count_flops(f, x, W) == 2 * count_flops(jnp.matmul, x, W)
    assert count_flops(copied, x, W) == 8 * count_flops(jnp.matmul, x, W)


MODEL = SpectrogramDiffusionModel(config=T5Config(
    embed_dim=192, num_heads=2, head_dim=64, mlp_dim=384, encoder_layers=1, decoder_layers=2,
    max_tokens=128, frames=64, context_frames=64, vocab_size=128))
OPTIMIZER = Optimizer(transform=optax.sgd(0.1), learning_rate=lambda step: 0.1)


def step_arguments(batch):
    """(state, batch) as shapes."""
    shapes = {k: (batch, *v[1:]) for k, v in MODEL.feature_shapes.items()}
    state = jax.eval_shape(lambda: init_state(MODEL, OPTIMIZER, shapes, seed=0, ema=False)[0])
    return state, {k: shaped(*v, dtype=jnp.int32 if k == "inputs" else jnp.float32)
                   for k, v in shapes.items()}


@pytest.mark.slow
def test_a_train_step_of_a_transformer_agrees_with_xla():
    """XLA counts elementwise work, too, which is little here."""
    step = jax.jit(make_train_step(MODEL, OPTIMIZER, seed=0), donate_argnums=0)
    arguments = step_arguments(2)
    traced = step.trace(*arguments)
    counted = sum(flops_by_dtype(traced.jaxpr).values())
    assert counted == count_flops(step, *arguments)
    told = traced.lower().cost_analysis()["flops"]
    assert 0.95 * told < counted < told


@pytest.mark.slow
def test_microbatches_do_the_same_work():
    def flops(parts):
        return count_flops(make_train_step(MODEL, OPTIMIZER, seed=0, microbatches=parts),
                           *step_arguments(4))

    assert flops(1) == flops(4)


def test_keys_may_be_arguments():
    def f(key, x, w):
        return jax.random.normal(key, (5, 8)) @ w + x

    key = jax.eval_shape(lambda: jax.random.key(0))
    assert count_flops(f, key, X, W) == PRODUCT


@pytest.mark.parametrize("kind, float32, bfloat16", [
    ("NVIDIA H100 80GB HBM3", 494.5e12, 989.5e12), ("NVIDIA H200", 494.5e12, 989.5e12),
    ("NVIDIA H100 PCIe", 378e12, 756e12), ("NVIDIA B200", 1125e12, 2250e12),
    ("NVIDIA A100-SXM4-40GB", 156e12, 312e12), ("NVIDIA A100 80GB PCIe", 156e12, 312e12),
    ("NVIDIA L4", 60e12, 121e12), ("NVIDIA L40S", 183e12, 362e12),
    ("Tesla V100-SXM2-16GB", 15.7e12, 15.7e12), ("Tesla T4", 8.1e12, 8.1e12),
    ("TPU v2", 22.5e12, 22.5e12), ("TPU v3", 61.5e12, 61.5e12), ("TPU v4", 275e12, 275e12),
    ("TPU v5 lite", 197e12, 197e12), ("TPU v5p", 459e12, 459e12), ("TPU v5", 459e12, 459e12),
    ("TPU v6 lite", 918e12, 918e12), ("TPU7x", 1153.5e12, 1153.5e12)])
def test_published_peaks(kind, float32, bfloat16):
    device = types.SimpleNamespace(device_kind=kind)
    assert peak_flops(device, "float32") == pytest.approx(float32)
    assert peak_flops(device, "bfloat16") == pytest.approx(bfloat16)
    assert peak_flops(device, "complex64") is None


@pytest.mark.parametrize("kind", ["cpu", "NVIDIA A100-SXM4-40GB MIG 1g.5gb", "TPU v9", ""])
def test_unknown_devices_have_no_peak(kind):
    device = types.SimpleNamespace(device_kind=kind)
    assert peak_flops(device, "float32") is None
    assert seconds_at_peak({"float32": 10**12}, [device]) is None


def test_no_kind_of_device_stands_twice():
    kinds = [kind for kinds, *_ in cost.PEAKS for kind in kinds]
    assert len(kinds) == len(set(kinds))


def test_time_at_peak_adds_up_dtypes_and_is_shared():
    devices = [types.SimpleNamespace(device_kind="NVIDIA A100-SXM4-80GB")] * 2
    flops = {"float32": 156 * 10**12, "bfloat16": 312 * 10**12}
    assert seconds_at_peak(flops, devices) == pytest.approx(1.0)
    assert seconds_at_peak(flops | {"float8_e4m3fn": 1}, devices) is None
    told = StepCost(flops=468 * 10**12, device_bytes=None, seconds_at_peak=1.0).rates(0.5)
    assert told == {"flops_per_second": pytest.approx(234e12), "peak_fraction": 0.5}
    assert StepCost(flops=7, device_bytes=None).rates(2.0) == {"flops_per_second": 14.0}


def test_bytes_of_a_step_count_donated_arguments_once():
    def add(x, y):
        return x + y

    x = shaped(1000)
    kept = step_cost(jax.jit(add).lower(x, x).compile(), 5)
    donated = step_cost(jax.jit(add, donate_argnums=0).lower(x, x).compile(), 5)
    assert (kept.flops, kept.device_bytes, donated.device_bytes) == (5, 12000, 8000)
    assert StepCost(flops=2 * 10**12, device_bytes=3 * 10**9).summary() == (
        "2 TFLOP and 3 GB on each device a step")
    assert StepCost(flops=2 * 10**9, device_bytes=None).summary() == "0.002 TFLOP a step"


def test_peak_bytes_of_accelerators_are_those_of_the_fullest():
    def device(stats):
        return types.SimpleNamespace(platform="gpu", memory_stats=lambda: stats)

    stats = [{"peak_bytes_in_use": 3}, None, {"peak_bytes_in_use": 7}, {"bytes_in_use": 9}]
    assert device_peak_bytes([device(s) for s in stats]) == 7
    assert device_peak_bytes([device(None)]) is None


def test_peak_bytes_of_a_cpu_are_those_of_the_process(monkeypatch):
    cpu = jax.devices("cpu")
    assert device_peak_bytes(cpu) == pytest.approx(1e6 * peak_memory_mb(), rel=0.01)
    monkeypatch.setattr(cost, "peak_memory_mb", lambda: None)  # a system that does not tell
    assert device_peak_bytes(cpu) is None
