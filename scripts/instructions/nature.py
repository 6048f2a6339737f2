"""Factual tasks on nature: elements, animals, the body and everyday whys."""

from __future__ import annotations

import re

from instructions.writing import Draft, Pen, Row, article, table


def element(pen: Pen) -> Draft:
    """One chemical element."""
    row = pen.one(table("elements"))
    facts = {**row, "kind": f"{article(row['state'])} {row['state']}"}
    question, answer = pen.one(
        (
            (
                "What is {element}?",
                "{element} is a chemical element with the symbol {symbol} and the atomic number "
                "{number}. [It is {kind}; |It counts as {kind}, and ]{use}.",
            ),
            (
                "Which element has the symbol {symbol}?",
                "the symbol {symbol} stands for {element}, element number {number}. {use}.",
            ),
            (
                "Which element has the atomic number {number}, and what is it [used|known] for?",
                "number {number} in the periodic table is {element} ({symbol}). [One should know "
                "that {use}|Of this {state} one learns that {use}].",
            ),
            (
                "[What is|Give] the symbol of {element}[ and say what kind of element it is|].",
                "{symbol}. {element} is {kind}, and each of its atoms has {number} "
                + ("proton" if row["number"] == "1" else "protons")
                + " in the nucleus.",
            ),
        )
    )
    asked = pen.prose(question, **facts)
    if asked.startswith("What is the symbol"):
        asked = f"What is the symbol of {row['element']}?"
    return Draft(asked, "", pen.prose(answer, **facts))


def element_pair(pen: Pen) -> Draft:
    """Which of two elements comes first, computed from their numbers."""
    a, b = pen.some(table("elements"), 2)
    low, high = sorted((a, b), key=lambda row: int(row["number"]))
    question = pen.prose(
        (
            "Which has more protons, {a} or {b}?",
            "[Compare the elements|Describe the difference between] {a} and {b}.",
            "Does {a} come before {b} in the periodic table?",
        ),
        a=a["element"],
        b=b["element"],
    )
    answer = pen.prose(
        (
            "{high} has {high_n} protons and {low} {low_n}, [so {high} has the greater charge in "
            "its "
            "nucleus|which is {gap} fewer]. {low_use}.",
            "{low} is number {low_n} and {high} number {high_n}. the former has the symbol "
            "{low_s}; {low_use}. the latter has the symbol {high_s}; {high_use}.",
            "in the periodic table {low} ({low_s}, {low_n}) stands before {high} ({high_s}, "
            "{high_n}). [of the latter we learn: {high_use}|of the former we learn: {low_use}].",
        ),
        low=low["element"],
        high=high["element"],
        low_n=low["number"],
        high_n=high["number"],
        low_s=low["symbol"],
        high_s=high["symbol"],
        low_use=_named_use(low),
        high_use=_named_use(high),
        gap=int(high["number"]) - int(low["number"]),
    )
    return Draft(question, "", answer)


def _named_use(row: Row) -> str:
    """The use of an element with its name in place of a leading "it"."""
    return re.sub(r"^it ", f"{row['element']} ", row["use"])


def animal(pen: Pen) -> Draft:
    """One animal: its group, young, food and home."""
    row = pen.one(table("animals"))
    facts = {**row, "kind": f"{article(row['group'])} {row['group']}"}
    question, answer = pen.one(
        (
            (
                "[Describe|Tell me about] {animal}.",
                "{animal} is {kind}. Its home is {home}, and it feeds on {food}. [Note that {fact}|"
                "It is remarkable that {fact}].",
            ),
            (
                "What does {animal} eat?",
                "{animal} [lives on|eats] {food}. it finds [this|its] food in or near {home}.",
            ),
            (
                "What is the young of {animal} called?",
                "[the young|a young one] is called a^ {young}. {animal} is {kind}, and {fact}.",
            ),
            (
                "Where does {animal} live, and [to which group does it belong|what is it]?",
                "its home is {home}. {animal} belongs to the {groups}, eats {food}, and its young "
                "is a^ {young}.",
            ),
            (
                "What is [special|remarkable] about {animal}?",
                "[among the {groups} it stands out, for|one thing is that] {fact}. {animal} "
                "feeds on {food}.",
            ),
        )
    )
    facts["groups"] = _groups(row)
    return Draft(pen.prose(question, **facts), "", pen.prose(answer, **facts))


