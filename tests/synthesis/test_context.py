"""Chains of segments: which tokens, context and noise every segment of a piece gets."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import unfreeze
from reference import compiled
from reference.toy_generator import Dice, F, Places, ToyGenerator

from music_diffusion.conditions.base import Source
from music_diffusion.diffusion.solvers import DDIM
from music_diffusion.errors import UserError
from music_diffusion.models.spectrogram_diffusion import SpectrogramDiffusionModel
from music_diffusion.models.weights import CONFIG, WEIGHTS, save_safetensors
from music_diffusion.networks.transformer import T5Config
from music_diffusion.notes.events import decode, encode
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.vocabulary import EventConfig
from music_diffusion.synthesis import context as module
from music_diffusion.synthesis import hub
from music_diffusion.synthesis.context import ChainJoining

SIZES = {"embed_dim": 8, "num_heads": 1, "head_dim": 8, "mlp_dim": 8, "encoder_layers": 1,
         "decoder_layers": 1, "max_tokens": 64}
MODEL = SpectrogramDiffusionModel(config=T5Config(**SIZES), num_steps=2)


def melody(count=8, seconds=2.0):
    start = np.arange(count) * seconds
    return Notes(start, start + 1.5 * seconds, 60 + np.arange(count), np.full(count, 90),
                 np.full(count, 40), np.zeros(count))


def piece_of(model, notes, frames, performance=None):
    return model.conditions.of_piece(
        Source(codec=model.codec, frames=frames, notes=notes, performance=performance), {})


def chained(model, piece, context=True, frames=256, seed=0, params=None):
    """The whole piece [T, C]."""
    joining = ChainJoining(frames=frames, context=context)
    return np.concatenate(list(joining.stream(model, params or {}, piece, seed)))


def test_the_context_is_the_prediction_before(monkeypatch):
    seen = []

    def predict(model, frames, params, batch, key):
        seen.append(batch)
        return np.full((1, frames, 128), 0.1 * len(seen), np.float32)

    monkeypatch.setattr(module, "_SAMPLE", predict)
    done = []
    parts = list(ChainJoining().stream(MODEL, {}, piece_of(MODEL, melody(), 700), 0, done.append))
    assert [len(p) for p in parts] == [256, 256, 188] and done == [1 / 3, 2 / 3, 1]
    assert not seen[0]["targets_context_mask"].any() and not seen[0]["targets_context"].any()
    for i in (1, 2):
        assert (seen[i]["targets_context_mask"] == 1).all()
        np.testing.assert_allclose(seen[i]["targets_context"], 0.1 * i, rtol=1e-6)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counting(ToyGenerator):
    """One more than what was before."""

    def sample(self, params, batch, z_T, rng, *, x0_hook=None, progress=None):
        return jnp.where(batch["known"][:, None, None] > 0, batch["before"] + 1, 0 * z_T)


def test_segments_are_given_the_one_before_only_where_they_are_chained_by_context():
    for context, want in ((True, [0, 1, 2]), (False, [0, 0, 0])):
        mel = chained(Counting(), Places(frames=80), context, frames=32)
        np.testing.assert_array_equal(mel, np.repeat(want, [32, 32, 16])[:, None] * np.ones((1, F)))


def test_every_segment_has_noise_of_its_own_for_the_start_and_for_the_solver():
    def drawn(seed):
        """[segments, frames, what was drawn]."""
        return chained(Dice(), Places(frames=4096), False, 256, seed).reshape(16, 256, F)

    for channel in (0, 1):  # starting noise, and that of the key
        noise = drawn(0)[..., channel]
        # 256 draws of each: a standard error of 0.0625.
        assert np.abs(np.corrcoef(noise) - np.eye(16)).max() < 0.35
        assert abs(noise.mean()) < 0.06 and abs(noise.std() - 1) < 0.05
    start, solver = drawn(0)[..., 0].ravel(), drawn(0)[..., 1].ravel()
    assert abs(np.corrcoef(start, solver)[0, 1]) < 0.06
    np.testing.assert_array_equal(drawn(0), drawn(0))
    assert abs(np.corrcoef(start, drawn(1)[..., 0].ravel())[0, 1]) < 0.06
    assert abs(np.corrcoef(solver, drawn(1)[..., 1].ravel())[0, 1]) < 0.06


@pytest.mark.slow
def test_segments_of_the_network_are_those_that_it_predicts_from_the_one_before():
    """Each by itself from features written by hand, with the noise that the joining drew."""
    model = dataclasses.replace(MODEL, solver=DDIM(eta=0.0))  # noise of the start alone
    params = unfreeze(model.init(jax.random.key(0), model.feature_shapes)["params"])
    notes, drawn = melody(4), {}

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Watched(SpectrogramDiffusionModel):
        def sample(self, params, batch, z_T, rng, **given):
            jax.debug.callback(lambda z: drawn.setdefault(len(drawn), np.asarray(z)), z_T)
            return super().sample(params, batch, z_T, rng, **given)

    fields = {f.name: getattr(model, f.name) for f in dataclasses.fields(model)}
    got = chained(Watched(**fields), piece_of(model, notes, 512), params=params)
    jax.effects_barrier()
    by_hand = jax.jit(lambda batch, z: model.sample(params, batch, z, jax.random.key(0)))
    before = None
    for i, segment in enumerate(encode(notes, EventConfig())[:2]):
        tokens = np.pad(segment.ids, (0, 64 - len(segment.ids)))[None]
        known = before is not None
        context = before if known else np.zeros((1, 256, 128), np.float32)
        batch = {"inputs": tokens, "targets_context": context,
                 "targets_context_mask": np.full((1, 256), float(known), np.float32)}
        before = np.asarray(by_hand(batch, drawn[i]))
        # On average: rounding grows where the noise is all there is. Measured 1e-6.
        assert np.abs(got[256 * i:256 * (i + 1)] - before[0]).mean() < 1e-3
    alone = by_hand(batch | {"targets_context_mask": np.zeros((1, 256), np.float32)}, drawn[1])
    assert np.abs(alone[0] - got[256:]).mean() > 1e-2  # the context is heard


def test_the_segments_tokens_are_those_of_the_piece():
    notes = melody()
    piece = piece_of(MODEL, notes, 900)
    for i, segment in enumerate(encode(notes, EventConfig())):
        tokens = piece.windows([256 * i], 256)["inputs"][0]
        assert tokens.shape == (64,) and not tokens[len(segment.ids):].any()
        np.testing.assert_array_equal(tokens[:len(segment.ids)], segment.ids)
    assert len(decode(encode(notes, EventConfig()), EventConfig()).notes) == len(notes)


def test_tokens_are_written_as_the_model_has_learned_them():
    events = EventConfig(velocity_bins=127, granularity="flat")
    model = dataclasses.replace(MODEL, events=events)
    ids = encode(melody(), events)[0].ids
    tokens = piece_of(model, melody(), 256).windows([0], 256)["inputs"][0]
    np.testing.assert_array_equal(tokens[:len(ids)], ids)
    assert len(ids) != len(encode(melody(), EventConfig())[0].ids)


def test_a_crowded_segment_is_reported_not_cut():
    with pytest.raises(UserError, match="events between 0.00 and 5.12 s"):
        chained(MODEL, piece_of(MODEL, melody(60, 0.05), 256))


def test_every_segment_is_played_by_the_performance(monkeypatch):
    seen = []

    def predict(model, frames, params, batch, key):
        seen.append(batch["performance"])
        return np.zeros((1, frames, 128), np.float32)

    monkeypatch.setattr(module, "_SAMPLE", predict)
    chained(MODEL, piece_of(MODEL, melody(), 300, np.array([0.25, 0.75])))
    assert len(seen) == 2 and all((w == np.float32([[0.25, 0.75]])).all() for w in seen)


@pytest.mark.slow
@pytest.mark.parametrize("context", [True, False])
def test_a_released_token_model_is_loaded_and_renders(tmp_path, context):
    model = SpectrogramDiffusionModel(config=T5Config(**SIZES, context=context), num_steps=2)
    folder = tmp_path / "tiny"
    folder.mkdir()
    params = unfreeze(compiled.init(model, model.feature_shapes)["params"])
    save_safetensors(folder / WEIGHTS, params, dtype="float32")
    lines = [f"T5Config.{k} = {v}" for k, v in {**SIZES, "context": context}.items()]
    (folder / CONFIG).write_text("\n".join([
        "released.model = @SpectrogramDiffusionModel()", "SpectrogramDiffusionModel.num_steps = 2",
        "SpectrogramDiffusionModel.config = @T5Config()", *lines]))
    synthesizer = hub.load(folder, inverter="griffin_lim_hop")
    assert synthesizer.model == model
    assert synthesizer.joining_of() == ChainJoining(frames=256, context=context)
    wave = synthesizer.synthesize(melody(3))
    again = synthesizer.synthesize(melody(3))
    assert len(wave) == 320 * synthesizer.frames_of(melody(3)) and np.abs(wave.samples).max() > 0.1
    np.testing.assert_array_equal(wave.samples, again.samples)
