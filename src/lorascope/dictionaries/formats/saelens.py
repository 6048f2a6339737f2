"""SAELens layout, read: `cfg.json` and `sae_weights.safetensors`, whichever version wrote them.

Tensors: `W_enc [d, n]`, `W_dec [n, d]`, `b_dec`; `b_enc`, or for gated dictionaries `b_gate`,
`b_mag`, `r_mag`; `threshold` for JumpReLU. Training checkpoints are read as the dictionary their
training would have saved: BatchTopK and Matryoshka with `topk_threshold` as JumpReLU, the input
scale of `activation_scaler.json` and the whitening of `activation_whitening.safetensors` folded
in. AbsTopK's latents have a sign; each becomes two, the second reading and writing the opposite.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lorascope.dictionaries.addresses import AskedDictionary
from lorascope.dictionaries.card import Card
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.fields import Fields, settings, shown
from lorascope.dictionaries.formats.saelens_layout import CARD, CONFIG, WEIGHTS
from lorascope.dictionaries.gated import GatedDictionary
from lorascope.dictionaries.groupmax import GroupMaxDictionary
from lorascope.dictionaries.jumprelu import JumpReluDictionary
from lorascope.dictionaries.limits import plain
from lorascope.dictionaries.maps import Maps
from lorascope.dictionaries.places import site_of
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.dictionaries.stored import StoredTensors, described, safetensors
from lorascope.dictionaries.topk import TopKDictionary
from lorascope.errors import InputError

SCALER, WHITENING = "activation_scaler.json", "activation_whitening.safetensors"
RUNNER = "runner_cfg.json"
FILES = (CONFIG, WEIGHTS, CARD, SCALER, WHITENING, RUNNER)
_BY_K = ("topk", "abstopk", "groupmax")
_BY_BATCH = ("batchtopk", "matryoshka_batchtopk")
# The last is written here for dictionaries of sparsify; SAELens has no such architecture.
_ARCHITECTURES = ("standard", "jumprelu", "gated", *_BY_BATCH, *_BY_K)
_OLDER_KEYS = {"activation_fn_str": "activation_fn", "hook_point": "hook_name"}
_AVERAGE_NORM, _WHITENED = "expected_average_only_in", "covariance_whitening"
_UNFOLDED = (
    "its file says that inputs were scaled to an average norm and holds no scale; the weights are "
    "taken as they stand, as SAELens takes them: look at the FVU on real texts"
)
_CENTRED = (
    "trained on a stream whose mean over dimensions TransformerLens had taken off; Hugging Face's "
    "stream keeps it: look at the FVU on real texts"
)
_SIGNED = (
    "its latents have a sign: of the {n} here, latent i + {half} is the negative side of latent i"
)


@dataclass(frozen=True)
class _Options:
    """What a configuration decides apart from the tensors.

    Attributes:
        factor: what inputs are multiplied by before the stored weights see them.
        whitening: mean, matrix and inverse where inputs are whitened instead.
        with_norms: whether the gate sees pre-activations times the decoder's norms.
    """

    architecture: str
    factor: float
    whitening: tuple[Tensor, Tensor, Tensor] | None
    with_norms: bool
    k: int
    finetuned: bool
    subtract_bias: bool
    card: Card

    @property
    def rest(self) -> dict[str, Any]:
        """What every dictionary's constructor takes besides tensors."""
        return {"subtract_bias": self.subtract_bias, "card": self.card}


def recognises(folder: Path) -> bool:
    """Whether a folder holds this layout."""
    return (folder / WEIGHTS).exists()


