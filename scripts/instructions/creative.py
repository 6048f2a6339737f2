"""Creative: poems, openings, portraits, talk, slogans, letters, fables and riddles."""

from __future__ import annotations

from instructions.stories import (
    character,
    continuation,
    dialogue,
    letter,
    scene,
    setting,
    story_opening,
)
from instructions.writing import (
    Draft,
    Pen,
    Task,
    bulleted,
    lines,
    sentences,
    table,
)


def poem(pen: Pen) -> Draft:
    """Rhyming couplets about a subject."""
    row = pen.one(table("poem_starts"))
    couplets = pen.number(2, 3)
    starts = pen.some(row["starts"].split(";"), 2 * couplets)
    groups = pen.some(lines("rhymes"), couplets)
    verses = []
    for number, group in enumerate(groups):
        for place, ending in enumerate(pen.some(_unlike(group.split(", ")), 2)):
            stop = "," if place == 0 else ("." if number == couplets - 1 else ";")
            verses.append(f"{starts[2 * number + place]}{_pause(ending)}{ending}{stop}")
    instruction = pen.prose(
        (
            "Write a [short|little] poem about {subject}.",
            "Compose {n} rhyming lines about {subject}.",
            "[Make up|Write] a poem in rhyming couplets. The subject is {subject}.",
            "I would like a poem with {n} lines for a card. [It should be about|The theme is] "
            "{subject}.",
            "Put {subject} into verse[, in rhyming pairs of lines|].",
        ),
        subject=row["subject"],
        n={2: "four", 3: "six"}[couplets],
    )
    return Draft(instruction, "", sentences("\n".join(verses)))


def _unlike(endings: list[str]) -> list[str]:
    """Endings with different last words, so that no line rhymes with itself."""
    return list({ending.split()[-1]: ending for ending in endings}.values())


def _pause(ending: str) -> str:
    """A comma where the ending is a clause or a picture of its own."""
    return ", " if ending.startswith(("the ", "a ", "and ", "till ", "for ")) else " "


def haiku(pen: Pen) -> Draft:
    """Five, seven and five syllables on a season."""
    row = pen.one(table("haiku"))
    first, last = pen.some(row["five"].split(";"), 2)
    middle = pen.one(row["seven"].split(";"))
    title = pen.chance(0.3)
    instruction = pen.prose(
        (
            "Write a haiku about {season}{extra}.",
            "[Compose|Give me] a haiku [set in|for] {season}{extra}.",
            "Can you [capture|describe] {season} in three short lines{extra}?",
            "A haiku, please: {season}{extra}.",
        ),
        season="the night" if row["season"] == "night" else row["season"],
        extra=pen.one(
            (
                "",
                " to be read aloud",
                " that fits on a postcard",
                " for " + pen.person()["name"],
                " to end a letter",
                " for a calendar",
            )
        )
        if not title
        else " with a title",
    )
    head = f"{pen.word('titles')}\n\n" if title else ""
    return Draft(instruction, "", head + sentences(f"{first} —\n{middle},\n{last}."))


def slogan(pen: Pen) -> Draft:
    """Two or three lines of advertising."""
    row = pen.one(table("products"))
    facts = {**row, "name": pen.person()["name"], "town": pen.word("towns")}
    facts["short"] = row["product"].split(" ", 1)[1]
    offers = [
        "{name}'s: {benefit}.",
        "[Come in|Try us]: {benefit}.",
        "{image}. [Only|Found] in {town}.",
        "For {user}: {image}.",
        "{name} of {town} - {image}.",
        "[Not just|More than] {product}: {image}.",
        "[Dear {user}, you|{user}, you] have waited long enough.",
        "{benefit}. Ask {name}.",
        "What {town} needed: {benefit}.",
    ]
    chosen = pen.some(offers, pen.number(2, 3))
    instruction = pen.prose(
        (
            "Write [some|a few] slogans for {product} in {town}. The owner is called {name}.",
            'Suggest {n} advertising lines for {product}, "{name}\'s" in {town}.',
            "{name} sells to {user} in {town}. Find {n} slogans for {product}.",
        ),
        n={2: "two", 3: "three"}[len(chosen)],
        **facts,
    )
    spoken = [pen.prose(line, **facts) for line in chosen]
    return Draft(instruction, "", bulleted(spoken))


