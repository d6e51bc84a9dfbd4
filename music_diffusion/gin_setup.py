"""Setup of gin: where the files lie, what they may configure, and one-line errors.

Nothing is registered on import; `register_configurables` does it on a call.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import pathlib
import re
import tokenize
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from music_diffusion.audio.codec import RETIRED, MelCodec
from music_diffusion.errors import UserError

# module -> what gin files may name in it, as '@train' or 'adamw.weight_decay = 0.01'.
CONFIGURABLES: dict[str, tuple[str, ...]] = {
    "music_diffusion.training.loop": ("train", "TrainConfig"),
    "music_diffusion.synthesis.release": ("released",),
    "music_diffusion.training.optimizers": (
        "adafactor", "adamw", "muon", "by_part", "plateau", "tracking", "PartOptimizer", "warmup_cosine",
        "warmup_constant"),
    "music_diffusion.training.partitioning": ("MeshConfig",),
    "music_diffusion.audio.codec": ("MelCodec",),
    "music_diffusion.audio.spectral_loss": ("LinearSpectralLoss", "MelSpectralLoss"),
    "music_diffusion.notes.vocabulary": ("EventConfig", "vocabulary_rows"),
    "music_diffusion.networks.transformer": ("T5Config",),
    "music_diffusion.networks.unet1d": ("UNet1DConfig",),
    "music_diffusion.networks.unet2d": ("UNet2DConfig",),
    "music_diffusion.networks.unconditional": ("UnconditionalConfig",),
    "music_diffusion.networks.note_timbre": ("NoteTimbreConfig",),
    "music_diffusion.networks.performance": ("PerformanceConfig",),
    "music_diffusion.networks.score_denoiser": ("ScoreDenoiserConfig",),
    "music_diffusion.networks.convnext": ("ConvNeXtConfig",),
    "music_diffusion.networks.spectrum_net": ("SpectrumNetConfig",),
    "music_diffusion.networks.seanet": ("SEANetConfig",),
    "music_diffusion.networks.istft_head": ("ISTFTHeadConfig",),
    "music_diffusion.networks.discriminators": (
        "STFTDiscriminatorConfig", "WaveDiscriminatorConfig", "DiscriminatorsConfig"),
    "music_diffusion.networks.autoencoder": ("FrameAutoencoderConfig", "PictureAutoencoderConfig"),
    "music_diffusion.networks.style": ("FrameStyleConfig", "PictureStyleConfig"),
    "music_diffusion.networks.style_denoiser": ("StyleDenoiserConfig", "PictureStyleDenoiserConfig"),
    "music_diffusion.networks.pitch_net": ("PitchNetConfig",),
    "music_diffusion.networks.vggish": ("VGGishConfig",),
    "music_diffusion.audio.log_frequency": ("LogFrequencyConfig",),
    "music_diffusion.audio.vggish_mel": ("VGGishMel",),
    "music_diffusion.notes.decoding": ("DecodeConfig",),
    "music_diffusion.conditions.note_frames": ("NoteFrames",),
    "music_diffusion.conditions.heard": ("HeardFrames",),
    "music_diffusion.conditions.note_tokens": ("NoteTokens",),
    "music_diffusion.conditions.performance_numbers": ("PerformanceNumbers",),
    "music_diffusion.conditions.regions": ("ClassAndRegion",),
    "music_diffusion.conditions.style": ("ContentAndStyle",),
    "music_diffusion.conditions.spectrograms": ("Nothing", "SourceSpectrogram", "StyleSpectrogram"),
    "music_diffusion.models.transcriber": ("TranscriberModel",),
    "music_diffusion.models.tagger": ("TaggerModel",),
    "music_diffusion.evaluation.conversions": ("transfer_rows", "strength_rows", "restyle_rows"),
    "music_diffusion.evaluation.plan": ("EvaluationPlan", "row_if_given"),
    "music_diffusion.evaluation.table": ("Table", "evaluated"),
    "music_diffusion.models.spectrogram_inverter": ("SpectrogramInverterModel",),
    "music_diffusion.models.phase_vocoder": ("PhaseVocoderModel",),
    "music_diffusion.models.spectrogram_diffusion": ("SpectrogramDiffusionModel",),
    "music_diffusion.models.frame_diffusion": ("FrameDiffusionModel",),
    "music_diffusion.models.note_timbre": ("NoteTimbreModel",),
    "music_diffusion.models.timbre_transfer": ("TimbreTransferModel",),
    "music_diffusion.models.unconditional": ("UnconditionalModel",),
    "music_diffusion.models.style_loss": ("StyleTerms",),
    "music_diffusion.models.style_transfer": ("StyleTransferModel",),
    "music_diffusion.models.feature_loss": ("FeatureLoss",),
    "music_diffusion.models.autoencoder": ("AutoencoderModel", "divergence", "moments"),
    "music_diffusion.data.synthetic": ("SyntheticSource",),
    "music_diffusion.data.style_pictures": ("PicturePairSource",),
    "music_diffusion.data.audio_source": ("AudioSource",),
    "music_diffusion.data.recording_source": (
        "RecordingSource", "TranscriptionTargets", "TagTargets", "Varied"),
    "music_diffusion.data.pipeline": (
        "RecordSource", "MixtureSource", "NoteRowSource", "PerformedNoteSource"),
    "music_diffusion.diffusion.sampling": ("UniformTime", "UniformLogSNR", "KarrasLogSNR"),
    "music_diffusion.diffusion.solvers": ("DDPM", "DDIM", "DPMSolverPP2M", "Heun", "UniPC"),
    "music_diffusion.diffusion.schedules": (
        "CosineSchedule", "LinearLogSNRSchedule", "LinearBetaSchedule", "signal_rates"),
    "music_diffusion.diffusion.parameterizations": ("Epsilon", "X0", "V"),
    "music_diffusion.diffusion.losses": (
        "l1", "squared", "uniform_times", "stratified_times", "DiscreteTimes"),
}

TRAINING_ONLY = ("music_diffusion.training.", "music_diffusion.data.")
EVALUATION_ONLY = ("music_diffusion.evaluation.",)
# What gin raises for a file that it cannot use.
GIN_ERRORS = (ValueError, TypeError, SyntaxError, ImportError, AttributeError, tokenize.TokenError)
MACRO = "gin.macro"  # selector of macros, whose scope is their name

Configurable = TypeVar("Configurable", bound=Callable[..., Any])

_registered: set[tuple[str, str]] = set()


def gin_root() -> pathlib.Path:
    """Returns the folder of gin files: `configs` in the package, else `gin` beside it."""
    package = pathlib.Path(__file__).parent
    for folder in (package / "configs", package.parent / "gin"):
        if folder.is_dir():
            return folder.resolve()
    raise UserError(f"no gin files: {package / 'configs'} is missing; install the package again")


def register_configurables(*, models_only: bool = False, training: bool = True) -> None:
    """Makes the project's classes and functions known to gin. Calling twice is harmless.

    Without `training` what only training needs stays out, and the packages that it needs; with
    `models_only` evaluation too.
    """
    import gin

    for module_name, names in CONFIGURABLES.items():
        if (models_only or not training) and module_name.startswith(TRAINING_ONLY):
            continue
        if models_only and module_name.startswith(EVALUATION_ONLY):
            continue
        module = importlib.import_module(module_name)
        for name in names:
            if (module_name, name) not in _registered:
                gin.external_configurable(getattr(module, name), name=name, module=module_name)
                _registered.add((module_name, name))


def register(own: Configurable) -> Configurable:
    """Makes a class or function of your own known to gin by its name; returns it, so it is a decorator.

    Gin files then name it as they name those of the package: '@MyModel()', 'MyModel.width = 8'. It has
    to be registered, by an import of its module, before a recipe or a released model names it. If a
    notebook registers its name again, the last one counts.

    Raises UserError where the package has that name already.
    """
    import gin

    name = own.__name__
    if any(name in names for names in CONFIGURABLES.values()):
        raise UserError(f"{name}: gin files mean the package's own {name} by that; give yours another name")
    interactive = gin.config._INTERACTIVE_MODE  # in which gin lets names be registered again
    with gin.unlock_config(), gin.config.interactive_mode():
        gin.external_configurable(own, name=name, module=own.__module__)
    if interactive:
        gin.enter_interactive_mode()
    return own


def parse(gin_files: Sequence[str], bindings: Sequence[str] = (), *, training: bool = True,
          values: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Clears gin, reads files (by path, or relative to the gin root), then values and bindings.

    Args:
      gin_files: later ones win.
      bindings: as gin files write them, 'adamw.b1 = 0.5'; they win over all else.
      training: see `register_configurables`.
      values: Python objects by the names that gin files bind, such as 'BATCH_SIZE' or 'adamw.b1'.

    Raises UserError, one line, for a missing file, a syntax error, an unknown
    configurable or parameter, and for a binding of a macro that no file defines.
    """
    import gin

    gin.clear_config()
    register_configurables(training=training)
    search_gin_root()
    for file in gin_files:
        if not pathlib.Path(file).is_file() and not (gin_root() / file).is_file():
            raise UserError(f"{file}: no such gin file, here or in {gin_root()}")
        _parsed(lambda file=file: gin.parse_config_file(file), str(file))
    for name, value in values.items():
        key = key_of(name)
        gin.bind_parameter((key.scope, key.selector, key.parameter), value)
    for binding in bindings:
        _check_macro(binding)
        _parsed(lambda binding=binding: gin.parse_config(binding), f"--gin.{binding}")


