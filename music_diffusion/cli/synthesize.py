"""`music-diffusion synthesize`."""

from __future__ import annotations

import dataclasses
import json as json_module

from music_diffusion.cli.output import check_picture
from music_diffusion.cli.progress import progress_bar
from music_diffusion.diffusion.solvers import DDIM, DDPM, DPMSolverPP2M
from music_diffusion.errors import UserError
from music_diffusion.notes.midi import read_midi_file
from music_diffusion.paths import shown
from music_diffusion.synthesis.hub import load
from music_diffusion.synthesis.render import check_outputs, render_file
from music_diffusion.synthesis.synthesizer import Settings

SOLVERS = {"ddim": DDIM(eta=0.0), "ddpm": DDPM(log_variance=0.0), "dpm++2m": DPMSolverPP2M()}


def run(*, midi: str, output: str, model: str, inverter: str | None, steps: int | None, solver: str | None,
        guidance: float | None, seed: int, performance: str | None, performance_guidance: float | None,
        joining: str | None, overlap: float | None, segment: float | None, plot: str | None,
        normalize: bool, json: bool) -> None:
    """See `cli.main.synthesize`."""
    if solver is not None and solver not in SOLVERS:
        raise UserError(f"--solver {solver}: unknown; choose {', '.join(SOLVERS)}")
    settings = Settings(steps=steps, guidance=guidance, seed=seed,
                        solver=SOLVERS[solver] if solver else None, performance=performance,
                        performance_guidance=performance_guidance, joining=joining, overlap=overlap,
                        segment=segment)
    check_outputs(output, plot)
    file = read_midi_file(midi)  # once, as it may be a pipe; a bad file is found before the model is loaded
    for line in file.report():
        print(f"warning: {line}", file=sys.stderr)
    with progress_bar(f"rendering {output}") as progress:
        rendering = render_file(load(model, inverter), file, output, settings=settings, plot=plot,
                                normalize=normalize, progress=progress)
    if json:
        print(json_module.dumps(dataclasses.asdict(rendering)))
    else:
        print(f"{shown(output)}: {rendering.audio_seconds:.1f} s of audio in "
              f"{rendering.wall_seconds:.1f} s "
              f"({rendering.realtime_factor:.1f} x realtime, {rendering.steps} steps)")
    check_picture(rendering.plot_error, output)
