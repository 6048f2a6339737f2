"""Kinds of instruction: the source's label first, else the words; equal numbers of each."""

from dataclasses import replace

import pytest

from lorascope.activations.categories import category, equal_numbers
from lorascope.activations.settings import CATEGORIES
from lorascope.activations.text import Document, Segment, alpaca, read_documents
from lorascope.errors import InputError


@pytest.mark.parametrize(
    ("instruction", "kind"),
    [
        ("Write a Python function that reverses a list.", "coding"),
        ("Write a haiku about autumn.", "creative"),
        ("How many apples are left if three of ten are eaten?", "reasoning"),
        ("Give me some tips for a job interview.", "practical"),
        ("What is the capital of France?", "factual"),
    ],
)
def test_words_of_the_instruction_decide(instruction, kind):
    record = {"instruction": instruction, "output": "A poem in Python code, step by step."}
    assert category(alpaca(record)) == kind
    assert category(alpaca({**record, "category": "other"})) == "other"
    assert category(Document((Segment(instruction),))) == kind


def test_the_template_has_no_say():
    # "task", "instruction" and "response" of the template stand outside what is looked at.
    assert category(alpaca({"instruction": "Name a river.", "output": "Rhine"})) == "factual"
    with_input = {"instruction": "Name a river.", "input": "Write SQL.", "output": "Rhine"}
    assert category(alpaca(with_input)) == "factual"


def test_agrees_with_labels_far_above_chance():
    labelled = read_documents("embedded")
    found = [category(replace(d, category="")) == d.category for d in labelled]
    assert sum(found) / len(found) > 0.5  # five kinds: 0.2 by chance


def test_equal_numbers_in_the_order_given():
    kinds = ["coding", "factual", "coding", "creative", "coding", "factual"]
    documents = [Document((Segment(str(i)),), kind) for i, kind in enumerate(kinds)]
    chosen = equal_numbers(documents, ("factual", "coding"), 2, "to train on")
    assert [d.text for d in chosen] == ["0", "1", "2", "5"]
    with pytest.raises(InputError, match=r'2 documents to train on are "factual" and 3 are asked'):
        equal_numbers(documents, ("coding", "factual"), 3, "to train on")
    with pytest.raises(InputError, match='0 documents to measure on are "reasoning"'):
        equal_numbers(documents, CATEGORIES, 1, "to measure on")
