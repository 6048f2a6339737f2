"""Estimates of one stage of a run: collected, written into its folder, read back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lorascope.errors import InputError
from lorascope.results import Estimate, Estimates, Key
from lorascope.results.labels import Of, adapters_of
from lorascope.runs import read_json, write_json

_TABLE, _WARNINGS = "estimates.parquet", "warnings.json"


_DRAW = "draw "


def _line(text: str, draws: list[str]) -> str:
    """A text with how often it stands there; `draws` are numbers of draws, or empty."""
    if not draws[0]:
        return text if len(draws) == 1 else f"{text} ({len(draws)} times)"
    each = list(dict.fromkeys(draws))
    told = f"{_DRAW}{each[0]}" if len(each) == 1 else f"{len(each)} draws ({', '.join(each)})"
    times = f" ({len(draws)} times)" if len(draws) > len(each) else ""
    return f"{told} {text}{times}"


@dataclass(frozen=True)
class Measured:
    """Estimates, and a line for every group of them that could not be computed."""

    estimates: list[Estimate] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def attempt(self, place: Key, compute: Callable[[], list[Estimate]]) -> bool:
        """Keep what `compute` returns; where its input does not allow it, keep the reason."""
        try:
            self.estimates.extend(compute())
        except InputError as error:
            parts = (str(Of.key(place)), "" if place.seed is None else f"seed {place.seed}")
            which = ", ".join(part for part in parts if part)
            whose = adapters_of(place) or "base"
            if place.draw is not None:
                whose = f"{_DRAW}{place.draw} of {place.null} of {whose}"
            self.warnings.append(
                f"{whose}{place.site and f' at {place.site}'}"
                f"{which and f' ({which})'}: numbers left out: {error}"
            )
            return False
        return True

    @property
    def told(self) -> list[str]:
        """The lines, each text once: of several draws of a null how many, and which."""
        found: dict[str, list[str]] = {}
        for line in self.warnings:
            draw, _, rest = line.removeprefix(_DRAW).partition(" ")
            of_draw = line.startswith(_DRAW)
            found.setdefault(rest if of_draw else line, []).append(draw if of_draw else "")
        return [_line(text, draws) for text, draws in found.items()]

    def add(self, other: Measured) -> None:
        """Take over what another stage found."""
        self.estimates.extend(other.estimates)
        self.warnings.extend(other.warnings)

    def write(self, folder: Path) -> None:
        """Write everything into a stage's folder."""
        Estimates(self.estimates).write(folder / _TABLE)
        write_json(folder / _WARNINGS, self.warnings)

    @classmethod
    def read(cls, folder: Path) -> Measured:
        """What a finished stage found."""
        return cls(list(Estimates.read(folder / _TABLE)), read_json(folder / _WARNINGS))
