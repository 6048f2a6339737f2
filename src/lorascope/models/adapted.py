"""One model in memory with several faces: the base, and the base under each adapter.

Here, and nowhere else, adapters are switched. An adapter is never merged into the base.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lorascope.errors import InputError, did_you_mean
from lorascope.models.adapter_files import (
    AdapterFiles,
    AdapterInfo,
    check_base,
    check_names,
    is_latent,
    locate,
    read,
)
from lorascope.models.freezing import fingerprint, gradients_kept, random_state_kept
from lorascope.models.gates import base_logits, verify_base_unchanged
from lorascope.models.load import load_base
from lorascope.models.putting_on import put_on
from lorascope.models.sites import block_list

BASE = "base"
Attach = Callable[[PreTrainedModel], AbstractContextManager[None]]
# Fills the layers PEFT knows by a name; returns the biases that go with them.
Fill = Callable[[PreTrainedModel, str], dict[str, Tensor]]
# Draws a null adapter again, times a factor; returns what it is made of then.
Rescale = Callable[[float], AdapterInfo]


@dataclass(frozen=True)
class Attached:
    """An adapter that acts by hooks and changes no weight.

    Attributes:
        attach: puts it on the base model for the time of a `with`.
    """

    info: AdapterInfo
    attach: Attach


class Opener(Protocol):
    """Opens adapters that act by hooks: (name, path, its folder, the base model)."""

    def __call__(self, name: str, path: str, folder: Path, model: PreTrainedModel) -> Attached: ...


class AdaptedModel:
    """A base model and its adapted faces, base first. Outside any `face` it is the base.

    All parameters are without gradient and the model is in eval mode when it is made; switching
    faces leaves both as it finds them. A full fine-tune is a face too, with a model of its own.

    Attributes:
        id: what the base model was asked for by.
        tokenizer: the base model's tokenizer.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, id: str) -> None:
        self.id = id
        self.tokenizer = tokenizer
        self._base = model
        self._originals = dict(model.named_parameters(remove_duplicate=False))
        self._peft: PeftModel | None = None
        self._infos: dict[str, AdapterInfo] = {}
        self._peft_names: dict[str, str] = {}
        self._biases: dict[str, dict[str, Tensor]] = {}
        self._kept_biases: dict[str, Tensor] = {}
        self._full_models: dict[str, PreTrainedModel] = {}
        self._attached: dict[str, Attach] = {}
        self._redrawn: dict[str, Attach] = {}
        self._rescales: dict[str, Rescale] = {}
        self._hooks = ExitStack()
        self._current = BASE

    @property
    def faces(self) -> tuple[str, ...]:
        """ "base", then the adapters in the order they were given, null adapters included."""
        return (BASE, *self._infos)

    @property
    def adapters(self) -> tuple[str, ...]:
        """The adapters that were given: every face but the base and the null adapters."""
        return tuple(name for name, info in self._infos.items() if not info.null_of)

    @property
    def null_adapters(self) -> tuple[str, ...]:
        """The faces that `add_null_adapters` drew at random, in the order they were added."""
        return tuple(name for name, info in self._infos.items() if info.null_of)

    def nulls_of(self, name: str) -> tuple[str, ...]:
        """The null adapters of the adapter `name`, by draw.

        Raises:
            InputError: there is no such adapter.
        """
        self._require(name, self.adapters)
        return tuple(n for n, info in self._infos.items() if info.null_of == name)

    @property
    def current(self) -> str:
        """The face that `module` shows now."""
        return self._current

    @property
    def module(self) -> PreTrainedModel:
        """The model to call, under the current face."""
        return self._full_models.get(self._current, self._base)

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(self._text_config.hidden_size)

    @property
    def n_blocks(self) -> int:
        """How many decoder blocks the model has."""
        return len(block_list(self._base))

    @property
    def vocab_size(self) -> int:
        """How many token ids the model scores."""
        return int(self._text_config.vocab_size)

    @property
    def context_length(self) -> int:
        """Most tokens the model takes in one sequence."""
        return int(self._text_config.max_position_embeddings)

    @property
    def n_parameters(self) -> int:
        """Parameters of the base model, tied ones once."""
        return sum({id(p): p.numel() for p in self._originals.values()}.values())

    @property
    def device(self) -> torch.device:
        """Where token ids go: the device of the input embedding."""
        return self._base.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the base weights."""
        return self._base.get_input_embeddings().weight.dtype

    @property
    def _text_config(self) -> Any:
        return self._base.config.get_text_config()

    def info(self, name: str) -> AdapterInfo:
        """What the adapter `name`, null adapters included, is made of.

        Raises:
            InputError: there is no such adapter.
        """
        self._require(name, self.faces[1:])
        return self._infos[name]

    @contextmanager
    def face(self, name: str) -> Iterator[PreTrainedModel]:
        """Within the `with`, show the face `name`; then the one before. Yields the model to call.

        Raises:
            InputError: there is no such face.
        """
        self._require(name, self.faces)
        previous = self._current
        if name == previous:
            yield self.module
            return
        try:
            self._switch(name)
            yield self.module
        finally:
            self._switch(previous)

    def peft_name(self, name: str) -> str:
        """The name PEFT knows a LoRA adapter by; names with dots cannot be module names.

        Raises:
            InputError: there is no such adapter, or it is no LoRA adapter.
        """
        self._require(name, self.faces[1:])
        if name not in self._peft_names:
            kind = "full fine-tune" if self.has_weights(name) else "latent adapter"
            raise InputError(f'"{name}" is a {kind} and has no LoRA weights')
        return self._peft_names[name]

    def add_adapter(self, files: AdapterFiles) -> None:
        """Put a LoRA adapter on, switched off.

        Raises:
            InputError: it does not fit this model, or changes nothing.
        """
        name = files.info.name
        peft_name = f"face_{len(self._peft_names)}"
        self._peft, biases = put_on(self._base, self._peft, files, peft_name, self._originals)
        self._peft_names[name] = peft_name
        self._biases[name] = biases
        self._infos[name] = files.info
        self._base.eval().requires_grad_(False)
        self._switch(BASE)

    def add_attached(self, adapter: Attached) -> None:
        """Add an adapter that acts by hooks as a face."""
        self._attached[adapter.info.name] = adapter.attach
        self._infos[adapter.info.name] = adapter.info

    def has_weights(self, name: str) -> bool:
        """Whether the adapter changes weights; one that acts by hooks does not.

        Raises:
            InputError: there is no such adapter.
        """
        self._require(name, self.faces[1:])
        return name not in self._attached

    def add_full_model(self, info: AdapterInfo, model: PreTrainedModel) -> None:
        """Add a full fine-tune, a second model in memory, as a face.

        Raises:
            InputError: its architecture or sizes are not the base's.
        """
        theirs = AdaptedModel(model, self.tokenizer, info.path)
        ours: dict[str, Any] = {}
        other: dict[str, Any] = {}
        for sizes, of in ((ours, self), (other, theirs)):
            sizes["architecture"] = type(of._base).__name__
            sizes["d_model"] = of.d_model
            sizes["blocks"] = of.n_blocks
            sizes["vocabulary"] = of.vocab_size
        for what, size in ours.items():
            if other[what] != size:
                raise InputError(
                    f'adapter "{info.name}": the checkpoint in "{info.path}" has {what} '
                    f"{other[what]}, the base model {size}: give a fine-tune of this base"
                )
        self._full_models[info.name] = model
        self._infos[info.name] = info

    @property
    def base_parameters(self) -> Mapping[str, Tensor]:
        """The base's parameters by their names in the bare model, tied ones under each name."""
        return self._originals

    def trained_biases(self, name: str) -> Mapping[str, Tensor]:
        """{parameter name: value} of the base's biases that a LoRA adapter replaces.

        Raises:
            InputError: there is no such adapter.
        """
        self._require(name, self.faces[1:])
        return self._biases.get(name, {})

    def add_null_of_lora(self, info: AdapterInfo, fill: Fill, rescale: Rescale) -> None:
        """Add a null adapter of a LoRA adapter, switched off: PEFT layers that `fill` fills.

        Random state, training modes and gradients of all else stay as they are, and all of it
        does where PEFT or `fill` raises.
        """
        assert self._peft is not None
        peft_name = f"face_{len(self._peft_names)}"
        config = deepcopy(self._peft.peft_config[self._peft_names[info.null_of]])
        known = {*map(id, self._base.parameters()), *map(id, self._base.modules())}
        try:
            with random_state_kept(), gradients_kept(self._base):
                self._peft.add_adapter(peft_name, config)
                self._biases[info.name] = fill(self._base, peft_name)
        except BaseException:
            if peft_name in self._peft.peft_config:
                self._peft.delete_adapter(peft_name)
            self._switch(self._current)
            raise
        for parameter in self._base.parameters():
            if id(parameter) not in known:
                parameter.requires_grad_(False)
        for module in self._base.modules():
            if id(module) not in known:
                module.training = self._base.training
        self._peft_names[info.name] = peft_name
        self._infos[info.name] = info
        self._rescales[info.name] = rescale
        self._switch(self._current)

    def add_null_of_full_model(self, info: AdapterInfo, redraw: Attach, rescale: Rescale) -> None:
        """Add a null adapter of a full fine-tune; `redraw` shows it on the fine-tune's model."""
        self._full_models[info.name] = self._full_models[info.null_of]
        self._redrawn[info.name] = redraw
        self._rescales[info.name] = rescale
        self._infos[info.name] = info

    def rescale_null(self, name: str, factor: float) -> None:
        """Multiply what a null adapter draws by a factor: see `rescale_null_adapter`."""
        self._require(name, self.null_adapters)
        with self.face(BASE):
            self._infos[name] = self._rescales[name](factor)

    def _require(self, name: str, known: tuple[str, ...]) -> None:
        if name not in known:
            listed = ", ".join(known) or "none"
            raise InputError(
                f'no adapter named "{name}": there are {listed}.{did_you_mean(name, known)}'
            )

    def _switch(self, name: str) -> None:
        self._current = name
        self._hooks.close()
        self._swap_biases(self._biases.get(name, {}))
        if name in self._attached:
            self._hooks.enter_context(self._attached[name](self._base))
        if name in self._redrawn:
            self._hooks.enter_context(self._redrawn[name](self._full_models[name]))
        if self._peft is None or name in self._full_models:
            return
        # PEFT also sets requires_grad when it switches; that is the user's to decide
        with gradients_kept(self._base):
            if name not in self._peft_names:
                self._peft.base_model.disable_adapter_layers()
            else:
                self._peft.base_model.enable_adapter_layers()
                self._peft.set_adapter(self._peft_names[name])

    def _swap_biases(self, biases: Mapping[str, Tensor]) -> None:
        for key, kept in self._kept_biases.items():
            self._originals[key].data = kept
        self._kept_biases = {key: self._originals[key].data for key in biases}
        for key, bias in biases.items():
            self._originals[key].data = bias


