"""Strict, frozen settings: unknown keys are refused, YAML in and out, one hash of the whole."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast, get_args, get_origin

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    ValidationError,
    model_validator,
)

from lorascope.errors import InputError, did_you_mean
from lorascope.foreign import YAML_BYTES, first_line, local_path, parse_yaml, read_bytes
from lorascope.wrong_values import is_of_a_value, said

_DEVICES = ("auto", "cpu", "cuda", "mps", "xpu", "npu", "hpu")


def _known_device(value: str) -> str:
    kind, colon, number = value.partition(":")
    if kind not in _DEVICES or (colon and not number.isdecimal()) or value.startswith("auto:"):
        raise ValueError(
            f"there is no {value!r}.{did_you_mean(kind, _DEVICES)} There are: "
            f"{', '.join(_DEVICES)}, and one of several as in cuda:1"
        )
    return value


# "auto" is float32 on a CPU and the checkpoint's own on a GPU; "nf4" and "int8" hold the linear
# maps in 4 or 8 bits, by bitsandbytes.
DType = Literal["auto", "float32", "bfloat16", "float16", "nf4", "int8"]
# "auto" is bfloat16 where the hardware has it.
Products = Literal["auto", "float32", "bfloat16"]
# Which next-token distribution stands first in KL, the spliced model's or the original's.
Direction = Literal["spliced_original", "original_spliced"]
Device = Annotated[str, AfterValidator(_known_device)]
DeviceMap = Literal["auto", "balanced", "balanced_low_0", "sequential"]

# What a setting may be called in place of its own name, by people and by other libraries.
_OTHER_NAMES = {"bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32"}
_OTHER_NAMES |= {"4bit": "nf4", "8bit": "int8"}


class Settings(BaseModel):
    """Base of every settings class; instances never change and refuse keys they do not know.

    Yes and no are no numbers and numbers are neither; infinity and NaN are no settings.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def __init__(self, **data: Any) -> None:
        """The settings named.

        Raises:
            InputError: a name that is not known, or a value that does not suit it; one line.
        """
        try:
            super().__init__(**data)
        except ValidationError as error:
            kind = type(self)
            raise InputError(f"{kind.__name__}: {_first_problem(kind, error, data)}") from None

    # Settings inside others, and those that are parsed, are not made by calling this: an error in
    # them keeps its place in the whole.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @model_validator(mode="before")
    @classmethod
    def _yes_and_no_are_no_numbers(cls, data: Any) -> Any:
        for name, value in data.items() if isinstance(data, Mapping) else ():
            if name not in cls.model_fields:
                continue
            kinds = _leaves(cls.model_fields[name].annotation)
            if Any in kinds:
                continue
            for one in value if isinstance(value, list | tuple) else [value]:
                if isinstance(one, bool) and bool not in kinds:
                    raise ValueError(f'"{name}" is {str(one).lower()}, and no matter of yes or no')
                if one is not None and not isinstance(one, bool) and kinds == {bool}:
                    raise ValueError(f'"{name}" is {one!r}; give true or false')
        return data

    @classmethod
    def parse(cls, data: Mapping[str, Any], where: str) -> Self:
        """Settings from plain data; `where` names the source in the one-line error."""
        try:
            return cls.model_validate(dict(data))
        except ValidationError as error:
            raise InputError(f"{where}: {_first_problem(cls, error, data)}") from None
        except (ArithmeticError, RecursionError, TypeError, ValueError) as error:
            raise InputError(f"{where}: no valid settings ({first_line(error)}); mend it") from None

    @classmethod
    def read(cls, path: Path, overrides: Sequence[str] = ()) -> Self:
        """Settings from a YAML file with `key.subkey=value` overrides laid over it."""
        return cls.parse(override(read_yaml(path), overrides), str(path))

    def only(self, *paths: str) -> Self:
        """Some of the settings, `measures.rows` for one: a stage can read these and no others."""
        return cast(Self, Subset(self, *paths))

    def plain(self) -> dict[str, Any]:
        """The settings as plain data, every default written out."""
        return self.model_dump(mode="json")

    def yaml(self) -> str:
        """The settings as YAML, every default written out."""
        return yaml.safe_dump(self.plain(), sort_keys=False, allow_unicode=True)

    def digest(self) -> str:
        """Hash of every field; changing any field changes it."""
        return digest(self.plain())


