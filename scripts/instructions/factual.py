"""Factual: capitals, elements, animals, discoveries, words, history, books and whys."""

from __future__ import annotations

from instructions.nature import (
    animal,
    animal_pair,
    element,
    element_pair,
    organ,
    why,
)
from instructions.planets import planet, planet_pair
from instructions.writing import Draft, Pen, Row, Task, article, table


def country(pen: Pen) -> Draft:
    """One country: its capital, its place and a fact."""
    row = pen.one(table("countries"))
    island = row["neighbour"] == "no land neighbour"
    border = "it has no land border" if island else f"it borders on {row['neighbour']}"
    question, answer = pen.one(
        (
            (
                "[What is the capital of {country}?|Name the capital of {country}.]",
                "[The capital of {country} is {capital}|{capital} is the capital]. The country "
                "lies in {continent}; {fact}.",
            ),
            (
                "Tell me something about {country}.",
                "{country} is a country in {continent}, and {border}. Its capital is {capital}. "
                "[Besides|In addition], {fact}.",
            ),
            (
                "Of which country is {capital} the capital?",
                "{capital} [is the capital of|belongs to] {country}. [In short|About the "
                "country]: {border}, and {fact}.",
            ),
            (
                "On which continent is {country}, and what is its capital?",
                "{country}, with the capital {capital}, is [part of|in] {continent}: {border}.",
            ),
            (
                "Which country in {continent} fits this [description|clue]: {fact}?",
                "[That is|It must be] {country}. [You may also recognise it by|Other signs are] "
                "its capital, {capital}, and the fact that {border}.",
            ),
        )
    )
    facts = {**row, "border": border}
    return Draft(pen.prose(question, **facts), "", pen.prose(answer, **facts))


def country_pair(pen: Pen) -> Draft:
    """Two countries side by side."""
    a, b = pen.some(table("countries"), 2)
    facts = {**{f"a_{k}": v for k, v in a.items()}, **{f"b_{k}": v for k, v in b.items()}}
    if a["continent"] == b["continent"]:
        facts["where"] = f"both lie in {a['continent']}"
    else:
        facts["where"] = f"the first lies in {a['continent']}, the second in {b['continent']}"
    question = pen.prose(
        (
            "Compare {a_country} and {b_country}[ in two sentences|].",
            "What are the capitals of {a_country} and {b_country}, and where do the countries lie?",
            "[Name|Give] one difference between {a_country} and {b_country}.",
        ),
        **facts,
    )
    answer = pen.prose(
        (
            "{a_capital} is the capital of {a_country}, {b_capital} that of {b_country}; {where}. "
            "[about the first|of {a_country}] one can say that {a_fact}.",
            "{a_country} has its seat of government in {a_capital}; {a_fact}. {b_country} is "
            "governed from {b_capital}; {b_fact}. As to the map, {where}.",
            "as for capitals, {a_capital} and {b_capital}. as for position, {where}. about "
            "{b_country} it is worth knowing that {b_fact}.",
        ),
        **facts,
    )
    return Draft(question, "", answer)


def invention(pen: Pen) -> Draft:
    """Who made, found or described something, and when."""
    row = pen.one(table("inventions"))
    question, answer = pen.one(
        (
            (
                "With whom is {thing} [connected|associated]?",
                "{thing} is [connected|linked] with {person} and the year {year}: {detail}.",
            ),
            (
                "What is {person} known for?",
                "the name {person} stands for {thing}, which dates from {year}. {detail}.",
            ),
            (
                "What [happened|was achieved] in {year} in science and technology[, for example|]?",
                "in {year} came {thing}, [the work of|which we owe to] {person}. {detail}.",
            ),
            (
                "Say something about the history of this: {thing}.",
                "{detail}. the [date|year] is {year}, and the name to remember is {person}.",
            ),
        )
    )
    if " and " in row["person"] or "brothers" in row["person"]:
        question = question.replace("What is {person}", "What are {person}")
        answer = answer.replace("the name {person} stands", "the names of {person} stand")
        answer = answer.replace("the name to remember is", "the names to remember are")
    return Draft(pen.prose(question, **row), "", pen.prose(answer, **row))


def definition(pen: Pen) -> Draft:
    """A word, its meaning and its use."""
    row, other = pen.some(table("definitions"), 2)
    facts = {**row, "other": other["word"], "other_meaning": other["meaning"]}
    question = pen.prose(
        (
            '[What does "{word}" mean?|Explain what "{word}" means.]',
            'Define the word "{word}" and use it in a sentence.',
            'Which word means "{meaning}": "{word}" or "{other}"?',
            'Give the part of speech and the meaning of "{word}".',
        ),
        **facts,
    )
    if question.startswith("Which"):
        answer: tuple[str, ...] = (
            '"{word}" does. "{other}", on the other hand, means: {other_meaning}. [An example '
            "of the first|Example]: {example}.",
            'the word is "{word}", {kind}. {example}. "{other}" would mean: {other_meaning}.',
        )
    else:
        answer = (
            '"{word}" is {kind}. [it means|the meaning is]: {meaning}. [For example|An example]: '
            "{example}.",
            '{meaning}: that is what the {part} "{word}" means. [one might say|as in this '
            'sentence]: {example}. ["{near}" is close to it|compare "{near}"].',
            'it is {kind} close in meaning to "{near}": {meaning}. {example}.',
        )
    kind = f"{article(row['part'])} {row['part']}"
    return Draft(question, "", pen.prose(answer, kind=kind, **facts))


