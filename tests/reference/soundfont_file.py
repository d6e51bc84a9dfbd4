"""A SoundFont 2.04 file from bytes: looped sines, so that every render is known beforehand.

Bank 0, programs 0..63: a sine at the pitch of the key. Programs 64..127: an
octave higher. Bank 128, preset 0 (drums): 2200 Hz whatever the key.
"""

import struct

import numpy as np

RATE = 44000  # Hz; 440 Hz is 100 samples a period
DRUM_HERTZ = 2200.0
# Generators of the SoundFont specification, section 8.1.2.
COARSE_TUNE, INSTRUMENT, SAMPLE_ID, SAMPLE_MODES, SCALE_TUNING = 51, 41, 53, 54, 56


def expected_hertz(program: int, pitch: int, drum: bool) -> float:
    if drum:
        return DRUM_HERTZ
    return 440.0 * 2 ** ((int(pitch) - 69) / 12) * (2 if program >= 64 else 1)


def chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def _records(kind: bytes, form: str, rows) -> bytes:
    return chunk(kind, b"".join(struct.pack("<" + form, *row) for row in rows))


def soundfont(programs=range(128)) -> bytes:
    """The file, with these programs (and the drums)."""
    samples, headers = [], []
    at = 0
    for name, period in ((b"sine", 100), (b"drum", 20)):
        wave = np.round(16000 * np.sin(2 * np.pi * np.arange(4000) / period)).astype("<i2")
        # The loop is 30 whole periods or more; 46 zeros must follow a sample.
        headers.append((name, at, at + 4000, at + 1000, at + 4000, RATE, 69, 0, 0, 1))
        samples.append(wave.tobytes() + bytes(2 * 46))
        at += 4046
    instruments = [
        (b"key", [(SAMPLE_MODES, 1), (SAMPLE_ID, 0)]),
        (b"octave", [(COARSE_TUNE, 12), (SAMPLE_MODES, 1), (SAMPLE_ID, 0)]),
        (b"drum", [(SAMPLE_MODES, 1), (SCALE_TUNING, 0), (SAMPLE_ID, 1)])]
    presets = [(b"p%d" % p, p, 0, int(p >= 64)) for p in sorted(programs)] + [(b"kit", 0, 128, 2)]

    generators, bags, heads = [], [], []
    for name, zone in instruments:
        heads.append((name, len(bags)))
        bags.append((len(generators), 0))
        generators += zone
    heads.append((b"EOI", len(bags)))
    bags.append((len(generators), 0))
    body = b"".join([
        _records(b"phdr", "20sHHHIII", [(n, p, b, i, 0, 0, 0) for i, (n, p, b, _) in enumerate(
            presets)] + [(b"EOP", 0, 0, len(presets), 0, 0, 0)]),
        _records(b"pbag", "HH", [(i, 0) for i in range(len(presets) + 1)]),
        chunk(b"pmod", bytes(10)),
        _records(b"pgen", "HH", [(INSTRUMENT, i) for *_, i in presets] + [(0, 0)]),
        _records(b"inst", "20sH", heads),
        _records(b"ibag", "HH", bags),
        chunk(b"imod", bytes(10)),
        _records(b"igen", "Hh", generators + [(0, 0)]),
        _records(b"shdr", "20sIIIIIBbHH", headers + [(b"EOS", *[0] * 9)])])
    info = chunk(b"ifil", struct.pack("<HH", 2, 4)) + chunk(b"isng", b"EMU8000\0") \
        + chunk(b"INAM", b"sines\0")
    return chunk(b"RIFF", b"sfbk" + chunk(b"LIST", b"INFO" + info)
                 + chunk(b"LIST", b"sdta" + chunk(b"smpl", b"".join(samples)))
                 + chunk(b"LIST", b"pdta" + body))
