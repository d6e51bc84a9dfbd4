"""Registers tasks when it is imported, for programs that can only be given a module's name.

Such are seqio's cache script and t5x. The environment variable MUSIC_DIFFUSION_TASKS says which
data set's records lie where, as NAME=FOLDER,NAME=FOLDER or as a .json file {NAME: FOLDER}:

    MUSIC_DIFFUSION_TASKS=maestro=/data/maestro,urmp=/data/urmp seqio_cache_tasks \\
        --module_import=music_diffusion.tasks.from_environment \\
        --tasks='maestro_.*' --output_cache_dir=/data/cache

All tasks that the folders can serve are registered, and the mixtures `mega_…` where their data
sets are among them. codec=44k (a file in gin/codecs, or any other) stands for records of another
codec than 16k. For other sizes or mixtures write a module of your own that calls `register` of
`music_diffusion.tasks.DATASET`. No other module here registers on import.
"""

from __future__ import annotations

import json
import os
import pathlib

from music_diffusion import gin_setup
from music_diffusion.errors import UserError
from music_diffusion.tasks import mega
from music_diffusion.tasks.catalogue import data_set_tasks
from music_diffusion.tasks.members import CODEC

VARIABLE = "MUSIC_DIFFUSION_TASKS"


def parse(text: str) -> dict[str, str]:
    """Reads name → folder. Raises UserError where the text is no such thing."""
    if text.endswith(".json"):
        try:
            folders = json.loads(pathlib.Path(text).read_text())
        except (OSError, ValueError) as e:
            raise UserError(f"{VARIABLE}={text}: cannot be read ({' '.join(str(e).split())})") from e
        if not isinstance(folders, dict) or not all(isinstance(v, str) for v in folders.values()):
            raise UserError(f'{text}: write it as {{"maestro": "/data/maestro"}}')
        return folders
    folders = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, folder = part.partition("=")
        if not folder:
            raise UserError(f"{VARIABLE}: {part!r} is no NAME=FOLDER, such as maestro=/data/maestro")
        folders[name] = folder
    return folders


def register_all(text: str) -> list[str]:
    """Registers what the text names; returns the names of the tasks and mixtures."""
    folders = parse(text)
    codec = gin_setup.codec(folders.pop("codec")) if "codec" in folders else CODEC
    if not folders:
        raise UserError(f"{VARIABLE} names no data: set it to NAME=FOLDER, such as maestro=/data/maestro")
    names = [n for data_set, folder in folders.items()
             for n in data_set_tasks(data_set).register(folder, codec=codec)]
    mixed = {name: folder for name, folder in folders.items() if name in mega.DATA_SETS}
    return names + (mega.register(mixed, codec=codec) if mixed else [])


register_all(os.environ.get(VARIABLE, ""))
