"""The transcriber: what its loss asks for, and that chunks, lengths and edges do not matter."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util
from reference import compiled
from reference.compiled import eval_fn, predict
from reference.tiny_transcriber import MODEL as TINY

from music_diffusion.audio.log_frequency import hertz
from music_diffusion.errors import UserError
from music_diffusion.models import tagger
from music_diffusion.models.base import split_variables
from music_diffusion.models.transcriber import HEADS, Transcriber, TranscriberModel
from music_diffusion.notes.activations import NUM_CLASSES, NUM_DRUMS, NUM_PITCHES, draw_activations
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.programs import SLAKH_CLASSES

MODEL = dataclasses.replace(TINY, trim_frames=2, network=dataclasses.replace(
    TINY.network, channels=8, hidden=16, shared=4))
RATE, HOP, SECONDS = TINY.spectrum.sample_rate, TINY.spectrum.hop, TINY.spectrum.frame_seconds
FRAMES, TRIM = 14, MODEL.trim_frames
INNER = slice(TRIM, FRAMES - TRIM)
RNG, ADAM = jax.random.key(0), optax.adam(0.03)
# Class and velocity 100 are those of the second note; program 65 is of the class of 64.
MUSIC = (Notes([0.02, 0.1], [0.2, 0.33], [60, 67], [80, 100], [0, 65], [False, False]),
         Notes([0.06, 0.151], [0.3, 0.2], [72, 38], [40, 100], [40, 0], [False, True]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Said(TranscriberModel):
    """Says its parameters, and of all pitches which instruments play them."""

    def logits(self, params, audio, sounding=None):
        return {"named": jnp.ones_like(params["frame"])} | params


SAID = Said(spectrum=MODEL.spectrum, network=MODEL.network, trim_frames=TRIM)


@functools.partial(jax.jit, static_argnums=0)
def judge(model, said, batch):
    """(loss, parts), and the gradient by what is said."""
    return jax.value_and_grad(model.loss_fn, has_aux=True)(said, batch, RNG)


def targets():
    """[B, T, …] of MUSIC."""
    drawn = [draw_activations(n, 0.0, FRAMES, SECONDS) for n in MUSIC]
    return {k: np.stack([getattr(d, k) for d in drawn]) for k in HEADS}


@functools.cache
def batch():
    """A sinusoid for each melodic note of MUSIC, and a click for the drum."""
    time = np.arange(FRAMES * HOP) / RATE
    audio = np.zeros((2, len(time)), np.float32)
    for sound, notes in zip(audio, MUSIC, strict=True):
        for start, end, pitch, drum in zip(notes.start, notes.end, notes.pitch, notes.is_drum, strict=True):
            on = (time >= start) & (time < (start + 1e-3 if drum else end))
            sound[on] += 0.3 * np.sin(2 * np.pi * hertz(pitch) * time[on])
    return {"audio": audio} | targets()


def probabilities():
    """What should be said: as `targets`, with the classes unpacked."""
    true = targets()
    return true | {"classes": np.unpackbits(true["classes"], axis=-1, count=NUM_CLASSES).astype(np.float32)}


def as_logits(true):
    """Finite ones: the cross-entropy that remains of a 0 or 1 is 3e-7."""
    bounded = {k: np.clip(v.astype(np.float64), 3e-7, 1 - 3e-7) for k, v in true.items()}
    return {k: np.log(v / (1 - v)).astype(np.float32) for k, v in bounded.items()}


@functools.cache
def fresh():
    return split_variables(compiled.init(MODEL, MODEL.feature_shapes, RNG))


@functools.cache
def spread():
    """Parameters of which no head is constant."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda p: p + jnp.asarray(0.3 * rng.normal(size=p.shape), jnp.float32), fresh()[0])


@pytest.mark.slow
def test_init_gives_parameters_and_their_logical_axes():
    params, axes = (traverse_util.flatten_dict(x) for x in fresh())
    assert {k: len(v) for k, v in axes.items()} == {k: v.ndim for k, v in params.items()}
    assert all(v.dtype == jnp.float32 for v in params.values())


