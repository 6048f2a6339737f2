"""`adapter_config.json` of an adapter, read strictly: a field of the wrong kind is refused.

It is foreign input that PEFT takes as it is, so that a wrong kind would show deep inside PEFT and
only once the base model is in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lorascope.errors import InputError
from lorascope.models.places import CONFIG_FILE
from lorascope.wrong_values import expected

if TYPE_CHECKING:
    # Takes seconds to import, and a LoRA adapter's fields are read without it.
    from peft import PeftConfig

LORA = "LORA"
_MOST_BYTES = 16_000_000
_BASE_CHANGING_INITS = ("pissa", "olora", "corda", "loftq", "lora_ga")
_REFUSED_FIELDS = {
    "layer_replication": "repeats blocks of the base model",
    "kasa_config": "changes the base weights when it is put on",
    "alora_invocation_tokens": "works only after its invocation tokens",
    "arrow_config": "chooses among other adapters, token by token",
    "megatron_config": "needs layers of Megatron-LM",
}

_Rank = Annotated[int, Field(gt=0, lt=2**31)]
_Index = Annotated[int, Field(ge=0, lt=2**31)]
_Names = list[str] | None
_NamesOrPattern = list[str] | str | None
# A sub-configuration; PEFT reads it, and what it makes of it is refused in one line too.
_Part = dict[str, Any] | None


class _Fields(BaseModel):
    """What PEFT writes for LoRA, each field in the kinds that it can have.

    Fields that no known version of PEFT has are let through: PEFT leaves them out.
    """

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    base_model_name_or_path: str | None = None
    revision: str | None = None
    task_type: str | None = None
    inference_mode: bool | None = None
    auto_mapping: _Part = None
    peft_version: str | None = None
    r: _Rank = 8
    lora_alpha: float = 8
    lora_dropout: Annotated[float, Field(ge=0, le=1)] = 0.0
    target_modules: _NamesOrPattern = None
    exclude_modules: _NamesOrPattern = None
    target_parameters: _Names = None
    modules_to_save: _Names = None
    layers_to_transform: list[_Index] | _Index | None = None
    layers_pattern: _NamesOrPattern = None
    rank_pattern: dict[str, _Rank] | None = None
    alpha_pattern: dict[str, float] | None = None
    trainable_token_indices: list[_Index] | dict[str, list[_Index]] | None = None
    bias: Literal["none", "all", "lora_only"] = "none"
    fan_in_fan_out: bool = False
    use_rslora: bool = False
    use_dora: bool = False
    use_qalora: bool = False
    qalora_group_size: _Rank = 16
    lora_bias: bool = False
    ensure_weight_tying: bool = False
    init_lora_weights: bool | str | None = True
    megatron_core: str | None = None
    megatron_config: _Part = None
    loftq_config: _Part = None
    eva_config: _Part = None
    corda_config: _Part = None
    lora_ga_config: _Part = None
    velora_config: _Part = None
    monteclora_config: _Part = None
    use_bdlora: _Part = None
    arrow_config: _Part = None
    kasa_config: _Part = None
    alora_invocation_tokens: list[int] | None = None
    layer_replication: list[Any] | None = None
    runtime_config: _Part = None


def read_config(name: str, folder: Path) -> PeftConfig:
    """The configuration of the adapter `name` in a folder.

    Raises:
        InputError: the file is damaged, a field is of the wrong kind, or it is no adapter that PEFT
            can switch off.
    """
    kind, fields = read_fields(name, folder)
    require_usable(name, kind, fields)
    return _parsed(name, folder, kind, fields)


def read_fields(name: str, folder: Path) -> tuple[str, dict[str, Any]]:
    """The tuner type that a configuration names, in capitals, and its fields as they stand there.

    Raises:
        InputError: the file is damaged, or it is no configuration of PEFT's.
    """
    fields = _read_fields(name, folder / CONFIG_FILE)
    return _kind(name, folder, fields), fields


def require_usable(name: str, kind: str, fields: dict[str, Any]) -> None:
    """Refuse what `read_fields` found where no such adapter can be a variant.

    Raises:
        InputError: a field is of the wrong kind, or PEFT could not switch the adapter off.
    """
    if kind == LORA:
        try:
            _Fields.model_validate(fields)
        except ValidationError as error:
            raise InputError(f'adapter "{name}": {CONFIG_FILE}: {_first(error, fields)}') from None
    else:
        from lorascope.models.tuner_kinds import check_fields, require_known

        require_known(name, kind)
        check_fields(name, CONFIG_FILE, kind, fields)
    for field, effect in _REFUSED_FIELDS.items():
        if fields.get(field):
            raise InputError(f'adapter "{name}": {field} is not supported, it {effect}')
    start = str(fields.get("init_lora_weights", "")).lower()
    if start.startswith(_BASE_CHANGING_INITS):
        raise InputError(
            f'adapter "{name}": its init_lora_weights, {start}, changes the base weights: convert '
            "it with save_pretrained(path_initial_model_for_weight_conversion=...)"
        )


def largest_rank(name: str, folder: Path) -> int:
    """Largest rank of an adapter's updates by its configuration; 0 where they are no LoRA factors.

    Raises:
        InputError: as `read_fields` and `require_usable`.
    """
    kind, fields = read_fields(name, folder)
    require_usable(name, kind, fields)
    if kind != LORA:
        return 0
    return max(fields.get("r", _Fields().r), *(fields.get("rank_pattern") or {}).values(), 0)


def require_ranks(name: str, largest: int, ranks: Iterable[int]) -> None:
    """Refuse ranks to cut an adapter to that are above its own: nothing would be cut.

    Raises:
        InputError: one is; or the adapter has no LoRA factors.
    """
    for rank in ranks:
        if largest < 1:
            raise InputError(
                f'adapter "{name}" has no LoRA factors and so no rank to cut to {rank}; leave the '
                "ranks out"
            )
        if rank > largest:
            raise InputError(
                f'adapter "{name}" has rank {largest}: there is nothing to cut to {rank}; give '
                f"ranks of {largest} or less, or none"
            )


def _read_fields(name: str, file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise InputError(
                f'adapter "{name}": {file} is larger than any {CONFIG_FILE}: give the folder that '
                "PEFT's save_pretrained wrote"
            )
        fields = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f'adapter "{name}": {file} cannot be read ({error.strerror}): check its permissions'
        ) from error
    except RecursionError:
        raise InputError(
            f'adapter "{name}": {file} is nested too deeply: it is no file of PEFT\'s'
        ) from None
    except InputError:
        raise
    except ValueError as error:
        raise InputError(
            f'adapter "{name}": {file} is not valid JSON ({error}): fetch it again'
        ) from error
    if not isinstance(fields, dict):
        raise InputError(f'adapter "{name}": {file} holds no JSON object: fetch it again')
    return fields


def _kind(name: str, folder: Path, fields: dict[str, Any]) -> str:
    kind = fields.get("peft_type")
    if kind is None and ("lora_parameters" in fields or "fine_tune_type" in fields):
        raise InputError(
            f'adapter "{name}": "{folder}" was written by MLX, not by PEFT: convert it: '
            "lora_A.weight = lora_aᵀ and lora_B.weight = lora_bᵀ under "
            "base_model.model.<module>, in adapter_model.safetensors, with r = rank and "
            'lora_alpha = scale × rank in adapter_config.json beside "peft_type": "LORA" and '
            "target_modules; or fuse it with mlx_lm.fuse and give the fused model"
        )
    if kind is None:
        raise InputError(
            f'adapter "{name}": {folder / CONFIG_FILE} says no peft_type: give the folder that '
            "PEFT's save_pretrained wrote"
        )
    if not isinstance(kind, str):
        raise InputError(
            f'adapter "{name}": its peft_type is {str(kind)[:40]}, expected a name such as LORA'
        )
    return kind.upper()


def _first(error: ValidationError, fields: dict[str, Any]) -> str:
    """The first thing that is wrong: the field, what it holds, what was expected."""
    found = error.errors(include_url=False)
    field = str(found[0]["loc"][0])
    # A field of several kinds has one error for each.
    wanted = expected([one for one in found if one["loc"][0] == field])
    held = json.dumps(fields.get(field))
    return f"{field} is {held[:60]}, expected {wanted}"


def _parsed(name: str, folder: Path, kind: str, fields: dict[str, Any]) -> PeftConfig:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    from peft.utils import PeftType

    try:
        found: PeftConfig = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)].from_pretrained(str(folder))
        return found
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        written = fields.get("peft_version", "an unknown version")
        raise InputError(
            f'adapter "{name}": PEFT cannot read its {CONFIG_FILE}, written by PEFT {written}: '
            f"{reason}"
        ) from error