@contextlib.contextmanager
def private_gin() -> Iterator[Any]:
    """Yields gin with an empty configuration; the caller's own is back afterwards."""
    import gin

    names = ("_CONFIG", "_CONFIG_PROVENANCE", "_OPERATIVE_CONFIG", "_IMPORTS", "_SINGLETONS")
    kept = {n: store.copy() for n in names
            if isinstance(store := getattr(gin.config, n, None), dict | set)}
    # Not gin.unlock_config: after an exception the caller's configuration would stay unlocked.
    locked = gin.config_is_locked()
    gin.clear_config()  # unlocks too
    try:
        yield gin
    finally:
        gin.clear_config()
        for name, value in kept.items():
            getattr(gin.config, name).update(value)
        gin.config._set_config_is_locked(locked)


def without_retired(text: str) -> str:
    """A saved configuration without bindings of parameters that an earlier version had."""
    retired = re.compile(rf"^(\S*/)?(\S*\.)?MelCodec\.({'|'.join(RETIRED)})\s*=")
    return "".join(line for line in text.splitlines(keepends=True) if not retired.match(line))


def codec(name: str) -> MelCodec:
    """Reads the codec of a gin file: a name in gin/codecs, such as 16k, or a path.

    Raises UserError where there is none, or its numbers do not fit.
    """
    file = pathlib.Path(name)
    if not file.is_file():
        file = gin_root() / "codecs" / f"{name}.gin"
    if not file.is_file():
        known = ", ".join(sorted(f.stem for f in (gin_root() / "codecs").glob("*.gin")))
        raise UserError(f"codec {name}: no such gin file; there are {known}")
    with private_gin() as gin:
        register_configurables(models_only=True)
        try:
            gin.parse_config_file(str(file))
            return gin.get_configurable("MelCodec")()
        except (*GIN_ERRORS, OSError) as error:
            raise UserError(f"{file}: {' '.join(str(error).split())[:200]}") from error