def test_a_fresh_network_is_undecided():
    said = predict(MODEL, fresh()[0], batch(), RNG)
    assert said.shape == (2, FRAMES, 3 * NUM_PITCHES + NUM_PITCHES * NUM_CLASSES + NUM_DRUMS)
    others = np.delete(said, np.arange(3 * NUM_PITCHES, said.shape[-1] - NUM_DRUMS), axis=-1)
    assert 0.3 < others.min() < others.max() < 0.7
    classes = said[..., 3 * NUM_PITCHES:-NUM_DRUMS].reshape(2, FRAMES, NUM_PITCHES, NUM_CLASSES)
    told = classes.max(axis=-1) > 0.1  # the others are none of the frame's surest pitches
    assert (told.sum(axis=-1) == MODEL.network.cells).all()
    assert 0.3 < classes[told].min() < classes[told].max() < 0.7 and classes[~told].max() < 1e-5


def test_instruments_are_learned_at_sounding_pitches_that_are_told():
    logits = {k: np.random.default_rng(0).normal(size=v.shape).astype(np.float32)
              for k, v in probabilities().items()}
    told = np.zeros_like(targets()["frame"])
    told[0] = 1
    some = judge(SAID, logits | {"named": told}, batch())[0][1]["classes"]
    first = {k: v[:1] for k, v in batch().items()}
    alone = judge(SAID, {k: v[:1] for k, v in logits.items()}, first)[0][1]["classes"]
    assert float(some) == pytest.approx(float(alone), rel=1e-5)
    assert float(some) != pytest.approx(float(judge(SAID, logits, batch())[0][1]["classes"]), rel=1e-3)


@pytest.mark.slow
def test_what_sounds_is_told_while_learning():
    seen = []

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Watched(TranscriberModel):
        def logits(self, params, audio, sounding=None):
            seen.append(np.asarray(sounding))
            return TranscriberModel.logits(self, params, audio, sounding)

    model = Watched(spectrum=MODEL.spectrum, network=MODEL.network, trim_frames=TRIM)
    shorter = {k: v if k == "audio" else v[:, :-2] for k, v in batch().items()}
    model.loss_fn(spread(), shorter, RNG)  # also where there are fewer targets than frames
    np.testing.assert_array_equal(seen[0], shorter["frame"])


def test_prediction_is_the_activations_in_order():
    true = probabilities()
    said = np.asarray(SAID.predict_batch(as_logits(true), batch(), RNG))
    want = np.concatenate([true[k].reshape(2, FRAMES, -1) for k in HEADS], axis=-1)
    np.testing.assert_allclose(said, want, atol=1e-6)


@pytest.mark.slow
def test_evaluation_is_the_loss_and_the_loss_the_weighted_parts():
    loss, parts = eval_fn(MODEL, spread(), batch(), RNG)
    weights = {"frame": 1.0, "onset": 2.0, "velocity": 1.0, "classes": 0.3, "drums": 1.0}
    assert set(parts) == {*weights, "frame_f1"}
    assert float(loss) == pytest.approx(sum(w * float(parts[k]) for k, w in weights.items()), rel=1e-5)
    learned = first_step()[2]
    assert np.isfinite(loss) and learned == pytest.approx(float(loss), rel=1e-5)


def test_parts_are_their_definitions():
    """In float64, by loops over what counts."""
    rng = np.random.default_rng(0)
    true = probabilities()
    logits = {k: rng.normal(size=v.shape) for k, v in true.items()}
    (_, parts), _ = judge(SAID, {k: v.astype(np.float32) for k, v in logits.items()}, batch())

    def entropy(name):
        p, t = 1 / (1 + np.exp(-logits[name])), true[name].astype(np.float64)
        return (-t * np.log(p) - (1 - t) * np.log(1 - p))[:, INNER]

    frames = 2 * (FRAMES - 2 * TRIM)
    for name in ("onset", "frame", "drums"):
        assert float(parts[name]) == pytest.approx(entropy(name).sum() / frames, rel=1e-5)
    sounding, at = true["frame"][:, INNER], true["onset"][:, INNER].astype(np.float64)
    by_cell = entropy("classes").sum(-1)
    want = sum(by_cell[i] for i in zip(*np.nonzero(sounding), strict=True)) / (sounding.sum() + 1)
    assert float(parts["classes"]) == pytest.approx(want, rel=1e-5)
    error = 1 / (1 + np.exp(-logits["velocity"][:, INNER])) - true["velocity"][:, INNER]
    assert float(parts["velocity"]) == pytest.approx((at * error**2).sum() / (at.sum() + 1), rel=1e-5)
    said = logits["frame"][:, INNER] > 0  # a threshold of 0.5
    hits, wrong = (said & (sounding == 1)).sum(), (said != (sounding == 1)).sum()
    assert float(parts["frame_f1"]) == pytest.approx(2 * hits / (2 * hits + wrong), rel=1e-5)


