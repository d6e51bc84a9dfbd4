"""Bach Violin Dataset (Dong et al. 2022): solo violin by several violinists."""

from music_diffusion.tasks.members import FROM_NOTES, OF_PERFORMERS, DataSetTasks

TASKS = DataSetTasks(data_set="bach_violin", members=(*FROM_NOTES, *OF_PERFORMERS))
register = TASKS.register