def read(folder: Path, asked: AskedDictionary | None = None) -> Dictionary:
    """Open a folder in SAELens layout.

    Args:
        asked: keys laid over the configuration and the scale of inputs, from SAELens' registry.

    Raises:
        InputError: an architecture or a normalisation that no weights can hold, missing, unknown
            or truncated tensors, sizes that the tensors contradict.
    """
    asked = asked or AskedDictionary()
    config = settings(folder / CONFIG).over(asked.overrides, _OLDER_KEYS)
    architecture, k = _architecture(folder, config)
    scale, note = _input_scale(folder, config, asked.factor)
    options = _Options(
        architecture,
        scale,
        _whitening(folder, config),
        # Other architectures carry the key unused.
        architecture in (*_BY_BATCH, *_BY_K) and config.flag("rescale_acts_by_decoder_norm", False),
        k,
        config.flag("finetuning_scaling_factor", False),
        config.flag("apply_b_dec_to_input", True),
        _card(folder, config, architecture, note),
    )
    stored = safetensors(folder / WEIGHTS)
    with described(stored.path):
        maps = _maps(stored, "b_gate" if architecture == "gated" else "b_enc", options)
        config.sizes({"d_in": maps.d, "d_sae": maps.n})
        made = _make(stored, maps, options)
    stored.refuse_rest()
    return made


def _make(stored: StoredTensors, maps: Maps, options: _Options) -> Dictionary:
    maps = maps.for_raw_input(options.factor)
    if options.with_norms:
        maps = maps.unit_directions()
    bias = maps.encoder_bias
    if options.whitening:
        maps = maps.whitened(*options.whitening, subtract_bias=options.subtract_bias)
    if options.architecture == "gated":
        log_scale = stored.vector("r_mag")
        moved = (bias - maps.encoder_bias) * log_scale.float().exp()
        return GatedDictionary(
            **maps.parts(),
            log_scale=log_scale,
            magnitude_bias=stored.vector("b_mag").float() - moved,
            **options.rest,
        )
    if options.architecture == "standard":
        return ReluDictionary(**maps.parts(), **options.rest)
    if options.architecture == "topk":
        return TopKDictionary(**maps.parts(), k=options.k, **options.rest)
    if options.architecture == "groupmax":
        return GroupMaxDictionary(**maps.parts(), k=options.k, **options.rest)
    if options.architecture == "abstopk":
        note = _SIGNED.format(n=2 * maps.n, half=maps.n)
        card = options.card.model_copy(update={"note": _joined(options.card.note, note)})
        rest = {**options.rest, "card": card}
        return TopKDictionary(**maps.both_ways().parts(), k=options.k, **rest)
    threshold = _threshold(stored, maps.encoder_bias, options)
    return JumpReluDictionary(**maps.parts(), threshold=threshold, **options.rest)


def _maps(stored: StoredTensors, bias: str, options: _Options) -> Maps:
    maps = Maps(
        stored.matrix("W_enc"), stored.vector(bias), stored.matrix("W_dec"), stored.vector("b_dec")
    )
    name = "scaling_factor" if stored.has("scaling_factor") else "finetuning_scaling_factor"
    if not stored.has(name):
        return maps
    gains = stored.vector(name).float()
    if not options.finetuned and not torch.allclose(gains, torch.ones_like(gains)):
        raise ValueError(f"{name} is stored, but finetuning_scaling_factor is off")
    if gains.shape != maps.encoder_bias.shape:
        raise ValueError(f"{name} has shape {tuple(gains.shape)}, expected one a latent")
    return replace(maps, directions=maps.directions * gains[:, None])


def _threshold(stored: StoredTensors, like: Tensor, options: _Options) -> Tensor:
    if stored.has("topk_threshold"):
        level = stored.number("topk_threshold")
        # With norms the gate sees pre·‖w_dec‖, and the folded factor has divided w_dec.
        return torch.full_like(like, level / options.factor if options.with_norms else level)
    if stored.has("log_threshold"):
        return stored.exponential("log_threshold")
    return stored.vector("threshold")


