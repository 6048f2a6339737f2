"""What a fit needs before its first step, and checks that the model is unchanged after its last."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from lorascope.activations.tokens import Window, pad
from lorascope.errors import InputError
from lorascope.fits.budget import Step, kept_tokens, planned
from lorascope.fits.settings import Learning
from lorascope.fits.wrapper import identity
from lorascope.models.freezing import fingerprint
from lorascope.models.hooks import run_until
from lorascope.models.load import padding_id
from lorascope.models.sites import Site, block_list
from lorascope.outputs.splicing import Placed

# Windows whose stream's mean norm is the unit of fitted biases.
_SCALE_WINDOWS = 16


@dataclass(frozen=True)
class Marks:
    """What the base and the dictionaries are, to be compared before and after.

    Attributes:
        base: fingerprint of the model's weights.
        dictionaries: {site: identity of the dictionary there}.
    """

    base: str
    dictionaries: dict[str, str]

    @classmethod
    def of(cls, module: nn.Module, placed: Placed) -> Marks:
        """As they are now."""
        return cls(fingerprint(module), {site.name: identity(one) for site, one in placed.items()})

    def require_equal(self, after: Marks) -> None:
        """Refuse what has moved.

        Raises:
            RuntimeError: the model's or a dictionary's weights changed.
        """
        if after.base != self.base:
            raise RuntimeError("the base model was to stay frozen but its weights changed")
        for site, one in self.dictionaries.items():
            if after.dictionaries[site] != one:
                raise RuntimeError(f"the dictionary at {site} was to stay frozen but it changed")


def special_ids(tokenizer: Any, settings: Learning) -> tuple[int, ...]:
    """Tokens that keep their stream."""
    return () if settings.splice_special else tuple(sorted(tokenizer.all_special_ids))


def plan(training: Sequence[Window], tokenizer: Any, settings: Learning) -> list[Step]:
    """The windows of every step of the budget; raises as `planned`."""
    sizes = (
        [len(window.ids) for window in training]
        if settings.splice_special
        else kept_tokens(training, tokenizer)
    )
    return planned(
        sizes,
        tokens=settings.tokens,
        batch=settings.batch,
        accumulate=settings.accumulate,
        seed=settings.seed,
    )


def stream_scales(
    module: nn.Module, tokenizer: Any, windows: Sequence[Window], sites: Collection[Site]
) -> dict[Site, float]:
    """Mean norm of the original's stream at some sites over the first windows' kept tokens."""
    batch = pad(windows[:_SCALE_WINDOWS], tokenizer, padding_id(tokenizer))
    device = module.get_input_embeddings().weight.device  # type: ignore[operator]
    ids, mask = batch.inputs(device)
    streams = run_until(module, sites, ids, mask)
    kept = batch.kept if batch.kept.any() else batch.attended
    return {
        site: float(stream[kept.to(stream.device)].float().norm(dim=-1).mean())
        for site, stream in streams.items()
    }


@contextmanager
def recomputing(module: PreTrainedModel, wanted: bool) -> Iterator[None]:
    """Within the `with`, blocks keep no activations for the backward pass, where that is wanted.

    Raises:
        InputError: the architecture cannot.
    """
    if not wanted:
        yield
        return
    if not module.supports_gradient_checkpointing:
        raise InputError(f"{type(module).__name__} cannot recompute activations; leave it off")
    start, stop = "gradient_checkpointing_enable", "gradient_checkpointing_disable"
    if hasattr(module, "activation_checkpointing_enable"):
        start, stop = "activation_checkpointing_enable", "activation_checkpointing_disable"
    blocks = block_list(module)
    getattr(module, start)({"use_reentrant": False})
    # Blocks alone are in training mode, which turns recomputing on; dropout inside them stays off.
    for block in blocks:
        block.training = True
    try:
        yield
    finally:
        getattr(module, stop)()
        for block in blocks:
            block.training = False


@contextmanager
def still(module: PreTrainedModel) -> Iterator[None]:
    """Within the `with`, the model is in eval mode and none of its weights wants a gradient.

    Both come back as they were.
    """
    modes = [(part, part.training) for part in module.modules()]
    wanted = [parameter for parameter in module.parameters() if parameter.requires_grad]
    module.eval().requires_grad_(False)
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
        for parameter in wanted:
            parameter.requires_grad_(True)
