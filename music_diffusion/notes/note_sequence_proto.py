"""Serialised NoteSequences without note-seq: the fields that notes are made of.

Field numbers are those of note-seq's `music.proto`, whose oneofs and enums look
the same on the wire.
"""

from __future__ import annotations

import functools
from typing import Any

from music_diffusion.notes.protobuf import Field, message_classes, parse_message

_MESSAGES = {
    "NoteSequence": (
        Field("id", 1, "string"),
        Field("filename", 2, "string"),
        Field("ticks_per_quarter", 4, "int32"),
        Field("tempos", 7, "Tempo", repeated=True),
        Field("notes", 8, "Note", repeated=True),
        Field("total_time", 9, "double"),  # seconds
        Field("control_changes", 11, "ControlChange", repeated=True),
        Field("quantization_info", 15, "QuantizationInfo"),
    ),
    "Tempo": (
        Field("time", 1, "double"),  # seconds
        Field("qpm", 2, "double"),  # quarter notes per minute
    ),
    "Note": (
        Field("pitch", 1, "int32"),
        Field("velocity", 2, "int32"),
        Field("start_time", 3, "double"),  # seconds
        Field("end_time", 4, "double"),  # seconds
        Field("instrument", 7, "int32"),
        Field("program", 8, "int32"),  # counted from 0
        Field("is_drum", 9, "bool"),
    ),
    "ControlChange": (
        Field("time", 1, "double"),  # seconds
        Field("control_number", 2, "int32"),
        Field("control_value", 3, "int32"),
        Field("instrument", 4, "int32"),
        Field("program", 5, "int32"),
        Field("is_drum", 6, "bool"),
    ),
    "QuantizationInfo": (
        Field("steps_per_quarter", 1, "int32"),
        Field("steps_per_second", 2, "int32"),
    ),
}


@functools.cache
def note_sequence_class() -> Any:
    """The message class, to build sequences with.

    Raises:
      UserError: protobuf is not installed.
    """
    return message_classes("magenta", _MESSAGES)["NoteSequence"]


def parse_note_sequence(data: bytes) -> Any:
    """A serialised NoteSequence as what `from_note_sequence` reads.

    Raises:
      ValueError: the bytes are none.
      UserError: protobuf is not installed.
    """
    return parse_message(note_sequence_class(), data)
