"""URMP (Li et al. 2018): chamber music."""

from music_diffusion.tasks.members import FROM_NOTES, OF_PERFORMERS, DataSetTasks

TASKS = DataSetTasks(data_set="urmp", members=(*FROM_NOTES, *OF_PERFORMERS))
register = TASKS.register
