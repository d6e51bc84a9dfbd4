"""What holds for all tests: CPU, strict shapes, Hypothesis without a clock, and little to compile."""

import fcntl
import gc
import itertools
import os
import pathlib
import tempfile
import time
from importlib.metadata import version

# Before jax is imported by any test, and for the processes that tests start.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
# Most programs run once: XLA's optimizing would cost more than it saves. Set 0 to have it;
# tests with the mark `optimized` have it always.
UNOPTIMIZED = "JAX_DISABLE_MOST_OPTIMIZATIONS"
LANE = os.environ.setdefault(UNOPTIMIZED, "1")
if LANE == "1" and version("jaxlib").startswith("0.10."):  # an unknown flag would end the process
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_use_fusion_emitters=false"
# What one test has compiled is there for the next one, its processes, and the next run. JAX writes
# in place, and a reader may come in between: so only this process writes, to a folder that is its own
# as long as it holds the lock.
CACHES = pathlib.Path(tempfile.gettempdir()) / f"music-diffusion-tests-{os.getuid()}-jax-{version('jax')}"
CACHES.mkdir(mode=0o700, exist_ok=True)
for number in itertools.count():
    LOCK = (CACHES / f"{number}.lock").open("w")
    try:
        fcntl.flock(LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB)
        break
    except BlockingIOError:
        LOCK.close()
CACHE = CACHES / str(number)
os.environ |= {"JAX_COMPILATION_CACHE_DIR": str(CACHE), "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
               "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1e9"}
KEPT = 3 * 24 * 3600  # seconds

import jax  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Throws away what was compiled days ago."""
    for file in CACHE.glob("*"):
        if file.stat().st_mtime < time.time() - KEPT:
            file.unlink()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Gives the folder of what was compiled to the next one."""
    LOCK.close()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Lets the garbage collector look less often, and never at what was imported.

    What JAX keeps of compiled programs are millions of objects; looking through them took a tenth of
    the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 50, 50)


@pytest.hookimpl(tryfirst=True)  # before the fixtures
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Lets XLA optimize where a test asks for it: here, and in the processes that it starts."""
    wanted = "0" if item.get_closest_marker("optimized") else LANE
    if os.environ[UNOPTIMIZED] != wanted:
        os.environ[UNOPTIMIZED] = wanted
        jax.config.update("jax_disable_most_optimizations", wanted == "1")
        jax.clear_caches()
