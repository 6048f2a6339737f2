"""Explanations of latents by a language model, scored by whether they tell where a latent fires.

For each latent, on passages of the study's texts:

1. The judge sees passages in which it fires most, the tokens it fires on marked, and says in a
   sentence what it fires on.
2. *Detection*: it sees that explanation and other passages, half of which the latent fires in, and
   says of each whether it does.
3. *Fuzzing*: it sees passages in which one token is marked, in half of them one that the latent
   fires on, in the others one that it does not, and says of each whether the mark is right.

Both are balanced: whoever always says the same scores ½. The same is asked of as many latents of a
random-decoder dictionary. Every request and answer is kept in `answers/` of the run folder, and
what has an answer there is not asked again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lorascope.activations.tokens import Window, batches
from lorascope.behaviours.answerers import answerer
from lorascope.behaviours.asking import Answerer, AnswerLog, Asker, MalformedError, Question
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.errors import InputError
from lorascope.fits.conditions import ADAPTED, SPLICED
from lorascope.measures.rows import CHUNK
from lorascope.models.load import padding_id
from lorascope.models.sites import Site
from lorascope.randomness import generator
from lorascope.results import Estimate, Key, Null
from lorascope.results.null_names import COIN, RANDOM_DECODER
from lorascope.stats.intervals import normal_interval, or_point, within
from lorascope.studies.evaluate.settings import Autointerp
from lorascope.studies.evaluate.subjects import OpenedSubject

_BATCH_TOKENS = 4096
# Tokens at or above this share of a passage's largest activation are marked.
_MARKED = 0.5
_EXPLAIN: Final = (
    "A feature of a language model fires on some tokens. Below are passages in which it fires; the "
    "tokens it fires on stand between « and ». In one short sentence, say what the feature fires "
    "on. Answer with that sentence alone."
)
_DETECT: Final = (
    "A feature of a language model fires on: {said}\n\nFor each passage below, say whether the "
    "feature fires somewhere in it. Answer with {count} digits separated by spaces, in order: 1 if "
    "it fires, 0 if not."
)
_FUZZ: Final = (
    "A feature of a language model fires on: {said}\n\nIn each passage below one token stands "
    "between « and ». For each, say whether the feature fires on that token. Answer with {count} "
    "digits separated by spaces, in order: 1 if it does, 0 if not."
)
_REMINDER: Final = "Answer with {count} digits, 0 or 1, separated by spaces, and nothing else."


@dataclass(frozen=True, eq=False)
class JudgedPassages:
    """Stretches of text of one length, with the stream at each token.

    Attributes:
        ids: token ids, [passages, tokens].
        rows: the stream there, [passages, tokens, d].
        texts: spelling of each token, by passage.
    """

    ids: Int[Tensor, "p t"]
    rows: Float[Tensor, "p t d"]
    texts: list[list[str]]


@dataclass(frozen=True)
class Asked:
    """What is asked about one latent.

    Attributes:
        shown: passages to explain it, the tokens it fires on marked.
        detection, fuzzing: (passages, 1 where the right answer is yes).
    """

    latent: int
    shown: tuple[str, ...]
    detection: tuple[tuple[str, int], ...]
    fuzzing: tuple[tuple[str, int], ...]


@torch.no_grad()
def passages(
    subject: OpenedSubject, windows: Sequence[Window], site: Site, tokens: int, *, adapter: bool
) -> JudgedPassages:
    """Passages of exactly so many tokens, special ones left out.

    Raises:
        InputError: no text is that long.
    """
    ids, rows = [], []
    padding = padding_id(subject.tokenizer)
    for batch in batches(windows, subject.tokenizer, padding, _BATCH_TOKENS):
        stream = subject.streams(batch, adapter=adapter)[site].cpu()
        for row in range(len(batch.ids)):
            places = batch.kept[row].nonzero().squeeze(1)
            for start in range(0, len(places) - tokens + 1, tokens):
                at = places[start : start + tokens]
                ids.append(batch.ids[row, at])
                rows.append(stream[row, at])
    if not ids:
        raise InputError(
            f"autointerp: no text has {tokens} tokens; give longer texts or a smaller "
            "autointerp.tokens"
        )
    whole = torch.stack(ids)
    decode = subject.tokenizer.decode
    texts = [[str(decode([token])) for token in one] for one in whole.tolist()]
    return JudgedPassages(whole, torch.stack(rows), texts)


def marked(texts: Sequence[str], places: Sequence[int]) -> str:
    """A passage with some of its tokens between « and »."""
    chosen = set(places)
    return "".join(f"«{text}»" if i in chosen else text for i, text in enumerate(texts))


def questions_of(
    found: JudgedPassages, codes: Float[Tensor, "p t"], latent: int, settings: Autointerp, seed: int
) -> Asked | None:
    """What is asked about a latent; None where it fires in too few passages, or in too many.

    Passages shown, asked about with and asked about without it are all different.

    Args:
        codes: the latent's activation at each token.
    """
    most = codes.max(1).values
    fires, silent = (most > 0).nonzero().squeeze(1), (most == 0).nonzero().squeeze(1)
    half = settings.questions // 2
    needed = max(settings.minimum, settings.examples + 3 * half)
    if len(fires) < needed or len(silent) < half:
        return None
    draw = generator(seed, "passages", latent)
    fires = fires[torch.randperm(len(fires), generator=draw)]
    asked, rest = fires[: 3 * half], fires[3 * half :]
    shown = rest[most[rest].argsort(descending=True)][: settings.examples]
    quiet = silent[torch.randperm(len(silent), generator=draw)[:half]]

    def fired(passage: int) -> list[int]:
        values = codes[passage]
        return (values >= _MARKED * values.max()).nonzero().squeeze(1).tolist()

    def one_of(passage: int, firing: bool) -> str | None:
        wanted = codes[passage] >= _MARKED * most[passage] if firing else codes[passage] == 0
        places = wanted.nonzero().squeeze(1)
        if not len(places):
            return None
        place = int(places[int(torch.randint(len(places), (1,), generator=draw))])
        return marked(found.texts[passage], [place])

    detection = [("".join(found.texts[i]), 1) for i in asked[:half].tolist()]
    detection += [("".join(found.texts[i]), 0) for i in quiet.tolist()]
    right = [one_of(i, True) for i in asked[half : 2 * half].tolist()]
    wrong = [one_of(i, False) for i in asked[2 * half :].tolist()]
    if None in right or None in wrong:
        return None
    fuzzing = [(str(text), 1) for text in right] + [(str(text), 0) for text in wrong]
    return Asked(
        latent,
        tuple(marked(found.texts[i], fired(i)) for i in shown.tolist()),
        _shuffled(detection, draw),
        _shuffled(fuzzing, draw),
    )


def _shuffled(
    pairs: Sequence[tuple[str, int]], draw: torch.Generator
) -> tuple[tuple[str, int], ...]:
    return tuple(pairs[i] for i in torch.randperm(len(pairs), generator=draw).tolist())


def _sentence(text: str) -> str:
    said = " ".join(text.split())
    if not said:
        raise MalformedError("empty")
    return said[:400]


def _digits(count: int, text: str) -> str:
    found = re.findall(r"(?<![\d.])[01](?![\d.])", text)
    if len(found) != count:
        raise MalformedError("not so many digits")
    return "".join(found)


def _listed(passages_: Sequence[str]) -> str:
    return "\n".join(f"{number}. {text!r}" for number, text in enumerate(passages_, start=1))


def explain(asker: Asker, asked: Sequence[Asked], advance: Any = None) -> list[str | None]:
    """What the judge says each latent fires on; None where it gave no usable answer."""
    made = []
    for one in asked:
        content = f"{_EXPLAIN}\n\n{_listed(one.shown)}"
        made.append(Question(({"role": "user", "content": content},), _sentence, _EXPLAIN))
    return asker.ask(made, advance)


def score(
    asker: Asker, asked: Sequence[Asked], said: Sequence[str | None], kind: str, advance: Any = None
) -> list[float | None]:
    """Share of right answers about each latent; None where there is no explanation or answer.

    Args:
        kind: "detection" or "fuzzing".
    """
    made, places = [], []
    for place, (one, explanation) in enumerate(zip(asked, said, strict=True)):
        if explanation is None:
            continue
        pairs = getattr(one, kind)
        template = _DETECT if kind == "detection" else _FUZZ
        head = template.format(said=explanation, count=len(pairs))
        content = f"{head}\n\n{_listed([text for text, _ in pairs])}"
        parse, reminder = partial(_digits, len(pairs)), _REMINDER.format(count=len(pairs))
        made.append(Question(({"role": "user", "content": content},), parse, reminder))
        places.append(place)
    found: list[float | None] = [None] * len(asked)
    for place, digits in zip(places, asker.ask(made, advance), strict=True):
        if digits is not None:
            truth = [answer for _, answer in getattr(asked[place], kind)]
            right = sum(int(digit) == true for digit, true in zip(digits, truth, strict=True))
            found[place] = right / len(truth)
    return found


def score_estimates(
    own: Mapping[str, Sequence[float]], random: Mapping[str, Sequence[float]], place: Key
) -> list[Estimate]:
    """Detection and fuzzing, mean over latents, beside a coin and a random decoder's latents.

    Args:
        own, random: {kind: score of each latent}.
    """
    estimates = []
    for kind, values in own.items():
        if not len(values):
            continue
        scores = torch.tensor(values, dtype=torch.float64)
        nulls = [Null.exact(COIN, 0.5, rival=True)]
        if len(random.get(kind, ())):
            other = torch.tensor(random[kind], dtype=torch.float64)
            level = float(other.mean())
            nulls.append(
                Null(RANDOM_DECODER, level, *or_point(level, normal_interval(other)), rival=True)
            )
        interval, n = within(normal_interval(scores), 0.0, 1.0), len(values)
        value = float(scores.mean())
        estimates.append(
            Estimate(f"evaluate.{kind}", value, interval, n, "share", tuple(nulls), place)
        )
    return estimates


@torch.no_grad()
def chosen(
    dictionary: Dictionary, found: JudgedPassages, settings: Autointerp, seed: int
) -> list[Asked]:
    """Latents drawn from those that fire often enough, with what is asked about them."""
    draw = generator(seed, "latents")
    order = torch.randperm(dictionary.n_latents, generator=draw)
    half = settings.questions // 2
    fired = torch.cat([(one.amax(1) > 0) for one in _codes(dictionary, found)]).sum(0)
    often = (fired >= settings.minimum) & (fired <= len(found.ids) - half)
    tried = [latent for latent in order.tolist() if bool(often[latent])][: 4 * settings.latents]
    if not tried:
        return []
    codes = torch.cat([one[:, :, tried] for one in _codes(dictionary, found)])
    asked: list[Asked] = []
    for column, latent in enumerate(tried):
        one = questions_of(found, codes[:, :, column], latent, settings, seed)
        if one is not None:
            asked.append(one)
        if len(asked) == settings.latents:
            break
    return asked


def _codes(dictionary: Dictionary, found: JudgedPassages) -> Iterator[Float[Tensor, "p t n"]]:
    """Every latent's activations, some passages at a time."""
    for rows in found.rows.split(max(1, CHUNK // found.rows.shape[1])):
        yield dictionary.encode(rows.to(dictionary.directions)).float().cpu()


def autointerp(
    subject: OpenedSubject,
    windows: Sequence[Window],
    others: Mapping[bool, Mapping[Site, Mapping[str, Dictionary]]],
    settings: Autointerp,
    log: Path,
    seed: int = 0,
    *,
    answers: Answerer | None = None,
    advance: Any = None,
) -> tuple[list[Estimate], dict[str, Any], list[str]]:
    """(numbers, explanations, warnings) of a subject's dictionaries.

    Streams are read with the adapter off, or on where the dictionary is of its deltas.

    Args:
        log: file that keeps every request and answer.
        answers: what is asked; by default the judge that the settings name.

    Raises:
        InputError: no endpoint, or it does not answer; what was answered is kept.
    """
    asker = Asker(answers or answerer(settings.judge), AnswerLog(log))
    estimates: list[Estimate] = []
    facts: dict[str, Any] = {}
    warnings: list[str] = []
    adapter = subject.read_with[0]
    for site, dictionary in subject.dictionaries.items():
        found = passages(subject, windows, site, settings.tokens, adapter=adapter)
        random = others[adapter][site][RANDOM_DECODER]
        scores: dict[str, dict[str, list[float]]] = {}
        for name, one in (("own", dictionary), ("random", random)):
            asked = chosen(one, found, settings, seed)
            said = explain(asker, asked, advance)
            kinds = {kind: score(asker, asked, said, kind, advance) for kind in _KINDS}
            scores[name] = {
                kind: [v for v in each if v is not None] for kind, each in kinds.items()
            }
            facts[f"{site}, {name}"] = [
                {"latent": one.latent, "said": text, **{k: kinds[k][i] for k in _KINDS}}
                for i, (one, text) in enumerate(zip(asked, said, strict=True))
            ]
            if name == "own" and len(asked) < settings.latents:
                warnings.append(
                    f"autointerp: {len(asked)} latents at {site} fire in enough passages to be "
                    f"asked about, of {settings.latents}; more text would give more"
                )
        place = Key(site=site.name, dictionary=subject.name, model=ADAPTED if adapter else SPLICED)
        estimates += score_estimates(scores["own"], scores["random"], place)
    if asker.given_up:
        warnings.append(f"autointerp: {asker.given_up} questions had no usable answer")
    return estimates, facts, warnings


_KINDS: Final = ("detection", "fuzzing")
