"""Coding tasks answered by running a program: what a short piece of Python prints."""

from __future__ import annotations

from instructions.snippets import (
    call,
    compose,
    printed,
    sample_argument,
)
from instructions.writing import Draft, Pen, words


def _ask(pen: Pen) -> str:
    return pen.prose(
        (
            "What does this [program|code|snippet] print? [Explain|Say why].",
            "[Read|Trace] the code and [give|write down] its output.",
            "[What is the output of|What appears on the screen after] this Python code?",
            "Predict what is printed[ and explain the steps|].",
        )
    )


def prints_list(pen: Pen) -> Draft:
    """List operations, one after another."""
    name = pen.one(("numbers", "queue", "stack", "row", "scores", "steps", "data", "a", "xs"))
    values = [pen.number(1, 30) for _ in range(pen.number(3, 5))]
    source, notes = [f"{name} = {values}"], []
    new, where = pen.number(31, 60), pen.number(0, 2)
    moves = (
        (f"{name}.append({new})", f"append puts {new} at the end"),
        (f"{name}.insert({where}, {new})", f"insert puts {new} at index {where}"),
        (f"{name}.pop()", "pop [removes|drops] the last [element|item]"),
        (f"{name}.pop(0)", "pop(0) removes the first [element|item]"),
        (f"{name}.reverse()", "reverse [turns the list round|flips the order]"),
        (f"{name}.sort()", "sort puts the numbers in rising order"),
        (f"{name}[0] = {new}", f"the first [place|element] becomes {new}"),
        (f"{name}.extend([{new}, {where}])", f"extend adds {new} and {where} at the end"),
        (f"{name} = {name}[1:]", "the slice [1:] leaves out the first element"),
        (f"{name} = {name} * 2", "multiplying by 2 repeats the whole list"),
    )
    last = pen.one(
        (
            (name, "the whole list is printed"),
            (f"len({name})", "len counts the elements"),
            (f"{name}[-1]", "index -1 is the last element"),
            (f"sum({name})", "sum adds them up"),
            (f"max({name})", "max is the largest"),
            (f"{name}[1:3]", "the slice [1:3] takes the elements at index 1 and 2"),
        )
    )
    for line, note in pen.some(moves, 2):
        source.append(line)
        notes.append((note, printed("\n".join([*source, f"print({name})"]))))
    source.append(f"print({last[0]})")
    result = printed("\n".join(source))
    answer = pen.prose(
        (
            "{n1}: {v1}. [Then|After that] {n2}: {v2}. {last}, so the output is {result}.",
            "It prints {result}. First {n1}, which gives {v1}; then {n2}, which gives {v2}. "
            "[In the end|At last] {last}.",
            "{result}\n\nAfter the second line the list is {v1}, because {n1}. After the third it "
            "is {v2}, because {n2}. {last}.",
        ),
        n1=notes[0][0],
        v1=notes[0][1],
        n2=notes[1][0],
        v2=notes[1][1],
        last=last[1],
        result=result,
    )
    return Draft(_ask(pen), "\n".join(source), answer)


def prints_text(pen: Pen) -> Draft:
    """String methods and slices."""
    name = pen.one(("text", "word", "s", "name", "title", "label", "line"))
    value = pen.word("code_words") + pen.one(("", "", " ", "-")) + pen.word("code_words")
    old = pen.one(value)
    cut = pen.number(2, 5)
    moves = (
        (f"{name} = {name}.upper()", "upper makes every letter a capital"),
        (f"{name} = {name}[::-1]", "the step -1 reads the text backwards"),
        (f"{name} = {name}.replace({old!r}, '*')", f"replace puts a star for every {old!r}"),
        (f"{name} = {name}[:{cut}]", f"[:{cut}] keeps the first {cut} characters"),
        (f"{name} = {name}[1:]", "[1:] drops the first character"),
        (f"{name} = {name}.title()", "title begins each word with a capital"),
        (f"{name} = {name}.lower()", "lower makes every letter small"),
        (f"{name} = {name} * 2", "a string times 2 is written twice"),
        (f"{name} = {name} + {name}[0]", "the first character is added at the end"),
        (f"{name} = {name}.swapcase()", "swapcase turns small letters into capitals and back"),
    )
    ends = (
        (f"len({name})", "its length is [printed|shown]"),
        (name, "[the text is printed as it is|the result is printed]"),
        (f"{name}.count('e')", "count finds how many times e occurs"),
        (f"{name}[0]", "index 0 is the first character"),
        (f"'a' in {name}", "in asks whether the letter a occurs"),
    )
    source, notes = [f"{name} = {value!r}"], []
    for line, note in pen.some(moves, 2):
        source.append(line)
        notes.append((note, repr(printed("\n".join([*source, f"print({name})"])))))
    end, note = pen.one(ends)
    source.append(f"print({end})")
    result = printed("\n".join(source))
    answer = pen.prose(
        (
            "the output is {result}. {n1}, giving {v1}; {n2}, giving {v2}; {note}.",
            "{n1}: {v1}. [Next|Then], {n2}: {v2}. [Last|Finally], {note}: {result}.",
            "{result}\n\n{n1}, so we have {v1}. {n2}, and that leaves {v2}. {note}.",
        ),
        n1=notes[0][0],
        v1=notes[0][1],
        n2=notes[1][0],
        v2=notes[1][1],
        note=note,
        result=result,
    )
    return Draft(_ask(pen), "\n".join(source), answer)


