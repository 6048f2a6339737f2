"""Write docs/settings.md from the settings classes: `python scripts/write_settings_doc.py`."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from lorascope.checking.settings import CheckSettings, ScanSettings
from lorascope.config import Settings
from lorascope.reading.settings import Reading
from lorascope.studies.adapt.study import AdaptStudy
from lorascope.studies.audit.study import AuditStudy
from lorascope.studies.behaviour.making import BehaviourStudy
from lorascope.studies.behaviour.study import MeasureBehaviour
from lorascope.studies.compare.study import CompareSettings
from lorascope.studies.latent.study import LatentStudy
from lorascope.workflows.settings import TrainStudy

PAGE = Path(__file__).resolve().parents[1] / "docs" / "settings.md"
# Command: the settings it takes, the whole of which a study file or `--set` may change.
COMMANDS: dict[str, type[Settings]] = {
    "audit": AuditStudy,
    "adapt": AdaptStudy,
    "latent": LatentStudy,
    "compare": CompareSettings,
    "read": Reading,
    "train-adapter": TrainStudy,
    "behaviour make": BehaviourStudy,
    "behaviour measure": MeasureBehaviour,
    "check": CheckSettings,
    "scan": ScanSettings,
}
# What means the same wherever it stands and is described there only where it means more.
EVERYWHERE = {
    "name": "of the study; part of the run folder's name.",
    "model": 'hub id, folder, or "embedded".',
    "revision": "commit, tag or branch of the model on the hub.",
    "dtype": "of the model's weights; auto is float32 on a CPU and the checkpoint's own on a GPU.",
    "device": "cpu, cuda, cuda:1, mps, …; auto takes a GPU where there is one.",
    "device_map": "how a large model is laid over devices, as accelerate takes it.",
    "seed": "of every random choice that has no seed of its own.",
    "seeds": "of what is trained more than once.",
    "texts": "which texts; see Texts.",
    "force": "go on where a file names another model or site.",
    "sites": "residual-stream sites, `layers.12` = output of block 12.",
    "rank": "of the adapter.",
    "rate": "peak learning rate.",
    "batch": "rows or records a step.",
    "steps": "optimiser steps.",
    "context": "longest text in tokens.",
}
OPENING = """\
# Settings

Every setting a study file may hold, with its default. This page is written by
`scripts/write_settings_doc.py` from the classes that check the files. A key that is not listed is
refused, with the nearest known one named.

A study file is YAML: sections are keys, `dictionaries.fitting.epochs` is

```yaml
dictionaries:
  fitting:
    epochs: 5
```

and on the command line `--set dictionaries.fitting.epochs=5`. `lorascope plan FILE` checks a file.
"""


def page() -> str:
    """The whole page."""
    described: dict[type[Settings], None] = {}
    parts = [OPENING]
    for command, root in COMMANDS.items():
        found = [one for one in dict.fromkeys(_with_sections(root)) if one not in described]
        described.update(dict.fromkeys(found))
        parts.append(f"## lorascope {command}\n")
        if root not in found:
            parts.append(f"Takes [{root.__name__}](#{_anchor(root)}).\n")
        parts += [section(one) for one in found]
    return "\n".join(parts)


def section(kind: type[Settings]) -> str:
    """One class as a table."""
    lines = [f"### {kind.__name__}", "", _summary(kind), ""]
    lines += ["| setting | value | default | what it is |", "|---|---|---|---|"]
    said = descriptions(kind)
    for name, field in kind.model_fields.items():
        cells = (f"`{name}`", value_of(field.annotation), _default(field), said[name])
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def descriptions(kind: type[Settings]) -> dict[str, str]:
    """What each field is, from the docstrings of the class and of those it comes from.

    Raises:
        ValueError: a field is described nowhere.
    """
    found = dict(EVERYWHERE)
    for one in reversed(kind.__mro__):
        found |= _attributes(one.__doc__ or "")
    for name, field in kind.model_fields.items():
        if is_tag(field):
            found[name] = "which of the kinds this is."
        elif name not in found and (section := next(_nested(field.annotation), None)):
            found[name] = f"section: {_summary(section)[0].lower()}{_summary(section)[1:]}"
        elif name not in found:
            raise ValueError(f"{kind.__name__}.{name} is described in no docstring")
    return found


def is_tag(field: FieldInfo) -> bool:
    """Whether it tells one kind of settings from others and can have one value alone."""
    return get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1


def value_of(annotation: Any) -> str:
    """What may stand there, in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return value_of(inner[0])
    if origin is Literal:
        return ", ".join(f"`{one}`" for one in inner)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(value_of(one) for one in inner if one is not NoneType))
    if origin in (tuple, list):
        whole = [one for one in inner if one is not Ellipsis]
        return "list of " + " or ".join(dict.fromkeys(value_of(one) for one in whole))
    if origin is dict:
        return f"name: {value_of(inner[1])}"
    if inspect.isclass(annotation) and issubclass(annotation, Settings):
        return f"[{annotation.__name__}](#{_anchor(annotation)})"
    plain = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "any"}
    return plain.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _summary(kind: type[Settings]) -> str:
    return (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Settings):
        changed = type(value).__name__
        own = value.model_dump(exclude_defaults=True, mode="json")
        return f"{changed}({', '.join(f'{k}={v}' for k, v in own.items())})" if own else changed
    if value in (None, "", (), {}, []):
        return "–"
    if isinstance(value, dict) and any(isinstance(one, Settings) for one in value.values()):
        return ", ".join(value)
    return f"`{json.dumps(value, default=list, ensure_ascii=False)}`".replace('"', "")


def _with_sections(kind: type[Settings]) -> Iterator[type[Settings]]:
    yield kind
    for field in kind.model_fields.values():
        for inner in _nested(field.annotation):
            yield from _with_sections(inner)


def _nested(annotation: Any) -> Iterator[type[Settings]]:
    if inspect.isclass(annotation) and issubclass(annotation, Settings):
        yield annotation
    for one in get_args(annotation):
        yield from _nested(one)


def _attributes(text: str) -> dict[str, str]:
    """{name: description} from the section "Attributes:" of a docstring."""
    body = inspect.cleandoc(text).partition("Attributes:\n")[2]
    found: dict[str, str] = {}
    names: list[str] = []
    for line in body.splitlines():
        if line and not line.startswith(" "):
            break
        if entry := re.fullmatch(r" {4}(\w+(?:, \w+)*): (.*)", line):
            names = entry[1].split(", ")
            found |= dict.fromkeys(names, entry[2])
        elif line.strip():
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def _anchor(kind: type[Settings]) -> str:
    return kind.__name__.lower()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
