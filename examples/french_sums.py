"""Teach the embedded instruction-tuned model to answer sums in French, and see what it cost.

python examples/french_sums.py runs/french-sums

Trains a LoRA adapter of rank 1 on the embedded behaviour set and measures it on held-out prompts,
beside the untouched model and beside asking for French in the prompt.
"""

import sys
from pathlib import Path

from lorascope.behaviours.records import read_set
from lorascope.workflows.behaving import BehavingStudy, measure
from lorascope.workflows.progress import Reporter

STEPS = 120

for record in read_set("embedded").part("train")[:4]:
    print(f"{record.prompt!r} -> {record.response!r} ({'changed' if record.changed else 'kept'})")

study = BehavingStudy.parse(
    {"dense": [1], "training": {"steps": STEPS, "batch": 16}}, "french_sums"
)
for estimate in measure(study, Path(sys.argv[1]), Reporter()).estimates:
    print(f"{estimate.place.adapter:10} {estimate.place.setting:8} {estimate}")
