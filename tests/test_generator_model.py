"""The generator that comes with the package: its licence, and that it makes more than noise like music."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from music_diffusion.models.weights import weight_files
from music_diffusion.synthesis import hub

pytestmark = pytest.mark.optimized
FOLDER = hub.weights_root() / "generator"
LICENCES = {"CC-BY-SA-3.0", "CC-BY-3.0", "public domain"}  # which CC BY-SA 3.0 may be made of


@pytest.fixture(scope="module")
def synthesizer():
    return hub.load("generator")


@pytest.fixture(scope="module")
def samples(synthesizer):
    """Scaled mel of two takes of each kind, and of a network that says nothing beyond the guess."""
    model, params = synthesizer.model, synthesizer.params
    kinds = np.repeat(np.eye(len(model.classes), dtype=np.float32), 2, axis=0)
    silent = {**params, "unet": jax.tree.map(jnp.zeros_like, params["unet"])}
    made = {name: np.asarray(jax.jit(model.predict_batch)(weights, {"class": kinds}, jax.random.key(3)))
            for name, weights in (("trained", params), ("silent", silent))}
    return made


def persistence(mel):
    """Correlation of bins, less their surroundings, with themselves 0.32 s later: tones that last."""
    smooth = np.apply_along_axis(np.convolve, -1, mel, np.ones(9) / 9, "same")
    detail = (mel - smooth)[..., 8:100]
    detail = detail - detail.mean(1, keepdims=True)
    return np.corrcoef(detail[:, :-16].ravel(), detail[:, 16:].ravel())[0, 1]


def test_its_card_says_the_licence_and_whom_to_credit():
    lines = (FOLDER / "README.md").read_text(encoding="utf-8").split("---")[1].strip().splitlines()
    front = dict(line.split(": ", 1) for line in lines)
    assert front["license"] == "cc-by-sa-3.0"
    with open(FOLDER / front["credits"], newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 115 and {row["licence"] for row in rows} == LICENCES
    assert all(row["file"] and row["package"] and row["credit"] for row in rows)
    assert {row["class"] for row in rows} == {"drums", "electronic", "industrial", "orchestral"}
    assert sum(path.stat().st_size for path in weight_files(FOLDER / "weights.safetensors")) < 24e6


def test_tones_last_which_the_linear_guess_does_not_know(samples):
    assert abs(persistence(samples["silent"])) < 0.03 < 0.1 < persistence(samples["trained"])


def test_it_has_the_spread_of_its_music(samples, synthesizer):
    # Deviation of the training music about its mean frame, which the statistics hold. Of three
    # draws of eight takes it was 0.97, 0.94 and 0.84 of that.
    statistics = synthesizer.params["statistics"]
    wanted = np.sqrt(np.mean(np.square(statistics["std"])))
    mean = np.asarray(statistics["mean"]).reshape(-1, 128).mean(0)
    found = np.sqrt(np.mean(np.square(samples["trained"] - mean)))
    assert found == pytest.approx(wanted, rel=0.25)


def test_its_axes_are_orthonormal_as_stored(synthesizer):
    axes = np.asarray(synthesizer.params["statistics"]["axes"], np.float64)
    np.testing.assert_allclose(axes.T @ axes, np.eye(len(axes)), atol=2e-3)
