"""A table of one's own recordings, with whichever of notes, performances and styles it has."""

from music_diffusion.tasks.members import (
    CLASSES,
    FROM_NOISE,
    FROM_NOTES,
    OF_PERFORMERS,
    STYLE_TRANSFER,
    DataSetTasks,
)

TASKS = DataSetTasks(data_set="recording_list",
                     members=(*FROM_NOTES, *OF_PERFORMERS, STYLE_TRANSFER, *FROM_NOISE, CLASSES))
register = TASKS.register
