"""Instruments in memory: which samples sound for a key and a velocity."""

from __future__ import annotations

import dataclasses
import functools
import math

from music_diffusion.data.samples import Sample

DECAYING, SUSTAINED, DRUM = "decaying", "sustained", "drum"
KINDS = (DECAYING, SUSTAINED, DRUM)
RELEASE = {DECAYING: 0.3, SUSTAINED: 0.2, DRUM: math.inf}  # seconds, as a damper or a room would take
CENTS = 60.0  # a file's measured pitch may be off by; it is corrected by as much


@dataclasses.dataclass(frozen=True, kw_only=True)
class Zone:
    """A sample with the keys and velocities that it is for."""

    sample: Sample
    pitch: float | None = None  # MIDI number, cents as a fraction; None: the same on every key
    keys: tuple[int, int] = (0, 127)  # lowest and highest
    velocities: tuple[int, int] = (1, 127)
    gain: float = 1.0  # amplitude at velocity 127
    veltrack: float = 1.0  # 0..1: how far amplitude follows velocity
    release: float | None = None  # seconds for 60 dB after the note's end; None: as of the instrument
    turn: tuple[int, int] = (0, 1)  # it sounds in this one of so many repetitions of a note
    chance: tuple[float, float] = (0.0, 1.0)  # part of 0..1 in which a random number lies when it sounds

    def amplitude(self, velocity: int) -> float:
        """Returns the factor of its samples: the square of velocity, as of FluidSynth and SFZ."""
        return self.gain * (1 - self.veltrack + self.veltrack * (velocity / 127) ** 2)

    def shift(self, key: int) -> float:
        """Returns semitones up from its pitch to the key."""
        return 0.0 if self.pitch is None else key - self.pitch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Instrument:
    """Recorded notes that are played as one instrument."""

    name: str
    zones: tuple[Zone, ...]
    programs: tuple[int, ...]  # 0..127, or DRUM_PROGRAM
    kind: str = DECAYING
    release: float = RELEASE[DECAYING]  # seconds for 60 dB after a note's end; infinite: rings on
    keys: tuple[int, int] = (0, 127)
    layered: bool = False  # all zones that fit sound together (SFZ), rather than the nearest one

    def played(self, key: int, velocity: int, repetition: int, most_shift: float) -> list[Zone]:
        """Returns the zones that sound; none where no sample is within `most_shift` semitones.

        Args:
          key: MIDI pitch, or drum key.
          velocity: 1..127.
          repetition: number of the note among those of its key, from 0: chooses among equals.
          most_shift: semitones.
        """
        near = [z for z in self._near[key] if z.pitch is None or abs(key - round(z.pitch)) <= most_shift]
        if self.layered:
            near = [z for z in near if z.velocities[0] <= velocity <= z.velocities[1]]
            chance = (0.5 + repetition * 0.6180339887) % 1.0  # spreads evenly over 0..1
            # Where it is nobody's turn, all sound rather than none.
            return [z for z in near if repetition % z.turn[1] == z.turn[0]
                    and z.chance[0] <= chance < z.chance[1]] or near
        if not near:
            return []
        # The nearest layer that has a sample there, then the nearest pitch, then in turn.
        gap = [max(z.velocities[0] - velocity, velocity - z.velocities[1], 0) for z in near]
        near = [z for z, g in zip(near, gap, strict=True) if g == min(gap)]
        steps = [round(abs(z.shift(key))) for z in near]
        equals = [z for z, s in zip(near, steps, strict=True) if s == min(steps)]
        below = [z for z in equals if z.shift(key) >= -0.5]  # rather up than down by as much: no dark notes
        equals = below or equals
        return [equals[repetition % len(equals)]]

    def range(self, most_shift: float) -> tuple[int, ...]:
        """Returns the keys that it can play at any velocity."""
        return tuple(key for key in range(128) if all(
            self.played(key, velocity, 0, most_shift) for velocity in (1, 32, 64, 96, 127)))

    @functools.cached_property
    def _near(self) -> tuple[tuple[Zone, ...], ...]:
        """Returns the zones that may sound for each key."""
        low, high = self.keys
        return tuple(tuple(z for z in self.zones if z.keys[0] <= key <= z.keys[1])
                     if low <= key <= high else () for key in range(128))
