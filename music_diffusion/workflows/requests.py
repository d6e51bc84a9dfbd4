"""Requests to each workflow: the one declaration of names, types, ranges and defaults.

The command line makes its options of these fields, and Python code hands such an object to the
workflow. Importing this imports nothing else of weight. Names of models are names of `models list`
or folders.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from music_diffusion.errors import UserError

RANGE = "range"  # key of a field's metadata: (least, most)
NO_MODEL = "none"  # in place of a model's name
GENERATOR = "generator"  # the model in the package that makes sound from noise
RESTYLE = "transfer"  # the one that makes it, or a content, sound as a recording does


def ranged(default: Any = dataclasses.MISSING, least: float = -math.inf, most: float = math.inf) -> Any:
    """Returns a field for numbers from `least` to `most`; None passes, too."""
    return dataclasses.field(default=default, metadata={RANGE: (least, most)})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """Checks the ranges of its fields. Raises UserError that names the option."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            least, most = field.metadata.get(RANGE, (-math.inf, math.inf))
            value = getattr(self, field.name)
            if value is not None and RANGE in field.metadata and not least <= value <= most:
                limits = f"at least {least:g}" if most == math.inf else f"from {least:g} to {most:g}"
                raise UserError(f"--{field.name} {value:g}: must be {limits}")
            if value == "" and field.default != "":
                raise UserError(f"{field.name} is empty text: give it a value, or leave the option out")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnDataRequest(Request):
    """See `workflows.own_data.train_on_recordings`."""

    data: str  # folder of recordings
    output: str  # folder of the model
    base: str = "default"  # model to begin with, or NO_MODEL for fresh parameters
    layout: str = "paired_folder"  # how the folder is read (`data.sets.catalogue`)
    options: tuple[tuple[str, str], ...] = ()  # of the reader
    held_out: tuple[str, ...] = ()  # names of items; (): by the folders, or by hash
    transpose: int = ranged(2, 0, 12)  # semitones that training items are also played up and down
    steps: int | None = ranged(None, 1)  # of training; None: as the recipe says
    batch: int = ranged(8, 1)  # segments a step
    examine: bool = True  # leave out what the doctor finds unusable
    evaluate: bool = True  # render and score what is held out
    bindings: tuple[str, ...] = ()  # 'NAME = value' for gin, of the training
    workers: int = ranged(2, 1)  # processes
    seed: int = 0  # of splits and training


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptRequest(Request):
    """See `workflows.adapt.add_performance`."""

    audio: tuple[str, ...]  # recordings of the performance
    midi: tuple[str, ...]  # their notes, in the same order
    name: str  # of the performance
    output: str  # folder of the model that knows it, too
    base: str = "performances"  # model to begin with
    room: str = ""  # what to note of the room and the microphone
    steps: int | None = ranged(None, 1)  # of training; None: as the recipes say
    bindings: tuple[str, ...] = ()  # 'NAME = value' for gin, of the training
    workers: int = ranged(2, 1)  # processes
    seed: int = 0  # of training


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkRequest(Request):
    """See `workflows.benchmark.benchmark.measure_parts`."""

    model: str = "default"
    inverter: str | None = None  # None: the one that the command takes by default
    seconds: float = ranged(60.0, 1, 36000)  # of music
    repeats: int = ranged(3, 1)  # runs that count, after one that does not
    only: tuple[str, ...] = ()  # parts; (): all for which there is what they need
    soundfont: str | None = None  # for `render`; or recorded notes
    data: str | None = None  # folder of records, for `input`
    gin_files: tuple[str, ...] = ()  # of a recipe, for `train_step`
    bindings: tuple[str, ...] = ()  # 'NAME = value', of the recipe
    batch: int | None = ranged(2, 1)  # examples of a training step; None: the smallest
    largest_batch: bool = False  # look for the largest batch that fits into the memory instead
    memory: float | None = ranged(None, 0.001)  # GB (1e9 bytes) of a device; None: what it reports


