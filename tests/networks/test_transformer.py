import ast
import dataclasses
import functools
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from reference.transformer_oracle import Oracle

from music_diffusion.errors import UserError
from music_diffusion.networks.performance import PerformanceConfig
from music_diffusion.networks.transformer import (
    ContinuousEncoder,
    SpectrogramTransformer,
    T5Config,
    TokenEncoder,
)

SIZES = Path(__file__).parents[2] / "gin" / "sizes"
TINY = T5Config(
    embed_dim=8, num_heads=2, head_dim=6, mlp_dim=10, encoder_layers=1, decoder_layers=2,
    vocab_size=11, max_tokens=7, frames=5, context_frames=4, mel_bins=3)
PUBLISHED = {  # name: (size, context, parameters, tensors)
    "small with context": ("small", True, 104_035_840, 284),
    "base with context": ("base", True, 411_665_664, 420),
}


@pytest.fixture(autouse=True)
def _strict():
    with jax.numpy_rank_promotion("raise"):
        yield


def read_size(name: str, **more) -> T5Config:
    """The bindings of gin/sizes/t5_NAME.gin, read without gin."""
    text = (SIZES / f"t5_{name}.gin").read_text()
    found = re.findall(r"^T5Config\.(\w+) = (.+)$", text, flags=re.M)
    return T5Config(**{key: ast.literal_eval(value) for key, value in found}, **more)


def inputs_of(config: T5Config, batch: int = 3) -> tuple:
    """Random inputs: some padding, and contexts of every kind (partial, none, whole)."""
    c, rng = config, np.random.default_rng(0)
    z = rng.standard_normal((batch, c.frames, c.mel_bins))
    tokens = rng.integers(1, c.vocab_size, (batch, c.max_tokens))
    tokens[0, 4:] = 0
    args = (jnp.asarray(z, jnp.float32), jnp.asarray([0.013, 0.5, 0.97][:batch], jnp.float32),
            jnp.asarray(tokens, jnp.int32))
    if not c.context:
        return args
    context = rng.uniform(-1, 1, (batch, c.context_frames, c.mel_bins))
    valid = np.array([3, 0, c.context_frames])[:batch, None]
    mask = np.arange(c.context_frames)[None] < valid
    return (*args, jnp.asarray(context, jnp.float32), jnp.asarray(mask, jnp.float32))


def random_params(config: T5Config, seed: int = 0) -> dict:
    """Random parameters of sensible size, with no scale at 1 and no symmetry."""
    rng = np.random.default_rng(seed)

    def draw(path, shape):
        x = rng.standard_normal(shape.shape)
        x = 1 + 0.2 * x if path[-1].key == "scale" else x
        x = x * shape.shape[0] ** -0.5 if path[-1].key == "kernel" else x
        return jnp.asarray(x, jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes_of(config)["params"])


@pytest.fixture(scope="module")
def params():
    return random_params(TINY)


@functools.partial(jax.jit, static_argnames=("config", "method", "deterministic"))
def apply(params, *args, config=TINY, method=None, deterministic=True, rngs=None):
    return SpectrogramTransformer(config).apply(
        {"params": params}, *args, method=method, deterministic=deterministic, rngs=rngs)


def shapes_of(config: T5Config) -> dict:
    performance = None if config.performances is None else jnp.zeros((1, config.performances.count))
    return jax.eval_shape(SpectrogramTransformer(config).init, jax.random.key(0),
                          *inputs_of(config, 1), performance=performance)


