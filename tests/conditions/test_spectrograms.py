"""Conditions that are spectrograms, and none."""

import dataclasses

import numpy as np
import pytest
from reference.excerpts import CODECS, MELS, InMemory, excerpt_of, random_notes

from music_diffusion.audio.waveform import Waveform
from music_diffusion.conditions.base import Source
from music_diffusion.conditions.spectrograms import Nothing, SourceSpectrogram, StyleSpectrogram
from music_diffusion.data.records import Record
from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes

CODEC = CODECS[0]


def spectrogram(frames, seed=0):
    return np.random.default_rng(seed).uniform(CODEC.log_min, CODEC.log_max, (frames, MELS)).astype(
        np.float16)


def record(frames, seed=0, **more):
    return Record(mel=spectrogram(frames, seed), notes=Notes.empty(), **more)


def test_rendering_has_the_source_of_training():
    source = spectrogram(50, 1)
    known = record(50, source=source)
    rendered = SourceSpectrogram().of_piece(
        Source(codec=CODEC, frames=50, mel=source.astype(np.float32)), {})
    assert rendered.frames == 50
    firsts = [0, 7, 40, 49]
    got = rendered.windows(firsts, 16)
    assert got.keys() == {"source"} and got["source"].shape == (4, 16, MELS)
    for number, first in enumerate(firsts):
        want = SourceSpectrogram().of_record(excerpt_of(known, first, 16))["source"]
        np.testing.assert_allclose(got["source"][number], want, atol=1e-6)
        assert got["source"].dtype == want.dtype == np.float32
        inside = CODEC.scale(source[first:first + 16].astype(np.float32))
        np.testing.assert_allclose(want[:50 - first], inside, atol=1e-6)
        np.testing.assert_allclose(want[50 - first:], -1, atol=1e-6)
    np.testing.assert_allclose(rendered.windows([50, 70], 16)["source"], -1, atol=1e-6)


def test_a_recording_becomes_its_spectrogram():
    wave = Waveform(np.random.default_rng(0).uniform(-0.5, 0.5, 4000).astype(np.float32), CODEC.sample_rate)
    source = SourceSpectrogram().open(wave, CODEC, tail=2.0)  # what is heard after notes plays no part
    np.testing.assert_array_equal(source.mel, CODEC.encode(wave.samples))
    assert source.frames == len(source.mel) == 13
    assert SourceSpectrogram().open(source, CODEC, 2.0) is source


def test_a_second_timbre_must_be_there():
    assert set(SourceSpectrogram().needs) == {"source"}
    with pytest.raises(UserError, match="memory: its records have no second timbre; prepare"):
        SourceSpectrogram().of_record(excerpt_of(record(20), 0, 8))
    with pytest.raises(ValueError, match="no recording"):
        SourceSpectrogram().of_piece(Source(codec=CODEC, frames=8), {}).windows([0], 8)


def test_style_is_of_another_record():
    records = InMemory(records=[record(30, 0), record(30, 1, labels={"style": "jazz"})],
                       classes={"style": ("folk", "jazz")})
    example = StyleSpectrogram().of_record(records.excerpt(1, 4, 16))
    np.testing.assert_allclose(
        example["style"], CODEC.scale(records.records[0].mel[:16].astype(np.float32)), atol=1e-6)
    assert example["style_label"] == 1 and example["style_label"].dtype == np.int32
    # The set draws where it begins.
    rng = np.random.default_rng(3)
    first = int(np.random.default_rng(3).integers(5))
    drawn = StyleSpectrogram().of_record(records.excerpt(1, 4, 16, rng=rng))["style"]
    np.testing.assert_allclose(
        drawn, CODEC.scale(records.records[0].mel[first:first + 16].astype(np.float32)), atol=1e-6)
    # A shorter record is followed by silence.
    short = dataclasses.replace(records, records=[record(10, 0), records.records[1]])
    style = StyleSpectrogram().of_record(short.excerpt(1, 4, 16))["style"]
    np.testing.assert_allclose(style[10:], -1, atol=1e-6)
    assert style.shape == (16, MELS) and style.dtype == np.float32


def test_styles_must_be_there():
    assert set(StyleSpectrogram().needs) == {"style"}
    with pytest.raises(UserError, match="folder: its records have no style"):
        StyleSpectrogram().check({"performance": ["a"]}, "folder")
    classes = {"style": ["folk"]}
    assert StyleSpectrogram().check(classes, "folder") == classes
    with pytest.raises(UserError, match="memory: record 0 of train has no style"):
        StyleSpectrogram().of_record(excerpt_of(record(20), 0, 8, style=("folk",)))


def test_nothing_is_no_condition():
    nothing = Nothing()
    assert nothing.of_record(excerpt_of(record(20), 0, 8)) == {}
    assert not nothing.needs and nothing.mapped() is nothing and nothing.events is None
    assert nothing.check({"style": ["folk"]}, "folder") == {"style": ["folk"]}
    source = Source(codec=CODEC, frames=33)
    rendered = nothing.of_piece(nothing.open(source, CODEC, 2.0), {})
    assert rendered.frames == 33 and rendered.windows([0, 8], 16) == {}
    for given in (None, random_notes(1.0)):
        with pytest.raises(UserError, match="say how long"):
            nothing.open(given, CODEC, 2.0)