@dataclasses.dataclass(frozen=True, kw_only=True)
class RendersRequest(Request):
    """Request on which data that SoundFonts or recorded notes render depends."""

    soundfonts: tuple[str, ...] = ()  # .sf2 or .sf3, of which one is drawn for each excerpt
    samplers: tuple[str, ...] = ()  # folders of recorded notes (`data.instruments`), drawn with them
    fallback: str | None = None  # SoundFont that plays what recorded notes lack
    hours: float = ranged(10.0, 0.001)  # of training excerpts
    solo: float = ranged(0.0, 0, 1)  # share of excerpts with one instrument alone
    workers: int = ranged(2, 1)  # processes
    seed: int = 0  # another one draws other excerpts and splits


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSetRequest(RendersRequest):
    """See `workflows.prepare.prepare_data_set`."""

    kind: str  # name in `data.sets.catalogue`
    source: str  # folder (or file) of the data set
    destination: str | None = None  # folder of the records
    options: tuple[tuple[str, str], ...] = ()  # of the reader
    transpose: int = ranged(0, 0, 12)  # semitones up and down of which training items get copies
    codec: str = "16k"  # of the spectrograms: a name in gin/codecs, or a gin file
    stems: bool = False  # keep the spectrograms of stems, too
    items: int | None = ranged(None, 1)  # use so many, the first by name; None: all
    level: bool = False  # bring every item to one level
    heard: bool = False  # of pairs: notes are those that the transcriber hears in the source
    container: str = "array_record"  # or tfrecord
    shards: int = ranged(32, 1)  # files of a split, at most
    refuse: bool = False  # end with the first item that cannot be used, rather than skip it
    runner: str | None = None  # of Apache Beam; None: processes of this machine
    runner_options: tuple[str, ...] = ()  # for Beam
    test: bool = False  # also a test split, of the data set `soundfont`


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioFolderRequest(Request):
    """See `workflows.prepare.prepare_audio`."""

    source: str  # folder of audio files
    destination: str  # folder of the records
    rate: int = ranged(16000, 1000)  # Hz
    mono: bool = False  # mix stereo files to one channel
    workers: int = ranged(2, 1)  # processes
    seed: int = 0  # another one draws other splits


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReferencesRequest(RendersRequest):
    """See `workflows.prepare.prepare_references`."""

    source: str  # folder (or file) of the data set
    destination: str  # folder of audio, notes and their table
    dataset: str  # name in `data.sets.catalogue`
    splits: str = "train,test"
    minutes: float = 10.0  # of each performance in each split, at most
    options: tuple[tuple[str, str], ...] = ()  # of the reader
    rate: int = ranged(16000, 1000)  # Hz


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConversionsRequest(Request):
    """See `workflows.prepare.prepare_conversions`."""

    source: str  # folder of MIDI files
    destination: str  # folder of audio, notes and tables
    soundfont: str  # or recorded notes; plays both timbres
    conversions: tuple[str, ...] = ()  # SOURCE=TARGET, or more of it; (): the six of DiffTransfer
    pieces: int = ranged(8, 1)  # of each conversion
    seconds: float = ranged(20.0, 1)  # of a piece
    split: str = "test"  # of the scores
    rate: int = ranged(16000, 1000)  # Hz
    workers: int = ranged(2, 1)  # processes
    seed: int = 0  # another one draws other excerpts


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExcerptsRequest(Request):
    """See `workflows.prepare.prepare_excerpts`."""

    source: str  # folder of recordings, or of a folder of them for each class
    destination: str  # folder of audio and a table
    seconds: float = ranged(10.24, 0.1)  # of an excerpt
    count: int = ranged(100, 1)  # excerpts in all
    noise: str | None = None  # phases or spectrum: noise like them instead
    rate: int = ranged(16000, 1000)  # Hz
    seed: int = 0  # another one draws other excerpts


