"""The inverter's training: what is compared, the players' gradients, whole tiny runs."""

import dataclasses
import functools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import compiled
from reference.compiled import eval_fn, loss_fn, predict

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.spectral_loss import LinearSpectralLoss
from music_diffusion.errors import UserError
from music_diffusion.models.adversarial import (
    discriminator_hinge,
    feature_matching,
    generator_hinge,
)
from music_diffusion.models.base import split_variables
from music_diffusion.models.spectrogram_inverter import SpectrogramInverterModel, generator_input
from music_diffusion.models.weights import save_safetensors
from music_diffusion.networks.convnext import ConvNeXtConfig
from music_diffusion.networks.discriminators import (
    Discriminators,
    DiscriminatorsConfig,
    STFTDiscriminatorConfig,
    WaveDiscriminatorConfig,
)
from music_diffusion.networks.istft_head import ISTFTHeadConfig
from music_diffusion.networks.seanet import SEANetConfig
from music_diffusion.training.loop import TrainConfig, train
from music_diffusion.training.optimizers import PartOptimizer, adamw, by_part

CODEC = MelCodec(sample_rate=4000, hop=20, window=40, fft=64, mels=12, fmax=2000.0)
ISTFT = ISTFTHeadConfig(trunk=ConvNeXtConfig(dim=8, hidden=8, blocks=1, kernel=3), hop=20, mels=12,
                        upsample=2, fft=40, codec_window=40)
SEANET = SEANetConfig(channels=8, strides=(5, 4), dilations=(1,), mels=12)
JUDGES = DiscriminatorsConfig(
    stft=STFTDiscriminatorConfig(windows=(64,), hops=(16,), channels=(2, 4), strides=((1, 2),),
                                 stem_kernel=(3, 3)),
    wave=WaveDiscriminatorConfig(scales=1, channels=(2, 4), groups=(1,), kernel=5, stride=2))
SPECTRAL = LinearSpectralLoss(windows=(64,))
ALONE = SpectrogramInverterModel(codec=CODEC, generator=SEANET, spectral=SPECTRAL)
MODEL = dataclasses.replace(ALONE, discriminators=JUDGES, adversarial_weight=0.5, feature_weight=2.0)
RNG = jax.random.key(0)
SAMPLES = 600


def tones(size=2, samples=SAMPLES, seed=0):
    """Sines of random pitch and level."""
    rng = np.random.default_rng(seed)
    hertz, level = rng.uniform(100, 1500, (size, 1)), rng.uniform(0.05, 0.5, (size, 1))
    return (level * np.sin(2 * np.pi * hertz * np.arange(samples) / 4000)).astype(np.float32)


@functools.cache
def variables_of(model):
    return split_variables(compiled.init(model, key=RNG))


def params_of(model):
    return variables_of(model)[0]


def leaves(tree):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def test_mel_becomes_audio_of_its_length():
    audio = tones(samples=123)
    samples = predict(ALONE, params_of(ALONE), {"audio": audio}, RNG)
    assert samples.shape == (2, 7 * 20) and np.isfinite(samples).all()
    mel = np.stack([CODEC.encode(a) for a in audio])
    np.testing.assert_allclose(predict(ALONE, params_of(ALONE), {"mel": mel}, RNG), samples, atol=1e-4)
    with pytest.raises(UserError, match="no audio"):
        ALONE.predict_batch(params_of(ALONE), {}, RNG)


def test_the_other_generator_is_a_part_to_exchange():
    model = dataclasses.replace(MODEL, generator=ISTFT, trim_frames=0)
    batch = {"audio": tones()}
    params = jax.eval_shape(lambda: compiled.init(model, key=RNG))["params"]
    samples = jax.eval_shape(lambda p: model.predict_batch(p, batch, RNG), params)
    assert samples.shape == (2, SAMPLES)
    loss, metrics = jax.eval_shape(lambda p: model.loss_fn(p, batch, RNG), params)
    assert loss.shape == () and "discriminator" in metrics


def test_input_is_the_model_range_without_its_upper_limit():
    mel = np.array([CODEC.log_min, -3.0, CODEC.log_max, CODEC.log_max + 2])
    scaled = generator_input(CODEC, mel)
    np.testing.assert_allclose(scaled[:3], CODEC.scale(mel)[:3], atol=1e-6)
    assert scaled[3] > 1.2
    np.testing.assert_allclose(CODEC.unscale(scaled), mel, atol=1e-6)


