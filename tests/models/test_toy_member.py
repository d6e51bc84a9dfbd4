"""A member of the zoo in one file (CONTRIBUTING, "A member of your own"): sound turned upside down."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from flax.linen.partitioning import AxisMetadata

import music_diffusion
from music_diffusion import gin_setup
from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.waveform import Waveform
from music_diffusion.conditions.spectrograms import SourceSpectrogram
from music_diffusion.models.base import GeneratorBase
from music_diffusion.models.spaces import MelSpace
from music_diffusion.synthesis.release import release
from music_diffusion.synthesis.settings import RenderSettings
from music_diffusion.train import main


@gin_setup.register
@dataclasses.dataclass(frozen=True, kw_only=True)
class UpsideDownModel(GeneratorBase):
    """High bins become low ones; what it learns is a gain of each. Implements `models.base.Generator`."""

    codec: MelCodec = MelCodec()  # of the spectrograms
    conditions = SourceSpectrogram()

    @property
    def space(self):
        return MelSpace(codec=self.codec)

    def init(self, rng, shapes):
        return {"params": {"gain": jnp.zeros(self.codec.mels)},
                "params_axes": {"gain_axes": AxisMetadata(names=("mel",))}}

    def loss_fn(self, params, batch, rng):
        loss = jnp.mean((self.predict_batch(params, batch, rng) - batch["targets"][..., ::-1]) ** 2)
        return loss, {"loss": loss}

    eval_fn = loss_fn

    def predict_batch(self, params, batch, rng, *, progress=None):
        return params["gain"][None, None] * batch["source"][..., ::-1]

    def sample(self, params, batch, z_T, rng, *, x0_hook=None, progress=None):
        x0 = self.predict_batch(params, batch, rng)
        return x0 if x0_hook is None else x0_hook(x0)


RECIPE = """
include 'runs/train.gin'
TOTAL_STEPS = 150
BATCH_SIZE = 2
train.model = @UpsideDownModel()
train.data = @SyntheticSource()
train.optimizer = @adamw()
SyntheticSource.frames = 8
SyntheticSource.conditions = @SourceSpectrogram()
adamw.learning_rate = 0.05
"""


def test_it_is_trained_released_opened_and_renders_recordings_of_any_length(tmp_path):
    (tmp_path / "recipe.gin").write_text(RECIPE)
    assert main([f"--gin_file={tmp_path / 'recipe.gin'}", f"--model_dir={tmp_path / 'run'}"]) == 0
    release(str(tmp_path / "run"), str(tmp_path / "mine"))
    synthesizer = music_diffusion.load(tmp_path / "mine", inverter="griffin_lim_hop")
    assert synthesizer.model == UpsideDownModel() and synthesizer.name == "mine"
    seconds = np.arange(5 * 16000) / 16000  # a tone that rises from 200 Hz to 2200 Hz
    rising = Waveform((0.1 * np.sin(2 * np.pi * (200 + 200 * seconds) * seconds)).astype(np.float32), 16000)
    settings = RenderSettings(segment=1.28, overlap=0.64)  # groups of 3.2 s
    mel = np.concatenate(list(synthesizer.stream_mel(rising, settings)))
    np.testing.assert_allclose(mel, MelCodec().encode(rising.samples)[:, ::-1], atol=0.1)
    assert len(synthesizer.synthesize(rising, settings)) == len(rising)
