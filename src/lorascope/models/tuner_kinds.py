"""PEFT's tuner types beside LoRA: which can be variants, and their configurations, read strictly.

The types and their fields are those of the PEFT that is installed. Which of them work is not
listed but tried when an adapter is loaded (`tuned_copies`); here stand only those of which it is
known, without trying, that they cannot.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, get_type_hints

from peft import PeftConfig
from peft.config import PromptLearningConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils import PeftType
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from lorascope.errors import InputError, did_you_mean
from lorascope.wrong_values import expected

# Why no tuner of a type, or of a field, can be a variant.
_REFUSED = {
    "POLY": "it needs the id of a task beside every text",
    "SHADOW": "its blocks hand on a second stream beside the model's",
    "XLORA": "it chooses among other adapters, token by token",
}
_PROMPTS = "its learned positions stand among the text's and are no tokens of it"
_REFUSED_FIELDS = {"runtime_offload_base_weight": "moves the base weights away"}
# Fields that are numbers without a size: what they are never decides how much is allocated.
_SEEDS = ("seed", "key", "step", "tinit", "tfinal", "deltaT", "mask_interval", "warmup")
_LARGEST = 2**31
_STRICT = ConfigDict(strict=True, allow_inf_nan=False)


def known_kinds() -> tuple[str, ...]:
    """Every tuner type of the installed PEFT but LORA."""
    kinds = (PeftType(kind).value for kind in PEFT_TYPE_TO_CONFIG_MAPPING)
    return tuple(kind for kind in kinds if kind != PeftType.LORA.value)


def refusal(kind: str) -> str | None:
    """Why adapters of a known type cannot be variants; None where loading decides."""
    config = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)]
    if issubclass(config, PromptLearningConfig):
        return _PROMPTS
    return _REFUSED.get(kind)


def require_known(name: str, kind: str) -> None:
    """Refuse a tuner type that PEFT does not have, or that cannot be a variant.

    Raises:
        InputError: says why.
    """
    if kind not in known_kinds():
        near = did_you_mean(kind, ("LORA", *known_kinds()))
        raise InputError(
            f'adapter "{name}": its peft_type is {kind[:40]!r}, which the installed PEFT does not '
            f"know: install the version that wrote it.{near}"
        )
    reason = refusal(kind)
    if reason is not None:
        raise InputError(f'adapter "{name}": its peft_type is {kind}, not supported: {reason}')


def check_fields(name: str, file: str, kind: str, fields: dict[str, Any]) -> None:
    """Refuse a configuration whose fields are of other kinds than PEFT declares.

    Fields that the installed PEFT does not have are let through, as PEFT leaves them out; so is a
    value that is PEFT's own default.

    Raises:
        InputError: names the field, what it holds and what was expected.
    """
    config = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)]
    hints = get_type_hints(config)
    for field in dataclasses.fields(config):
        if field.name not in fields or field.name == "peft_type":
            continue
        value = fields[field.name]
        expected = _mismatch(hints.get(field.name, Any), value, _default(field))
        if expected:
            held = json.dumps(value)[:60]
            raise InputError(
                f'adapter "{name}": {file}: {field.name} is {held}, expected {expected}'
            )
        if field.name in _REFUSED_FIELDS and value:
            raise InputError(
                f'adapter "{name}": {field.name} is not supported, it {_REFUSED_FIELDS[field.name]}'
            )
    bias = fields.get("bias", "none")
    if bias not in ("none", False, None):
        raise InputError(
            f'adapter "{name}": bias={json.dumps(bias)} is supported for LoRA alone: PEFT writes '
            f"the biases of a {kind} adapter into the base model; train it with bias none"
        )


def sizes(config: PeftConfig) -> dict[str, int]:
    """{field: number} of a configuration, those that may decide how much is allocated."""
    return {
        field.name: value
        for field in dataclasses.fields(config)
        if isinstance(value := getattr(config, field.name), int)
        and not isinstance(value, bool)
        and not any(part in field.name for part in _SEEDS)
    }


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return None if field.default_factory is dataclasses.MISSING else field.default_factory()


def _mismatch(hint: Any, value: Any, default: Any) -> str:
    """What was expected; nothing where the value is of the kind, or is the default."""
    if type(value) is type(default) and value == default:
        return ""
    if not _bounded(value):
        return f"finite numbers below {_LARGEST} in size"
    try:
        accepted = TypeAdapter(hint, config=_STRICT)
    except (PydanticSchemaGenerationError, PydanticUserError):
        return _part(hint, value)
    try:
        accepted.validate_json(json.dumps(value))
    except ValidationError as error:
        return expected(error.errors(include_url=False))[:200]
    return ""


def _part(hint: Any, value: Any) -> str:
    """A configuration inside a configuration, of a class of PEFT's own, is an object in JSON."""
    return "" if value is None or isinstance(value, dict) else f"an object ({hint})"[:120]


def _bounded(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_bounded, value.values()))
    if isinstance(value, list):
        return all(map(_bounded, value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return -_LARGEST < value < _LARGEST  # NaN is not
    return True
