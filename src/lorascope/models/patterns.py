"""Regular expressions of foreign configurations, tried where they can be stopped.

PEFT matches `target_modules` and other fields against every module's name. An expression can take
longer than the age of the universe on one name, and nothing in this process could stop it; so it
is first tried on all names in a process of its own, for a few seconds at most.
"""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from lorascope.errors import InputError

if TYPE_CHECKING:
    from peft import PeftConfig

SECONDS = 20.0
_PLAIN = re.compile(r"[\w.-]*")
_TRY = """
import json, re, sys
patterns, names = json.load(sys.stdin)
for pattern in patterns:
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        sys.exit(f"{pattern[:60]!r} is no regular expression ({error})")
    for name in names:
        compiled.match(name)
"""


def require_bounded(
    adapter: str, config: PeftConfig, names: Sequence[str], seconds: float = SECONDS
) -> None:
    """Refuse an adapter whose regular expressions are none, or do not end on a model's names.

    Args:
        names: of the model's modules and parameters.
        seconds: how long all of them may take together.

    Raises:
        InputError: names the adapter and the expression, or the fields that hold the slow one.
    """
    require_all_bounded(adapter, _patterns(config), names, seconds)


def require_all_bounded(
    adapter: str, patterns: Sequence[str], names: Sequence[str], seconds: float = SECONDS
) -> None:
    """The same of patterns in the form in which they are matched; names without operators pass.

    Raises:
        InputError: as `require_bounded`.
    """
    patterns = [pattern for pattern in patterns if not _PLAIN.fullmatch(pattern)]
    if not patterns:
        return
    try:
        tried = subprocess.run(
            [sys.executable, "-I", "-c", _TRY],
            input=json.dumps([list(patterns), list(names)]),
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        shown = max(patterns, key=len)[:60]
        raise InputError(
            f'adapter "{adapter}": its regular expressions (the longest begins {shown!r}) are not '
            f"done with this model's {len(names)} names after {seconds:g} s: list the modules in "
            "target_modules instead"
        ) from None
    if tried.returncode:
        reason = (tried.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise InputError(f'adapter "{adapter}": {reason}: list the modules by name instead')


def _patterns(config: PeftConfig) -> list[str]:
    """What PEFT will match, in the form in which it does; names without operators are left out."""
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    whole = [fields.get(f) for f in ("target_modules", "exclude_modules", "feedforward_modules")]
    layers = fields.get("layers_pattern") or ()
    keys = [
        key
        for field, value in fields.items()
        if field.endswith("_pattern") and isinstance(value, dict)
        for key in value
    ]
    return [
        *(p for p in whole if isinstance(p, str) and p.lower() != "all-linear"),
        *_around(fields.get("modules_to_save") or (), r"(^|.*\.)", r"($|\..*)"),
        *_around([layers] if isinstance(layers, str) else layers, r"(?:^|.*?\.)", r"\.(\d+)\."),
        *_around(keys, r"(.*\.)?(", ")$"),
    ]


def _around(inner: Iterable[str], before: str, after: str) -> list[str]:
    return [f"{before}{one}{after}" for one in inner if not _PLAIN.fullmatch(one)]
