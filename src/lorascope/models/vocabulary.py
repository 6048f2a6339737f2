"""Adapters and fine-tunes whose vocabulary was resized, for chat tokens for instance.

The base's texts hold the base's tokens alone, so rows beyond the base's vocabulary are left out.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lorascope.errors import InputError

# The axis that tokens run along, by the end of a key.
_AXES = {"lora_embedding_A": 1, "lora_B.weight": 0, "lora_B.bias": 0, "weight": 0, "bias": 0}
_MAGNITUDE = "lora_magnitude_vector"


def cut_to_base(
    model: PreTrainedModel, expected: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], int]:
    """An adapter's tensors without the rows of tokens that the base does not have.

    Args:
        expected: {key: tensor} as the base needs them; other tensors of an adapter's file (the
            base's embeddings, as PEFT saves them once they were resized) are told by their names.

    Returns:
        the tensors, and how many tokens were left out; 0 where the vocabulary is the base's.
    """
    paths = embedding_paths(model)
    rows = model.get_input_embeddings().weight.shape[0]
    cut: dict[str, Tensor] = {}
    extra = 0
    for key, tensor in weights.items():
        cut[key] = tensor
        axis = _axis(key, expected.get(key), paths)
        if axis is None or tensor.ndim <= axis or tensor.shape[axis] <= rows:
            continue
        needed = rows if key not in expected else expected[key].shape[axis]
        if needed == rows:
            extra = max(extra, tensor.shape[axis] - rows)
            cut[key] = tensor.narrow(axis, 0, rows).clone()
    return cut, extra


def embedding_paths(model: PreTrainedModel) -> list[str]:
    """Paths of the modules that have a row for each token: input embedding and output matrix."""
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    return [path for path, module in model.named_modules() if any(module is end for end in ends)]


def cut_model_to(
    name: str,
    model: PreTrainedModel,
    rows: int,
    tokenizers: tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase],
) -> int:
    """Cut a full fine-tune with added tokens to the base's vocabulary, and say how many it had.

    Args:
        name: of the adapter.
        rows: of the base's embedding.
        tokenizers: the base's, and the fine-tune's.

    Raises:
        InputError: the tokens that both have are not the same.
    """
    base, tuned = tokenizers
    ours, theirs = ({i: token for token, i in t.get_vocab().items()} for t in (base, tuned))
    apart = next((i for i in sorted(ours) if i < rows and theirs.get(i) != ours[i]), None)
    if apart is not None:
        raise InputError(
            f'adapter "{name}": token {apart} is {theirs.get(apart)!r} in its vocabulary and '
            f"{ours[apart]!r} in the base model's: give a fine-tune of this base that added tokens "
            "at the end"
        )
    extra = int(model.get_input_embeddings().weight.shape[0]) - rows
    model.resize_token_embeddings(rows, mean_resizing=False)
    return extra


def _axis(key: str, expected: Tensor | None, paths: list[str]) -> int | None:
    """Along which axis of a tensor tokens run; None where they do not."""
    parts = key.removeprefix("base_model.model.").replace(".base_layer.", ".")
    path = next((p for p in paths if parts.startswith(f"{p}.")), None)
    if path is None:
        return None
    rest = parts.removeprefix(f"{path}.")
    if rest.startswith(_MAGNITUDE):
        # Of an output matrix a value for each token, of an embedding one for each dimension.
        return None if expected is None else int(expected.shape.index(max(expected.shape)))
    return _AXES.get(rest)
