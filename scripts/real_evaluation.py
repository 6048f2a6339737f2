"""A dictionary of a pretrained model, and of the packaged one, evaluated: `… FOLDER`.

On each model: train a TopK dictionary on packaged instructions and fit LoRA around it (`lorascope
adapt`), then `lorascope evaluate` the dictionary without and with the fit: core, ten labelled sets,
first letters. SmolLM2-135M-Instruct is fetched as `real_models.py` does it. Tables of all numbers
go to `FOLDER/evaluation.md`, each beside its floor, the random-decoder dictionary and, with
`--reseed`, the same dictionary of another seed. Finished parts are kept and used again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorascope.report.result import Results, read_results
from lorascope.results import Estimate
from lorascope.studies.adapt.study import AdaptStudy
from lorascope.studies.evaluate.page import COLUMNS, evaluation_cells, evaluation_label
from lorascope.studies.opening import prepare
from real_models import MODELS, Work, fetch

LATENTS, K = 4096, 32
# Numbers of one set, latent count or ablation are many; these stand for all.
ABLATION, KS = "mean ablation", (1, 5, 20)


@dataclass(frozen=True)
class Place:
    """A model, and the block after which its dictionary stands, about two thirds down."""

    model: str
    site: str


PLACES = {
    "smollm2": Place("models/SmolLM2-135M-Instruct", "layers.20"),
    "embedded": Place("embedded", "layers.5"),
}


def texts() -> dict[str, Any]:
    """Packaged instructions, a tenth of them held out; of the others means are taken, which the
    fit has seen."""
    return {"sources": ["embedded"], "documents": 3000, "held_out": 0.1, "keep_seen": True}


def around(name: str, seed: int = 0) -> dict[str, Any]:
    """The study that trains a dictionary and fits LoRA around it.

    Args:
        seed: of the dictionary.
    """
    place = PLACES[name]
    train = {"sites": [place.site], "n_latents": [LATENTS], "k": [K], "tokens": 150_000}
    return {
        "workflow": "adapt",
        "name": f"{name}-adapt",
        "model": place.model,
        "texts": texts(),
        "context": 128,
        "measure_tokens": 4000,
        "dictionaries": {"train": {**train, "batch": 256, "seed": seed}},
        "fit": {
            "tokens": 12_000,
            "batch": 8,
            "evaluations": 0,
            "random_draws": 2,
            "lora": {"rank": 16, "blocks": "all", "rate": 0.001},
        },
        "experiments": {
            "ranks": [],
            "baselines": ["lora"],
            "single_blocks": False,
            "tokens": False,
            "distances": False,
        },
        "seeds": [0],
    }


def evaluation(name: str, fitted: str, reseeded: str) -> dict[str, Any]:
    """The study that evaluates the dictionary without and with the fit.

    Args:
        fitted: folder of the fit.
        reseeded: of the dictionary of another seed; empty for none.
    """
    place = PLACES[name]
    subject: dict[str, Any] = {"fitted": fitted}
    if reseeded:
        subject["reseeded"] = {place.site: reseeded}
    return {
        "workflow": "evaluate",
        "name": f"{name}-evaluate",
        "model": place.model,
        "texts": texts(),
        "context": 128,
        "subjects": {"topk": subject},
        "core": {"tokens": 4000, "training_tokens": 4000},
        "probing": {"sets": ["embedded"], "train": 120, "test": 100, "context": 64},
        "absorption": {"words": 1500, "examples": 4},
    }


def make(name: str, work: Work, *, reseed: bool) -> None:
    """Everything of one model; paths in studies are relative to the folder of everything."""
    fitting = _written(work, f"{name}/adapt.json", around(name))
    work.run(f"{name}/around", "adapt", fitting, "--out", f"{name}/around")
    (fit,) = sorted(path.parent for path in work.folder.glob(f"{name}/around/fits/*/fit.json"))
    other = ""
    if reseed:
        folder = f"{name}/reseeded"
        if folder not in work.taken:
            prepare(AdaptStudy.parse(around(name, seed=1), "reseeded"), work.folder / folder)
        stage = f"dictionaries/{PLACES[name].site}-{LATENTS}-k{K}"
        work.run(f"{folder}, texts", "stage", folder, "texts")
        work.run(folder, "stage", folder, stage)
        other = f"{folder}/{stage}"
    plain = evaluation(name, str(fit.relative_to(work.folder)), other)
    file = _written(work, f"{name}/evaluate.json", plain)
    work.run(f"{name}/evaluated", "evaluate", file, "--out", f"{name}/evaluated")


def _written(work: Work, place: str, plain: dict[str, Any]) -> str:
    file = work.folder / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
    return place


def chosen(results: Results) -> Iterator[Estimate]:
    """Numbers that stand for all: means over sets, one ablation, few k."""
    for e in results.numbers:
        key = e.key
        if key.topic not in ("", "all sets") or key.setting not in ("", ABLATION):
            continue
        if key.k is None or key.k in KS:
            yield e


def tables(folder: Path) -> str:
    """Numbers of every model evaluated, and what everything took, as Markdown."""
    parts = ["# Evaluations\n"]
    for name in PLACES:
        if not (folder / name / "evaluated" / "report" / "index.html").is_file():
            continue
        results = read_results(folder / name / "evaluated")
        parts.append(f"## {name}\n")
        parts += [f"{line}\n" for line in results.facts["warnings"]]
        lines = [("number", *COLUMNS), ("---",) * (1 + len(COLUMNS))]
        for e in chosen(results):
            cells = (" ".join((c.text, c.under)).strip() for c in evaluation_cells(e))
            lines.append((evaluation_label(e), *cells))
        parts.append("".join(f"| {' | '.join(line)} |\n" for line in lines))
    parts.append("## Time\n\n| command | processor | most memory |\n| --- | --- | --- |\n")
    for name, one in Work(folder).taken.items():
        minutes, memory = one["cpu_seconds"] / 60, one["peak_memory"] / 1e9
        parts.append(f"| {name} | {minutes:.1f} min | {memory:.2f} GB |\n")
    return "".join(f"{part}\n" if part.startswith("#") else part for part in parts)


def main() -> None:
    """Make what is missing of each model, then the tables of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where everything goes")
    parser.add_argument("--only", nargs="+", choices=list(PLACES), default=list(PLACES))
    parser.add_argument("--reseed", action="store_true", help="a dictionary of another seed too")
    given = parser.parse_args()
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for name in given.only:
        for model in MODELS:
            if model.key == name:
                fetch(model, folder)
        make(name, Work(folder), reseed=given.reseed)
    (folder / "evaluation.md").write_text(tables(folder), encoding="utf-8")
    sys.stdout.write(f"{folder / 'evaluation.md'}\n")


if __name__ == "__main__":
    main()
