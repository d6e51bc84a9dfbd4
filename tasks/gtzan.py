"""GTZAN (Tzanetakis and Cook 2002): ten genres, without notes."""

from music_diffusion.tasks.members import CLASSES, FROM_NOISE, STYLE_TRANSFER, DataSetTasks

TASKS = DataSetTasks(data_set="gtzan", members=(*FROM_NOISE, CLASSES, STYLE_TRANSFER))
register = TASKS.register
