"""Factual: capitals, elements, animals, discoveries, words, history, books and whys."""

from __future__ import annotations

from lorascope.embedded.instructions.planets import planet, planet_pair
from lorascope.embedded.instructions.writing import Draft, Pen, Row, Task, article, table


def country(pen: Pen) -> Draft:
    """One country: its capital, its place and a fact."""
    row = pen.one(table("countries"))
    island = row["neighbour"] == "no land neighbour"
    border = "it has no land border" if island else f"it borders on {row['neighbour']}"
    question, answer = pen.one(
        (
            (
                "[What is|Name] the capital of {country}[?|, please.]",
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
                "{capital} [is the capital of|belongs to] {country}. [As to the country|About "
                "it one may say that] {border}, and {fact}.",
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
    answer = answer.replace("[As to the country|About it one may say that] {border}", "{border_up}")
    text = pen.prose(answer, border_up=border, **facts)
    return Draft(
        pen.prose(question, **facts).replace(
            "Name the capital of " + row["country"] + "?", f"Name the capital of {row['country']}."
        ),
        "",
        text,
    )


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
            "{a_capital} is the capital of {a_country} and {b_capital} that of {b_country}; {where}. "
            "[about the first|of {a_country}] one can say that {a_fact}.",
            "{a_country} has its seat of government in {a_capital}; {a_fact}. {b_country} is "
            "governed from {b_capital}; {b_fact}. As to the map, {where}.",
            "as for capitals, {a_capital} and {b_capital}. as for position, {where}. about "
            "{b_country} it is worth knowing that {b_fact}.",
        ),
        **facts,
    )
    return Draft(question, "", answer)


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
            "[Compare|What is the difference between] the elements {a} and {b}.",
            "Does {a} come before {b} in the periodic table?",
        ),
        a=a["element"],
        b=b["element"],
    ).replace("What is the difference between the elements", "Describe the difference between")
    answer = pen.prose(
        (
            "{high} has {high_n} protons and {low} {low_n}, [so {high} is the heavier nucleus|which "
            "is {gap} fewer]. {low_use}.",
            "{low} is number {low_n} and {high} number {high_n}. the former has the symbol {low_s}; "
            "{low_use}. the latter has the symbol {high_s}; {high_use}.",
            "in the periodic table {low} ({low_s}, {low_n}) stands before {high} ({high_s}, "
            "{high_n}). [of the latter we learn: {high_use}|of the former we learn: {low_use}].",
        ),
        low=low["element"],
        high=high["element"],
        low_n=low["number"],
        high_n=high["number"],
        low_s=low["symbol"],
        high_s=high["symbol"],
        low_use=low["use"].replace("it ", f"{low['element']} ", 1)
        if low["use"].startswith("it ")
        else low["use"],
        high_use=high["use"].replace("it ", f"{high['element']} ", 1)
        if high["use"].startswith("it ")
        else high["use"],
        gap=int(high["number"]) - int(low["number"]),
    )
    return Draft(question, "", answer)


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
    facts["groups"] = "fishes" if row["group"] == "fish" else row["group"] + "s"
    return Draft(pen.prose(question, **facts), "", pen.prose(answer, **facts))


def animal_pair(pen: Pen) -> Draft:
    """Two animals: what they share and where they differ."""
    a, b = pen.some(table("animals"), 2)
    facts = {**{f"a_{k}": v for k, v in a.items()}, **{f"b_{k}": v for k, v in b.items()}}
    group_a = f"{article(a['group'])} {a['group']}"
    if a["group"] == b["group"]:
        facts["kinds"] = f"[both are {a['group']}s|they belong to one group, the {a['group']}s]"
        facts["kinds"] = facts["kinds"].replace("fishs", "fishes")
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
            '[What does|Explain what] "{word}" [mean|means]?',
            'Define the word "{word}" and use it in a sentence.',
            'Which word means "{meaning}": "{word}" or "{other}"?',
            'Give the part of speech and the meaning of "{word}".',
        ),
        **facts,
    )
    question = question.replace(" means?", " mean?").replace("Explain what", "What does")
    if question.startswith("Which"):
        answer = (
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
            "later. [As to the second|Of the later event we know that] {second_note}.",
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
    answer = answer.replace("As to the second ", "As to the second, ")
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
                "[Explain the tasks of|What are the tasks of] {organ} and {b_organ}?",
                "{organ}, {place}: {work}. {b_organ}: {b_work}. [besides, as to the former|as to the first], {note}.",
            ),
        )
    )
    question = question.replace(
        "[Explain the tasks of|What are the tasks of]", "What are the tasks of"
    )
    facts["s"] = "" if verb == "do" else "s"
    return Draft(pen.prose(question, **facts), "", pen.prose(answer, **facts))


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
            "{book} was written by {author} and [published|came out] in {year}. It [tells of|is "
            "about] {about}.",
        ),
        (
            "[Name|Which is] a book by {author}[|, and say what it is about].",
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
                "{o_book} ({o_author}) is about {o_about}. {n_book} ({n_author}) is about {n_about}.",
            ),
        ] * 2
    question, answer = pen.one(kinds)
    question = question.replace("[Name|Which is]", "Name")
    answer = answer.replace("and [published|came out] in", "and [was published|came out] in")
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


def proverb(pen: Pen) -> Draft:
    """The meaning of a proverb, or the proverb for a case."""
    row = pen.one(table("proverbs"))
    question, answer = pen.one(
        (
            (
                'What does the proverb "{proverb}" mean?',
                "[it means|the sense is]: {meaning}. [for instance|one may use it when], {case}.",
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
    text = pen.prose(answer, **row).replace("use it when,", "use it when")
    return Draft(pen.prose(question, **row), "", text)


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
