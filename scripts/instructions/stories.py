"""Creative prose: openings, continuations, portraits, scenes, talk and letters."""

from __future__ import annotations

from instructions.writing import (
    Draft,
    Pen,
    Row,
    lines,
    table,
    words,
)


def story_opening(pen: Pen) -> Draft:
    """The first paragraph of a story."""
    facts = scene(pen)
    begin, more = pen.some(table("story_parts"), 2)
    instruction = pen.prose(
        (
            "Write the [opening|first paragraph] of a story about a^ {trade} named {name}.",
            "Begin a story in which {incident}. The main character is {name}, a^ {trade}.",
            "Start a tale with this event: {incident}.",
            "Give me an opening paragraph. [Who|Character]: {name}, a^ {trade}. Place: {place}.",
        ),
        **facts,
    )
    output = pen.prose(
        (
            "{hook}. {name} was a^ {trade} {where}, and {weather} on the day that {incident}. "
            "{turn}[; |. ]{close}.",
            "{weather} {where} when {incident}. {hook}. [{name}, the {trade}, was the first to "
            "hear of it|"
            "the {trade}, {name}, heard of it before breakfast]. {turn}. {close}.",
            "on a^ {season} [morning|evening] {where}, {incident}. {hook}, [and a^ {trade} has "
            "other things to do|but a^ {trade} hears everything]. {turn}. {close}.",
            "{hook}. {he} lived as a^ {trade} {where} and wanted nothing more. [Then|But "
            "one {day}] {incident}. {turn}.",
        ),
        where=f"near {facts['place']}" if "Place:" in instruction else f"in {facts['town']}",
        hook=begin["hook"],
        turn=more["turn"],
        close=begin["close"],
        **facts,
    )
    return Draft(instruction, "", _named(output, facts))


def scene(pen: Pen) -> Row:
    """Who, where and when, drawn together."""
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
    facts = scene(pen)
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
    facts = scene(pen)
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
    facts = scene(pen)
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
    moody = (
        "{hear}. that was the first thing one noticed about {here}; then, that {smell}. {see}, "
        "and a^ {mood} feeling lay over it all.",
        "a^ {mood} [hour|moment]: {see}, and {smell}. {hear}. [nobody|no one] spoke, and "
        "{weather}.",
        "{weather}. {see}. everything about {here} was {mood}, [even the {object}|from the "
        "{object} "
        "to the {trade}] in the corner. {hear}.",
    )
    plain = (
        "{time}, {see}. {hear}, and {smell}. {weather}. [only|nobody but] a^ {trade} [was about|"
        "stood there], holding a^ {object}.",
        "{weather}. this was {here} {time}: {see}. {smell}; {hear}. a^ {object} had been left "
        "[behind|in a corner], as if someone meant to return.",
        "{see}. {time} the place belonged to a^ {trade} named {name}, who liked it that way. "
        "{hear}. {smell}, and outside {weather}.",
    )
    output = pen.prose(
        moody if "mood" in instruction else plain,
        time=time,
        mood=mood,
        here=f"the {row['place'].split(' ', 1)[1]}",
        **{key: row[key] for key in ("see", "hear", "smell")},
        **facts,
    )
    return Draft(instruction, "", output)


def dialogue(pen: Pen) -> Draft:
    """Two people of different trades talk about a small matter."""
    facts = scene(pen)
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


def letter(pen: Pen) -> Draft:
    """A short personal letter."""
    facts = scene(pen)
    facts["place"] = "the " + facts["place"].split(" ", 1)[1]
    row = pen.one(table("letters"))
    to = pen.person("to_")
    while to["to_name"] == facts["name"]:
        to = pen.person("to_")
    instruction = pen.prose(
        (
            "Write a[ short|] letter from {name} to {to_name}: {kind}.",
            "{name} writes to {to_name}. The [occasion|purpose]: {kind}. Write the letter.",
            "Compose a letter ({kind}) that {name} might send to {to_name} in {season}.",
        ),
        kind=row["kind"],
        **to,
        **facts,
    )
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
