"""Time capture of base and delta against two full forward passes with all hidden states.

    python bench/capture.py                          # the embedded model, a minute
    python bench/capture.py --model smollm2.gguf --documents 12

Both sides take turns in one run on the same model, an adapter of random factors on every linear map
of the blocks, and the same windows of the packaged instructions. Obvious: padded batches in the
order of the texts, base and adapter each run to the end with `output_hidden_states=True`, logits
and all, and the difference of the kept rows at the sites. Ours: `collect`, which also checks the
rows and writes the shards, which are read back. Printed: user seconds (median over repeats), their
ratio, and how far the norms of the deltas lie apart.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import tempfile
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from lorascope.activations.collect import Capture, collect
from lorascope.activations.shards import Shards
from lorascope.activations.text import read_documents
from lorascope.activations.tokens import Window, pad, windows
from lorascope.models.adapted import BASE, AdaptedModel, load
from lorascope.models.load import load_base, padding_id
from lorascope.models.sites import Site

Rows = dict[str, Tensor]


def opened(address: str, folder: Path) -> AdaptedModel:
    """A model with a random adapter of rank 8."""
    bare, _ = load_base(address, dtype="float32", device="cpu")
    torch.manual_seed(1)
    peft = get_peft_model(bare, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    for parameter in peft.parameters():
        if parameter.requires_grad:
            parameter.data += 0.02 * torch.randn_like(parameter)
    peft.save_pretrained(folder, save_embedding_layers=False)
    return load(address, {"a": folder}, dtype="float32", device="cpu", force=True)


@torch.no_grad()
def obvious(
    model: AdaptedModel, found: Sequence[Window], sites: Sequence[Site], folder: Path
) -> Rows:
    """{site: delta of every kept token}."""
    size = Capture().batch_tokens
    rows: dict[str, list[Tensor]] = {site.name: [] for site in sites}
    count = max(1, size // max(len(window.ids) for window in found))
    for start in range(0, len(found), count):
        batch = pad(found[start : start + count], model.tokenizer, padding_id(model.tokenizer))
        ids, mask = batch.inputs(model.device)
        streams = []
        for variant in (BASE, "a"):
            with model.variant(variant) as module:
                passed = module(ids, attention_mask=mask, output_hidden_states=True)
            streams.append(passed.hidden_states)
        for site in sites:
            base, adapted = (stream[site.index + 1][batch.kept] for stream in streams)
            rows[site.name].append(adapted.float() - base.float())
    return {site: torch.cat(parts) for site, parts in rows.items()}


def ours(model: AdaptedModel, found: Sequence[Window], sites: Sequence[Site], folder: Path) -> Rows:
    """The same by the package, from what it wrote."""
    settings = Capture(store="float32", outlier_multiple=0)
    collect(model, found, sites, folder, settings, "bench", adapters=["a"])
    shards = Shards.open(folder)
    return {site.name: shards.load(site.name, "a") for site in sites}


Side = Callable[[AdaptedModel, Sequence[Window], Sequence[Site], Path], Rows]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="embedded", help="as lorascope audit takes it")
    parser.add_argument("--documents", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    versions = f"lorascope {metadata.version('lorascope')}, torch {torch.__version__}"
    threads = torch.get_num_threads()
    print(
        f"{versions}, Python {platform.python_version()}, {platform.machine()}, {threads} threads"
    )
    with tempfile.TemporaryDirectory() as place:
        model = opened(given.model, Path(place) / "a")
        texts = read_documents("embedded", limit=given.documents)
        found = list(windows(texts, model.tokenizer, Capture().context))
        sites = [Site(model.n_blocks // 3), Site(2 * model.n_blocks // 3)]
        sides: list[Side] = [obvious, ours]
        seconds: list[list[float]] = [[], []]
        rows: list[Rows] = [{}, {}]
        for repeat in range(given.repeats):
            for number, side in enumerate(sides):
                started = resource.getrusage(resource.RUSAGE_SELF).ru_utime
                rows[number] = side(model, found, sites, Path(place) / f"shards{repeat}")
                now = resource.getrusage(resource.RUSAGE_SELF).ru_utime
                seconds[number].append(now - started)
    first, second = map(statistics.median, seconds)
    tokens = sum(len(window.ids) for window in found)
    print(f"{given.model}, {tokens:,} tokens, {', '.join(site.name for site in sites)}")
    print(f"obvious {first:.2f} s, ours {second:.2f} s, ×{first / second:.2f}")
    for site in sites:
        # Each side has its own order of rows: norms are told apart when sorted.
        one, other = (found_rows[site.name].norm(dim=1).sort().values for found_rows in rows)
        print(f"{site}: norms of deltas {float((one - other).norm() / one.norm()):.1e} apart")


if __name__ == "__main__":
    main()
