"""An adapter that reads latents of a dictionary and writes latents of the same dictionary.

At a site with stream x, latents z = encode(x), and decoder directions D without the bias:

    x ← x + (((z · norm(A)) ∘ s) · norm(B)) D

A [n, r] is normalised by column, B [r, n] by row, s [r] carries the size. What the dictionary does
not reconstruct of x stays in the stream untouched. Given z the change is linear, so it can be
written out as pairs (latent read, latent written, weight).

Source: SAE-LoRA, section "Method".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import ModelHubMixin
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedConfig

from lorascope.dictionaries.addresses import HUB, SCHEME
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.files import open_dictionary
from lorascope.dictionaries.hub import Published
from lorascope.errors import InputError, require_kind
from lorascope.foreign import one_line
from lorascope.latent_adapters.card import CARD, WEIGHTS, LatentCard, read_card
from lorascope.latent_adapters.files import (
    DICTIONARY,
    fetched,
    read_weights,
    require_latents,
    write_weights,
)
from lorascope.latent_adapters.sparsity import Choice, Dense, Fixed, HardConcrete
from lorascope.models.adapted import AdaptedModel
from lorascope.models.dimensions import width
from lorascope.models.hooks import replace
from lorascope.models.kept_streams import LeftOut
from lorascope.models.sending import sent
from lorascope.models.sites import block_list, resolve_sites
from lorascope.runs import write_atomically, write_json

# Latent activations held at once: a quarter of a gigabyte in float32.
_HELD = 2**26
# Gates that are left at less than this are shut: rounding, not choice.
_NOTHING = 1e-8

Latents = Int[Tensor, " latents"]


class Relation(NamedTuple):
    """One relation: latent `read` active at strength z adds `weight` · z of latent `written`."""

    read: int
    written: int
    weight: float


class LatentAdapter(  # type: ignore[misc]  # the mixin uploads without a dry run
    nn.Module, Published, ModelHubMixin, library_name="lorascope", tags=["sae", "adapter"]
):
    """The trainable factors over one frozen dictionary.

    Args:
        dictionary: frozen; held by reference, not part of the adapter's state.
        rank: r.
        sparsity: how the factors are kept sparse.
        scale: s at the start.
        latents: (those that may be read, those that may be written), all by default; parameters
            are held for these alone.
        generator: draws the factors at the start.

    Attributes:
        card: what it was trained for; needed to save it.

    Examples:
        >>> sae = ls.open_dictionary("runs/mine/dictionaries/layers.5-base-seed0")
        >>> adapter = ls.LatentAdapter(sae, rank=1, scale=0.1)
        >>> len(adapter.pairs(5)), adapter.pairs(5)[0]._fields
        (5, ('read', 'written', 'weight'))
    """

    def __init__(
        self,
        dictionary: Dictionary,
        rank: int,
        sparsity: Choice | None = None,
        *,
        scale: float = 0.0,
        latents: tuple[Latents, Latents] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        require_kind(dictionary, Dictionary, "the dictionary", "one that open_dictionary opens")
        require_kind(rank, Integral, "the rank", "a whole number of 1 or more")
        made = "one of latent_adapters.sparsity, or leave it out"
        require_kind(sparsity, (Choice, type(None)), "the sparsity", made)
        if rank < 1:
            raise InputError(f"a latent adapter of rank {rank}: give a rank of 1 or more")
        self.sparsity = sparsity or Dense()
        self.card: LatentCard | None = None
        self._hub_mixin_config: Any = {"library_name": "lorascope", "kind": "latent adapter"}
        # Kept out of parameters, buffers and state: it is frozen and has files of its own.
        self._dictionary = (dictionary.requires_grad_(False),)
        reads, writes = latents if latents is not None else (None, None)
        self.register_buffer("read_latents", reads)
        self.register_buffer("written_latents", writes)
        sizes = [dictionary.n_latents if ids is None else len(ids) for ids in (reads, writes)]
        self.read, self.write = (nn.Parameter(self._first((rank, n), generator)) for n in sizes)
        self.scale = nn.Parameter(torch.full((rank,), float(scale)))
        self.progress = 1.0
        self._noise: torch.Generator | None = None

    def __repr__(self) -> str:
        n, kind = self.dictionary.n_latents, type(self.sparsity).__name__
        where = f" at {self.card.site}" if self.card is not None else ""
        return f"LatentAdapter(rank {self.rank} over {n:,} latents{where}, sparsity {kind})"

    @property
    def dictionary(self) -> Dictionary:
        """The dictionary whose latents are read and written."""
        return self._dictionary[0]

    @property
    def rank(self) -> int:
        """r."""
        return len(self.scale)

    def factors(self) -> tuple[Float[Tensor, "r n"], Float[Tensor, "r n"]]:
        """norm(A)ᵀ and norm(B) as they are used now."""
        return (
            self._whole(self._effective(self.read), self.read_latents),
            self._whole(self._effective(self.write), self.written_latents),
        )

    def penalty(self) -> Float[Tensor, ""]:
        """What sparsity adds to the loss."""
        return self.sparsity.penalty(self.read) + self.sparsity.penalty(self.write)

    def settle(self, rate: float) -> None:
        """To be called after every optimiser step, with its learning rate."""
        for factor in (self.read, self.write):
            self.sparsity.settle(factor.data, rate)

    def at(self, progress: float, noise: torch.Generator | None = None) -> None:
        """Say how far training is; `noise` draws gates while it lasts."""
        self.progress, self._noise = progress, noise

    def writing(self, write: Float[Tensor, "r n"]) -> Float[Tensor, "r d"]:
        """What each rank writes where it reads 1: (s ∘ norm(B)) D."""
        written: Tensor = (self.scale[:, None] * write) @ self.dictionary.directions.to(write)
        return written

    def forward(
        self, x: Float[Tensor, "*rows d"], mask: Bool[Tensor, "*rows"] | None = None
    ) -> Float[Tensor, "*rows d"]:
        """The stream with what the adapter writes, where `mask` is true (everywhere by default)."""
        read, write = self.factors()
        rows = x.reshape(-1, x.shape[-1])
        # [r, d]: what each rank writes; far smaller than latents of every row.
        written = self.writing(write)
        step = max(1, _HELD // self.dictionary.n_latents)
        parts = [
            checkpoint(self._read_chunk, part, read, use_reentrant=False)
            for part in rows.split(step)
        ]
        change = (torch.cat(parts) @ written).reshape(x.shape)
        if mask is not None:
            change = change * mask[..., None].to(change)
        return x + change.to(x.dtype)

    @contextmanager
    def attached(
        self,
        model: nn.Module | AdaptedModel,
        site: str | None = None,
        special_ids: Sequence[int] | None = None,
    ) -> Iterator[None]:
        """Within the `with`, the model's stream at `site` goes through the adapter.

        Args:
            model: a causal language model, or one that `lorascope.load` has loaded.
            site: by default where the adapter was trained.
            special_ids: tokens that keep their stream, by default those of its training; padding
                always does.

        Raises:
            InputError: no site is known, the model has no such site, or is of another width.
        """
        module: nn.Module = model.module if isinstance(model, AdaptedModel) else model
        if site is None and self.card is None:
            raise InputError("this latent adapter knows no site of its own: say where to attach it")
        known = self.card
        (place,) = resolve_sites(module, [site if site is not None else known.site])  # type: ignore[union-attr]
        if special_ids is None:
            special_ids = known.special_ids if known is not None else ()
        require_width(module, self.dictionary)
        device = next(block_list(module)[place.index].parameters()).device
        self.to(device)
        self.dictionary.to(device)
        left_out = LeftOut(module, special_ids)

        def through(stream: Tensor) -> Tensor:
            left = left_out.among((stream.shape[0], stream.shape[1]), stream.device)
            found: Tensor = self(stream, None if left is None else ~left)
            return found

        with ExitStack() as stack:
            left_out.watch(stack)
            stack.enter_context(replace(module, place, through))
            yield

    @torch.no_grad()
    def support(self) -> tuple[Latents, Latents]:
        """Latents that are read, and latents that are written, by any rank."""
        read, write = self.factors()
        return tuple((f.abs() > _NOTHING).any(0).nonzero().squeeze(1) for f in (read, write))  # type: ignore[return-value]

    @torch.no_grad()
    def keeping(self, reads: Latents, writes: Latents) -> LatentAdapter:
        """The same adapter cut down to some latents, weights and scale as they are."""
        read, write = self.factors()
        cut = LatentAdapter(self.dictionary, self.rank, Fixed(), latents=(reads, writes))
        cut.read.copy_(read[:, reads])
        cut.write.copy_(write[:, writes])
        cut.scale.copy_(self.scale)
        cut.card = self.card
        return cut.to(self.scale.device)

    def cut(self, reads: int, writes: int) -> LatentAdapter:
        """The same adapter cut down to its heaviest latents, so many to read and to write.

        A latent's weight is the norm over ranks of its entries.
        """
        order = [f.detach().norm(dim=0).argsort(descending=True) for f in self.factors()]
        return self.keeping(
            *(o[:m].sort().values for o, m in zip(order, (reads, writes), strict=True))
        )

    @torch.no_grad()
    def pairs(self, most: int | None = 100) -> list[Relation]:
        """The relations of largest |weight|: Σ_r A_ir s_r B_rj; None gives all there are."""
        read, write = self.factors()
        inputs, outputs = self.support()
        weights = (read[:, inputs] * self.scale[:, None]).T @ write[:, outputs]
        flat = weights.flatten()
        order = flat.abs().argsort(descending=True)[:most]
        order = order[flat[order] != 0]
        columns = max(1, len(outputs))
        ids = (inputs[order // columns].tolist(), outputs[order % columns].tolist())
        return [Relation(*pair) for pair in zip(*ids, flat[order].tolist(), strict=True)]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Any:
        """A saved latent adapter, from a folder or the hub.

        Args:
            options: `dictionary`, opened from where its card says by default, `revision`, and those
                of `huggingface_hub.ModelHubMixin.from_pretrained`.

        Raises:
            InputError: no latent adapter is there, it is damaged, or it was made over another
                dictionary.
        """
        place = pretrained_model_name_or_path
        with one_line(place, "fetch it again"):
            return super().from_pretrained(place, **options)

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None = None,
        dictionary: Dictionary | None = None,
        **options: Any,
    ) -> LatentAdapter:
        """As `from_pretrained(folder or hub id, dictionary=None)`.

        Without a dictionary, the one its card names is opened.

        Raises:
            InputError: no latent adapter is there, or it was made over another dictionary.
        """
        folder = fetched(model_id, revision, (WEIGHTS, CARD), **options)
        card, tensors = read_card(folder), read_weights(folder / WEIGHTS)
        if dictionary is None:
            address = card.dictionary.found_from(folder)
            if not address:
                raise InputError(f"{model_id}: its card names no dictionary to open: give it one")
            dictionary = open_dictionary(address)
        card.require(dictionary, model_id)
        require_latents(folder / WEIGHTS, tensors, dictionary.n_latents)
        latents = (tensors["read_latents"], tensors["written_latents"])
        found = cls(dictionary, card.rank, Fixed(), latents=latents)
        found.load_state_dict(tensors)
        found.card = card
        return found.requires_grad_(False).eval()

    def _save_pretrained(self, save_directory: Path) -> None:
        """What is used, entries of zero left out, with the card."""
        if self.card is None:
            raise InputError(
                "a latent adapter is saved with the model, site and dictionary it belongs to: set "
                "its card first"
            )
        write_weights(self.keeping(*self.support()).state_dict(), save_directory / WEIGHTS)
        over = self.card.dictionary.beside(save_directory)
        card = self.card.model_copy(update={"dictionary": over})
        write_json(save_directory / CARD, card.plain())
        write_atomically(save_directory / "README.md", card.readme())

    def save_whole(self, folder: Path) -> None:
        """As `save_pretrained`, the dictionary with it where that has no address on the hub."""
        if self.card is not None and not self.dictionary.card.source.startswith((HUB, SCHEME)):
            self.dictionary.write_to(folder / DICTIONARY)
            over = self.card.dictionary.model_copy(update={"address": str(folder / DICTIONARY)})
            whole = self.keeping(*self.support())
            whole.card = self.card.model_copy(update={"dictionary": over})
            whole.save_pretrained(folder)
        else:
            self.save_pretrained(folder)

    def _read_chunk(
        self, rows: Float[Tensor, "some d"], read: Float[Tensor, "r n"]
    ) -> Float[Tensor, "some r"]:
        dictionary = self.dictionary
        return dictionary.encode(rows.to(dictionary.directions.dtype)).to(read) @ read.T

    def _effective(self, raw: Tensor) -> Float[Tensor, "r k"]:
        noise = None
        if self.sparsity.samples and self._noise is not None:
            drawn = torch.rand(raw.shape[0], raw.shape[1] // 2, generator=self._noise)
            noise = sent(drawn.clamp(1e-6, 1 - 1e-6), raw.device).to(raw.dtype)
        return self.sparsity.effective(raw, self.progress, noise)

    def _whole(self, factor: Float[Tensor, "r k"], latents: Any) -> Float[Tensor, "r n"]:
        if latents is None:
            return factor
        whole = factor.new_zeros(len(factor), self.dictionary.n_latents)
        return whole.index_copy(1, latents, factor)

    def _first(self, shape: tuple[int, int], generator: torch.Generator | None) -> Tensor:
        drawn = torch.randn(shape, generator=generator)
        if isinstance(self.sparsity, HardConcrete):
            return torch.cat([drawn, torch.full(shape, self.sparsity.first_odds())], dim=1)
        return drawn


def require_width(model: nn.Module | PreTrainedConfig, dictionary: Dictionary) -> None:
    """Refuse a dictionary of another width than the stream of a model, or of its configuration.

    Raises:
        InputError: says both widths.
    """
    expected = width(model)
    if dictionary.d_model != expected:
        raise InputError(
            f"dictionary {dictionary.card.source}: reads rows of width {dictionary.d_model}, the "
            f"model's are {expected} wide; give one made for this model"
        )
