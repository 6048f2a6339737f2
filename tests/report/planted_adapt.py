"""A run folder of an adapt study with planted numbers."""

import json
from dataclasses import replace

from lorascope.report.result import write_estimates
from lorascope.results import Estimate, Key, Null

# {name: (in words, kind, rank, share)}
WAYS = {
    "lora-all-r16": ("LoRA everywhere, rank 16", "lora", 16, 0.4),
    "affine": ("affine", "affine", None, 0.25),
    "dictionary": ("KL fine-tune", "dictionary", None, 0.3),
    "lora-affine-all-r16": ("LoRA everywhere, rank 16 + affine", "lora+affine", 16, 0.5),
}
DICTIONARIES = {"a": (8.0, 0.9), "b": (16.0, 0.6), "c": (32.0, 0.3)}


def numbers(what, around, share, seed, cost, general=0.001):
    place = Key(adapter=what, rank=16, site="layers.3", seed=seed, dictionary=around)
    random = Null("random change of equal size", 0.0, -0.02, 0.02, rival=True)
    nothing = Null.exact("nothing fitted", 0.0, rival=True)
    spread = 0.01 * (seed - 1)

    def one(measure, value, *chances, unit="nats/token"):
        interval = (value - 0.02, value + 0.02)
        return Estimate(measure, value, interval, 4000, unit, chances, place)

    yield one("adapt.share_closed", share + spread, nothing, random, unit="share")
    yield one("adapt.cost_spliced", cost, Null.exact("nothing spliced", 0.0))
    left = cost * (1 - share)
    yield one("adapt.cost_adapted", left, Null("spliced, not adapted", cost, cost, cost))
    yield one("adapt.loss_original", 3.0, Null.exact("unigram frequencies", 6.0))
    yield one("adapt.loss_spliced", 3.0 + cost, Null.exact("unigram frequencies", 6.0))
    yield one("adapt.kl_spliced", cost, Null.exact("nothing spliced", 0.0))
    change = one("adapt.general_loss", general, Null.exact("no change", 0.0, rival=True))
    yield replace(change, interval=(general, general), margin=min(0.02, 0.05 * cost))


def fit(what, words, kind, rank, around, seed):
    return {
        "name": f"{around}-{what}-{seed}",
        **{"fit": what, "fitted": words, "kind": kind, "rank": rank, "adapts": "all", "seed": seed},
        **{"around": around, "dictionaries": [around], "sites": ["layers.3"]},
        **{"steps": 10, "fit_tokens": 5000, "fit_seconds": 4.5, "parameters": 1234},
        "changes": {"edges": [0.01, 0.1, 1.0], "better": [30, 20], "worse": [25, 5]},
    }


def planted_adapt_run(
    root, name="b", model="embedded", command="lorascope adapt x.yaml", shift=0.0, **facts
):
    """A run folder below `root` with results of three seeds; shares are `shift` above `WAYS`."""
    estimates, fits, scaling, baselines = [], [], [], []
    names = {**DICTIONARIES, name: DICTIONARIES["b"]}
    if name != "b":
        del names["b"]
    for seed in (0, 1, 2):
        for what, (words, kind, rank, share) in WAYS.items():
            for around, (_, cost) in names.items():
                if around != name and kind != "lora":
                    continue
                estimates += numbers(what, around, share + shift, seed, cost)
                fits.append(fit(what, words, kind, rank, around, seed))
                if around == name:
                    baselines.append(fits[-1]["name"])
                if kind == "lora":
                    scaling.append(fits[-1]["name"])
    shown = [
        {"name": d, "site": "layers.3", "n_latents": 1024, "l0": l0, "relative_error": 0.3}
        for d, (l0, _) in names.items()
    ]
    folder = root / f"run-{len(list(root.iterdir()))}"
    write_estimates(estimates, folder / "results")
    record = {
        "workflow": "adapt",
        "model": {"id": model},
        "texts": {"held_out": {"documents": 40, "tokens": 4000}},
        "dictionaries": shown,
        "reference": name,
        "experiments": {"baselines": baselines, "scaling": scaling, "reference": baselines[:1]},
        "fits": fits,
        "sanity_checks": [],
        "warnings": [],
        "times": {},
        "steering": [],
        "command": command,
        "versions": {"torch": "2"},
        "settings": {"seed": 0},
        **facts,
    }
    (folder / "results" / "facts.json").write_text(json.dumps(record), encoding="utf-8")
    return folder