def expected_shapes(c: T5Config) -> dict[str, tuple[int, ...]]:
    """Paths and shapes of the published checkpoints, written out by hand."""
    e, j, m = c.embed_dim, c.num_heads * c.head_dim, c.mlp_dim

    def attention(path):
        return {f"{path}/{n}/kernel": (e, j) for n in ("query", "key", "value")} | {
            f"{path}/out/kernel": (j, e)}

    def mlp(path):
        return {f"{path}/wi_0/kernel": (e, m), f"{path}/wi_1/kernel": (e, m),
                f"{path}/wo/kernel": (m, e)}

    shapes = {
        "token_encoder/token_embedder/embedding": (c.vocab_size, e),
        "token_encoder/Embed_0/embedding": (c.max_tokens, e),
        "decoder/time_emb_dense0/kernel": (e, 4 * e),
        "decoder/time_emb_dense1/kernel": (4 * e, 4 * e),
        "decoder/continuous_inputs_projection/kernel": (c.mel_bins, e),
        "decoder/Embed_0/embedding": (c.frames, e),
        "decoder/decoder_norm/scale": (e,),
        "decoder/spec_out_dense/kernel": (e, c.mel_bins),
    }
    stacks = ["token_encoder"]
    if c.context:
        stacks.append("continuous_encoder")
        shapes["continuous_encoder/input_proj/kernel"] = (c.mel_bins, e)
        shapes["continuous_encoder/Embed_0/embedding"] = (c.context_frames, e)
    for stack in stacks:
        shapes[f"{stack}/encoder_norm/scale"] = (e,)
        for i in range(c.encoder_layers):
            layer = f"{stack}/layers_{i}"
            shapes |= {f"{layer}/pre_{n}_layer_norm/scale": (e,) for n in ("attention", "mlp")}
            shapes |= attention(f"{layer}/attention") | mlp(f"{layer}/mlp")
    for i in range(c.decoder_layers):
        layer = f"decoder/layers_{i}"
        shapes |= {f"{layer}/pre_{n}_layer_norm/scale": (e,)
                   for n in ("self_attention", "cross_attention", "mlp")}
        shapes |= {f"{layer}/FiLMLayer_{k}/DenseGeneral_0/kernel": (4 * e, 2 * e) for k in (0, 1)}
        shapes |= attention(f"{layer}/self_attention") | mlp(f"{layer}/mlp")
        shapes |= attention(f"{layer}/MultiHeadDotProductAttention_0")
    return shapes


@pytest.mark.slow
@pytest.mark.parametrize("size", ["small", "base", "tiny"])
@pytest.mark.parametrize("context", [True, False])
def test_parameter_paths_and_shapes_are_the_published_ones(size, context):
    config = read_size(size, context=context)
    flat = traverse_util.flatten_dict(shapes_of(config)["params"], sep="/")
    assert {path: x.shape for path, x in flat.items()} == expected_shapes(config)
    assert {x.dtype for x in flat.values()} == {jnp.dtype("float32")}


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_count_and_number_of_tensors_of_the_published_models(name):
    size, context, count, tensors = PUBLISHED[name]
    leaves = jax.tree.leaves(shapes_of(read_size(size, context=context))["params"])
    assert sum(math.prod(x.shape) for x in leaves) == count
    assert len(leaves) == tensors


@pytest.mark.slow
@pytest.mark.parametrize("size", ["small", "base"])
def test_parameter_count_without_context(size):
    # One encoder less: L layers of two norms, four E×J and three E×M kernels, the final
    # norm, the projection of 128 mel bins and 256 positions.
    c = read_size(size, context=False)
    e, j, m = c.embed_dim, c.num_heads * c.head_dim, c.mlp_dim
    encoder = c.encoder_layers * (2 * e + 4 * e * j + 3 * e * m) + e + 128 * e + 256 * e
    count = sum(math.prod(x.shape) for x in jax.tree.leaves(shapes_of(c)["params"]))
    assert count == PUBLISHED[f"{size} with context"][2] - encoder
    assert f"{count:,}" in (SIZES / f"t5_{size}.gin").read_text()


