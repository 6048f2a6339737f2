"""Creative: poems, openings, portraits, talk, slogans, letters, fables and riddles."""

from __future__ import annotations

from lorascope.embedded.instructions.writing import (
    Draft,
    Pen,
    Row,
    Task,
    bulleted,
    lines,
    sentences,
    table,
    words,
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
            "Can you [capture|describe] {season} in three [short|] lines{extra}?",
            "A haiku, please: {season}{extra}.",
        ),
        season="the night" if row["season"] == "night" else row["season"],
        extra=pen.one(
            (
                "",
                " that mentions " + pen.one(("no people", "one small thing", "a sound")),
                " in a " + pen.word("moods") + " mood",
                " for " + pen.person()["name"],
                " to end a letter",
                " for a calendar",
            )
        )
        if not title
        else " with a title",
    )
    instruction = instruction.replace("three lines", "three short lines").replace("  ", " ")
    head = f"{pen.word('titles')}\n\n" if title else ""
    return Draft(instruction, "", head + sentences(f"{first} —\n{middle},\n{last}."))


def story_opening(pen: Pen) -> Draft:
    """The first paragraph of a story."""
    facts = _scene(pen)
    begin, more = pen.some(table("story_parts"), 2)
    instruction = pen.prose(
        (
            "Write the [opening|first paragraph] of a story about a^ {trade} named {name}.",
            "Begin a story in which {incident}. The main character is {name}, a^ {trade}.",
            "[How might a novel begin|Start a tale] with this event: {incident}[?|.]",
            "Give me an opening paragraph. [Who|Character]: {name}, a^ {trade}. "
            "[Where|Place]: {place}.",
        ),
        **facts,
    ).replace(
        "Start a tale with this event: " + facts["incident"] + "?",
        "Start a tale in which " + facts["incident"] + ".",
    )
    output = pen.prose(
        (
            "{hook}. {name} was a^ {trade} in {town}, and {weather} on the day that {incident}. "
            "{turn}[; |. ]{close}.",
            "{weather} when {incident}. {hook}. [{name}, the {trade}, was the first to hear of it|"
            "the {trade}, {name}, heard of it before breakfast]. {turn}. {close}.",
            "on a {season} [morning|evening] in {town}, {incident}. {hook}, [and a^ {trade} has "
            "other things to do|but a^ {trade} hears everything]. {turn}. {close}.",
            "{hook}. {he} lived as a^ {trade} near {place} and wanted nothing more. [Then|But "
            "one {day}] {incident}. {turn}.",
        ),
        hook=begin["hook"],
        turn=more["turn"],
        close=begin["close"],
        **facts,
    )
    return Draft(instruction, "", _named(output, facts))


def _scene(pen: Pen) -> Row:
    return {
        **pen.person(),
        "trade": pen.word("trades"),
        "incident": pen.one(lines("incidents")),
        "place": pen.one(table("places"))["place"],
        "town": pen.word("towns"),
        "weather": pen.word("weather"),
        "season": pen.word("seasons"),
        "day": pen.word("days"),
        "object": pen.word("objects"),
        "fruit": pen.word("fruits"),
    }


def _named(text: str, facts: Row) -> str:
    """Name the person at the first mention, where a pronoun came first."""
    first = text.find(facts["name"])
    for pronoun in (facts["he"].capitalize(), facts["he"]):
        for before, after in ((" ", " "), ("", " ")):
            mark = f"{before}{pronoun}{after}"
            place = text.find(mark)
            starts = before == "" and not text.startswith(mark)
            if place >= 0 and not starts and (first < 0 or place < first):
                return text.replace(mark, f"{before}{facts['name']}{after}", 1)
    return text


