"""The name or file of an embedding → an embedder."""

from __future__ import annotations

import difflib
import pathlib

from music_diffusion.errors import UserError
from music_diffusion.evaluation.embeddings import (
    Embedder,
    Tagger,
    TaggerEmbedder,
    VGGishEmbedder,
)
from music_diffusion.models.weights import CONFIG
from music_diffusion.synthesis.hub import DEFAULT_TAGGER, available, load_trained

DEFAULT = DEFAULT_TAGGER
SPECS = ("tagger", "mfcc", "vggish:FILE", "vggish_hub[:HANDLE]", "trill[:HANDLE]")


def load_embedder(spec: str = DEFAULT) -> Embedder:
    """Opens an embedder.

    Args:
      spec: 'tagger', the project's own network that comes with the package, or the folder of
        another one; 'mfcc', cepstral statistics without a network; 'vggish:FILE', the published
        network with weights from a safetensors file (see `models.vggish_import.load_vggish`) or a
        TensorFlow checkpoint; 'vggish_hub' or 'trill', from TensorFlow Hub, or with ':HANDLE' from
        that URL or SavedModel folder.

    Raises:
      UserError: no such embedder, broken weights, or an extra that is not installed.
    """
    kind, _, where = spec.partition(":")
    if spec == "mfcc":
        from music_diffusion.evaluation.mfcc import MFCCEmbedder

        return MFCCEmbedder()
    if kind == "vggish" and where:
        return _vggish(where)
    if kind == "vggish_hub":
        from music_diffusion.evaluation.tensorflow_embeddings import VGGISH_URL, HubVGGish

        return HubVGGish(where or VGGISH_URL)
    if kind == "trill":
        from music_diffusion.evaluation.tensorflow_embeddings import TRILL_URL, HubTRILL

        return HubTRILL(where or TRILL_URL)
    if spec in available() or (pathlib.Path(spec) / CONFIG).is_file():
        return _tagger(spec)
    if kind == "vggish":
        raise UserError("vggish: its weights do not come with the package; give them as vggish:FILE, "
                        "a safetensors file or vggish_model.ckpt, or use vggish_hub")
    close = difflib.get_close_matches(kind, [known.partition(":")[0].partition("[")[0]
                                             for known in SPECS], 1)
    hint = f"did you mean {close[0]}? " if close and close[0] != spec else ""
    raise UserError(f"{spec}: no such embedding; {hint}there are {', '.join(SPECS)} "
                    "and the folders of trained taggers")


def _tagger(name_or_folder: str) -> TaggerEmbedder:
    _, model, params = load_trained(name_or_folder, Tagger, "tagger")
    return TaggerEmbedder(model, params)


def _vggish(where: str) -> VGGishEmbedder:
    from music_diffusion.models.vggish_import import PICKLED, from_slim, load_vggish

    path = pathlib.Path(where)
    if path.suffix == ".safetensors" or path.suffix in PICKLED:
        return VGGishEmbedder(load_vggish(path))
    from music_diffusion.evaluation.tensorflow_embeddings import read_slim_checkpoint

    try:
        return VGGishEmbedder(from_slim(read_slim_checkpoint(path)))
    except UserError as e:
        raise e if where in str(e) else UserError(f"{where}: {e}") from e