def test_every_parameter_has_one_logical_name_per_axis():
    known = {"embed", "mlp", "joined_kv", "vocab", "length", "mel"}
    variables = shapes_of(PERFORMED)
    params = traverse_util.flatten_dict(variables["params"])
    axes = traverse_util.flatten_dict(variables["params_axes"])
    assert {(*path[:-1], path[-1] + "_axes") for path in params} == set(axes)
    for path, x in params.items():
        names = axes[(*path[:-1], path[-1] + "_axes")].names
        assert len(names) == len(x.shape) and len(set(names)) == len(names), path
        assert set(names) <= known, path


@pytest.mark.parametrize("context", [True, False])
def test_forward_equals_the_float64_oracle(context):
    config = dataclasses.replace(TINY, context=context, encoder_layers=2)
    params = random_params(config)
    args = inputs_of(config)
    oracle = Oracle(traverse_util.flatten_dict(params, sep="/"),
                    num_heads=config.num_heads, max_time=config.max_time)
    expected = oracle(*map(np.asarray, args))
    got = np.asarray(apply(params, *args, config=config))
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(got, expected, atol=1e-3)
    # Measured 2e-4: angles reach 20000 rad, where float32 has steps of 1e-3 rad.


def test_forward_equals_the_oracle_tightly_where_time_is_exact(params):
    args = inputs_of(TINY)
    args = (args[0], jnp.asarray([0.0, 2.0**-12, 2.0**-10]), *args[2:])
    oracle = Oracle(traverse_util.flatten_dict(params, sep="/"),
                    num_heads=TINY.num_heads, max_time=TINY.max_time)
    expected = oracle(*map(np.asarray, args))
    np.testing.assert_allclose(apply(params, *args), expected, atol=1e-5)  # measured 1e-6


def test_fully_masked_conditions_equal_no_condition_exactly(params):
    z, time, tokens, context, mask = inputs_of(TINY)
    empty = (jnp.zeros_like(tokens), context, jnp.zeros_like(mask))
    encoded = apply(params, *empty, method="encode")
    assert not np.asarray(encoded.mask).any()
    np.testing.assert_array_equal(
        apply(params, z, time, encoded, method="decode"),
        apply(params, z, time, None, method="decode"))
    different = apply(params, z, time, tokens, context, mask)
    assert np.abs(different - apply(params, z, time, None, method="decode")).max() > 1e-2


def test_encode_once_and_decode_equals_the_whole_at_every_time(params):
    z, time, *conditions = inputs_of(TINY)
    encoded = apply(params, *conditions, method="encode")
    for scale in (0.0, 0.5, 1.0):
        np.testing.assert_allclose(apply(params, z, time * scale, encoded, method="decode"),
                                   apply(params, z, time * scale, *conditions), atol=1e-5)


def test_decode_computes_neither_encoder_nor_keys(params):
    z, time, *conditions = inputs_of(TINY)
    encoded = apply(params, *conditions, method="encode")
    grads = jax.jit(jax.grad(
        lambda p: (apply(p, z, time, encoded, method="decode") ** 2).sum()))(params)
    flat = traverse_util.flatten_dict(grads, sep="/")
    cached = [k for k in flat if "_encoder/" in k
              or re.search(r"MultiHeadDotProductAttention_0/(key|value)", k)]
    assert len(cached) == 2 * (2 + 9 + 1) + 2 * 2  # two encoders; key and value of two layers
    assert all((np.asarray(flat[k]) == 0).all() for k in cached)


def test_padding_at_the_end_may_be_cut_off(params):
    z, time, tokens, *context = (x[:1] for x in inputs_of(TINY))
    np.testing.assert_allclose(apply(params, z, time, tokens[:, :4], *context),
                               apply(params, z, time, tokens, *context), atol=1e-5)


def test_padding_has_no_influence_and_every_note_has(params):
    args = inputs_of(TINY)

    def loss(table):
        encoder = {**params["token_encoder"], "token_embedder": {"embedding": table}}
        return (apply({**params, "token_encoder": encoder}, *args)[0] ** 2).sum()

    table = params["token_encoder"]["token_embedder"]["embedding"]
    gradient = np.abs(np.asarray(jax.grad(loss)(table))).sum(axis=1)
    used = set(np.asarray(args[2][0]).tolist()) - {0}
    assert gradient[0] == 0  # id 0
    assert all(gradient[i] > 0 for i in used)
    assert all(gradient[i] == 0 for i in set(range(TINY.vocab_size)) - used)


