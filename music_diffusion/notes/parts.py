"""Assignment of notes to those who play, where it is known who does: by sound and by register.

What a transcriber says of each note's instrument is weighed against how often each of them seems to play,
and against the pitches that it seems to play, which are learned from the notes themselves (expectation
and maximization). Measured on eight mixtures of two instruments of 20 s (validation scores, FluidR3): of
the notes that were heard 0.84 are given to the right one, by what the transcriber says alone 0.77. That
parts are lines, of which notes near in time and pitch belong together, made it worse.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from music_diffusion.notes.decoding import DecodeConfig, HeardNotes
from music_diffusion.notes.notes import Notes

ROUNDS = 20
RARE = 0.5  # power of an instrument's mean probability that each note's is divided by
REGISTER = 0.5  # weight of the pitches
LEAST_SPREAD = 3.0  # semitones, deviation of an instrument's pitches at least
FLOOR = 1e-3  # probability of every instrument


def shares(probability: Float[np.ndarray, "N K"], pitch: Int[np.ndarray, " N"]) -> Float[np.ndarray, "N K"]:
    """Returns how surely each note is each instrument's; the shares of a note sum to 1.

    Args:
      probability: that the instruments sound, of each note by itself, 0..1.
      pitch: of the notes.
    """
    heard = probability.astype(np.float64) + FLOOR
    heard /= heard.sum(axis=1, keepdims=True)
    sound = np.log(heard) - RARE * np.log(heard.mean(axis=0)) if len(heard) else heard
    share = _normalized(sound)
    for _ in range(ROUNDS if len(heard) else 0):
        weight = share + 1e-6
        mean = (weight * pitch[:, None]).sum(axis=0) / weight.sum(axis=0)
        square = (weight * np.square(pitch[:, None] - mean)).sum(axis=0) / weight.sum(axis=0)
        spread = np.maximum(np.sqrt(square), LEAST_SPREAD)
        register = -0.5 * np.square((pitch[:, None] - mean) / spread) - np.log(spread)
        share = _normalized(sound + REGISTER * register)
    return share


def played_by(heard: HeardNotes, casting: Mapping[int, int], config: DecodeConfig) -> Notes:
    """Returns heard notes on the programs of those who play them, with the drums.

    Args:
      heard: notes, in which no other instruments than those of the casting were listened for.
      casting: from instrument class (`notes.programs.SLAKH_CLASSES`) to program; classes of one program
        count as one instrument.
      config: its `class_threshold` is what every instrument needs where several play a note.
    """
    programs = list(dict.fromkeys(casting.values()))
    probability = np.nan_to_num(heard.probability)
    of_program = [probability[:, [kind for kind, own in casting.items() if own == program]]
                  for program in programs]
    share = shares(np.stack([p.sum(axis=1) for p in of_program], axis=1), heard.pitch)
    plays = np.stack([p.max(axis=1, initial=0) for p in of_program], axis=1) >= config.class_threshold
    plays[plays.sum(axis=1) == 1] = False  # one alone is found by sound and register
    alone = ~plays.any(axis=1)
    plays[alone, share.argmax(axis=1)[alone]] = True
    return heard.played(plays, np.array(programs)[None])


def _normalized(logarithm: np.ndarray) -> np.ndarray:
    if not logarithm.size:
        return logarithm
    share = np.exp(logarithm - logarithm.max(axis=1, keepdims=True))
    return share / share.sum(axis=1, keepdims=True)