@dataclasses.dataclass(frozen=True, kw_only=True)
class PicturesRequest(Request):
    """See `workflows.prepare.prepare_pictures`."""

    source: str  # folder with a folder of recordings for each instrument
    destination: str  # folder of pictures and their pairs
    seconds: float = ranged(3.0, 0)  # of a picture's piece
    minutes: float = ranged(30.0, 0)  # of a recording, at most
    pairs: int = ranged(15000, 1)  # that are drawn
    seed: int = 0  # another one draws other pairs


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoresRequest(RendersRequest):
    """See `workflows.prepare.render_scores`."""

    scores: str  # folder of MIDI files
    destination: str  # folder of audio files
    test: bool = False  # also a test split
    midi: bool = False  # write the notes of every excerpt beside it
    room_responses: str | None = None  # folder of impulse responses, beside rooms that are made
    room_licences: tuple[str, ...] = ()  # of theirs that may be used; (): all
    rate: int = ranged(16000, 1000)  # Hz
    tuning: float = ranged(0.0, 0, 100)  # cents by which each excerpt may be higher or lower
    vibrato: float = ranged(0.0, 0, 1)  # share of excerpts whose sustained recorded notes get vibrato
    degraded: float = ranged(0.0, 0, 1)  # share that is degraded: microphones, noise, compression, codecs


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReleaseRequest(Request):
    """See `workflows.models.release_run`."""

    run: str  # folder of a training run; or a released model, to copy
    output: str  # folder of the model
    bindings: tuple[str, ...] = ()  # 'NAME = value' for gin: what rendering does otherwise
    performances: str | None = None  # file with the names of the model's performances
    step: str | None = None  # number of a checkpoint, or `best` by validation loss; None: the newest
    dtype: str = "float16"  # of the weights, or int8 (half of the size) or float32 (twice the size)
    start: str | None = None  # weights that training began with, to mix with what it ended with
    start_share: float = ranged(0.5, 0, 1)  # of them


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareRequest(Request):
    """See `workflows.compare_models.compare_models`."""

    model: str  # released model
    other: str  # copy of it
    notes: str | None = None  # folder of MIDI files; None: a made-up piece
    seconds: float = ranged(20.0, 1, 3600)  # of the start of every piece
    seed: int = 0  # of the renderings


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoteRowsRequest(Request):
    """See `workflows.models.render_note_rows`."""

    soundfont: str  # .sf2 or .sf3, or recorded notes (`data.instruments`)
    output: str  # folder of note_rows.npy
    fallback: str | None = None  # SoundFont that plays what recorded notes lack
    notes_per_program: int = ranged(440, 1)
    workers: int = ranged(2, 1)  # processes
    seed: int = 0  # another one draws other notes


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoteMapsRequest(Request):
    """See `workflows.models.draw_maps`."""

    data: str  # folder of records
    output: str  # folder of the same records with maps
    weights: str  # of a note timbre network, or of a model that has one
    performances: str | None = None  # file with the names of the network's performances


@dataclasses.dataclass(frozen=True, kw_only=True)
class StatisticsRequest(Request):
    """See `workflows.models.estimate_statistics`."""

    data: str  # folder of records
    output: str  # safetensors to write
    patch: int = ranged(4, 1, 64)  # frames of a patch
    around_maps: bool = False  # whether of what the records' note maps miss
    axes: str | None = None  # safetensors with those of a network; None: the principal ones
    autoencoder: str | None = None  # name or folder of a released one, of whose latents they are


@dataclasses.dataclass(frozen=True, kw_only=True)
class PerformanceListRequest(Request):
    """See `workflows.models.list_performances`."""

    data: str  # folder of records
    output: str  # the list (.json); performances that are in it keep their numbers
    table: str | None = None  # CSV with what is known of them: name, source, room
    default: str | None = None  # the one that is taken where none is asked for; None: the first


