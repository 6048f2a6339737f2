"""A dictionary read by another rule than the one it was published with.

Llama Scope was trained as TopK and published with one threshold in its place: either reading may be
wanted. Encoder, directions and biases stay what they are.
"""

from __future__ import annotations

from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.topk import TopKDictionary
from lorascope.errors import InputError

# Dictionaries whose pre-activations are one linear map, gated entry by entry.
_READABLE = ("relu", "jumprelu", "topk")


def as_topk(dictionary: Dictionary, k: int, name: str = "") -> TopKDictionary:
    """The same maps, the k largest positive pre-activations of each row passing.

    Args:
        name: what to call it where it cannot be read so.

    Raises:
        InputError: it computes its latents in another way, or has fewer than k.
    """
    called = name or dictionary.card.source or "the dictionary"
    if dictionary.architecture not in _READABLE:
        raise InputError(
            f"{called}: a {dictionary.architecture} dictionary cannot be read as TopK; leave "
            "dictionaries.as_topk out"
        )
    if k > dictionary.n_latents:
        raise InputError(
            f"{called}: has {dictionary.n_latents:,} latents and is to be read as TopK of {k:,}; "
            "give a smaller dictionaries.as_topk"
        )
    return TopKDictionary(
        dictionary.encoder,
        dictionary.encoder_bias,
        dictionary.directions,
        dictionary.decoder_bias,
        k,
        subtract_bias=dictionary.subtract_bias,
        card=dictionary.card,
    )
