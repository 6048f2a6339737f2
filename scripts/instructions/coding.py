"""Coding: short Python functions, their tests, docstrings, bugs, costs and patterns."""

from __future__ import annotations

import re

from instructions.programs import (
    prints_list,
    prints_loop,
    prints_text,
    returns,
)
from instructions.snippets import call, compose, sample_argument
from instructions.writing import Draft, Pen, Task, listed, table, words


def write_function(pen: Pen) -> Draft:
    """Write a composed function, with a word of explanation."""
    snippet = compose(pen)
    instruction = pen.prose(
        (
            "Write a Python function `{name}({argument})` that returns {task}.",
            "[Implement|Define] `{name}`, which takes {argument} and [gives|returns] {task}.",
            "Given a list called {argument}, write a function that returns {task}.",
            "I need a function [in Python|] for {task}. [Please write it.|Can you write it?]",
        ),
        **snippet._asdict(),
    )
    if pen.chance(0.5):
        code = snippet.comprehension()
        note = (
            "The comprehension goes through `{argument}` once and keeps what passes `{condition}`.",
            "Only [elements|entries] for which `{condition}` holds are used.",
            "`{condition}` is the test; `{value}` is what is collected for each {element}.",
        )
    else:
        code = snippet.loop()
        note = (
            "The loop tests every {element} with `{condition}` and builds the result step by step.",
            "`result` [starts empty or at zero|is the running result] and changes only when "
            "`{condition}` is true.",
            "Each {element} that fails `{condition}` is [passed over|skipped].",
        )
    return Draft(instruction, "", code + "\n\n" + pen.prose(note, **snippet._asdict()))


def fix_bug(pen: Pen) -> Draft:
    """Find one mistake planted in a correct function."""
    snippet = compose(pen, collects=("list", "sum", "len"))
    good = snippet.loop()
    zero = "[]" if snippet.collect == "list" else "0"
    one = "[None]" if snippet.collect == "list" else "1"
    bugs = [
        (
            "\n    return result",
            "\n            return result",
            "the return [stood|was] inside the "
            "[if|loop], so the function stopped at the first match",
        ),
        (f"result = {zero}", f"result = {one}", f"the result must start at {zero}, not at {one}"),
        ("\n    return result", "", "the function had no return, so it gave back None"),
        (
            f"in {snippet.argument}:\n",
            f"in {snippet.argument}\n",
            "the colon after the for line was missing",
        ),
        (
            f"in {snippet.argument}:",
            f"in {snippet.argument}[1:]:",
            "the slice [1:] left out the first element",
        ),
        (
            f"if {snippet.condition}:",
            f"if not ({snippet.condition}):",
            "the test was turned round by not",
        ),
        (f"    result = {zero}\n    for", "    for", "result was used before it had a value"),
        (
            f"for {snippet.element} in",
            "for other in",
            f"the loop variable was called other, but the body uses {snippet.element}",
        ),
    ]
    if snippet.collect != "list":
        bugs.append(
            (
                "result += ",
                "result = ",
                "plain = [overwrites|replaces] the result each time, where += is needed",
            )
        )
    right, wrong, reason = pen.one(bugs)
    facts = {**snippet._asdict(), "reason": reason}
    instruction = pen.prose(
        (
            "This function should return {task}. Find the [bug|mistake] and fix it.",
            "[Correct|Repair] the function. It is [meant|supposed] to return {task}.",
            "Why does this not return {task}? Give [a corrected version|working code].",
        ),
        **facts,
    )
    note = pen.prose(("{reason}.", "the [bug|mistake|trouble]: {reason}."), **facts)
    answer = f"{note}\n\n{good}" if pen.chance(0.5) else f"{good}\n\n{note}"
    return Draft(instruction, good.replace(right, wrong, 1), answer)


