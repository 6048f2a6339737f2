"""The last part of a language model: final states, and the head that scores them.

Scoring 256,000 tokens takes more memory than everything before it; whoever has the states and the
head can do it a few positions at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lorascope.errors import InputError
from lorascope.models.dimensions import vocabulary

_PROBE_TOKENS = 8


@dataclass(frozen=True, eq=False)
class Head:
    """logits = cap · tanh(factor · (h Wᵀ + b) / cap); without a cap, factor · (h Wᵀ + b).

    Attributes:
        weight: W, a row for each token of the vocabulary.
        bias: b, or None.
        factor: what some architectures multiply their logits by.
        cap: soft limit of the logits' size (Gemma 2), or None.
    """

    weight: Float[Tensor, "vocab d"]
    bias: Float[Tensor, " vocab"] | None = None
    factor: float = 1.0
    cap: float | None = None

    @classmethod
    @torch.no_grad()
    def of(cls, module: nn.Module) -> Head:
        """The head of a causal language model, proved on a few tokens to give its logits.

        Raises:
            InputError: the model makes its logits in some other way.
        """
        output = module.get_output_embeddings()  # type: ignore[operator]
        config: Any = module.config.get_text_config()  # type: ignore[operator, union-attr]
        factor = float(getattr(config, "logit_scale", None) or 1.0)
        factor /= float(getattr(config, "logits_scaling", None) or 1.0)
        cap = getattr(config, "final_logit_softcapping", None)
        head = cls(output.weight.detach(), output.bias, factor, float(cap) if cap else None)
        ids = torch.arange(_PROBE_TOKENS, device=output.weight.device)[None] % vocabulary(config)
        expected = module(input_ids=ids, use_cache=False).logits[0].float()
        apart = (head.logits(final_states(module, ids)[0]).float() - expected).abs().max()
        # twice the rounding of the logits' own type
        noise = 4 * torch.finfo(output.weight.dtype).eps * float(expected.abs().max() + 1)
        if not float(apart) <= max(noise, 1e-4 * float(expected.std())):
            raise InputError(
                f"{type(module).__name__} does not make its logits from its final states by one "
                "matrix, a factor and a soft cap: this architecture cannot be fitted"
            )
        return head

    def logits(self, states: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows vocab"]:
        """All logits at once, differentiable; for few rows."""
        found = nn.functional.linear(states, self.weight, self.bias) * self.factor
        return found if self.cap is None else self.cap * torch.tanh(found / self.cap)


def final_states(
    module: nn.Module,
    ids: Int[Tensor, "batch seq"],
    mask: Int[Tensor, "batch seq"] | None = None,
) -> Float[Tensor, "batch seq d"]:
    """What the output matrix is given, after the final norm; no logits are computed."""
    seen: list[Tensor] = []

    def keep(_head: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen.append(inputs[0])
        return (inputs[0][:, :0], *inputs[1:])  # no position is left to score

    handle = module.get_output_embeddings().register_forward_pre_hook(keep)  # type: ignore[operator]
    try:
        module(input_ids=ids, attention_mask=mask, use_cache=False)
    finally:
        handle.remove()
    return seen[0]
