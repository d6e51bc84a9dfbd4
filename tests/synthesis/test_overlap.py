"""Overlapping windows of token models, against a joint denoising written by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import unfreeze
from reference import compiled
from reference.diffusion_oracle import ddim_sample

from music_diffusion.conditions.base import Source
from music_diffusion.diffusion.parameterizations import X0
from music_diffusion.diffusion.solvers import DDIM
from music_diffusion.errors import UserError
from music_diffusion.models.spectrogram_diffusion import SpectrogramDiffusionModel
from music_diffusion.networks.transformer import T5Config
from music_diffusion.notes.events import encode_segment
from music_diffusion.notes.notes import Notes
from music_diffusion.synthesis import overlap as module
from music_diffusion.synthesis.joining import Windows, noise
from music_diffusion.synthesis.overlap import OverlapJoining

SIZES = {"embed_dim": 8, "num_heads": 1, "head_dim": 8, "mlp_dim": 8, "encoder_layers": 1,
         "decoder_layers": 1, "max_tokens": 32, "frames": 64, "context_frames": 64}
FRAMES, OVERLAP, STRIDE = 64, 32, 32
MODEL = SpectrogramDiffusionModel(config=T5Config(**SIZES, context=False), num_steps=3,
                                  solver=DDIM(eta=0.0))


def joining(group=4, frames=FRAMES):
    return OverlapJoining(windows=Windows(frames=frames, overlap=OVERLAP, group=group))


def piece_of(model, notes, frames, performance=None):
    return model.conditions.of_piece(
        Source(codec=model.codec, frames=frames, notes=notes, performance=performance), {})


def melody(count=8, gap=0.5):
    start = np.arange(count) * gap
    return Notes(start, start + 0.8 * gap, 60 + np.arange(count) % 12, np.full(count, 90),
                 np.full(count, 40), np.zeros(count))


def tokens_of(model, notes, first):
    ids = encode_segment(notes, first / 50, (first + FRAMES) / 50, config=model.events)
    return np.pad(ids, (0, model.config.max_tokens - len(ids)))


def by_hand(model, params, notes, windows, seed):
    """All windows of a piece in one batch; network, guidance, cross-fade and DDIM steps spelled out."""
    starts = STRIDE * np.arange(windows)
    conditions = [jnp.asarray(np.stack([tokens_of(model, notes, s) for s in starts]))]
    if model.config.context:  # of a first segment
        conditions += [jnp.zeros((windows, FRAMES, 128)), jnp.zeros((windows, FRAMES))]
    apply = jax.jit(lambda z, t, encoded: model.network.apply({"params": params}, z, t, encoded,
                                                              method="decode"))
    encoded = model.network.apply({"params": params}, *conditions, method="encode")

    def x0_of(z, logsnr):
        t = model.schedule.inverse(jnp.full((windows,), logsnr, jnp.float32))
        with_notes, without = apply(jnp.asarray(z, jnp.float32), t, encoded), apply(
            jnp.asarray(z, jnp.float32), t, None)
        eps = np.asarray(without + 2.0 * (with_notes - without), np.float64)
        alpha, sigma = np.sqrt(1 / (1 + np.exp(-logsnr))), np.sqrt(1 / (1 + np.exp(logsnr)))
        x0 = np.clip((z - sigma * eps) / alpha, -1, 1)
        faded = x0.copy()
        for k in range(1, windows):
            for i in range(OVERLAP):
                share = (i + 1) / (OVERLAP + 1)
                mixed = (1 - share) * x0[k - 1, STRIDE + i] + share * x0[k, i]
                faded[k, i] = faded[k - 1, STRIDE + i] = mixed
        return faded

    key = jax.random.split(jax.random.key(seed))[0]
    z = np.stack([noise(key, int(s), FRAMES, 128) for s in starts]).astype(np.float64)
    logsnrs = np.asarray(model.times.logsnrs(model.schedule, model.num_steps, jnp.float32), np.float64)
    x0 = ddim_sample(x0_of, z, logsnrs, np.zeros((model.num_steps + 1, 1)), 0.0)
    return np.concatenate([*(w[:STRIDE] for w in x0[:-1]), x0[-1]])


@pytest.mark.slow
@pytest.mark.parametrize("context", [False, True])
def test_a_piece_is_its_windows_denoised_together(context):
    model = dataclasses.replace(MODEL, config=T5Config(**SIZES, context=context))
    params = unfreeze(compiled.init(model, model.feature_shapes)["params"])
    frames, notes = 3 * STRIDE + FRAMES - 5, melody(6)
    parts = list(joining().stream(model, params, piece_of(model, notes, frames), 7))
    assert len(parts) == 1
    want = by_hand(model, params, notes, 4, 7)[:frames]
    np.testing.assert_allclose(parts[0], want, atol=2e-3)
    assert np.std(want) > 0.1
    other = next(joining().stream(model, params, piece_of(model, melody(6, 0.3), frames), 7))
    assert np.abs(other - parts[0]).max() > 0.02  # the notes are heard, more than the tolerance


@dataclasses.dataclass
class Places:
    """Windows tell by their only token where they begin."""

    frames: int

    def windows(self, firsts, size, before=None):
        return {"inputs": np.asarray(firsts, np.int32)[:, None]}


def exact(monkeypatch, std):
    """The denoiser becomes the exact one of Gaussian frames, of mean `params["mean"]`, each by itself."""
    def denoiser(model, params, batch):
        cut = jax.vmap(lambda first: jax.lax.dynamic_slice_in_dim(
            params["mean"], first, model.config.frames))(batch["inputs"][:, 0])

        def denoise(z, logsnr):
            alpha2 = jax.nn.sigmoid(logsnr)[:, None, None]
            gain = jnp.sqrt(alpha2) * std**2 / (alpha2 * std**2 + 1 - alpha2)
            return cut + gain * (z - jnp.sqrt(alpha2) * cut)

        return denoise

    monkeypatch.setattr(SpectrogramDiffusionModel, "denoiser", denoiser)


@pytest.mark.slow
def test_an_exact_denoiser_gives_a_seamless_piece_in_groups_of_any_size(monkeypatch):
    mean = np.random.default_rng(0).uniform(-1, 1, (1000, 128)).astype(np.float32)
    exact(monkeypatch, 0.0)
    model = dataclasses.replace(MODEL, parameterization=X0(), num_steps=2)
    for group in (1, 3, 8):
        parts = list(joining(group).stream(model, {"mean": mean}, Places(290), 0))
        assert max(map(len, parts)) <= 32 * group + 32
        np.testing.assert_allclose(np.concatenate(parts), mean[:290], atol=1e-6)


@pytest.mark.slow
def test_windows_in_one_group_are_one_long_window_where_frames_are_alone(monkeypatch):
    mean = np.random.default_rng(1).uniform(-0.2, 0.2, (1000, 128)).astype(np.float32)
    exact(monkeypatch, 0.2)
    model = dataclasses.replace(MODEL, parameterization=X0(), num_steps=4)
    long = dataclasses.replace(model, config=T5Config(**SIZES | {"frames": 512}, context=False))
    a = np.concatenate(list(joining(16).stream(model, {"mean": mean}, Places(290), 5)))
    b = np.concatenate(list(joining(1, 512).stream(long, {"mean": mean}, Places(290), 5)))
    np.testing.assert_allclose(a, b, atol=1e-5)
    assert np.std(b - mean[:290]) > 0.05


@pytest.mark.slow
def test_windows_get_the_tokens_noise_and_performance_of_their_own_whatever_the_groups(monkeypatch):
    notes, frames = melody(12), 300
    seen = {}
    for group in (1, 2, 5):
        calls = []

        def sample(model, windows, params, batch, z_T, key, known, has_known, calls=calls):
            assert bool(has_known) == bool(calls)
            assert batch["performance"].shape == (windows.group, 3)
            assert (np.asarray(batch["performance"]) == np.float32([0.5, 0, 0.5])).all()
            calls.extend(zip(batch["inputs"], np.asarray(z_T), strict=True))
            return jnp.zeros((windows.span, 128))

        monkeypatch.setattr(module, "_SAMPLE", sample)
        done, piece = [], piece_of(MODEL, notes, frames, np.array([0.5, 0, 0.5]))
        parts = list(joining(group).stream(MODEL, {}, piece, 1, done.append))
        assert sum(map(len, parts)) == frames and done[-1] == 1 and len(done) == len(parts)
        for k, (tokens, z) in enumerate(calls):
            np.testing.assert_array_equal(tokens, tokens_of(MODEL, notes, k * STRIDE))
            np.testing.assert_array_equal(z, seen.setdefault(k, z))


def test_crowded_windows_and_impossible_overlaps_are_errors():
    start = np.arange(0.7, 1.9, 0.03)
    crowd = Notes(start, start + 0.02, 60 + np.arange(len(start)) % 12, np.full(len(start), 90),
                  np.zeros(len(start)), np.zeros(len(start)))
    model = dataclasses.replace(MODEL, config=T5Config(**SIZES | {"max_tokens": 100}, context=False))
    with pytest.raises(UserError, match=r"events between 0.64 and 1.92 s"):
        list(joining().stream(model, {}, piece_of(model, crowd[crowd.start > 1.3], 300), 0))
    with pytest.raises(UserError, match="overlap"):
        OverlapJoining(windows=Windows(frames=FRAMES, overlap=64))
