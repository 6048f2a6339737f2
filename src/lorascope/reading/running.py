"""Read an adapter: samples, phrases that come back, changed tokens, first deltas."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from torch import Tensor

from lorascope.activations.text import read_documents
from lorascope.activations.tokens import Window
from lorascope.behaviours.answerers import answerer
from lorascope.behaviours.asking import AnswerLog, Asker
from lorascope.errors import InputError, NoNullAdapter
from lorascope.models.adapted import BASE, AdaptedModel
from lorascope.models.adapter_config import require_ranks
from lorascope.models.null_adapters import add_null_adapters
from lorascope.models.sites import Site
from lorascope.models.truncation import largest_rank, truncated
from lorascope.reading.carriers import module_carriers
from lorascope.reading.changed import changed_tokens, first_tokens, first_zs
from lorascope.reading.decoding import Amplification, decode, texts
from lorascope.reading.judged import FEWEST_PROMPTS, n_requests, with_sentence
from lorascope.reading.numbers import first_estimates, passage_estimates, recurring_share
from lorascope.reading.passages import PassageSurvey, chosen_windows, passages
from lorascope.reading.phrases import Phrase, Texts, recurring, words_of
from lorascope.reading.prompts import Prompt, category_prompts, prompts_of, shipped_prompts
from lorascope.reading.result import Divergence, Read, Sample
from lorascope.reading.settings import Reading
from lorascope.reading.when import Acting, acts, null_occasions, occasions
from lorascope.stats.documents import ratio

# The texts that come with the package.
EMBEDDED = "embedded"


class ReadingProgress(Protocol):
    """Shows how far a reading is; `workflows.progress.Reporter` is one."""

    def bar(
        self, title: str, total: int, unit: str
    ) -> AbstractContextManager[Callable[[int], None]]:
        """A bar of so many units; yields the function that moves it."""


class Silence:
    """Shows nothing."""

    @contextmanager
    def bar(self, title: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """A bar that no one sees."""
        yield lambda count: None


def read(
    model: AdaptedModel,
    adapter: str,
    settings: Reading | None = None,
    progress: ReadingProgress | None = None,
    answers: Path | None = None,
) -> Read:
    """What the adapter learned, in words, beside null adapters of the same spectrum.

    Null adapters that the model has of the adapter already are the ones used; else as many as the
    settings say are put on the model and stay.

    Args:
        answers: file that keeps every request to the judge and its answer; what it holds is not
            asked again. By default they are not kept.

    Raises:
        InputError: no such adapter, texts or prompts that cannot be used, ranks of an adapter
            that has none, a judge that does not answer.

    Examples:
        >>> model = ls.load("embedded", {"mine": "runs/adapters/adapters/r2"})
        >>> short = ls.Reading(strengths=(0,), tokens=4, nulls=1, documents=4)
        >>> found = ls.read(model, "mine", short)
        >>> found.write("runs/read")
    """
    settings = settings or Reading()
    if settings.judge:
        answerer(settings.judge)
    found = read_unjudged(model, adapter, settings, progress)
    return judged(found, settings, progress, answers) if settings.judge else found


def read_unjudged(
    model: AdaptedModel,
    adapter: str,
    settings: Reading | None = None,
    progress: ReadingProgress | None = None,
) -> Read:
    """`read` without the judge that the settings may name, who is asked of what this returns.

    Raises:
        InputError: as `read`; too few prompts for the judge.
    """
    started = time.perf_counter()
    settings, progress = settings or Reading(), progress or Silence()
    _require_known(model, adapter, settings)
    prompts = prompts_for(model, settings)
    chosen = _windows(model, settings)
    if settings.judge and len(prompts) < FEWEST_PROMPTS:
        raise InputError(
            f"a judge needs prompts that it has not seen: give {FEWEST_PROMPTS} or more, "
            "or no judge"
        )
    nulls, cautions = _nulls(model, adapter, settings)
    samples, kl = _samples(model, adapter, nulls, prompts, settings, progress)
    found = Read(
        model=model.id,
        adapter=adapter,
        nulls=nulls,
        prompts=len(prompts),
        phrases=(),
        null_phrases=(),
        changed=(),
        n_changed=(0, 0),
        places=(),
        first=(),
        divergence=None,
        samples=tuple(samples),
        settings=settings.plain(),
        cautions=cautions,
    )
    found = _with_occasions(with_phrases(found, settings), prompts, kl, settings)
    if settings.documents:
        found = _with_passages(found, model, chosen, settings, progress)
    if settings.carriers and found.phrases:
        with progress.bar("who carries it", settings.tokens, "tokens of each") as advance:
            carried = module_carriers(model, found, prompts, settings, advance)
        found = replace(found, carriers=tuple(carried))
    return replace(found, seconds=round(time.perf_counter() - started, 1))


def _require_known(model: AdaptedModel, adapter: str, settings: Reading) -> None:
    """Refuse adapters that the model does not have, and the adapter as its own reference."""
    for name in (adapter, *settings.references):
        model.info(name)
    if adapter in settings.references:
        raise InputError(f'reference "{adapter}" is the adapter itself; give another one')
    if settings.ranks:
        require_ranks(adapter, largest_rank(model, adapter), settings.ranks)


def prompts_for(model: AdaptedModel, settings: Reading) -> list[Prompt]:
    """The user's own prompts, or those shipped."""
    tokenizer = model.tokenizer
    if settings.prompts:
        return prompts_of(settings.prompts, tokenizer, settings.kinds)
    found = {prompt.text: prompt for prompt in shipped_prompts(tokenizer)}
    for prompt in category_prompts(settings.categories, tokenizer):
        found.setdefault(prompt.text, prompt)
    return list(found.values())