def test_nothing_is_better_than_the_truth():
    perfect = as_logits(probabilities())
    (best, parts), slope = judge(SAID, perfect, batch())
    assert float(parts["frame_f1"]) == pytest.approx(1.0) and float(parts["velocity"]) < 1e-6
    assert max(np.abs(g).max() for g in slope.values()) < 1e-6  # and 0.1 elsewhere
    rng = np.random.default_rng(0)
    for name in HEADS:
        true = probabilities()[name]
        for share in (0.1, 0.5):
            doubted = as_logits({name: (1 - share) * true + share * rng.random(true.shape)})
            (loss, _), _ = judge(SAID, perfect | doubted, batch())
            assert loss > best + 1e-3, name


def test_what_counts_is_what_can_be_known():
    """By the gradients: no trimmed frame, instruments where notes sound, velocities where they begin."""
    true = probabilities()
    rng = np.random.default_rng(0)
    said = {k: rng.normal(size=v.shape).astype(np.float32) for k, v in true.items()}
    slope = {k: np.asarray(g) != 0 for k, g in judge(SAID, said, batch())[1].items()}
    inner = np.zeros(FRAMES, bool)
    inner[INNER] = True
    inner = inner[None, :, None]
    for name in ("onset", "frame", "drums"):
        np.testing.assert_array_equal(slope[name], np.broadcast_to(inner, slope[name].shape))
    sounding = inner & (true["frame"] == 1)
    np.testing.assert_array_equal(slope["classes"].any(-1), sounding)
    np.testing.assert_array_equal(slope["classes"].all(-1), sounding)
    np.testing.assert_array_equal(slope["velocity"], inner & (true["onset"] > 0))
    assert sounding.any() and slope["velocity"].any()


def test_the_shorter_of_audio_and_targets_counts():
    said = as_logits(probabilities())
    fewer = {k: v if k == "audio" else v[:, :10] for k, v in batch().items()}
    (of_audio, _), _ = judge(SAID, {k: v[:, :10] for k, v in said.items()}, batch())
    (of_targets, _), _ = judge(SAID, said, fewer)
    assert of_audio == of_targets
    with pytest.raises(UserError, match="4 frames.*trim_frames=2.*longer"):
        judge(SAID, {k: v[:, :4] for k, v in said.items()}, batch())


@jax.jit
def descend(params, state):
    (loss, parts), slope = jax.value_and_grad(
        lambda p: MODEL.loss_fn(p, batch(), RNG), has_aux=True)(params)
    updates, state = ADAM.update(slope, state, params)
    return optax.apply_updates(params, updates), state, loss, parts, slope


@functools.cache
def first_step():
    return descend(spread(), ADAM.init(spread()))


@pytest.mark.slow
def test_every_parameter_learns_and_a_tiny_batch_is_learned():
    params, state, first, at_first, slope = first_step()
    for name, g in traverse_util.flatten_dict(slope).items():
        assert np.isfinite(g).all() and np.abs(g).max() > 0, name
    for _ in range(150):
        params, state, last, parts, _ = descend(params, state)
    assert last < 0.1 * first
    assert at_first["frame_f1"] < 0.3 and parts["frame_f1"] > 0.8


@pytest.mark.parametrize("lacking", ["audio", "classes"])
def test_missing_features_are_named(lacking):
    given = {k: v for k, v in batch().items() if k != lacking}
    with pytest.raises(UserError, match=f"no {lacking}"):
        MODEL.loss_fn(fresh()[0], given, RNG)


@pytest.mark.parametrize("part, fields, reason", [
    ("network", {"pitches": 87}, "87 pitches"), ("network", {"classes": 35}, "35 classes"),
    ("network", {"drums": 60}, "60 drums"), ("spectrum", {"lowest_pitch": 22}, "begin at pitch 21"),
    ("spectrum", {"bins_per_semitone": 3}, "1 bins a semitone")])
def test_parts_that_do_not_fit_are_refused(part, fields, reason):
    with pytest.raises(UserError, match=reason):
        dataclasses.replace(MODEL, **{part: dataclasses.replace(getattr(MODEL, part), **fields)})


def transcriber(chunk_frames, model=MODEL, params=None):
    return Transcriber(model=model, params=spread() if params is None else params,
                       chunk_frames=chunk_frames)


