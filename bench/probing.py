"""Time sparse probing against SAEBench 0.6.0 on the same model, sets, rows and dictionary.

    python3 -m venv other && other/bin/pip install sae-bench==0.6.0
    python bench/probing.py --saebench other/bin/python [--repeats 3]

The embedded model, its ten labelled sets, and a dictionary trained here. SAEBench runs in its own
environment with everything opened; both sides take turns. Each takes for every set activations, the
best 1, 2 and 5 latents by mean difference, logistic regressions on them, on as many channels of the
stream and on the whole stream; without the random-decoder dictionary that ours reads beside.
SAEBench trains a probe a class, two a set, and one on all latents. Printed: processor seconds
(median), their ratio, and how far the accuracies lie apart.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from lorascope.activations.text import read_documents
from lorascope.activations.tokens import batches, windows
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.files import save
from lorascope.models.hooks import run_until
from lorascope.models.load import load_base, padding_id
from lorascope.models.sites import Site
from lorascope.studies.evaluate.labelled import Labelled, embedded_sets
from lorascope.studies.evaluate.probing import OWN, probe_sets
from lorascope.studies.evaluate.settings import Probing
from lorascope.studies.evaluate.subjects import OpenedSubject
from lorascope.training.architectures import TopK
from lorascope.training.dictionaries import fit
from lorascope.training.settings import Fitting

SITE = Site(3)
SETTINGS = Probing(k=(1, 2, 5), train=400, test=200)
_BATCH = 32


def stream_rows(module: Any, tokenizer: Any) -> torch.Tensor:
    """Rows of the stream at the site, of packaged records."""
    chosen = windows(read_documents("embedded")[:300], tokenizer, SETTINGS.context)
    rows = []
    with torch.no_grad():
        for batch in batches(chosen, tokenizer, padding_id(tokenizer), 4096):
            found = run_until(module, [SITE], batch.ids, batch.attended.long())
            rows.append(found[SITE][batch.kept].float())
    return torch.cat(rows)


def write(folder: Path, module: Any, tokenizer: Any, dictionary: Dictionary) -> None:
    """What SAEBench's side opens."""
    module.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    save(dictionary, folder / "dictionary")
    sets = {}
    for one in embedded_sets():
        parts = one.halves(SETTINGS.train, SETTINGS.test, 0)
        sets[one.name] = [_by_class(part) for part in parts]
    given = {
        "sets": sets,
        "k": list(SETTINGS.k),
        "context": SETTINGS.context,
        "batch": _BATCH,
        "layer": SITE.index,
        "hook": f"blocks.{SITE.index}.hook_resid_post",
    }
    (folder / "given.json").write_text(json.dumps(given), encoding="utf-8")


def _by_class(part: Labelled) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"0": [], "1": []}
    for text, label in zip(part.texts, part.labels, strict=True):
        found[str(label)].append(text)
    return found


def ours(subject: OpenedSubject) -> dict[str, Any]:
    """All sets once."""
    found, started = {}, time.process_time()
    sets = embedded_sets()
    taken = probe_sets(subject, SITE, sets, {}, SETTINGS, adapter=False)
    for one, (got, _) in zip(sets, taken, strict=True):
        found[one.name] = {str(k): got[OWN, k].accuracy for k in SETTINGS.k}
    return {"seconds": time.process_time() - started, "accuracy": found}


def main() -> None:
    """Take turns and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--saebench", type=Path, required=True, help="Python of its environment.")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    module, tokenizer = load_base("embedded", dtype="float32", device="cpu")
    rows = stream_rows(module, tokenizer)
    dictionary = fit(TopK(n_latents=1024, k=16), rows, fitting=Fitting(epochs=3, batch=512))
    subject = OpenedSubject(
        "bench", module, tokenizer, {SITE: dictionary}, special_ids=tuple(tokenizer.all_special_ids)
    )
    with tempfile.TemporaryDirectory() as place:
        write(Path(place), module, tokenizer, dictionary)
        script = Path(__file__).with_name("saebench_side.py")
        command = [chosen.saebench, script, place, str(chosen.threads)]
        # Its type checks know HookedTransformer alone, and cost time.
        environment = {**os.environ, "JAXTYPING_DISABLE": "1"}
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=place,
            env=environment,
        ) as peer:
            assert peer.stdin is not None
            assert peer.stdout is not None
            if peer.stdout.readline().strip() != "ready":
                raise SystemExit("probing: SAEBench's side did not start: see above")
            turns = []
            for _ in range(chosen.repeats):
                mine = ours(subject)
                peer.stdin.write("go\n")
                peer.stdin.flush()
                said = peer.stdout.readline()
                if not said:
                    raise SystemExit("probing: SAEBench's side ended: see above")
                turns.append((mine, json.loads(said)))
            peer.stdin.close()
    report(turns, chosen.threads)


def report(turns: list[tuple[dict[str, Any], dict[str, Any]]], threads: int) -> None:
    """Seconds, ratio, accuracies."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers"))
    print(f"{platform.machine()}, {threads} threads, {versions}")
    mine, theirs = ([turn[side]["seconds"] for turn in turns] for side in (0, 1))
    sets = len(turns[0][0]["accuracy"])
    rows = sets * (SETTINGS.train + SETTINGS.test)
    for name, seconds in (("lorascope", mine), ("SAEBench 0.6.0", theirs)):
        middle = statistics.median(seconds)
        print(f"{name:16} {middle:8.2f} s for {sets} sets, {rows / middle:8.0f} texts/s")
    ratios = [other / own for own, other in zip(mine, theirs, strict=True)]
    print(f"ratio {statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]")
    first = turns[0]
    gaps = [
        first[0]["accuracy"][name][k] - first[1]["accuracy"][name][k]
        for name in first[0]["accuracy"]
        for k in first[0]["accuracy"][name]
    ]
    largest, mean = max(map(abs, gaps)), statistics.fmean(gaps)
    print(f"accuracies of {len(gaps)} probes: {mean:+.3f} apart on average, at most {largest:.3f}")


if __name__ == "__main__":
    main()
