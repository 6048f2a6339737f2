"""Look at one adapter by hand: deltas, a dictionary of them, its likeness to a base dictionary.

lorascope train-adapter --ranks 8 --out runs/adapters
python examples/audit_an_adapter.py runs/adapters/adapters/r8
"""

import sys

import lorascope as ls

adapter = sys.argv[1]
site = "layers.5"

model = ls.load("embedded", adapters={"mine": adapter})
texts = [f"The council met on day {n}, and {n * 7} letters were read." for n in range(200)]
deltas = ls.deltas(model, texts, sites=[site], adapter="mine")

architecture, fitting = ls.ReLU(n_latents=256, l1=0.15), ls.Fitting(epochs=10, batch=256)
first = ls.fit(architecture, deltas[site], fitting=fitting, seed=0)
second = ls.fit(architecture, deltas[site], fitting=fitting, seed=1)
print("two dictionaries of the same delta:", ls.max_cosine(first, second))

ls.save(first, "delta-dictionary")
again = ls.open_dictionary("delta-dictionary")
print("saved and opened:", again.n_latents, "latents of width", again.d_model)
