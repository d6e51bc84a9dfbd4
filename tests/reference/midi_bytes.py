"""MIDI files written byte by byte, so that nothing but the standard is trusted."""

BEAT = 96  # ticks per quarter note; without a tempo event a quarter lasts 0.5 s


def number(value):
    """A variable-length quantity: seven bits a byte, the high bit set on all but the last."""
    out = [value & 0x7F]
    while value := value >> 7:
        out.insert(0, (value & 0x7F) | 0x80)
    return bytes(out)


def chunk(name, body, length=None):
    return name + (len(body) if length is None else length).to_bytes(4, "big") + body


def events(*rows, end=True):
    """The body of a track from events (ticks since the last event, *bytes), closed by End of Track."""
    return b"".join(number(delta) + bytes(data) for delta, *data in rows) + b"\x00\xff\x2f\x00" * end


def track(*rows):
    return chunk(b"MTrk", events(*rows))


def midi(*tracks, format=1, division=BEAT, announced=None):
    count = len(tracks) if announced is None else announced
    header = b"".join(n.to_bytes(2, "big") for n in (format, count, division))
    return chunk(b"MThd", header) + b"".join(tracks)


def on(pitch, velocity=80, channel=0):
    return (0x90 | channel, pitch, velocity)


def off(pitch, channel=0):
    return (0x80 | channel, pitch, 64)


def control(which, value, channel=0):
    return (0xB0 | channel, which, value)


def pedal(value, channel=0):
    return control(64, value, channel)


def program(value, channel=0):
    return (0xC0 | channel, value)


def bend(value, channel=0):
    """A pitch bend of -8192..8191."""
    return (0xE0 | channel, value + 8192 & 127, value + 8192 >> 7)


def meta(kind, *data):
    return (0xFF, kind, len(data), *data)


def tempo(microseconds):
    return meta(0x51, *microseconds.to_bytes(3, "big"))


def sysex(*data):
    return (0xF0, len(data) + 1, *data, 0xF7)


def gs(address, value, checksum=None):
    """A Roland GS message to a three-byte address."""
    data = (*address.to_bytes(3, "big"), value)
    return sysex(0x41, 0x10, 0x42, 0x12, *data, -sum(data) % 128 if checksum is None else checksum)


GM_ON, GM2_ON = sysex(0x7E, 0x7F, 9, 1), sysex(0x7E, 0x7F, 9, 3)
GS_RESET = gs(0x40007F, 0)
XG_ON = sysex(0x43, 0x10, 0x4C, 0, 0, 0x7E, 0)
NOTE = ((0, *on(60)), (BEAT, *off(60)))  # half a second


def rows(notes):
    """Returns notes as tuples (start, end, pitch, velocity, program, is_drum)."""
    return [tuple(round(float(x), 6) for x in r) for r in zip(
        notes.start, notes.end, notes.pitch, notes.velocity, notes.program, notes.is_drum,
        strict=True)]


def times(notes):
    return [r[:3] for r in rows(notes)]


def sounds(notes):
    """Returns notes as tuples (start, end, pitch, program or "drums")."""
    return [(*r[:3], "drums" if r[5] else r[4]) for r in rows(notes)]
