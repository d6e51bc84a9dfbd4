"""One's own recordings with their MIDI files."""

from music_diffusion.tasks.members import FROM_NOISE, FROM_NOTES, OF_PERFORMERS, DataSetTasks

TASKS = DataSetTasks(data_set="paired_folder",
                     members=(*FROM_NOTES, *OF_PERFORMERS, *FROM_NOISE))
register = TASKS.register