def _year(row: Row) -> str:
    year = int(row["year"])
    return f"{-year} BC" if year < 0 else (f"AD {year}" if year < 1000 else str(year))


def event(pen: Pen) -> Draft:
    """When something happened, and what it was."""
    row = pen.one(table("events"))
    facts = {**row, "year": _year(row)}
    question, answer = pen.one(
        (
            ("When was {event}?", "{event} [took place in|belongs to the year] {year}; {note}."),
            (
                "What do you know about {event}?",
                "the [date|year] of {event} is {year}. {note}.",
            ),
            (
                "Which [famous|historical] event [belongs to|is remembered from] {year}?",
                "{year} [is|was] the year of {event}. {note}.",
            ),
        )
    )
    return Draft(pen.prose(question, **facts), "", pen.prose(answer, **facts))


def event_order(pen: Pen) -> Draft:
    """Which of two events came first, and by how many years."""
    pair = pen.some(table("events"), 2)
    while abs(int(pair[0]["year"]) - int(pair[1]["year"])) < 2:
        pair = pen.some(table("events"), 2)
    first, second = sorted(pair, key=lambda row: int(row["year"]))
    gap = int(second["year"]) - int(first["year"])
    if int(first["year"]) < 0 < int(second["year"]):
        gap -= 1
    question = pen.prose(
        (
            "Which came first, {a} or {b}?",
            "How many years lie between {a} and {b}?",
            "Put in order of time: {a}; {b}.",
        ),
        a=pair[0]["event"],
        b=pair[1]["event"],
    )
    answer = pen.prose(
        (
            "{first} came first, in {first_year}. {second} followed in {second_year}, {gap} years "
            "later. [As to the second,|Of the later event we know that] {second_note}.",
            "{gap} years lie between them: {first} belongs to {first_year} and {second} to "
            "{second_year}. [about the earlier one: {first_note}|as to the first, {first_note}].",
            "first {first} ({first_year}), then {second} ({second_year}). the distance is {gap} "
            "years. [as to the later one|concerning the second], {second_note}.",
        ),
        first=first["event"],
        second=second["event"],
        first_year=_year(first),
        second_year=_year(second),
        gap=gap,
        first_note=first["note"],
        second_note=second["note"],
    )
    return Draft(question, "", answer)


def book(pen: Pen) -> Draft:
    """A classic book: author, year and subject; or which of two is older."""
    a, b = pen.some(table("authors"), 2)
    old, new = sorted((a, b), key=lambda row: int(row["year"]))
    facts: dict[str, object] = {**a, **{f"o_{k}": v for k, v in old.items()}}
    facts |= {f"n_{k}": v for k, v in new.items()}
    facts["first"], facts["second"] = a["book"], b["book"]
    kinds = [
        (
            "Who wrote {book}[, and what is it about|]?",
            "{book} was written by {author} and [was published|came out] in {year}. It [tells "
            "of|is "
            "about] {about}.",
        ),
        (
            "Name a book by {author}[|, and say what it is about].",
            "one of the books by {author} is {book} ({year}), [about|the story of] {about}.",
        ),
        (
            "In which classic do we read about {about}?",
            "that is {book}, [a work by|by] {author}, first published in {year}.",
        ),
    ]
    if old["year"] != new["year"]:
        kinds += [
            (
                "Which is older, {first} or {second}?",
                "{o_book} by {o_author} is older: it dates from {o_year}, whereas {n_book} by "
                "{n_author} appeared in {n_year}.",
            ),
            (
                "Compare the subjects of {first} and {second}.",
                "{o_book} ({o_author}) is about {o_about}. {n_book} ({n_author}) is about "
                "{n_about}.",
            ),
        ] * 2
    question, answer = pen.one(kinds)
    return Draft(pen.prose(question, **facts), "", pen.prose(answer, **facts))


def proverb(pen: Pen) -> Draft:
    """The meaning of a proverb, or the proverb for a case."""
    row = pen.one(table("proverbs"))
    question, answer = pen.one(
        (
            (
                'What does the proverb "{proverb}" mean?',
                "[it means|the sense is]: {meaning}. [for instance,|one may use it when] {case}.",
            ),
            (
                "Which proverb fits this case: {case}?",
                '"{proverb}" [would fit|is the one to quote]. its sense: {meaning}.',
            ),
            (
                'Explain "{proverb}" [with an example|by an example].',
                'suppose that {case}. then people say "{proverb}": {meaning}.',
            ),
            (
                "Is there a proverb with [this sense|this lesson]: {meaning}?",
                'yes: "{proverb}". [people quote it|it is heard] when, for example, {case}.',
            ),
        )
    )
    return Draft(pen.prose(question, **row), "", pen.prose(answer, **row))


TASKS = (
    Task("country", country, 100),
    Task("two countries", country_pair, 90),
    Task("element", element, 60),
    Task("two elements", element_pair, 80),
    Task("animal", animal, 90),
    Task("two animals", animal_pair, 90),
    Task("invention", invention, 50),
    Task("definition", definition, 90),
    Task("planet", planet, 24),
    Task("two planets", planet_pair, 50),
    Task("event", event, 50),
    Task("two events", event_order, 90),
    Task("organ", organ, 50),
    Task("book", book, 80),
    Task("why", why, 50),
    Task("proverb", proverb, 60),
)
