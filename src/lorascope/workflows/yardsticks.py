"""Every dictionary measured on the stream it was made for, and what is massive in each stream.

One stage a site, `yardsticks/<site>`. Verdicts are drawn from its numbers anew, so that other bars
measure nothing again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lorascope.activations.massive import Massive, find_massive
from lorascope.activations.shards import BASE
from lorascope.geometry.chance import columns_shuffled, gaussian_rows
from lorascope.measures.loss_recovered import loss_recovered
from lorascope.measures.massive import share_estimate
from lorascope.measures.rows import HeldOut
from lorascope.measures.yardsticks import (
    Stream,
    YardstickVerdict,
    components,
    judge,
    yardstick_estimates,
)
from lorascope.randomness import generator
from lorascope.results import GAUSSIAN, Estimate, Estimates, Key
from lorascope.runs import read_json, write_atomically
from lorascope.training.starts import SAMPLE, sampled
from lorascope.workflows.learning import Wanted, permutation
from lorascope.workflows.measured import Measured
from lorascope.workflows.measuring import TRAINED_ON, Audit
from lorascope.workflows.state import Audited

YARDSTICKS = "yardsticks"
MASSIVE = "massive.json"
# What a yardstick's key calls a dictionary beside "base": a draw of a null is named by its draw.
_DELTA, _DRAWN = "delta", "gaussian"
# The null whose draws a dictionary makes, by what it is trained on.
_STANDS_FOR = {_DRAWN: GAUSSIAN, **{str(target): null for target, null in TRAINED_ON.items()}}


@dataclass
class Yardsticks:
    """What the dictionaries of a run are worth.

    Attributes:
        measured: the yardsticks of every dictionary, and the share of what is massive at each site.
        verdicts: one a dictionary.
        massive: {site: what is massive in its base stream, as plain data}.
    """

    measured: Measured = field(default_factory=Measured)
    verdicts: list[YardstickVerdict] = field(default_factory=list)
    massive: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def failed(self) -> list[YardstickVerdict]:
        """Of the dictionaries no verdict is drawn with."""
        return [verdict for verdict in self.verdicts if not verdict.passed]


def take_yardsticks(state: Audited, audit: Audit) -> Yardsticks:
    """Measure every dictionary on held-out rows of its own stream, as stages, and judge it."""
    found, sites = Yardsticks(), audit.probe.sites
    bars, width = state.study.measures.yardstick, audit.probe.d_model
    with state.reporter.bar("yardsticks of dictionaries", len(sites), "sites") as advance:
        for site in sites:
            at = _At(state, audit, site)
            folder = at.stage()
            measured = Measured.read(folder)
            found.measured.add(measured)
            found.massive[site] = read_json(folder / MASSIVE)
            own = Estimates(e for e in measured.estimates if e.measure != "massive.share")
            for place, stands_for in at.judged:
                mine = [e for e in own if replace(e.key, massive="") == place]
                found.verdicts.append(judge(mine, bars, width, stands_for))
            advance(1)
    return found


def massive_at(audit: Audit, site: str) -> Massive:
    """What is massive in the base stream at a site, from a sample of the training rows."""
    rows = audit.probe.source(site, BASE)
    return find_massive(sampled(rows, max(SAMPLE, 4 * rows.d_model)))


@dataclass(frozen=True, eq=False)
class _At:
    """The dictionaries of one site."""

    state: Audited
    audit: Audit
    site: str

    @property
    def trained(self) -> list[Wanted]:
        return [key for key in self.audit.learned.folders if key.site == self.site]

    @property
    def judged(self) -> Iterator[tuple[Key, str]]:
        """The place of each dictionary, and the null that it stands for."""
        if self.site in self.audit.learned.brought:
            yield Key(site=self.site, dictionary="base"), ""
        for key in self.trained:
            yield self._place(key), _STANDS_FOR.get(key.target, "")

    def stage(self) -> Path:
        """The finished stage's folder."""
        study = self.audit.study
        measures = study.measures
        depends_on = [
            [measures.rows, measures.effects and measures.effect_tokens],
            study.dictionaries.base.get(self.site),
        ]
        dictionaries = [f"dictionaries/{key.name}" for key in self.trained]
        parents = ("gates", "activations/probe", "activations/held_out", *dictionaries)
        name = f"{YARDSTICKS}/{self.site}"
        return self.state.run.stage(name, depends_on, self._make, *parents)

    def _make(self, folder: Path) -> None:
        found = Measured()
        massive = massive_at(self.audit, self.site)
        rows = min(len(self.audit.probe), max(SAMPLE, 4 * self.audit.probe.d_model))
        found.estimates.append(share_estimate(massive, rows, Key(site=self.site)))
        if self.site in self.audit.learned.brought:
            place = Key(site=self.site, dictionary="base")
            own = self.audit.learned.brought[self.site]
            found.estimates.extend(yardstick_estimates(own, self._base, place))
        for key in self.trained:
            stream = self._base if key.target == "base" else self._stream(key)
            dictionary = self.audit.learned.open(key)
            place = self._place(key)
            found.estimates.extend(yardstick_estimates(dictionary, stream, place))
        if self.audit.study.measures.effects:
            found.estimates.extend(self._losses(found.estimates))
        found.write(folder)
        write_atomically(folder / MASSIVE, json.dumps(massive.record(), indent=1) + "\n")

    def _place(self, key: Wanted) -> Key:
        if key.target == "base":
            return Key(site=self.site, seed=key.seed, dictionary="base")
        place = replace(self.audit.place(self.site, key.adapter), seed=key.seed)
        if key.target == _DRAWN:
            return replace(place, dictionary=_DELTA, null=GAUSSIAN, draw=key.draw)
        return replace(place, dictionary=key.target, setting=key.setting)

    @cached_property
    def _base(self) -> Stream:
        rows = HeldOut.load(self.audit.held_out, self.site, BASE, self.audit.study.measures.rows)
        mean, covariance = self.audit.probe.moments(self.site, BASE)
        massive = massive_at(self.audit, self.site)
        return Stream(mean, covariance, rows.base, rows.documents, massive)

    def _stream(self, key: Wanted) -> Stream:
        """The delta's rows, or what a control makes of them."""
        audit = self.audit
        rows = HeldOut.load(audit.held_out, self.site, key.adapter, audit.study.measures.rows)
        mean, covariance = audit.probe.moments(self.site, key.adapter)
        random = generator(key.seed, "held out", key.target, self.site, key.adapter, key.draw)
        own = rows.delta
        if key.target == _DRAWN:
            own = gaussian_rows(len(own), mean, covariance, random)
        elif key.target == "shuffled":
            own, covariance = columns_shuffled(own, random), covariance.diag().diag()
        elif key.target == "permuted":
            order = permutation(key, len(mean))
            own, mean, covariance = own[:, order], mean[order], covariance[order][:, order]
        return Stream(mean, covariance, own, rows.documents, find_massive(own, directions=False))

    def _losses(self, found: list[Estimate]) -> list[Estimate]:
        """Loss recovered by the base dictionaries."""
        learned, d_model = self.audit.learned, self.audit.probe.d_model
        counts = {
            e.key: components(e.value, d_model)
            for e in found
            if e.measure == "yardstick.l0" and e.key.dictionary == "base"
        }
        # One that was brought serves every seed.
        dictionaries = {place: learned.base(self.site, place.seed or 0) for place in counts}
        return loss_recovered(
            self.state.model,
            self.state.held_out,
            dictionaries,
            {self.site: self._base},
            counts,
            capture=self.audit.study.capture,
            most=self.audit.study.measures.effect_tokens,
        )
