"""Recordings in other timbres, by a model or by what it has to beat, so that they can be scored."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.io import read_audio, write_audio
from music_diffusion.audio.waveform import Waveform
from music_diffusion.errors import UserError
from music_diffusion.evaluation.cache import digest, file_digest
from music_diffusion.evaluation.conversions import style_files
from music_diffusion.evaluation.pairing import AUDIO, Problem, find_files
from music_diffusion.evaluation.plan import EvaluationPlan
from music_diffusion.notes.casting import InstrumentCasting, parse_casting
from music_diffusion.notes.conversions import Conversion, ConversionTable
from music_diffusion.notes.decoding import decode_notes
from music_diffusion.notes.heard import only_classes
from music_diffusion.speed import measure
from music_diffusion.synthesis.hearing import Hearing, open_style
from music_diffusion.synthesis.hub import default_inverter, load, load_inverter, load_transcriber
from music_diffusion.synthesis.settings import RenderSettings
from music_diffusion.synthesis.synthesizer import Synthesizer
from music_diffusion.synthesis.transfer import transfer_file
from music_diffusion.types import Progress
from music_diffusion.workflows.monitor import part_of
from music_diffusion.workflows.render_notes import (
    RENDER_LOG,
    SPEED,
    model_digests,
    read_log,
    remove_others,
    speed_of,
    write_log,
)

NOISED_STRENGTH = 0.5  # of the baseline SDEdit, where the plan's model has no other
Made = tuple[Float[np.ndarray, " S"], dict[str, Any]]  # samples, and how fast they came
Method = Callable[[str, Conversion], Made]  # path, and who plays in it and should


def transfer_sources(plan: EvaluationPlan, folder: str, progress: Progress
                     ) -> tuple[dict[str, Any] | None, list[Problem]]:
    """Puts every recording of `plan.sources` into the wanted timbre; files that are there stay.

    With `plan.parts` each instrument of a mixture is changed alone, and then they are mixed.

    Returns the speed over all files, where a model worked, and what could not be changed.

    Raises UserError: no such model, a table without these files, or not one could be changed.
    """
    if plan.sources is None or plan.conversions is None:
        raise ValueError("the plan has no sources or no conversions")
    files, problems = find_files(plan.sources, AUDIO, "audio")
    # Of a mixture's instruments no targets are known, by which each could be coloured alone.
    apart = plan.parts is not None and plan.method != "recoloured"
    parts = find_files(plan.parts or "", AUDIO, "audio")[0] if apart else {}
    table = ConversionTable(plan.conversions)
    rows = {name: row for name in files if (row := table.of(name)) is not None}
    problems += [Problem(kind="no_group", file=path, what=f"is in no row of {plan.conversions}",
                         advice="it is not changed; add a row") for name, path in files.items()
                 if name not in rows]
    out = pathlib.Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    method = _Lazy(plan, files, rows)
    log, done = read_log(out / RENDER_LOG), []
    for i, (name, row) in enumerate(rows.items()):
        bar, target = part_of(progress, i, len(rows)), out / f"{name}.flac"
        try:
            pieces = _pieces(name, row, parts) if apart else [(files[name], row)]
            key = digest(method.identity, [(file_digest(path), part.source, part.target)
                                           for path, part in pieces])
            if not target.is_file() or log.get(name, {}).get("key") != key:
                log[name] = _make(method, pieces, target) | {"key": key}
                write_log(out / RENDER_LOG, log)
        except UserError as e:
            problems.append(Problem(kind="unreadable", file=files[name], advice="it is not changed",
                                    what=str(e).removeprefix(f"{files[name]}: ")))
            continue
        done.append(log[name])
        bar(1.0)
    if not done:
        raise UserError(f"{plan.sources}: none of {len(files)} files could be changed; "
                        f"first: {problems[0].what}")
    remove_others(out, {f"{name}.flac" for name in rows})
    return (None if plan.model is None else speed_of(plan.model, done)), problems


def _pieces(name: str, row: Conversion, parts: Mapping[str, str]) -> list[tuple[str, Conversion]]:
    """Returns the file of each instrument. Raises UserError: one is missing."""
    found = []
    for i, (source, target) in enumerate(zip(row.source, row.target, strict=True), 1):
        path = parts.get(f"{name}.{i}")
        if path is None:
            raise UserError(f"has no part {name}.{i}; write them with `prepare conversions`")
        found.append((path, Conversion(source=(source,), target=(target,))))
    return found


def _make(method: Method, pieces: Sequence[tuple[str, Conversion]], target: pathlib.Path) -> dict[str, Any]:
    """Writes one file, the sum of its pieces; returns its speed."""
    made = [method(path, row) for path, row in pieces]
    size = max(len(samples) for samples, _ in made)
    total = np.sum([np.pad(samples, (0, size - len(samples))) for samples, _ in made], axis=0)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_audio(target, Waveform(total.astype(np.float32), MelCodec().sample_rate), subtype="PCM_24")
    speeds = [speed for _, speed in made]
    summed = {name: sum(speed[name] for speed in speeds) for name in ("audio_seconds", "wall_seconds")}
    return speeds[0] | summed


class _Lazy:
    """A plan's method, which loads what it needs when it is first called."""

    def __init__(self, plan: EvaluationPlan, files: Mapping[str, str], rows: Mapping[str, Conversion]):
        self._plan, self._files, self._rows = plan, files, rows
        self._method: Method | None = None
        self.identity = [plan.method, plan.inverter, plan.steps, plan.seed, plan.strength,
                         [] if plan.model is None else model_digests(plan.model)]
        self._recordings = plan.styles or plan.reference
        # These depend on all of them, or may.
        if plan.method in ("recoloured", "model", "liked"):
            both = [*files.values(), *find_files(self._recordings, AUDIO, "audio")[0].values()]
            self.identity.append([file_digest(path) for path in both])

    def __call__(self, path: str, row: Conversion) -> Made:
        if self._method is None:
            self._method = {
                "model": self._transferring, "liked": self._liking, "nothing": lambda: _timed(_read),
                "recoloured": self._recolouring, "played": self._playing, "noised": self._noising,
            }[self._plan.method]()
        return self._method(path, row)

    def _settings(self) -> RenderSettings:
        return RenderSettings(steps=self._plan.steps, seed=self._plan.seed, strength=self._plan.strength)

    def _transferring(self) -> Method:
        return self._transfers(self._settings())

    def _liking(self) -> Method:
        """Returns the method that gives a recording to sound like, and no instrument."""
        return self._likes(load(self._plan.model or "", self._plan.inverter), self._settings())

    def _likes(self, synthesizer: Synthesizer, settings: RenderSettings) -> Method:
        return self._transfers_by(synthesizer, settings, self._styled(
            lambda path, row: open_style(synthesizer, path, ",".join(row.source))))

    def _noising(self) -> Method:
        """SDEdit (Meng et al. 2022): from the noised recording, by the notes alone."""
        strength = self._plan.strength or NOISED_STRENGTH
        return self._transfers(self._settings().changed(strength=strength), evidence_guidance=0.0)

    def _transfers(self, settings: RenderSettings, **changes: Any) -> Method:
        synthesizer = load(self._plan.model or "", self._plan.inverter)
        if changes and synthesizer.model.hears:
            synthesizer = dataclasses.replace(
                synthesizer, model=dataclasses.replace(synthesizer.model, **changes))  # type: ignore[type-var]
        if synthesizer.model.restyles:
            return self._likes(synthesizer, settings)
        transcriber = load_transcriber() if synthesizer.model.hears else None

        def hear(path: str, row: Conversion) -> Hearing | None:
            if transcriber is None:
                return None
            return Hearing(transcriber=transcriber, casting=casting_of(row))

        return self._transfers_by(synthesizer, settings, hear)

    def _transfers_by(self, synthesizer: Synthesizer, settings: RenderSettings,
                      hear: Callable[[str, Conversion], Hearing | None]) -> Method:
        def transfer(path: str, row: Conversion) -> Made:
            hearing = hear(path, row)
            with tempfile.TemporaryDirectory(prefix="music-diffusion-") as scratch:
                output = os.path.join(scratch, "made.wav")
                facts = transfer_file(synthesizer, path, output, settings=settings, hearing=hearing,
                                      mono=True)
                samples = read_audio(output).mono().resample(MelCodec().sample_rate).samples
            return samples, {name: getattr(facts, name) for name in SPEED}

        return transfer

    def _styled(self, hear: Callable[[str, Conversion], Hearing | None]
                ) -> Callable[[str, Conversion], Hearing | None]:
        """Returns ears by the path of a recording, given those by what it should sound like."""
        found = style_files(self._rows, find_files(self._recordings, AUDIO, "audio")[0])
        styles = {self._files[name]: path for name, path in found.items()}

        def hear_style(path: str, row: Conversion) -> Hearing | None:
            if path not in styles:
                raise UserError("is the only recording of its target; there is no other to sound like")
            return hear(styles[path], row)

        return hear_style

    def _playing(self) -> Method:
        """Returns the method that lets a model of notes play what is heard."""
        synthesizer, transcriber = load(self._plan.model or "", self._plan.inverter), load_transcriber()

        def play(path: str, row: Conversion) -> Float[np.ndarray, " S"]:
            samples, casting = _read(path, row, transcriber.sample_rate), casting_of(row)
            heard = only_classes(transcriber.transcribe(samples).activations, casting.heard)
            notes = casting(decode_notes(heard, transcriber.model.decode))
            size = round(len(samples) * MelCodec().sample_rate / transcriber.sample_rate)
            if not len(notes):
                return np.zeros(size, np.float32)
            made = synthesizer.synthesize(notes, self._settings().changed(strength=None), normalized=False)
            made = made.resample(MelCodec().sample_rate).samples
            return np.pad(made, (0, max(0, size - len(made))))[:size]

        return _timed(play)

    def _recolouring(self) -> Method:
        """The recording plus the difference of mean log-mel spectra of a conversion's other recordings."""
        inverter = (default_inverter(MelCodec()) if self._plan.inverter is None
                    else load_inverter(self._plan.inverter))
        codec = inverter.codec
        targets = find_files(self._plan.reference, AUDIO, "audio")[0]
        means = {}
        for name, row in self._rows.items():
            if name in targets:
                means[name] = (row, self._files[name], *(
                    codec.encode(_read(path, row, codec.sample_rate)).mean(axis=0)
                    for path in (self._files[name], targets[name])))

        def recolour(path: str, row: Conversion) -> Float[np.ndarray, " S"]:
            others = [there - here for other, file, here, there in means.values()
                      if (other.source, other.target) == (row.source, row.target) and file != path]
            if not others:
                raise UserError("is the only recording of its conversion; its colour cannot be known")
            mel = codec.encode(_read(path, row, codec.sample_rate))
            return inverter.invert((mel + np.mean(others, axis=0)).astype(np.float32))

        return _timed(recolour)


def casting_of(row: Conversion) -> InstrumentCasting:
    """Returns who plays what in the target."""
    if len(row.source) == 1:
        return parse_casting(row.target[0], row.source[0])
    return parse_casting(",".join(f"{a}={b}" for a, b in zip(row.source, row.target, strict=True)))


def _read(path: str, row: Conversion, sample_rate: int = MelCodec().sample_rate) -> Float[np.ndarray, " S"]:
    del row
    return read_audio(path).mono().resample(sample_rate).samples


def _timed(make: Callable[[str, Conversion], Float[np.ndarray, " S"]]) -> Method:
    def method(path: str, row: Conversion) -> Made:
        samples, speed = measure(lambda: make(path, row), lambda made: len(made) / MelCodec().sample_rate)
        return samples, {name: getattr(speed.rounded(), name) for name in SPEED}

    return method
