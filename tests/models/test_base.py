"""What members can do, and the answers of those that cannot."""

import pytest
from reference.tiny_inverter import MODEL as INVERTER
from reference.tiny_release import MODEL as FRAME
from reference.tiny_transcriber import MODEL as TRANSCRIBER
from reference.toy_generator import Dice

from music_diffusion.diffusion.sampling import UniformTime
from music_diffusion.diffusion.solvers import DDIM
from music_diffusion.errors import UserError
from music_diffusion.models.adaptation import AdaptationModel
from music_diffusion.models.base import (
    Generator,
    GeneratorBase,
    Invertible,
    ModelBase,
    NoteMapped,
    Sampling,
    SegmentLength,
    Tagging,
    Transcribing,
)
from music_diffusion.models.note_timbre import NoteTimbreModel
from music_diffusion.models.phase_vocoder import PhaseVocoderModel
from music_diffusion.models.spectrogram_diffusion import SpectrogramDiffusionModel
from music_diffusion.models.tagger import TaggerModel
from music_diffusion.networks.transformer import T5Config

TOKENS = SpectrogramDiffusionModel(config=T5Config(
    embed_dim=8, num_heads=1, head_dim=8, mlp_dim=8, encoder_layers=1, decoder_layers=1))
ABILITIES = (Generator, NoteMapped, Invertible, Transcribing, Tagging)


@pytest.mark.parametrize("model, abilities", [
    (FRAME, (Generator, NoteMapped)), (TOKENS, (Generator,)), (INVERTER, (Invertible,)),
    (PhaseVocoderModel, (Invertible,)), (TRANSCRIBER, (Transcribing,)), (TaggerModel, (Tagging,)),
    (NoteTimbreModel(), ()), (FRAME.map_model(), ()), (AdaptationModel(model=FRAME), ()),
    (ModelBase(), ())],
    ids=lambda x: getattr(x, "__name__", type(x).__name__))
def test_every_member_has_its_abilities_and_no_others(model, abilities):
    if isinstance(model, type):  # whose configuration has no small default
        model = object.__new__(model)
    assert tuple(a for a in ABILITIES if isinstance(model, a)) == abilities


def test_a_model_that_says_nothing_is_trained_whole_knows_one_sound_and_stays_as_it_is():
    model, params = ModelBase(), {"a": 1}
    assert model.frozen == () and model.feature_shapes == {} and model.performances is None
    assert model.training_only == {}
    assert model.adopt({"b": 2}, params) is params and model.released_params(params) is params
    with pytest.raises(UserError, match="ModelBase without performances cannot be adapted"):
        model.one_more_performance()


def test_a_generator_that_says_nothing_overlaps_segments_of_any_length():
    model = Dice()
    assert model.joinings == ("overlap",) and model.segment == SegmentLength(frames=256, multiple=1)
    assert model.sampling == Sampling() and model.sampled_by(Sampling()) is model


@pytest.mark.parametrize("sampling", [
    {"steps": 2}, {"solver": DDIM()}, {"grid": UniformTime()}, {"guidance": 1.0},
    {"performance_guidance": 2.0}], ids=str)
def test_what_a_generator_does_not_have_cannot_be_chosen(sampling):
    flag = next(iter(sampling)).replace("_", "-")
    with pytest.raises(UserError, match=f"--{flag} .*: a GeneratorBase has nothing") as error:
        GeneratorBase().sampled_by(Sampling(**sampling))
    assert "\n" not in str(error.value)
