"""Every zoo member by a recipe of the package, at a tiny size, with data made in a moment."""

from __future__ import annotations

import csv
import dataclasses
import functools
import pathlib
from collections.abc import Callable

import numpy as np
from reference.tiny_records import CODEC, TinySet, write_records

from music_diffusion.audio.io import write_audio
from music_diffusion.audio.waveform import Waveform
from music_diffusion.data import records
from music_diffusion.data.audio_records import AudioRecord
from music_diffusion.data.audio_renders import COLUMNS
from music_diffusion.data.note_renders import FILE, ROW_DTYPE
from music_diffusion.models.weights import save_safetensors
from music_diffusion.notes.heard import CHANNELS
from music_diffusion.notes.midi import write_midi
from music_diffusion.notes.notes import Notes

FONT = "font.sf2"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZooMember:
    """A recipe and what makes it tiny."""

    recipe: str
    bindings: tuple[str, ...]  # 'NAME = value'
    data: Callable[[pathlib.Path], object] | None = None  # writes the folder that DATA names
    predicts: str = "npy"  # files of inference
    renders: bool = False  # whether it makes music of notes
    fast: tuple[str, ...] = ()  # bindings for inference
    patch: int = 0  # features of a patch, with statistics beside the data; 0: without

    def arguments(self, folder: pathlib.Path) -> list[str]:
        """--gin_file and --gin.NAME=value of either trainer; writes the data, where there is none."""
        bindings = self.bindings
        if self.data is not None:
            if not folder.exists():
                self.data(folder)
            bindings += (f"DATA = '{folder}'",)
        if self.patch:
            file = folder.with_suffix(".safetensors")
            own = {"mean": np.zeros(self.patch), "axes": np.eye(self.patch),
                   "std": np.full(self.patch, 0.3)}
            save_safetensors(file, {"statistics": own}, dtype="float32")
            bindings += (f"STATISTICS = '{file}'",)
        pairs = [binding.partition(" = ") for binding in bindings]
        return [f"--gin_file=recipes/{self.recipe}", *(f"--gin.{n}={v}" for n, _, v in pairs)]


def small_records(folder: pathlib.Path) -> None:
    """Of 16 mel bins."""
    write_records(folder, TinySet(labels=False, second_timbre=False))


def paired_records(folder: pathlib.Path) -> None:
    """Writes records of 16 mel bins, in two timbres."""
    write_records(folder, TinySet(labels=False))


def labelled_records(folder: pathlib.Path) -> None:
    """Writes records of 16 mel bins, of two styles."""
    write_records(folder, TinySet(second_timbre=False))


def heard_records(folder: pathlib.Path) -> None:
    """Writes records of 16 mel bins, in two timbres, in which something is heard, with note maps."""
    paired_records(folder)
    rng = np.random.default_rng(0)
    for path in records.find_shards(folder):
        read = [records.Record.from_bytes(message, path.suffix) for message in records.read_shard(path)]
        heard = [dataclasses.replace(
            record, heard=rng.integers(0, 256, (len(record.mel), CHANNELS), np.uint8),
            maps=rng.uniform(-1, 1, (len(record.mel), 2, 16)).astype(np.float16)) for record in read]
        path.unlink()
        records.write_shard(path, (record.to_bytes(path.suffix) for record in heard))


