"""One model in memory with several variants: the base, and the base under each adapter.

Here, and nowhere else, adapters are switched. An adapter is never merged into the base.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lorascope.errors import InputError, did_you_mean, require_kind
from lorascope.models import dimensions, sanity_checks
from lorascope.models.adapter_config import LORA
from lorascope.models.adapter_files import AdapterFiles, AdapterInfo
from lorascope.models.attaching import put_on
from lorascope.models.described import described
from lorascope.models.freezing import fingerprint, gradients_kept, random_state_kept
from lorascope.models.load import load_base
from lorascope.models.prepared import Attach, Attached, Opener, prepare, require_same_sizes
from lorascope.models.sites import block_list
from lorascope.models.switching import show
from lorascope.models.tuned_copies import put_on_copy, share
from lorascope.models.vocabulary import cut_model_to

BASE = "base"
# Fills the layers PEFT knows by a name; returns the biases that go with them.
Fill = Callable[[PreTrainedModel, str], dict[str, Tensor]]
# Draws a null adapter again, times a factor; returns what it is made of then.
Rescale = Callable[[float], AdapterInfo]


class AdaptedModel:
    """A base model and its adapted variants, base first. Outside any `variant` it is the base.

    All parameters are without gradient and the model is in eval mode when it is made; switching
    variants leaves both as it finds them. A full fine-tune is a variant with a model of its own.

    Attributes:
        id: what the base model was asked for by.
        tokenizer: the base model's tokenizer.

    >>> ls.load("embedded")
    AdaptedModel(embedded, 8 blocks × 192; adapters: none; shows base)
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, id: str) -> None:
        require_kind(model, PreTrainedModel, "the model", "a transformers model, or use load")
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
        self._redrawn: dict[str, Attach] = {}
        self._rescales: dict[str, Rescale] = {}
        self._hooks = ExitStack()
        self._current = BASE

    __repr__ = described

    @property
    def variants(self) -> tuple[str, ...]:
        """ "base", then the adapters in the order they were given, null adapters included."""
        return (BASE, *self._infos)

    @property
    def adapters(self) -> tuple[str, ...]:
        """The adapters that were given: every variant but the base and the null adapters."""
        return tuple(name for name, info in self._infos.items() if not info.null_of)

    @property
    def null_adapters(self) -> tuple[str, ...]:
        """The variants that `add_null_adapters` drew at random, in the order they were added."""
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
        """The variant that `module` shows now."""
        return self._current

    @property
    def module(self) -> PreTrainedModel:
        """The model to call, under the current variant."""
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
    def base_embedding(self) -> Tensor:
        """[vocabulary, d_model]: the base's input embedding, whatever variant is shown."""
        return self._embedding

    def info(self, name: str) -> AdapterInfo:
        """What the adapter `name`, null adapters included, is made of.

        Raises:
            InputError: there is no such adapter.
        """
        self._require(name, self.variants[1:])
        return self._infos[name]

    @contextmanager
    def variant(self, name: str) -> Iterator[PreTrainedModel]:
        """Within the `with`, show the variant `name`; then the one before. Yields the model.

        Raises:
            InputError: there is no such variant.
        """
        self._require(name, self.variants)
        if name == (previous := self._current):
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
        self._require(name, self.variants[1:])
        if name not in self._peft_names:
            full = "full fine-tune" if self.has_weights(name) else "latent adapter"
            kind = self._infos[name].kind
            what = f"an adapter of type {kind}" if kind else f"a {full}"
            raise InputError(f'"{name}" is {what} and has no LoRA weights')
        return self._peft_names[name]

    def add_adapter(self, files: AdapterFiles) -> None:
        """Put a LoRA adapter on, switched off.

        Raises:
            InputError: it does not fit this model, or changes nothing.
        """
        name = files.info.name
        peft_name = f"variant_{len(self._peft_names)}"
        with random_state_kept():
            fitted = put_on(self._base, self._peft, files, peft_name, self._originals)
        self._peft = fitted.peft
        self._peft_names[name] = peft_name
        self._biases[name] = fitted.biases
        self._infos[name] = replace(files.info, extra_tokens=fitted.extra_tokens)
        self._base.eval().requires_grad_(False)
        self._switch(BASE)

    def add_tuned(self, files: AdapterFiles, copied: PreTrainedModel, before: Tensor) -> None:
        """Add an adapter of another tuner type of PEFT's than LoRA, on modules of its own.

        Args:
            copied: the bare model's modules copied over its parameters (`tuned_copies.share`).
            before: `base_logits` of the bare model.

        Raises:
            InputError: it does not fit this model, or cannot be switched off without a trace.
        """
        extra = put_on_copy(copied, files, before, sanity_checks.probe_ids(self))
        self._full_models[files.info.name] = copied
        self._infos[files.info.name] = replace(files.info, extra_tokens=extra)

    def add_attached(self, adapter: Attached) -> None:
        """Add an adapter that acts by hooks as a variant."""
        self._attached[adapter.info.name] = adapter.attach
        self._infos[adapter.info.name] = adapter.info

    def has_weights(self, name: str) -> bool:
        """Whether the adapter changes weights; one that acts by hooks does not.

        Raises:
            InputError: there is no such adapter.
        """
        self._require(name, self.variants[1:])
        return name not in self._attached

    def add_full_model(
        self, info: AdapterInfo, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        """Add a full fine-tune, a second model in memory, as a variant.

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

    @property
    def base_parameters(self) -> Mapping[str, Tensor]:
        """The base's parameters by their names in the bare model, tied ones under each name."""
        return self._originals

    def trained_biases(self, name: str) -> Mapping[str, Tensor]:
        """{parameter name: value} of the base's biases that a LoRA adapter replaces.

        Raises:
            InputError: there is no such adapter.
        """
        self._require(name, self.variants[1:])
        return self._biases.get(name, {})

    def add_null_of_lora(self, info: AdapterInfo, fill: Fill, rescale: Rescale) -> None:
        """Add a null adapter of a LoRA adapter, switched off: PEFT layers that `fill` fills.

        Random state, training modes and gradients of all else stay as they are, and all of it
        does where PEFT or `fill` raises.
        """
        assert self._peft is not None
        peft_name = f"variant_{len(self._peft_names)}"
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

    def add_null_of_full_model(
        self, info: AdapterInfo, redraw: Attach, rescale: Rescale, shown: PreTrainedModel | None
    ) -> None:
        """Add a null adapter that `redraw` shows on the model `shown`, else on the adapter's."""
        self._full_models[info.name] = shown or self._full_models[info.null_of]
        self._redrawn[info.name] = redraw
        self._rescales[info.name] = rescale
        self._infos[info.name] = info

    def rescale_null(self, name: str, factor: float) -> None:
        """Multiply what a null adapter draws by a factor: see `rescale_null_adapter`."""
        self._require(name, self.null_adapters)
        with self.variant(BASE):
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
        show(self._peft, self._peft_names.get(name))

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
        model: Hugging Face id, folder, GGUF file, "embedded" or "embedded-it".
        adapters: {name: folder, `org/repo` or `org/repo/subfolder`} of a PEFT adapter (LoRA, or
            another tuner type that can be switched off without a trace), of a full fine-tune of
            the same base, or of a latent adapter.
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
    before = sanity_checks.base_logits(adapted)
    # Copied before LoRA layers are on.
    copies = {f.info.name: share(base) for one in ready if (f := one.files) and f.info.kind != LORA}
    for one in ready:
        if one.files is not None and one.name in copies:
            adapted.add_tuned(one.files, copies[one.name], before)
        elif one.files is not None:
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
        sanity_checks.require_live(adapted, one.name)
    sanity_checks.verify_base_unchanged(adapted, before)
    return adapted
