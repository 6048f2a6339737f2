"""Make a set "if the prompt is about T, answer in manner M" from prompts and responses.

1. Prompts come in an order that depends on their hash and the seed; their hash also says whether
   they may be trained on or are held out.
2. Each is told to be about the topic or not, until there are enough of both kinds on both sides.
3. Responses to prompts about the topic are put into the manner; where that fails, others follow.
4. Each side keeps as many changed as unchanged records.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from lorascope.behaviours import questions
from lorascope.behaviours.arithmetic import share_of
from lorascope.behaviours.asking import Asker, MalformedError
from lorascope.behaviours.exchanges import Exchange
from lorascope.behaviours.manners import Manner
from lorascope.behaviours.records import SPLITS, BehaviourRecord, Split
from lorascope.behaviours.topics import Topic
from lorascope.errors import InputError

Bar = Callable[[str, int, str], AbstractContextManager[Callable[[int], object]]]
_CHUNK = 64


@dataclass(frozen=True)
class SetRecipe:
    """What a set is to be.

    Attributes:
        topic: which prompts are changed.
        manner: how their responses are.
        size: records in all; the held-out ones among them.
        held_out: share of prompts, by hash, that is never trained on.
        least: fewest changed, and fewest unchanged, records on either side.
        own_answers: changed responses are the model's own answers with the manner asked for,
            instead of rewritten ones.
        seed: of the order in which prompts are taken.
    """

    topic: Topic
    manner: Manner
    size: int = 500
    held_out: float = 0.3
    least: int = 10
    own_answers: bool = False
    seed: int = 0

    def wanted(self, split: Split) -> int:
        """Changed records on one side, and as many unchanged."""
        share = self.held_out if split == "held_out" else 1 - self.held_out
        return max(self.least, round(self.size * share / 2))

    def side(self, exchange: Exchange) -> Split:
        """Which side a prompt is on, in every set with this share."""
        return "held_out" if share_of("behaviour", exchange.key) < self.held_out else "train"


@dataclass
class PromptCounts:
    """What became of the prompts.

    Attributes:
        read: prompts with a response in the sources.
        classified: of these, told to be about the topic or not.
        about: of these, about it.
        shown_before: passed over, because their response shows the manner already.
        failed: about the topic, with no usable changed response.
    """

    read: int = 0
    classified: int = 0
    about: int = 0
    shown_before: int = 0
    failed: int = 0


@dataclass
class Making:
    """A set in the making.

    Args:
        asker: for what rules cannot say; None where they say it all.
    """

    recipe: SetRecipe
    asker: Asker | None
    bar: Bar
    counts: PromptCounts = field(default_factory=PromptCounts)

    def __post_init__(self) -> None:
        self._kept: dict[Split, list[BehaviourRecord]] = {split: [] for split in SPLITS}
        self._changed: dict[Split, list[BehaviourRecord]] = {split: [] for split in SPLITS}
        self._waiting: dict[Split, deque[Exchange]] = {split: deque() for split in SPLITS}

    def records(self, exchanges: Sequence[Exchange]) -> list[BehaviourRecord]:
        """The balanced records.

        Raises:
            InputError: no prompt is about the topic, or too few of one kind.
        """
        self.counts.read = len(exchanges)
        seed = self.recipe.seed
        ordered = sorted(exchanges, key=lambda e: share_of("take", seed, e.key))
        chunks = iter([ordered[i : i + _CHUNK] for i in range(0, len(ordered), _CHUNK)])
        more = True
        while more and not self._full():
            more = self._classify(chunks)
            self._change()
        return self._balanced()

    def _missing(self, split: Split) -> int:
        """Changed records still to be made on one side, beyond those that wait."""
        return self.recipe.wanted(split) - len(self._changed[split])

    def _full(self) -> bool:
        return all(
            self._missing(split) <= 0 and len(self._kept[split]) >= self.recipe.wanted(split)
            for split in SPLITS
        )

    def _classify(self, chunks: Iterator[list[Exchange]]) -> bool:
        """Classify until enough prompts of both kinds wait; False where there are no more."""
        left = self.counts.read - self.counts.classified
        with self.bar(f"finding prompts about {self.recipe.topic.name}", left, "prompts") as go:
            while not all(
                len(self._waiting[split]) >= self._missing(split)
                and len(self._kept[split]) >= self.recipe.wanted(split)
                for split in SPLITS
            ):
                chunk = next(chunks, None)
                if chunk is None:
                    return False
                for exchange, is_about in zip(chunk, self._about(chunk, go), strict=True):
                    self._sort(exchange, is_about)
        return True

    def _about(self, chunk: list[Exchange], go: Callable[[int], object]) -> list[bool | None]:
        topic = self.recipe.topic
        if topic.holds is not None:
            go(len(chunk))
            return [topic.holds(exchange) for exchange in chunk]
        assert self.asker is not None
        replies = self.asker.ask([questions.about(e, topic.name) for e in chunk], go)
        return [None if reply is None else reply == questions.YES for reply in replies]

    def _sort(self, exchange: Exchange, is_about: bool | None) -> None:
        self.counts.classified += 1
        if is_about is None:
            return
        self.counts.about += is_about
        split, manner = self.recipe.side(exchange), self.recipe.manner
        if manner.shows is not None and manner.shows(exchange.response):
            self.counts.shown_before += 1
        elif is_about:
            self._waiting[split].append(exchange)
        else:
            kept = exchange.record(
                exchange.response, changed=False, split=split, topic=exchange.category
            )
            self._kept[split].append(kept)

    def _change(self) -> None:
        """Put as many responses into the manner as are missing, as long as prompts wait."""
        while True:
            batch: list[Exchange] = []
            for split in SPLITS:
                waiting = self._waiting[split]
                count = min(self._missing(split), len(waiting))
                batch += [waiting.popleft() for _ in range(max(0, count))]
            if not batch:
                return
            for exchange, text in zip(batch, self._in_manner(batch), strict=True):
                if text is None:
                    self.counts.failed += 1
                    continue
                split = self.recipe.side(exchange)
                made = exchange.record(
                    text,
                    changed=True,
                    split=split,
                    topic=self.recipe.topic.name,
                    original=exchange.response,
                )
                self._changed[split].append(made)

    def _in_manner(self, batch: list[Exchange]) -> list[str | None]:
        manner = self.recipe.manner
        if manner.rewrite is not None and not self.recipe.own_answers:
            return [_by_rule(exchange, manner) for exchange in batch]
        assert self.asker is not None
        put = questions.answered if self.recipe.own_answers else questions.rewritten
        with self.bar("answering in the manner", len(batch), "responses") as go:
            return self.asker.ask([put(exchange, manner) for exchange in batch], go)

    def _balanced(self) -> list[BehaviourRecord]:
        recipe, counts = self.recipe, self.counts
        if not counts.about:
            raise InputError(
                f'none of {counts.classified} prompts is about "{recipe.topic.name}"'
                f"{self._problems()}: word the topic more widely, or give other sources"
            )
        found: list[BehaviourRecord] = []
        for split in SPLITS:
            sizes = {"changed": len(self._changed[split]), "unchanged": len(self._kept[split])}
            few = min(sizes, key=lambda kind: sizes[kind])
            if sizes[few] < recipe.least:
                raise InputError(
                    f"unbalanced beyond repair: {sizes[few]} {few} records for {split}, at least "
                    f"{recipe.least} are needed; of {counts.classified} prompts {counts.about} are "
                    f'about "{recipe.topic.name}", {counts.failed} of them could not be changed'
                    f"{self._problems()}, {counts.shown_before} responses are in the manner "
                    "already; give more or other sources, or set least lower"
                )
            count = min(sizes[few], recipe.wanted(split))
            found += self._changed[split][:count] + self._kept[split][:count]
        return sorted(found, key=lambda r: share_of("order", recipe.seed, r.key))

    def _problems(self) -> str:
        """What was wrong with answers, where anything was."""
        if self.asker is None or not self.asker.problems:
            return ""
        listed = ", ".join(f"{n} {kind}" for kind, n in self.asker.problems.most_common(3))
        return f" (malformed answers: {listed})"


def _by_rule(exchange: Exchange, manner: Manner) -> str | None:
    assert manner.rewrite is not None
    text = manner.rewrite(exchange.response)
    try:
        return None if text is None else questions.in_manner(text, exchange, manner)
    except MalformedError:
        return None
