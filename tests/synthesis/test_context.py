"""Context chaining: which tokens and which context every segment of a piece gets."""

import dataclasses

import jax
import numpy as np
import pytest
from flax.core import unfreeze
from reference import compiled

from music_diffusion.errors import UserError
from music_diffusion.models.spectrogram_diffusion import SpectrogramDiffusionModel
from music_diffusion.models.weights import CONFIG, WEIGHTS, save_safetensors
from music_diffusion.networks.transformer import T5Config
from music_diffusion.notes.events import decode, encode
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.vocabulary import EventConfig
from music_diffusion.synthesis import context as module
from music_diffusion.synthesis import hub
from music_diffusion.synthesis.context import ContextJoining

SIZES = {"embed_dim": 8, "num_heads": 1, "head_dim": 8, "mlp_dim": 8, "encoder_layers": 1,
         "decoder_layers": 1, "max_tokens": 64}
MODEL = SpectrogramDiffusionModel(config=T5Config(**SIZES), num_steps=2)


def melody(count=8, seconds=2.0):
    start = np.arange(count) * seconds
    return Notes(start, start + 1.5 * seconds, 60 + np.arange(count), np.full(count, 90),
                 np.full(count, 40), np.zeros(count))


def test_the_context_is_the_prediction_before(monkeypatch):
    seen = []

    def predict(model, params, batch, key):
        seen.append(batch)
        return np.full((1, 256, 128), 0.1 * len(seen), np.float32)

    monkeypatch.setattr(module, "_predict", predict)
    done = []
    parts = list(ContextJoining().stream(MODEL, {}, melody(), 700, 0, done.append))
    assert [len(p) for p in parts] == [256, 256, 188] and done == [1 / 3, 2 / 3, 1]
    assert not seen[0]["targets_context_mask"].any() and not seen[0]["targets_context"].any()
    for i in (1, 2):
        assert (seen[i]["targets_context_mask"] == 1).all()
        np.testing.assert_allclose(seen[i]["targets_context"], 0.1 * i, rtol=1e-6)


@dataclasses.dataclass(frozen=True, kw_only=True)
class JustNoise(SpectrogramDiffusionModel):
    """Predicts the noise that it would begin with."""

    def predict_batch(self, params, batch, rng):
        return jax.random.normal(rng, (1, self.config.frames, self.config.mel_bins))


def test_every_segment_has_its_own_noise_and_a_longer_piece_begins_with_the_same():
    def segments(frames, seed):
        return list(ContextJoining().stream(JustNoise(config=MODEL.config), {}, melody(), frames, seed))

    parts = segments(4 * 256, 0) + segments(2 * 256, 1)
    likeness = np.corrcoef(np.stack([p.reshape(-1) for p in parts]))
    assert np.abs(likeness - np.eye(6)).max() < 0.03  # 32768 numbers: 5 standard deviations
    for short, long in zip(segments(2 * 256, 0), parts, strict=False):
        np.testing.assert_array_equal(short, long)


def test_the_segments_tokens_are_those_of_the_piece():
    notes = melody()
    for i, segment in enumerate(encode(notes, EventConfig())):
        tokens = ContextJoining().tokens(MODEL, notes, i)[0]
        assert tokens.shape == (64,) and not tokens[len(segment.ids):].any()
        np.testing.assert_array_equal(tokens[:len(segment.ids)], segment.ids)
    assert len(decode(encode(notes, EventConfig()), EventConfig()).notes) == len(notes)


def test_tokens_are_written_as_the_model_has_learned_them():
    events = EventConfig(velocity_bins=127, granularity="flat")
    model = dataclasses.replace(MODEL, events=events)
    ids = encode(melody(), events)[0].ids
    np.testing.assert_array_equal(ContextJoining().tokens(model, melody(), 0)[0][:len(ids)], ids)
    assert len(ids) != len(encode(melody(), EventConfig())[0].ids)


def test_a_crowded_segment_is_reported_not_cut():
    with pytest.raises(UserError, match="events between 0.00 and 5.12 s"):
        list(ContextJoining().stream(MODEL, {}, melody(60, 0.05), 256, 0))


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
    synthesizer = hub.load(folder)
    assert synthesizer.model == model and isinstance(synthesizer.joining, ContextJoining)
    wave = synthesizer.synthesize(melody(3))
    again = synthesizer.synthesize(melody(3))
    assert len(wave) == 320 * synthesizer.frames_of(melody(3)) and np.abs(wave.samples).max() > 0.1
    np.testing.assert_array_equal(wave.samples, again.samples)