def require(*parameters: str) -> None:
    """Raises UserError for the first of `parameters` ('train.model') that is not bound."""
    import gin

    for parameter in parameters:
        try:
            gin.query_parameter(parameter)
        except ValueError as error:
            raise UserError(f"no gin file binds {parameter}; see recipes/tiny.gin") from error


class Key(NamedTuple):
    """A parameter of a configurable, in a scope. A macro is `value` of `gin.macro` in its name."""

    scope: str  # '' outside of all scopes
    selector: str  # the configurable's name with its modules
    parameter: str

    def __str__(self) -> str:
        """Returns the key as gin files write it."""
        if self.selector == MACRO:
            return self.scope
        where = f"{self.scope}/" if self.scope else ""
        return f"{where}{short(self.selector)}.{self.parameter}"

    def bound_among(self, keys: Collection[Key]) -> Key | None:
        """Returns the one of `keys` whose binding counts here: the parameter's, in the innermost scope."""
        scopes = self.scope.split("/") if self.scope else []
        outwards = (self._replace(scope="/".join(scopes[:i])) for i in range(len(scopes), -1, -1))
        return next((key for key in outwards if key in keys), None)


def short(selector: str) -> str:
    """Returns 'TrainConfig' for 'music_diffusion.training.loop.TrainConfig', if only one has that name."""
    import gin

    return gin.config._REGISTRY.minimal_selector(selector)


