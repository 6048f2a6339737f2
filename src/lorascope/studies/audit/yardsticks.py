"""Every dictionary measured on the stream it was made for; the massive coordinates of each stream.

One stage a site, `yardsticks/<site>`, reads activations alone; one a base dictionary,
`recovered/<site>-seed0`, runs the model, so that a study with fewer seeds does not. Verdicts are
drawn from the numbers anew, so that other bars measure nothing again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from lorascope.runs import read_json, write_json
from lorascope.stages import Stage, Work, stage
from lorascope.studies.audit.learning import permutation
from lorascope.studies.audit.measuring import PARENTS, TRAINED_ON, Audit
from lorascope.studies.audit.state import Audited
from lorascope.studies.audit.study import AuditStudy
from lorascope.training.starts import SAMPLE, sampled
from lorascope.workflows.measured import Measured
from lorascope.workflows.run_dictionaries import AuditDictionary

YARDSTICKS = "yardsticks"
RECOVERED = "recovered"
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


# What the yardsticks of a site, and the loss its base dictionaries recover, read of the study.
_SETTINGS = ("measures.rows",)
_RECOVERED_SETTINGS = ("measures.rows", "measures.effect_tokens", "capture")


@stage(version=1, title="measuring dictionaries on their own streams")
def take(work: Work, *, study: AuditStudy, first_seed: int, site: str) -> None:
    """Measure every dictionary of a site on held-out rows of its own stream."""
    _At(work.state, work.state.audit(study, first_seed), site).write(work.folder)


@stage(version=1, title="loss recovered by base dictionaries", together=True)
def recover(works: Sequence[Work]) -> None:
    """Splice the base dictionaries of a site into the model, all in one pass of it."""
    one = works[0].stage.arguments
    state: Audited = works[0].state
    at = _At(state, state.audit(one["study"], one["first_seed"]), one["site"])
    places = [at.base_place(work.stage.arguments["seed"]) for work in works]
    found = at.recovered(places)
    for work, place in zip(works, places, strict=True):
        Measured(found[place]).write(work.folder)


def stages(
    study: AuditStudy, site: str, dictionaries: Sequence[str], bases: Mapping[int | None, str]
) -> Iterator[Stage]:
    """The stages `yardsticks/<site>` and `recovered/<site>-seed…`, one a base dictionary.

    Args:
        dictionaries: stages of all dictionaries of the site.
        bases: {seed: the base dictionary's stage}; without a seed one that was brought.
    """
    shared = {"first_seed": study.dictionaries.seeds[0], "site": site}
    arguments = {"study": study.only(*_SETTINGS), **shared}
    yield Stage(f"{YARDSTICKS}/{site}", take, arguments, (*PARENTS, *dictionaries))
    if study.measures.effects:
        for seed, base in bases.items():
            arguments = {"study": study.only(*_RECOVERED_SETTINGS), **shared, "seed": seed}
            name, group = recovered_at(site, seed), f"{RECOVERED} {site}"
            yield Stage(name, recover, arguments, (*PARENTS, base), group)


def recovered_at(site: str, seed: int | None) -> str:
    """The stage of the loss that a base dictionary recovers."""
    return f"{RECOVERED}/{site}" if seed is None else f"{RECOVERED}/{site}-seed{seed}"


def judge_dictionaries(state: Audited, audit: Audit) -> Yardsticks:
    """Read what the stages found, and judge every dictionary by the study's bars."""
    found, bars, width = Yardsticks(), state.study.measures.yardstick, audit.probe.d_model
    for site in audit.probe.sites:
        folder = state.folder / YARDSTICKS / site
        measured = Measured.read(folder)
        bases = [e.key for e in measured.estimates if _is_base_l0(e)]
        for place in bases if state.study.measures.effects else ():
            measured.add(Measured.read(state.folder / recovered_at(site, place.seed)))
        found.measured.add(measured)
        found.massive[site] = read_json(folder / MASSIVE)
        own = Estimates(e for e in measured.estimates if e.measure != "massive.share")
        for place, stands_for in _At(state, audit, site).judged:
            mine = [e for e in own if replace(e.key, massive="") == place]
            found.verdicts.append(judge(mine, bars, width, stands_for))
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
    def trained(self) -> list[AuditDictionary]:
        return [key for key in self.audit.learned.folders if key.site == self.site]

    @property
    def judged(self) -> Iterator[tuple[Key, str]]:
        """The place of each dictionary, and the null that it stands for."""
        if self.site in self.audit.learned.brought:
            yield Key(site=self.site, dictionary="base"), ""
        for key in self.trained:
            yield self._place(key), _STANDS_FOR.get(key.target, "")

    def write(self, folder: Path) -> None:
        """Measure, and write what is found."""
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
        found.write(folder)
        write_json(folder / MASSIVE, massive.record())

    def _place(self, key: AuditDictionary) -> Key:
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

    def _stream(self, key: AuditDictionary) -> Stream:
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

    def base_place(self, seed: int | None) -> Key:
        """Of a base dictionary's numbers; one that was brought has no seed."""
        return Key(site=self.site, seed=seed, dictionary="base")

    def recovered(self, places: Sequence[Key]) -> dict[Key, list[Estimate]]:
        """Loss recovered by base dictionaries, by place of the dictionary."""
        learned, counts = self.audit.learned, dict[Key, int]()
        # One that was brought serves every seed.
        dictionaries = {place: learned.base(self.site, place.seed or 0) for place in places}
        for place, dictionary in dictionaries.items():
            # As many principal components stand beside it as it has active latents a row.
            [l0] = filter(_is_base_l0, yardstick_estimates(dictionary, self._base, place))
            counts[place] = components(l0.value, self.audit.probe.d_model)
        found = loss_recovered(
            self.state.model,
            self.state.held_out,
            dictionaries,
            {self.site: self._base},
            counts,
            capture=self.audit.study.capture,
            most=self.audit.study.measures.effect_tokens,
        )
        return {place: [e for e in found if e.key == place] for place in places}


def _is_base_l0(estimate: Estimate) -> bool:
    return estimate.measure == "yardstick.l0" and estimate.key.dictionary == "base"
