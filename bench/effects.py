"""Time interventions on single latents and splices against one pass of the whole batch for each.

    python bench/effects.py            # the embedded model, and one of a large vocabulary; minutes
    python bench/effects.py --quick    # the embedded model, few latents

Both sides take turns in one run on the same model, windows and dictionary. Windows are the embedded
instructions, cut as effects cut them; their prompts are long and a dozen tokens each are scored.
Latents are random directions that fire on 3.5 % of tokens. Obvious: one pass of the padded batch
for each change, begun at the site, with the logits of all positions between the first and the last
scored one, matched latents' windows side by side; nothing but KL is taken. Ours: the package's
sweep and splice, with all they take. Printed: processor seconds (seconds on a GPU; median over
repeats), their ratio, and how far the KL of all changes lies apart, of their norm.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, Gemma2Config

from lorascope.activations.text import read_documents
from lorascope.activations.tokens import windows
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.embedded import model_path
from lorascope.geometry.chance import isotropic, norm_matched
from lorascope.measures import recovery
from lorascope.measures.matched_latents import ALTERNATIVES, Matching, most_alike, some_windows
from lorascope.measures.removals import sweep
from lorascope.measures.single_latents import Effects
from lorascope.measures.spots import MODES, Spot, read_spots, signed
from lorascope.measures.surveys import Survey, survey
from lorascope.models.adapted import AdaptedModel, load
from lorascope.models.interventions import record, resuming
from lorascope.models.sites import parse_site
from lorascope.outputs.scoring import divergence
from lorascope.randomness import generator

TOKENS, WINDOWS, DRAWS = 512, 3, 5


@dataclass(frozen=True)
class Task:
    """A model with an adapter, where it is looked at, and how many latents are."""

    name: str
    model: AdaptedModel
    site: str
    latents: int
    found: Survey
    dictionary: ReluDictionary

    @property
    def spots(self) -> list[Spot]:
        """What the latents write."""
        site = parse_site(self.site)
        return list(read_spots(self.model, self.found, site, self.dictionary, TOKENS))


def large(folder: Path) -> Path:
    """A random model of Gemma 2's shape under a vocabulary of 32,000, with the same tokenizer."""
    config = Gemma2Config(
        vocab_size=32_000,
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=12,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    # Logits of a few nats instead of the near-zero ones of fresh weights.
    model.get_input_embeddings().weight.data.normal_(std=0.1)
    model.save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).write_bytes((model_path() / file).read_bytes())
    return folder


