"""Content drawn in a style: energies by hand, harmonics where they lie, what moves it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from music_diffusion.audio.codec import MelCodec
from music_diffusion.networks.note_timbre import harmonic_comb
from music_diffusion.networks.pitch_colours import FAINT, PitchColours, drawn
from music_diffusion.notes.activations import LOWEST_PITCH, NUM_PITCHES

CODEC = MelCodec()
NETWORK = PitchColours(CODEC, width=16, layers=1)
RNG = np.random.default_rng(0)


def energy(mel):
    return np.exp(2 * CODEC.unscale(np.asarray(mel, np.float64)))


def content(pitches, onset=0.0, level=1.0):
    """A frame for each pitch, which alone is heard in it; log-mel of `level` nat on average."""
    heard = np.zeros((len(pitches), 2, NUM_PITCHES), np.float32)
    heard[np.arange(len(pitches)), 1, np.array(pitches) - LOWEST_PITCH] = 1.0
    heard[np.arange(len(pitches)), 0, np.array(pitches) - LOWEST_PITCH] = onset
    levels = np.full((len(pitches), 1), CODEC.scale(np.float32(level)))
    return np.concatenate([heard.reshape(len(pitches), -1), levels], axis=-1)[None].astype(np.float32)


@pytest.fixture(scope="module")
def params():
    return NETWORK.init(jax.random.key(0), jnp.zeros((1, 5)), jnp.zeros((1, 1, 2 * NUM_PITCHES + 1)))


def test_energy_is_shared_by_what_is_heard():
    strength, loud = RNG.uniform(0, 1, (1, 4, 3)), RNG.uniform(1, 9, (1, 4, 1))
    colour = RNG.dirichlet(np.ones(CODEC.mels), size=(1, 3))
    made = energy(drawn(*(jnp.asarray(x, jnp.float32) for x in (strength, colour, loud)), CODEC))
    want = np.stack([sum(s * c for s, c in zip(strength[0, t], colour[0], strict=True)) * loud[0, t]
                     / (strength[0, t].sum() + FAINT) for t in range(4)])
    np.testing.assert_allclose(made[0], np.maximum(want, CODEC.clip_min**2), rtol=1e-3)


def test_a_pitch_has_its_harmonics_and_the_content_s_level(params):
    pitches = [33, 57, 69, 81]
    output = jax.tree.map(jnp.zeros_like, params["params"]["output"])  # equal harmonics
    even = {"params": params["params"] | {"output": output}}
    made = NETWORK.apply(even, jnp.ones((1, 5)), content(pitches))[0]
    for row, pitch in zip(np.asarray(made), pitches, strict=True):
        near = {p: np.corrcoef(row, harmonic_comb(CODEC)[p])[0, 1] for p in range(pitch - 3, pitch + 4)}
        assert max(near, key=near.get) == pitch and near[pitch] > 0.9
        assert energy(row).mean() == pytest.approx(np.exp(2 * 1.0), rel=0.03)  # FAINT takes a hundredth


def test_silence_is_drawn_as_silence_and_the_style_changes_the_sound(params):
    nothing = content([60])
    nothing[..., :-1] = 0
    made = NETWORK.apply(params, jnp.ones((1, 5)), nothing)
    np.testing.assert_allclose(CODEC.unscale(np.asarray(made)), np.log(CODEC.clip_min), atol=1e-3)
    one, other = (np.asarray(NETWORK.apply(params, jnp.asarray(RNG.normal(size=(1, 5)), jnp.float32),
                                           content([60, 72]))) for _ in range(2))
    assert np.abs(one - other).max() > 0.01
    sounding, begun = (np.asarray(NETWORK.apply(params, jnp.ones((1, 5)), content([60], onset=x)))
                       for x in (0.0, 1.0))
    assert np.abs(sounding - begun).max() > 0.01  # an onset has a colour of its own


def test_every_parameter_learns(params):
    def loss(p):
        seen = content([40, 60, 80], onset=0.5)
        return jnp.sum(jnp.square(NETWORK.apply(p, jnp.ones((1, 5)), seen)))

    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.grad(loss)(params)["params"]):
        assert float(jnp.abs(leaf).max()) > 0, path
