"""What each adapter learned, in words: a stage an adapter, and what the audit's page says of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from lorascope.activations.text import read_documents
from lorascope.config import digest
from lorascope.errors import InputError
from lorascope.reading.carried import Carrier, finite, read_carriers
from lorascope.reading.result import Read
from lorascope.reading.running import read
from lorascope.reading.settings import Reading
from lorascope.results import Estimate
from lorascope.stages import Stage, Work, stage
from lorascope.studies.audit.sections.carriers import carried_sentences
from lorascope.studies.audit.sections.reading import judged_sentences, sentences, write_page
from lorascope.studies.audit.state import SANITY_CHECKS, Audited
from lorascope.studies.audit.study import AuditStudy

READ = "read"
# Where a judge's answers are kept.
ANSWERS = "answers"
# Where `workflows.carrying` leaves what carries the phrases.
CARRIERS = "carriers"
# Phrases of an adapter that the audit's page lists.
_LISTED = 12


@stage(version=3, title="reading adapters")
def put_into_words(work: Work, *, adapter: str, settings: Reading, content: str) -> None:
    """Read one adapter beside its null adapters; tables, and a page of its own.

    Args:
        content: what identifies the texts.

    Raises:
        InputError: they have been replaced since the study was read.
    """
    if _content(settings) != content:
        raise InputError(
            f"{', '.join(settings.texts)}: changed since the study was read; run again"
        )
    state: Audited = work.state
    answers = state.folder / ANSWERS / f"read-{adapter}.jsonl"
    found = read(state.model, adapter, settings, work.reporter, answers)
    found.write(work.folder)
    write_page(found, work.folder)


def stages(state: Audited) -> Iterator[Stage]:
    """One stage an adapter, `read/<adapter>`, where the study asks for that."""
    if state.study.reading is None:
        return
    settings = settings_of(state.study)
    shared = {"settings": settings, "content": _content(settings)}
    for adapter in state.adapters:
        arguments = {"adapter": adapter, **shared}
        yield Stage(f"{READ}/{adapter}", put_into_words, arguments, (SANITY_CHECKS,))


def settings_of(study: AuditStudy) -> Reading:
    """How adapters are read: on the study's own texts where no others are named.

    Null adapters are the study's and no more: one put on the model here would be captured and
    measured by whatever stage this process makes next.
    """
    assert study.reading is not None
    texts = study.reading.texts or study.texts.measure_on or study.texts.sources
    nulls = min(study.reading.nulls, study.controls.null_adapters)
    return study.reading.model_copy(update={"texts": texts, "nulls": nulls})


def _content(settings: Reading) -> str:
    """What identifies the texts that a reading goes over; nothing where it goes over none."""
    documents = read_documents(settings.texts) if settings.documents else []
    return digest([document.identity for document in documents])


def facts_of(state: Audited) -> dict[str, dict[str, Any]]:
    """{adapter: what the page says of it}."""
    if state.study.reading is None:
        return {}
    return {
        name: _facts(
            Read.load(state.folder / READ / name), read_carriers(state.folder / CARRIERS / name)
        )
        for name in state.adapters
    }


def estimates_of(state: Audited) -> list[Estimate]:
    """Every reading's numbers, with the keys of the study's adapters."""
    if state.study.reading is None:
        return []
    return [
        replace(
            one, key=replace(state.variants.keys[name], site=one.key.site, setting=one.key.setting)
        )
        for name in state.adapters
        for one in Read.load(state.folder / READ / name).estimates
    ]


def _facts(found: Read, carriers: Sequence[Carrier]) -> dict[str, Any]:
    example = found.example
    return {
        "sentences": [*sentences(found), *carried_sentences(carriers)],
        "judged": judged_sentences(found),
        "names": [phrase.text for phrase in found.named],
        "phrases": [
            {
                "text": phrase.text,
                "prompts": phrase.prompts,
                "continuations": phrase.total,
                "nulls": list(phrase.nulls),
                "base": phrase.base,
                "q": phrase.q,
            }
            for phrase in found.phrases[:_LISTED]
        ],
        "carriers": [finite(asdict(one)) for one in (*carriers, *found.carriers)],
        "prompts": found.prompts,
        "null_phrases": [len(phrases) for phrases in found.null_phrases],
        "example": None
        if example is None
        else {
            "prompt": example.prompt,
            "base": example.base,
            "plain": example.plain,
            "amplified": example.amplified,
        },
        "cautions": list(found.cautions),
        "page": f"{READ}/{found.adapter}/index.html",
    }
