"""Fit a model around one dictionary by hand: train it, splice it, fit LoRA, open that in PEFT.

python examples/adapt_around_a_dictionary.py
"""

from pathlib import Path

from peft import PeftModel

from lorascope.activations.splits import split
from lorascope.activations.text import read_documents
from lorascope.activations.tokens import windows
from lorascope.fits.dictionary_training import train_streamed
from lorascope.fits.fitting import fit
from lorascope.fits.parts import Lora
from lorascope.fits.settings import Adapting
from lorascope.models.load import load_base
from lorascope.training.architectures import TopK
from lorascope.training.settings import Fitting

site = "layers.3"
model, tokenizer = load_base("embedded")
parts = split(read_documents("embedded", 200), held_out=0.1, seen=(), seed=0)
training, held_out = (windows(texts, tokenizer, 64) for texts in (parts.probe, parts.held_out))

dictionary, _ = train_streamed(
    model,
    tokenizer,
    site,
    training,
    TopK(n_latents=256, k=8),
    Fitting(batch=256),
    tokens=10_000,
    model="embedded",
)
fitted = fit(
    model,
    tokenizer,
    {site: dictionary},
    training,
    held_out,
    Path("around"),
    Adapting(lora=Lora(rank=8, blocks="all", rate=3e-3), tokens=3_000, batch=4),
    model="embedded",
    evaluations=0,
)
for condition, found in fitted.conditions.items():
    print(f"{condition:10} {found.mean_loss:.3f} nats/token, KL {found.mean_kl:.3f}")
print(f"share of the splice's cost recovered: {fitted.card.share_closed:.0%}")

peft = PeftModel.from_pretrained(model, "around")
print("an ordinary PEFT adapter of rank", peft.peft_config["default"].r)
