"""Chunks on a fixed grid: every sample once, from the frames around it, however it is cut."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from music_diffusion.audio.chunked import ChunkedStream, ChunkGrid
from music_diffusion.audio.codec import MelCodec
from music_diffusion.errors import UserError

CODEC = MelCodec(sample_rate=800, hop=8, window=16, fft=16, mels=4, fmax=400.0)
FLOOR = np.log(CODEC.clip_min)


def held(reach):
    """A decoder that looks `reach` frames around: sample s of frame t is Σ mel[t-reach ... t+reach] + s."""
    def decode(mel):
        padded = np.pad(mel.sum(axis=1), reach)  # zeros at the edges: wrong, as in a network
        around = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1).sum(axis=1)
        return (around[:, None] + np.arange(CODEC.hop)).reshape(-1).astype(np.float32)

    return decode


def whole(mel, reach):
    """The truth: once over everything, between silences."""
    silence = np.full((reach, CODEC.mels), FLOOR)
    return held(reach)(np.concatenate([silence, mel, silence]))[reach * CODEC.hop:][:len(mel) * CODEC.hop]


def sound(frames):
    return np.random.default_rng(frames).uniform(-5, 0, (frames, CODEC.mels)).astype(np.float32)


def run(stream, mel, cuts=()):
    parts = [stream.push(part) for part in np.split(mel, cuts)]
    return np.concatenate([*parts, stream.finish()])


@given(frames=st.integers(1, 60), step=st.integers(1, 20), reach=st.integers(0, 4),
       fade=st.integers(0, 3), cuts=st.lists(st.integers(0, 60), max_size=6))
@settings(max_examples=100)
def test_it_is_the_whole_where_the_context_is_enough(frames, step, reach, fade, cuts):
    mel = sound(frames)
    grid = ChunkGrid(step_frames=step, context_frames=reach, fade_frames=min(fade, step))
    out = run(ChunkedStream(CODEC, held(reach), grid), mel, sorted(min(c, frames) for c in cuts))
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, whole(mel, reach), atol=1e-4)


def test_no_frames_give_no_samples():
    assert run(ChunkedStream(CODEC, held(2), ChunkGrid(step_frames=5, context_frames=2)),
               sound(0)).shape == (0,)


def test_the_decoder_always_gets_the_same_shape():
    seen = set()

    def decode(mel):
        seen.add(mel.shape)
        return held(0)(mel)

    run(ChunkedStream(CODEC, decode, ChunkGrid(step_frames=7, context_frames=3)), sound(40), [1, 30])
    assert len(seen) == 1


def test_too_little_context_is_cross_faded_and_still_independent_of_the_cuts():
    """A decoder that drifts within every chunk: its ends do not meet."""
    def drifting(mel):
        return np.arange(len(mel) * CODEC.hop, dtype=np.float32)

    grid = ChunkGrid(step_frames=10, context_frames=2, fade_frames=4)
    mel = sound(35)
    out = run(ChunkedStream(CODEC, drifting, grid), mel)
    step, fade, before = 10 * CODEC.hop, 4 * CODEC.hop, 2 * CODEC.hop
    own = before + np.arange(step)
    np.testing.assert_allclose(out[:step], own)
    share = np.arange(fade) / fade
    np.testing.assert_allclose(out[step:step + fade],
                               share * own[:fade] + (1 - share) * (own[:fade] + step), rtol=1e-5)
    np.testing.assert_allclose(out[step + fade:2 * step], own[fade:])
    assert np.abs(np.diff(out)).max() < 2 * step / fade  # no step of 10 frames at the joins
    for cuts in ([1], [9, 10, 11], range(1, 35)):
        np.testing.assert_array_equal(run(ChunkedStream(CODEC, drifting, grid), mel, cuts), out)


def test_samples_come_as_soon_as_their_context_is_there():
    stream = ChunkedStream(CODEC, held(3), ChunkGrid(step_frames=5, context_frames=3))
    assert len(stream.push(sound(7))) == 0
    assert len(stream.push(sound(1))) == 5 * CODEC.hop
    assert len(stream.push(sound(100))) == 100 * CODEC.hop


def test_silence_is_exactly_silent_whatever_the_decoder_does():
    def loud(mel):
        return np.ones(len(mel) * CODEC.hop, np.float32)

    silence = np.full((40, CODEC.mels), FLOOR, np.float32)
    grid = ChunkGrid(step_frames=6, context_frames=0)
    assert not run(ChunkedStream(CODEC, loud, grid), silence).any()
    mel = np.concatenate([silence, sound(1), silence])
    out = run(ChunkedStream(CODEC, loud, grid), mel).reshape(-1, CODEC.hop)
    assert (out[40:42] == 1).all() and not out[:39].any() and not out[43:].any()
    # As long as the grid: the same for every step.
    other = ChunkGrid(step_frames=11, context_frames=5)
    np.testing.assert_array_equal(run(ChunkedStream(CODEC, loud, other), mel), out.reshape(-1))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_broken_weights_are_an_error_not_a_sound(bad):
    def decode(mel):
        return np.where(np.arange(len(mel) * CODEC.hop) == 30, bad, 0.0)

    stream = ChunkedStream(CODEC, decode, ChunkGrid(step_frames=6, context_frames=0))
    with pytest.raises(UserError, match="weights are broken"):
        stream.push(sound(20))


def test_a_decoder_of_another_hop_is_an_error():
    grid = ChunkGrid(step_frames=1, context_frames=0)
    stream = ChunkedStream(CODEC, lambda mel: np.zeros(len(mel)), grid)
    with pytest.raises(ValueError, match="samples.shape"):
        stream.push(sound(20))


@pytest.mark.parametrize("bad", [
    {"step_frames": 0}, {"context_frames": -1}, {"fade_frames": -1}, {"fade_frames": 9}])
def test_unusable_grids_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        ChunkGrid(**({"step_frames": 8, "context_frames": 2} | bad))