def key_of(name: str) -> Key:
    """Returns what a gin file binds by `name`: 'TOTAL_STEPS', 'adamw.b1' or 'scope/adamw.b1'."""
    from gin import config, config_parser

    scope, selector, parameter = config_parser.parse_binding_key(name)
    if not parameter:
        return Key(f"{scope}/{selector}" if scope else selector, MACRO, "value")
    found = config.ParsedBindingKey.parse((scope, selector, parameter))
    return Key(scope, found.complete_selector, parameter)


def bindings() -> dict[Key, Any]:
    """Returns all that is bound, gin's references unresolved."""
    import gin  # which has no public way to ask, here and below

    return {Key(scope, selector, name): value
            for (scope, selector), parameters in gin.config._CONFIG.items()
            for name, value in parameters.items()}


def unused_bindings() -> list[str]:
    """Returns the bindings that nothing has read so far, such as 'scope/adamw.b1'.

    A binding that all inner scopes which are read bind again is not read itself.
    """
    import gin

    bound = bindings()
    calls = gin.config._OPERATIVE_CONFIG
    used = {Key(scope, selector, name).bound_among(bound)
            for (scope, selector), parameters in calls.items() for name in parameters}
    return sorted(str(key) for key in bound if key not in used)


def search_gin_root() -> None:
    """Adds the gin root to gin's search path, once, and mends its resource reader."""
    import gin
    from gin import config, resource_reader

    root = str(gin_root())
    if root not in config._LOCATION_PREFIXES:
        gin.add_config_file_search_path(root)

    def exists(path: str) -> bool:
        # gin-config 0.5.0 logs an error where an include is no package's resource, and raises
        # TypeError where its first folder happens to be a namespace package (any folder in
        # the working directory).
        try:
            return pathlib.Path(resource_reader._parse_config_path(path)).is_file()
        except (TypeError, ValueError, ImportError):
            return False

    for i, (reader, _) in enumerate(config._FILE_READERS):
        if reader is resource_reader.system_path_reader:
            config._FILE_READERS[i] = (reader, exists)


def _check_macro(binding: str) -> None:
    """Raises UserError unless a binding of a bare NAME overrides a macro that a file defines."""
    import gin

    name, equals, _ = binding.partition("=")
    name = name.strip()
    if not equals:
        raise UserError(f"--gin.{binding}: write it as --gin.NAME=value")
    if not re.fullmatch(r"[A-Za-z_]\w*", name):
        return
    macros = [scope for (scope, selector) in gin.config._CONFIG if selector == "gin.macro"]
    if name not in macros:
        close = difflib.get_close_matches(name, macros, 1)
        known = ", ".join(sorted(macros)) or "none"
        hint = f"did you mean {close[0]}?" if close else f"there are {known}"
        raise UserError(f"--gin.{name}: no gin file defines the macro {name}; {hint}")


def _parsed(read, source: str) -> None:
    try:
        read()
    except UserError:
        raise
    except (*GIN_ERRORS, OSError) as error:
        message = " ".join(str(error).split())
        raise UserError(f"{source}: {message[:300]}") from error
