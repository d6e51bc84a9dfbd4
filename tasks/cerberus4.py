"""Cerberus4 (Manilow et al. 2020): piano, guitar, bass and drums of Slakh2100."""

from music_diffusion.tasks.members import FROM_NOTES, DataSetTasks

TASKS = DataSetTasks(data_set="cerberus4", members=FROM_NOTES)
register = TASKS.register
