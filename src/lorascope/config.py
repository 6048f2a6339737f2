"""Strict, frozen settings: unknown keys are refused, YAML in and out, one hash of the whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from lorascope.errors import InputError, did_you_mean


class Settings(BaseModel):
    """Base of every settings class; instances never change and refuse keys they do not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def parse(cls, data: Mapping[str, Any], where: str) -> Self:
        """Settings from plain data; `where` names the source in the one-line error."""
        try:
            return cls.model_validate(dict(data))
        except ValidationError as error:
            raise InputError(f"{where}: {_first_problem(cls, error)}") from None

    @classmethod
    def read(cls, path: Path, overrides: Sequence[str] = ()) -> Self:
        """Settings from a YAML file with `key.subkey=value` overrides laid over it."""
        return cls.parse(override(read_yaml(path), overrides), str(path))

    def plain(self) -> dict[str, Any]:
        """The settings as plain data, every default written out."""
        return self.model_dump(mode="json")

    def yaml(self) -> str:
        """The settings as YAML, every default written out."""
        return yaml.safe_dump(self.plain(), sort_keys=False, allow_unicode=True)

    def digest(self) -> str:
        """Hash of every field; changing any field changes it."""
        return digest(self.plain())


def digest(data: object) -> str:
    """Hash of plain data, independent of key order."""
    text = json.dumps(data, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        first = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputError(f"{where}: not valid YAML ({first}); mend the file") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected keys and values at the top level of the file")
    return data


def override(data: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """`data` with `key.subkey=value` assignments laid over it; values are read as YAML."""
    result = json.loads(json.dumps(data, default=str))
    for assignment in assignments:
        key, sign, text = assignment.partition("=")
        if not sign or not key.strip():
            raise InputError(f"--set {assignment}: expected key=value, as in --set seed=1")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise InputError(f"--set {assignment}: {text!r} is not a YAML value") from None
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


def _first_problem(cls: type[BaseModel], error: ValidationError) -> str:
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = _fields_at(cls, problem["loc"][:-1])
        hint = did_you_mean(str(problem["loc"][-1]), known)
        return f'unknown key "{key}".{hint} Known here: {", ".join(known)}'
    if problem["type"] == "missing":
        return f'"{key}" is missing; add it'
    message = problem["msg"].removeprefix("Value error, ")
    return f'"{key}": {message}' if key else message


def _fields_at(cls: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for part in location:
        field = cls.model_fields.get(str(part))
        if field is None:
            continue
        cls = _nested(field.annotation) or cls
    return sorted(cls.model_fields)


def _nested(annotation: Any) -> type[BaseModel] | None:
    """The settings class inside a field's annotation, however deep, or None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_nested(part) for part in get_args(annotation))
    return next((cls for cls in inner if cls is not None), None)
