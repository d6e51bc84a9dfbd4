"""Any data set that MT3 keeps as records of NoteSequence and audio (Gardner et al. 2022)."""

from music_diffusion.tasks.members import FROM_NOTES, DataSetTasks

TASKS = DataSetTasks(data_set="mt3_records", members=FROM_NOTES)
register = TASKS.register
