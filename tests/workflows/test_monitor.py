"""What a workflow reports."""

import pytest

from music_diffusion.workflows.monitor import SILENT, Monitor, Stages, in_steps, part_of


def test_stages_are_numbered():
    said = []
    stages = Stages(2, Monitor(say=said.append))
    stages.next("reading")
    stages.next("writing")
    assert said == ["[1/2] reading", "[2/2] writing"]


def test_nobody_need_listen():
    SILENT.say("hello")
    with SILENT.bar("work") as progress:
        progress(0.5)


def test_shares_of_parts_and_steps():
    shares = []
    in_steps(shares.append)(3, 4)
    for number in range(2):
        part_of(shares.append, number, 2)(0.5)
        part_of(shares.append, number, 2)(1.0)
    assert shares == pytest.approx([0.75, 0.25, 0.5, 0.75, 1.0])
