"""Who plays what: the grammar, and what a tiny model makes of it."""

import dataclasses
import warnings

import numpy as np
import pytest
from reference import tiny_release
from reference.tiny_performances import MODEL, PERFORMANCES, tiny_params

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.griffin_lim import GriffinLim
from music_diffusion.conditions.base import Source
from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.programs import SLAKH_CLASSES
from music_diffusion.synthesis.joining import Windows
from music_diffusion.synthesis.overlap import OverlapJoining
from music_diffusion.synthesis.performance import parse_performance, sounding_together
from music_diffusion.synthesis.settings import RenderSettings
from music_diffusion.synthesis.synthesizer import Synthesizer

STUDIO, CHURCH, KIM, NONE = (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0)
JOINING = OverlapJoining(windows=Windows(frames=64, overlap=32, group=2))


def band(programs=(40, 0, 40, 57), drums=1):
    """A note each, then drums."""
    n = len(programs) + drums
    start = 0.5 * np.arange(n)
    return Notes(start, start + 0.2, 60 + np.arange(n), np.full(n, 90),
                 [*programs, *[0] * drums], [False] * len(programs) + [True] * drums)


def weights_of(text, program):
    """Of a program, or of drums (128)."""
    casting = parse_performance(text, PERFORMANCES)
    return casting.weights[casting.of_program[program]]


@pytest.mark.parametrize("text, weights", [
    (None, STUDIO), ("church", CHURCH), (" kim ", KIM), ("none", NONE),
    ("studio:0.7+church:0.3", (0.7, 0.3, 0)), ("studio+church", (0.5, 0.5, 0)),
    ("studio:2 + kim:6", (0.25, 0, 0.75)), ("kim+kim:3+church", (0, 0.2, 0.8)), ("rest=kim", KIM)])
def test_all_play_one_performance_or_mixture(text, weights):
    for program in (0, 40, 127, 128):
        np.testing.assert_allclose(weights_of(text, program), weights, rtol=1e-6)


@pytest.mark.parametrize("text, played", [
    # Classes, families and drums in any case; rest, else the default.
    ("violin=kim,piano=church,rest=none", {40: KIM, 0: CHURCH, 4: CHURCH, 6: CHURCH, 41: NONE, 128: NONE}),
    ("VIOLIN = kim", {40: KIM, 110: KIM, 41: STUDIO, 128: STUDIO}),  # a fiddle is nearest to it
    ("drums=kim,strings=church", {128: KIM, 0: STUDIO, 40: CHURCH, 47: CHURCH, 48: STUDIO}),
    # The most particular counts, whatever the order.
    ("40=studio,violin=kim,strings=church", {40: STUDIO, 110: KIM, 42: CHURCH}),
    ("strings=church,violin=kim,40=studio", {40: STUDIO, 110: KIM, 42: CHURCH}),
    ("acoustic piano=studio+kim,piano=church", {0: (0.5, 0, 0.5), 4: CHURCH}),
    ("Soprano/Alto Sax=kim,rest=church", {65: KIM, 66: CHURCH})])
def test_instruments_have_their_own(text, played):
    for program, weights in played.items():
        np.testing.assert_allclose(weights_of(text, program), weights, rtol=1e-6, err_msg=f"{program}")


def test_every_slakh_class_can_be_named():
    for slakh in SLAKH_CLASSES:
        for program in slakh.programs:
            assert weights_of(f"{slakh.name}=kim", program) == KIM


@pytest.mark.parametrize("text, reason", [
    ("sudio", "sudio: no such performance; did you mean studio"),
    ("", "no such performance"), ("studio+chruch", "did you mean church"),
    ("studio:much", "'much' is no number"), ("studio:0", "above 0"), ("studio:-1+kim", "above 0"),
    ("studio:nan", "above 0"), ("studio:inf", "above 0"), ("studio+none", "none: no such performance"),
    ("voilin=kim", "voilin=: no such instrument; did you mean Violin"), ("=kim", "no such instrument"),
    ("128=kim", "0 to 127"), ("violin=kim,rest=sudio", "did you mean studio"),
    ("violin=kim,studio", "'studio' names no instrument"), ("violin=kim,Violin=studio", "given twice"),
    ("zzz=kim", "there are .*drums, program numbers and rest"), ("rest=kim,rest=kim", "given twice")])
def test_mistakes_are_one_line_errors(text, reason):
    with pytest.raises(UserError, match=reason) as error:
        parse_performance(text, PERFORMANCES)
    assert "\n" not in str(error.value)


def test_parts_are_the_notes_by_performance():
    notes = band()
    parts = parse_performance("violin=kim,drums=kim,trombone=studio,rest=church", PERFORMANCES).parts(notes)
    assert sum(len(part.notes) for part in parts) == len(notes)
    got = {tuple(p.weights): (p.notes.program.tolist(), p.notes.is_drum.tolist()) for p in parts}
    assert got == {KIM: ([40, 40, 0], [False, False, True]), STUDIO: ([57], [False]),
                   CHURCH: ([0], [False])}