def _nulls(
    model: AdaptedModel, adapter: str, settings: Reading
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The null adapters, and what has to be said about them."""
    nulls = model.nulls_of(adapter)[: settings.nulls]
    if not nulls and settings.nulls:
        try:
            nulls = add_null_adapters(model, adapter, settings.nulls, settings.seed)
        except NoNullAdapter as error:
            return (), (f"no null adapters, so phrases are held against the base alone: {error}",)
    if not nulls:
        return (), ("no null adapters were asked for: phrases are held against the base alone",)
    return nulls, ()


def _samples(
    model: AdaptedModel,
    adapter: str,
    nulls: Sequence[str],
    prompts: Sequence[Prompt],
    settings: Reading,
    progress: ReadingProgress,
) -> tuple[list[Sample], dict[str, Tensor]]:
    """Every continuation, and how far each variant is from the base at each prompt.

    Prompts are in order, within each the variants, ranks and strengths.
    """
    found: list[list[Sample]] = [[] for _ in prompts]
    amplified = [Amplification(f, a) for f in (adapter, *nulls) for a in settings.strengths]
    beside = [Amplification(BASE), *(Amplification(f, 0.0) for f in settings.references)]
    beside += [Amplification(f, a) for f in settings.references for a in settings.strengths if a]
    ranks: tuple[int | None, ...] = (None, *settings.ranks)
    steps = settings.tokens * len(ranks)
    acting = Acting([*beside, *amplified], len(prompts))
    with progress.bar(f"samples of {adapter}", steps, "tokens of each") as advance:
        for rank in ranks:
            conditions = amplified if rank is not None else [*beside, *amplified]
            cut = nullcontext() if rank is None else truncated(model, (adapter, *nulls), rank)
            with cut:
                watched = acting if rank is None else None
                ids = decode(model, prompts, conditions, settings, advance, watched)
            for own, prompt, row in zip(found, prompts, texts(model, ids), strict=True):
                own += [
                    Sample(prompt.text, c.variant, rank, c.strength, text)
                    for c, text in zip(conditions, row, strict=True)
                ]
    return [sample for row in found for sample in row], acting.kl


def _with_occasions(
    found: Read, prompts: Sequence[Prompt], kl: Mapping[str, Tensor], settings: Reading
) -> Read:
    """The reading with how much the adapter acts on each prompt, and on which kinds."""
    voices = found.voices()
    said = {found.adapter: _said(voices.own, found.phrases)}
    for name, texts_of, phrases in zip(found.nulls, voices.nulls, found.null_phrases, strict=True):
        said[name] = _said(texts_of, phrases)
    every = acts(prompts, kl, found.adapter, found.nulls, said)
    return replace(
        found,
        acts=tuple(every),
        occasions=tuple(occasions(every, settings.level)),
        null_occasions=tuple(null_occasions(every, settings.level)),
    )


def judged(
    found: Read,
    settings: Reading,
    progress: ReadingProgress | None = None,
    answers: Path | None = None,
) -> Read:
    """A reading with what the judge that the settings name says of it, beside null adapters.

    Args:
        found: as `read` gives it.
        answers: file that keeps every request to the judge and its answer; what it holds is not
            asked again. By default they are not kept.

    Raises:
        InputError: no endpoint, or it does not answer.
    """
    judge, progress = answerer(settings.judge), progress or Silence()
    total = n_requests(found.prompts, len(found.nulls))
    with tempfile.TemporaryDirectory() as folder:
        asker = Asker(judge, AnswerLog(answers or Path(folder) / "answers.jsonl"))
        with progress.bar(f"judged by {settings.judge}", total, "answers") as advance:
            return with_sentence(found, asker, settings.judge, settings.seed, advance)


def with_phrases(found: Read, settings: Reading) -> Read:
    """The reading with what comes back in its samples, of the adapter and of each null adapter."""
    voices = found.voices()
    turned = (recurring(voices.exchanged(draw), settings) for draw in range(len(found.nulls)))
    return replace(
        found,
        phrases=tuple(recurring(voices, settings)),
        null_phrases=tuple(map(tuple, turned)),
        estimates=(recurring_share(voices, found.adapter, settings),),
    )


def _said(voice: Texts, phrases: Sequence[Phrase]) -> list[float]:
    """Of each prompt, the share of continuations that hold one of the phrases."""
    wanted, shares = [f" {phrase.text} " for phrase in phrases], []
    for row in voice:
        joined = [f" {' '.join(words_of(text))} " for text in row]
        shares.append(sum(any(p in text for p in wanted) for text in joined) / len(joined))
    return shares


def _windows(model: AdaptedModel, settings: Reading) -> list[Window]:
    """The ordinary text that is read; none where the settings leave it out."""
    if not settings.documents:
        return []
    documents = read_documents(settings.texts or (EMBEDDED,))
    return chosen_windows(documents, model, settings.documents, settings.context)


def _with_passages(
    found: Read,
    model: AdaptedModel,
    chosen: Sequence[Window],
    settings: Reading,
    progress: ReadingProgress,
) -> Read:
    """The reading with what happens on ordinary text."""
    variants = (found.adapter, *found.nulls)
    last = model.n_blocks - 1
    sites = sorted({Site(last // 2), Site(last)})
    with progress.bar("ordinary text", len(chosen), "texts") as advance:
        passed = passages(
            model, chosen, variants, sites, settings.positions, settings.listed, advance
        )
    if not passed.tokens.sum():
        caution = "the texts hold no token to score, so nothing is said of ordinary text"
        return replace(found, cautions=(*found.cautions, caution))
    changed = changed_tokens(passed, found.adapter, found.nulls, model.tokenizer, settings)
    zs = first_zs(model, passed, found.adapter, found.nulls, settings)
    gains, losses = ([c for c in changed if c.change * side > 0] for side in (1, -1))
    return replace(
        found,
        changed=(*gains[: settings.listed], *losses[: settings.listed]),
        n_changed=(len(gains), len(losses)),
        places=passed.places,
        first=tuple(first_tokens(model, passed, found.adapter, found.nulls, settings, zs)),
        divergence=_divergence(passed, found.adapter, found.nulls),
        estimates=(
            *found.estimates,
            *passage_estimates(passed, found.adapter, found.nulls),
            *first_estimates(passed, found.adapter, found.nulls, zs),
        ),
    )


def _divergence(passed: PassageSurvey, adapter: str, nulls: Sequence[str]) -> Divergence:
    tokens = passed.tokens.double()
    value, interval = ratio(passed.variants[adapter].kl.double(), tokens)
    total = float(tokens.sum())
    beside = tuple(float(passed.variants[name].kl.double().sum()) / total for name in nulls)
    return Divergence(value, interval, beside, int(total))
