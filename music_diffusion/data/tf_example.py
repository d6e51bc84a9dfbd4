"""tf.train.Example without TensorFlow: named lists of bytes, floats or integers.

Field numbers are those of TensorFlow's `example.proto` and `feature.proto`. A
protobuf map is on the wire a repeated message of key and value.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from music_diffusion.notes.protobuf import Field, message_classes, parse_message

_MESSAGES = {
    "Example": (Field("features", 1, "Features"),),
    "Features": (Field("feature", 1, "Entry", repeated=True),),
    "Entry": (Field("key", 1, "string"), Field("value", 2, "Feature")),
    "Feature": (
        Field("bytes_list", 1, "BytesList"),
        Field("float_list", 2, "FloatList"),
        Field("int64_list", 3, "Int64List"),
    ),
    "BytesList": (Field("value", 1, "bytes", repeated=True),),
    "FloatList": (Field("value", 1, "float", repeated=True),),
    "Int64List": (Field("value", 1, "int64", repeated=True),),
}
_KINDS = {bytes: "bytes_list", float: "float_list", int: "int64_list"}


@functools.cache
def _example_class() -> Any:
    return message_classes("tensorflow", _MESSAGES)["Example"]


def serialize(features: Mapping[str, list]) -> bytes:
    """Writes named lists, each of one type. Floats are rounded to float32.

    An empty list has no type and is written as a feature that is not set.

    Raises:
      TypeError: a list mixes types, or holds other ones than bytes, float and int.
      UserError: protobuf is not installed.
    """
    example = _example_class()()
    example.features.SetInParent()
    for name in sorted(features):
        entry = example.features.feature.add(key=name)
        entry.value.SetInParent()
        types = {type(value) for value in features[name]}
        if len(types) > 1 or not types <= _KINDS.keys():
            names = ", ".join(sorted(t.__name__ for t in types))
            raise TypeError(f"feature {name!r} must be all bytes, all float or all int, not {names}")
        if types:
            getattr(entry.value, _KINDS[types.pop()]).value.extend(features[name])
    return example.SerializeToString()


def parse(data: bytes, only: Collection[str] | None = None) -> dict[str, list]:
    """Reads named lists.

    Args:
      data: a serialised tf.train.Example.
      only: the names that are wanted, of those there are; None: all.

    Returns:
      name → list of bytes, float or int; empty for a feature that is not set.

    Raises:
      ValueError: the bytes are no Example.
      UserError: protobuf is not installed.
    """
    return {name: [] if values is None else list(values)
            for name, values in _features(data).items() if only is None or name in only}


def parse_floats(data: bytes, name: str) -> Float[np.ndarray, " n"]:
    """Reads one feature of many floats, such as audio, as a float32 array.

    Raises:
      ValueError: the bytes are no Example, or have no such feature of floats.
      UserError: protobuf is not installed.
    """
    values = _features(data).get(name)
    if values is None:
        raise ValueError(f"no feature {name!r} with values")
    if values and not isinstance(values[0], float):
        raise ValueError(f"feature {name!r} does not hold floats")
    return np.array(values, np.float32)


def _features(data: bytes) -> dict[str, Any]:
    """Returns name → protobuf's list of values; None for a feature that is not set."""
    features = {}
    for entry in parse_message(_example_class(), data).features.feature:
        kind = next((k for k in _KINDS.values() if entry.value.HasField(k)), None)
        features[entry.key] = None if kind is None else getattr(entry.value, kind).value
    return features
