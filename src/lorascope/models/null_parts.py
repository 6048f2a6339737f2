"""The parts of a LoRA adapter that a null adapter draws anew, each with its matching rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from peft.utils.other import ModulesToSaveWrapper, TrainableTokensWrapper
from torch import Generator, Tensor
from transformers import PreTrainedModel

from lorascope.errors import InputError, NoNullAdapter
from lorascope.models.adapted import AdaptedModel
from lorascope.models.random_updates import (
    Factors,
    Rounding,
    factor_spectrum,
    random_factors,
    same_spectrum,
)
from lorascope.models.updates import lora_factors

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class NullPart:
    """One part of a LoRA adapter that is drawn anew.

    Attributes:
        path: of the module or parameter.
        spectrum: what of the part stays: singular values, or the norm of a tensor replaced whole.
        about: what else tells its distribution: shapes, scale.
        base: the weight it changes.
        draw: the random part, its update multiplied by a factor.
        put: writes it into the layers PEFT knows by a name.
    """

    path: str
    spectrum: Tensor
    about: str
    base: Tensor
    draw: Callable[[Generator, Rounding, float], Tensors]
    put: Callable[[str, Tensors], None]


def parts_of(model: AdaptedModel, name: str, base: PreTrainedModel) -> Iterator[NullPart]:
    """All parts of the LoRA adapter `name`, in the model's order.

    Raises:
        NoNullAdapter: a part has no matching rule.
    """
    peft_name = model.peft_name(name)
    seen: set[int] = set()
    for path, module in base.named_modules():
        if isinstance(module, LoraLayer):
            factors = lora_factors(module, peft_name)
            if factors is not None:
                _check_untied(name, path, factors, seen)
                yield from _lora_parts(name, path, module, peft_name)
        elif isinstance(module, ModulesToSaveWrapper):
            if peft_name in module.modules_to_save:
                yield from _whole_parts(model, name, path, module, peft_name)
        elif isinstance(module, TrainableTokensWrapper):
            tokens = module.token_adapter
            if peft_name in tokens.trainable_tokens_delta and not tokens.tied_adapter:
                yield _token_part(path, module, peft_name)
    for key, value in model.trained_biases(name).items():
        ours = model.base_parameters[key]
        _check_finite(name, key, value)
        yield _moved(key, ours, value, lambda *_: None)


def _moved(
    path: str, ours: Tensor, theirs: Tensor, put: Callable[[str, Tensors], None]
) -> NullPart:
    """A tensor that the adapter replaces: the difference is redrawn."""
    difference = theirs.detach().cpu().double() - ours.detach().cpu().double()
    return NullPart(
        path,
        difference.norm(),
        f"{tuple(theirs.shape)} {theirs.dtype}",
        ours,
        lambda random, rounding, factor: (rounding.redrawn(ours, theirs, random, factor),),
        put,
    )


def _whole_parts(
    model: AdaptedModel, name: str, path: str, wrapper: ModulesToSaveWrapper, source: str
) -> Iterator[NullPart]:
    for inner, theirs in wrapper.modules_to_save[source].named_parameters():
        key = f"{path}.{inner}"
        ours = model.base_parameters.get(key)
        if ours is None or ours.shape != theirs.shape:
            raise NoNullAdapter(
                f'adapter "{name}" replaces {path} whole, and the base has no {key} of that shape '
                "to take the difference from"
            )

        _check_finite(name, key, theirs)

        def put(peft_name: str, values: Tensors, inner: str = inner) -> None:
            wrapper.modules_to_save[peft_name].get_parameter(inner).copy_(values[0])

        yield _moved(key, ours, theirs, put)


def _token_part(path: str, wrapper: TrainableTokensWrapper, source: str) -> NullPart:
    tokens = wrapper.token_adapter

    def put(peft_name: str, values: Tensors) -> None:
        tokens.trainable_tokens_delta[peft_name].copy_(values[0])

    # called a delta in PEFT; it holds the rows themselves
    rows = tokens.trainable_tokens_delta[source]
    return _moved(path, tokens.trainable_tokens_original[source], rows, put)


def _lora_parts(name: str, path: str, layer: LoraLayer, source: str) -> Iterator[NullPart]:
    factors = lora_factors(layer, source)
    assert factors is not None
    has_magnitude = source in layer.lora_magnitude_vector
    if (source in layer.lora_variant and not has_magnitude) or any(f.ndim != 2 for f in factors):
        kind = type(layer.lora_variant.get(source, layer)).__name__
        raise NoNullAdapter(f'adapter "{name}": no matching rule for the update of {path} ({kind})')
    if has_magnitude and not _weight(layer).is_floating_point():
        raise NoNullAdapter(
            f'adapter "{name}" rescales the weights of {path}, which are stored in quantised form: '
            "load the base model without quantisation"
        )
    _check_finite(name, path, *factors)
    experts = layer.num_experts if isinstance(layer, ParamWrapper) else 1
    stacked = _by_expert(*factors, experts)
    S = factor_spectrum(*stacked)
    shape = (stacked.B.shape[1], stacked.B.shape[2], stacked.A.shape[2])
    weight = _weight(layer)

    def draw(random: Generator, rounding: Rounding, factor: float) -> Tensors:
        drawn = _in_one(random_factors(S, shape, random))
        scaled = Factors(factor * drawn.B, drawn.A)
        B, A = (new.to(old) for new, old in zip(scaled, factors, strict=True))
        if not has_magnitude:
            return B, A
        return B, A, _magnitude(layer, source, (B, A), random)

    def put(peft_name: str, values: Tensors) -> None:
        found = lora_factors(layer, peft_name)
        if found is None:
            raise RuntimeError(f"{path} got no layers")
        for target, value in zip(found, values, strict=False):
            target.copy_(value)
        if has_magnitude:
            magnitude: Any = layer.lora_magnitude_vector[peft_name]
            magnitude.weight.copy_(values[2])

    about = f"{experts} {shape} {float(layer.scaling[source])!r} {factors[0].dtype}"
    stays = S if not has_magnitude else torch.cat([S.flatten(), _relative(layer, source).sort()[0]])
    yield NullPart(path, stays, about, weight, draw, put)
    if layer.lora_bias.get(source, False):
        yield _bias_part(path, layer, source)


def _bias_part(path: str, layer: LoraLayer, source: str) -> NullPart:
    """The bias that `lora_bias` trains on B: a random direction of the same norm."""
    bias: Tensor = layer.lora_B[source].bias

    def put(peft_name: str, values: Tensors) -> None:
        layer.lora_B[peft_name].bias.copy_(values[0])

    return NullPart(
        f"{path}.lora_bias",
        bias.detach().cpu().double().norm(),
        f"{tuple(bias.shape)} {float(layer.scaling[source])!r} {bias.dtype}",
        _weight(layer),
        lambda random, _, factor: ((factor * same_spectrum(bias, random)).to(bias),),
        put,
    )


def _by_expert(B: Tensor, A: Tensor, experts: int) -> Factors:
    """[experts, out, r] and [experts, r, in], as PEFT lays several experts out in two matrices."""
    return Factors(
        B.reshape(len(B), -1, experts).permute(2, 0, 1), A.reshape(experts, -1, A.shape[1])
    )


def _in_one(factors: Factors) -> Factors:
    """The inverse of `_by_expert`."""
    B, A = factors
    return Factors(B.permute(1, 2, 0).reshape(B.shape[1], -1), A.reshape(-1, A.shape[2]))


def _magnitude(
    layer: LoraLayer, source: str, factors: tuple[Tensor, Tensor], random: Generator
) -> Tensor:
    """DoRA's magnitude for new factors: the adapter's relative magnitudes at random outputs."""
    relative = _relative(layer, source)
    shuffled = relative[torch.randperm(len(relative), generator=random)]
    old: Any = layer.lora_magnitude_vector[source]
    return (_norms(layer, source, factors) * shuffled).to(old.weight)


def _relative(layer: LoraLayer, source: str) -> Tensor:
    """m / ‖W₀ + scale·B·A‖ by output, float64 on the CPU: what DoRA multiplies each output by."""
    factors = lora_factors(layer, source)
    assert factors is not None
    dora: Any = layer.lora_magnitude_vector[source]
    return dora.weight.detach().cpu().double() / _norms(layer, source, factors)


def _norms(layer: LoraLayer, source: str, factors: tuple[Tensor, Tensor]) -> Tensor:
    """‖W₀ + scale·B·A‖ by output, float64 on the CPU, rounded as PEFT rounds it."""
    B, A = (factor.detach() for factor in factors)
    dora: Any = layer.lora_magnitude_vector[source]
    weight = _weight(layer).detach()
    norms: Tensor = dora.get_weight_norm(
        weight, (B @ A).to(weight.dtype), float(layer.scaling[source])
    )
    return norms.detach().cpu().double()


def _weight(layer: LoraLayer) -> Tensor:
    held: Any = layer.get_param() if isinstance(layer, ParamWrapper) else None
    weight: Tensor = layer.get_base_layer().weight if held is None else held
    return weight


def _check_untied(name: str, path: str, factors: tuple[Tensor, Tensor], seen: set[int]) -> None:
    places = {factor.data_ptr() for factor in factors}
    if places & seen:
        raise NoNullAdapter(
            f'adapter "{name}" shares the factors of {path} with another module '
            "(ensure_weight_tying): PEFT holds one such adapter at a time"
        )
    seen |= places


def _check_finite(name: str, path: str, *tensors: Tensor) -> None:
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        raise InputError(f'adapter "{name}": its weights at {path} are not finite: fetch it again')
