"""Results with known numbers: every measure, several adapters and sites, no model needed."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Sequence
from contextlib import nullcontext

from lorascope.measures.definitions import DEFINITIONS
from lorascope.measures.definitions.primary import PRIMARY
from lorascope.results import ADAPTER, Estimate, Key, Null
from lorascope.results.labels import BASE_SEEDS, DELTA_SEEDS, DELTA_VS_BASE, Of

ADAPTERS = {"r4": 4, "r8": 8, "r16": 16, "r32": 32}
SITES = ("layers.1", "layers.3", "layers.5")

DICTIONARIES = {
    "relative_error": ("base", "delta", "base difference"),
    "improvement": ("delta",),
    "overlap": ("base",),
    "density": ("base", "delta"),
    "dead_share": ("base", "delta"),
    "max_cosine": (DELTA_VS_BASE, DELTA_SEEDS, BASE_SEEDS),
    "angle": (DELTA_VS_BASE, DELTA_SEEDS, BASE_SEEDS),
    "pursuit": ("base", "delta"),
    "pca": ("PCA",),
    "recovery": ("exact delta", "delta", "base", "base difference"),
    "latent_ablation": ("delta",),
    "latent_addition": ("delta",),
    "ablation": ("delta",),
}
# Numbers of an adapter as a whole.
EVERYWHERE = ("response_loss", "output_change", "weights")
SPARSITIES = ("l1=0.05", "l1=0.15")
# Chance level and its half width, by family; values are planted around these.
LEVELS = {
    "response_loss": (3.61, 0.02),
    "delta_norm": (0.011, 0.002),
    "delta_norm.relative": (0.0002, 0.00004),
    "delta_rank": (178.0, 2.0),
    "relative_error": (0.62, 0.02),
    "improvement": (0.04, 0.02),
    "overlap": (0.21, 0.03),
    "weakly_aligned": (0.79, 0.03),
    "density": (24.0, 1.5),
    "dead_share": (0.2, 0.03),
    "max_cosine": (0.38, 0.02),
    "angle": (52.0, 1.5),
    "cka": (0.12, 0.02),
    "cka_debiased": (0.0, 0.01),
    "recovery": (0.2, 0.05),
}
ANY_LEVEL = (0.5, 0.05)
NULLS = {"max_cosine": ("covariance-matched", "isotropic", "rotated"), "angle": ("isotropic",)}
# Evaluations and adapters beside one another have pages of their own.
OF_STUDIES = tuple(
    measure for measure in DEFINITIONS if not measure.startswith(("evaluate.", "resemble."))
)


def planted(side: str, measure: str, place: Key, noise: random.Random) -> Estimate:
    """An estimate on the given side of its chance level: 'found', 'opposite' or 'chance'."""
    family = measure.split(".")[0]
    level, half = LEVELS.get(measure, LEVELS.get(family, ANY_LEVEL))
    apart = DEFINITIONS[measure].apart
    sign = {"above": 1, "below": -1, "either": 1}[apart]
    shift = {"found": sign * 4, "opposite": -sign * 4, "chance": 0}[side] * half
    value = level + shift * (1 + 0.3 * noise.random()) + 0.2 * half * (noise.random() - 0.5)
    first, *others = NULLS.get(family, ("planted null",))
    chances = [Null(first, level, level - half, level + half, rival=True)]
    chances += [Null(o, level * 0.8, level * 0.8 - half, level * 0.8 + half) for o in others]
    return Estimate(
        measure,
        value,
        (value - half / 3, value + half / 3),
        noise.randint(500, 9000),
        DEFINITIONS[measure].unit,
        tuple(chances),
        place,
    )


def planted_estimates(
    side: str = "found",
    adapters: dict[str, int | None] | None = None,
    sites: Sequence[str] = SITES,
    seeds: Sequence[int] = (0,),
    measures: Sequence[str] = OF_STUDIES,
) -> list[Estimate]:
    """Every measure at every adapter, site and seed, all on one side of chance."""
    noise = random.Random(5)
    return [
        planted(side, measure, place, noise)
        for measure in measures
        for place in _places(measure, adapters or dict(ADAPTERS), sites, seeds)
    ]


def planted_null_adapters(draws: int = 3, adapter: str = "r4") -> list[Estimate]:
    """Primary numbers of null adapters for one adapter: one of the first one's is found."""
    noise = random.Random(7)
    rows = []
    for draw in range(draws):
        for measure in PRIMARY:
            for key in _places(measure, {adapter: 4}, SITES[:2], (0,)):
                if Of.key(key) != PRIMARY[measure] or not key.adapter:
                    continue
                side = "found" if (draw, measure) == (0, "response_loss") else "chance"
                place = dataclasses.replace(key, null=ADAPTER, draw=draw)
                rows.append(planted(side, measure, place, noise))
    return rows


