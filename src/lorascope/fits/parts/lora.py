"""Low-rank adapters on the model's own linear maps (section 3.4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from lorascope.fits.blocks import linear_maps
from lorascope.fits.parts.part import Values, orthonormal
from lorascope.fits.settings import Lora
from lorascope.models.saved_adapters import put_in_order
from lorascope.outputs.splicing import Placed
from lorascope.randomness import derived_seed


class LoraPart:
    """A fresh adapter on a model, put there by `on`."""

    name = "lora"
    changes_model = True

    def __init__(self, peft: PeftModel, rate: float) -> None:
        self.rate = rate
        self._peft = peft
        # Once the adapter is off the model, nothing of it can be found there.
        self._fitted = [p for p in peft.parameters() if p.requires_grad]
        self._layers = [part for part in peft.modules() if isinstance(part, LoraLayer)]

    @classmethod
    @contextmanager
    def on(
        cls,
        module: PreTrainedModel,
        settings: Lora,
        blocks: Sequence[int],
        *,
        model: str,
        seed: int,
    ) -> Iterator[LoraPart]:
        """Within the `with`, the module carries the adapter; then it is the bare model again.

        Args:
            blocks: numbers of the blocks to adapt.
            model: the id to save with it.
            seed: decides the starting weights.
        """
        maps = linear_maps(module, blocks, settings.targets)
        config = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha_over_rank * settings.rank,
            target_modules=maps,
            fan_in_fan_out=not isinstance(module.get_submodule(maps[0]), nn.Linear),
            task_type="CAUSAL_LM",
        )
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(derived_seed(seed, "lora", settings.rank))
            peft = get_peft_model(module, config)
        # The id the user gave, not the folder it was found in.
        peft.peft_config["default"].base_model_name_or_path = model
        try:
            yield cls(peft.eval(), settings.rate)
        finally:
            peft.unload()

    @property
    def parameters(self) -> list[nn.Parameter]:
        return self._fitted

    @contextmanager
    def off(self) -> Iterator[None]:
        self._peft.base_model.disable_adapter_layers()
        try:
            yield
        finally:
            self._peft.base_model.enable_adapter_layers()

    def scrambled(self, random: torch.Generator) -> Values:
        """Every update B A with the same singular values and random singular vectors."""
        values: Values = []
        for layer in self._layers:
            A, B = (cast(Any, each)["default"].weight for each in (layer.lora_A, layer.lora_B))
            values += zip((A, B), same_spectrum(A.detach(), B.detach(), random), strict=True)
        return values

    def dictionaries(self, placed: Placed) -> Placed:
        return placed

    def save(self, folder: Path) -> None:
        """As PEFT writes an adapter, names in one order."""
        self._peft.save_pretrained(folder, save_embedding_layers=False)
        put_in_order(folder)


def same_spectrum(
    A: Float[Tensor, "r in"], B: Float[Tensor, "out r"], random: torch.Generator
) -> tuple[Float[Tensor, "r in"], Float[Tensor, "out r"]]:
    """Factors of a matrix with the singular values of B A and random singular vectors."""
    r_a, r_b = (torch.linalg.qr(each.double().cpu()).R for each in (A.T, B))
    singular = torch.linalg.svdvals(r_b @ r_a.T)
    count, roots = len(singular), singular.sqrt()
    new_a, new_b = torch.zeros(A.shape, dtype=torch.float64), torch.zeros(B.shape).double()
    new_a[:count] = roots[:, None] * orthonormal(A.shape[1], count, random).T
    new_b[:, :count] = orthonormal(B.shape[0], count, random) * roots
    return new_a.to(A), new_b.to(B)
