"""Strict, frozen settings: unknown keys are refused, YAML in and out, one hash of the whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_origin

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
    problems = error.errors()
    # A key that is not known is often the one that is missing, misspelt.
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    names, settings = _place(cls, problem["loc"])
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
    message = problem["msg"].removeprefix("Value error, ")
    return f'"{key}": {message}' if key else message


def _place(
    cls: type[BaseModel], location: tuple[int | str, ...]
) -> tuple[list[str], list[type[BaseModel]]]:
    """The keys of a location as they are written, and the settings that hold the last of them.

    Where several kinds of settings may stand, the location names the kind as if it were a key.
    """
    names: list[str] = []
    settings, inside = [cls], [cls]
    for part in map(str, location):
        kinds = [one for one in inside if part in _kinds(one)]
        if kinds:
            inside = kinds
            continue
        names.append(part)
        settings = inside
        fields = [one.model_fields[part] for one in settings if part in one.model_fields]
        inside = [found for field in fields for found in _nested(field.annotation)] or settings
    return names, settings


def _kinds(cls: type[BaseModel]) -> set[object]:
    """The names of a settings class where it is one of several."""
    fields = cls.model_fields.values()
    return {field.default for field in fields if get_origin(field.annotation) is Literal}


def _nested(annotation: Any) -> list[type[BaseModel]]:
    """The settings classes inside a field's annotation, however deep."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [cls for part in get_args(annotation) for cls in _nested(part)]
