"""Cerberus4: quartets of piano, guitar, bass and drums, made of Slakh2100's stems.

Published is the recipe alone (MT3, Gardner et al., 2022, appendix B.3, after
Manilow et al., "Simultaneous Separation and Transcription of Mixtures with
Multiple Polyphonic and Percussive Instruments", ICASSP 2020): of each track of
Slakh2100 all sets of exactly one piano, guitar, bass and drum kit, over the
whole track, in Slakh2100's splits. MT3 counts 960 tracks for training, 235 for
validation and 132 for test, with 542.6 hours of mixtures, but lists no names;
here it is every track that has the four. The groups are those of
github.com/ethman/slakh-utils (submixes/example_submixes/band.yaml). The order
and the names of the items are ours.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

from music_diffusion.data.items import DRUM_PROGRAM, Item, Listing
from music_diffusion.data.sets.slakh import BASSES, Track, read_tracks, stems_item
from music_diffusion.errors import UserError

# In the order of an item's stems: programs of a group, and the one that stands for all.
GROUPS = ((range(0, 8), 0), (range(24, 32), 24), (BASSES, 32),
          (range(DRUM_PROGRAM, DRUM_PROGRAM + 1), DRUM_PROGRAM))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cerberus4:
    """Reader of the quartets in a Slakh2100 folder."""

    folder: str  # of Slakh2100, as `slakh.Slakh` reads it
    # As MT3: all pianos are program 0, guitars 24, basses 32. False: the programs of metadata.yaml.
    group_programs: bool = True
    sounding_bass: bool = False  # see `slakh.Slakh`

    def list(self) -> Listing:
        """Raises UserError as `slakh.read_tracks` does, and where no track has the four."""
        tracks, skipped = read_tracks(self.folder)
        items = [item for track in tracks for item in self._items(track)]
        if not items:
            raise UserError(f"{self.folder}: none of its {len(tracks)} tracks has piano, guitar, bass "
                            "and drums; give the folder of the whole Slakh2100")
        return Listing(items=tuple(items), skipped=tuple(skipped))

    def _items(self, track: Track) -> Iterator[Item]:
        groups = [[s for s in track.stems if s.program in programs] for programs, _ in GROUPS]
        for quartet in itertools.product(*groups):
            keys = [s.key for s in quartet]
            programs = dict(zip(keys, (first for _, first in GROUPS), strict=True))
            yield stems_item(track, quartet, name=f"{track.name}/{'-'.join(keys)}",
                             programs=programs if self.group_programs else None,
                             sounding_bass=self.sounding_bass)

    def identity(self) -> dict[str, object]:
        return {"group_programs": self.group_programs, "sounding_bass": self.sounding_bass}
