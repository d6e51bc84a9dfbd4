"""A Slakh2100 (redux) of three short songs and one that is omitted, laid out as the archive is."""

from __future__ import annotations

import dataclasses
import pathlib

import mido
import numpy as np
import yaml
from layouts.common import Truth, scale, tones, write_wav

from music_diffusion.notes.notes import Notes

RATE, SECONDS = 8000, 1.6  # published: 44.1 kHz
TICK = 1 / 960  # seconds: 480 ticks a beat at 120 beats a minute

SLAP = "scarbee_jay_bass_slap_both.nkm"  # the patch whose MIDI is what sounds
# key: (inst_class, program_num, plugin_name); without a plug-in there is neither audio nor MIDI.
SONGS = {
    "train/Track00001": {
        "S00": ("Guitar", 30, "elektrik_guitar.nkm"),
        "S01": ("Drums", 128, "session_kit_full.nkm"),
        "S02": ("Piano", 1, "the_giant_modern_studio.nkm"),
        "S03": ("Bass", 33, "scarbee_rickenbacker_bass.nkm"),
        "S06": ("Sound Effects", 103, None),
        "S07": ("Guitar", 26, "jazz_guitar2.nkm"),
        "S08": ("Strings (continued)", 52, "choir_o.nkm"),
    },
    "validation/Track01501": {
        "S00": ("Piano", 4, "wurly_ep.nkm"),
        "S01": ("Bass", 36, SLAP),
        "S02": ("Guitar", 25, "nylon_guitar.nkm"),
        "S03": ("Drums", 128, "pop_kit.nkm"),
    },
    "test/Track01876": {
        "S00": ("Drums", 128, "funk_kit.nkm"),
        "S01": ("Bass", 32, "upright_bass.nkm"),
        "S02": ("Guitar", 27, "funk_guitar.nkm"),
        "S03": ("Piano", 0, "grand_piano.nkm"),
    },
    "omitted/Track00002": {"S00": ("Piano", 0, "grand_piano.nkm")},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StemTruth:
    """What a stem is."""

    program: int  # 128: drums
    notes: Notes  # as its MIDI has them
    samples: np.ndarray  # [S]


def build(folder: pathlib.Path, suffix: str = ".flac") -> list[Truth]:
    """The whole mixes of all songs but the omitted one."""
    songs = build_songs(folder, suffix)
    return [Truth(name=name, split=name.split("/")[0], sample_rate=RATE,
                  samples=sum(s.samples for s in stems.values()),
                  notes=Notes.concatenate([s.notes for s in stems.values()]),
                  stems={s.program: s.samples for s in stems.values()}, piece=uuid(name))
            for name, stems in songs.items() if not name.startswith("omitted/")]


def build_songs(folder: pathlib.Path, suffix: str = ".flac") -> dict[str, dict[str, StemTruth]]:
    """Of each song the stems that have audio."""
    songs = {}
    for song, (name, entries) in enumerate(SONGS.items()):
        path = folder / name
        stems = {key: _stem(song, number, *entry) for number, (key, entry) in enumerate(entries.items())
                 if entry[2] is not None}
        for key, stem in stems.items():
            write_wav(path / "stems" / (key + suffix), stem.samples, RATE)
            write_midi(path / "MIDI" / f"{key}.mid", [stem.notes])
        write_midi(path / "all_src.mid", [stem.notes for stem in stems.values()])
        write_wav(path / f"mix{suffix}", sum(s.samples for s in stems.values()), RATE)
        (path / "metadata.yaml").write_text(yaml.safe_dump(_metadata(name, entries)))
        songs[name] = stems
    return songs


def uuid(name: str) -> str:
    return f"{int(name[-5:]):032x}"


def _stem(song: int, number: int, kind: str, program: int, plugin: str) -> StemTruth:
    drum = program == 128
    notes = scale(start=0.1 + 0.05 * number, count=4, pitch=36 if drum else 50 + song + number,
                  program=program, velocity=60 + 5 * number, drum=drum)
    # Kontakt plays all basses but SLAP an octave low; the MIDI of a stem is what Kontakt was given.
    octave = 12 if kind == "Bass" and plugin != SLAP else 0
    heard = dataclasses.replace(notes, pitch=notes.pitch - octave)
    # Six of them stay below full scale.
    return StemTruth(program=program, notes=notes, samples=0.15 * tones(heard, SECONDS, RATE))


def _metadata(name: str, entries: dict) -> dict:
    track = pathlib.PurePosixPath(name).name
    stems = {}
    for key, (kind, program, plugin) in entries.items():
        stems[key] = dict(audio_rendered=plugin is not None, inst_class=kind, is_drum=kind == "Drums",
                          midi_program_name=kind, midi_saved=plugin is not None,
                          plugin_name=str(plugin), program_num=program)
        if plugin is not None:
            stems[key]["integrated_loudness"] = -16.59
    return dict(UUID=uuid(name), audio_dir=f"{track}/stems", midi_dir=f"{track}/MIDI",
                lmd_midi_dir=f"lmd_matched/O/O/H/TROOHTB128F931F9DF/{uuid(name)}.mid",
                normalization_factor=-13.0, normalized=True, overall_gain=0.18, stems=stems,
                target_peak=-1.0)


def write_midi(path: pathlib.Path, parts: list[Notes]) -> None:
    """A track for the tempo and one for each part; drums on channel 10."""
    tracks = [mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=500_000)])]
    for number, notes in enumerate(parts):
        channel = 9 if notes.is_drum[0] else number
        events = []
        for start, end, pitch, velocity in zip(notes.start, notes.end, notes.pitch, notes.velocity,
                                               strict=True):
            events += [(round(start / TICK), int(pitch), int(velocity)), (round(end / TICK), int(pitch), 0)]
        track, now = mido.MidiTrack(
            [mido.Message("program_change", channel=channel, program=int(notes.program[0]))]), 0
        for tick, pitch, velocity in sorted(events):
            track.append(mido.Message("note_on", channel=channel, note=pitch, velocity=velocity,
                                      time=tick - now))
            now = tick
        tracks.append(track)
    path.parent.mkdir(parents=True, exist_ok=True)
    mido.MidiFile(type=1, ticks_per_beat=480, tracks=tracks).save(path)


def rows(notes: Notes) -> list[tuple]:
    """Notes in whole ticks, so that they can be compared for equality."""
    return sorted(zip(np.rint(notes.start / TICK).tolist(), np.rint(notes.end / TICK).tolist(),
                      notes.pitch.tolist(), notes.velocity.tolist(), notes.program.tolist(),
                      notes.is_drum.tolist(), strict=True))
