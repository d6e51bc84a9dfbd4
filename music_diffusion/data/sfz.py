"""SFZ files → zones of an instrument: the opcodes that most sampled instruments are made with.

Format: https://sfzformat.com. What is not known here is counted and said in one warning.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
import os
import re
from collections.abc import Iterator, Mapping

from music_diffusion.data.samples import Sample, loop_of_wav, measure, recording, warn
from music_diffusion.data.zones import Zone
from music_diffusion.errors import UserError
from music_diffusion.tables import read_text

MOST_INCLUDES = 32  # files, one in another or one after the other
LEVELS = ("global", "master", "group", "region")  # what stands higher is inherited
MOST_LINE = 4096  # characters of a line, definitions replaced
MOST_NUMBER = 1e10  # of any opcode
MOST_DECIBEL = 144.0  # up or down
TOKEN = re.compile(r"<(?P<header>\w+)>|(?<![\w#])(?P<name>[\w#]+)="
                   r"(?P<value>.*?)(?=\s+[\w#]+=|\s*<\w+>|\s*$)")
NOTE = re.compile(r"(?P<letter>[a-g])(?P<sign>[#b]?)(?P<octave>-?\d{1,2})$")
LETTERS = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
SPELLINGS = {"loopmode": "loop_mode", "loopstart": "loop_start", "loopend": "loop_end", "pitch": "tune",
             "gain": "volume"}
# Opcodes with a meaning here, and those of a stereo image and of people, which mono does without.
KNOWN = {"sample", "key", "lokey", "hikey", "pitch_keycenter", "pitch_keytrack", "lovel", "hivel",
         "loop_mode", "loop_start", "loop_end", "ampeg_release", "offset", "end", "tune", "transpose",
         "volume", "group_volume", "master_volume", "global_volume", "amplitude", "amp_veltrack", "trigger",
         "seq_position", "seq_length", "lorand", "hirand", "default_path", "note_offset", "octave_offset",
         "sw_last", "sw_default", "sw_lokey", "sw_hikey", "locc", "hicc", "on_locc", "on_hicc", "set_cc"}
IMAGE = {"pan", "width", "position", "region_label", "group_label", "master_label", "global_label",
         "sw_label", "label_cc"}
RELEASE = 0.001  # seconds, the format's default of ampeg_release

Opcodes = dict[str, str]


@dataclasses.dataclass
class _Left:
    """Counts of what is left out."""

    regions: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    opcodes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def say(self, path: str) -> None:
        parts = [f"{n} region{'s' * (n != 1)} with {why}" for why, n in self.regions.items()]
        parts += [f"{name} ({n} times)" for name, n in self.opcodes.most_common()]
        if parts:
            warn(f"{path}: not played: {', '.join(parts)}")


def read_sfz(path: str, sustained: bool = False) -> tuple[Zone, ...]:
    """Reads the zones of an SFZ file.

    Args:
      path: of the file; samples and includes are relative to it.
      sustained: whether samples without a loop get one that is found in them, when notes are longer.

    Regions that only a release, a controller or a key switch plays, opcodes that are not known, and
    what else is not played are counted in one warning.

    Raises UserError: no such file, a sample that is missing, a value that is no number, or no region.
    """
    left, zones = _Left(), []
    for opcodes in _regions(path, left):
        reason = _unplayed(path, opcodes)
        if reason:
            left.regions[reason] += 1
            continue
        left.opcodes.update(name for name in opcodes if _root(name) not in KNOWN | IMAGE)
        zones.append(_zone(path, opcodes, sustained, left))
    if not zones:
        raise UserError(f"{path}: has no region that a note plays; choose another .sfz file")
    left.say(path)
    return tuple(zones)


def files_of_sfz(path: str) -> tuple[str, ...]:
    """Returns an SFZ file and those that it includes, in order. Raises UserError."""
    opened = [path]
    for _ in _tokens(path, read_text(path, advice="give an .sfz file"), {}, opened):
        pass
    return tuple(opened)


def _regions(path: str, left: _Left) -> Iterator[Opcodes]:
    """Yields the opcodes of each region with those that it inherits."""
    control: Opcodes = {}
    levels: dict[str, Opcodes] = {level: {} for level in LEVELS}
    here: Opcodes | None = None
    in_region = False
    for name, value in _tokens(path, read_text(path, advice="give an .sfz file"), {}, [path]):
        if value is not None:
            if here is not None:
                here[SPELLINGS.get(name, name)] = value
            continue
        if in_region:
            yield _inherited(levels, control)
        in_region = name == "region"
        if name in LEVELS:
            for lower in LEVELS[LEVELS.index(name):]:
                levels[lower] = {}
            here = levels[name]
        elif name == "control":
            here = control
        else:
            here = None
            left.opcodes[f"<{name}>"] += 1
    if in_region:
        yield _inherited(levels, control)


def _inherited(levels: Mapping[str, Opcodes], control: Opcodes) -> Opcodes:
    result = dict(control)
    for level in LEVELS:
        result |= levels[level]
    return result


def _tokens(path: str, text: str, defined: dict[str, str], opened: list[str]
            ) -> Iterator[tuple[str, str | None]]:
    """Yields headers (without value) and opcodes, with #define replaced and #include read."""
    text = re.sub(r"/\*.*?(\*/|\Z)", "", text, flags=re.DOTALL)
    for line in text.splitlines():
        line = line.split("//")[0].strip() if "://" not in line else line.strip()
        words = line.split(None, 2)
        if words[:1] == ["#define"] and len(words) == 3 and words[1].startswith("$"):
            defined[words[1]] = words[2].strip()
            continue
        for name in sorted(defined, key=len, reverse=True):
            _check_length(path, line)  # here too: definitions of definitions may double it each time
            line = line.replace(name, defined[name])
        _check_length(path, line)
        if words[:1] == ["#include"]:
            name = line[len("#include"):].strip('" \t').replace("\\", "/")
            if not name:
                raise UserError(f'{path}: #include names no file; write #include "FILE.sfz"')
            other = os.path.join(os.path.dirname(opened[0]), name)
            if os.path.exists(other) and not os.path.isfile(other):
                raise UserError(f"{path}: includes {name}, which is no file; correct the name")
            opened.append(other)
            if len(opened) > MOST_INCLUDES:
                raise UserError(f"{opened[0]}: includes more than {MOST_INCLUDES} files; does one include "
                                "itself?")
            yield from _tokens(other, read_text(other, advice=f"{path} includes it"), defined, opened)
            continue
        for found in TOKEN.finditer(line):
            if found["header"]:
                yield found["header"].lower(), None
            else:
                yield found["name"].lower(), found["value"].strip()


