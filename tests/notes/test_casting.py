"""`--to` and `--from`: who plays what was heard, and what is listened for."""

import numpy as np
import pytest

from music_diffusion.errors import UserError
from music_diffusion.notes.casting import ALIASES, STRINGS, parse_casting, parse_program
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.programs import PROGRAM_NAMES, SLAKH_CLASS_OF_PROGRAM, SLAKH_CLASSES

KIND = {name: int(SLAKH_CLASS_OF_PROGRAM[p]) for name, p in
        (("violin", 40), ("piano", 0), ("flute", 73), ("cello", 42))}


def played(casting, *programs):
    count = len(programs)
    notes = Notes(np.arange(count), np.arange(count) + 1.0, [60] * count, [90] * count, programs,
                  [False] * count)
    return casting(notes).program.tolist()


@pytest.mark.parametrize("text, program", [
    ("vibraphone", 11), ("Vibraphone", 11), ("0", 0), ("127", 127), ("piano", 0), ("electric piano", 4),
    ("acoustic guitar", 24), ("strings", 48), ("flute", 73), ("violin", 40), ("Choir and Voice", 52),
    ("Pad 2 (warm)", 89), ("percussive", 112)])
def test_who_plays_is_a_number_or_a_name(text, program):
    assert parse_program(text, "--to") == program


@pytest.mark.parametrize("name", [*PROGRAM_NAMES, *(kind.name for kind in SLAKH_CLASSES)])
def test_names_of_the_tables_are_known(name):
    program = parse_program(name, "--to")
    assert PROGRAM_NAMES[program] == name or program in dict(SLAKH_CLASSES)[name]


@pytest.mark.parametrize("text, word", [
    ("vibrafone", "did you mean vibraphone"), ("128", "0 to 127"), ("-1", "no such instrument"),
    ("", "no such instrument"), ("xyzzy", "Acoustic Piano"), ("²", "no such instrument")])
def test_others_are_errors_with_the_nearest(text, word):
    with pytest.raises(UserError, match=word) as error:
        parse_program(text, "--to")
    assert str(error.value).startswith(f"--to {text}: ")


def test_all_of_it_on_one_instrument():
    casting = parse_casting("vibraphone")
    assert played(casting, 40, 0, 73) == [11, 11, 11] and casting.heard == ()


def test_each_with_its_own_and_only_these_are_listened_for():
    casting = parse_casting("violin=flute,piano=vibraphone")
    assert played(casting, 40, 0, 1, 42) == [73, 11, 11, 42]
    # A family is more than its first class: electric pianos are pianos, too.
    pianos = {int(SLAKH_CLASS_OF_PROGRAM[p]) for p in range(8)}
    assert casting.heard == tuple(sorted({KIND["violin"], *pianos}))


def test_the_rest_has_one_and_then_anything_may_be_heard():
    casting = parse_casting("violin=flute, rest=harp")
    assert played(casting, 40, 0, 42) == [73, 46, 46] and casting.heard == ()


def test_what_is_listened_for_can_be_said():
    casting, both = parse_casting("harp", "violin,cello"), parse_casting("violin=flute", "cello")
    assert casting.heard == both.heard == tuple(sorted((KIND["violin"], KIND["cello"])))
    assert played(casting, 40, 42) == [46, 46] and played(both, 40, 42) == [73, 42]


def test_the_first_that_names_a_class_counts():
    assert played(parse_casting("violin=flute,strings=harp"), 40, 42) == [73, 46]
    assert {int(SLAKH_CLASS_OF_PROGRAM[p]) for p in STRINGS} >= {KIND["violin"], KIND["cello"]}


@pytest.mark.parametrize("to, source, word", [
    ("violin=flute,violin=harp", None, "given twice"), ("violin=flute,harp", None, "names no instrument"),
    ("violin=", None, "no such instrument"), ("vilin=flute", None, "did you mean violin"),
    ("piano", "vilin", "--from vilin"), ("piano", "violin,", "no such instrument")])
def test_bad_castings_say_what_to_do(to, source, word):
    with pytest.raises(UserError, match=word):
        parse_casting(to, source)


def test_aliases_are_programs():
    assert all(0 <= program < 128 for program in ALIASES.values())
