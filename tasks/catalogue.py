"""Catalogue of the tasks of all data sets, by name. Needs no seqio."""

from __future__ import annotations

import difflib

from music_diffusion.errors import UserError
from music_diffusion.tasks import (
    bach_violin,
    cerberus4,
    gtzan,
    guitarset,
    instrument_folders,
    maestro,
    mt3_records,
    musicnet,
    paired_folder,
    plain_audio,
    recording_list,
    saraga,
    slakh,
    soundfont,
    starnet,
    urmp,
)
from music_diffusion.tasks.members import DataSetTasks, Member

DATA_SETS: dict[str, DataSetTasks] = {
    module.TASKS.data_set: module.TASKS for module in (
        maestro, slakh, cerberus4, guitarset, musicnet, urmp, mt3_records, starnet, gtzan, saraga,
        instrument_folders, recording_list, paired_folder, plain_audio, bach_violin, soundfont)}


def data_set_tasks(name: str) -> DataSetTasks:
    """Finds the tasks of a data set. Raises UserError for an unknown one."""
    if name not in DATA_SETS:
        close = difflib.get_close_matches(name, DATA_SETS, 1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UserError(f"{name}: no such data set; {hint}There are {', '.join(DATA_SETS)}")
    return DATA_SETS[name]


def find_task(name: str) -> tuple[DataSetTasks, Member]:
    """Finds the data set and the member of a task. Raises UserError that lists what there is."""
    tasks = {t.task_name(m): (t, m) for t in DATA_SETS.values() for m in t.members}
    if name in tasks:
        return tasks[name]
    close = difflib.get_close_matches(name, tasks, 1)
    hint = f"did you mean {close[0]}? " if close else ""
    its = next((t for t in DATA_SETS.values() if name.startswith(t.data_set)), None)
    there = ", ".join(its.task_names) if its else "DATASET_MEMBER, such as maestro_frame_diffusion"
    raise UserError(f"{name}: no such task; {hint}There are {there}")
