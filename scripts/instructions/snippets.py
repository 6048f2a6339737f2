"""Small Python functions composed of a condition, a transformation and a way to collect.

Each part carries both its source text and its English, so that a composed function always
comes with a true description of itself.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any, NamedTuple

from instructions.writing import Pen, words

NUMBER_CONDITIONS = (
    ("{x} > {k}", "greater than {k}", "above"),
    ("{x} < {k}", "smaller than {k}", "below"),
    ("{x} % {m} == 0", "divisible by {m}", "multiples"),
    ("{x} % 2 == 1", "odd", "odd"),
    ("{x} % 2 == 0", "even", "even"),
    ("{x} != {k}", "different from {k}", "other"),
    ("{k} <= {x} <= {l}", "between {k} and {l}", "middle"),
    ("{x} < 0", "negative", "negative"),
    ("{x} > 0", "positive", "positive"),
    ("{x} * {x} > {l}", "whose square is above {l}", "large"),
    ("{x} % {m} != 0", "not divisible by {m}", "uneven"),
)
NUMBER_TRANSFORMS = (
    ("{x}", "", ""),
    ("{x} * {x}", "the squares of ", "squared"),
    ("{x} + {k}", "{k} plus each of ", "raised"),
    ("{x} * {m}", "{m} times each of ", "scaled"),
    ("-{x}", "the negatives of ", "negated"),
    ("{x} ** 3", "the cubes of ", "cubed"),
    ("{x} // {m}", "the quotients by {m} of ", "divided"),
    ("abs({x})", "the absolute values of ", "absolute"),
    ("{x} - {k}", "{k} less than each of ", "lowered"),
    ("str({x})", "the text forms of ", "text"),
)
ADJECTIVES = ("odd", "even", "negative", "positive")
WORD_CONDITIONS = (
    ("len({x}) > {m}", "longer than {m} letters", "long"),
    ("len({x}) < {l}", "shorter than {l} letters", "short"),
    ('{x}.startswith("{c}")', 'beginning with "{c}"', "with_{c}"),
    ('{x}.endswith("{c}")', 'ending in "{c}"', "ending_in_{c}"),
    ('"{c}" in {x}', 'containing "{c}"', "having_{c}"),
    ('"{c}" not in {x}', 'without the letter "{c}"', "without_{c}"),
    ("{x}.isupper()", "written in capitals", "capital"),
    ("{x} == {x}[::-1]", "that read the same backwards", "mirrored"),
    ("{x}.isalpha()", "made of letters only", "plain"),
    ('{x}.count("{c}") > 1', 'with more than one "{c}"', "double_{c}"),
)
WORD_TRANSFORMS = (
    ("{x}", "", ""),
    ("{x}.upper()", "in capitals, ", "upper"),
    ("len({x})", "the lengths of ", "lengths"),
    ("{x}[::-1]", "the reversals of ", "reversed"),
    ("{x}.title()", "with a capital at the front, ", "titled"),
    ("{x}[0]", "the first letters of ", "initials"),
    ("{x}[-1]", "the last letters of ", "last_letters"),
    ('{x} + "{c}"', 'with "{c}" added, ', "extended"),
    ('{x}.replace("{c}", "-")', 'with a dash for every "{c}", ', "dashed"),
)
NAMES = {
    "number": ("numbers", "values", "items", "prices", "scores", "ages", "heights", "points"),
    "word": ("words", "names", "titles", "lines", "labels", "cities", "keys", "tags"),
}
ELEMENTS = {
    "numbers": "number",
    "values": "value",
    "items": "item",
    "prices": "price",
    "scores": "score",
    "ages": "age",
    "heights": "height",
    "points": "point",
    "words": "word",
    "names": "name",
    "titles": "title",
    "lines": "line",
    "labels": "label",
    "cities": "city",
    "keys": "key",
    "tags": "tag",
}


class Snippet(NamedTuple):
    """A composed function: its name, argument, parts and English description."""

    name: str
    argument: str
    element: str
    condition: str
    value: str
    collect: str
    task: str
    kind: str

    def comprehension(self) -> str:
        """The function with a generator or list comprehension."""
        inner = f"{self.value} for {self.element} in {self.argument} if {self.condition}"
        body = f"[{inner}]" if self.collect == "list" else f"{self.collect}({inner})"
        if self.collect == "len":
            body = f"len([{inner}])"
        return f"def {self.name}({self.argument}):\n    return {body}"

    def loop(self) -> str:
        """The same function with an explicit loop."""
        start = {"list": "[]", "sorted": "[]", "sum": "0", "len": "0"}[self.collect]
        step = {
            "list": f"result.append({self.value})",
            "sorted": f"result.append({self.value})",
            "sum": f"result += {self.value}",
            "len": "result += 1",
        }[self.collect]
        end = "sorted(result)" if self.collect == "sorted" else "result"
        return (
            f"def {self.name}({self.argument}):\n    result = {start}\n"
            f"    for {self.element} in {self.argument}:\n"
            f"        if {self.condition}:\n            {step}\n    return {end}"
        )


def compose(pen: Pen, kind: str = "", collects: tuple[str, ...] = ()) -> Snippet:
    """A new function over numbers or words."""
    kind = kind or pen.one(("number", "word"))
    numeric = kind == "number"
    argument = pen.one(NAMES[kind])
    element = pen.one((ELEMENTS[argument], ELEMENTS[argument][0]))
    collect = pen.one(collects or ("list", "list", "sum", "len", "sorted"))
    condition, when, tag = pen.one(NUMBER_CONDITIONS if numeric else WORD_CONDITIONS)
    transforms = NUMBER_TRANSFORMS if numeric else WORD_TRANSFORMS
    value, change, change_tag = pen.one(transforms)
    if collect == "len":
        value, change, change_tag = element, "", ""
    if collect == "sum" and (value.startswith("str(") or not numeric):
        value, change, change_tag = ("{x}", "", "") if numeric else WORD_TRANSFORMS[2]
    low = pen.number(3, 20)
    facts = {"x": element, "k": low, "l": low + pen.number(3, 30), "m": pen.number(3, 9)}
    if not numeric:
        facts["l"] = pen.number(4, 12)
    facts["c"] = pen.one("aeiorstlnmcdp")
    chosen = "{when} {argument}" if when in ADJECTIVES else "{argument} {when}"
    if change.endswith(", "):
        chosen, change = f"{chosen}, {change[:-2]}", ""
    head = {
        "list": "a list of {change}the ",
        "sum": "the sum of {change}the ",
        "len": "the number of ",
        "sorted": "a sorted list of {change}the ",
    }[collect] + chosen
    verb = {"list": "", "sum": "sum_of_", "len": "count_", "sorted": "sorted_"}[collect]
    parts = [part for part in (change_tag, tag, argument) if part]
    return Snippet(
        name=pen.fill(verb + "_".join(parts), **facts),
        argument=argument,
        element=element,
        condition=pen.fill(condition, **facts),
        value=pen.fill(value, **facts),
        collect=collect,
        task=pen.fill(head, change=change, argument=argument, when=when, **facts),
        kind=kind,
    )


def sample_argument(pen: Pen, kind: str) -> list[Any]:
    """A short list of numbers or words to call a composed function with."""
    if kind == "number":
        return [pen.number(-9, 30) for _ in range(pen.number(4, 6))]
    return pen.some(words("code_words"), pen.number(3, 5))


def call(snippet: Snippet, argument: list[Any]) -> Any:
    """What the function returns for `argument`, by running it."""
    space: dict[str, Any] = {}
    exec(snippet.comprehension(), space)
    return space[snippet.name](argument)


def printed(source: str) -> str:
    """What the program prints, by running it."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(source, {})
    return out.getvalue().rstrip("\n")