def audio_folder(folder: pathlib.Path, rate: int) -> None:
    """Noise and a tone in int16."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("validation", 8)):
        pieces = [(3000 * rng.standard_normal((rate, 1))
                   + 9000 * np.sin(0.1 * (i + 1) * np.arange(rate))[:, None]).clip(-32768, 32767)
                  for i in range(count)]
        records.write_shard(folder / f"{split}-00000.array_record", (
            AudioRecord(audio=p.astype(np.int16)).to_bytes() for p in pieces))
    records.write_manifest(folder, kind="audio", complete=True, options={"sample_rate": rate})


def recordings(folder: pathlib.Path, rate: int) -> None:
    """Two seconds of notes as sines, and their MIDI files."""
    rows = []
    for number in range(6):
        file = f"{'train' if number < 4 else 'validation'}/{number}.flac"
        start = 0.1 + 0.3 * np.arange(6)
        pitch = 60 + 2 * number + np.arange(6)
        time = np.arange(2 * rate) / rate
        samples = sum(0.2 * np.sin(2 * np.pi * 440 * 2 ** ((p - 69) / 12) * time)
                      * ((time >= s) & (time < s + 0.25)) for s, p in zip(start, pitch, strict=True))
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        write_audio(folder / file, Waveform(samples.astype(np.float32), rate))
        write_midi(Notes(start, start + 0.25, pitch, np.full(6, 90), np.zeros(6), np.zeros(6, bool)),
                   (folder / file).with_suffix(".mid"))
        rows.append(dict.fromkeys(COLUMNS, "") | {
            "file": file, "split": file.split("/")[0], "soundfont": FONT, "peak_db": "-8.00",
            "solo": "0"})
    with (folder / "renders.csv").open("w", newline="") as table:
        writer = csv.DictWriter(table, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def note_rows(folder: pathlib.Path) -> None:
    """Frames of notes that never were."""
    rng = np.random.default_rng(0)
    rows = np.zeros(1024, ROW_DTYPE)
    for name, high in (("program", 128), ("pitch", 100), ("velocity", 128)):
        rows[name] = rng.integers(0, high, len(rows))
    rows["age"] = rng.uniform(0, 1, len(rows))
    rows["release"] = rows["age"] - 0.5
    rows["mel"] = rng.uniform(-10, 0, rows["mel"].shape)
    folder.mkdir()
    np.save(folder / FILE, rows)


STEPS = ("TOTAL_STEPS = 20", "TrainConfig.log_every = 1", "TrainConfig.checkpoint_every = 10",
         "TrainConfig.eval_every = 10")
SMALL_CODEC = tuple(f"MelCodec.{name} = {getattr(CODEC, name)}" for name in (
    "sample_rate", "hop", "window", "fft", "mels", "fmax"))
WARM = ("warmup_cosine.warmup_steps = 2",)
TINY_TRUNK = ("ConvNeXtConfig.dim = 8", "ConvNeXtConfig.hidden = 8", "ConvNeXtConfig.blocks = 1",
              "ConvNeXtConfig.kernel = 3")
AUDIO_CODEC = ("HOP = 160", "WINDOW = 320", "MELS = 32", "MelCodec.sample_rate = 8000",
               "MelCodec.fft = 512", "MelCodec.fmax = 4000.0")
SHORT_LOSS = ("LinearSpectralLoss.windows = (64, 256)",)
TINY_T5 = ("T5Config.embed_dim = 32", "T5Config.num_heads = 2", "T5Config.head_dim = 16",
           "T5Config.mlp_dim = 64", "T5Config.encoder_layers = 1", "T5Config.decoder_layers = 1")
TWO_STEPS = ("SpectrogramDiffusionModel.num_steps=2",)
TINY_JUDGES = (
    "STFTDiscriminatorConfig.windows = (128, 64)", "STFTDiscriminatorConfig.hops = (32, 16)",
    "STFTDiscriminatorConfig.channels = (4, 4, 4, 4, 4)",
    "WaveDiscriminatorConfig.channels = (4, 4, 4, 4)")

ZOO = {
    "spectrogram_diffusion": ZooMember(recipe="tiny.gin", bindings=STEPS, renders=True, fast=TWO_STEPS),
    "spectrogram_diffusion_context": ZooMember(
        recipe="spectrogram_diffusion_small_context.gin", data=small_records, renders=True,
        fast=TWO_STEPS,
        bindings=(*STEPS, *SMALL_CODEC, *TINY_T5, "BATCH_SIZE = 8", "T5Config.mel_bins = 16",
                  "T5Config.frames = 32", "T5Config.context_frames = 32", "T5Config.max_tokens = 128",
                  "RecordSource.frames = 32", "RecordSource.codec = @MelCodec()",
                  "RecordSource.eval_batch_count = 2", "NoteTokens.tokens = 128")),
    "frame_diffusion": ZooMember(
        recipe="default.gin", data=small_records, renders=True, patch=64,
        fast=("FrameDiffusionModel.num_steps=2",), bindings=(
            *STEPS, *SMALL_CODEC, *WARM, "RecordSource.frames = 32", "NoteFrames.slots = 4",
            "RecordSource.codec = @MelCodec()", "RecordSource.eval_batch_count = 2",
            "NoteTimbreConfig.width = 8", "NoteTimbreConfig.layers = 1",
            "UNet1DConfig.widths = (8, 8)", "UNet1DConfig.blocks = 1", "UNet1DConfig.heads = 1",
            "UNet1DConfig.time_features = 4", "UNet1DConfig.head_dim = 4", "UNet1DConfig.output = 64",
            "ScoreDenoiserConfig.frame_features = 8")),
    "timbre_transfer": ZooMember(
        recipe="difftransfer_piano_to_vibraphone.gin", data=paired_records,
        fast=("TimbreTransferModel.num_steps=2",), bindings=(
            *STEPS, *SMALL_CODEC, "BATCH_SIZE = 8", "RecordSource.frames = 16",
            "TimbreTransferModel.frames = 16", "RecordSource.eval_batch_count = 2",
            "UNet2DConfig.widths = (4, 4)", "UNet2DConfig.blocks = 1", "UNet2DConfig.middle = 8",
            "UNet2DConfig.heads = 1", "UNet2DConfig.head_dim = 4", "UNet2DConfig.attention_down = ()",
            "UNet2DConfig.attention_up = (1,)")),
    "unconditional": ZooMember(
        recipe="unconditional.gin", data=labelled_records, patch=64,
        fast=("UnconditionalModel.num_steps=2",), bindings=(
            *STEPS, *SMALL_CODEC, *WARM, "CLASSES = ('folk', 'jazz')", "CLASS_COUNT = 2", "FRAMES = 32",
            "UnconditionalModel.context = 16", "RecordSource.eval_batch_count = 2",
            "UNet1DConfig.widths = (8, 8)", "UNet1DConfig.blocks = 1", "UNet1DConfig.heads = 1",
            "UNet1DConfig.time_features = 4", "UNet1DConfig.head_dim = 4", "UNet1DConfig.output = 64",
            "UnconditionalConfig.region_features = 8")),
    "restyle": ZooMember(
        recipe="restyle.gin", data=heard_records, patch=64, fast=("FrameDiffusionModel.num_steps=2",),
        bindings=(
            *STEPS, *SMALL_CODEC, *WARM, "BATCH_SIZE = 8", "RecordSource.frames = 32", "STYLE_FRAMES = 32",
            "MORE = %DATA", "EVIDENCE = 192", "RecordSource.eval_batch_count = 2",
            "NoteTimbreConfig.width = 8", "NoteTimbreConfig.layers = 1", "UNet1DConfig.widths = (8, 8)",
            "UNet1DConfig.blocks = 1", "UNet1DConfig.heads = 1", "UNet1DConfig.time_features = 4",
            "UNet1DConfig.head_dim = 4", "UNet1DConfig.output = 64", "FrameStyleConfig.width = 8",
            "FrameStyleConfig.blocks = 1", "FrameStyleConfig.vector = 4",
            "ScoreDenoiserConfig.frame_features = 8")),
    "restyle_latent": ZooMember(  # of mel: its autoencoder would be a training of its own
        recipe="restyle_latent.gin", data=heard_records, patch=64,
        fast=("StyleTransferModel.num_steps=2",), bindings=(
            *STEPS, *SMALL_CODEC, *WARM, "BATCH_SIZE = 8", "FRAMES = 32",
            "StyleTransferModel.autoencoder = None",
            "RecordSource.eval_batch_count = 2", "UNet1DConfig.widths = (8, 8)", "UNet1DConfig.blocks = 1",
            "UNet1DConfig.heads = 1", "UNet1DConfig.time_features = 4", "UNet1DConfig.head_dim = 4",
            "UNet1DConfig.output = 64", "FrameStyleConfig.width = 8", "FrameStyleConfig.blocks = 1",
            "FrameStyleConfig.vector = 4", "StyleDenoiserConfig.frame_features = 8")),
    "note_timbre": ZooMember(
        recipe="note_timbre.gin", data=note_rows, bindings=(
            *STEPS, *WARM, "BATCH_SIZE = 32", "NoteTimbreModel.config = @NoteTimbreConfig()",
            "NoteTimbreConfig.width = 8", "NoteTimbreConfig.layers = 1", "NoteRowSource.block = 64",
            "NoteRowSource.holdout = 4")),
    "inverter_gan": ZooMember(
        recipe="inverter_istft.gin", data=functools.partial(audio_folder, rate=8000), predicts="wav",
        bindings=(*STEPS, *AUDIO_CODEC, *WARM, *TINY_TRUNK, *TINY_JUDGES, *SHORT_LOSS, "SAMPLES = 4000",
                  "AudioSource.eval_batch_count = 2", "ISTFTHeadConfig.upsample = 1",
                  "ISTFTHeadConfig.fft = 320", "generator/PartOptimizer.every = 2")),
    # At its recipe's full rate after two steps of warm-up every step more than doubles the rounding by
    # which devices differ (1e-7 to 2e-3 in 20 steps, with either trainer); at this rate none does.
    "inverter": ZooMember(
        recipe="inverter_small.gin", data=functools.partial(audio_folder, rate=8000), predicts="wav",
        bindings=(*STEPS, *AUDIO_CODEC, *WARM, "generator/warmup_cosine.peak = 3e-5", *SHORT_LOSS,
                  "DISCRIMINATORS = None", "SAMPLES = 4000", "AudioSource.eval_batch_count = 2",
                  "SEANetConfig.channels = 16", "SEANetConfig.strides = (5, 4, 4, 2)")),
    "phase_vocoder": ZooMember(
        recipe="inverter.gin", data=functools.partial(audio_folder, rate=8000), predicts="wav",
        bindings=(*STEPS, *AUDIO_CODEC, *WARM, *TINY_TRUNK, "SAMPLES = 4000", "BATCH_SIZE = 8",
                  "AudioSource.eval_batch_count = 2", "PhaseVocoderModel.window = 512",
                  "PhaseVocoderModel.fft = 512", "SpectrumNetConfig.bins = 257",
                  "SpectrumNetConfig.features = 8", "PhaseVocoderModel.corrections = 1",
                  "ConvNeXtConfig.kernel = 7")),
    "transcriber": ZooMember(
        recipe="transcriber.gin", data=functools.partial(recordings, rate=8000), bindings=(
            *STEPS, *WARM, *TINY_TRUNK, "SAMPLES = 8000", "LogFrequencyConfig.sample_rate = 8000",
            "LogFrequencyConfig.hop = 200", "LogFrequencyConfig.windows = (512,)",
            "LogFrequencyConfig.bins_per_semitone = 1", "LogFrequencyConfig.highest_pitch = 106",
            "PitchNetConfig.bins_per_semitone = 1", "PitchNetConfig.harmonics = (1.0, 2.0)",
            "PitchNetConfig.channels = 4", "PitchNetConfig.shared = 2", "PitchNetConfig.told = 1",
            "PitchNetConfig.hidden = 4", "PitchNetConfig.frames = 3", "PitchNetConfig.timbre = 4",
            "PitchNetConfig.trunk = @ConvNeXtConfig()", "RecordingSource.sample_rate = 8000",
            "RecordingSource.eval_batch_count = 2")),
    "tagger": ZooMember(
        recipe="tagger.gin", data=functools.partial(recordings, rate=16000), bindings=(
            *STEPS, *WARM, f"FONTS = ('{FONT}', 'other.sf2')", "BATCH_SIZE = 8", "SAMPLES = 31200",
            "VGGishConfig.channels = ((4,), (4,), (4,), (4,), (4,))", "VGGishConfig.hidden = (8,)",
            "VGGishConfig.embedding = 8", "RecordingSource.eval_batch_count = 2")),
}