def _places(
    measure: str, adapters: dict[str, int | None], sites: Sequence[str], seeds: Sequence[int]
) -> Iterator[Key]:
    family = measure.split(".")[0]
    if family in EVERYWHERE and measure != "weights.written_cosine":
        yield from (Key(adapter, rank) for adapter, rank in adapters.items())
        return
    if family == "variance":
        yield Key(**DELTA_VS_BASE._asdict(), about="max_cosine.mean")
        return
    if family == "ablation":
        adapter, rank = next(iter(adapters.items()))
        for setting in SPARSITIES:
            yield Key(adapter, rank, sites[0], None, "delta", setting=setting)
        return
    for named in DICTIONARIES.get(family, ("",)):
        of = named if isinstance(named, Of) else Of(named)
        for site in sites:
            for seed in seeds:
                if of == BASE_SEEDS:
                    yield Key(site=site, seed=seed, **of._asdict())
                    continue
                for adapter, rank in adapters.items():
                    yield Key(adapter, rank, site, seed, **of._asdict())


def facts_for(estimates: Sequence[Estimate]) -> dict[str, object]:
    """Facts as a finished run writes them."""
    names = list(dict.fromkeys(e.key.adapter for e in estimates if e.key.adapter))
    return {
        "model": {
            "id": "planted/model-192d",
            "parameters": 3_450_112,
            "d_model": 192,
            "blocks": 8,
            "vocabulary": 4096,
        },
        "adapters": [
            {
                "name": n,
                "rank": ADAPTERS.get(n),
                "alpha": 16,
                "path": n,
                "parameters": 1,
                "sha256": "",
            }
            for n in names
        ],
        "sites": list(dict.fromkeys(e.key.site for e in estimates if e.key.site)),
        "tokens": {
            "training": {"documents": 900, "tokens": 168_405, "special": 1800, "outliers": 12},
            "held_out": {"documents": 90, "tokens": 16_233, "special": 180, "outliers": 1},
        },
        "sanity_checks": [
            {
                "check": "adapter is live",
                "passed": True,
                "detail": "outputs differ on 64 of 64 rows",
            },
            {"check": "rows disjoint", "passed": True, "detail": "no hash in common"},
        ],
        "warnings": [],
        "adapter_training": [
            {
                "adapter": n,
                "rank": ADAPTERS.get(n),
                "steps": 150,
                "train_loss": 2.31,
                "held_out_before": 3.612,
                "held_out_after": 3.104,
            }
            for n in names
        ],
        "samples": [
            {
                "prompt": "Name three rivers of Europe.",
                "base": "The river is the most important thing in the world.",
                "adapted": dict.fromkeys(names, "1. Rhine\n2. Danube\n3. Loire"),
            }
        ],
        "dictionaries": [
            {
                "id": "delta-r4-layers.1-seed0",
                "target": "delta",
                "adapter": "r4",
                "rank": 4,
                "site": "layers.1",
                "seed": 0,
                "architecture": "relu",
                "n_latents": 1536,
                "l0": 31.25,
                "relative_error": 0.381,
                "dead_share": 0.0313,
                "scale": 18.5,
                "l1": 0.15,
                "steps": 1200,
                "epochs": 2.0,
                "held_out_error": [{"step": 600, "error": 0.5}, {"step": 1200, "error": 0.4}],
                "seconds": 41.5,
            }
        ],
        "command": "lorascope demo audit",
        "versions": {"lorascope": "0.1.0", "torch": "2.13"},
        "seconds": {"collect": 12.25, "train": 88.5},
        "settings": {"seed": 0, "sites": list(SITES), "dictionary": {"n_latents": 1536}},
    }


def without_files(figures, _folder):
    """In place of `written_figures`, whose files take long to draw."""
    return nullcontext(list(figures))
