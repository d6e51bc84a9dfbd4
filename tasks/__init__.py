"""seqio tasks, one file per data set, and the mixture `mega`. Nothing is registered on import.

    from music_diffusion.tasks import maestro
    maestro.register("/data/maestro")  # records of `music-diffusion prepare maestro`

registers `maestro_spectrogram_diffusion` and the data set's other tasks (`tasks.members`). The one
exception, for programs that can only import a module, is `tasks.from_environment`. Import this
folder as `music_diffusion.tasks`, which is a link to it.
"""