def prints_loop(pen: Pen) -> Draft:
    """A loop with an accumulator, a while loop, or counting in a dictionary."""
    a, b, k = pen.number(1, 6), pen.number(7, 14), pen.number(2, 4)
    total = pen.one(("total", "count", "result", "n", "acc"))
    i = pen.one(("i", "x", "number", "step"))
    kind = pen.one(("sum", "while", "letters", "skip", "nested"))
    if kind == "sum":
        source = (
            f"{total} = 0\nfor {i} in range({a}, {b}, {k}):\n    {total} += {i}\nprint({total})"
        )
        seen = list(range(a, b, k))
        why = f"range({a}, {b}, {k}) yields {', '.join(map(str, seen))}, and [the loop adds them|"
        why += f"their sum is {sum(seen)}]"
    elif kind == "while":
        source = f"{total} = {a}\nwhile {total} < {b * k}:\n    {total} = {total} * {k}\n"
        source += f"print({total})"
        path = [a]
        while path[-1] < b * k:
            path.append(path[-1] * k)
        why = f"{total} goes through {', '.join(map(str, path))}, and {path[-1]} is the first that "
        why += f"is not below {b * k}"
    elif kind == "letters":
        word = pen.one([w for w in words("code_words") if len(w) > 4])
        source = f"counts = {{}}\nfor letter in {word!r}:\n"
        source += "    counts[letter] = counts.get(letter, 0) + 1\nprint(counts)"
        why = f"[the dictionary counts each letter of {word!r}|every letter of {word!r} is a key, "
        why += "and its value is the number of times it occurs], in order of first appearance"
    elif kind == "skip":
        source = f"{total} = []\nfor {i} in range({b}):\n    if {i} % {k} == 0:\n"
        source += f"        continue\n    {total}.append({i})\nprint({total})"
        why = f"continue [skips|passes over] the multiples of {k}, 0 among them; the other numbers "
        why += f"below {b} are kept"
    else:
        source = f"{total} = 0\nfor {i} in range({k}):\n    for j in range({a}):\n"
        source += f"        {total} += {i} + j\nprint({total})"
        why = f"the inner line runs {k} x {a} = {k * a} times and adds both counters each time"
    result = printed(source)
    answer = pen.prose(
        (
            "it prints {result}. {why}.",
            "{result}\n\n[The reason|Why]: {why}.",
            "{why}. so the output is {result}.",
        ),
        result=result,
        why=why,
    )
    return Draft(_ask(pen), source, answer)


def returns(pen: Pen) -> Draft:
    """The value of a call of a composed function."""
    snippet = compose(pen)
    argument = sample_argument(pen, snippet.kind)
    result = call(snippet, argument)
    source = snippet.loop() if pen.chance(0.5) else snippet.comprehension()
    space = {"call": call}
    kept = [value for value in argument if eval(snippet.condition, {snippet.element: value}, space)]
    facts = {
        "call": f"{snippet.name}({argument})",
        "result": repr(result),
        "task": snippet.task,
        "kept": ", ".join(map(repr, kept)) or "nothing",
        "condition": snippet.condition,
        "name": snippet.name,
    }
    instruction = pen.prose(
        (
            "What does `{call}` [return|give back]?",
            "[Evaluate|Work out] `{call}`.",
            "What is the value of `{call}`?",
        ),
        **facts,
    )
    answer = pen.prose(
        (
            "It returns {result}. [The function|`{name}`] computes {task}. Here the test "
            "`{condition}` lets through {kept}.",
            "The test `{condition}` is true for {kept}. The result is {result}.",
            "{result}. The function gives {task}; what passes the test is {kept}.",
        ),
        **facts,
    )
    return Draft(instruction, source, answer)