def load(
    model: str,
    adapters: Mapping[str, str | Path] | None = None,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    device_map: str | dict[str, Any] | None = None,
    force: bool = False,
    opener: Opener | None = None,
) -> AdaptedModel:
    """A model with adapters on it, each checked to be the one it should be.

    Args:
        model: Hugging Face id, folder, "embedded" or "embedded-it".
        adapters: {name: folder, `org/repo` or `org/repo/subfolder`} of a PEFT LoRA adapter, of a
            full fine-tune of the same base, or of a latent adapter.
        revision, dtype, device, device_map: of the base model, see `load_base`.
        force: accept adapters whose configuration names another base model.
        opener: opens latent adapters.

    Raises:
        InputError: something is missing, damaged, or does not fit; says what to do.
        RuntimeError: the base no longer computes the same once the adapters are on and off.
    """
    check_names(adapters or {})
    base, tokenizer = load_base(
        model, revision=revision, dtype=dtype, device=device, device_map=device_map
    )
    adapted = AdaptedModel(base, tokenizer, model)
    before = base_logits(adapted)
    for name, place in (adapters or {}).items():
        path = str(place)
        folder = locate(name, path)
        if folder is None:
            second, _ = load_base(path, dtype=dtype, device=device, device_map=device_map)
            n_parameters = sum(parameter.numel() for parameter in second.parameters())
            info = AdapterInfo(name, path, None, fingerprint(second), n_parameters)
            adapted.add_full_model(info, second)
            continue
        if is_latent(folder):
            if opener is None:
                raise InputError(
                    f'adapter "{name}" is a latent adapter: load it with lorascope.load'
                )
            attached = opener(name, path, folder, base)
            check_base(attached.info, model, base.config.name_or_path, force)
            adapted.add_attached(attached)
            continue
        files = read(name, path, folder)
        check_base(files.info, model, base.config.name_or_path, force)
        with random_state_kept():
            adapted.add_adapter(files)
    verify_base_unchanged(adapted, before)
    return adapted
