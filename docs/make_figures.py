"""Draws docs/figures.

    python docs/make_figures.py /usr/share/sounds/sf2/FluidR3_GM.sf2  # default model and SoundFont
    python docs/make_figures.py my_model.work temperature_0.3  # `train --data`: held out, before, after
"""

from __future__ import annotations

import pathlib
import sys

import numpy as np

import music_diffusion
from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.io import read_audio
from music_diffusion.data.soundfont import SoundFontRenderer
from music_diffusion.notes.midi import read_midi
from music_diffusion.synthesis.plot import draw_mel

DOCS = pathlib.Path(__file__).parent
SECONDS = 12.0


def draw(name: str, mels: dict[str, np.ndarray], codec: MelCodec) -> None:
    """One PNG: log-mels [T, F], one above the other, by title."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    frames = int(SECONDS * codec.frame_rate)
    figure, axes = plt.subplots(len(mels), 1, figsize=(11, 3.5 * len(mels)), sharex=True,
                                layout="constrained")
    for ax, (title, mel) in zip(axes, mels.items(), strict=True):
        draw_mel(ax, mel[:frames], codec, SECONDS)
        ax.set_title(title, loc="left")
    axes[-1].set_xlabel("time (s)")
    figure.savefig(DOCS / "figures" / f"{name}.png", dpi=80)
    plt.close(figure)


def compare(name: str, soundfont: str) -> None:
    """The default model and a SoundFont play an example."""
    synthesizer = music_diffusion.load("default")
    codec = synthesizer.codec
    notes = read_midi(DOCS.parent / "examples" / f"{name}.mid").between(0, SECONDS)
    draw(name, {f"{name}: SoundFont render (reference)": codec.encode(
                    SoundFontRenderer(path=soundfont)(notes).samples),
                f"{name}: default model": np.concatenate(list(synthesizer.stream_mel(notes)))}, codec)


def own_recordings(work: str, chosen: str) -> None:
    """A held-out recording, and the renders of its notes before and after training on others."""
    codec = MelCodec()
    folder = pathlib.Path(work)
    (recording,) = (folder / "held_out" / "audio").glob("*.flac")
    files = {"recording that was held out": recording,
             "its notes by the default model": folder / "evaluation/before/generated" / recording.name,
             "its notes by the model trained on other recordings":
                 folder / "evaluation" / chosen / "generated" / recording.name}

    def mel(path: pathlib.Path) -> np.ndarray:
        wave = read_audio(path).resample(codec.sample_rate).mono()
        level = 0.1 / np.sqrt(np.mean(np.square(wave.samples)))  # alike, to see the sound
        return codec.encode(level * wave.samples[:int(SECONDS * codec.sample_rate) + codec.window])

    draw("own_recordings", {title: mel(path) for title, path in files.items()}, codec)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        own_recordings(*sys.argv[1:])
    elif len(sys.argv) == 2:
        for example in ("when_the_saints", "greensleeves"):
            compare(example, sys.argv[1])
    else:
        sys.exit((__doc__ or "").strip())
