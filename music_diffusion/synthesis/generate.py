"""Sound from noise: free, from a recording on, between two, in place of a part of one, and in circles."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float

from music_diffusion.audio.waveform import Waveform
from music_diffusion.conditions.base import Source
from music_diffusion.conditions.heard import LEVEL
from music_diffusion.conditions.regions import ClassAndRegion
from music_diffusion.errors import UserError
from music_diffusion.notes.heard import level
from music_diffusion.synthesis.edits import FADE, Stretch, remade, spliced
from music_diffusion.synthesis.hearing import style_of
from music_diffusion.synthesis.settings import RenderSettings
from music_diffusion.synthesis.synthesizer import Synthesizer
from music_diffusion.types import Progress

MOST_SECONDS, LEAST_SECONDS = 6 * 3600.0, 0.5  # that are made at once
LEAST_RECORDING = 0.2  # seconds, that is changed


def class_weights(synthesizer: Synthesizer, text: str | None) -> Float[np.ndarray, " K"] | None:
    """Reads NAME, or a mixture NAME:0.7+NAME:0.3, of a model's classes; None: none.

    Raises UserError: an unknown class (with the nearest names), or no weight above 0.
    """
    if text is None and synthesizer.model.restyles:
        return None
    conditions = _conditions(synthesizer)
    if text is None:
        return None
    weights = np.zeros(len(conditions.classes), np.float32)
    for part in text.split("+"):
        name, colon, share = part.partition(":")
        try:
            weight = float(share) if colon else 1.0
        except ValueError:
            weight = float("nan")
        number = conditions.number(name.strip())
        if not 0 <= weight < float("inf"):
            raise UserError(f"--class {text}: {share.strip()!r} is no weight; write NAME:0.7+NAME:0.3")
        weights[number] += weight
    if not weights.sum() > 0:
        raise UserError(f"--class {text}: the weights are 0; give one above")
    return weights / weights.sum()


def _conditions(synthesizer: Synthesizer) -> ClassAndRegion:
    conditions = synthesizer.model.conditions
    if not isinstance(conditions, ClassAndRegion):
        raise UserError(f"{synthesizer.name}: makes nothing from noise alone; use a model that was "
                        "trained to")
    return conditions


def free_source(synthesizer: Synthesizer, seconds: float, classes: str | None = None,
                style: str | None = None) -> Source:
    """Returns a source of nothing but a length, and perhaps a class or the style of a recording (a path).

    Raises UserError: a length out of its range, a class that the model does not know, a bad recording, or
    a style for a model that takes none, or none for one that does.
    """
    if synthesizer.model.restyles != (style is not None):
        raise UserError(f"{synthesizer.name}: " + ("say what it should sound like: --style RECORDING"
                        if style is None else "takes no style's recording; leave --style out"))
    if not LEAST_SECONDS <= seconds <= MOST_SECONDS:
        raise UserError(f"--seconds {seconds:g}: give from {LEAST_SECONDS:g} to {MOST_SECONDS:g} s")
    frames = int(np.ceil(seconds * synthesizer.codec.frame_rate))
    mel = None if style is None else style_of(style, synthesizer.codec)
    return Source(codec=synthesizer.codec, frames=frames, classes=class_weights(synthesizer, classes),
                  style=mel)


def continued(synthesizer: Synthesizer, wave: Waveform, seconds: float, *, classes: str | None = None,
              until: Waveform | None = None, settings: RenderSettings = RenderSettings(),
              progress: Progress | None = None) -> Waveform:
    """Returns a recording that goes on for so many seconds, and then into another one.

    Its own samples are as they were but for the last FADE / 2 seconds (and the first of the other).

    Args:
      synthesizer: from `load`.
      wave: the recording.
      seconds: that are made.
      classes: see `class_weights`.
      until: recording that is led to; None: nothing follows.
      settings: see `RenderSettings`.
      progress: takes the share that is done.

    Raises UserError: a recording shorter than the model's context, or silent; a length out of its range.
    """
    free_source(synthesizer, seconds, classes)  # its errors
    for recording in (wave, *([] if until is None else [until])):
        _check_length(synthesizer, recording)
    gap = np.zeros((round(seconds * wave.sample_rate), wave.channels), np.float32)
    parts = [wave.samples.reshape(len(wave), -1), gap]
    if until is not None:
        parts.append(_like(until, wave))
    samples = np.concatenate(parts)
    whole = Waveform(samples if wave.samples.ndim == 2 else samples[:, 0], wave.sample_rate)
    return edited(synthesizer, whole, Stretch(begin=wave.duration, end=wave.duration + seconds),
                  classes=classes, settings=settings, progress=progress)


def edited(synthesizer: Synthesizer, wave: Waveform, stretch: Stretch, *, classes: str | None = None,
           settings: RenderSettings = RenderSettings(), progress: Progress | None = None) -> Waveform:
    """Returns a recording in which a stretch, or a band of it, is made anew.

    Raises UserError: a stretch or band outside the recording, or a silent recording.
    """
    codec = synthesizer.codec
    weights = class_weights(synthesizer, classes)
    if stretch.end > wave.duration + 1 / wave.sample_rate:
        raise UserError(f"the stretch from {stretch.begin:g} to {stretch.end:g} s ends behind the "
                        f"recording, which has {wave.duration:.2f} s")
    if stretch.low >= codec.sample_rate / 2:
        raise UserError(f"the band begins at {stretch.low:g} Hz; this model makes sound up to "
                        f"{codec.sample_rate / 2:g} Hz")
    mono = wave.mono().resample(codec.sample_rate)
    _check_sound(mono)
    frames = codec.frames_of(len(mono))
    region = ~stretch.cells(frames, codec)
    if region.all():
        raise UserError("nothing of the spectrogram lies in the band; give a wider one")
    source = Source(codec=codec, frames=frames, classes=weights)
    samples, first = remade(synthesizer, mono, region, source, settings, progress)
    return spliced(wave, Waveform(samples, codec.sample_rate), first / codec.sample_rate, stretch)


def varied(synthesizer: Synthesizer, wave: Waveform, *, classes: str | None = None,
           settings: RenderSettings = RenderSettings(), progress: Progress | None = None) -> Waveform:
    """Returns a variation of a recording, mono, at its level: sampling begins with the noised recording.

    How far it goes is `settings.strength`. Raises UserError for a silent recording.
    """
    codec = synthesizer.codec
    weights = class_weights(synthesizer, classes)
    mono = wave.mono().resample(codec.sample_rate)
    _check_sound(mono)
    mel = codec.encode(mono.samples)
    back = np.float32(level(mel) - LEVEL)
    source = Source(codec=codec, frames=len(mel), mel=np.maximum(mel - back, codec.log_min),
                    classes=weights)
    made = np.concatenate(list(synthesizer.stream_mel(source, settings, progress)))
    samples = synthesizer.inverter.invert(np.maximum(made + back, codec.log_min))
    return Waveform(samples[:len(mono)], codec.sample_rate)


def looped(synthesizer: Synthesizer, seconds: float, *, classes: str | None = None,
           settings: RenderSettings = RenderSettings(), progress: Progress | None = None) -> Waveform:
    """Returns sound whose end goes on into its beginning, at the model's level.

    A piece is made freely, and then its last frames anew, so that they lead from what is before them to its
    beginning. Raises UserError for a length below three segments of context.
    """
    codec, around = synthesizer.codec, synthesizer.model.segment.around
    source = free_source(synthesizer, seconds, classes)
    if source.frames < 3 * around:
        raise UserError(f"--loop --seconds {seconds:g}: give {3 * around / codec.frame_rate:g} s or more")
    halves = [_half(progress, k) for k in range(2)]
    mel = np.concatenate(list(synthesizer.stream_mel(source, settings, halves[0])))
    # What stands before the gap, the gap, and the beginning once more.
    turned = np.concatenate([mel[-2 * around:], mel[:around]])
    region = np.ones(turned.shape, bool)
    region[around:2 * around] = False
    bridge = dataclasses.replace(source, mel=turned, region=region, frames=len(turned))
    made = np.concatenate(list(synthesizer.stream_mel(bridge, settings, halves[1])))
    mel[-around:] = made[around:2 * around]
    samples = synthesizer.inverter.invert(np.concatenate([mel[-around:], mel, mel[:around]]))
    begin, size = around * codec.hop, len(mel) * codec.hop
    loop, fade = samples[begin:begin + size].copy(), round(FADE * codec.sample_rate)
    share = np.linspace(0, 1, fade, dtype=np.float32)
    loop[-fade:] = (1 - share) * loop[-fade:] + share * samples[begin - fade:begin]
    return Waveform(loop, codec.sample_rate)


def _half(progress: Progress | None, number: int) -> Progress:
    return lambda share: progress(0.5 * (number + share)) if progress is not None else None


def _check_length(synthesizer: Synthesizer, wave: Waveform) -> None:
    least = synthesizer.model.segment.around / synthesizer.codec.frame_rate
    if wave.duration < least:
        raise UserError(f"the recording lasts {wave.duration:.2f} s; this model goes on from "
                        f"{least:g} s or more")


def _check_sound(wave: Waveform) -> None:
    if wave.duration < LEAST_RECORDING:
        raise UserError(f"the recording lasts {wave.duration:.2f} s; give {LEAST_RECORDING:g} s or more")
    if not np.abs(wave.samples).max(initial=0) > 1e-4:
        raise UserError("the recording is silent; there is nothing to go by")


def _like(wave: Waveform, other: Waveform) -> np.ndarray:
    """Returns samples [n, C] at another recording's rate, with as many channels."""
    samples = wave.resample(other.sample_rate).samples.reshape(-1, wave.channels)
    if wave.channels != other.channels:
        mono = wave.mono().resample(other.sample_rate).samples
        samples = np.repeat(mono[:, None], other.channels, axis=1)
    return samples
