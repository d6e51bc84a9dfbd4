"""The reader of StarNet against its fixture."""

import numpy as np
import pytest
from layouts import starnet as layout
from layouts.agree import assert_same

from music_diffusion.data.sets.starnet import CONVERSIONS, VALIDATION, StarNet
from music_diffusion.errors import UserError


def test_items_are_all_conversions_of_all_tracks(tmp_path):
    truths = layout.build(tmp_path)
    listing = StarNet(folder=str(tmp_path)).list()
    assert len(listing.items) == 18
    assert_same(listing.items, truths)
    assert not listing.skipped


@pytest.mark.parametrize("conversion", CONVERSIONS)
def test_one_conversion(tmp_path, conversion):
    truths = layout.build(tmp_path)
    listing = StarNet(folder=str(tmp_path), conversion=conversion).list()
    assert_same(listing.items, [t for t in truths if t.name.startswith(f"{conversion}/")])


def test_validation_is_that_of_difftransfer():
    # The rule of its training script, on the sorted tracks 001 to 104.
    order = np.random.default_rng(12345).choice(104, 104, replace=False)
    assert sorted(order[104 - 104 // 5:] + 1) == list(VALIDATION)


@pytest.mark.parametrize("validation, splits", [
    ((), {"001": None, "056": None, "test-001": "test"}),
    ((1,), {"001": "validation", "056": "train", "test-001": "test"})])
def test_validation_can_be_chosen(tmp_path, validation, splits):
    layout.build(tmp_path)
    reader = StarNet(folder=str(tmp_path), conversion="piano_to_vibraphone", validation=validation)
    assert {item.piece: item.split for item in reader.list().items} == splits
    assert reader.identity() == {"conversion": "piano_to_vibraphone", "validation": list(validation)}


def test_missing_files_are_named(tmp_path):
    truths = layout.build(tmp_path)
    (tmp_path / "starnet-p1" / "001.5.wav").unlink()
    (tmp_path / "starnet-p1" / "readme.wav").touch()
    listing = StarNet(folder=str(tmp_path)).list()
    skipped = dict(listing.skipped)
    assert skipped.keys() == {"piano_to_vibraphone/001", "vibraphone_to_piano/001",
                              "starnet-p1/readme.wav"}
    assert "001.5.wav missing" in skipped["piano_to_vibraphone/001"]
    # A mixture is used without its stems then.
    mixture = next(i for i in listing.items if i.name == "clarinet_vibraphone_to_strings_piano/001")
    truth = next(t for t in truths if t.name == mixture.name)
    assert not mixture.stems and truth.stems


def test_wrong_use_is_refused(tmp_path):
    with pytest.raises(UserError, match="no audio"):
        StarNet(folder=str(tmp_path)).list()
    (tmp_path / "song.wav").touch()
    with pytest.raises(UserError, match="starnet-p1/001.0.wav"):
        StarNet(folder=str(tmp_path)).list()
    (tmp_path / "001.0.wav").touch()
    with pytest.raises(UserError, match="no track can be used"):
        StarNet(folder=str(tmp_path)).list()
    layout.build(tmp_path)
    with pytest.raises(UserError, match="not of both"):
        StarNet(folder=str(tmp_path)).list()
    with pytest.raises(UserError, match="choose from all"):
        StarNet(folder="x", conversion="piano_to_organ")
