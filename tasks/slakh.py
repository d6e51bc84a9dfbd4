"""Slakh2100 (Manilow et al. 2019): rendered multitracks."""

from music_diffusion.tasks.members import FROM_NOTES, DataSetTasks

TASKS = DataSetTasks(data_set="slakh", members=FROM_NOTES)
register = TASKS.register
