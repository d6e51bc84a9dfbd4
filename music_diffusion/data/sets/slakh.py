"""Slakh2100: songs of the Lakh MIDI Dataset, played by sampled instruments, with their stems.

Manilow et al., "Cutting Music Source Separation Some Slakh", WASPAA 2019.
Published layout (Slakh2100-orig, -split2 and -redux; babyslakh_16k has the
tracks without the folders of splits, as WAV):

    slakh2100_flac_redux/
      train/, validation/, test/    and `omitted`, the duplicates that redux leaves out
        Track00001/
          metadata.yaml             UUID of the Lakh file; of each stem program_num (128: drums),
                                    is_drum, plugin_name, audio_rendered, midi_saved …
          mix.flac                  the sum of the stems; mono, 44.1 kHz
          all_src.mid               the Lakh file
          MIDI/S00.mid, stems/S00.flac …

MT3 (Gardner et al., 2022, appendix B.2) trains on ten random subsets of
at least four instruments of every training track; validation and test are
whole mixes. Notes have the programs of metadata.yaml; MT3's classes of programs
are the note encoding's business (`notes.programs`, granularity `slakh`).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import pathlib
import types
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from music_diffusion.data.items import DRUM_PROGRAM, SPLITS, Item, Listing, Stem
from music_diffusion.data.sounds import AudioFile, Mixture
from music_diffusion.errors import UserError
from music_diffusion.notes.midi import read_midi
from music_diffusion.notes.notes import Notes

AUDIO = (".flac", ".wav")
BASSES = range(32, 40)
# Kontakt plays basses an octave low, so their MIDI was raised by one before rendering
# (github.com/ethman/slakh-generation, issue 2 and midi_rules/pitch.json) …
BASS_SHIFT = 12
# … which this patch does not do (YourMT3's preprocess_slakh.py).
SOUNDS_AS_WRITTEN = ("scarbee_jay_bass_slap_both.nkm",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StemFiles:
    """A stem that has audio and MIDI."""

    key: str  # S00 …
    program: int  # of metadata.yaml, 0..127; or DRUM_PROGRAM
    plugin: str  # the patch that played it
    audio: str  # path
    midi: str  # path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Track:
    """A song."""

    name: str  # train/Track00001; without folders of splits Track00001
    split: str | None  # of SPLITS; None: it lies in no folder of a split
    mix: str  # path
    piece: str  # UUID of the Lakh file: tracks that are the same song share it
    stems: tuple[StemFiles, ...]  # at least one, by key


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slakh:
    """Reader of Slakh2100. `omitted` is left alone, as published."""

    folder: str  # with train, validation and test, or (babyslakh) with the tracks
    subsets: int = 10  # random sets of stems of a training track, one item each; 0: its whole mix
    least: int = 4  # stems of such a set; tracks of fewer stems give all of theirs
    seed: int = 0  # of the hash that draws them
    # Lower the notes of basses to what sounds. False: they are as in the stems' MIDI, an octave
    # above; MT3's preprocessing does not lower them either.
    sounding_bass: bool = False

    def __post_init__(self):
        if self.subsets < 0 or self.least < 1:
            raise UserError(f"{self.subsets=} must be at least 0 and {self.least=} at least 1")

    def list(self) -> Listing:
        """Raises UserError: PyYAML is missing, or the folder is not Slakh's or holds no whole track."""
        tracks, skipped = read_tracks(self.folder)
        items = [item for track in tracks for item in self._items(track)]
        return Listing(items=tuple(items), skipped=tuple(skipped))

    def _items(self, track: Track) -> Iterator[Item]:
        if track.split != "train" or not self.subsets:
            yield stems_item(track, track.stems, name=track.name, mix=AudioFile(path=track.mix),
                             sounding_bass=self.sounding_bass)
            return
        drawn = draw_subsets(pathlib.Path(track.name).name, len(track.stems), count=self.subsets,
                             least=self.least, seed=self.seed)
        width = len(str(self.subsets - 1))
        for number, subset in enumerate(drawn):
            yield stems_item(track, [track.stems[i] for i in subset],
                             name=f"{track.name}/{number:0{width}}", sounding_bass=self.sounding_bass)

    def identity(self) -> dict[str, object]:
        return {k: getattr(self, k) for k in ("subsets", "least", "seed", "sounding_bass")}


