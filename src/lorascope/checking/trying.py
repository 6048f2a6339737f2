"""What an adapter does to its base model on a handful of texts, beside null adapters."""

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
from lorascope.checking.effect import KL, LOSS, AtScale, Effect
from lorascope.checking.findings import Finding
from lorascope.checking.settings import CheckSettings
from lorascope.errors import InputError, NoNullAdapter
from lorascope.latent_adapters.loading import attached
from lorascope.models.adapted import BASE, AdaptedModel
from lorascope.models.adapter_config import LORA
from lorascope.models.load import load_base, padding_id
from lorascope.models.null_adapters import add_null_adapters
from lorascope.models.prepared import prepare
from lorascope.models.sanity_checks import base_logits, verify_base_unchanged, verify_live
from lorascope.models.tuned_copies import share
from lorascope.models.updates import lora_layers
from lorascope.outputs.scoring import Scored, divergence, scored
from lorascope.progress import Reporter
from lorascope.results import ADAPTER, Estimate, Key, Null
from lorascope.results.null_names import BASE_MODEL
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
        self.base = where.log_probabilities(self._cut(self.base_logits))

    @torch.no_grad()
    def logits(self, model: AdaptedModel) -> Tensor:
        """Of every position under the variant that is shown."""
        ids = self.batch.ids.to(self._device)
        mask = self.batch.attended.long().to(self._device)
        found: Tensor = model.module(input_ids=ids, attention_mask=mask, use_cache=False).logits
        return found[..., : model.vocab_size]

    def sums(self, logits: Tensor) -> _DocumentSums:
        """Of a variant's logits."""
        log_p = self.where.log_probabilities(self._cut(logits))
        return _DocumentSums(
            self._by_document(divergence(log_p, self.base)),
            self._by_document(self.where.losses(log_p) - self.where.losses(self.base)),
        )

    def mean(self, sums: Tensor) -> float:
        """Over tokens, documents weighted as in the estimate."""
        return ratio(sums, self.counts)[0]

    def _by_document(self, values: Tensor) -> Tensor:
        found = torch.zeros(len(self.counts), dtype=torch.float64)
        return found.index_add_(0, self.index, values.double().cpu())

    def _cut(self, logits: Tensor) -> Tensor:
        return logits[self.where.wanted.to(logits.device)]


def try_on(name: str, folder: Path, settings: CheckSettings, reporter: Reporter) -> Effect:
    """Put an adapter on its base and try it.

    Args:
        name: of the adapter.
        settings: `model` is given.

    Raises:
        InputError: the model cannot be loaded, or the adapter does not fit it.
    """
    model, before = _load(name, folder, settings)
    texts = _TriedTexts(model, settings)
    found = Effect(documents=len(texts.counts), tokens=len(texts.index))
    ids, mask = texts.batch.inputs(model.device)
    try:
        verify_live(model, name, ids, mask)
        found.live = True
    except InputError as error:
        found.findings.append(Finding("not-live", "error", str(error)))
    steps = settings.draws + len(SCALES) + 3
    with reporter.bar("model", steps, "passes") as advance:
        with model.variant(name):
            value = texts.sums(texts.logits(model))
        advance(1)
        draws = list(_nulls(model, name, settings, texts, found, advance))
        found.estimates = _estimates(name, texts, value, draws)
        if model.info(name).kind == LORA:
            for factor in SCALES:
                with model.variant(name), _scaled(model, name, factor):
                    sums = texts.sums(texts.logits(model))
                found.curve.append(AtScale(factor, texts.mean(sums.kl), texts.mean(sums.loss)))
                advance(1)
            found.merged = _merged_difference(model, name, texts, found)
        advance(1)
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


def _nulls(
    model: AdaptedModel,
    name: str,
    settings: CheckSettings,
    texts: _TriedTexts,
    found: Effect,
    advance: object,
) -> Iterator[_DocumentSums]:
    """Every null adapter's sums; none where no random adapter matches this one."""
    try:
        nulls = add_null_adapters(model, name, settings.draws, settings.seed)
    except NoNullAdapter as error:
        found.findings.append(Finding("not-measured", "warning", f"no null adapters: {error}"))
        return
    for null in nulls:
        with model.variant(null):
            yield texts.sums(texts.logits(model))
        assert callable(advance)
        advance(1)


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


@torch.no_grad()
def _merged_difference(
    model: AdaptedModel, name: str, texts: _TriedTexts, found: Effect
) -> float | None:
    """Merge with PEFT's own code into copies of the weights, and put the weights back as they were.

    Every base layer gets a copy for as long as it is merged, so that nothing is rounded back.
    """
    peft_name, kept, merged = model.peft_name(name), [], []
    with model.variant(name):
        unmerged = texts.logits(model)
        layers = [m for _, m in lora_layers(model) if peft_name in m.scaling]
        try:
            for layer in layers:
                held = layer.get_base_layer()
                for parameter in held.parameters():
                    kept.append((parameter, parameter.data))
                    parameter.data = parameter.data.clone()
                merged.append(layer)
                layer.merge(adapter_names=[peft_name])
            difference = float((texts.logits(model) - unmerged).abs().max())
        except (ValueError, RuntimeError, NotImplementedError, AttributeError) as error:
            reason = " ".join(str(error).split())[:160]
            message = f"PEFT does not merge this adapter: {reason}"
            found.findings.append(Finding("not-measured", "warning", message))
            difference = None
        finally:
            for layer in merged:
                if layer.merged:
                    layer.unmerge()
            for parameter, data in reversed(kept):
                parameter.data = data
    return difference


def _restored(model: AdaptedModel, before: Tensor, texts: _TriedTexts) -> bool:
    """Whether the base computes the same on the probe and on the texts, bit for bit."""
    try:
        verify_base_unchanged(model, before)
    except RuntimeError:
        return False
    with model.variant(BASE):
        return torch.equal(texts.logits(model), texts.base_logits)
