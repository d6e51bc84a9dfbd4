"""`mega`: the mixture that MT3 and spectrogram diffusion are trained on.

Six data sets, each with a rate of its number of segments to the power of 3/10 (temperature 10/3):
magenta/mt3, `tasks.py`, and magenta/music-spectrogram-diffusion, `tasks.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

from music_diffusion.audio.codec import MelCodec
from music_diffusion.errors import UserError
from music_diffusion.tasks.catalogue import data_set_tasks
from music_diffusion.tasks.members import CODEC, FROM_NOTES

DATA_SETS = ("maestro", "slakh", "cerberus4", "guitarset", "musicnet", "urmp")
TEMPERATURE = 10 / 3


def register(folders: Mapping[str, str], *, codec: MelCodec = CODEC) -> list[str]:
    """Registers mixtures `mega_MEMBER` and their tasks; returns the mixtures' names.

    Needs seqio (`pip install 'music-diffusion[t5x]'`). Registering the same again changes nothing.

    Args:
      folders: data set of DATA_SETS → folder of its records. Those that are not
        given are left out of the mixture.
      codec: of the spectrograms.

    Raises:
      UserError: no folder, a data set that is not of the mixture, a bad folder
        (see `DataSetTasks.register`), or folders whose examples differ in their features.
    """
    for name in folders:
        if name not in DATA_SETS:
            raise UserError(f"{name}: not in the mixture mega, which has {', '.join(DATA_SETS)}")
    if not folders:
        raise UserError(f"mega: give a folder for at least one of {', '.join(DATA_SETS)}")
    given = [(data_set_tasks(name), folders[name]) for name in DATA_SETS if name in folders]
    members = [member.name for member in FROM_NOTES]
    of_each = [tasks.register(folder, codec=codec, members=members) for tasks, folder in given]
    import seqio  # after `register`, which says how it is installed

    mixtures = []
    for member, *names in zip(members, *of_each, strict=True):
        name = f"mega_{member}"
        mixtures.append(name)
        features = [set(seqio.TaskRegistry.get(n).output_features) for n in names]
        if any(f != features[0] for f in features):
            raise UserError(f"{name}: the examples of {', '.join(folders.values())} have different "
                            "features; give all of them note maps, or none")
        if name in seqio.MixtureRegistry.names():
            before = [task.name for task in seqio.MixtureRegistry.get(name).tasks]
            if before != names:
                raise UserError(f"{name}: is registered already, with {', '.join(before)}; remove it "
                                "from seqio's MixtureRegistry first")
            continue
        rate = functools.partial(seqio.mixing_rate_num_examples, temperature=TEMPERATURE)
        seqio.MixtureRegistry.add(name, names, default_rate=rate)
    return mixtures
