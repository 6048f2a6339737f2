"""Five kinds of instruction, and equal numbers of documents of each.

A document's kind is its source's own label where it has one. Where it has none, the words of the
instruction decide: the first of coding, creative, reasoning and practical with a word in it, else
factual. The rule is coarse; it spreads a sample over kinds of text and measures nothing.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from lorascope.activations.text import Document
from lorascope.errors import InputError

_RULES = {
    "coding": r"code|coding|python|java|javascript|c\+\+|sql|html|css|regex|regular expression|"
    r"algorithm|script|program|function|debug|json|array|bash|compile\w*|pseudocode",
    "creative": r"poem|haiku|sonnet|limerick|story|stories|fable|song|lyrics|rhyme|joke|riddle|"
    r"fiction\w*|imagin\w*|creative\w*|slogan|tagline|dialogue|character|metaphor|simile|novel|"
    r"screenplay|tale|compose|invent|pun|title",
    "reasoning": r"calculate|compute|solve|how (?:many|much|long|far|old)|equation|probability|"
    r"average|sum|arithmetic|mathematical|logic\w*|deduce|infer|conclu\w+|classify|categori[sz]e|"
    r"compare|contrast|analy[sz]e|evaluate|predict|sort|arrange|sequence|pattern|true or false|"
    r"determine|why|reason\w*|odd one|analogy|step by step|next|identify",
    "practical": r"how (?:to|do|can|should)|tips?|steps|advice|advise|recipe|cook|plan|schedule|"
    r"e-?mail|letter|message|recommend\w*|suggest\w*|itinerary|budget|ways|checklist|guide|prepare|"
    r"improve|edit|rewrite|rephrase|reword|correct|proofread|summari[sz]e|summary|translate|"
    r"convert|design|create|instructions",
}
_PATTERNS = {name: re.compile(rf"\b(?:{words})\b", re.IGNORECASE) for name, words in _RULES.items()}
_INSTRUCTION = re.compile(r"### Instruction:\n(.*?)\n\n### ", re.DOTALL)
# Enough of a plain text to see what it is.
_OPENING = 300


def category(document: Document) -> str:
    """The document's own label, or one of the five by the words of its instruction."""
    if document.category:
        return document.category
    asked = document.prompt or document.text
    found = _INSTRUCTION.search(asked)
    words = found[1] if found else asked[:_OPENING]
    return next((name for name, pattern in _PATTERNS.items() if pattern.search(words)), "factual")


def equal_numbers(
    documents: Sequence[Document], categories: Sequence[str], each: int, purpose: str
) -> list[Document]:
    """The first `each` documents of every category, in the order given; others are left out.

    Args:
        purpose: what the documents are for, for the error.

    Raises:
        InputError: a category has too few.
    """
    counts: dict[str, int] = defaultdict(int)
    chosen: list[Document] = []
    for document in documents:
        kind = category(document)
        counts[kind] += 1
        if kind in categories and counts[kind] <= each:
            chosen.append(document)
    for kind in categories:
        if counts[kind] < each:
            raise InputError(
                f'texts.balance: {counts[kind]} documents {purpose} are "{kind}" and {each} are '
                "asked for; give more texts or a smaller number"
            )
    return chosen
