"""Factual tasks on the eight planets, whose order and sizes are compared by computation."""

from __future__ import annotations

from instructions.writing import Draft, Pen, table

PLACES = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
KINDS = {"rocky": "a rocky planet", "gaseous": "a gas giant", "icy": "an ice giant"}


def planet(pen: Pen) -> Draft:
    """One planet."""
    row = pen.one(table("planets"))
    facts = {**row, "place": PLACES[int(row["place"]) - 1], "kind": KINDS[row["kind"]]}
    question, answer = pen.one(
        (
            (
                "What kind of planet is {name}?",
                "{name} is {kind}, the {place} from the sun. {note}.",
            ),
            (
                "How long does {name} need for one journey round the sun?",
                "about {year}. {name} is the {place} planet, and its diameter is roughly "
                "{diameter} kilometres.",
            ),
            (
                "Which is the {place} planet from the sun?",
                "it is {name}, {kind}. its year lasts about {year}.",
            ),
            (
                "What is [special|remarkable] about the planet {name}?",
                "{note}. it measures about {diameter} kilometres across and is {kind}.",
            ),
        )
    )
    return Draft(pen.prose(question, **facts), "", pen.prose(answer, **facts))


def planet_pair(pen: Pen) -> Draft:
    """Two planets: distance, size and kind."""
    a, b = pen.some(table("planets"), 2)
    near, far = sorted((a, b), key=lambda row: int(row["place"]))
    small, large = sorted((a, b), key=lambda row: int(row["diameter"].replace(",", "")))
    facts = {f"near_{key}": value for key, value in near.items()}
    facts |= {f"far_{key}": value for key, value in far.items()}
    facts |= {f"large_{key}": value for key, value in large.items()}
    facts |= {f"small_{key}": value for key, value in small.items()}
    facts["a"], facts["b"] = a["name"], b["name"]
    same = near["kind"] == far["kind"]
    facts["kinds"] = (
        f"each of the two is {KINDS[near['kind']]}"
        if same
        else f"{near['name']} is {KINDS[near['kind']]}, but {far['name']} is {KINDS[far['kind']]}"
    )
    question, answer = pen.one(
        (
            (
                "Which is larger, {a} or {b}?",
                "{large_name}. its diameter is about {large_diameter} kilometres, that of "
                "{small_name} about {small_diameter}. {kinds}.",
            ),
            (
                "Which is closer to the sun, {a} or {b}?",
                "{near_name} is closer and needs about {near_year} for one orbit; {far_name} "
                "needs about {far_year}. [As for {far_name}, {far_note}|Of {near_name} we know "
                "that {near_note}].",
            ),
            (
                "Compare the planets {a} and {b}.",
                "{kinds}. {near_name} has the shorter year, about {near_year} as against "
                "{far_year}. {large_name} is the larger one. {far_note_full}",
            ),
        )
    )
    facts["far_note_full"] = f"of {far['name']} one can add that {far['note']}."
    return Draft(pen.prose(question, **facts), "", pen.prose(answer, **facts))
