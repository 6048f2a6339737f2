"""What the report's feature browser shows: one stage for each delta dictionary of the first seed.

1. Held-out rows are encoded once: density, histogram, kinds of text and rows to show.
2. Directions are compared with the base dictionary, taken apart into its directions, compared with
   the adapter's dictionaries at other sites and the other adapters' at the same site, and read
   through the base's unembedding.
3. `report.latents.write_latents` puts that into the stage's folder.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file
from torch import Tensor

from lorascope.activations.categories import category
from lorascope.activations.text import Document
from lorascope.geometry.chance import covariance_root
from lorascope.geometry.cosine import max_cosine
from lorascope.measures import features, latent_directions
from lorascope.randomness import generator
from lorascope.report.latents import WHOLE, read_latents, rounded, write_latents
from lorascope.results import Key, Null
from lorascope.stages import Stage, Work, stage
from lorascope.studies.audit.effects import ATTRIBUTED, EFFECTS, LATENTS
from lorascope.studies.audit.measuring import PARENTS, Audit
from lorascope.studies.audit.state import Audited
from lorascope.studies.audit.study import AuditStudy
from lorascope.workflows.passages import Passages
from lorascope.workflows.run_dictionaries import DICTIONARIES

FEATURES = "features"
TOKENS = 10
# Examples of the latents that write most, and of the others: strongest, then of each band.
_EXAMPLES, _FEW_EXAMPLES = (4, 2), (2, 0)


# What the browser reads of the study.
_SETTINGS = ("measures.effects", "measures.rows", "seed")


@stage(version=2, title="looking at latents")
def browse(work: Work, *, study: AuditStudy, first_seed: int, site: str, adapter: str) -> None:
    """What the feature browser shows of one delta dictionary of the first seed."""
    state: Audited = work.state
    audit = state.audit(study, first_seed)
    place = replace(audit.place(site, adapter), seed=first_seed)
    head, columns, details = _Browsed(state, audit, place).gathered(_neighbours(state, place))
    write_latents(work.folder, head, columns, details)


def stages(state: Audited, bases: Mapping[str, str]) -> Iterator[Stage]:
    """One stage a delta dictionary of the first seed, `features/<site>-<adapter>`.

    Args:
        bases: {site: the stage of the first seed's base dictionary}.
    """
    study, seed = state.study, state.study.dictionaries.seeds[0]
    for site in bases:
        for adapter in state.adapters:
            place = Key(adapter=adapter, site=site, seed=seed)
            near = [_where(place), *_neighbours(state, place)]
            used = [
                f"{DICTIONARIES}/{key.name}"
                for key in state.wanted
                if (key.target, key.seed, key.setting) == ("delta", seed, "")
                if (key.site, key.adapter) in near
            ]
            effects = [f"{EFFECTS}/{adapter}"] if study.measures.effects else []
            arguments = {"study": study.only(*_SETTINGS), "first_seed": seed}
            arguments |= {"site": site, "adapter": adapter}
            inputs = (*PARENTS, bases[site], *used, *effects)
            yield Stage(f"{FEATURES}/{site}-{adapter}", browse, arguments, inputs)


def without_latents(folder: Path) -> list[str]:
    """A warning for every dictionary of a run of which no latent fires."""
    return [
        f"{one.head['adapter']} at {one.head['site']}: no latent of its delta dictionary fires on "
        "the held-out deltas; there is nothing to browse"
        for one in read_latents(folder)
        if not one.columns["latent"]
    ]


def _where(place: Key) -> tuple[str, str]:
    return place.site, place.adapter


def _neighbours(state: Audited, place: Key) -> list[tuple[str, str]]:
    """(site, adapter) of the other adapters here and of the same one at other sites."""
    here = [(place.site, adapter) for adapter in state.adapters if adapter != place.adapter]
    return here + [(s.name, place.adapter) for s in state.sites if s.name != place.site]


@dataclass(frozen=True, eq=False)
class _Near:
    """Another delta dictionary, and each leading latent's nearest latent there."""

    site: str
    adapter: str
    latents: Int[Tensor, " n"]
    cosines: Float[Tensor, " n"]
    chance: Null

    def head(self) -> dict[str, Any]:
        """What the page says of the dictionary."""
        return {"site": self.site, "adapter": self.adapter, "chance": plain_chance(self.chance)}


class _Browsed:
    """One delta dictionary, each part computed when first asked for."""

    def __init__(self, state: Audited, audit: Audit, place: Key) -> None:
        assert place.seed is not None
        self._state, self._audit, self._place = state, audit, place
        self._seed = audit.study.seed
        self._dictionary = audit.learned.delta(place.site, place.adapter, place.seed)
        self._base = audit.learned.base(place.site, place.seed)
        origin = audit.held_out.tokens()
        stretch = features.stretches(origin)
        random = self._random("rows")
        self._chosen = features.chosen_rows(stretch, audit.study.measures.rows, random)
        documents = origin.document[self._chosen]
        token, stretch = origin.token[self._chosen], stretch[self._chosen]
        self._documents = documents
        rows = self._rows()
        self._activity = features.activity(self._dictionary, rows)
        drawn = self._random("norm-matched")
        self._by_chance = features.fired_by_chance(self._dictionary, rows, drawn)
        self._passages = Passages(state.model.tokenizer, token, stretch, self._activity)

    def _random(self, what: str) -> torch.Generator:
        return generator(self._seed, "features", what, self._place)

    def _rows(self) -> Float[Tensor, "chosen d"]:
        """The chosen rows, read a shard at a time."""
        shards, order = self._audit.held_out, self._chosen.argsort()
        wanted = self._chosen[order]
        found = torch.empty(len(wanted), shards.d_model)
        start = 0
        for chunk in shards.chunks(self._place.site, self._place.adapter):
            here = (wanted >= start) & (wanted < start + len(chunk))
            found[order[here]] = chunk[wanted[here] - start]
            start += len(chunk)
        return found

    @cached_property
    def _root(self) -> Float[Tensor, "d d"]:
        _, covariance = self._audit.probe.moments(self._place.site, self._place.adapter)
        return covariance_root(covariance)

    def _kinds(self, documents: list[Document]) -> tuple[list[str], Int[Tensor, " rows"]]:
        """Kinds of text, and each encoded row's."""
        of_document = [category(document) for document in documents]
        names = sorted(set(of_document))
        index = torch.tensor([names.index(kind) for kind in of_document])
        return names, index[self._documents[: self._activity.rows].long()]

    def gathered(
        self, near: list[tuple[str, str]]
    ) -> tuple[dict[str, Any], dict[str, list[Any]], list[dict[str, Any]]]:
        """What the page says of the dictionary, its table of latents, and a record of each."""
        names, kind = self._kinds(self._state.texts.held_out)
        norms = self._dictionary.directions.norm(dim=1)
        sums = features.statistics(self._activity, norms, self._documents, kind, len(names))
        order = sums.written.argsort(descending=True, stable=True)[: int((sums.written > 0).sum())]
        directions = self._dictionary.directions[order.to(norms.device)]
        cosines, nearest = _nearest(directions, self._base.directions)
        chance = latent_directions.single_chance(
            self._base.directions, self._root, self._random("single")
        )
        by_chance = latent_directions.token_chance(
            self._state.model, directions, self._random("tokens")
        )
        tokens = latent_directions.token_effects(self._state.model, directions, TOKENS, by_chance)
        neighbours = [self._near(directions[:WHOLE], *where) for where in near]
        details = self._details(order, sums, tokens)
        built = self._built(directions[:WHOLE], details)
        for other in neighbours:
            for record, latent, cosine in zip(
                details, other.latents.tolist(), other.cosines.tolist(), strict=False
            ):
                record.setdefault("near", []).append([latent, rounded(cosine)])
        head = self._head(names, kind, chance) | {
            "near": [other.head() for other in neighbours],
            "built_chance": plain_chance(built) if built else None,
        }
        columns = self._columns(order, sums, details)
        columns |= {
            "cosine": [rounded(c) for c in cosines.tolist()],
            "base": nearest.tolist(),
            "verdict": latent_directions.verdicts(cosines, chance),
        }
        return head, columns, details

    def _head(self, names: list[str], kind: Tensor, chance: Null) -> dict[str, Any]:
        place, rows = self._place, self._activity.rows
        base = self._base
        shares = torch.bincount(kind, minlength=len(names)).double() / rows
        return {
            "site": place.site,
            "adapter": place.adapter,
            "rank": place.rank,
            "seed": place.seed,
            "n_latents": self._dictionary.n_latents,
            "rows": rows,
            "documents": len(self._documents[:rows].unique()),
            "base_latents": base.n_latents,
            "neuronpedia": base.card.neuronpedia,
            "chance": plain_chance(chance),
            "kinds": names,
            "kind_shares": [rounded(share) for share in shares.tolist()],
        }

    def _near(self, directions: Tensor, site: str, adapter: str) -> _Near:
        assert self._place.seed is not None
        other = self._audit.learned.delta(site, adapter, self._place.seed).directions
        chance = latent_directions.single_chance(
            other, self._root, self._random(f"{site} {adapter}")
        )
        cosines, latents = _nearest(directions, other)
        return _Near(site, adapter, latents, cosines, chance)

    def _built(self, directions: Tensor, details: list[dict[str, Any]]) -> Null | None:
        """Put what each direction is built from into its record; none where there is none."""
        if not len(directions):
            return None
        found = latent_directions.built_from(
            directions, self._base.directions.to(directions), self._root, self._random("built")
        )
        for index, record in enumerate(details[: len(directions)]):
            pairs = zip(found.latents[index].tolist(), found.weights[index].tolist(), strict=True)
            record["built"] = [[latent, rounded(w)] for latent, w in pairs if latent >= 0 and w > 0]
            record["explained"] = rounded(float(found.explained[index]))
        return found.chance

    def _details(
        self, order: Tensor, sums: features.Statistics, tokens: latent_directions.TokenEffects
    ) -> list[dict[str, Any]]:
        documents, random = self._documents, self._random("examples")
        show, piece = self._passages.passage, self._passages.piece
        found = []
        for index, latent in enumerate(order.tolist()):
            many = _EXAMPLES if index < WHOLE else _FEW_EXAMPLES
            chosen = features.examples(self._activity, latent, documents, *many, random)
            found.append(
                {
                    "up": _tokens(tokens.promoted[index], tokens.promoted_by[index], piece),
                    "down": _tokens(tokens.suppressed[index], tokens.suppressed_by[index], piece),
                    "density": _interval(sums.density_low, sums.density_high, latent),
                    "density_chance": rounded(float(self._by_chance[latent])),
                    "mean": _interval(sums.mean_low, sums.mean_high, latent),
                    "max": rounded(float(sums.maximum[latent])),
                    "histogram": sums.histogram[latent].tolist(),
                    "kinds": [rounded(share) for share in sums.kinds[latent].tolist()],
                    "examples": [show(latent, example, index < WHOLE) for example in chosen],
                }
            )
        return found

    def _columns(
        self, order: Tensor, sums: features.Statistics, details: list[dict[str, Any]]
    ) -> dict[str, list[Any]]:
        """The table's columns, one entry a latent that fires."""
        columns: dict[str, list[Any]] = {"latent": order.tolist()}
        for name in ("density", "mean", "strength", "written"):
            columns[name] = [rounded(v) for v in getattr(sums, name)[order].tolist()]
        taken = self._taken()
        for name, key in (("loss", "ablation_loss"), ("kl", "ablation_kl")):
            columns[name] = [_of(taken, latent, key) for latent in columns["latent"]]
        columns["kl_other"] = [_of(taken, i, "ablation_kl_other") for i in columns["latent"]]
        for name, losses in zip(
            ("attributed", "attributed_chance"), self._attributed(), strict=True
        ):
            columns[name] = [rounded(loss) for loss in losses[order].tolist()]
        columns["promotes"] = [[token for token, _ in d["up"][:4]] for d in details]
        columns["fires"] = [
            list(dict.fromkeys(e["tokens"][e["at"]] for e in d["examples"] if e["at"] >= 0))[:4]
            for d in details
        ]
        return columns

    def _attributed(self) -> Float[Tensor, "2 n"]:
        """Each latent's first-order effect on the loss, and its chance level; nan if not taken."""
        path = self._state.folder / EFFECTS / self._place.adapter / ATTRIBUTED
        found = load_file(path) if self._audit.study.measures.effects and path.exists() else {}
        nothing = torch.full((2, self._dictionary.n_latents), math.nan)
        return found.get(self._place.site, nothing)

    def _taken(self) -> dict[int, dict[str, Any]]:
        """Records of the latents whose effects on the outputs were taken."""
        path = self._state.folder / EFFECTS / self._place.adapter / LATENTS
        if not self._audit.study.measures.effects or not path.exists():
            return {}
        records = json.loads(path.read_text(encoding="utf-8"))
        return {
            record["latent"]: record for record in records if record["site"] == self._place.site
        }


def plain_chance(chance: Null) -> dict[str, Any]:
    """A chance level as plain data, as precise as it is shown."""
    numbers = {name: rounded(getattr(chance, name)) for name in ("level", "low", "high")}
    return {"null": chance.name, **numbers}


def _nearest(
    directions: Float[Tensor, "n d"], others: Float[Tensor, "m d"]
) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
    if not len(directions):
        return torch.empty(0), torch.empty(0, dtype=torch.long)
    cosines, nearest = max_cosine(directions, others.to(directions))
    return cosines.cpu(), nearest.cpu()


def _interval(low: Tensor, high: Tensor, latent: int) -> list[float | None]:
    return [rounded(float(low[latent])), rounded(float(high[latent]))]


def _tokens(ids: Tensor, sizes: Tensor, piece: Callable[[int], str]) -> list[list[Any]]:
    pairs = zip(ids.tolist(), sizes.tolist(), strict=True)
    return [[piece(token), rounded(size)] for token, size in pairs]


def _of(taken: dict[int, dict[str, Any]], latent: int, key: str) -> float | None:
    return rounded(float(taken[latent][key])) if latent in taken else None
