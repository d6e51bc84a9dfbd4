"""Embedders against the network applied to one window at a time."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from music_diffusion.audio.vggish_mel import VGGishMel
from music_diffusion.errors import UserError
from music_diffusion.evaluation.embeddings import (
    TaggerEmbedder,
    VGGishEmbedder,
    compiled_size,
    weights_digest,
    window_blocks,
)
from music_diffusion.networks.vggish import VGGish, VGGishConfig

MEL = VGGishMel(sample_rate=4000, hop=40, window=100, fft=128, mels=8, fmin=100.0, fmax=1900.0,
                patch_frames=8, patch_hop=6)
NETWORK = VGGishConfig(frames=8, mels=8, channels=((4,), (5,)), hidden=(6,), embedding=3)
WINDOW, HOP = MEL.patch_samples, MEL.patch_hop_samples  # 380, 240


def noise(samples, seed=0):
    return np.random.default_rng(seed).normal(0, 0.3, samples).astype(np.float32)


@pytest.fixture(scope="module")
def params():
    return jax.jit(VGGish(NETWORK).init)(jax.random.key(0), jnp.zeros((1, 8, 8)))["params"]


@dataclasses.dataclass(frozen=True)
class Tagging:
    """A model that behaves like the project's tagger."""

    front: VGGishMel = MEL

    def embed(self, params, audio):
        patches = self.front.patches(audio)
        flat = VGGish(NETWORK).apply({"params": params}, patches.reshape(-1, *patches.shape[2:]))
        return flat.reshape(*patches.shape[:2], -1)


@pytest.fixture(params=["vggish", "tagger"])
def embedder(request, params):
    """Of small blocks, so that short audio has several."""
    if request.param == "vggish":
        return VGGishEmbedder(params, NETWORK, MEL, block=4)
    return TaggerEmbedder(Tagging(), params, block=4)


def one_at_a_time(params, audio):
    """The truth: the network on the patch of every whole window."""
    audio = np.pad(audio, (0, max(0, WINDOW - len(audio))))
    starts = range(0, len(audio) - WINDOW + 1, HOP)
    patches = np.concatenate([MEL.encode(audio[s:s + WINDOW]) for s in starts])
    return np.concatenate([VGGish(NETWORK).apply({"params": params}, p[None]) for p in patches])


@pytest.mark.parametrize("samples, count", [
    (WINDOW, 1), (WINDOW + HOP - 1, 1), (WINDOW + HOP, 2), (WINDOW + 10 * HOP + 7, 11)])
def test_every_whole_window_gives_its_embedding(embedder, params, samples, count):
    audio = noise(samples)
    got = embedder(audio)
    assert got.shape == (count, 3) and got.dtype == np.float32
    np.testing.assert_allclose(got, one_at_a_time(params, audio), atol=1e-4)


def test_short_and_empty_audio_count_as_one_window(embedder, params):
    np.testing.assert_allclose(embedder(noise(50)), one_at_a_time(params, noise(50)), atol=1e-4)
    assert embedder(np.zeros(0, np.float32)).shape == (1, 3)


def test_double_precision_audio_gives_the_same(embedder):
    audio = noise(WINDOW + 3 * HOP)
    np.testing.assert_array_equal(embedder(audio.astype(np.float64)), embedder(audio))


def test_blocks_are_whole_windows_and_bounded():
    audio = noise(WINDOW + 10 * HOP + 7)
    blocks = list(window_blocks(audio, window=WINDOW, hop=HOP, most=4))
    assert [n for _, n in blocks] == [4, 4, 3]
    assert all(len(block) == WINDOW + (n - 1) * HOP for block, n in blocks)
    for i, (block, _) in enumerate(blocks):
        np.testing.assert_array_equal(block, audio[4 * i * HOP:][:len(block)])


def test_few_sizes_are_compiled():
    assert [compiled_size(n, 32) for n in (1, 2, 3, 5, 16, 17, 32)] == [1, 2, 4, 8, 16, 32, 32]
    assert compiled_size(9, 12) == 12
    assert all(n <= compiled_size(n, 32) < 2 * n for n in range(1, 33))


def test_what_they_say_of_themselves(params):
    network = VGGishEmbedder(params, NETWORK, MEL)
    tagger = TaggerEmbedder(Tagging(), params)
    for embedder in (network, tagger):
        assert embedder.dim == 3 and embedder.sample_rate == 4000
        assert "\n" not in embedder.settings and "0.095 s every 0.06 s at 4000 Hz" in embedder.settings
        assert weights_digest(params) in embedder.settings
    assert (network.name, network.stand_in) == ("vggish", False)
    assert (tagger.name, tagger.stand_in) == ("tagger", True)
    assert "before ReLU" in network.settings
    after = dataclasses.replace(NETWORK, final_activation=True)
    assert "after ReLU" in VGGishEmbedder(params, after, MEL).settings
    assert (VGGishEmbedder(params, after, MEL)(noise(WINDOW + 9 * HOP)) >= 0).all()


def test_weights_that_differ_have_other_digests(params):
    other = jax.tree.map(lambda x: x + 1e-3, params)
    assert weights_digest(params) != weights_digest(other)
    assert weights_digest(params) == weights_digest(jax.tree.map(np.asarray, params))


def test_published_settings_fit_each_other():
    with pytest.raises(ValueError, match="patches"):
        VGGishEmbedder({}, NETWORK)
    embedder = VGGishEmbedder({})
    assert (embedder.dim, embedder.sample_rate) == (128, 16000)


def test_bad_audio_is_refused(embedder):
    with pytest.raises(UserError, match="one channel"):
        embedder(np.zeros((100, 2), np.float32))
    with pytest.raises(UserError, match="NaN"):
        embedder(np.full(500, np.nan, np.float32))


def test_a_tagger_whose_front_end_is_another_is_refused(params):
    @dataclasses.dataclass(frozen=True)
    class Odd(Tagging):
        def embed(self, params, audio):
            return super().embed(params, audio)[:, ::2]

    with pytest.raises(UserError, match="front end"):
        TaggerEmbedder(Odd(), params)(noise(WINDOW + 3 * HOP))
