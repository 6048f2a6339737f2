"""One model in memory with several faces: the base, and the base under each adapter.

Here, and nowhere else, adapters are switched. An adapter is never merged into the base.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lorascope.errors import InputError, did_you_mean
from lorascope.models import dimensions
from lorascope.models.adapter_files import AdapterFiles, AdapterInfo
from lorascope.models.freezing import fingerprint
from lorascope.models.gates import base_logits, require_live, verify_base_unchanged
from lorascope.models.load import load_base
from lorascope.models.prepared import (
    Attach,
    Attached,
    Opener,
    prepare,
    random_state_kept,
    require_same_sizes,
)
from lorascope.models.putting_on import put_on
from lorascope.models.sites import block_list
from lorascope.models.vocabulary import cut_model_to

BASE = "base"


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
        self._embedding: Tensor = model.get_input_embeddings().weight
        self._originals = dict(model.named_parameters(remove_duplicate=False))
        self._peft: PeftModel | None = None
        self._infos: dict[str, AdapterInfo] = {}
        self._peft_names: dict[str, str] = {}
        self._biases: dict[str, dict[str, Tensor]] = {}
        self._kept_biases: dict[str, Tensor] = {}
        self._full_models: dict[str, PreTrainedModel] = {}
        self._attached: dict[str, Attach] = {}
        self._hooks = ExitStack()
        self._current = BASE

    @property
    def faces(self) -> tuple[str, ...]:
        """ "base", then the adapters in the order they were given."""
        return (BASE, *self._infos)

    @property
    def adapters(self) -> tuple[str, ...]:
        """The faces other than the base."""
        return tuple(self._infos)

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
        return dimensions.width(self._base)

    @property
    def n_blocks(self) -> int:
        """How many decoder blocks the model has."""
        return len(block_list(self._base))

    @property
    def vocab_size(self) -> int:
        """How many token ids the model scores."""
        return dimensions.vocabulary(self._base)

    @property
    def context_length(self) -> int:
        """Most tokens the model takes in one sequence; `dimensions.UNLIMITED` without a limit."""
        return dimensions.context(self._base)

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
    def originals(self) -> Mapping[str, Tensor]:
        """The bare base model's parameters by name, whatever was put on it since."""
        return self._originals

    @property
    def base_embedding(self) -> Tensor:
        """[vocabulary, d_model]: the base's input embedding, whatever face is shown."""
        return self._embedding

    def info(self, name: str) -> AdapterInfo:
        """What the adapter `name` is made of.

        Raises:
            InputError: there is no such adapter.
        """
        self._require(name, self.adapters)
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
        self._require(name, self.adapters)
        if name not in self._peft_names:
            kind = "full fine-tune" if self.has_weights(name) else "latent adapter"
            raise InputError(f'"{name}" is a {kind} and has no LoRA weights')
        return self._peft_names[name]

    def trained_biases(self, name: str) -> tuple[str, ...]:
        """Names of the base's own biases that the adapter has other values for.

        Raises:
            InputError: there is no such adapter.
        """
        self._require(name, self.adapters)
        return tuple(self._biases.get(name, {}))

    def add_adapter(self, files: AdapterFiles) -> None:
        """Put a LoRA adapter on, switched off.

        Raises:
            InputError: it does not fit this model, or changes nothing.
        """
        name = files.info.name
        peft_name = f"face_{len(self._peft_names)}"
        with random_state_kept():
            fitted = put_on(self._base, self._peft, files, peft_name, self._originals)
        self._peft = fitted.peft
        self._peft_names[name] = peft_name
        self._biases[name] = fitted.biases
        self._infos[name] = replace(files.info, extra_tokens=fitted.extra_tokens)
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
        self._require(name, self.adapters)
        return name not in self._attached

    def add_full_model(
        self, info: AdapterInfo, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        """Add a full fine-tune, a second model in memory, as a face.

        Where tokens were added to its vocabulary, its rows for them are cut off.

        Args:
            tokenizer: its own.

        Raises:
            InputError: its architecture or sizes are not the base's, or it changes nothing.
        """
        require_same_sizes(info.name, info.path, self._base, model)
        rows, extra = len(self._embedding), 0
        if len(model.get_input_embeddings().weight) > rows:
            extra = cut_model_to(info.name, model, rows, (self.tokenizer, tokenizer))
        theirs = dict(model.named_parameters(remove_duplicate=False))
        if theirs.keys() == self._originals.keys() and all(
            torch.equal(ours, theirs[key].to(ours.device)) for key, ours in self._originals.items()
        ):
            raise InputError(
                f'adapter "{info.name}" changes nothing: the weights of the checkpoint in '
                f'"{info.path}" are the base model\'s; give the fine-tuned one'
            )
        self._full_models[info.name] = model
        self._infos[info.name] = replace(info, extra_tokens=extra)

    def _require(self, name: str, known: tuple[str, ...]) -> None:
        if name not in known:
            listed = ", ".join(known) or "none"
            raise InputError(
                f'no adapter named "{name}": there are {listed}.{did_you_mean(name, known)}'
            )

    def _switch(self, name: str) -> None:
        self._current = name
        self._hooks.close()
        if name in self._attached:
            self._hooks.enter_context(self._attached[name](self._base))
        if self._peft is None or name in self._full_models:
            return
        # PEFT also sets requires_grad when it switches; that is the user's to decide
        with _gradients_kept(self._base):
            if name not in self._peft_names:
                self._peft.base_model.disable_adapter_layers()
            else:
                self._peft.base_model.enable_adapter_layers()
                self._peft.set_adapter(self._peft_names[name])
        self._swap_biases(self._biases.get(name, {}))

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
    ready = prepare(model, adapters or {}, revision=revision, force=force, opener=opener)
    base, tokenizer = load_base(
        model, revision=revision, dtype=dtype, device=device, device_map=device_map
    )
    adapted = AdaptedModel(base, tokenizer, model)
    before = base_logits(adapted)
    for one in ready:
        if one.files is not None:
            adapted.add_adapter(one.files)
        elif one.attached is not None:
            # What it reads may be rare: it was checked to read and write something.
            adapted.add_attached(one.attached)
            continue
        else:
            second, own = load_base(one.path, dtype=dtype, device=device, device_map=device_map)
            n_parameters = sum(parameter.numel() for parameter in second.parameters())
            info = AdapterInfo(one.name, one.path, None, fingerprint(second), n_parameters)
            adapted.add_full_model(info, second, own)
        require_live(adapted, one.name)
    verify_base_unchanged(adapted, before)
    return adapted


@contextmanager
def _gradients_kept(module: nn.Module) -> Iterator[None]:
    kept = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    try:
        yield
    finally:
        for parameter, flag in kept:
            parameter.requires_grad_(flag)
