"""Splits of items by hashes, so that new items do not move old ones."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
from collections.abc import Sequence

from music_diffusion.data.items import DataSet, Item, Listing
from music_diffusion.errors import UserError


def share(seed: int, purpose: str, name: str) -> float:
    """Returns a number in [0, 1) that depends on seed, purpose and name alone."""
    digest = hashlib.sha256(f"{seed}:{purpose}:{name}".encode("utf-8", "surrogateescape"))
    return int.from_bytes(digest.digest()[:6]) / 2 ** 48


def assign_splits(items: Sequence[Item], seed: int, validation: float) -> list[str]:
    """Returns every item's split: its own, else by a hash of its piece (or name).

    All items of a piece without a split share one: that of the others of the
    piece, if these have the same. Where nothing gives an item for validation,
    the piece of the lowest hash goes there.

    Args:
      items: any number.
      seed: of the hash.
      validation: share of the pieces that goes there, 0..1.

    Raises UserError where training or validation gets no item.
    """
    def key(item: Item) -> str:
        return item.piece or item.name

    known: dict[str, set[str]] = {}
    for item in items:
        if item.split is not None:
            known.setdefault(key(item), set()).add(item.split)
    of_piece = {piece: splits.pop() for piece, splits in known.items() if len(splits) == 1}
    drawn = {key(item): share(seed, "split", key(item)) for item in items
             if item.split is None and key(item) not in of_piece}
    held = {piece for piece, value in drawn.items() if value < validation}
    if len(drawn) > 1 and not held and not any(item.split == "validation" for item in items):
        held = {min(drawn, key=lambda piece: drawn[piece])}
    of_piece |= {piece: "validation" if piece in held else "train" for piece in drawn}
    splits = [item.split or of_piece[key(item)] for item in items]
    for split in ("train", "validation"):
        if split not in splits:
            raise UserError(f"no item for {split}: give at least two pieces, or one that belongs to "
                            f"{split} (a folder of that name)")
    return splits


@dataclasses.dataclass(frozen=True, kw_only=True)
class Assigned:
    """A data set all of whose items have a split; `data.sets.transposed` must know them."""

    data_set: DataSet
    validation: float = 0.05  # as of `assign_splits`
    seed: int = 0
    # Names of items for validation, with all others of their pieces; then what has no split trains.
    held_out: tuple[str, ...] = ()

    def identity(self) -> dict:
        held_out = {"held_out": sorted(self.held_out)} if self.held_out else {}
        return dict(self.data_set.identity()) | held_out

    def list(self) -> Listing:
        """See `data.items.DataSet`, and `assign_splits` for its errors.

        Raises UserError also where there is no item of a name in `held_out`.
        """
        listing = self.data_set.list()
        names = [item.name for item in listing.items]
        for name in self.held_out:
            if name not in names:
                close = difflib.get_close_matches(name, names, 1)
                raise UserError(f"{name}: no such item to hold out; " + (
                    f"did you mean {close[0]}?" if close else f"there are {', '.join(names[:10])}"))
        if self.held_out:
            pieces = {item.piece for item in listing.items if item.name in self.held_out} - {None}
            splits = ["validation" if item.name in self.held_out or item.piece in pieces
                      else item.split or "train" for item in listing.items]
        else:
            splits = assign_splits(listing.items, self.seed, self.validation)
        items = tuple(dataclasses.replace(item, split=split)
                      for item, split in zip(listing.items, splits, strict=True))
        return dataclasses.replace(listing, items=items)