def continuation(pen: Pen) -> Draft:
    """Go on from a given sentence."""
    facts = _scene(pen)
    given = pen.prose(
        (
            "{name} had been a^ {trade} in {town} for [twenty|nine|thirty] years when {incident}.",
            "On {day} {incident}, and only {name} the {trade} was awake.",
            "{weather}, and {incident}. {name} put down the {object}.",
            "Nobody at {place} had noticed {name} until {incident}.",
        ),
        **facts,
    )
    parts = pen.some(table("story_parts"), 2)
    instruction = pen.prose(
        (
            "Continue the story[ with two or three sentences|].",
            "What happens next?",
            "[Carry on from here|Go on with this beginning].",
            "Write the next [few sentences|lines] of this story.",
        )
    )
    output = pen.prose(
        (
            "{turn}. under the {object} lay a^ [ticket|note|ring|list of names], and beside it "
            "some {fruit}. [{he} understood at once|it made no sense to {him}]. {close}.",
            "{turn}. [outside|at the corner] stood {b_name}, the {b_trade}, with a^ {object} under "
            'one arm. ["You had better come,"|"Do not ask,"] {b_name} said. {other}.',
            "{turn}, for {b_name} was already [at the door|on the stairs]. {other}. {he} took the "
            "{object} and [left by the back|followed]. {close}.",
            "{b_name} the {b_trade} [said it was nothing|was the next to know]. {turn}. By {day} "
            "the {object} had gone as well, and {close_bare}.",
        ),
        turn=parts[0]["turn"],
        other=parts[1]["turn"].replace("{he}", "{name}", 1),
        close=parts[1]["close"],
        close_bare=parts[0]["close"].removeprefix("and ").removeprefix("but "),
        b_trade=pen.word("trades"),
        b_name=pen.one([p for p in words("women") if p != facts["name"]]),
        **facts,
    )
    return Draft(instruction, given, output)


def character(pen: Pen) -> Draft:
    """A portrait: looks, a habit, a past and a wish."""
    facts = _scene(pen)
    looks, habit, past, wish = (
        row[key]
        for row, key in zip(
            pen.some(table("traits"), 4), ("looks", "habit", "past", "wish"), strict=True
        )
    )
    instruction = pen.prose(
        (
            "Describe a character: {name}, a^ {trade}[ from {town}|].",
            "Write a [short|brief] portrait of a^ {trade} called {name}.",
            "Invent a^ {trade} for a novel[ and describe {him}|]. The name is {name}.",
            "[Introduce|Sketch] {name}, the {trade} of {town}[, in a few sentences|].",
        ),
        **facts,
    )
    output = pen.prose(
        (
            "{name}, the {trade}, has {looks}. {he} {habit}. [Few people know|It is said] that "
            "{he} {past}. what {he} wants now is {wish}.",
            "people in {town} know {name} by {looks}. {he} {past}, and [since then|ever since] "
            "{he} {habit}. {his} [only|secret] wish is {wish}.",
            "[one would not take {name} for a^ {trade}|{name} does not look like a^ {trade}]: "
            "{looks}. {he} {habit}, and {he} {past}. {he} hopes {wish}.",
            "{he} {habit}; that is the first thing one learns about {name}. the {trade} of {town} "
            "{past}. with {looks}, {he} [goes about the work|stands in the shop] and hopes {wish}.",
        ),
        looks=looks,
        habit=habit,
        past=past,
        wish=wish,
        **facts,
    )
    return Draft(instruction, "", output)


def setting(pen: Pen) -> Draft:
    """A place at an hour, through the senses."""
    facts = _scene(pen)
    row = pen.one(table("places"))
    time, mood = pen.word("times"), pen.word("moods")
    instruction = pen.prose(
        (
            "Describe {here} {time}.",
            "Write a description of {here}. The mood should be {mood}.",
            "Paint {here} in words, {time}. [Use more than one sense|Let the reader hear it].",
            "[Set a scene|Give me a setting] in {here}, {time}.",
        ),
        here=row["place"],
        time=time,
        mood=mood,
    )
    output = pen.prose(
        (
            "{time}, {see}. {hear}, and {smell}. {weather}. [only|nobody but] a^ {trade} [was "
            "about|stood there], holding a^ {object}.",
            "{weather}. in {here} {see}. {smell}; {hear}. a^ {object} had been left [behind|in a "
            "corner], as if someone meant to return.",
            "{hear}. that was the first thing one noticed about {here}; then, that {smell}. {see}, "
            "and {time} a^ {mood} feeling lay over it all.",
            "{see}. {time} the place belonged to a^ {trade} named {name}, who liked it that way. "
            "{hear}. {smell}, and outside {weather}.",
        ),
        time=time,
        mood=mood,
        here=f"the {row['place'].split(' ', 1)[1]}",
        **{key: row[key] for key in ("see", "hear", "smell")},
        **facts,
    )
    return Draft(instruction, "", output)


