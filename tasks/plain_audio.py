"""Any audio, without notes."""

from music_diffusion.tasks.members import FROM_NOISE, DataSetTasks

TASKS = DataSetTasks(data_set="plain_audio", members=FROM_NOISE)
register = TASKS.register
