import dataclasses

import pytest
from reference.tiny_release import MODEL as FRAME

from music_diffusion.audio.griffin_lim import GriffinLim
from music_diffusion.errors import UserError
from music_diffusion.models.spectrogram_diffusion import SpectrogramDiffusionModel
from music_diffusion.networks.performance import PerformanceConfig
from music_diffusion.networks.transformer import T5Config
from music_diffusion.synthesis.choose_joining import choose_joining
from music_diffusion.synthesis.context import ChainJoining
from music_diffusion.synthesis.joining import Windows
from music_diffusion.synthesis.overlap import OverlapJoining
from music_diffusion.synthesis.settings import RenderSettings
from music_diffusion.synthesis.synthesizer import Synthesizer

SIZES = {"embed_dim": 8, "num_heads": 1, "head_dim": 8, "mlp_dim": 8, "encoder_layers": 1,
         "decoder_layers": 1}
CONTEXT, PLAIN = (SpectrogramDiffusionModel(config=T5Config(**SIZES, context=c)) for c in (True, False))


def chosen(model, **settings):
    return choose_joining(model, RenderSettings(**settings))


def test_without_settings_models_are_joined_as_they_were():
    for model, joining, name in (
            (FRAME, OverlapJoining(), "overlap"), (CONTEXT, ChainJoining(context=True), "context"),
            (PLAIN, ChainJoining(context=False), "separate")):
        assert chosen(model) == choose_joining(model) == joining and joining.name == name


def test_token_models_with_performances_and_no_context_overlap():
    for context, want in ((False, OverlapJoining()), (True, ChainJoining())):
        config = T5Config(**SIZES, context=context, performances=PerformanceConfig(count=2))
        assert chosen(SpectrogramDiffusionModel(config=config)) == want


def test_segments_of_token_models_are_as_long_as_they_have_learned():
    for context, asked, want in (
            (True, None, ChainJoining(frames=128)),
            (True, "overlap", OverlapJoining(windows=Windows(frames=128, overlap=32))),
            (False, None, ChainJoining(frames=128, context=False))):
        config = T5Config(**SIZES, context=context, frames=128, context_frames=128)
        assert chosen(SpectrogramDiffusionModel(config=config), joining=asked) == want


def test_what_is_asked_for_is_given_and_own_choices_stay():
    assert chosen(CONTEXT, joining="overlap") == chosen(PLAIN, joining="overlap") == OverlapJoining()
    assert chosen(CONTEXT, joining="context") == ChainJoining()
    own = OverlapJoining(windows=Windows(frames=64, overlap=32, group=2))
    synthesizer = Synthesizer(name="own", model=FRAME, params={}, inverter=GriffinLim(), joining=own)
    for settings in (RenderSettings(), RenderSettings(seed=3), RenderSettings(joining="overlap")):
        assert synthesizer.joining_of(settings) is own
    assert synthesizer.joining_of(RenderSettings(segment=2.56)).windows.frames == 128
    overlapping = dataclasses.replace(synthesizer, model=CONTEXT, joining=OverlapJoining())
    assert overlapping.joining_of(RenderSettings(joining="context")) == ChainJoining()


def test_seconds_become_the_nearest_whole_blocks_of_frames():
    windows = chosen(FRAME, overlap=1.2, segment=6.0).windows
    assert windows == Windows(frames=288, overlap=64, group=4)  # 6 s are 300 frames, 1.2 s are 60
    assert chosen(FRAME, overlap=0.1).windows == Windows(frames=256, overlap=32)
    assert chosen(CONTEXT, joining="overlap", overlap=2.5).windows == Windows(frames=256, overlap=128)


@pytest.mark.parametrize("model, settings, reason", [
    (FRAME, {"joining": "context"}, "reads no context; use --joining overlap"),
    (PLAIN, {"joining": "context"}, "reads no context; use --joining overlap"),
    (CONTEXT, {"overlap": 1.0}, "joined by context; give --joining overlap too"),
    (CONTEXT, {"joining": "overlap", "segment": 3.0}, "segments are 5.12 s; leave it out"),
    (CONTEXT, {"joining": "overlap", "overlap": 3.0}, "at most half of a segment, which has 5.12 s"),
    (FRAME, {"overlap": 2.0, "segment": 2.0}, "at most half of a segment, which has 1.92 s"),
    (FRAME, {"joining": "mixing"}, "unknown; choose overlap or context"),
    (FRAME, {"overlap": 0.0}, "--overlap 0: give seconds above 0"),
    (FRAME, {"segment": float("nan")}, "--segment nan")])
def test_what_cannot_be_is_a_one_line_error(model, settings, reason):
    with pytest.raises(UserError, match=reason) as error:
        chosen(model, **settings)
    assert "\n" not in str(error.value)


def test_settings_are_checked_when_they_are_made():
    with pytest.raises(UserError, match="--joining mixing"):
        RenderSettings(joining="mixing")
