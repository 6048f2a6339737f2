"""What the model card of a model with dictionaries in its stream says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lorascope.dictionaries.hub import UNNAMED, Described, public
from lorascope.results.estimate import Estimate


def described(
    model: str,
    dictionaries: Mapping[str, str],
    adapted: bool,
    *,
    numbers: Sequence[Estimate] = (),
    texts: Sequence[str] = (),
    license: str = "",
) -> Described:
    """The facts of one such model.

    Args:
        model: the base model's id.
        dictionaries: {site: which stands there, in words}.
        adapted: whether a LoRA adapter was fitted around them.
    """
    model = public(model)
    sites = ", ".join(f"`{site}`" for site in dictionaries)
    fitted = "a low-rank adapter fitted around them" if adapted else "no adapter"
    listed = "\n".join(f"- `{site}`: {what}" for site, what in dictionaries.items())
    paragraphs = [
        f"`{model}` with sparse autoencoders in its stream at {sites}: each one's reconstruction "
        f"stands in place of the stream. With {fitted}. The base model's own weights are not in "
        "this repository; dictionaries that have an address on the hub are not either.",
        listed,
    ]
    if adapted:
        paragraphs.append(
            "`adapter/` is an ordinary PEFT adapter. It was fitted with the dictionaries in place "
            "and means something around them alone."
        )
    return Described(
        title=f"{model.rsplit('/', 1)[-1] or 'A model'} spliced at {', '.join(dictionaries)}",
        library="lorascope",
        paragraphs=paragraphs,
        usage=(
            "from lorascope.fits.wrapper import Spliced\n\n"
            f'model = Spliced.from_pretrained("{UNNAMED}")\n'
            "model.generate(**tokens)  # as any model of transformers, dictionaries in place"
        ),
        model=model,
        relation="adapter" if adapted else "",
        tags=("sparse-autoencoder", "mechanistic-interpretability"),
        texts=texts,
        numbers=numbers,
        license=license,
    )