def simile(pen: Pen) -> Draft:
    """Find an image for an idea and say why it fits."""
    row, other = pen.some(table("similes"), 2)
    person = pen.person()
    instruction = pen.prose(
        (
            "[Find|Invent] a metaphor for {idea}[ and explain it|].",
            "Complete the sentence and [explain|give the reason]: {idea} is like ...",
            "Compare {idea} with something [concrete|from everyday life].",
            "What image would {name} use for {idea}, and what for {other}?",
        ),
        idea=row["idea"],
        other=other["idea"],
        **person,
    )
    if " and what for " in instruction:
        output = "for {idea}, {name} might choose {image}: {because}. and {other} could be "
        output += "{other_image}, since {other_because}."
    else:
        output = pen.one(
            (
                "{idea} is like {image}: {because}. [it is not like|one should not confuse it "
                "with] {other_image}, which [suits|belongs to] {other}.",
                "I would call {idea} {image}, because {because}. a^ {trade} [in {town} |]might "
                "put it in another way.",
                "think of {image}. {because}. [it is the same with|so it is with] {idea}[, as "
                "any {trade} knows|].",
                "{image} [comes to mind|will do]. {because}, and that is [true of|just the way "
                "of] {idea} [in every {season}|whatever the {trade} says].",
            )
        )
    text = pen.prose(
        output,
        idea=row["idea"],
        image=row["image"],
        because=row["because"],
        other=other["idea"],
        other_image=other["image"],
        other_because=other["because"],
        name=person["name"],
        trade=pen.word("trades"),
        town=pen.word("towns"),
        season=pen.word("seasons"),
    )
    return Draft(instruction, "", text)


def fable(pen: Pen) -> Draft:
    """A fable of two animals with a moral."""
    row = pen.one(table("fables"))
    facts = scene(pen)
    instruction = pen.prose(
        (
            "Write a fable about {first} and {second}.",
            "Tell a fable with this moral: {moral}.",
            "[Invent|Tell me] a short animal tale for {name}. It should teach: {moral}.",
            "Make up a fable with {first} in it, to be told on a^ {season} evening.",
        ),
        **row,
        **facts,
    )
    output = pen.prose(
        (
            "{first} {proud}. {second} lived [close by|near {town}] and said nothing. one {season} "
            "day {setting}. {act}, and {result}. [The moral|Moral]: {moral}.",
            "near {place} there [once |]lived {first} and {second}. The former {proud}. then, as "
            "{weather}, {setting}: {act}. {result}. [Remember|So it is]: {moral}.",
            "in the {season} of a hard year {setting}. before that, {first} {proud}, whatever "
            "{second} [replied|thought]. now {act}. [in the end|so] {result}. {moral}.",
        ),
        **row,
        **facts,
    )
    return Draft(instruction, "", output)


def riddle(pen: Pen) -> Draft:
    """Make a riddle, or solve one."""
    row = pen.one(table("riddles"))
    clues = pen.some(row["clues"].split(";"), pen.number(2, 3))
    text = ". ".join(clues) + ". What am I?"
    facts = {**row, "who": pen.person()["name"], "trade": pen.word("trades")}
    if pen.chance(0.5):
        instruction = pen.prose(
            (
                'Make up a riddle whose answer is "{answer}".',
                "Write a riddle about {answer} for {who}, the {trade}.",
                "Describe {answer} in a riddle[, without naming it|].",
            ),
            **facts,
        )
        extra = pen.prose(("[Answer|Solution]: {answer}.", ""), **facts)
        return Draft(instruction, "", f"{text}\n{extra}".strip())
    instruction = pen.prose(
        (
            "[Solve|Guess] the riddle[ and explain the answer|].",
            "What is the answer to this riddle[, and why|]?",
            "{who} the {trade} asks this riddle. [Answer it.|What is meant?]",
        ),
        **facts,
    )
    clue = clues[0][0].lower() + clues[0][1:] if not clues[0].startswith("I ") else clues[0]
    return Draft(
        instruction,
        text,
        pen.prose(
            (
                "[It is|The answer is] {answer}: {reason}. [the hint was|that explains the line] "
                '"{clue}".',
                '{answer}. {reason}, which [explains|is the key to] "{clue}".',
            ),
            clue=clue,
            **facts,
        ),
    )


TASKS = (
    Task("poem", poem, 130),
    Task("haiku", haiku, 80),
    Task("story opening", story_opening, 100),
    Task("continuation", continuation, 90),
    Task("character", character, 100),
    Task("setting", setting, 90),
    Task("dialogue", dialogue, 80),
    Task("slogan", slogan, 70),
    Task("simile", simile, 80),
    Task("letter", letter, 76),
    Task("fable", fable, 40),
    Task("riddle", riddle, 54),
)