def dialogue(pen: Pen) -> Draft:
    """Two people of different trades talk about a small matter."""
    facts = _scene(pen)
    one, two = pen.some(words("trades"), 2)
    row = pen.one(table("talk"))
    parts = {key: pen.prose(value, **facts).rstrip(".") for key, value in row.items()}
    instruction = pen.prose(
        (
            "Write a [short|brief] dialogue between a^ {one} and a^ {two} about {problem}.",
            "A^ {one} and a^ {two} talk about {problem}. Write [the scene|what they say].",
            "[Let|Have] a^ {one} and a^ {two} discuss {problem}.",
        ),
        one=one,
        two=two,
        problem=pen.fill(row["problem"], **facts),
    )
    second = parts["second"] if parts["second"].endswith("?") else parts["second"] + "."
    if pen.chance(0.5):
        spoken = (
            f"{one.capitalize()}: {parts['first']}.\n{two.capitalize()}: {second}\n"
            f"{one.capitalize()}: {parts['reply']}.\n{two.capitalize()}: {parts['end']}."
        )
    else:
        mark = "asked" if second.endswith("?") else "said"
        second_said = second if mark == "asked" else second[:-1] + ","
        gesture = pen.fill(
            "The {one} [looked at the {object}|shrugged|turned to the window|put on a hat|"
            "poured some tea|thought for a while].",
            one=one,
            object=facts["object"],
        )
        spoken = (
            f'"{parts["first"]}," said the {one}.\n"{second_said}" {mark} the {two}.\n'
            f'{gesture} "{parts["reply"]}."\n"{parts["end"]}," the {two} said.'
        )
    return Draft(instruction, "", spoken)


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


def letter(pen: Pen) -> Draft:
    """A short personal letter."""
    facts = _scene(pen)
    facts["place"] = facts["place"].replace("a ", "the ", 1).replace("an ", "the ", 1)
    row = pen.one(table("letters"))
    to = pen.person("to_")
    while to["to_name"] == facts["name"]:
        to = pen.person("to_")
    instruction = pen.prose(
        (
            "Write a [short|] letter from {name} to {to_name}: {kind}.",
            "{name} writes to {to_name}. The [occasion|purpose]: {kind}. Write the letter.",
            "Compose a letter ({kind}) that {name} might send to {to_name} in {season}.",
        ),
        kind=row["kind"],
        **to,
        **facts,
    ).replace("a  letter", "a letter")
    output = pen.prose(
        (
            "Dear {to_name},\n\n{open}. {body}. {close}.\n\n[Yours|Your old friend|With warm "
            "wishes],\n{name}",
            "My dear {to_name},\n\n{open}. {body}. [And now|But enough]: {close}.\n\n[Ever yours|"
            "Faithfully|As always],\n{name}",
        ),
        **to,
        **facts,
        **{key: row[key] for key in ("open", "body", "close")},
    )
    return Draft(instruction, "", output)


def fable(pen: Pen) -> Draft:
    """A fable of two animals with a moral."""
    row = pen.one(table("fables"))
    facts = _scene(pen)
    instruction = pen.prose(
        (
            "Write a fable about {first} and {second}.",
            "Tell a fable [that shows|with the moral] that {moral}.",
            "[Invent|Tell me] a short animal tale for {name}. It should teach: {moral}.",
            "Make up a fable that begins near {place} in {season}, with {first} in it.",
        ),
        **row,
        **facts,
    ).replace("with the moral that", "with this moral:")
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
    instruction = (
        pen.prose(
            (
                "[Solve|Guess] the riddle[ and explain the answer|].",
                "What is the answer to this riddle[, and why|]?",
                "{who} the {trade} asks this riddle. [Answer it|Who am I]?",
            ),
            **facts,
        )
        .replace("Answer it?", "Answer it.")
        .replace("Who am I?", "What is meant?")
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
