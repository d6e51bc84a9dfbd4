"""The search for the largest batch."""

import pytest

from music_diffusion.errors import UserError
from music_diffusion.workflows.benchmark import largest as largest_module
from music_diffusion.workflows.benchmark.largest import largest_batch
from music_diffusion.workflows.benchmark.processes import EndedBySignalError
from music_diffusion.workflows.requests import BenchmarkRequest


class Memory:
    """`run_part` for steps of which batches up to `largest` fit."""

    def __init__(self, largest, unit, killed=False):
        self.largest, self.unit, self.killed, self.asked = largest, unit, killed, []

    def __call__(self, name, request, *, fits=False):
        assert name == "train_step"
        batch = request.batch or self.unit
        assert batch % self.unit == 0
        self.asked.append((batch, fits, request.repeats))
        if batch > self.largest and self.killed:
            raise EndedBySignalError("its process was ended by signal 9")
        return [{"fits": batch <= self.largest, "batch": batch}]


@pytest.mark.parametrize("largest, unit, killed, found", [
    (1, 1, False, 1), (2, 1, True, 2), (7, 1, False, 7), (31, 1, True, 31), (24, 8, False, 24),
    (30, 8, False, 24), (1000, 1, True, 992), (10**9, 4, False, 4 * 2**16)])
def test_the_largest_batch_is_found(monkeypatch, largest, unit, killed, found):
    memory, shares = Memory(largest, unit, killed), []
    monkeypatch.setattr(largest_module, "run_part", memory)
    row, = largest_batch(BenchmarkRequest(), shares.append)
    assert row["batch"] == found and largest * 15 / 16 - unit < found or found == 4 * 2**16
    assert memory.asked[-1] == (found, False, 3)  # the one that is reported
    tries = memory.asked[:-1]
    assert all(fits and repeats == 1 for _, fits, repeats in tries)
    assert len({b for b, _, _ in tries}) == len(tries) <= 22  # none twice
    assert shares == sorted(shares) and shares[-1] < 1


def test_a_batch_of_nothing_fits(monkeypatch):
    monkeypatch.setattr(largest_module, "run_part", Memory(1, 2))
    with pytest.raises(UserError, match="not even the smallest batch fits"):
        largest_batch(BenchmarkRequest(), lambda share: None)


def test_mistakes_are_no_tries(monkeypatch):
    def run_part(name, request, *, fits):
        raise UserError("no such gin file")

    monkeypatch.setattr(largest_module, "run_part", run_part)
    with pytest.raises(UserError, match="no such gin file"):
        largest_batch(BenchmarkRequest(), lambda share: None)
