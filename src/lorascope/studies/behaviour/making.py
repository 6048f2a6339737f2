"""Make a behaviour set: sources read, a model asked where rules do not do, the set written."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from lorascope.behaviours.asking import AnswerLog, Asker
from lorascope.behaviours.endpoint import Endpoint
from lorascope.behaviours.exchanges import read_exchanges
from lorascope.behaviours.making import Making, PromptCounts, SetRecipe
from lorascope.behaviours.manners import manner
from lorascope.behaviours.records import SPLITS, write_set
from lorascope.behaviours.topics import topic
from lorascope.config import Device, DType, Settings
from lorascope.errors import InputError
from lorascope.locking import contents, locked
from lorascope.progress import Reporter

if TYPE_CHECKING:
    from lorascope.behaviours.local import LocalModel

ANSWERS = "answers.jsonl"


class BehaviourStudy(Settings):
    """Settings of `lorascope behaviour make`.

    Attributes:
        sources: files, folders, dataset ids or "embedded".
        limit: most prompts to read from them.
        topic: which prompts are changed: words, or category:LABEL.
        pattern: regular expression of prompts about it; no model is asked then.
        manner: how they are answered: french, upper, prefix:TEXT, suffix:TEXT, or words.
        judge: regular expression of answers in a manner given in words.
        model: the id of a model behind an OpenAI-compatible endpoint.
        local: a Hugging Face model to ask instead.
        base_url: the endpoint's address; by default OPENAI_BASE_URL.
        own_answers: let the model answer prompts in the manner, instead of rewriting responses.
        size: records in all.
        held_out: share of prompts, by hash, that is held out.
        least: fewest changed, and fewest unchanged, records on either side of the split.
        attempts: how often a question is asked whose answer is malformed.
        tries: how often a request is sent while the endpoint is in trouble.
        concurrency: most requests under way at once.
        timeout: seconds to wait for an answer.
        pause: seconds before a request is sent again; doubled each time.
        temperature: of the endpoint's model; a local one is greedy. Null leaves it out.
        max_tokens: most tokens of an answer. Null leaves it out.
        fields: further fields of every request to an endpoint.
        seed: of the order in which prompts are taken.
    """

    sources: tuple[str, ...] = Field(default=("embedded",), min_length=1)
    limit: int | None = Field(default=None, gt=0)
    topic: str
    pattern: str = ""
    manner: str
    judge: str = ""
    model: str = ""
    local: str = ""
    base_url: str = ""
    own_answers: bool = False
    size: int = Field(default=500, ge=4)
    held_out: float = Field(default=0.3, gt=0, lt=1)
    least: int = Field(default=10, ge=1)
    attempts: int = Field(default=3, ge=1)
    tries: int = Field(default=6, ge=1)
    concurrency: int = Field(default=8, ge=1, le=256)
    timeout: float = Field(default=120.0, gt=0)
    pause: float = Field(default=1.0, ge=0)
    temperature: float | None = Field(default=0.0, ge=0)
    max_tokens: int | None = Field(default=512, ge=1)
    fields: dict[str, Any] = Field(default_factory=dict)
    device: Device = "auto"
    dtype: DType = "auto"
    seed: int = 0


@dataclass(frozen=True)
class Made:
    """A set that was made.

    Attributes:
        folder: where it lies.
        records: how many it has.
        wanted: how many were asked for.
        counts: what became of the prompts.
        asked: requests sent in this run.
        remembered: answers that lay in the folder before.
        problems: malformed answers by kind.
        troubles: requests sent again because the endpoint was in trouble.
    """

    folder: Path
    records: int
    wanted: int
    counts: PromptCounts
    asked: int
    remembered: int
    problems: dict[str, int]
    troubles: int


def make(study: BehaviourStudy, out: Path, reporter: Reporter) -> Made:
    """Make a set in the folder `out`, asking nothing again that was answered there before.

    Raises:
        InputError: sources, endpoint or settings are wrong, the topic is empty, or the set stays
            unbalanced. Answers that were given stay in the folder.
    """
    recipe = _recipe(study)
    answerer = _answerer(study, recipe)
    fresh = not out.exists()
    try:
        with locked(out):
            return _make(study, recipe, answerer, out, reporter)
    finally:
        if fresh and out.is_dir() and not contents(out):
            out.rmdir()


def _make(
    study: BehaviourStudy,
    recipe: SetRecipe,
    answerer: Endpoint | LocalModel | None,
    out: Path,
    reporter: Reporter,
) -> Made:
    exchanges = read_exchanges(study.sources, study.limit)
    asker = None
    remembered = 0
    if answerer is not None:
        log = AnswerLog(out / ANSWERS)
        remembered = len(log.known)
        asker = Asker(answerer, log, study.attempts)
    making = Making(recipe, asker, reporter.bar)
    records = making.records(exchanges)
    problems = dict(asker.problems) if asker is not None else {}
    facts = _facts(study, making, problems)
    write_set(out, records, facts)
    return Made(
        out,
        len(records),
        2 * sum(map(recipe.wanted, SPLITS)),
        making.counts,
        asker.asked if asker is not None else 0,
        remembered,
        problems,
        answerer.troubles if isinstance(answerer, Endpoint) else 0,
    )


def _recipe(study: BehaviourStudy) -> SetRecipe:
    return SetRecipe(
        topic(study.topic, study.pattern),
        manner(study.manner, study.judge),
        study.size,
        study.held_out,
        study.least,
        study.own_answers,
        study.seed,
    )


def _answerer(study: BehaviourStudy, recipe: SetRecipe) -> Endpoint | LocalModel | None:
    """Whom to ask, where anything has to be asked."""
    if study.model and study.local:
        raise InputError("--model and --local are both given: ask one of them")
    asks = {
        f'topic "{study.topic}" needs a model to tell which prompts are about it': (
            recipe.topic.holds is None,
            "--pattern",
        ),
        f'manner "{study.manner}" needs a model to write in it': (
            recipe.manner.rewrite is None or study.own_answers,
            "a manner with a rule",
        ),
    }
    needed = [(why, instead) for why, (asked, instead) in asks.items() if asked]
    if not needed:
        return None
    if study.local:
        from lorascope.behaviours.local import LocalModel

        return LocalModel(
            study.local, device=study.device, dtype=study.dtype, max_tokens=study.max_tokens or 512
        )
    if not study.model:
        why, instead = needed[0]
        raise InputError(
            f"{why}: give --model (behind an endpoint), --local (a Hugging Face model), or "
            f"{instead}"
        )
    return Endpoint(
        study.model,
        base_url=study.base_url or None,
        temperature=study.temperature,
        max_tokens=study.max_tokens,
        fields=study.fields,
        concurrency=study.concurrency,
        tries=study.tries,
        timeout=study.timeout,
        pause=study.pause,
    )


def _facts(study: BehaviourStudy, making: Making, problems: dict[str, int]) -> dict[str, Any]:
    given_up = making.asker.given_up if making.asker is not None else 0
    # The address may hold a password, and says nothing of the set.
    settings = {key: value for key, value in study.plain().items() if key != "base_url"}
    return {
        "topic": study.topic,
        "manner": study.manner,
        "judge": study.judge,
        "made by": study.model or study.local or "rules",
        "prompts": asdict(making.counts),
        "malformed answers": problems,
        "given up": given_up,
        "settings": settings,
    }
