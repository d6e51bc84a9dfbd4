"""Recordings sorted by instrument, without notes."""

from music_diffusion.tasks.members import CLASSES, FROM_NOISE, STYLE_TRANSFER, DataSetTasks

TASKS = DataSetTasks(data_set="instrument_folders", members=(STYLE_TRANSFER, *FROM_NOISE, CLASSES))
register = TASKS.register