def docstring(pen: Pen) -> Draft:
    """Write the docstring of a composed function, with a computed example."""
    snippet = compose(pen)
    argument = sample_argument(pen, snippet.kind)
    hidden = snippet._replace(name=pen.one(("f", "process", "compute", "run", "select", "collect")))
    facts = {
        **snippet._asdict(),
        "what": snippet.task[0].lower() + snippet.task[1:],
        "kind_name": "numbers" if snippet.kind == "number" else "strings",
        "example": f">>> {hidden.name}({argument})\n    {call(snippet, argument)!r}",
        "inner": hidden.name,
    }
    instruction = pen.prose(
        (
            "Write a docstring for this function[, with an example|].",
            "[Document|Describe] this function [in a docstring|with a docstring and an example].",
            "What would a good docstring for `{inner}` say?",
        ),
        **facts,
    )
    body = pen.fill(
        pen.one(
            (
                '"""Return {what}.\n\n    {example}\n    """',
                '"""Return {what}.\n\n    `{argument}` is a list of {kind_name}.\n\n'
                '    {example}\n    """',
                '"""Go through {argument} and return {what}.\n\n    Example:\n\n'
                '    {example}\n    """',
            )
        ),
        **facts,
    )
    code = hidden.comprehension() if pen.chance(0.5) else hidden.loop()
    return Draft(instruction, code, body)


def to_comprehension(pen: Pen) -> Draft:
    """Rewrite a loop as a comprehension, or the other way."""
    snippet = compose(pen)
    shorter = pen.chance(0.6)
    instruction = pen.prose(
        (
            "[Rewrite|Shorten] this function with a comprehension.",
            "[Replace the loop by|Turn the loop into] a [single expression|comprehension].",
            "Make this more compact[ without changing what it returns|].",
        )
        if shorter
        else (
            "[Rewrite|Spell out] this function with an explicit loop.",
            "Replace the comprehension by a for loop.",
            "[Write this out|Unfold this] so that a beginner can follow it.",
        )
    )
    old, new = snippet.loop(), snippet.comprehension()
    note = pen.prose(
        (
            "Both versions return {task}.",
            "[The meaning is the same|Nothing else changes]: {task}.",
            "The [test|condition] `{condition}` [stays|is the same] in both.",
            "",
        ),
        **snippet._asdict(),
    )
    answer = new if shorter else old
    return Draft(instruction, old if shorter else new, f"{answer}\n\n{note}".strip())


def write_test(pen: Pen) -> Draft:
    """Write assertions for a composed function; the expected values come from running it."""
    snippet = compose(pen)
    cases = [sample_argument(pen, snippet.kind)[:size] for size in (3, 2)]
    checks = [f"    assert {snippet.name}({case}) == {call(snippet, case)!r}" for case in cases]
    checks.append(f"    assert {snippet.name}([]) == {call(snippet, [])!r}")
    pen.rng.shuffle(checks)
    checks = checks[: pen.number(2, 3)]
    instruction = pen.prose(
        (
            "Write a test for this function.",
            "[Check|Test] `{name}` with a few assertions.",
            "Which assertions would [test|check] this function[ well|]?",
        ),
        **snippet._asdict(),
    )
    source = snippet.loop() if pen.chance(0.5) else snippet.comprehension()
    answer = f"def test_{snippet.name}():\n" + "\n".join(checks)
    empty = any("([])" in check for check in checks)
    note = pen.prose(
        (
            "[The empty list is the edge case|An empty list is worth a line of its own]."
            if empty
            else "[Both lists mix values that pass the test with others|Two lists of different "
            "length are enough here].",
            "The expected values follow from the rule: {task}.",
            "",
        ),
        **snippet._asdict(),
    )
    return Draft(instruction, source, f"{answer}\n\n{note}".strip())


def complexity(pen: Pen) -> Draft:
    """The cost of a short piece of code, with the reason."""
    row = pen.one(table("complexity"))
    names = pen.some(words("variables"), 3)
    facts = {"a": names[0], "b": names[1], "i": pen.one("ijkxvt"), "f": names[2]}
    facts["n"] = pen.one(("n", "m", "N", "size", "length"))
    code = pen.fill(row["code"], **facts).replace("\\n", "\n")
    instruction = pen.prose(
        (
            "What is the time complexity of this [code|function]?",
            "How does the running time [grow with|depend on] the size of the input?",
            "[Give|State] the cost in big O notation and explain it.",
            "Is this code [fast|efficient] for large inputs? Give its complexity.",
        )
    )
    answer = pen.prose(
        (
            "O({cost}), where {n} is {size}. {why}.",
            "[The running time|The cost] is O({cost}). {why}. Here {n} stands for {size}.",
            "{why}. [That makes|Hence it is] O({cost}), with {n} for {size}.",
        ),
        **facts,
        cost=row["cost"].replace("n", facts["n"]),
        size=row["size"],
        why=row["why"],
    )
    return Draft(instruction, code, answer)


