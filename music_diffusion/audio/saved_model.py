"""Published models as TensorFlow SavedModels, from TensorFlow Hub or a local folder."""

from __future__ import annotations

import os
import pathlib
import warnings
from typing import Any

from music_diffusion.errors import UserError


def load_saved_model(handle: str | os.PathLike, *, published: str) -> Any:
    """The loaded model, which can be called.

    Args:
      handle: a URL that `tensorflow_hub.load` knows, or a local SavedModel folder.
      published: URL of the published model, for the error messages.

    Raises UserError: no TensorFlow, no such model, or one that cannot be called.
    """
    handle = os.fspath(handle)
    local = "://" not in handle
    if local and not (pathlib.Path(handle) / "saved_model.pb").is_file():
        raise UserError(f"{handle}: no SavedModel there (saved_model.pb is missing); give its "
                        f"folder, or {published}")
    tensorflow, hub = tensorflow_modules()
    try:
        model = hub.load(os.path.abspath(handle) if local else handle)
    except (OSError, ValueError, RuntimeError, tensorflow.errors.OpError) as e:
        hint = "is it complete?" if local else "download it elsewhere and give its folder"
        raise UserError(f"{handle}: cannot be loaded ({reason(e)}); {hint}") from e
    if not callable(model):
        raise UserError(f"{handle}: cannot be called; it is not {published}")
    return model


def tensorflow_modules() -> tuple[Any, Any]:
    """The modules tensorflow and tensorflow_hub. Raises UserError where they are not installed."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only; read when it is imported
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about its own use of pkg_resources
            import tensorflow
            import tensorflow_hub
    except ImportError as e:
        raise UserError(f"SavedModels need TensorFlow Hub ({reason(e)}): "
                        "pip install 'music-diffusion[hub]'") from e
    return tensorflow, tensorflow_hub


def reason(error: Exception) -> str:
    """One short line."""
    return " ".join(str(error).split())[:160] or type(error).__name__
