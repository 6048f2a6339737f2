"""Read a trained latent adapter, and see what it does to a model.

lorascope demo latent --quick --out runs/latent
python examples/latent_adapter.py runs/latent/adapters/preselected-s0 "What is 7 plus 5?"
"""

import sys

import lorascope as ls
from lorascope.behaviours.generation import answers
from lorascope.behaviours.records import Turn
from lorascope.behaviours.turns import prompt_ids

folder, question = sys.argv[1], sys.argv[2]

adapter = ls.LatentAdapter.from_pretrained(folder)
card = adapter.card
reads, writes = adapter.support()
print(f"{card.model} at {card.site}: reads {len(reads)} and writes {len(writes)} latents")
for pair in adapter.pairs(5):
    print(f"  latent {pair.read} → latent {pair.written}: {pair.weight:+.3f}")

model = ls.load(card.model, {"latent": folder})
prompt = prompt_ids((Turn(role="user", content=question),), model.tokenizer)
for variant in model.variants:
    with model.variant(variant) as module:
        print(f"{variant}: {answers(module, model.tokenizer, [prompt])[0]}")