def regex(pen: Pen) -> Draft:
    """Explain a pattern and say which of two texts it matches, by matching."""
    parts = pen.some(table("regex"), pen.number(2, 3))
    joint = pen.one(("-", " ", "", ":", "_", "/"))
    pattern = joint.join(part["pattern"] for part in parts)
    good = joint.join(pen.one(part["examples"].split(", ")) for part in parts)
    spoiled = pen.one((good[:-1], good[1:], good + "?", good[::-1], "x" + good, good.upper()))
    meaning = listed([part["meaning"] for part in parts], "and then")
    between = {"": "", " ": ", with a space between the parts"}.get(
        joint, f', with "{joint}" between the parts'
    )
    facts = {"pattern": f"r'^{pattern}$'", "meaning": meaning + between, "good": good}
    if pen.chance(0.5):
        instruction = pen.prose(
            "Write a regular expression for [a text made of|a string that consists of] {meaning}.",
            **facts,
        )
        answer = pen.prose(
            (
                "`{pattern}`\n\nThe anchors ^ and $ make it match the whole text, for instance "
                "'{good}'.",
                "Use `re.match({pattern}, text)`. [It accepts|A text that fits is] '{good}'.",
            ),
            **facts,
        )
        return Draft(instruction, "", answer)
    shown = pen.one((good, spoiled))
    hit = re.match(f"^{pattern}$", shown) is not None
    instruction = pen.prose(
        (
            "Does '{shown}' match the [pattern|regular expression] `{pattern}`?",
            "What does `{pattern}` describe, and does it match '{shown}'?",
        ),
        shown=shown,
        **facts,
    )
    word, verdict = ("Yes", "fits") if hit else ("No", "breaks that form")
    answer = pen.prose(
        (
            "The pattern asks for {meaning}. '{shown}' {verdict}.",
            "{word}. It stands for {meaning}. [The text|'{shown}'] {verdict}.",
            "{word}, because the pattern means {meaning}, and '{shown}' {verdict}.",
        ),
        shown=shown,
        word=word,
        verdict=verdict,
        **facts,
    )
    if not hit:
        answer += f" A text that fits is '{good}'."
    return Draft(instruction, "", answer)


def write_class(pen: Pen) -> Draft:
    """A small dataclass with one method."""
    row = pen.one(table("classes"))
    fields = dict(field.split(":") for field in row["fields"].split(", "))
    kept = pen.some(sorted(set(fields) - set(row["needs"].split(", "))), 1)
    names = [name for name in fields if name in (*row["needs"].split(", "), *kept)]
    if pen.chance(0.5):
        body = [f"    {name}: {fields[name]}" for name in names]
        head = f"@dataclass\nclass {row['name']}:\n"
        head = "from dataclasses import dataclass\n\n" + head
    else:
        head = f"class {row['name']}:\n"
        body = [f"    def __init__(self, {', '.join(names)}):"]
        body += [f"        self.{name} = {name}" for name in names]
    method = f"    def {row['method']}(self):\n        return {row['returns']}"
    article_name = pen.fill("a^ {thing}", thing=row["thing"])
    instruction = pen.prose(
        (
            "Write a class for {thing} with {names} and a method `{method}` that returns {what}.",
            "[Model|Describe] {thing} as a Python class. It has {names}; `{method}` gives {what}.",
            "Define the class `{name}` with the fields {names} and a method for {what}.",
        ),
        thing=article_name,
        names=listed(names),
        method=row["method"],
        what=row["what"],
        name=row["name"],
    )
    return Draft(instruction, "", head + "\n".join(body) + "\n\n" + method)


TASKS = (
    Task("write function", write_function, 90),
    Task("fix bug", fix_bug, 80),
    Task("docstring", docstring, 80),
    Task("rewrite loop", to_comprehension, 80),
    Task("write test", write_test, 80),
    Task("complexity", complexity, 60),
    Task("regex", regex, 80),
    Task("write class", write_class, 60),
    Task("prints list", prints_list, 80),
    Task("prints text", prints_text, 80),
    Task("prints loop", prints_loop, 80),
    Task("returns", returns, 90),
)