def stems_item(track: Track, stems: Sequence[StemFiles], *, name: str, mix: AudioFile | None = None,
               programs: Mapping[str, int] | None = None, sounding_bass: bool = False) -> Item:
    """Makes an item of some of a track's stems.

    Args:
      track: the song.
      stems: at least one of its stems.
      name: of the item.
      mix: its audio; None: the sum of the stems.
      programs: key of a stem → the program that its notes get; None: its own.
      sounding_bass: see `Slakh`.
    """
    named = [s.program if programs is None else programs[s.key] for s in stems]
    parts = tuple((s.midi, program, -BASS_SHIFT if sounding_bass and _raised(s) else 0)
                  for s, program in zip(stems, named, strict=True))
    sounds = [AudioFile(path=s.audio) for s in stems]
    return Item(
        name=name, split=track.split, audio=mix or Mixture(parts=tuple(sounds)),
        notes=functools.partial(read_stem_notes, parts), note_files=tuple(s.midi for s in stems),
        stems=tuple(Stem(program=p, audio=a) for p, a in zip(named, sounds, strict=True)),
        piece=track.piece)


def _raised(stem: StemFiles) -> bool:
    return stem.program in BASSES and stem.plugin not in SOUNDS_AS_WRITTEN


def read_stem_notes(parts: tuple[tuple[str, int, int], ...]) -> Notes:
    """Reads the notes of stems together.

    Args:
      parts: of each stem the MIDI file, its program or DRUM_PROGRAM, and the
        semitones to shift its notes by. Pitch bends are ignored, as by MT3.

    Raises UserError as `read_midi` does, and for pitches below 0.
    """
    read = []
    for path, program, shift in parts:
        notes, drum = read_midi(path), program == DRUM_PROGRAM
        pitch = notes.pitch + shift
        if (pitch < 0).any():
            raise UserError(f"{path}: a bass note below pitch {BASS_SHIFT}, which Slakh has not; "
                            "read it with sounding_bass=False")
        # Where the file's own programs and channels differ from metadata.yaml, the latter counts.
        read.append(dataclasses.replace(
            notes, pitch=pitch, program=np.full(len(notes), 0 if drum else program),
            is_drum=np.full(len(notes), drum)))
    return Notes.concatenate(read)


def draw_subsets(track: str, stems: int, *, count: int, least: int, seed: int) -> list[tuple[int, ...]]:
    """Draws sets of stems, each set of at least `least` equally likely; the same in every run.

    Args:
      track: its name, which is hashed.
      stems: how many it has.
      count: of sets. They differ from each other; where there are fewer, they
        come again in turn.
      least: stems of a set, at most all that there are.
      seed: hashed with the name.

    Returns:
      `count` sets of numbers of stems, ascending.
    """
    least = min(least, stems)
    sets = sum(math.comb(stems, k) for k in range(least, stems + 1))
    if sets <= count:
        return [_subset(n % sets, stems, least) for n in range(count)]
    drawn: dict[int, None] = {}
    attempt = 0
    while len(drawn) < count:
        digest = hashlib.sha256(f"{seed} {track} {attempt}".encode()).digest()
        drawn[int.from_bytes(digest, "big") % sets] = None
        attempt += 1
    return [_subset(n, stems, least) for n in drawn]


def _subset(number: int, stems: int, size: int) -> tuple[int, ...]:
    """Returns the subset of that number, in the order of size (from `size` on), then of members."""
    while number >= math.comb(stems, size):
        number -= math.comb(stems, size)
        size += 1
    members: list[int] = []
    for i in range(stems):
        if len(members) == size:
            break
        with_i = math.comb(stems - i - 1, size - len(members) - 1)
        if number < with_i:
            members.append(i)
        else:
            number -= with_i
    return tuple(members)


