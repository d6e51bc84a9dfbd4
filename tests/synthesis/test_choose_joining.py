import numpy as np
import pytest
from music_diffusion.synthesis.token_overlap import TokenOverlapJoining
from reference.tiny_release import MODEL as FRAME

from music_diffusion.errors import UserError
from music_diffusion.models.spectrogram_diffusion import SpectrogramDiffusionModel
from music_diffusion.networks.performance import PerformanceConfig
from music_diffusion.networks.transformer import T5Config
from music_diffusion.synthesis import context as context_module
from music_diffusion.synthesis.choose_joining import JoiningOptions, default_joining
from music_diffusion.synthesis.context import ContextJoining
from music_diffusion.synthesis.joining import Windows
from music_diffusion.synthesis.overlap import OverlapJoining
from music_diffusion.synthesis.synthesizer import Settings

SIZES = {"embed_dim": 8, "num_heads": 1, "head_dim": 8, "mlp_dim": 8, "encoder_layers": 1,
         "decoder_layers": 1}
CONTEXT, PLAIN = (SpectrogramDiffusionModel(config=T5Config(**SIZES, context=c)) for c in (True, False))


def applied(model, **options):
    return JoiningOptions(**options).apply(default_joining(model), model)


def test_without_options_models_are_joined_as_they_were():
    for model, joining, name in (
            (FRAME, OverlapJoining(), "overlap"), (CONTEXT, ContextJoining(), "context"),
            (PLAIN, ContextJoining(), "separate")):
        assert applied(model) == default_joining(model) == joining and joining.name(model) == name
    assert default_joining(object()) is None


def test_token_models_with_performances_and_no_context_overlap():
    for context, want in ((False, TokenOverlapJoining), (True, ContextJoining)):
        config = T5Config(**SIZES, context=context, performances=PerformanceConfig(count=2))
        assert type(default_joining(SpectrogramDiffusionModel(config=config))) is want


def test_what_is_asked_for_is_given_and_own_choices_stay():
    assert applied(CONTEXT, joining="overlap") == applied(PLAIN, joining="overlap") == TokenOverlapJoining()
    assert applied(CONTEXT, joining="context") == ContextJoining()
    own = OverlapJoining(windows=Windows(frames=64, overlap=32, group=2))
    assert JoiningOptions(joining="overlap").apply(own, FRAME) is own
    chained = JoiningOptions(joining="context").apply(TokenOverlapJoining(), CONTEXT)
    assert chained == ContextJoining()


def test_seconds_become_the_nearest_whole_blocks_of_frames():
    windows = applied(FRAME, overlap=1.2, segment=6.0).windows
    assert windows == Windows(frames=288, overlap=64, group=4)  # 6 s are 300 frames, 1.2 s are 60
    assert applied(FRAME, overlap=0.1).windows == Windows(frames=256, overlap=32)
    assert applied(CONTEXT, joining="overlap", overlap=2.5) == TokenOverlapJoining(overlap=128)


@pytest.mark.parametrize("model, options, reason", [
    (FRAME, {"joining": "context"}, "reads no context; use --joining overlap"),
    (PLAIN, {"joining": "context"}, "reads no context; use --joining overlap"),
    (CONTEXT, {"overlap": 1.0}, "joined by context; give --joining overlap too"),
    (CONTEXT, {"joining": "overlap", "segment": 3.0}, "segments are 5.12 s; leave it out"),
    (CONTEXT, {"joining": "overlap", "overlap": 3.0}, "at most half of a segment, which has 5.12 s"),
    (FRAME, {"overlap": 2.0, "segment": 2.0}, "at most half of a segment, which has 1.92 s"),
    (FRAME, {"joining": "mixing"}, "unknown; choose overlap or context"),
    (FRAME, {"overlap": 0.0}, "--overlap 0: give seconds above 0"),
    (FRAME, {"segment": float("nan")}, "--segment nan")])
def test_what_cannot_be_is_a_one_line_error(model, options, reason):
    with pytest.raises(UserError, match=reason) as error:
        applied(model, **options)
    assert "\n" not in str(error.value)


def test_settings_are_checked_when_they_are_made():
    with pytest.raises(UserError, match="--joining mixing"):
        Settings(joining="mixing")


def test_context_chaining_passes_the_performance(monkeypatch):
    seen = []

    def predict(model, params, batch, key):
        seen.append(batch["performance"])
        return np.zeros((1, 256, 128), np.float32)

    monkeypatch.setattr(context_module, "_predict", predict)
    monkeypatch.setattr(context_module, "tokens_from", lambda *_: None)
    list(ContextJoining().stream(CONTEXT, {}, None, 300, 0, performance=np.array([0.25, 0.75])))
    assert len(seen) == 2 and all((w == np.float32([[0.25, 0.75]])).all() for w in seen)