def test_masked_context_frames_have_no_influence(params):
    z, time, tokens, context, mask = inputs_of(TINY)
    gradient = np.asarray(jax.grad(
        lambda context: (apply(params, z, time, tokens, context, mask) ** 2).sum())(context))
    assert ((np.abs(gradient).sum(-1) > 0) == (np.asarray(mask) > 0)).all()


@pytest.mark.slow
def test_examples_of_a_batch_are_independent(params):
    args = inputs_of(TINY)
    gradient = jax.grad(lambda z: (apply(params, z, *args[1:])[1] ** 2).sum())(args[0])
    assert ((np.abs(gradient).sum((1, 2)) > 0) == [False, True, False]).all()


def test_the_decoder_sees_all_frames_from_every_frame(params):
    args = inputs_of(TINY)
    jacobian = jax.jacobian(lambda z: apply(params, z, *args[1:])[1].sum(-1))(args[0])
    assert (np.abs(np.asarray(jacobian[:, 1])).sum(-1) > 1e-6).all()  # [frame out, frame in]


def test_the_encoder_is_not_causal(params):
    x = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (1, 4, 3)), jnp.float32)

    def encode(x):
        variables = {"params": params["continuous_encoder"]}
        return ContinuousEncoder(TINY).apply(variables, x, jnp.ones((1, 4)))[0].sum(-1)

    jacobian = np.abs(np.asarray(jax.jit(jax.jacobian(encode))(x)[:, 0])).sum(-1)
    assert (jacobian > 1e-6).all()


def test_bfloat16_is_close_to_float32_and_puts_out_float32(params):
    args = inputs_of(TINY)
    exact = apply(params, *args)
    half = apply(params, *args, config=dataclasses.replace(TINY, dtype="bfloat16"))
    assert half.dtype == jnp.float32
    error = float(jnp.sqrt(jnp.mean((half - exact) ** 2) / jnp.mean(exact**2)))
    assert 1e-5 < error < 0.05  # measured 0.014


@pytest.mark.slow
def test_dropout_is_random_in_training_and_absent_otherwise(params):
    args = inputs_of(TINY)
    a, b = (apply(params, *args, deterministic=False, rngs={"dropout": jax.random.key(k)})
            for k in (0, 1))
    assert np.abs(a - b).max() > 1e-2
    none = dataclasses.replace(TINY, dropout_rate=0.0)
    np.testing.assert_allclose(
        apply(params, *args, config=none, deterministic=False), apply(params, *args), atol=1e-5)


PERFORMED = dataclasses.replace(TINY, performances=PerformanceConfig(count=3, features=5))
WEIGHTS = jnp.asarray([[1.0, 0, 0], [0, 0.25, 0.75], [0, 0, 0]])  # one, a mixture, none


@pytest.fixture(scope="module")
def performed():
    """Random where a fresh network has zeros, so that all FiLM layers say something."""
    return random_params(PERFORMED)


def test_performances_add_their_table_and_film_and_change_no_other_path():
    """Shapes of the FiLM layers: time and performance in the decoder, performance in the encoders."""
    plain = expected_shapes(TINY)
    flat = traverse_util.flatten_dict(shapes_of(PERFORMED)["params"], sep="/")
    found = {path: x.shape for path, x in flat.items()}
    e = TINY.embed_dim
    film = {f"decoder/layers_{i}/FiLMLayer_{k}/DenseGeneral_0/kernel": (4 * e + 5, 2 * e)
            for i in range(TINY.decoder_layers) for k in (0, 1)}
    film |= {f"{stack}/layers_{i}/FiLMLayer_{k}/DenseGeneral_0/kernel": (5, 2 * e)
             for stack in ("token_encoder", "continuous_encoder")
             for i in range(TINY.encoder_layers) for k in (0, 1)}
    assert found == plain | film | {"performances/embedding": (3, 5)}
    alone = dataclasses.replace(PERFORMED, encoder_film=False)
    flat = traverse_util.flatten_dict(shapes_of(alone)["params"], sep="/")
    assert {k: x.shape for k, x in flat.items()} == plain | {
        k: s for k, s in film.items() if k.startswith("decoder")} | {"performances/embedding": (3, 5)}