def test_instruments_without_notes_are_told_and_make_no_part():
    with pytest.warns(UserWarning, match="no notes for oboe"):
        (part,) = parse_performance("oboe=kim", PERFORMANCES).parts(band())
    assert tuple(part.weights) == STUDIO


def test_powers_add_and_silence_adds_nothing():
    codec = MelCodec()
    rng = np.random.default_rng(0)
    mels = [rng.uniform(-8, 3, (5, 4)) for _ in range(3)]
    magnitude = np.sqrt(sum(np.exp(m) ** 2 for m in mels))
    np.testing.assert_allclose(np.exp(sounding_together(mels, codec)), magnitude, rtol=1e-4)
    silent = np.full((5, 4), codec.log_min, np.float32)
    np.testing.assert_allclose(sounding_together([silent] * 7, codec), silent, atol=1e-6)
    np.testing.assert_allclose(sounding_together([mels[0], silent, silent], codec), mels[0], atol=1e-5)


@pytest.fixture(scope="module")
def synthesizer():
    return Synthesizer(name="tiny", model=MODEL, params=tiny_params(), tail=0.5, joining=JOINING,
                       inverter=GriffinLim(iterations=1, chunk_frames=32), performances=PERFORMANCES)


def mel(synthesizer, notes, **settings):
    return np.concatenate(list(synthesizer.stream_mel(notes, RenderSettings(seed=3, **settings))))


def with_weights(params, notes, weights, frames):
    """The spectrogram for given weights, past the Synthesizer."""
    source = Source(codec=MODEL.codec, frames=frames, notes=notes,
                    performance=np.asarray(weights, np.float32))
    piece = MODEL.conditions.of_piece(source, params)
    return MODEL.codec.unscale(np.concatenate(list(JOINING.stream(MODEL, params, piece, 3))))


@pytest.mark.slow
def test_names_and_mixtures_are_weights_of_the_table(synthesizer):
    notes = band()
    frames, default = synthesizer.frames_of(notes), mel(synthesizer, notes)
    for text, weights in (("church", CHURCH), ("studio:3+church:1", (0.75, 0.25, 0)), ("none", NONE)):
        got = mel(synthesizer, notes, performance=text)
        np.testing.assert_allclose(got, with_weights(synthesizer.params, notes, weights, frames), atol=1e-5)
        assert np.abs(got - default).max() > 0.05
    np.testing.assert_array_equal(mel(synthesizer, notes, performance="studio"), default)
    source = dataclasses.replace(synthesizer.source_of(notes), performance=np.float32(CHURCH))
    np.testing.assert_array_equal(mel(synthesizer, source), mel(synthesizer, notes, performance="church"))
    assert synthesizer.performance_of() == "studio"


@pytest.mark.slow
def test_none_is_the_sound_without_a_table(synthesizer):
    table = {"performances": {"embedding": np.zeros((3, 4), np.float32)}}
    params = {**synthesizer.params, **table, "timbre": {**synthesizer.params["timbre"], **table}}
    deaf = dataclasses.replace(synthesizer, params=params)
    np.testing.assert_allclose(mel(deaf, band(), performance="kim"),
                               mel(synthesizer, band(), performance="none"), atol=1e-5)


def test_instruments_are_rendered_apart_and_their_powers_add(synthesizer):
    notes, done = band(), []
    settings = RenderSettings(seed=3, performance="violin=kim,drums=church")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pieces = list(synthesizer.stream_mel(notes, settings, done.append))
    frames = synthesizer.frames_of(notes)
    assert len(pieces) > 1 and sum(map(len, pieces)) == frames
    violin, drums = notes.program == 40, notes.is_drum
    alone = [with_weights(synthesizer.params, notes[of], weights, frames) for of, weights in (
        (violin, KIM), (drums, CHURCH), (~violin & ~drums, STUDIO))]
    floor = MODEL.codec.clip_min ** 2
    power = sum(np.exp(2.0 * a) for a in alone) - 2 * floor
    np.testing.assert_allclose(np.concatenate(pieces), 0.5 * np.log(power), atol=1e-3)
    assert done == sorted(done) and done[-1] == 1


def test_guidance_of_the_performance_is_heard(synthesizer):
    guided = mel(synthesizer, band(), performance_guidance=3.0)
    assert np.abs(guided - mel(synthesizer, band())).max() > 0.01


@pytest.mark.parametrize("settings", [{"performance": "studio"}, {"performance_guidance": 1.5}], ids=str)
def test_a_model_without_performances_takes_none(settings):
    synthesizer = Synthesizer(name="plain", model=tiny_release.MODEL, params={}, joining=JOINING)
    with pytest.raises(UserError, match="knows no performances"):
        next(synthesizer.stream_mel(band(), RenderSettings(**settings)))
    assert synthesizer.performance_of() is None


def test_names_must_be_as_many_as_the_table_has_rows(synthesizer):
    fewer = dataclasses.replace(PERFORMANCES, performances=PERFORMANCES.performances[:2])
    for model, names in ((MODEL, None), (MODEL, fewer), (tiny_release.MODEL, PERFORMANCES)):
        with pytest.raises(UserError, match=r"names of performances for a model that has [03]"):
            dataclasses.replace(synthesizer, model=model, performances=names)