def read_tracks(folder: str) -> tuple[list[Track], list[tuple[str, str]]]:
    """Reads the tracks of a folder by name, and those that are skipped, with reasons.

    Raises:
      UserError: PyYAML is missing; the folder has another layout or no whole track.
    """
    yaml, root = _yaml(), pathlib.Path(folder)
    places: list[tuple[str | None, pathlib.Path]] = [
        (split, path) for split in SPLITS for path in _track_folders(root / split)]
    places = places or [(None, path) for path in _track_folders(root)]
    if not places:
        raise UserError(f"{folder}: no train/Track00001 or the like there; give the folder that the "
                        "archive unpacks to (slakh2100_flac_redux), with train, validation and test")
    tracks, skipped = [], []
    for split, path in places:
        try:
            tracks.append(_track(yaml, split, path))
        except UserError as e:
            skipped.append((path.relative_to(root).as_posix(), str(e)))
    if not tracks:
        raise UserError(f"{folder}: none of {len(skipped)} tracks can be used "
                        f"({skipped[0][0]}: {skipped[0][1]})")
    return tracks, skipped


def _track_folders(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in folder.glob("Track*") if path.is_dir())


def _yaml() -> types.ModuleType:
    try:
        import yaml
    except ImportError as e:
        raise UserError("Slakh's metadata.yaml needs PyYAML; install it with: "
                        "pip install 'music-diffusion[data]'") from e
    return yaml


def _track(yaml: types.ModuleType, split: str | None, path: pathlib.Path) -> Track:
    """Reads a track. Raises UserError with the reason to skip it."""
    try:
        # libyaml, where PyYAML has it, is ten times as fast.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        metadata = yaml.load((path / "metadata.yaml").read_bytes(), loader)
        entries = sorted(metadata["stems"].items())
    except FileNotFoundError as e:
        raise UserError("no metadata.yaml; unpack the archive again") from e
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as e:
        raise UserError(f"metadata.yaml cannot be read ({type(e).__name__}); "
                        "unpack the archive again") from e
    mix = _audio(path, "mix")
    if mix is None:
        raise UserError("no mix.flac or mix.wav; unpack the archive again")
    stems = [s for key, entry in entries if (s := _stem(path, key, entry)) is not None]
    if not stems:
        raise UserError("no stem with audio and MIDI; unpack the archive again")
    return Track(name=f"{split}/{path.name}" if split else path.name, split=split, mix=mix,
                 piece=str(metadata.get("UUID") or path.name), stems=tuple(stems))


def _stem(path: pathlib.Path, key: str, entry: object) -> StemFiles | None:
    """Reads a stem; None for one that is published without audio: a sound effect, or silence.

    The files decide, not the flags `audio_rendered` and `midi_saved`, which are
    false for all stems of babyslakh_16k; a stem without audio is a fault only
    where the flag promises it. All stems with audio have MIDI.
    """
    if not isinstance(entry, dict):
        raise UserError(f"metadata.yaml: {key} is no stem; unpack the archive again")
    audio, midi = _audio(path, f"stems/{key}"), path / "MIDI" / f"{key}.mid"
    if audio is None:
        if entry.get("audio_rendered"):
            raise UserError(f"no stems/{key}.flac, although metadata.yaml names it; "
                            "unpack the archive again")
        return None
    if not midi.is_file():
        raise UserError(f"no MIDI/{key}.mid, although stems has {key}; unpack the archive again")
    program = DRUM_PROGRAM if entry.get("is_drum") else entry.get("program_num")
    if not isinstance(program, int) or not (0 <= program <= 127 or entry.get("is_drum")):
        raise UserError(f"metadata.yaml: program_num of {key} is {program!r}, none of 0..127; "
                        "unpack the archive again")
    return StemFiles(key=key, program=program, plugin=str(entry.get("plugin_name")), audio=audio,
                     midi=str(midi))


def _audio(path: pathlib.Path, stem: str) -> str | None:
    return next((str(f) for suffix in AUDIO if (f := path / (stem + suffix)).is_file()), None)
