"""Music diffusion in JAX: `music_diffusion.load('default').synthesize('song.mid')`."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    # `load` brings JAX with it, so it is fetched when it is asked for (PEP 562).
    if name == "load":
        from music_diffusion.synthesis.hub import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
