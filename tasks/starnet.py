"""StarNet (Alinoori and Tzerpos 2022): the same notes in two timbres."""

from music_diffusion.tasks.members import TIMBRE_TRANSFER, DataSetTasks

TASKS = DataSetTasks(data_set="starnet", members=(TIMBRE_TRANSFER,))
register = TASKS.register