def _groups(row: Row) -> str:
    return "fishes" if row["group"] == "fish" else row["group"] + "s"


def animal_pair(pen: Pen) -> Draft:
    """Two animals: what they share and where they differ."""
    a, b = pen.some(table("animals"), 2)
    facts = {**{f"a_{k}": v for k, v in a.items()}, **{f"b_{k}": v for k, v in b.items()}}
    group_a = f"{article(a['group'])} {a['group']}"
    if a["group"] == b["group"]:
        many = _groups(a)
        facts["kinds"] = f"[both are {many}|they belong to one group, the {many}]"
    else:
        facts["kinds"] = f"{{a_animal}} is {group_a}, {{b_animal}} {article(b['group'])} "
        facts["kinds"] += b["group"]
    question = pen.prose(
        (
            "Compare {a_animal} with {b_animal}.",
            "What is the difference between {a_animal} and {b_animal}?",
            "How does {a_animal} differ from {b_animal}?",
            "Put {a_animal} beside {b_animal}: [what|which differences] do you notice?",
        ),
        **facts,
    )
    answer = pen.prose(
        (
            "{kinds}. the food differs: {a_food} for the one, {b_food} for the other. The "
            "latter makes its home here: {b_home}.",
            "{kinds}. {a_animal} eats {a_food}; of {b_animal} we know that {b_fact}.",
            "{kinds}. the young of {a_animal} is a^ {a_young}, that of {b_animal} a^ {b_young}. "
            "as to the first, {a_fact}.",
            "the home of {a_animal} is {a_home}, that of {b_animal} {b_home}. {kinds}.",
        ),
        **facts,
    )
    return Draft(question, "", answer)


def organ(pen: Pen) -> Draft:
    """One organ of the body, or two together."""
    a, b = pen.some(table("organs"), 2)
    verb = "do" if a["organ"].endswith(("lungs", "kidneys")) else "does"
    be = "are" if verb == "do" else "is"
    facts = {**a, "verb": verb, "be": be, "b_organ": b["organ"], "b_work": b["work"]}
    facts["b_be"] = "are" if b["organ"].endswith(("lungs", "kidneys")) else "is"
    facts["b_place"] = b["place"]
    question, answer = pen.one(
        (
            (
                "What {verb} {organ} do?",
                "{organ} {be} [found|situated] {place}. [as for the task, {work}|{work}], and "
                "{note}.",
            ),
            ("Where {be} {organ}?", "{organ} lie{s} {place}. {note}."),
            (
                "Compare the work of {organ} and of {b_organ}.",
                "of {organ}: {work}. of {b_organ}: {b_work}. the former {be} {place}, the latter "
                "{b_be} {b_place}.",
            ),
            (
                "What are the tasks of {organ} and {b_organ}?",
                "{organ}, {place}: {work}. {b_organ}: {b_work}. [besides, as to the former|as to "
                "the "
                "first], {note}.",
            ),
        )
    )
    facts["s"] = "" if verb == "do" else "s"
    return Draft(pen.prose(question, **facts), "", pen.prose(answer, **facts))


def why(pen: Pen) -> Draft:
    """A why question about nature."""
    row = pen.one(table("why"))
    question = pen.prose(
        (
            "Why {question}?",
            "[Explain in simple words|Explain to a child]: why {question}?",
            "A pupil asks: why {question}? [What would you say?|Give an answer.]",
        ),
        **row,
    )
    answer = pen.prose(
        (
            "[In short|Put simply], {short}. [To say more|In detail]: {long}.",
            "{short}: {long}.",
            "{long}. [That is to say|In a word], {short}.",
            "the [main|chief] reason is [this|simple]: {short}.",
        ),
        **row,
    )
    return Draft(question, "", answer)