def task(name: str, base: Path, site: str, latents: int, device: str, folder: Path) -> Task:
    """A random adapter of rank 8 on all blocks, and a dictionary that fires on its deltas."""
    torch.manual_seed(1)
    bare = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    peft = get_peft_model(bare, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    for parameter in peft.parameters():
        if parameter.requires_grad:
            parameter.data += 0.02 * torch.randn_like(parameter)
    peft.save_pretrained(folder, save_embedding_layers=False)
    model = load(str(base), {"a": folder}, dtype="float32", device=device, force=True)
    texts = read_documents("embedded", limit=20)
    found = survey(model, "a", windows(texts, model.tokenizer, 256), [site], most=TOKENS)
    random = generator(0, "directions")
    directions = isotropic(256, model.d_model, random)
    deltas = found.pool[parse_site(site)][0].float()
    bias = -(deltas @ directions.T).quantile(0.965, dim=0)
    dictionary = ReluDictionary(directions.T, bias, directions, torch.zeros(model.d_model))
    return Task(name, model, site, latents, found, dictionary.to(device))


def obvious_removals(given: Task) -> Tensor:
    """KL of each named latent's changes, then of all that are looked at in a few windows."""
    named, spots = torch.arange(given.latents), given.spots
    strengths = torch.cat([spot.strengths.cpu() for spot in spots])
    others = most_alike(strengths, named, ALTERNATIVES)
    needed = torch.cat([named, others[others >= 0].unique()])
    energies = torch.cat([spot.energies(needed) for spot in spots])
    chosen = some_windows(energies, WINDOWS, generator(0, "matched windows", given.site))
    kl = torch.zeros(2, len(MODES), len(needed), dtype=torch.float64)
    begun = 0
    for spot in spots:
        here, begun = chosen[begun : begun + len(spot.rows)], begun + len(spot.rows)
        for number in range(len(MODES)):
            _of_spot(given, spot, number, here, needed, kl)
    return torch.cat([kl[0, :, : given.latents].flatten(), kl[1].flatten()])


def _of_spot(
    given: Task, spot: Spot, number: int, chosen: Tensor, needed: Tensor, kl: Tensor
) -> None:
    mode, every = MODES[number], torch.arange(len(spot.rows))
    run = padded(given.model, spot.variants[mode], spot)
    before = run(spot.streams[mode], every)

    def added(stream: Tensor, latent: int, rows: Tensor, strengths: Tensor) -> Tensor:
        written = strengths[:, latent, None] * given.dictionary.directions[latent]
        changed = stream.clone()
        changed[rows] += signed(mode, written).to(stream)
        return changed

    for index in range(given.latents):
        latent = int(needed[index])
        if spot.strengths[:, latent].any():
            rows = spot.rows.to(given.model.device)
            after = run(added(spot.streams[mode], latent, rows, spot.strengths), every)
            kl[0, number, index] += divergence(before, after).double().sum().cpu()
    pairs = chosen.nonzero()
    owners = spot.where.predicting.nonzero()[:, 0]
    scored = int(spot.where.predicting.any(0).sum())
    most = min(8192 // spot.rows.shape[1], 2**25 // (scored * before.shape[1]))
    for part in pairs.split(max(1, most)):
        streams = []
        for window, at in part.tolist():
            rows = spot.rows[window].to(given.model.device)
            mine = (spot.window_of_row == window).to(spot.strengths.device)
            stream = spot.streams[mode][window]
            streams.append(added(stream, int(needed[at]), rows, spot.strengths[mine]))
        after = run(torch.stack(streams), part[:, 0])
        held = torch.cat([before[(owners == window).to(before.device)] for window in part[:, 0]])
        counts = [int((owners == window).sum()) for window in part[:, 0]]
        each = divergence(held, after).double().cpu().split(counts)
        kl[1, number].index_add_(0, part[:, 1], torch.stack([one.sum() for one in each]))


def padded(model: AdaptedModel, variant: str, spot: Spot) -> Callable[[Tensor, Tensor], Tensor]:
    """Runs windows of a spot's batch, padded, from the site on: log p of the scored tokens."""
    ids = spot.batch.ids.to(model.device)
    mask = spot.batch.attended.long().to(model.device)
    columns = spot.where.predicting.any(0).nonzero().squeeze(1)
    kept = torch.arange(int(columns[0]), int(columns[-1]) + 1, device=model.device)
    blocks = record(model, variant, [spot.site], ids[:1], mask[:1]).blocks

    def run(stream: Tensor, chosen: Tensor) -> Tensor:
        at = chosen.to(model.device)
        with model.variant(variant) as module, resuming(module, spot.site, stream, blocks):
            logits = module(
                input_ids=ids[at], attention_mask=mask[at], use_cache=False, logits_to_keep=kept
            ).logits
        scored = spot.where.predicting[chosen][:, kept.cpu()].to(model.device)
        return torch.log_softmax(logits[scored].float(), dim=-1)

    return run


def our_removals(given: Task) -> Tensor:
    """The same by the package's sweep, with gradients, losses and promoted tokens besides."""
    named, spots = torch.arange(given.latents), given.spots
    effects = Effects(given.model, spots, given.dictionary, named, others=())
    matching = Matching(spots, given.site, given.dictionary, named, windows=WINDOWS)
    sweep(given.model, spots, [effects, matching])
    tokens = sum(len(spot.where.targets) for spot in spots)
    kl = [effects.found().changes[mode].kl[:, 0] * tokens for mode in MODES]
    return torch.cat([*kl, *(matching.summed[mode] for mode in MODES)])


def obvious_splices(given: Task) -> Tensor:
    """KL of the adapted model from the base with the exact delta, and with each control's draws."""
    site, found = parse_site(given.site), []
    for number, spot in enumerate(given.spots):
        run, every = padded(given.model, "base", spot), torch.arange(len(spot.rows))
        adapted = padded(given.model, spot.variants["ablation"], spot)(
            spot.streams["ablation"], every
        )
        own, other = spot.streams["addition"], spot.streams["ablation"]
        rows = spot.rows.to(own.device)
        deltas = other[rows].float() - own[rows].float()
        owners = spot.batch.documents[spot.window_of_row]
        added = [torch.zeros_like(deltas)]
        for draw in range(DRAWS):
            random = generator(0, "norm-matched", site, draw, number)
            added.append(norm_matched(deltas, random))
        for draw in range(DRAWS):
            random = generator(0, "other documents", site, draw, number)
            pool = given.found.pool[site]
            added.append(recovery.of_other_documents(*pool, owners, random).to(own.device))
        streams = [torch.where(rows[..., None], other, own)]
        for rows_added in added:
            drawn = own.clone()
            drawn[rows] += rows_added.to(own)
            streams.append(drawn)
        found.append([divergence(adapted, run(s, every)).double().sum().cpu() for s in streams])
    return torch.tensor(found).sum(0)


def our_splices(given: Task) -> Tensor:
    """The same by the package's splice, with losses and greedy choices besides."""
    means = {given.site: torch.zeros(given.model.d_model)}
    spliced = recovery.splice(given.model, given.found, {}, {}, means, repeats=DRAWS)
    controls = spliced.controls[given.site].values()
    outcomes = [spliced.exact[given.site], *(one for draws in controls for one in draws)]
    return torch.stack([one.kl.sum() for one in outcomes])


Side = Callable[[Task], Tensor]
SIDES: dict[str, tuple[Side, Side]] = {
    "single and matched latents": (obvious_removals, our_removals),
    "splices": (obvious_splices, our_splices),
}


@torch.no_grad()
def take(side: Side, given: Task) -> tuple[float, Tensor]:
    """Seconds, and what was found."""
    if given.model.device.type == "cuda":
        torch.cuda.synchronize()
        started = time.perf_counter()
        found = side(given)
        torch.cuda.synchronize()
        return time.perf_counter() - started, found
    started = time.process_time()
    found = side(given)
    return time.process_time() - started, found


def compare(given: Task, repeats: int) -> None:
    """Prints one table."""
    print(f"  {given.name}, {given.site}, {given.latents} latents")
    print(f"  {'':28s} {'obvious':>8s} {'ours':>8s} {'ratio':>6s}  apart, of their norm")
    for part, sides in SIDES.items():
        seconds: tuple[list[float], list[float]] = ([], [])
        last: list[Tensor] = [torch.zeros(0)] * 2
        for _ in range(repeats):
            for number, side in enumerate(sides):
                taken, last[number] = take(side, given)
                seconds[number].append(taken)
        obvious, ours = map(statistics.median, seconds)
        apart = float((last[0] - last[1]).norm() / last[0].norm())
        print(
            f"  {part:28s} {obvious:8.2f} {ours:8.2f} {obvious / ours:6.2f}  {apart:.1e}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="the embedded model, few latents")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    device = arguments.device
    where = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
    versions = f"lorascope {metadata.version('lorascope')}, torch {torch.__version__}"
    threads = torch.get_num_threads()
    print(f"{versions}, Python {platform.python_version()}, {device} {where}, {threads} threads")
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder)
        latents = 2 if arguments.quick else 16
        shapes = [
            (
                "embedded",
                model_path(),
                ["layers.5"] if arguments.quick else ["layers.2", "layers.5"],
            )
        ]
        if not arguments.quick:
            shapes.append(("vocabulary of 32,000", large(given / "large"), ["layers.8"]))
        for name, base, sites in shapes:
            for site in sites:
                made = task(name, base, site, latents, device, given / f"{name}-{site}")
                compare(made, arguments.repeats)


if __name__ == "__main__":
    main()
