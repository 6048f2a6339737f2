"""Whether the audit finds what an adapter built by hand writes, names it, and can take it away.

1. Deltas are captured and a dictionary trained on them, as in an audit.
2. The latent that writes most is held against the planted direction and class.
3. What it writes is taken out of the adapted model, and given to the base alone.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lorascope.activations.batch import delta
from lorascope.activations.collect import collect
from lorascope.activations.settings import Capture
from lorascope.activations.shards import BASE, Shards
from lorascope.activations.tokens import Window
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.topk import TopKDictionary
from lorascope.measures.recovery import recovery_estimates, splice, spliced_rows
from lorascope.measures.single_latents import leading_latents
from lorascope.measures.surveys import Survey, survey
from lorascope.models.adapted import AdaptedModel
from lorascope.models.sites import parse_site
from lorascope.outputs.scoring import Outcome, batches_for_logits, run
from lorascope.planted.nothing import random_dictionary
from lorascope.randomness import generator
from lorascope.results import Estimate, Key
from lorascope.stats.documents import ratio
from lorascope.stats.intervals import UNKNOWN, Interval
from lorascope.training.architectures import TopK
from lorascope.training.dictionaries import fit
from lorascope.training.settings import Fitting

SITE = "layers.0"
NAMED = 10
_STEPS = 1600


@dataclass(frozen=True)
class Detected:
    """What was found of a planted adapter.

    Attributes:
        cosine: of the leading latent's direction with the planted one.
        precision, recall: of its firing, for the class, over held-out tokens.
        named: the tokens it fires on most strongly, each once.
        named_share: how many of these are of the class.
        removed_loss, removed_kl: share of the adapter's change of loss, and of KL, that is gone
            once what the latent writes is taken out of the adapted model; with intervals.
        added_kl: share of the KL that returns when the latent alone is given to the base.
    """

    cosine: float
    precision: float
    recall: float
    named: tuple[str, ...]
    named_share: float
    removed_loss: tuple[float, Interval] | None
    removed_kl: tuple[float, Interval]
    added_kl: tuple[float, Interval]

    def rows(self) -> list[tuple[str, float, Interval]]:
        """Every figure in words, its value and its interval."""
        measured = [
            ("loss restored by removing it", self.removed_loss),
            ("KL restored by removing it", self.removed_kl),
            ("KL recovered by adding it", self.added_kl),
        ]
        return [
            ("cosine with the planted direction", self.cosine, UNKNOWN),
            ("precision for the planted class", self.precision, UNKNOWN),
            ("recall of the planted class", self.recall, UNKNOWN),
            ("share of its strongest tokens in the class", self.named_share, UNKNOWN),
            *((words, *found) for words, found in measured if found is not None),
        ]

    def figures(self) -> list[tuple[str, float]]:
        """What must come near 1: everything but the loss, whose change may be small and of either
        sign."""
        return [(words, value) for words, value, _ in self.rows() if "loss" not in words]


def detect(
    model: AdaptedModel,
    adapter: str,
    direction: Float[Tensor, " d_model"],
    tokens: Collection[int],
    probe: Sequence[Window],
    held_out: Sequence[Window],
    folder: Path,
    *,
    most: int,
    seed: int = 0,
) -> Detected:
    """Train a dictionary on the adapter's deltas and look at the latent that writes most.

    Args:
        direction, tokens: what is planted.
        folder: for the captured rows.
        most: tokens on which outputs are compared.
    """
    rows, _ = _captured(model, adapter, probe, folder / "probe")
    found, ids = _captured(model, adapter, held_out, folder / "held-out")
    # From the rows' mean, the bias would write the direction everywhere and a latent undo it.
    architecture = TopK(n_latents=64, k=1, bias="median")
    fitting = Fitting(epochs=max(20, _STEPS * 256 / len(rows)), batch=256)
    learned = fit(architecture, rows, fitting=fitting, seed=seed)
    assert isinstance(learned, TopKDictionary)
    latent = int(leading_latents(learned, rows, 1)[0])
    own = learned.directions[latent]
    strengths = learned.encode(found)[:, latent]
    of_class, fires = torch.isin(ids, torch.tensor(sorted(tokens))), strengths > 0
    both = int((of_class & fires).sum())
    names = _names(ids, strengths)
    looked_at = survey(model, adapter, held_out, [SITE], most=most)
    loss, kl = removed(model, looked_at, SITE, learned, latent)
    return Detected(
        float(torch.cosine_similarity(own, direction, dim=0)),
        both / max(1, int(fires.sum())),
        both / max(1, int(of_class.sum())),
        tuple(model.tokenizer.decode([name]).strip() for name in names),
        sum(name in tokens for name in names) / len(names),
        loss,
        kl,
        _added(model, looked_at, learned, latent),
    )


def _captured(
    model: AdaptedModel, adapter: str, found: Sequence[Window], folder: Path
) -> tuple[Float[Tensor, "n d"], Int[Tensor, " n"]]:
    folder.mkdir(parents=True)
    settings = Capture(store="float32")
    collect(model, found, [parse_site(SITE)], folder, settings, "planted", adapters=[adapter])
    shards = Shards.open(folder)
    return shards.load(SITE, adapter), shards.tokens().token


def _names(ids: Int[Tensor, " n"], strengths: Float[Tensor, " n"]) -> list[int]:
    """The tokens on which a latent is strongest, each once, at most ten."""
    ordered = ids[strengths.argsort(descending=True)][: int((strengths > 0).sum())]
    return list(dict.fromkeys(ordered.tolist()))[:NAMED]


@torch.no_grad()
def removed(
    model: AdaptedModel, found: Survey, site: str, dictionary: Dictionary, latent: int
) -> tuple[tuple[float, Interval] | None, tuple[float, Interval]]:
    """Shares of the change of loss and of KL(base ‖ ·) that go when a latent's writing is removed.

    The loss is left out where the adapter's change of it may be nothing. Intervals: over
    documents.
    """
    where_at = parse_site(site)
    count = len(found.tokens)
    base_variant, adapted_variant, without = (Outcome.empty(count) for _ in range(3))
    for batch, where in batches_for_logits(model, found.windows, found.responses, found.settings):
        base = run(model, BASE, [where_at], batch, where)
        adapted = run(model, found.adapter, [where_at], batch, where)
        rows = spliced_rows(where, base.streams, found.limits)
        stream = adapted.streams[where_at].clone()
        rows = rows.to(stream.device)
        deltas = delta(stream[rows], base.streams[where_at][rows])
        codes = dictionary.encode(deltas)[:, latent, None]
        stream[rows] -= (codes * dictionary.directions[latent]).to(stream.dtype)
        reference = where.log_probabilities(base.logits)
        base_variant.add(where, reference, reference)
        adapted_variant.add(where, reference, where.log_probabilities(adapted.logits))
        after = where.log_probabilities(adapted.resume(where_at, stream))
        without.add(where, reference, after)
    kl = ratio(adapted_variant.kl - without.kl, adapted_variant.kl, found.tokens)
    change = adapted_variant.loss - base_variant.loss
    _, (low, high) = ratio(change, found.tokens)
    if low <= 0 <= high:
        return None, kl
    return ratio(adapted_variant.loss - without.loss, change, found.tokens), kl


def _added(
    model: AdaptedModel, found: Survey, dictionary: TopKDictionary, latent: int
) -> tuple[float, Interval]:
    """Recovery of KL by the one latent, all others silenced."""
    directions = torch.zeros_like(dictionary.directions)
    directions[latent] = dictionary.directions[latent]
    # What is read stays centred on the bias; only the bias itself is not written.
    bias = dictionary.encoder_bias - dictionary.decoder_bias @ dictionary.encoder
    nothing = torch.zeros(dictionary.d_model)
    alone = TopKDictionary(dictionary.encoder, bias, directions, nothing, dictionary.k)
    here = Key(found.adapter, site=SITE)
    spliced = splice(model, found, {here: alone}, {}, {SITE: nothing}, repeats=2)
    estimate = next(
        e
        for e in recovery_estimates(spliced, Key(found.adapter))
        if e.measure == "recovery.kl" and e.key == here
    )
    return estimate.value, estimate.interval


def random_recoveries(
    model: AdaptedModel,
    adapter: str,
    held_out: Sequence[Window],
    count: int,
    most: int,
    seed: int,
) -> list[list[Estimate]]:
    """Functional recovery by dictionaries of random directions, which know nothing of the deltas;
    one list a dictionary."""
    found = survey(model, adapter, held_out, [SITE], most=most)
    size = found.pool[parse_site(SITE)][0].norm(dim=1).mean().item()
    dictionaries = {}
    for draw in range(count):
        random = generator(seed, "random dictionary", draw)
        place = Key(adapter, site=SITE, seed=draw)
        dictionaries[place] = random_dictionary(model.d_model, 64, random, -0.05 * size)
    means = {SITE: torch.zeros(model.d_model)}
    spliced = splice(model, found, dictionaries, {}, means, seed=seed, repeats=2)
    by_draw: dict[int | None, list[Estimate]] = {draw: [] for draw in range(count)}
    for estimate in recovery_estimates(spliced, Key(adapter)):
        if estimate.key.seed is not None:
            by_draw[estimate.key.seed].append(estimate)
    return list(by_draw.values())
