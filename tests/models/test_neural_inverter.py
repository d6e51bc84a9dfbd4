"""A generator in chunks is the generator at once; silence, full scale and bad input."""

import dataclasses
import tracemalloc

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import unfreeze
from reference import compiled

from music_diffusion.audio.codec import MelCodec
from music_diffusion.errors import UserError
from music_diffusion.models.neural_inverter import NeuralInverter
from music_diffusion.models.spectrogram_inverter import SpectrogramInverterModel, generator_input
from music_diffusion.networks.convnext import ConvNeXtConfig
from music_diffusion.networks.istft_head import ISTFTHead, ISTFTHeadConfig
from music_diffusion.networks.seanet import SEANet, SEANetConfig

CODEC = MelCodec(sample_rate=1000, hop=20, window=40, fft=64, mels=8, fmax=500.0)
FLOOR = np.log(CODEC.clip_min)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToyConfig:
    hop: int = CODEC.hop
    mels: int = CODEC.mels
    context_frames: int = 3


class Toy(nn.Module):
    """One convolution over 7 frames, of which every channel is a sample."""

    config: ToyConfig

    @nn.compact
    def __call__(self, mel_scaled):
        out = nn.Conv(self.config.hop, (7,), padding="SAME")(mel_scaled)
        return out.reshape(out.shape[0], -1)


GENERATORS = {
    "toy": Toy(ToyConfig()),
    "istft": ISTFTHead(ISTFTHeadConfig(
        trunk=ConvNeXtConfig(dim=8, hidden=16, blocks=2, kernel=3), hop=CODEC.hop, mels=CODEC.mels,
        upsample=2, fft=40, codec_window=CODEC.window)),
    "seanet": SEANet(SEANetConfig(channels=8, strides=(5, 4), dilations=(2,), mels=CODEC.mels))}


def inverter(generator, chunk_frames=16, change=lambda x: x):
    variables = jax.jit(generator.init)(jax.random.key(0), jnp.zeros((1, 1, CODEC.mels)))
    params = unfreeze(variables["params"])
    return NeuralInverter(codec=CODEC, generator=generator, params=jax.tree.map(change, params),
                          chunk_frames=chunk_frames)


def sound(frames, seed=0):
    """Anything from near the floor to far above the model range."""
    return np.random.default_rng(seed).uniform(-10, 5, (frames, CODEC.mels)).astype(np.float32)


def at_once(inverter, mel):
    """The generator over the whole piece between silences."""
    context = inverter.generator.config.context_frames
    silence = np.full((context, CODEC.mels), FLOOR, np.float32)
    whole = generator_input(CODEC, np.concatenate([silence, mel, silence]))[None]
    samples = np.asarray(jax.jit(inverter.generator.apply)({"params": inverter.params}, whole))[0]
    return samples[context * CODEC.hop:][:len(mel) * CODEC.hop]


def stream(inverter, mel, sizes):
    piece, at, parts = inverter.stream(), 0, []
    while at < len(mel):
        for size in sizes:
            parts.append(piece.push(mel[at:at + size]))
            at += size
    return np.concatenate([*parts, piece.finish()])


@pytest.mark.slow
@pytest.mark.parametrize("name", GENERATORS)
def test_the_stream_is_the_generator_at_once(name):
    made = inverter(GENERATORS[name])
    mel = sound(61)
    truth = at_once(made, mel)
    assert np.abs(truth).max() > 1e-3
    scale = max(1.0, np.abs(truth).max())
    for other in (made, dataclasses.replace(made, chunk_frames=100)):
        out = other.invert(mel)
        assert out.dtype == np.float32
        np.testing.assert_allclose(out, truth, atol=1e-5 * scale)  # measured 5e-7
    whole = made.invert(mel)
    for sizes in ([1], [5, 0, 30], [60]):
        np.testing.assert_array_equal(stream(made, mel, sizes), whole)


