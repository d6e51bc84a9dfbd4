"""The tagger: losses and accuracies by hand, embeddings patch by patch, a tiny batch learned."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util
from reference import compiled
from reference.compiled import eval_fn, predict

from music_diffusion.audio.vggish_mel import VGGishMel
from music_diffusion.errors import UserError
from music_diffusion.models.base import split_variables
from music_diffusion.models.tagger import ROOMS, TaggerModel, _contrast
from music_diffusion.networks.vggish import VGGishConfig

FRONT = VGGishMel(sample_rate=4000, hop=40, window=100, fft=128, mels=8, fmin=60.0, fmax=2000.0,
                  patch_frames=8, patch_hop=8)
FONTS = ("a.sf2", "b.sf3")
MODEL = TaggerModel(fonts=FONTS, front=FRONT, network=VGGishConfig(
    frames=8, mels=8, channels=((8,), (12,)), hidden=(16,), embedding=6))
PATCH, HOP = FRONT.patch_samples, FRONT.patch_hop_samples
CLASSES = 35
RNG, ADAM = jax.random.key(0), optax.adam(0.01)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Said(TaggerModel):
    """Says its parameters of every patch."""

    def hear(self, params, audio):
        return params


SAID = Said(fonts=FONTS, front=FRONT, network=MODEL.network, font_weight=2.0, room_weight=3.0)


@functools.cache
def variables():
    return split_variables(compiled.init(MODEL, MODEL.feature_shapes, RNG))


@functools.cache
def batch():
    """A low tone, a high tone and noise."""
    time = np.arange(PATCH) / FRONT.sample_rate
    audio = np.stack([0.5 * np.sin(2 * np.pi * 200 * time), 0.5 * np.sin(2 * np.pi * 1500 * time),
                      0.3 * np.random.default_rng(0).normal(size=PATCH)]).astype(np.float32)
    instruments = np.zeros((3, CLASSES), np.float32)
    instruments[0, [0, 3]] = instruments[1, 20] = instruments[2, 34] = 1
    return {"audio": audio, "instruments": instruments, "font": np.array([0, 1, -1], np.int32),
            "room": np.array([3, -1, 0], np.int32)}


def logits(seed=0):
    """Of two patches each; the second does not count."""
    rng = np.random.default_rng(seed)
    return {name: 2 * rng.normal(size=(3, 2, size)).astype(np.float32)
            for name, size in (("instruments", CLASSES), ("font", 2), ("room", 4))}


@jax.jit
def judge(said, batch):
    """(loss, parts), and the gradient by what is said."""
    return jax.value_and_grad(SAID.loss_fn, has_aux=True)(said, batch, RNG)


def test_init_gives_parameters_and_their_logical_axes():
    params, axes = (traverse_util.flatten_dict(x) for x in variables())
    assert {k: len(v) for k, v in axes.items()} == {k: v.ndim for k, v in params.items()}
    assert {k: params[k, "kernel"].shape for k in ("instruments", "font", "room")} == {
        "instruments": (6, CLASSES), "font": (6, 2), "room": (6, len(ROOMS))}


@pytest.mark.parametrize("samples, patches", [
    (0, 1), (PATCH + HOP - 1, 1), (PATCH + 3 * HOP + 5, 4)])
def test_patches_are_embedded_one_by_one(samples, patches):
    audio = np.random.default_rng(0).normal(size=(2, samples)).astype(np.float32)
    got = jax.jit(MODEL.embed)(variables()[0], jnp.asarray(audio))
    assert got.shape == (2, patches, 6)
    for i in range(patches):
        alone = np.zeros((2, PATCH), np.float32)
        cut = audio[:, i * HOP:i * HOP + PATCH]
        alone[:, :cut.shape[1]] = cut
        want = predict(MODEL, variables()[0], {"audio": alone}, RNG)
        np.testing.assert_allclose(got[:, i], want[:, 0], atol=1e-5)
    assert patches < 2 or np.abs(got[:, 0] - got[:, 1]).max() > 0.01


def test_losses_and_accuracies_are_their_definitions():
    said = logits()
    (loss, parts), _ = judge(said, batch())
    first = {k: v[:, 0].astype(np.float64) for k, v in said.items()}
    p, t = 1 / (1 + np.exp(-first["instruments"])), batch()["instruments"]
    instruments = -(t * np.log(p) + (1 - t) * np.log(1 - p)).sum(1).mean()

    def named(name, rows):
        """Mean cross-entropy over the examples whose label is known."""
        share = np.exp(first[name]) / np.exp(first[name]).sum(1, keepdims=True)
        return -np.mean([np.log(share[i, batch()[name][i]]) for i in rows])

    font, room = named("font", (0, 1)), named("room", (0, 2))
    for name, want in (("instruments", instruments), ("font", font), ("room", room)):
        assert float(parts[name]) == pytest.approx(want, rel=1e-5)
    assert float(loss) == pytest.approx(instruments + 2 * font + 3 * room, rel=1e-5)


@pytest.mark.parametrize("best, fonts, rooms, accuracy", [
    ((3, 20, 34), (0, 1, 0), (3, 0, 0), (1, 1, 1)),  # unknown labels do not count
    ((3, 19, 34), (0, 0, 0), (3, 3, 3), (2 / 3, 0.5, 0.5)),
    ((1, 0, 0), (1, 0, 1), (0, 0, 1), (0, 0, 0))])
def test_accuracies_count_the_first_choices(best, fonts, rooms, accuracy):
    said = logits()
    for name, choice in (("instruments", best), ("font", fonts), ("room", rooms)):
        said[name][np.arange(3), 0, list(choice)] = 10
    (_, parts), _ = judge(said, batch())
    got = [float(parts[f"{name}_accuracy"]) for name in ("instrument", "font", "room")]
    assert got == pytest.approx(accuracy)


def test_unknown_labels_teach_nothing():
    _, slope = judge(logits(), batch())
    for name, known in (("font", (True, True, False)), ("room", (True, False, True)),
                        ("instruments", (True, True, True))):
        heard = np.abs(slope[name]).max(axis=2)
        np.testing.assert_array_equal(heard[:, 0] > 0, known)
        assert not heard[:, 1].any()  # the second patch
    nothing = np.full(3, -1, np.int32)
    (loss, parts), _ = judge(logits(), batch() | {"font": nothing, "room": nothing})
    assert loss == parts["instruments"] and parts["font"] == parts["room_accuracy"] == 0


@jax.jit
def descend(params, state, batch):
    (loss, parts), slope = jax.value_and_grad(MODEL.loss_fn, has_aux=True)(params, batch, RNG)
    updates, state = ADAM.update(slope, state, params)
    return optax.apply_updates(params, updates), state, loss, parts, slope


def test_a_head_without_labels_does_not_learn_and_every_other_does():
    params = variables()[0]
    for lacking, others in (("font", "room"), ("room", "font")):
        given = batch() | {lacking: np.full(3, -1, np.int32)}
        *_, slope = descend(params, ADAM.init(params), given)
        assert not any(g.any() for g in jax.tree.leaves(slope[lacking]))
        for name, g in traverse_util.flatten_dict(slope).items():
            assert name[0] == lacking or (np.isfinite(g).all() and np.abs(g).max() > 0), name
        assert np.abs(slope[others]["kernel"]).max() > 0


def test_a_tiny_batch_is_learned():
    params = variables()[0]
    state = ADAM.init(params)
    loss, parts = eval_fn(MODEL, params, batch(), jax.random.key(5))
    for i in range(100):
        params, state, last, parts, _ = descend(params, state, batch())
        assert i or last == pytest.approx(float(loss), rel=1e-5)  # evaluation is the same loss
    assert last < 0.1 * loss
    assert all(float(parts[f"{k}_accuracy"]) == 1 for k in ("instrument", "font", "room"))


@pytest.mark.parametrize("lacking", ["audio", "font"])
def test_missing_features_are_named(lacking):
    given = {k: v for k, v in batch().items() if k != lacking}
    with pytest.raises(UserError, match=f"no {lacking}"):
        MODEL.loss_fn(variables()[0], given, RNG)


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="fonts"):
        TaggerModel(fonts=())
    with pytest.raises(UserError, match="frames and mels"):
        dataclasses.replace(MODEL, front=VGGishMel())


TWO = dataclasses.replace(MODEL, heard=3, contrast_weight=0.7, level_db=6.0)


def crops(seed=0, count=4, seconds=5):
    rng = np.random.default_rng(seed)
    return {"audio": rng.normal(size=(count, seconds * PATCH)).astype(np.float32),
            "instruments": rng.integers(0, 2, (count, 3, CLASSES)).astype(np.float32),
            "font": np.array([0, 1, -1, 0], np.int32), "room": np.array([3, -1, 0, 1], np.int32)}


def contrast_by_loops(embedding, recording):
    """Mean of -log of the share that the recording's other patches have among all others."""
    n = len(embedding)
    square = np.array([[np.square(a - b).sum() for b in embedding] for a in embedding])
    apart = np.mean([square[i, j] for i in range(n) for j in range(n) if recording[i] != recording[j]])
    total, nearest = [], []
    for i in range(n):
        others = [j for j in range(n) if j != i]
        weights = {j: np.exp(-10 * square[i, j] / apart) for j in others}
        own = [j for j in others if recording[j] == recording[i]]
        total.append(np.mean([-np.log(weights[j] / sum(weights.values())) for j in own]))
        nearest.append(min(others, key=lambda j: square[i, j]) in own)
    return np.mean(total), np.mean(nearest)


