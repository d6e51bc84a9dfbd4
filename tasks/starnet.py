"""StarNet (Alinoori and Tzerpos 2022): the same notes in two timbres."""

from music_diffusion.tasks.members import OF_PAIRS, DataSetTasks

TASKS = DataSetTasks(data_set="starnet", members=OF_PAIRS)
register = TASKS.register
