"""Splits fall by hash of the text: disjoint, reproducible, and blind to the file's order."""

import pytest

from lorascope.activations.splits import by_hash, share_of, split
from lorascope.activations.text import Document, Segment

DOCUMENTS = [Document((Segment(f"text number {i}"),)) for i in range(2000)]


def digests(documents):
    return {d.digest for d in documents}


def test_sides_are_disjoint_and_complete_and_of_the_right_size():
    first, second = by_hash(DOCUMENTS, 0.3, seed=0, purpose="any")
    assert digests(first) | digests(second) == digests(DOCUMENTS)
    assert not digests(first) & digests(second)
    # four standard deviations of a binomial count
    assert len(first) == pytest.approx(600, abs=4 * (2000 * 0.3 * 0.7) ** 0.5)


def test_what_an_adapter_has_seen_is_left_out():
    seen = digests(DOCUMENTS[:500])
    parts = split(DOCUMENTS, 0.2, seen, seed=0)
    assert parts.excluded == 500
    assert digests(parts.probe) | digests(parts.held_out) == digests(DOCUMENTS[500:])
    assert not digests(parts.probe) & digests(parts.held_out)


def test_the_order_of_the_file_does_not_matter():
    forward = split(DOCUMENTS, 0.2, set(), seed=3)
    backward = split(DOCUMENTS[::-1], 0.2, set(), seed=3)
    assert forward == backward
    assert forward.probe != sorted(forward.probe, key=DOCUMENTS.index)


def test_a_document_stays_on_its_side_when_others_come_or_go():
    whole = digests(split(DOCUMENTS, 0.2, set(), seed=0).held_out)
    part = digests(split(DOCUMENTS[:100], 0.2, set(), seed=0).held_out)
    assert part == whole & digests(DOCUMENTS[:100])


@pytest.mark.parametrize(
    ("documents", "seen", "measured"),
    [(12, 0, 6), (30, 0, 15), (60, 0, 20), (60, 40, 10), (90, 30, 20)],
)
def test_few_documents_leave_enough_to_measure_on(documents, seen, measured):
    known = digests(DOCUMENTS[:seen])
    parts = split(DOCUMENTS[:documents], None, known, seed=0)
    assert len(parts.held_out) == measured
    assert len(parts.probe) == documents - seen - measured
    assert not digests(parts.probe) & digests(parts.held_out)
    # Those that a share alone would measure on are among them.
    assert digests(split(DOCUMENTS[:documents], 0.05, known, seed=0).held_out) <= digests(
        parts.held_out
    )


def test_many_documents_are_split_by_the_share():
    assert split(DOCUMENTS, None, set(), seed=0) == split(DOCUMENTS, 0.2, set(), seed=0)


def test_seeds_and_purposes_split_independently():
    first = digests(by_hash(DOCUMENTS, 0.5, 0, "a")[0])
    other_seed = digests(by_hash(DOCUMENTS, 0.5, 1, "a")[0])
    other_purpose = digests(by_hash(DOCUMENTS, 0.5, 0, "b")[0])
    for other in (other_seed, other_purpose):
        assert len(first & other) == pytest.approx(500, abs=4 * (2000 * 0.25 * 0.75) ** 0.5)
    # pinned: a split made today is the split made tomorrow, on any machine
    assert share_of(DOCUMENTS[0], 0, "measure") == pytest.approx(0.853309, abs=1e-6)
