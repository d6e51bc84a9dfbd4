"""GuitarSet (Xi et al. 2018): six players, solo and comping."""

from music_diffusion.tasks.members import FROM_NOISE, FROM_NOTES, OF_PERFORMERS, DataSetTasks

TASKS = DataSetTasks(data_set="guitarset", members=(*FROM_NOTES, *OF_PERFORMERS, *FROM_NOISE))
register = TASKS.register