def _check_length(path: str, line: str) -> None:
    if len(line) > MOST_LINE:
        raise UserError(f"{path}: a line has more than {MOST_LINE} characters; break it between opcodes "
                        f"({line[:20]} …)")


def _root(name: str) -> str:
    """Returns an opcode without its controller's number."""
    return re.sub(r"(cc)\d+$", r"\1", name)


def _unplayed(path: str, opcodes: Opcodes) -> str | None:
    """Returns why a note does not play a region; None if it does."""
    trigger = opcodes.get("trigger", "attack")
    if trigger not in ("attack", "first"):
        return f"trigger={trigger}"
    if opcodes.get("sample", "*").startswith("*"):
        return "generated sound"
    if "sw_last" in opcodes and opcodes["sw_last"] != opcodes.get("sw_default"):
        return "another key switch"
    for name in opcodes:
        kind, _, number = name.partition("cc")
        if kind in ("on_lo", "on_hi"):
            return "a controller's trigger"
        if kind in ("lo", "hi") and number.isdecimal():
            now, bound = _float(path, opcodes, f"set_cc{number}", 0.0), _float(path, opcodes, name, 0.0)
            if (now < bound) if kind == "lo" else (now > bound):
                return "another controller"
    if _float(path, opcodes, "end", 0.0) < 0:
        return "end=-1"
    return None


