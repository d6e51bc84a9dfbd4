"""MusicNet (Thickstun et al. 2017): classical recordings."""

from music_diffusion.tasks.members import FROM_NOTES, OF_PERFORMERS, STYLE_TRANSFER, DataSetTasks

TASKS = DataSetTasks(data_set="musicnet", members=(*FROM_NOTES, *OF_PERFORMERS, STYLE_TRANSFER))
register = TASKS.register
