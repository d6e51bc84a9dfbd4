"""Protobuf messages that are described in code, so that no package with generated ones is needed.

Each description lives in a pool of its own: the same messages of another
package (TensorFlow's, note-seq's) can be loaded beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from music_diffusion.errors import UserError


class Field(NamedTuple):
    """A field of a message. Others that its bytes hold are left alone."""

    name: str
    number: int
    kind: str  # double, float, int32, int64, bool, string, bytes, or the name of a message
    repeated: bool = False


def message_classes(package: str, messages: Mapping[str, Sequence[Field]]) -> dict[str, Any]:
    """Makes one class per message (proto3: numbers are packed, absent ones are 0).

    Args:
      package: the package's name in the published schema.
      messages: name → fields.

    Returns:
      name → class, with protobuf's methods.

    Raises:
      UserError: protobuf is not installed.
    """
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError as e:
        raise UserError("TFRecord files need protobuf; "
                        "install it with: pip install 'music-diffusion[data]'") from e
    proto = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{package}.proto", package=package, syntax="proto3")
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field in fields:
            is_message = field.kind in messages
            message.field.add(
                name=field.name, number=field.number,
                label=proto.LABEL_REPEATED if field.repeated else proto.LABEL_OPTIONAL,
                type=proto.TYPE_MESSAGE if is_message else getattr(proto, f"TYPE_{field.kind.upper()}"),
                type_name=f".{package}.{field.kind}" if is_message else None)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
            for name in messages}


def parse_message(message_class: Any, data: bytes) -> Any:
    """A message from its bytes.

    Raises:
      ValueError: the bytes are no message of this kind.
    """
    from google.protobuf.message import DecodeError

    try:
        return message_class.FromString(data)
    except DecodeError as e:
        raise ValueError(f"{len(data)} bytes are no {message_class.DESCRIPTOR.name} ({e})") from e
