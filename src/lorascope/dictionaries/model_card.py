"""What the model card of a dictionary says."""

from __future__ import annotations

from collections.abc import Sequence

from lorascope.dictionaries.addresses import HUB, SCHEME
from lorascope.dictionaries.card import Card
from lorascope.dictionaries.hub import UNNAMED, Described, as_json, public
from lorascope.results.estimate import Estimate

_TARGETS = {
    "delta": "the delta, adapted minus base, of the adapter `{adapter}`",
    "base": "the residual stream of the base model",
    "unknown": "rows that its file does not name",
}
_OTHERS = "rows made from a delta, to compare with ({target})"


def described(
    card: Card,
    shape: tuple[int, int],
    architecture: str,
    *,
    folder: str = "",
    numbers: Sequence[Estimate] = (),
    texts: Sequence[str] = (),
    license: str = "",
) -> Described:
    """The facts of one dictionary.

    Args:
        shape: (n_latents, d_model).
        folder: where it lies in its repository; empty for the repository itself.
    """
    return Described(
        title=title(card, shape),
        library="saelens",
        paragraphs=[sentences(card, shape, architecture), warning(card)],
        usage=usage(card, folder),
        model=card.model,
        tags=("sparse-autoencoder", "mechanistic-interpretability", card.target),
        texts=texts,
        numbers=numbers,
        license=license,
    )


def portable(card: Card) -> Card:
    """The card without where on this machine the dictionary was opened from."""
    if card.source.startswith((HUB, SCHEME)):
        return card
    return card.model_copy(update={"source": "", "format": ""})


def in_words(card: Card, shape: tuple[int, int], architecture: str) -> str:
    """A dictionary in a few words, with its address where that is on the hub."""
    address = portable(card).source
    where = f", `{address}`" if address else ""
    return f"{architecture}, {shape[0]:,} latents, width {shape[1]:,}{where}"


def title(card: Card, shape: tuple[int, int]) -> str:
    """Its heading."""
    of = f" of {card.adapter}" if card.target == "delta" and card.adapter else ""
    kind = "SAE" if card.target == "unknown" else f"{card.target.capitalize()} SAE"
    where = f" at {card.site}" if card.site else ""
    return f"{kind}{of}{where}, {shape[0]:,} latents"


def sentences(card: Card, shape: tuple[int, int], architecture: str) -> str:
    """What it is."""
    target = _TARGETS.get(card.target, _OTHERS).format(adapter=card.adapter, target=card.target)
    said = [
        f"A sparse autoencoder ({architecture}, {shape[0]:,} latents, width {shape[1]:,}) trained "
        f"on {target}"
    ]
    said.append(f" at `{card.site}` (output of that block, counted from 0)" if card.site else "")
    said.append(f" of `{public(card.model)}`" if card.model else "")
    said.append(f" at revision `{card.revision}`" if card.revision else "")
    said.append(f"; {card.tokens:,} rows seen, seed {card.seed}." if card.tokens else ".")
    return "".join(said)


def warning(card: Card) -> str:
    """What whoever uses it has to know."""
    if card.target == "delta":
        weights = f" (weights' SHA-256 `{card.adapter_sha256}`)" if card.adapter_sha256 else ""
        return (
            "**It reads differences.** Its input is the stream with the adapter minus the stream "
            f"without it, for the same token, in float32{weights}. Fed the stream itself, its "
            "latents mean nothing."
        )
    return "It works on raw rows: scales of its training are folded into the weights."


def usage(card: Card, folder: str = "") -> str:
    """Python that opens it in SAELens and here."""
    place = f'/{folder}"' if folder else '"'
    inside = f" / {as_json(folder)}" if folder else ""
    lines = [
        "from pathlib import Path",
        "",
        "from huggingface_hub import snapshot_download",
        "from sae_lens import SAE",
        "",
        f'folder = Path(snapshot_download("{UNNAMED}")){inside}',
        "sae = SAE.load_from_disk(folder)",
        "",
        "# or, with every field of its card",
        "import lorascope as ls",
        "",
        f'sae = ls.SAE.from_pretrained("{UNNAMED}{place})',
    ]
    if card.target == "delta":
        lines.append("z = sae.encode(h_adapted - h_base)")
    return "\n".join(lines)
