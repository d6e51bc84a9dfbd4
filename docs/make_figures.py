"""Draws docs/figures: the default model's renders beside SoundFont renders of the same notes.

    python docs/make_figures.py /usr/share/sounds/sf2/FluidR3_GM.sf2
"""

from __future__ import annotations

import pathlib
import sys

import numpy as np

import music_diffusion
from music_diffusion.data.soundfont import SoundFontRenderer
from music_diffusion.notes.midi import read_midi
from music_diffusion.synthesis.plot import draw_mel

DOCS = pathlib.Path(__file__).parent
SECONDS = 12.0


def compare(name: str, soundfont: str) -> None:
    """One PNG: the reference's log-mel above the model's."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    synthesizer = music_diffusion.load("default")
    codec = synthesizer.codec
    notes = read_midi(DOCS.parent / "examples" / f"{name}.mid").between(0, SECONDS)
    reference = codec.encode(SoundFontRenderer(path=soundfont)(notes).samples)
    rendered = np.concatenate(list(synthesizer.stream_mel(notes)))
    frames = int(SECONDS * codec.frame_rate)
    figure, axes = plt.subplots(2, 1, figsize=(11, 7), sharex=True, layout="constrained")
    for ax, mel, title in zip(axes, (reference, rendered),
                              ("SoundFont render (reference)", "default model"), strict=True):
        draw_mel(ax, mel[:frames], codec, SECONDS)
        ax.set_title(f"{name}: {title}", loc="left")
    axes[1].set_xlabel("time (s)")
    figure.savefig(DOCS / "figures" / f"{name}.png", dpi=80)
    plt.close(figure)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/make_figures.py SOUNDFONT.sf2")
    for example in ("when_the_saints", "greensleeves"):
        compare(example, sys.argv[1])