def _zone(path: str, opcodes: Opcodes, sustained: bool, left: _Left) -> Zone:
    number = functools.partial(_float, path, opcodes)
    name = (opcodes.get("default_path", "") + opcodes["sample"]).replace("\\", "/")
    file = os.path.join(os.path.dirname(path), name)
    if not os.path.isfile(file):
        raise UserError(f"{path}: its sample {name} is not there; put it beside the .sfz file")
    moved = int(number("note_offset", 0) + 12 * number("octave_offset", 0))
    key = opcodes.get("key")
    low, high = (_key(opcodes.get(k, key or default), path) + moved
                 for k, default in (("lokey", "0"), ("hikey", "127")))
    centre = _key(opcodes.get("pitch_keycenter", key or "60"), path) + moved
    track = number("pitch_keytrack", 100)
    pitch = None if track == 0 else centre - number("transpose", 0) - 0.01 * number("tune", 0)
    if track not in (0, 100):
        left.opcodes[f"pitch_keytrack={track:g}"] += 1
    begin = max(0, int(number("offset", 0)))
    end = int(number("end", 0)) + 1 if "end" in opcodes else None
    sample = Sample(path=file, onset=measure(file, begin)[0], begin=begin, end=end, sustained=sustained,
                    loop=_loop(path, file, opcodes, left))
    volume = sum(number(v, 0) for v in ("volume", "group_volume", "master_volume", "global_volume"))
    amplitude = number("amplitude", 100) / 100
    if abs(volume) > MOST_DECIBEL or abs(amplitude) > 10 ** (MOST_DECIBEL / 20):
        raise UserError(f"{path}: a volume of {volume:g} dB and amplitude={100 * amplitude:g}; keep them "
                        f"within ±{MOST_DECIBEL:g} dB")
    one_shot = opcodes.get("loop_mode") == "one_shot"
    return Zone(
        sample=sample, pitch=pitch, keys=(max(low, 0), min(high, 127)),
        velocities=(int(number("lovel", 1)), int(number("hivel", 127))),
        gain=10 ** (volume / 20) * amplitude,
        veltrack=number("amp_veltrack", 100) / 100,
        release=float("inf") if one_shot else number("ampeg_release", RELEASE),
        turn=(int(number("seq_position", 1)) - 1, max(1, int(number("seq_length", 1)))),
        chance=(number("lorand", 0.0), number("hirand", 1.0)))


def _loop(path: str, file: str, opcodes: Opcodes, left: _Left) -> tuple[int, int] | None:
    """Returns first and last sample of the loop: of the opcodes, else of the file."""
    own = loop_of_wav(file)
    mode = opcodes.get("loop_mode", "loop_continuous" if own else "no_loop")
    if mode not in ("loop_continuous", "loop_sustain"):
        return None
    if mode == "loop_sustain":
        left.opcodes["what follows the loop after release"] += 1
    first, last = own or (0, None)
    first = int(_float(path, opcodes, "loop_start", first))
    if "loop_end" in opcodes:
        last = int(_float(path, opcodes, "loop_end", 0))
    if last is None or not 0 <= first < last < len(recording(file)[0]):
        left.opcodes["a loop that the file does not hold"] += 1
        return None
    return first, last


def _float(path: str, opcodes: Opcodes, name: str, default: float) -> float:
    text = opcodes.get(name)
    if text is None:
        return float(default)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise UserError(f"{path}: opcode {name}={text} is no number; correct it")
    if abs(value) > MOST_NUMBER:
        raise UserError(f"{path}: opcode {name}={text} is too large; give one within ±{MOST_NUMBER:g}")
    return value


def _key(text: str, path: str) -> int:
    """Reads a key: a number, or a name, of which c4 is 60."""
    if re.fullmatch(r"-?\d{1,4}", text):
        return int(text)
    found = NOTE.match(text.lower())
    if not found:
        raise UserError(f"{path}: {text!r} is no key; write 60 or c4")
    sign = {"": 0, "#": 1, "b": -1}[found["sign"]]
    return 12 * (int(found["octave"]) + 1) + LETTERS[found["letter"]] + sign
