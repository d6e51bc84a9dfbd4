"""MAESTRO v3 (Hawthorne et al. 2019): piano competitions."""

from music_diffusion.tasks.members import FROM_NOISE, FROM_NOTES, OF_PERFORMERS, DataSetTasks

TASKS = DataSetTasks(data_set="maestro", members=(*FROM_NOTES, *OF_PERFORMERS, *FROM_NOISE))
register = TASKS.register
