"""What an adapter does to its base model on a few texts, compared with null adapters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lorascope.activations.text import read_documents
from lorascope.activations.tokens import TokenBatch, Window, pad, windows
from lorascope.checking.chance import rank_p
from lorascope.checking.effect import KL, LOSS, ROUNDED, ROUNDINGS, AtScale, Effect, Rounded
from lorascope.checking.findings import Finding
from lorascope.checking.intruding import intruders
from lorascope.checking.merging import merged, refused, rounded
from lorascope.checking.settings import CheckSettings
from lorascope.checking.spectra import ModuleNumbers
from lorascope.errors import InputError, NoNullAdapter
from lorascope.latent_adapters.loading import attached
from lorascope.measures.weights import WeightSettings
from lorascope.models.adapted import BASE, AdaptedModel
from lorascope.models.adapter_config import LORA
from lorascope.models.load import load_base, padding_id
from lorascope.models.mixed import can_mix
from lorascope.models.null_adapters import null_adapters_in_turn
from lorascope.models.prepared import prepare
from lorascope.models.sanity_checks import base_logits, verify_base_unchanged, verify_live
from lorascope.models.tuned_copies import share
from lorascope.models.updates import lora_layers
from lorascope.outputs.scoring import Scored, divergence, parts_in_cache, scored, token_losses
from lorascope.progress import Advance, Reporter
from lorascope.results import ADAPTER, Estimate, Key, Null
from lorascope.results.null_names import BASE_MODEL, ROUNDED_BASE
from lorascope.stats.documents import ratio
from lorascope.stats.intervals import prediction_interval, within

SCALES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)


@dataclass(frozen=True)
class _DocumentSums:
    """By document: KL(variant ‖ base) and loss, summed over tokens."""

    kl: Tensor
    loss: Tensor


class _TriedTexts:
    """The texts as one batch, and the base's answers to them."""

    def __init__(self, model: AdaptedModel, settings: CheckSettings) -> None:
        documents = read_documents(settings.texts, settings.documents)
        found: dict[int, Window] = {}
        for window in windows(documents, model.tokenizer, settings.tokens):
            # One window a document: a second one would be no new text.
            found.setdefault(window.document, window)
        self.batch: TokenBatch = pad(
            list(found.values()), model.tokenizer, padding_id(model.tokenizer)
        )
        where = scored(self.batch, responses=False)
        if where is None:
            raise InputError("the texts hold no token to predict: give longer --texts")
        self.where: Scored = where
        self.numbers = {number: i for i, number in enumerate(found)}
        self.index = torch.tensor([self.numbers[int(i)] for i in where.documents])
        self.counts = torch.zeros(len(found), dtype=torch.float64)
        self.counts.index_add_(0, self.index, torch.ones(len(self.index), dtype=torch.float64))
        self._device = model.device
        with model.variant(BASE):
            self.base_logits = self.logits(model)
        self.base = self.log_probabilities(self.base_logits)
        self._base_losses = self.where.losses(self.base)

    @torch.no_grad()
    def logits(self, model: AdaptedModel) -> Tensor:
        """Of every position under the variant that is shown."""
        ids = self.batch.ids.to(self._device)
        mask = self.batch.attended.long().to(self._device)
        found: Tensor = model.module(input_ids=ids, attention_mask=mask, use_cache=False).logits
        return found[..., : model.vocab_size]

    def log_probabilities(self, logits: Tensor) -> Tensor:
        """Of every token that is predicted, [tokens, vocab]."""
        return torch.cat(list(self._parts(logits)))

    def divergence(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """KL(p ‖ q), summed over each document's tokens."""
        return self._by_document(divergence(log_p, log_q))

    def sums(self, logits: Tensor) -> _DocumentSums:
        """Of a variant's logits."""
        kl, losses, start = [], [], 0
        for log_p in self._parts(logits):
            rows = slice(start, start + len(log_p))
            kl.append(divergence(log_p, self.base[rows]))
            losses.append(token_losses(log_p, self.where.targets[rows]))
            start = rows.stop
        return _DocumentSums(
            self._by_document(torch.cat(kl)),
            self._by_document(torch.cat(losses) - self._base_losses),
        )

    def mean(self, sums: Tensor) -> float:
        """Over tokens, documents weighted as in the estimate."""
        return ratio(sums, self.counts)[0]

    def _by_document(self, values: Tensor) -> Tensor:
        found = torch.zeros(len(self.counts), dtype=torch.float64)
        return found.index_add_(0, self.index, values.double().cpu())

    def _parts(self, logits: Tensor) -> Iterator[Tensor]:
        """Log-probabilities of the predicted tokens, a few at a time, in order."""
        rows = logits.flatten(0, 1)
        places = self.where.wanted.flatten().nonzero().to(logits.device)
        several = parts_in_cache(places.expand(-1, logits.shape[-1]))
        for some in places.squeeze(1).tensor_split(several):
            yield self.where.log_probabilities(rows[some])


def try_on(
    name: str,
    folder: Path,
    modules: Sequence[ModuleNumbers],
    settings: CheckSettings,
    reporter: Reporter,
) -> Effect:
    """Put an adapter on its base and try it.

    Args:
        name: of the adapter.
        modules: of its files.
        settings: `model` is given.

    Raises:
        InputError: the model cannot be loaded, or the adapter does not fit it.
    """
    model, before = _load(name, folder, settings)
    texts = _TriedTexts(model, settings)
    found = Effect(documents=len(texts.counts), tokens=len(texts.index))
    plain = model.info(name).kind == LORA
    steps = settings.draws + len(SCALES) + 2 * len(ROUNDINGS) + settings.intruders + 3
    with reporter.bar("model", steps, "passes") as advance:
        with model.variant(name):
            adapted = texts.logits(model)
        _live(model, name, texts, adapted, found)
        value = texts.sums(adapted)
        advance(1)
        draws = list(_nulls(model, name, settings, texts, found, advance))
        found.estimates = _estimates(name, texts, value, draws)
        if plain:
            known = {1.0: value}
            if can_mix(model, [name]):
                # Without its updates the model is the base; other parts an adapter may have stay.
                known[0.0] = texts.sums(texts.base_logits)
            for factor in SCALES:
                sums = known[factor] if factor in known else _at(model, name, texts, factor)
                found.curve.append(AtScale(factor, texts.mean(sums.kl), texts.mean(sums.loss)))
                advance(1)
            _merge(model, name, texts, adapted, found, advance)
            weights = WeightSettings(repeats=settings.draws, seed=settings.seed)
            found.estimates += intruders(model, name, modules, settings.intruders, weights, advance)
        found.restored = _restored(model, before, texts)
        advance(1)
    if not found.restored:
        message = "with the adapter off the model no longer computes what it did before"
        found.findings.append(Finding("base-changed", "error", message))
    return found


def _load(name: str, folder: Path, settings: CheckSettings) -> tuple[AdaptedModel, Tensor]:
    """The model with the adapter on it, whether it is live or not; and the bare model's logits."""
    assert settings.model is not None
    ready = prepare(settings.model, {name: folder}, force=settings.force, opener=attached)
    base, tokenizer = load_base(settings.model)
    model = AdaptedModel(base, tokenizer, settings.model)
    before = base_logits(model)
    files = ready[0].files
    assert files is not None
    if files.info.kind == LORA:
        model.add_adapter(files)
    else:
        model.add_tuned(files, share(base), before)
    return model, before


def _live(
    model: AdaptedModel, name: str, texts: _TriedTexts, adapted: Tensor, found: Effect
) -> None:
    """Whether the adapter changes logits, or at least the stream."""
    found.live = not torch.equal(adapted, texts.base_logits)
    if found.live:
        return
    try:
        verify_live(model, name, *texts.batch.inputs(model.device))
        found.live = True
    except InputError as error:
        found.findings.append(Finding("not-live", "error", str(error)))


def _nulls(
    model: AdaptedModel,
    name: str,
    settings: CheckSettings,
    texts: _TriedTexts,
    found: Effect,
    advance: Advance,
) -> Iterator[_DocumentSums]:
    """Every null adapter's sums; none where no random adapter matches this one."""
    try:
        for null in null_adapters_in_turn(model, name, settings.draws, settings.seed):
            with model.variant(null):
                sums = texts.sums(texts.logits(model))
            advance(1)
            yield sums
    except NoNullAdapter as error:
        found.findings.append(Finding("not-measured", "warning", f"no null adapters: {error}"))


def _estimates(
    name: str, texts: _TriedTexts, value: _DocumentSums, draws: Sequence[_DocumentSums]
) -> list[Estimate]:
    """KL and loss beside the null adapters', and the adapter's rank among them."""
    found = []
    for measure, of in ((KL, lambda sums: sums.kl), (LOSS, lambda sums: sums.loss)):
        mean, interval = ratio(of(value), texts.counts)
        nulls = [Null.exact(BASE_MODEL, 0.0)]
        if draws:
            drawn = torch.tensor([texts.mean(of(one)) for one in draws], dtype=torch.float64)
            bounds = (0.0, math.inf) if measure == KL else (-math.inf, math.inf)
            low, high = within(prediction_interval(drawn.tolist()), *bounds)
            p = _rank(mean, drawn, two_sided=measure == LOSS)
            level = float(drawn.mean())
            nulls.insert(0, Null(ADAPTER, level, low, high, rival=True, p=p, draws=len(draws)))
        key = Key(adapter=name)
        n = len(texts.index)
        found.append(Estimate(measure, mean, interval, n, "nats/token", tuple(nulls), key))
    return found


def _rank(value: float, drawn: Tensor, two_sided: bool) -> float:
    """The share of draws at least as far out, the value itself among them."""
    up = rank_p(value, drawn.numpy())
    if not two_sided:
        return up
    return min(1.0, 2 * min(up, rank_p(-value, -drawn.numpy())))


def _at(model: AdaptedModel, name: str, texts: _TriedTexts, factor: float) -> _DocumentSums:
    with model.variant(name), _scaled(model, name, factor):
        return texts.sums(texts.logits(model))


@contextmanager
def _scaled(model: AdaptedModel, name: str, factor: float) -> Iterator[None]:
    """Within the `with`, every LoRA layer's scale times a factor."""
    peft_name = model.peft_name(name)
    kept = [(m, m.scaling[peft_name]) for _, m in lora_layers(model) if peft_name in m.scaling]
    for layer, scale in kept:
        layer.scaling[peft_name] = scale * factor
    try:
        yield
    finally:
        for layer, scale in kept:
            layer.scaling[peft_name] = scale


def _merge(
    model: AdaptedModel,
    name: str,
    texts: _TriedTexts,
    adapted: Tensor,
    found: Effect,
    advance: Advance,
) -> None:
    """Merged copies of the weights beside the adapter as it is, whole and rounded."""
    bases, rooms = {}, dict[str, Tensor]()
    for rounding in ROUNDINGS:
        with model.variant(BASE), rounded(model, rounding, rooms):
            bases[rounding] = texts.log_probabilities(texts.logits(model))
        advance(1)
    log_p = texts.log_probabilities(adapted)
    try:
        with model.variant(name), merged(model, name):
            found.merged = float((texts.logits(model) - adapted).abs().max())
            advance(1)
            for rounding, base in bases.items():
                with rounded(model, rounding, rooms):
                    stored = texts.log_probabilities(texts.logits(model))
                of_base = texts.divergence(base, texts.base)
                cost = texts.divergence(stored, log_p)
                found.estimates.append(_cost(name, rounding, texts, cost, of_base))
                kept = texts.mean(texts.divergence(stored, base))
                found.rounded.append(Rounded(rounding, kept))
                advance(1)
    except (ValueError, RuntimeError, NotImplementedError, AttributeError) as error:
        found.findings.append(refused(error))


def _cost(name: str, rounding: str, texts: _TriedTexts, cost: Tensor, of_base: Tensor) -> Estimate:
    """What rounding does to the merged model, beside what it does to the base on the same texts."""
    value, interval = ratio(cost, texts.counts)
    level, (low, high) = ratio(of_base, texts.counts)
    _, difference = ratio(cost - of_base, texts.counts)
    low, high = (level, level) if math.isnan(low) else (low, high)
    null = Null(ROUNDED_BASE, level, low, high, rival=True, difference=difference)
    n, key = len(texts.index), Key(adapter=name, setting=rounding)
    return Estimate(ROUNDED, value, interval, n, "nats/token", (null,), key)


def _restored(model: AdaptedModel, before: Tensor, texts: _TriedTexts) -> bool:
    """Whether the base computes the same on the probe and on the texts, bit for bit."""
    try:
        verify_base_unchanged(model, before)
    except RuntimeError:
        return False
    with model.variant(BASE):
        return torch.equal(texts.logits(model), texts.base_logits)