@dataclasses.dataclass(frozen=True, kw_only=True)
class DumpRequest(Request):
    """See `workflows.dump.dump_examples`."""

    task: str  # DATASET_MEMBER
    folder: str  # of records
    output: str  # folder for pictures, sounds and notes
    count: int = ranged(4, 1)  # examples
    split: str = "train"
    inverter: str | None = None  # None: the best for the records' codec
    seed: int = ranged(0, 0)  # another one draws other examples


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeamsRequest(Request):
    """See `workflows.seams.measure_seams`."""

    notes: str | None = None  # folder of MIDI files to render; None: the model makes sound from noise
    model: str = "default"
    steps: int | None = ranged(None, 1)  # sampling steps; None: as the model was released
    max_minutes: float = 10.0  # of the start of every piece
    count: int = ranged(8, 1)  # pieces that are made from noise
    seconds: float = ranged(60.0, 1)  # … of such a length
    seed: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class GapsRequest(Request):
    """See `workflows.gaps.measure_gaps`."""

    reference: str  # folder of recordings
    model: str = GENERATOR  # name or folder of a model that makes sound from noise
    steps: int | None = ranged(None, 1)  # sampling steps; None: as the model was released
    gap: float = ranged(1.5, 0.1)  # seconds that are made anew, in the middle of an excerpt
    passes: tuple[int, ...] = (1, 4)  # of the projection
    count: int = ranged(24, 1)  # excerpts, of as many recordings
    seed: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemorizedRequest(Request):
    """See `workflows.memorized.memorized`."""

    training: str  # folder of the audio that a model learned from
    generated: str  # … that it made
    reference: str  # … that it did not learn from, of the same kind
    planted: int = ranged(60, 0)  # degraded copies of training music that should be found
    seed: int = ranged(0, 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EarsRequest(Request):
    """See `workflows.check_ears.check_ears`."""

    reference: str  # folder of recordings
    notes: str | None = None  # folder of their MIDI files, which the SoundFont plays
    soundfont: str | None = None  # .sf2, .sf3 or recorded notes; None: nothing plays the notes
    groups: str | None = None  # CSV with a column `file` and `group_column`: who or what plays
    group_column: str = "group"
    embeddings: tuple[str, ...] = ("tagger",)  # names for `workflows.embedders.load_embedder`
    max_minutes: float = 2.0  # of the start of every recording
    seed: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReconstructRequest(Request):
    """See `workflows.listen.reconstruct`."""

    source: str  # any audio
    output: str  # .wav, .flac or .mp3
    inverter: str = "inverter"  # see `synthesis.hub.load_inverter`
    plot: str | None = None  # .png of both spectrograms
    mono: bool = False  # mix the channels to one first


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransferRequest(Request):
    """See `workflows.transfer.transfer`."""

    source: str  # any audio, or a folder of it
    model: str = "transfer"  # name or folder of a model that changes recordings
    output: str | None = None  # .wav, .flac or .mp3; of a folder's files None
    out_dir: str | None = None  # folder of what is made of a folder's files
    plot: str | None = None  # .png of both spectrograms
    inverter: str | None = None  # see `synthesis.hub.load_inverter`; None: the best for the model
    mono: bool = False  # mix the channels to one first
    to: str | None = None  # who plays, see `notes.casting`; None: who is heard in `like`
    source_instruments: str | None = None  # who is heard, see `notes.casting`; None: anyone
    like: str | None = None  # recording, or performance, that it should sound like


@dataclasses.dataclass(frozen=True, kw_only=True)
class RestyleRequest(Request):
    """See `workflows.transfer.transfer`."""

    source: str  # any audio, or a folder of it: the content
    style: str  # recording that it should sound like
    model: str = RESTYLE  # name or folder of a model that takes a recording to sound like
    output: str | None = None  # .wav, .flac or .mp3; of a folder's files None
    out_dir: str | None = None  # folder of what is made of a folder's files
    plot: str | None = None  # .png of both spectrograms
    inverter: str | None = None  # see `synthesis.hub.load_inverter`; None: the best for the model
    mono: bool = False  # mix the channels to one first


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerateRequest(Request):
    """See `workflows.generate.generate`."""

    model: str | None = None  # name or folder of a model that makes sound from noise
    style: str | None = None  # recording that it should sound like
    output: str | None = None  # .wav, .flac or .mp3; of several takes None
    seconds: float | None = ranged(None, 0)  # that are made
    class_name: str | None = None  # one of the model's, or a mixture NAME:0.7+NAME:0.3
    continued: str | None = None  # recording that goes on
    until: str | None = None  # recording that a continued one is led to
    edit: str | None = None  # recording of which a part is made anew
    inpaint: str | None = None  # BEGIN:END in seconds, of `edit`; None: all of it
    band: str | None = None  # LOW:HIGH in Hz, of `edit`; None: all of it
    vary: str | None = None  # recording that is varied
    loop: bool = False  # whether its end leads to its beginning
    count: int = ranged(1, 1)  # takes
    out_dir: str | None = None  # folder of several takes
    plot: str | None = None  # .png of the spectrogram
    inverter: str | None = None  # see `synthesis.hub.load_inverter`; None: the best for the model


@dataclasses.dataclass(frozen=True, kw_only=True)
class TuneRequest(Request):
    """See `workflows.tune.tune`."""

    gin_file: str  # the recipe
    output: str  # folder of the search
    trials: int = ranged(12, 1)  # in all, by all processes that work on the folder
    steps: int = ranged(500, 1)  # of training, of a trial
    search: tuple[str, ...] = ()  # ranges, see `workflows.search_space`; (): the paper's five
    bindings: tuple[str, ...] = ()  # 'NAME = value' for gin, of all trials
    pruner: str = "median"  # or hyperband, none
    seed: int = ranged(0, 0, 2**31)  # of the values that are drawn


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscribeRequest(Request):
    """See `workflows.listen.transcribe`."""

    source: str  # any audio
    output: str  # .mid
    transcriber: str = "transcriber"
    plot: str | None = None  # .png of the notes over the spectrogram
    onset: float | None = ranged(None, 0, 1)  # least activation that begins a note; None: the model's
    frame: float | None = ranged(None, 0, 1)  # least activation that holds a note
