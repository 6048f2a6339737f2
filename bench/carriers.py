"""Do latents of an adapter's delta dictionary carry what it was taught?

python bench/carriers.py [--folder runs/auditing] [--seeds 1] [--latents 128] [--k 8] [--sites 5 7]

Of the taught adapters of `auditing.py`, kept in the same folder: delta and base dictionaries of
ordinary text at some sites, a reading, and what is left of its phrases without latents. Printed is,
of every adapter, what the best latent and the smallest set take away and what matched ones do, and
what goes without the whole delta at a site and without a few directions of it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from lorascope.activations.text import read_documents
from lorascope.activations.tokens import batches, windows
from lorascope.models.adapted import BASE, AdaptedModel, load
from lorascope.models.hooks import run_until
from lorascope.models.load import padding_id
from lorascope.models.sites import Site
from lorascope.planted.lessons import LABELS, lesson
from lorascope.planted.untaught import MADE, RECORDS, train
from lorascope.reading.carried import ALL, Carrier, read_carriers, write_carriers
from lorascope.reading.carriers import latent_carriers
from lorascope.reading.prompts import shipped_prompts
from lorascope.reading.removing import Reads
from lorascope.reading.running import read
from lorascope.reading.settings import Reading
from lorascope.stats.intervals import wilson_interval
from lorascope.training.architectures import TopK
from lorascope.training.dictionaries import fit
from lorascope.training.settings import Fitting

FITTING = Fitting(epochs=4, batch=256, rate=6e-3)
SETTINGS = Reading(documents=0, carriers=False)


@torch.no_grad()
def rows_of(model: AdaptedModel, site: Site, documents: int) -> dict[str, torch.Tensor]:
    """The base's stream and the delta at a site, on ordinary text, without special tokens."""
    found: dict[str, list[torch.Tensor]] = {"base": [], "delta": []}
    chosen = windows(read_documents("embedded")[:documents], model.tokenizer, 128)
    for batch in batches(chosen, model.tokenizer, padding_id(model.tokenizer), 4096):
        mask, streams = batch.attended.long(), {}
        for variant in (BASE, "adapter"):
            with model.variant(variant) as module:
                streams[variant] = run_until(module, [site], batch.ids, mask)[site][batch.kept]
        found["base"].append(streams[BASE].float())
        found["delta"].append(streams["adapter"].float() - streams[BASE].float())
    return {kind: torch.cat(parts) for kind, parts in found.items()}


def carried(path: Path, sites: list[int], architecture: TopK, documents: int) -> None:
    """Dictionaries, reading and carriers of one adapter; kept in its folder."""
    model = load("embedded", {"adapter": str(path)}, device="cpu")
    reads = []
    for index in sites:
        for kind, rows in rows_of(model, Site(index), documents).items():
            dictionary = fit(architecture, rows, fitting=FITTING)
            reads.append(Reads(Site(index), dictionary, "delta" if kind == "delta" else "base"))
    found = read(model, "adapter", SETTINGS)
    prompts = shipped_prompts(model.tokenizer)
    write_carriers(latent_carriers(model, found, prompts, reads, SETTINGS), path / "carriers")


def line(one: Carrier) -> str:
    """What is left without it, and beside it: matched latents, or the share of the energy."""
    low, high = one.interval
    beside = f"matched {one.chance:4.0%}" if one.of_latents else f"{one.size:.0%} of the energy"
    return (
        f"{one.name:44}{one.left:3} of {one.whole:3} left, taken {one.taken:4.0%} "
        f"[{low:.0%}, {high:.0%}], {beside}{'  carries' if one.carries else ''}"
    )


def main() -> None:
    """Train, read, take out, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/auditing"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--latents", type=int, default=128)
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--documents", type=int, default=240)
    parser.add_argument("--sites", type=int, nargs="+", default=[5, 7])
    arguments = parser.parse_args()
    architecture = TopK(n_latents=arguments.latents, k=arguments.k)
    alone, together, total = 0, 0, 0
    for seed in range(arguments.seeds):
        for label in LABELS:
            path = arguments.folder / f"{label}-{seed}".replace(" ", "-")
            train(label, lesson(label, RECORDS, seed), path, *MADE[seed % len(MADE)], seed)
            if not (path / "carriers" / "carriers.json").exists():
                (path / "carriers").mkdir(exist_ok=True)
                carried(path, arguments.sites, architecture, arguments.documents)
            whole = [one for one in read_carriers(path / "carriers") if one.phrase == ALL]
            latents = [one for one in whole if one.of_latents]
            total += 1
            alone += any(one.carries for one in latents if len(one.latents) == 1)
            together += any(one.carries for one in latents)
            for one in whole:
                print(f"{label:12}{seed:3}  {line(one)}", flush=True)
    for name, count in (("one latent", alone), ("one latent or a set", together)):
        low, high = wilson_interval(count, total)
        print(f"{name} carries: {count} of {total} [{low:.0%}, {high:.0%}]")
    print(f"{time.process_time():.0f} CPU s")


if __name__ == "__main__":
    main()
