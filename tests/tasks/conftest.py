"""Records that all tests of tasks share, and registries that are empty again after each."""

import sys

import pytest
from reference.tiny_records import write_records


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A folder of records with notes, labels and a second timbre."""
    return write_records(tmp_path_factory.mktemp("records") / "data")


@pytest.fixture(autouse=True)
def empty_registries():
    yield
    if (seqio := sys.modules.get("seqio")) is not None:
        seqio.TaskRegistry.reset()
        seqio.MixtureRegistry.reset()
        seqio.set_global_cache_dirs([])
