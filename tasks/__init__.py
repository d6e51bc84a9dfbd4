"""seqio tasks, one file per dataset. Nothing is registered on import.

Import it as `music_diffusion.tasks`, which is a link to this folder.
"""
