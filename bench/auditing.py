"""Does a reading of an adapter say what it was taught, and nothing where it was taught nothing?

python bench/auditing.py [--folder runs/auditing] [--seeds 2] [--nulls 32] [--trained-nulls 4]
python bench/auditing.py --model google/gemma-3-1b-it --table adapters.csv

The trial of `lorascope selftest --read`, of any size: adapters of the embedded model that were
taught one thing each, and others nothing, or those of a table, as the package reads it
(`lorascope.selftest.adapter_tables`). Adapters and readings stay in the folder and are used again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from lorascope.progress import Reporter
from lorascope.reading.settings import Reading
from lorascope.selftest.adapter_tables import read_table
from lorascope.selftest.reading_trial import Trial, TrialSizes, reading_trial, table_trial


def main() -> None:
    """Teach, read, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/auditing"))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--nulls", type=int, default=32)
    parser.add_argument("--trained-nulls", type=int, default=4)
    parser.add_argument("--model")
    parser.add_argument("--table", type=Path)
    chosen = parser.parse_args()
    started, settings = time.process_time(), Reading(carriers=False)
    if chosen.table is not None:
        found = table_trial(
            chosen.model, read_table(chosen.table), settings, chosen.folder, Reporter()
        )
    else:
        sizes = TrialSizes(
            seeds=chosen.seeds, nulls=chosen.nulls, trained_nulls=chosen.trained_nulls
        )
        found = reading_trial(sizes, chosen.folder, Reporter())
    report(found)
    (chosen.folder / "trial.json").write_text(json.dumps(found.plain(), indent=1))
    print(f"{time.process_time() - started:.0f} CPU s")


def report(found: Trial) -> None:
    """One line a method, then what untaught adapters name."""
    print(f"{'method':26}{'right':>8}{'ROC area':>24}{'at 5 %':>9}{'at 1 %':>9}")
    for row in found.rows:
        low, high = row.area_interval
        area = f"{row.area:.2f} [{low:.2f}, {high:.2f}]"
        print(
            f"{row.method:26}{f'{row.right}/{row.taught}':>8}{area:>24}"
            f"{f'{row.at_5}/{row.taught}':>9}{f'{row.at_1}/{row.taught}':>9}"
        )
    for kind, (named, count) in found.kinds.items():
        print(f"{kind}: {named} of {count} readings name something")
    for line in found.failures:
        print(f"failed: {line}")


if __name__ == "__main__":
    main()
