"""Saraga (Srinivasamurthy et al. 2021): Carnatic concerts, without notes."""

from music_diffusion.tasks.members import FROM_NOISE, DataSetTasks

TASKS = DataSetTasks(data_set="saraga", members=FROM_NOISE)
register = TASKS.register
