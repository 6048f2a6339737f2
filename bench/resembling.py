"""Is an adapter's nearest neighbour one that was taught the same from another seed?

    python bench/resembling.py [--folder runs/auditing] [--seeds 3] [--steps 40]

The planted set of `auditing.py`: adapters of the embedded model, taught one lesson each by several
seeds, which decide the records and the start. Printed for every measure of `lorascope compare`:
how often the nearest neighbour was taught the same, and the mean similarity of pairs taught the
same and taught otherwise, beside null adapters. Adapters stay in the folder and are used again.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from pathlib import Path

from auditing import RECORDS, share, train
from lessons import LABELS, lesson

from lorascope.resembling import page
from lorascope.resembling.resemble import MEASURES, Resemblance, other, resemble


def taught(folder: Path, seeds: int, steps: int) -> list[Path]:
    """The folder of every adapter, trained unless it is there."""
    found = []
    for seed, label in itertools.product(range(seeds), LABELS):
        path = folder / f"{label}-{seed}".replace(" ", "-")
        found.append(train(label, lesson(label, RECORDS, seed), path, steps, seed))
    return found


def report(found: Resemblance) -> None:
    """One line a measure."""
    for measure in MEASURES:
        right, wrong = 0, []
        for name in found.names:
            nearest = other(found.neighbours(name, measure)[0], name)
            right += lesson_of(name) == lesson_of(nearest)
            if lesson_of(name) != lesson_of(nearest):
                wrong.append(f"{name}→{nearest}")
        alike, apart = [], []
        for one in found.estimates.select(measure):
            same = lesson_of(one.key.adapter) == lesson_of(one.key.compared)
            (alike if same else apart).append(one)
        above = [sum(e.verdict == "above" for e in part) for part in (alike, apart)]
        chance = [e.chance for e in found.estimates.select(measure)]
        print(
            f"{measure:18}{share(right, len(found.names))}  taught the same "
            f"{mean([e.value for e in alike]):.3f} ({above[0]}/{len(alike)} above), otherwise "
            f"{mean([e.value for e in apart]):.3f} ({above[1]}/{len(apart)}), null adapters "
            f"{mean(chance):.4f}  {', '.join(wrong)}"
        )


def lesson_of(name: str) -> str:
    """A folder's name without its seed."""
    return name.rpartition("-")[0]


def mean(values: list[float]) -> float:
    """nan of none."""
    return math.fsum(values) / len(values) if values else math.nan


def main() -> None:
    """Train, compare, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/auditing"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    given = parser.parse_args()
    paths = taught(given.folder, given.seeds, given.steps)
    begun = time.process_time()
    found = resemble([str(path) for path in paths], "embedded")
    report(found)
    print(
        f"{time.process_time() - begun:.0f} CPU s of comparing; {page.write(found, given.folder)}"
    )


if __name__ == "__main__":
    main()
