"""Practical tasks of the household: procedures, safety, stains and plants."""

from __future__ import annotations

from instructions.writing import (
    Draft,
    Pen,
    bulleted,
    numbered,
    sentences,
    table,
)


def how_to(pen: Pen) -> Draft:
    """Instructions for a household task, complete or for one step."""
    row = pen.one(table("howto"))
    steps = row["steps"].split(";")
    kind = pen.one(("all", "all", "after", "order"))
    if kind == "after":
        at = pen.number(0, len(steps) - 2)
        instruction = pen.prose(
            (
                "I want to {goal}. I have come to this step: {step}. What comes next?",
                "To {goal}, what does one do after this: {step}?",
            ),
            goal=row["goal"],
            step=steps[at],
        )
        more = steps[at + 2] if at + 2 < len(steps) else ""
        output = pen.prose(
            ("{next}. " + ("after that, {more}. " if more else "") + "[{hint}|Remember: {hint}].",),
            next=steps[at + 1],
            more=more,
            hint=row["hint"],
        )
        return Draft(instruction, "", output)
    if kind == "order":
        mixed = pen.some(steps, len(steps))
        instruction = pen.prose(
            "[Put the steps in the right order|Bring the steps into order]: how to {goal}.", **row
        )
        return Draft(instruction, sentences(bulleted(mixed)), sentences(numbered(steps)))
    instruction = pen.prose(
        (
            "How do I {goal}?",
            "[Explain|Tell me] how to {goal}.",
            "Give [short|step-by-step] instructions: how to {goal}.",
            "{name} has never tried to {goal}. [Help {him}|Explain it to {him}].",
        ),
        **row,
        **pen.person(),
    )
    if pen.chance(0.5):
        output = numbered([sentences(step) + "." for step in steps])
        output += "\n" + pen.prose("[Tip: |]{hint}.", **row)
    else:
        output = pen.prose(
            "first, {a}. then {b}. [after that|next], {c}. [{rest}|finally: {rest}]. {hint}.",
            a=steps[0],
            b=steps[1],
            c=steps[2],
            rest="; ".join(steps[3:]),
            hint=row["hint"],
        )
    return Draft(instruction, "", output)


def safety(pen: Pen) -> Draft:
    """Rules of safety with their reason."""
    row = pen.one(table("safety"))
    rules = pen.some(row["rules"].split(";"), pen.number(2, 4))
    facts = {**row, **pen.person(), "rule": rules[0], "n": len(rules)}
    if pen.chance(0.25):
        instruction = pen.prose(
            'Why does one say "{rule}"? [It is about|The topic is] {topic}.', **facts
        )
        output = pen.prose(
            "[because|the reason is that] {reason}. [for the same reason|besides], {more}.",
            more=rules[1],
            **facts,
        )
        return Draft(instruction, "", output)
    instruction = pen.prose(
        (
            "What should {name} [keep in mind|remember]? The topic is {topic}.",
            "Give {n} rules of safety. Topic: {topic}.",
            "[Write a short warning|Give advice] for a notice board: {topic}.",
        ),
        **facts,
    )
    if pen.chance(0.5):
        output = sentences(bulleted([sentences(rule) + "." for rule in rules]))
        output += "\n" + pen.prose("[Reason|Why]: {reason}.", **facts)
    else:
        output = pen.prose(
            (
                "{first}{rest}. [the reason|remember]: {reason}.",
                "since {reason}, {first}{rest}.",
            ),
            first=rules[0],
            rest="".join(f", {rule}" for rule in rules[1:-1]) + f", and {rules[-1]}",
            **facts,
        )
    return Draft(instruction, "", output)


def cleaning(pen: Pen) -> Draft:
    """How to treat a stain on a thing."""
    row, other = pen.some(table("stains"), 2)
    cloth = pen.one(
        (
            "a white tablecloth",
            "a cotton shirt",
            "a carpet",
            "an apron",
            "a linen dress",
            "a woollen coat",
            "a pair of trousers",
            "a cushion",
            "a curtain",
            "a school bag",
        )
    )
    facts = {**row, **pen.person(), "cloth": cloth, "other": other["stain"]}
    facts |= {"other_first": other["first"], "other_never": other["never"]}
    two = pen.chance(0.4)
    both = (
        "There are two stains on {cloth}: {stain} and {other}. What should I do?",
        "{name} has {stain} and {other} on {cloth}. How can {he} get them out?",
    )
    single = (
        "How do I remove {stain} from {cloth}?",
        "{name} has a stain of {stain} on {cloth}. [Advise {him}.|What helps?]",
        "[Help|Quick]: {stain} on {cloth}!",
    )
    instruction = pen.prose(both if two else single, **facts)
    output = pen.prose(
        (
            "treat them one by one. for {stain}: {first}, then {then}. for {other}: {other_first}, "
            "and do not {other_never}.",
            "begin with the {stain}: {first}. {then}. as to the {other}, {other_first}; never "
            "{other_never}.",
        )
        if two
        else (
            "{first}. [then|after that] {then}. [whatever you do, do not|never] {never}.",
            "do not {never}. [instead|rather], {first}, and then {then}. [try it on a hidden "
            "corner first|test it at the hem before you begin].",
            "with {cloth}, be patient: {first}; {then}. [repeat|do it again] if a trace is left.",
        ),
        **facts,
    )
    return Draft(instruction, "", output)


def gardening(pen: Pen) -> Draft:
    """Care of a plant, or of two."""
    row, other = pen.some(table("plants"), 2)
    facts = {**row, "other": other["plant"], "other_care": other["care"], "town": pen.word("towns")}
    facts |= {"other_place": other["place"], **pen.person(), "other_season": other["season"]}
    if pen.chance(0.5):
        instruction = pen.prose(
            (
                "{name} wants to grow {plant} and {other}. [Where|How] should {he} plant them?",
                "Plan a bed with {plant} and {other}. [Say when to plant each.|What do they need?]",
            ),
            **facts,
        )
        answer: tuple[str, ...] = (
            "{plant}: {place}; {other}: {other_place}. the season for the first is "
            "{season}, for the second {other_season}. [Later|In the months after], {care}.",
            "in {season} prepare {place} for {plant}. in {other_season} find {other_place} for "
            "{other}. mind two things: {water}, and, with the {other}, {other_care}.",
        )
    else:
        instruction = pen.prose(
            (
                "How do I [grow|look after] {plant}?",
                "{name} has planted {plant} in {town}. What care is needed?",
                "When and where should I plant {plant}?",
                "I have no luck with {plant}. What may be wrong?",
            ),
            **facts,
        )
        answer = (
            "plant {plant} in {season}. the right place: {place}. {water}, and {care}.",
            "{place} suits {plant} best. [the time to plant is {season}|plant in {season}]. "
            "{care}, and {water}.",
            "three things matter. the right place is {place}. as to watering, {water}. as to work, "
            "{care}.",
        )
    return Draft(instruction, "", pen.prose(answer, **facts))