def test_the_context_is_no_larger_than_needed_to_see_the_difference():
    """Were the context one frame short, the test above would fail."""
    short = GENERATORS["toy"].clone(config=ToyConfig(context_frames=2))
    made = inverter(short)
    assert np.abs(made.invert(sound(61)) - at_once(inverter(GENERATORS["toy"]), sound(61))).max() > 1e-2


@pytest.mark.parametrize("frames", [0, 1, 15, 16, 17])
def test_every_frame_gives_hop_samples(frames):
    assert inverter(GENERATORS["toy"]).invert(sound(frames)).shape == (frames * CODEC.hop,)


def test_memory_does_not_grow_with_the_piece():
    made = inverter(GENERATORS["toy"])
    made.invert(sound(20))

    def peak(frames):
        piece = made.stream()
        tracemalloc.start()
        for i in range(0, frames, 10):
            piece.push(sound(10, seed=i))
        piece.finish()
        try:
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(2000) < 2 * peak(200)


def test_silence_is_silent_whatever_the_weights_say():
    made = inverter(GENERATORS["toy"], change=lambda x: x + 1)
    silence = np.full((50, CODEC.mels), FLOOR, np.float32)
    assert np.abs(at_once(made, silence)).min() > 1  # the generator alone is not
    assert not made.invert(silence).any()
    # A generator that hums: no click where it is let in and out.
    hum = inverter(GENERATORS["toy"], change=lambda x: 0 * x + (x.ndim == 1))
    out = hum.invert(np.concatenate([silence, sound(30), silence]))
    assert out.max() == pytest.approx(1) and (out[:49 * CODEC.hop] == 0).all()
    assert np.abs(np.diff(out)).max() <= 1.6 / CODEC.hop


def test_full_scale_is_not_clipped():
    made = inverter(GENERATORS["toy"], change=lambda x: 10 * x)
    truth = at_once(made, sound(40))
    assert np.abs(truth).max() > 5
    np.testing.assert_allclose(made.invert(sound(40)), truth, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bad, word", [
    (np.where(np.arange(8) == 3, np.nan, sound(5)), "NaN.*frame 0"), (sound(5)[:, :4], r"\[frames, 8\]"),
    (sound(5)[0], "shape"), (sound(5)[None], "shape")], ids=["nan", "mels", "vector", "batch"])
def test_bad_mel_is_a_user_error(bad, word):
    with pytest.raises(UserError, match=word):
        inverter(GENERATORS["toy"]).invert(bad)


def test_broken_weights_are_a_user_error():
    with pytest.raises(UserError, match="weights are broken"):
        inverter(GENERATORS["toy"], change=lambda x: x * jnp.nan).invert(sound(5))


def test_a_generator_for_another_codec_is_refused():
    for codec, word in ((dataclasses.replace(CODEC, mels=9), "mels 8, its codec 9"),
                        (dataclasses.replace(CODEC, hop=10), "hop 20, its codec 10")):
        with pytest.raises(UserError, match=word):
            NeuralInverter(codec=codec, generator=GENERATORS["toy"], params={})
    with pytest.raises(ValueError, match="chunk_frames"):
        NeuralInverter(codec=CODEC, generator=GENERATORS["toy"], params={}, chunk_frames=0)


@pytest.mark.slow
def test_of_a_model_it_gives_what_the_model_generates():
    model = SpectrogramInverterModel(codec=CODEC, generator=GENERATORS["istft"].config)
    params = unfreeze(compiled.init(model, key=1)["params"])
    made = dataclasses.replace(model.inverter(params), chunk_frames=16)
    made.codec.check_same(CODEC)
    mel = sound(30)
    context = model.generator.context_frames
    middle = slice(context * CODEC.hop, -context * CODEC.hop)
    np.testing.assert_allclose(made.invert(mel)[middle],
                               np.asarray(model.generate(params, mel[None]))[0, middle], atol=1e-5)