def _architecture(folder: Path, config: Fields) -> tuple[str, int]:
    """The architecture and k; older files name the activation function apart from it."""
    architecture = config.text("architecture", "standard")
    activation = config.text("activation_fn", "relu")
    kwargs = config.inner("activation_fn_kwargs")
    k_of = kwargs if activation == "topk" and "k" in kwargs else config
    if activation == "topk":
        architecture, activation = "topk" if architecture == "standard" else architecture, "relu"
    if "transcoder" in architecture:
        names = config.inner("metadata").over(config.everything())
        reads, writes = names.text("hook_name"), names.text("hook_name_out")
        raise InputError(
            f"{folder}: a transcoder ({shown(architecture)}), which reads {reads or 'one place'} "
            f"and writes {writes or 'another'}; give a dictionary that reconstructs what it reads"
        )
    if architecture not in _ARCHITECTURES or activation != "relu":
        raise InputError(
            f"{folder}: architecture {shown(architecture)} with {activation} is not one of "
            f"{', '.join(_ARCHITECTURES)} with relu"
        )
    if architecture not in _BY_K:
        return architecture, 0
    k = k_of.whole("k")
    if k is None:
        raise k_of.refusal("k", "a whole number")
    return architecture, k


def _input_scale(folder: Path, config: Fields, registered: float | None) -> tuple[float, str]:
    """What inputs were multiplied by and the file has not folded, with a note where it is silent.

    Raises:
        InputError: each input is normalised by itself, which no weights can hold.
    """
    kind = config.raw("normalize_activations")
    if kind is not None and not isinstance(kind, str | bool):
        raise config.refusal("normalize_activations", "a name, true or false")
    if kind in (None, False, "none", _WHITENED):
        return 1.0, ""
    if kind not in (True, _AVERAGE_NORM):
        raise InputError(
            f"{folder}: normalize_activations {shown(kind)} changes the input at run time, which "
            f"no weights can hold; give a dictionary trained with none or {_AVERAGE_NORM}"
        )
    beside = folder / SCALER
    factor = settings(beside).number("scaling_factor", above=0) if beside.exists() else registered
    if factor is None:
        return 1.0, "" if beside.exists() else _UNFOLDED
    return factor, ""


def _whitening(folder: Path, config: Fields) -> tuple[Tensor, Tensor, Tensor] | None:
    """Mean, matrix and its inverse, where inputs were whitened and the file has not folded it."""
    if config.raw("normalize_activations") != _WHITENED:
        return None
    path = folder / WHITENING
    if not path.exists():
        raise InputError(
            f"{path}: no such file; inputs were whitened ({_WHITENED}) and without it that cannot "
            "be folded into the weights; fetch it, or save again with SAELens, which folds it"
        )
    stored = safetensors(path)
    found = stored.vector("mean"), stored.matrix("matrix"), stored.matrix("inverse_matrix")
    stored.refuse_rest()
    return found


def _card(folder: Path, config: Fields, architecture: str, note: str) -> Card:
    if (folder / CARD).exists():
        card = settings(folder / CARD).everything()
        for key, value in card.items():
            if isinstance(value, str) and not value.isprintable():
                raise InputError(
                    f"{folder / CARD}: {plain(key)} holds control characters; mend the file"
                )
        return Card.parse(card, str(folder / CARD))
    said = config.inner("metadata").over(config.everything())
    centred = said.inner("model_from_pretrained_kwargs").raw("center_writing_weights")
    return Card(
        site=site_of(said.text("hook_name")),
        model=said.text("model_name"),
        neuronpedia=said.text("neuronpedia_id"),
        l0=_stated(folder, config, architecture),
        note=_joined(note, _CENTRED if centred else ""),
    )


def _stated(folder: Path, config: Fields, architecture: str) -> float:
    """The L0 trained for: k, which dictionaries saved as JumpReLU keep in the run's settings."""
    run: Mapping[str, Any] = {}
    if architecture in (*_BY_K, *_BY_BATCH):
        kwargs = config.inner("activation_fn_kwargs")
        return config.number("k", above=0) or kwargs.number("k", above=0) or 0.0
    if architecture == "jumprelu" and (folder / RUNNER).is_file():
        run = settings(folder / RUNNER).inner("sae").everything()
    trained = Fields(run, f"{folder / RUNNER}, sae")
    return trained.number("k", above=0) or 0.0 if trained.raw("architecture") in _BY_BATCH else 0.0


def _joined(*notes: str) -> str:
    return "; ".join(filter(None, notes))
