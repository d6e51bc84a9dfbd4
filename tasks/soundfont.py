"""Scores played by SoundFonts; in pairs of timbres, or note by note for the default model."""

from music_diffusion.tasks.members import FROM_NOTES, OF_PAIRS, DataSetTasks

TASKS = DataSetTasks(data_set="soundfont", members=(*FROM_NOTES, *OF_PAIRS))
register = TASKS.register