def test_recordings_are_told_apart_by_their_first_last_and_middle_patch():
    params, given = variables()[0], crops()
    loss, parts = eval_fn(TWO, params, given, RNG)
    starts = (0, 2 * PATCH, 4 * PATCH)
    cut = [jax.jit(MODEL.hear)(params, jnp.asarray(given["audio"][:, at:at + PATCH])) for at in starts]
    said = {k: np.stack([np.asarray(c[k][:, 0]) for c in cut], 1) for k in cut[0]}  # [recording, patch]
    want, nearest = contrast_by_loops(said["embedding"].reshape(12, -1).astype(np.float64),
                                      np.repeat(np.arange(4), 3))
    # Squared distances are differences of float32 squares.
    assert float(parts["contrast"]) == pytest.approx(want, rel=1e-3)
    assert float(parts["nearest_accuracy"]) == pytest.approx(nearest)
    p, t = 1 / (1 + np.exp(-said["instruments"].astype(np.float64))), given["instruments"]
    instruments = -(t * np.log(p) + (1 - t) * np.log(1 - p)).sum(-1).mean()
    assert float(parts["instruments"]) == pytest.approx(instruments, rel=1e-4)
    assert float(loss) == pytest.approx(sum(w * float(parts[k]) for k, w in (
        ("instruments", 1), ("font", 1), ("room", 0.5), ("contrast", 0.7))), rel=1e-5)