@pytest.mark.slow
def test_film_of_the_performance_is_its_formula(performed):
    """In the note encoder: after the norm of self-attention, and after that of the MLP."""
    tokens = inputs_of(PERFORMED)[2]
    row = WEIGHTS @ performed["performances"]["embedding"]
    part = performed["token_encoder"]

    def run(change=lambda layer: layer, row=None, config=TINY):
        layer = change(dict(part["layers_0"]))
        return TokenEncoder(config).apply({"params": {**part, "layers_0": layer}}, tokens, row)

    def without_film(layer):
        return {k: v for k, v in layer.items() if not k.startswith("FiLM")}

    # Of one performance and without its shift, FiLM after a norm is another scale of the norm.
    scales = [(row[:1] @ layer["DenseGeneral_0"]["kernel"])[0, :TINY.embed_dim]
              for layer in (part["layers_0"]["FiLMLayer_0"], part["layers_0"]["FiLMLayer_1"])]

    def without_shift(layer):
        films = {k: {"DenseGeneral_0": {"kernel": v["DenseGeneral_0"]["kernel"].at[
            :, TINY.embed_dim:].set(0)}} for k, v in layer.items() if k.startswith("FiLM")}
        return layer | films

    def folded(layer):
        norms = {name: {"scale": layer[name]["scale"] * (1 + scale)} for name, scale in zip(
            ("pre_attention_layer_norm", "pre_mlp_layer_norm"), scales, strict=True)}
        return without_film(layer) | norms

    got = run(without_shift, jnp.repeat(row[:1], 3, axis=0), PERFORMED)
    np.testing.assert_allclose(got, run(folded), atol=1e-5)
    assert np.abs(got - run(without_film)).max() > 1e-2


def test_a_dropped_performance_is_as_a_network_without(performed):
    """Weights of 0 are an embedding of 0: FiLM without bias then adds nothing."""
    args = inputs_of(PERFORMED)
    flat = traverse_util.flatten_dict(performed, sep="/")
    plain = traverse_util.unflatten_dict({
        path: flat[path][:shape[0]] for path, shape in expected_shapes(TINY).items()}, sep="/")
    dropped = apply_performed(performed, *args, performance=0 * WEIGHTS)
    np.testing.assert_allclose(dropped, apply(plain, *args), atol=1e-5)
    assert np.abs(apply_performed(performed, *args, performance=WEIGHTS) - dropped)[:2].max() > 1e-2


@functools.partial(jax.jit, static_argnames=("config", "method"))
def apply_performed(params, *args, config=PERFORMED, method=None, **given):
    return SpectrogramTransformer(config).apply({"params": params}, *args, method=method, **given)


def test_performances_reach_encodings_of_notes_and_context_and_the_decoder(performed):
    z, time, *conditions = inputs_of(PERFORMED)
    rows, others = (apply_performed(performed, w, method="performance_rows")
                    for w in (WEIGHTS, jnp.eye(3)))
    encoded = apply_performed(performed, *conditions, performance=rows, method="encode")
    other = apply_performed(performed, *conditions, performance=others, method="encode")
    changed = np.abs(np.stack([a[0] - b[0] for a, b in zip(
        encoded.keys_values, other.keys_values, strict=True)])).max((0, 3, 4))  # B N
    assert not changed[0].any()  # the same performance in both
    assert (changed[1:][np.asarray(encoded.mask)[1:]] > 1e-3).all()  # notes, then context
    for one in (encoded, None):
        a, b = (apply_performed(performed, z, time, one, performance=r, method="decode")
                for r in (rows, others))
        np.testing.assert_array_equal(a[0], b[0])
        assert (np.abs(a - b)[1:].max((1, 2)) > 1e-2).all()