@pytest.mark.slow
def test_parts_of_the_parameters():
    params, axes = variables_of(MODEL)
    assert set(params) == {"generator", "discriminator"} and set(params_of(ALONE)) == {"generator"}
    assert jax.tree.structure(params) == jax.tree.structure(axes, is_leaf=lambda x: type(x) is not dict)
    released = MODEL.released_params(params)
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (released, params_of(ALONE))]
    assert shapes[0] == shapes[1]  # what a model without discriminators has


@jax.jit
def by_hand(params, real, fake):
    """Metrics of MODEL for samples that are compared."""
    judge = functools.partial(Discriminators(JUDGES).apply, {"params": params})
    (real_logits, real_features), (fake_logits, fake_features) = judge(real), judge(fake)
    return {
        "spectral": SPECTRAL(real, fake, sample_rate=4000),
        "adversarial": generator_hinge(fake_logits),
        "feature": feature_matching(real_features, fake_features),
        "discriminator": discriminator_hinge(real_logits, fake_logits),
        "d_real": jnp.mean(jnp.stack([jnp.mean(x) for x in real_logits])),
        "d_fake": jnp.mean(jnp.stack([jnp.mean(x) for x in fake_logits]))}


def test_losses_are_those_of_both_players():
    params, batch = params_of(MODEL), {"audio": tones()}
    params = {**params, **params_of(ALONE)}
    loss, metrics = loss_fn(MODEL, params, batch, RNG)
    # Frames whose windows end in the segment, less the generator's context.
    frames, trim = (SAMPLES - 40) // 20 + 1, SEANET.context_frames
    mel = np.stack([CODEC.encode(a)[:frames] for a in batch["audio"]])
    fake = predict(ALONE, params_of(ALONE), {"mel": mel}, RNG)[:, trim * 20:(frames - trim) * 20]
    expected = by_hand(params["discriminator"], batch["audio"][:, trim * 20:(frames - trim) * 20], fake)
    assert set(metrics) == set(expected)
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(float(value), rel=1e-3, abs=1e-5), name
    total = (expected["spectral"] + 0.5 * expected["adversarial"] + 2 * expected["feature"]
             + expected["discriminator"])
    assert loss == pytest.approx(float(total), rel=1e-3)
    evaluated, its = eval_fn(ALONE, params_of(ALONE), batch, RNG)
    assert evaluated == its["spectral"] == pytest.approx(float(metrics["spectral"]), rel=1e-5)


@functools.partial(jax.jit, static_argnums=0)
def gradient(model, params, batch):
    return jax.grad(lambda p: model.loss_fn(p, batch, RNG)[0])(params)


@pytest.mark.slow
def test_each_player_has_its_own_gradient():
    params, batch = params_of(MODEL), {"audio": tones()}
    both = gradient(MODEL, params, batch)
    assert all(np.abs(leaves(both[part])).max() > 1e-4 for part in both)
    # The discriminator's is the same whatever the generator's weights in the sum.
    deaf = dataclasses.replace(MODEL, adversarial_weight=0.0, feature_weight=0.0)
    without = gradient(deaf, params, batch)
    np.testing.assert_allclose(leaves(without["discriminator"]), leaves(both["discriminator"]),
                               rtol=1e-4, atol=1e-6)
    # The generator's is that of the spectral loss alone, where the others do not count.
    alone = gradient(ALONE, {"generator": params["generator"]}, batch)
    np.testing.assert_allclose(leaves(without["generator"]), leaves(alone), rtol=1e-4, atol=1e-6)
    assert np.abs(leaves(both["generator"]) - leaves(alone)).max() > 1e-3


def test_silence_has_finite_gradients():
    silence = {"audio": np.zeros((2, SAMPLES), np.float32)}
    assert np.isfinite(leaves(gradient(MODEL, params_of(MODEL), silence))).all()


def test_only_samples_with_full_context_are_compared():
    """What lies before and after the segment cannot change what the loss compares."""
    longer = tones(samples=SAMPLES + 400)
    shift = 200
    part = longer[:, shift:shift + SAMPLES]
    frames, trim = (SAMPLES - 40) // 20 + 1, SEANET.context_frames
    whole = predict(ALONE, params_of(ALONE), {"audio": longer}, RNG)
    mel = np.stack([CODEC.encode(a)[:frames] for a in part])
    alone = predict(ALONE, params_of(ALONE), {"mel": mel}, RNG)
    first, last = trim * 20, (frames - trim) * 20
    np.testing.assert_allclose(alone[:, first:last], whole[:, shift + first:shift + last], atol=1e-4)
    assert np.abs(alone[:, :20] - whole[:, shift:shift + 20]).max() > 1e-3  # the edge differs