class Subset:
    """Some settings of a study, which can be read as from the study itself; no others can.

    What a stage is given: its key follows from these settings, and it cannot read another.

    Args:
        whole: the study, or a section of it.
        paths: the settings, `measures.rows` for one and `measures` for a whole section.
    """

    def __init__(self, whole: Settings, *paths: str, _within: str = "") -> None:
        self._whole, self._paths, self._within = whole, paths, _within
        for path in paths if not _within else ():
            level: Any = whole
            for name in path.split("."):
                if isinstance(level, Settings) and name not in type(level).model_fields:
                    raise ValueError(f"{type(whole).__name__} has no setting {path}")
                level = getattr(level, name, None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        kind = type(self._whole)
        if name not in kind.model_fields:
            found = inspect.getattr_static(kind, name, None)
            if isinstance(found, property) and found.fget is not None:
                return found.fget(self)
            if inspect.isfunction(found):
                return found.__get__(self)
            raise AttributeError(f"{kind.__name__} has no setting {name}")
        path = f"{self._within}{name}"
        value = getattr(self._whole, name)
        if path in self._paths:
            return value
        if any(other.startswith(f"{path}.") for other in self._paths):
            return Subset(value, *self._paths, _within=f"{path}.") if value is not None else None
        raise AttributeError(f"{path} is none of the settings given: {', '.join(self._paths)}")

    def plain(self) -> dict[str, Any]:
        """The settings as plain data, by path."""
        found: dict[str, Any] = {}
        for path in sorted(self._paths):
            level: Any = self._whole.plain()
            for name in path.split("."):
                level = None if level is None else level.get(name)
            found[path] = level
        return found


def digest(data: object) -> str:
    """Hash of plain data, independent of key order."""
    text = json.dumps(data, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, its keys as text.

    Raises:
        InputError: it is missing, no plain file, too large, not valid, or holds no mapping.
    """
    path = local_path(path)
    try:
        data = parse_yaml(read_bytes(path, YAML_BYTES).decode("utf-8-sig"), path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not valid YAML ({first_line(error)}); mend the file") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected keys and values at the top level of the file")
    found: dict[str, Any] = _with_plain_keys(data)
    return found


def _with_plain_keys(data: Any) -> Any:
    """YAML's dates and numbers as keys are text here: nothing is named by one."""
    if isinstance(data, dict):
        return {str(key): _with_plain_keys(value) for key, value in data.items()}
    return [_with_plain_keys(item) for item in data] if isinstance(data, list) else data


def override(data: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """`data` with `key.subkey=value` assignments laid over it; values are read as YAML."""
    result = json.loads(json.dumps(data, default=str))
    for assignment in assignments:
        key, sign, text = assignment.partition("=")
        if not sign or not key.strip():
            raise InputError(f"--set {assignment}: expected key=value, as in --set seed=1")
        value = _with_plain_keys(parse_yaml(text, f"--set {assignment}"))
        *parents, last = key.strip().split(".")
        level = result
        for parent in parents:
            if level.get(parent) is None:  # absent, or a key left empty in the file
                level[parent] = {}
            level = level[parent]
            if not isinstance(level, dict):
                raise InputError(f"--set {assignment}: {parent} holds a value, not further keys")
        level[last] = value
    return result


def _first_problem(cls: type[BaseModel], error: ValidationError, data: Mapping[str, Any]) -> str:
    problems = error.errors()
    # A key that is not known is often the one that is missing, misspelt.
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    names, settings = _place(cls, problem["loc"], data)
    key = ".".join(names)
    if problem["type"] == "extra_forbidden":
        known = sorted({name for one in settings for name in one.model_fields})
        return (
            f'unknown key "{key}".{did_you_mean(names[-1], known)} Known here: {", ".join(known)}'
        )
    if problem["type"] == "missing":
        return f'"{key}" is missing; add it'
    if problem["type"] == "union_tag_invalid":
        found = problem["ctx"]
        known = [tag.strip(" '") for tag in found["expected_tags"].split(",")]
        hint = did_you_mean(found["tag"], known)
        return f'"{key}": there is no {found["tag"]!r}.{hint} There are: {", ".join(known)}'
    if problem["type"] == "literal_error":
        known = [tag.strip(" '") for tag in re.split(", | or ", problem["ctx"]["expected"])]
        given = str(problem["input"])
        meant = _OTHER_NAMES.get(given.lower())
        hint = f' Did you mean "{meant}"?' if meant in known else did_you_mean(given, known)
        return f'"{key}": there is no {problem["input"]!r}.{hint} There are: {", ".join(known)}'
    if is_of_a_value(problem):
        # Of a value that may be of several kinds there is a problem for each.
        same = [p for p in problems if is_of_a_value(p) and _place(cls, p["loc"], data)[0] == names]
        return f'"{key}" {said(same)}'
    message = problem["msg"].removeprefix("Value error, ")
    return f'"{key}": {message}' if key else message


def _place(
    cls: type[BaseModel], location: tuple[int | str, ...], data: Any
) -> tuple[list[str], list[type[BaseModel]]]:
    """The keys of a location as they are written, and the settings that hold the last of them.

    Where several kinds of value may stand, the location names the kind as if it were a key; what
    is no key of `data`, and not the one that is missing at the end, is such a name.
    """
    names: list[str] = []
    settings, inside = [cls], [cls]
    for number, part in enumerate(map(str, location), 1):
        fields = [one.model_fields[part] for one in inside if part in one.model_fields]
        data, is_there = _inside(data, part)
        if not is_there and not (fields and number == len(location)):
            inside = [one for one in inside if part in _kinds(one)] or inside
            continue
        names.append(part)
        settings = inside
        inside = [found for field in fields for found in _nested(field.annotation)] or settings
    return names, settings


def _inside(data: Any, part: str) -> tuple[Any, bool]:
    """What stands under a key or at a place of a list, and whether anything does."""
    if isinstance(data, Mapping):
        for key, value in data.items():
            if str(key) == part:
                return value, True
    elif isinstance(data, list | tuple) and part.isdecimal() and int(part) < len(data):
        return data[int(part)], True
    elif isinstance(data, BaseModel) and part in type(data).model_fields:
        return getattr(data, part), True
    return data, False


def _kinds(cls: type[BaseModel]) -> set[object]:
    """The names of a settings class where it is one of several."""
    fields = cls.model_fields.values()
    return {field.default for field in fields if get_origin(field.annotation) is Literal}


def _leaves(annotation: Any) -> set[Any]:
    """The kinds of value inside a field's annotation, however deep; None is not counted."""
    if get_origin(annotation) is Literal:
        return {type(value) for value in get_args(annotation)}
    inner = get_args(annotation)
    if get_origin(annotation) is Annotated:
        inner = inner[:1]
    if not inner:
        return set() if annotation in (type(None), ...) else {annotation}
    return set().union(*map(_leaves, inner))


def _nested(annotation: Any) -> list[type[BaseModel]]:
    """The settings classes inside a field's annotation, however deep."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [cls for part in get_args(annotation) for cls in _nested(part)]