def test_without_film_in_the_encoders_the_notes_are_encoded_once_for_all(performed):
    alone = dataclasses.replace(PERFORMED, encoder_film=False)
    z, time, *conditions = inputs_of(PERFORMED)
    rows = apply_performed(performed, WEIGHTS, config=alone, method="performance_rows")
    a, b = (apply_performed(performed, *conditions, performance=r, config=alone, method="encode")
            for r in (rows, 0 * rows))
    jax.tree.map(np.testing.assert_array_equal, a, b)
    a, b = (apply_performed(performed, z, time, a, performance=r, config=alone, method="decode")
            for r in (rows, 0 * rows))
    assert np.abs(a - b)[:2].max() > 1e-2


@pytest.mark.slow
def test_the_gradient_of_the_table_is_of_the_rows_that_occur(performed):
    z, time, *conditions = inputs_of(PERFORMED)

    def loss(table, weights, method):
        params = {**performed, "performances": {"embedding": table}}
        rows = apply_performed(params, weights, method="performance_rows")
        encoded = apply_performed(params, *conditions, performance=rows, method="encode")
        if method == "encode":
            return sum((x**2).sum() for x in jax.tree.leaves(encoded.keys_values))
        return (apply_performed(params, z, time, None, performance=rows, method="decode") ** 2).sum()

    table = performed["performances"]["embedding"]
    occurring = jnp.eye(3)[jnp.asarray([2, 0, 2])]
    for method in ("encode", "decode"):
        gradient = np.abs(np.asarray(jax.grad(loss)(table, occurring, method))).max(1)
        assert gradient[1] == 0 and (gradient[[0, 2]] > 0).all()


def test_a_performance_must_be_given_exactly_when_the_config_has_them(params, performed):
    z, time, *conditions = inputs_of(TINY)
    row = jnp.ones((3, 5))
    for given, config, wanted, message in (
            ({}, PERFORMED, performed, "needs a performance"),
            ({"performance": row}, TINY, params, "takes no performance")):
        for method, args in (("encode", conditions), ("decode", (z, time, None))):
            with pytest.raises(UserError, match=message):
                apply_performed(wanted, *args, config=config, method=method, **given)


@pytest.mark.slow
def test_rematerialised_layers_have_the_gradient_of_the_table():
    config = dataclasses.replace(PERFORMED, decoder_layers=1, context=False)
    params, args = random_params(config), inputs_of(config)

    def gradient(remat):
        return jax.grad(lambda p: (apply_performed(
            p, *args, performance=WEIGHTS, config=dataclasses.replace(config, remat=remat)) ** 2
        ).sum())(params)

    a, b = (gradient(remat)["performances"]["embedding"] for remat in ("none", "full"))
    assert (np.abs(a).max(1) > 0).all()
    np.testing.assert_allclose(a, b, rtol=1e-4)


@pytest.mark.parametrize("bad", [
    {"num_heads": 0}, {"embed_dim": 9}, {"dropout_rate": 1.0}, {"dtype": "float16"},
    {"encoder_layers": 1.5}, {"max_time": 1.0}])
def test_a_bad_size_is_named(bad):
    with pytest.raises(UserError, match=next(iter(bad))):
        dataclasses.replace(TINY, **bad)


def test_context_must_be_given_exactly_when_the_config_has_it(params):
    args = inputs_of(TINY)
    with pytest.raises(UserError, match="needs context"):
        apply(params, *args[:3])
    with pytest.raises(UserError, match="takes no context"):
        apply(params, *args, config=dataclasses.replace(TINY, context=False))
