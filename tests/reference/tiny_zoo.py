"""Zoo members at tiny sizes with made-up pieces; as a program, training runs of one process of many.

    python -m reference.tiny_zoo JOBS.json [COORDINATOR COUNT INDEX]

JOBS.json holds the arguments of several runs (`run`), one after the other. Beside every model_dir
lies afterwards DIR.INDEX.json: which shard of the batches the process has asked for, and the
numbers of the segments that it has made for them.
"""

import dataclasses
import json
import pathlib
import sys

import jax
import numpy as np
from reference.toy_regression import ToyModel, ToySource

from music_diffusion.audio.codec import MelCodec
from music_diffusion.conditions.note_frames import NoteFrames
from music_diffusion.conditions.note_tokens import NoteTokens
from music_diffusion.data.synthetic import TRAIN_SEGMENTS, SyntheticSource
from music_diffusion.models.frame_diffusion import FrameDiffusionModel
from music_diffusion.models.spectrogram_diffusion import SpectrogramDiffusionModel
from music_diffusion.networks.note_timbre import NoteTimbreConfig
from music_diffusion.networks.score_denoiser import ScoreDenoiserConfig
from music_diffusion.networks.transformer import T5Config
from music_diffusion.networks.unet1d import UNet1DConfig
from music_diffusion.training.loop import TrainConfig, train
from music_diffusion.training.optimizers import adafactor, adamw
from music_diffusion.training.partitioning import MeshConfig

FRAMES, TOKENS = 8, 32
CODEC = MelCodec(mels=8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pieces(SyntheticSource):
    """Segments of which some have one before them. Tells which were made for training."""

    context: bool = False
    made: list[int] = dataclasses.field(default_factory=list)

    def segment(self, index):
        if index < TRAIN_SEGMENTS:
            self.made.append(index)
        example = super().segment(index)
        if self.context:
            before = super().segment(10 * TRAIN_SEGMENTS + index)["targets"]
            known = np.float32(index % 3 > 0)
            example |= {"targets_context": before * known,
                        "targets_context_mask": np.full(FRAMES, known)}
        return example


class Watched:
    """A source that writes down which shard is asked of it."""

    def __init__(self, source):
        self.source, self.shard = source, None
        self.eval_batches = source.eval_batches

    def train_iterator(self, batch_size, seed, *, shard_index=0, shard_count=1):
        self.shard = [batch_size, shard_index, shard_count]
        return self.source.train_iterator(batch_size, seed, shard_index=shard_index,
                                          shard_count=shard_count)


def toy():
    """A regression with noise, for what needs no real network."""
    return ToyModel(noise=0.1), ToySource(), adamw(learning_rate=0.03)


def spectrogram_diffusion():
    """With context and dropout."""
    config = T5Config(
        embed_dim=16, num_heads=2, head_dim=8, mlp_dim=32, encoder_layers=1, decoder_layers=1,
        vocab_size=1536, max_tokens=TOKENS, frames=FRAMES, context_frames=FRAMES,
        mel_bins=CODEC.mels, dropout_rate=0.1, context=True)
    return (SpectrogramDiffusionModel(config=config, codec=CODEC),
            Pieces(codec=CODEC, frames=FRAMES, notes=3, conditions=NoteTokens(tokens=TOKENS),
                   context=True),
            adafactor(learning_rate=1e-3))


def frame_diffusion():
    """With the note timbre network in training, from slots."""
    config = ScoreDenoiserConfig(
        timbre=NoteTimbreConfig(width=16, layers=1, codec=CODEC),
        unet=UNet1DConfig(widths=(16, 16), blocks=1, time_features=4, heads=2, head_dim=8,
                          output=CODEC.mels))
    return (FrameDiffusionModel(config=config, train_timbre=True),
            Pieces(codec=CODEC, frames=FRAMES, notes=3, conditions=NoteFrames(slots=4)),
            adamw(learning_rate=1e-3))


ZOO = {f.__name__: f for f in (toy, spectrogram_diffusion, frame_diffusion)}


def run(member, model_dir, mesh=(-1, 1, 1), **config):
    """Trains a member; `mesh` are the axes of `MeshConfig`, `config` fields of `TrainConfig`."""
    model, data, optimizer = ZOO[member]()
    config = {"batch_size": 16, "log_every": 1, "eval_every": 0, "checkpoint_every": 100,
              "ema_decay": 0.9} | config
    axes = dict(zip(("data", "fsdp", "model"), mesh, strict=True))
    watched = Watched(data)
    train(model=model, data=watched, optimizer=optimizer, model_dir=str(model_dir),
          config=TrainConfig(**config), mesh=MeshConfig(**axes))
    pathlib.Path(f"{model_dir}.{jax.process_index()}.json").write_text(
        json.dumps({"shard": watched.shard, "made": getattr(data, "made", [])}))


def main(jobs, coordinator=None, count=1, index=0):
    if coordinator is not None:
        jax.distributed.initialize(coordinator, int(count), int(index))
    for job in json.loads(pathlib.Path(jobs).read_text()):
        run(**job)


if __name__ == "__main__":
    main(*sys.argv[1:])