def noise(size, seed=0):
    return 0.1 * np.random.default_rng(seed).normal(size=size)


@functools.cache
def heard_at_once(size):
    return transcriber(64).transcribe(noise(size))


@pytest.mark.slow
@pytest.mark.parametrize("size", [0, 1, HOP - 1, HOP, HOP + 1, 31 * HOP + 7])
def test_the_size_of_chunks_does_not_matter(size):
    whole, parts = heard_at_once(size), transcriber(5).transcribe(noise(size))
    count = max(1, -(-size // HOP))
    assert whole.frames.shape == (count, NUM_PITCHES) and whole.frame_seconds == HOP / RATE
    for name in ("onset", "frame", "velocity", "drums"):
        a, b = (getattr(x.activations, name) for x in (whole, parts))
        assert 0 <= a.min() <= a.max() <= 1 and len(a) == count
        np.testing.assert_allclose(b, a, atol=1e-4)
    for pitch in (0, 40, 87):
        a, b = (x.activations.classes.rows(pitch, 0, count) for x in (whole, parts))
        np.testing.assert_allclose(b, a, atol=2e-3)  # float16
    assert len(whole.notes) == len(parts.notes)
    for name in ("pitch", "program", "is_drum"):
        np.testing.assert_array_equal(getattr(whole.notes, name), getattr(parts.notes, name))
    np.testing.assert_allclose(whole.notes.start, parts.notes.start, atol=1e-4)
    np.testing.assert_allclose(whole.notes.end, parts.notes.end, atol=1e-4)
    assert not size or len(whole.notes) > 5


def test_blocks_of_samples_give_the_same_notes():
    size = 31 * HOP + 7
    want = heard_at_once(size).notes
    for cuts in ([], [1, 2, 700], list(range(0, size, 97))):
        got = transcriber(64).notes(np.split(noise(size), cuts))
        for name in ("start", "end", "pitch", "velocity", "program", "is_drum"):
            np.testing.assert_array_equal(getattr(got, name), getattr(want, name))


def test_activations_of_a_stream_are_those_of_the_whole_and_come_before_its_end():
    size, given = 31 * HOP + 7, []
    whole = heard_at_once(size).activations

    def blocks():
        for block in np.array_split(noise(size), 16):
            given.append(len(block))
            yield block

    parts, early = [], 0
    for part in transcriber(4).activations(blocks()):
        parts.append(part)
        early += sum(given) < size
    assert early >= 2
    for name in ("onset", "frame", "velocity", "drums"):
        np.testing.assert_allclose(np.concatenate([getattr(p, name) for p in parts]),
                                   getattr(whole, name), atol=1e-5)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Told:
    """A tagger's presence that says what is written down, one patch every 0.3 s."""

    table: np.ndarray  # [n, K]
    seconds: float = 0.3


class ToldStream:
    """Gives patches in threes, and only once six more frames were heard, as a network with blocks does."""

    def __init__(self, told):
        self._told, self._samples, self._given = told, 0, 0

    def push(self, samples):
        self._samples += len(samples)
        ready = max(0, int(self._samples / RATE / self._told.seconds) - 1) // 3 * 3
        part, self._given = self._told.table[self._given:ready], max(ready, self._given)
        return part

    def finish(self):
        return self._told.table[self._given:]


@pytest.mark.slow
@pytest.mark.parametrize("chunk_frames", [3, 64])
def test_instruments_are_weighed_by_the_patches_around(monkeypatch, chunk_frames):
    """Against a loop over cells: the mean of the nine patches around, as far as there are."""
    size = 400 * HOP
    table = np.random.default_rng(2).random((math.ceil(400 * SECONDS / 0.3), 35)).astype(np.float32)
    monkeypatch.setattr(tagger, "PresenceStream", ToldStream)
    plain = transcriber(chunk_frames).transcribe(noise(size)).activations
    weighed = dataclasses.replace(transcriber(chunk_frames), presence=Told(table=table)).transcribe(
        noise(size)).activations
    for frame in range(0, 400, 37):
        patch = min(int(frame * SECONDS / 0.3), len(table) - 1)
        around = table[max(0, patch - 4):patch + 5].mean(axis=0)[:NUM_CLASSES]
        for pitch in (0, 44):
            a, b = (x.classes.rows(pitch, frame, frame + 1)[0].astype(np.float64) for x in (plain, weighed))
            np.testing.assert_allclose(b, np.sqrt(a) * around, atol=2e-3)


def test_the_same_recording_gives_the_same_notes():
    again = transcriber(64).transcribe(noise(31 * HOP + 7))
    np.testing.assert_array_equal(again.frames, heard_at_once(31 * HOP + 7).frames)


def test_frames_are_where_the_sound_is():
    silence, click = np.zeros(30 * HOP), np.zeros(30 * HOP)
    click[12 * HOP + HOP // 2] = 1.0
    quiet, loud = (transcriber(5).transcribe(x).activations for x in (silence, click))
    moved = np.flatnonzero(np.abs(loud.frame - quiet.frame).max(axis=1) > 1e-5)
    # The network sees 4 frames around, and each frame a window that reaches 1.3 hops.
    edge = MODEL.network.context_frames - max(MODEL.network.timbre_frames) + 1
    assert moved.min() == 12 - edge and moved.max() == 12 + edge
    np.testing.assert_allclose(quiet.frame, quiet.frame[:1].repeat(30, 0), atol=1e-5)


def test_progress_is_told():
    told = []
    transcriber(5).transcribe(noise(12 * HOP), progress=lambda i, n: told.append((i, n)))
    assert told == [(5, 12), (10, 12), (12, 12)]


@pytest.mark.parametrize("samples, reason", [
    (np.full(500, np.nan), "NaN"), (np.zeros((500, 2)), r"\(500, 2\)"), (np.zeros((1, 500)), "channel")])
def test_audio_that_cannot_be_heard_is_refused(samples, reason):
    with pytest.raises(UserError, match=reason):
        transcriber(5).transcribe(samples)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Oracle(TranscriberModel):
    """Knows what should be said (`params`, frames of a whole piece) and reads the frame's number,
    from 1, off the samples."""

    def logits(self, params, audio):
        number = jnp.round(audio[:, HOP // 2::HOP]).astype(int) - 1
        return {k: jnp.where(jnp.expand_dims(number >= 0, tuple(range(2, v.ndim + 1))),
                             v[jnp.maximum(number, 0)], -20.0) for k, v in params.items()}


@pytest.mark.parametrize("chunk_frames", [7, 100])
def test_the_notes_come_back(chunk_frames):
    rng = np.random.default_rng(1)
    start = np.sort(rng.uniform(0, 1.6, 24))
    pitch = 30 + 3 * np.arange(24)  # so that none meets its like
    kinds = [c.programs[0] for c in SLAKH_CLASSES]
    drum = np.arange(24) % 5 == 0
    notes = Notes(start, start + rng.uniform(0.06, 0.4, 24), np.where(drum, 28 + 2 * np.arange(24), pitch),
                  np.where(drum, 100, rng.integers(1, 128, 24)), np.where(drum, 0, rng.choice(kinds, 24)),
                  drum)
    frames = 80
    drawn = draw_activations(notes, 0.0, frames, SECONDS)
    known = as_logits({"classes": np.unpackbits(drawn.classes, axis=-1, count=NUM_CLASSES)}
                      | {k: getattr(drawn, k) for k in HEADS if k != "classes"})
    model = Oracle(spectrum=MODEL.spectrum, network=MODEL.network)
    numbers = np.repeat(1.0 + np.arange(frames), HOP)
    got = transcriber(chunk_frames, model, known).transcribe(numbers).notes
    for name in ("pitch", "velocity", "program", "is_drum"):
        np.testing.assert_array_equal(getattr(got, name), getattr(notes, name))
    np.testing.assert_allclose(got.start, notes.start, atol=1e-3)
    np.testing.assert_allclose(got.end[~drum], notes.end[~drum], atol=0.5 * SECONDS + 1e-3)


def test_an_onset_whose_pitch_seems_silent_keeps_its_instrument():
    notes = Notes([0.3375], [0.35], [60], [90], [40], [False])
    drawn = draw_activations(notes, 0.0, 30, SECONDS)
    said = {k: getattr(drawn, k) for k in HEADS if k != "classes"} | {
        "classes": np.unpackbits(drawn.classes, axis=-1, count=NUM_CLASSES)}
    known = as_logits(said | {"frame": np.zeros_like(drawn.frame), "onset": 0.5 * drawn.onset})
    model = Oracle(spectrum=MODEL.spectrum, network=MODEL.network)
    got = transcriber(100, model, known).transcribe(np.repeat(1.0 + np.arange(30), HOP)).notes
    assert got.pitch.tolist() == [60] and got.program.tolist() == [40]
