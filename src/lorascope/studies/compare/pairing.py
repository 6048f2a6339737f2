"""Two adapters on the same tokens: from one run or two, matched row by row, or refused."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Int
from torch import Tensor

from lorascope.activations.shards import BASE
from lorascope.errors import InputError
from lorascope.measures.comparison import DeltaPair
from lorascope.measures.rows import shared_out
from lorascope.models.adapter_files import same_base
from lorascope.randomness import generator
from lorascope.studies.compare.finished import Finished, Traced
from lorascope.studies.compare.study import addressed
from lorascope.workflows.comparison_folders import labels

FEWEST_DOCUMENTS = 10
# Of the same base at the same tokens only rounding may differ.
_SAME_BASE = 0.05
_Key = tuple[str, int, int]


@dataclass(frozen=True, eq=False)
class ComparedAdapter:
    """One adapter of one run, and what it is called beside the other."""

    run: Finished
    adapter: str
    label: str


def sides(first: str, second: str) -> tuple[ComparedAdapter, ComparedAdapter]:
    """The adapters two addresses name: RUN, RUN:ADAPTER, or :ADAPTER of the first one's run.

    Raises:
        InputError: an address names no finished audit or no adapter, or both name the same one.
    """
    folder, name = addressed(first)
    other_folder, other_name = addressed(second, folder)
    run = Finished.open(folder)
    other = run if other_folder.resolve() == folder.resolve() else Finished.open(other_folder)
    if run is other and not name and not other_name:
        known = run.activations.adapters
        if len(known) != 2:
            raise InputError(
                f"{folder}: holds {len(known)} adapters ({', '.join(known)}); name two, as in "
                f"{folder}:{known[0]} :{known[-1]}"
            )
        name, other_name = known
    one, two = run.adapter(name), other.adapter(other_name)
    if run is other and one == two:
        raise InputError(f"{folder}: {one} is both sides; name two different adapters")
    named = labels((folder, one), (other_folder, two))
    return ComparedAdapter(run, one, named[0]), ComparedAdapter(other, two, named[1])


@dataclass(frozen=True, eq=False)
class Paired:
    """The rows both runs hold.

    Attributes:
        trace: where the first run's rows come from.
        rows: for each common row its place in the first run's and the second's, in document order.
    """

    first: ComparedAdapter
    second: ComparedAdapter
    trace: Traced
    rows: Int[Tensor, "2 rows"]

    def __len__(self) -> int:
        return self.rows.shape[1]

    @cached_property
    def windows(self) -> Int[Tensor, " rows"]:
        """Window of each common row, in the first run's numbering."""
        return self.trace.window[self.rows[0]]

    @cached_property
    def positions(self) -> Int[Tensor, " rows"]:
        """Place of each common row's token in its window."""
        return self.trace.position[self.rows[0]]

    @cached_property
    def documents(self) -> Int[Tensor, " rows"]:
        """Document of each common row, in the first run's numbering."""
        return torch.tensor([w.document for w in self.trace.windows])[self.windows]

    def load(self, site: str) -> DeltaPair:
        """Base and both deltas at a site.

        Raises:
            InputError: the base streams differ, so that the models are not the same.
        """
        one, two = self.first, self.second
        base = one.run.activations.load(site, BASE)[self.rows[0]]
        first = one.run.activations.load(site, one.adapter)[self.rows[0]]
        second = two.run.activations.load(site, two.adapter)[self.rows[1]]
        if one.run is not two.run:
            other = two.run.activations.load(site, BASE)[self.rows[1]]
            apart = ((other - base).norm(dim=-1).mean() / base.norm(dim=-1).mean()).item()
            if apart > _SAME_BASE:
                raise InputError(
                    f"{site}: the base streams of the two runs differ by {apart:.0%} at the same "
                    "tokens; audit both adapters on the same base model in the same precision"
                )
        return DeltaPair(base, first, second, self.documents)


def pair(first: ComparedAdapter, second: ComparedAdapter, most: int) -> Paired:
    """Match the rows of two sides; at most `most` of them, shared out among documents.

    Raises:
        InputError: other base models, texts or tokens, or fewer than ten documents in common.
    """
    _require_same_base(first.run, second.run)
    _require_same_windows(first.run, second.run)
    trace = first.run.trace()
    if first.run is second.run:
        both = torch.arange(len(trace.window)).expand(2, -1)
    else:
        both = _common(first.run, trace, second.run, second.run.trace())
    documents = torch.tensor([w.document for w in trace.windows])[trace.window[both[0]]]
    # Each document's tokens in reading order.
    place = torch.stack([documents, trace.window[both[0]], trace.position[both[0]]]).tolist()
    order = sorted(range(len(documents)), key=lambda i: (place[0][i], place[1][i], place[2][i]))
    both, documents = both[:, order], documents[order]
    count = len(documents.unique())
    if count < FEWEST_DOCUMENTS:
        raise InputError(
            f"{first.run.folder} and {second.run.folder} hold {count} held-out documents in "
            f"common, fewer than {FEWEST_DOCUMENTS}; audit both on the same texts"
        )
    kept = shared_out(documents, most, generator(0, "stretch"))
    return Paired(first, second, trace, both[:, kept])


def _require_same_base(first: Finished, second: Finished) -> None:
    one, two = first.model, second.model
    sizes = [key for key in one if key != "id" and one[key] != two.get(key)]
    revisions = first.study.revision == second.study.revision
    if same_base(one["id"], [two["id"]]) and not sizes and revisions:
        return
    what = ", ".join(f"{key} {one[key]} and {two.get(key)}" for key in sizes)
    if not what and not revisions:
        what = f"revisions {first.study.revision} and {second.study.revision}"
    raise InputError(
        f"{first.folder} ({one['id']}) and {second.folder} ({two['id']}) have different base "
        f"models{what and f' ({what})'}; compare adapters of one base"
    )


def _require_same_windows(first: Finished, second: Finished) -> None:
    contexts = [run.study.capture.context for run in (first, second)]
    if contexts[0] != contexts[1]:
        raise InputError(
            f"{first.folder} and {second.folder} cut their texts into windows of {contexts[0]} and "
            f"{contexts[1]} tokens; audit both with the same capture.context"
        )


def _common(one: Finished, ours: Traced, two: Finished, theirs: Traced) -> Int[Tensor, "2 rows"]:
    """Places of the rows that both runs hold."""
    places: dict[_Key, int] = {key: row for row, key in enumerate(theirs.keys())}
    matched = [(row, places[key]) for row, key in enumerate(ours.keys()) if key in places]
    if not matched:
        raise InputError(
            f"{one.folder} and {two.folder} hold no held-out document in common; audit both on "
            "the same texts with the same seed"
        )
    both = torch.tensor(matched).T
    if not _same_tokens(one, two, both):
        raise InputError(
            f"{one.folder} and {two.folder} have different tokens for the same texts; audit both "
            "with the same tokenizer"
        )
    return both


def _same_tokens(one: Finished, two: Finished, rows: Int[Tensor, "2 rows"]) -> bool:
    return torch.equal(
        one.activations.tokens().token[rows[0]], two.activations.tokens().token[rows[1]]
    )