def test_a_segment_that_is_trimmed_away_is_an_error():
    for samples in (10, 2 * SEANET.context_frames * 20):
        with pytest.raises(UserError, match="trim_frames"):
            ALONE.loss_fn(params_of(ALONE), {"audio": tones(samples=samples)}, RNG)
    untrimmed = dataclasses.replace(ALONE, trim_frames=0)
    jax.eval_shape(untrimmed.loss_fn, params_of(ALONE), {"audio": tones(samples=100)}, RNG)
    with pytest.raises(UserError, match="no audio"):
        ALONE.loss_fn(params_of(ALONE), {"mel": np.zeros((1, 3, 12))}, RNG)


@pytest.mark.parametrize("fields, message", [
    ({"generator": dataclasses.replace(ISTFT, hop=40)}, "hop=40 is not the codec's 20"),
    ({"generator": dataclasses.replace(SEANET, mels=20)}, "mels=20 is not the codec's 12"),
    ({"generator": dataclasses.replace(ISTFT, codec_window=64)}, "codec_window=64"),
    ({"trim_frames": -1}, "trim_frames=-1"), ({"feature_weight": -1.0}, "feature_weight=-1"),
    ({"adversarial_weight": float("nan")}, "adversarial_weight=nan")])
def test_parts_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(ALONE, **fields)


def test_a_generator_learns():
    optimizer, batch = adamw(learning_rate=1e-2).transform, {"audio": tones()}
    params = params_of(ALONE)
    state, before = optimizer.init(params), eval_fn(ALONE, params, batch, RNG)[0]
    update = jax.jit(optimizer.update)
    for _ in range(60):
        updates, state = update(gradient(ALONE, params, batch), state, params)
        params = jax.tree.map(np.add, params, jax.device_get(updates))
    assert eval_fn(ALONE, params, batch, RNG)[0] < 0.7 * before


class Tones:
    """A data source (`training.loop.DataSource`) of made-up audio."""

    def __init__(self):
        self._next = 0

    def train_iterator(self, batch_size, seed, *, shard_index=0, shard_count=1):
        source = Tones()
        source._size = batch_size
        return source

    def __next__(self):
        self._next += 1
        return {"audio": tones(self._size, seed=self._next)}

    def get_state(self):
        return {"next": self._next}

    def set_state(self, state):
        self._next = state["next"]

    def eval_batches(self, batch_size):
        yield {"audio": tones(batch_size)}


def go(folder, **options):
    """Two steps, a checkpoint after each."""
    optimizer = by_part(parts={
        "generator": PartOptimizer(optimizer=adamw(learning_rate=1e-2, b1=0.5, b2=0.9), clip_norm=1.0),
        "discriminator": PartOptimizer(optimizer=adamw(learning_rate=1e-3, b1=0.5, b2=0.9))})
    config = TrainConfig(total_steps=2, batch_size=2, clip_norm=None, log_every=1, eval_every=0,
                         checkpoint_every=1)
    return train(model=MODEL, data=Tones(), optimizer=optimizer, model_dir=str(folder), config=config,
                 **options).state


@pytest.mark.slow
def test_a_run_begins_with_a_released_generator_and_resumes_exactly(tmp_path):
    released = jax.tree.map(lambda p: np.asarray(p) + 0.25, MODEL.released_params(params_of(MODEL)))
    save_safetensors(tmp_path / "weights", released, dtype="float32")
    whole = go(tmp_path / "whole", init_from=str(tmp_path / "weights"))
    shutil.copytree(tmp_path / "whole" / "checkpoints" / "1", tmp_path / "again" / "checkpoints" / "1")
    again = go(tmp_path / "again")
    np.testing.assert_array_equal(leaves(whole), leaves(again))
    begun = {**released, "discriminator": params_of(MODEL)["discriminator"]}
    for part, rate in (("generator", 1e-2), ("discriminator", 1e-3)):
        moved = np.abs(leaves(whole.params[part]) - leaves(begun[part])).max()
        assert 0.1 * rate < moved < 3 * rate  # two steps of Adam
