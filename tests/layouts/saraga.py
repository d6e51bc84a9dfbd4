"""Saraga 1.5 Carnatic: concerts with songs, their mixes, multitracks and JSON metadata.

Names as in the index of mirdata: most songs as the first two here, those of four artists as the
last one, with the artist's name in that of the file.
"""

from __future__ import annotations

import json
import pathlib

from layouts.common import Truth, scale, tones, write_wav

RATE = 16000  # Hz; 44100 there
# Concert, artist, song, work, mix; stems of the first.
SONGS = (
    ("Cherthala Ranganatha Sharma at Arkay", "Cherthala Ranganatha Sharma", "Bhuvini Dasudane",
     "Bhuvini Dasudane", "Bhuvini Dasudane.mp3.mp3"),
    ("Akkarai Sisters at Arkay", "Akkarai Sisters", "Karuna Nidhi Illalo", None,
     "Karuna Nidhi Illalo.mp3.mp3"),
    ("Live at Vani Mahal", "Sanjay Subrahmanyan", "Bhuvini", "Bhuvini Dasudane",
     "Sanjay Subrahmanyan - Bhuvini.mp3"),
)
STEMS = ("mridangam-left", "mridangam-right", "violin", "vocal")


def build(folder: pathlib.Path) -> list[Truth]:
    """Writes it."""
    truths = []
    for i, (concert, artist, song, work, mix) in enumerate(SONGS):
        name = f"{concert} by {artist}/{song}"
        at = folder / "saraga1.5_carnatic" / name
        samples = tones(scale(pitch=48 + 5 * i), 2.0, RATE)
        write_wav(at / mix, samples, RATE, channels=2)
        facts = {"mbid": f"{i}", "title": song, "length": 2000, "concert": [{"title": concert}],
                 "artists": [{"artist": {"name": artist}, "instrument": {"name": "Voice"}}],
                 "work": [{"mbid": "w", "title": work}] if work else [],
                 "album_artists": [{"mbid": "a", "name": artist}]}
        (at / mix).with_name(mix.partition(".")[0] + ".json").write_text(json.dumps(facts))
        (at / f"{song}.ctonic.txt").write_text("146.832")
        truths.append(Truth(name=f"saraga1.5_carnatic/{name}", split=None, samples=samples,
                            sample_rate=RATE, performance=f"{concert} by {artist}",
                            piece=work or song))
    for stem, samples in stems().items():
        concert, artist, song = SONGS[0][:3]
        write_wav(folder / "saraga1.5_carnatic" / f"{concert} by {artist}" / song
                  / f"{song}.multitrack-{stem}.mp3", samples, RATE)
    return truths


def stems() -> dict:
    """Stem → samples of the first song's."""
    return {stem: tones(scale(pitch=70 + 4 * i), 2.0, RATE) for i, stem in enumerate(STEMS)}