def test_one_set_of_tags_counts_for_all_patches_of_a_crop():
    given = crops()
    given["instruments"] = given["instruments"][:, 0]
    each = given | {"instruments": np.repeat(given["instruments"][:, None], 3, axis=1)}
    assert float(eval_fn(TWO, variables()[0], given, RNG)[0]) == pytest.approx(
        float(eval_fn(TWO, variables()[0], each, RNG)[0]), rel=1e-6)


def test_patches_differ_in_level_in_training_alone():
    params, given = variables()[0], crops()
    rngs = jax.random.split(RNG, 3)
    losses = {float(jax.jit(TWO.loss_fn)(params, given, rng)[0]) for rng in rngs}
    assert len(losses) == 3
    assert len({float(eval_fn(TWO, params, given, rng)[0]) for rng in rngs}) == 1
    level = dataclasses.replace(TWO, level_db=0.0)
    assert float(jax.jit(level.loss_fn)(params, given, RNG)[0]) == pytest.approx(
        float(eval_fn(TWO, params, given, RNG)[0]), rel=1e-6)


def test_contrast_does_not_depend_on_the_scale_of_the_embedding():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(6, 5)), jnp.float32)
    recording = np.array([0, 0, 1, 1, 2, 2])
    a, b = _contrast(x, recording)[0], _contrast(30 * x, recording)[0]
    assert float(a) == pytest.approx(float(b), rel=1e-4)
    together = x.at[1::2].set(x[::2])  # patches of a recording are the same
    assert float(_contrast(together, recording)[0]) < 0.1 * float(a)
    assert float(_contrast(together, recording)[1]) == 1


@pytest.mark.parametrize("more", [{"heard": 0}, {"heard": 1, "contrast_weight": 0.5}])
def test_contrast_needs_two_patches(more):
    with pytest.raises(UserError, match="heard"):
        dataclasses.replace(MODEL, **more)


def test_crops_must_hold_the_patches():
    short = crops() | {"audio": np.zeros((4, PATCH - 1), np.float32)}
    with pytest.raises(UserError, match="RecordingSource.samples"):
        TWO.eval_fn(variables()[0], short, RNG)


@pytest.mark.parametrize("patches", [1, 2, 6])
def test_tags_are_of_the_patches_that_are_heard(patches):
    given = crops() | {"instruments": np.zeros((4, patches, CLASSES), np.float32)}
    with pytest.raises(UserError, match="TagTargets.patches"):
        TWO.eval_fn(variables()[0], given, RNG)
