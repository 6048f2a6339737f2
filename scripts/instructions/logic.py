"""Reasoning without numbers: syllogisms, orderings, odd ones out and conditionals."""

from __future__ import annotations

from itertools import pairwise

from instructions.writing import Draft, Pen, listed, table, words


def syllogism(pen: Pen) -> Draft:
    """Two premises and a conclusion that follows from them, or does not."""
    row = pen.one(table("chains"))
    inner, middle, outer = row["inner"], row["middle"], row["outer"]
    other = pen.one([r["outer"] for r in table("chains") if r["field"] != row["field"]])
    form = pen.one(("follows", "negative", "converse", "undistributed"))
    instruction = pen.prose(
        (
            "Does the conclusion follow from the [premises|two statements]? [Explain|Say why].",
            "[Decide|Judge] whether this argument is [valid|sound in its form][ and say why|].",
            "[Is the reasoning correct|Is this good reasoning]? Give a [reason|short reason].",
        )
    )
    premises, conclusion, answer = {
        "follows": (
            "all {inner} are {middle}. all {middle} are {outer}.",
            "all {inner} are {outer}.",
            (
                "[Yes|Yes, it follows]. {inner} lie inside the group of {middle}, and that whole "
                "group lies inside {outer}, so no [exception is|exceptions are] possible.",
                "it [follows|is valid]. whatever holds of every one of the {middle} holds of "
                "{inner} too, because {inner} are among them; [therefore|hence] they are {outer}.",
            ),
        ),
        "negative": (
            "all {inner} are {middle}. no {middle} are {other}.",
            "no {inner} are {other}.",
            (
                "[Yes|The argument holds]. {inner} belong to the {middle}, and [nothing|not one] "
                "in that group is among the {other}. so {inner} and {other} have no member in "
                "common.",
                "it is valid. if one of the {inner} were among the {other}, then one of the "
                "{middle} would be too, and the second premise [rules that out|forbids it].",
            ),
        ),
        "converse": (
            "all {inner} are {middle}.",
            "all {middle} are {inner}.",
            (
                "[No|It does not follow]. the premise says that {inner} are [part of|inside] the "
                "{middle}; it leaves room for {middle} that are not {inner}.",
                "the argument is not valid. it turns the statement round. knowing that every one "
                "of the {inner} is among the {middle} tells us nothing about the other {middle}.",
            ),
        ),
        "undistributed": (
            "all {inner} are {outer}. all {middle} are {outer}.",
            "all {inner} are {middle}.",
            (
                "no. two groups may both lie inside {outer} and still be [apart|different]. "
                "the premises alone do not place {inner} among the {middle}[, true or not|].",
                "it does not follow. [sharing the label|both being] {outer} does not tie {inner} "
                "to {middle}. the conclusion may be true, yet these premises do not prove it.",
            ),
        ),
    }[form]
    facts = {"inner": inner, "middle": middle, "outer": outer, "other": other}
    text = pen.prose(f"{premises} therefore {conclusion}", **facts)
    return Draft(instruction, text, pen.prose(answer, **facts))


def ordering(pen: Pen) -> Draft:
    """Put four people in order from statements about neighbours."""
    more, most, least = pen.one(
        (
            ("taller", "tallest", "shortest"),
            ("older", "oldest", "youngest"),
            ("faster", "fastest", "slowest"),
            ("richer", "richest", "poorest"),
            ("stronger", "strongest", "weakest"),
            ("heavier", "heaviest", "lightest"),
            ("more patient", "most patient", "least patient"),
            ("more careful", "most careful", "least careful"),
            ("kinder", "kindest", "least kind"),
        )
    )
    opposite = {"taller": "shorter", "older": "younger", "faster": "slower", "richer": "poorer"}
    names = pen.some((*words("women"), *words("men")), 4)
    hints = []
    for upper, lower in pairwise(names):
        if more in opposite and pen.chance(0.4):
            hints.append(f"{lower} is {opposite[more]} than {upper}")
        else:
            hints.append(f"{upper} is {more} than {lower}")
    pen.rng.shuffle(hints)
    top = pen.chance(0.5)
    ask = pen.one((most, least)) if pen.chance(0.3) else (most if top else least)
    who = names[0] if ask == most else names[-1]
    question = pen.prose(
        (
            "{hints}. who is the {ask}?",
            "we know that {hints}. which of the four is the {ask}?",
        ),
        hints=listed(hints) if pen.chance(0.5) else ". ".join(hints),
        ask=ask,
    )
    if pen.chance(0.5):
        order = " > ".join(names)
        answer = (
            "[Put together|Taken together|Combined], the statements give the order {order}, from "
            "{most} to {least}. the {ask} is {who}.",
            "{who}. lining everyone up from the {most} to the {least} gives {order}.",
        )
    else:
        order = ", ".join(names)
        answer = (
            "link the clues: {a} comes before {b}, {b} before {c} and {c} before {d}. so {who} is "
            "the {ask}.",
            "[begin with|start from] {b}: {a} is above, and {c} is below. {d} is lower still. "
            "that makes {who} the {ask}.",
        )
    a, b, c, d = names
    facts = {"order": order, "most": most, "least": least, "ask": ask, "who": who}
    instruction = pen.prose(
        (
            "[Answer the question|Solve the puzzle] and [explain|show] your reasoning.",
            "[Work out|Find] the order from the clues.",
            "Use the statements to [answer|decide].",
        )
    )
    return Draft(instruction, question, pen.prose(answer, a=a, b=b, c=c, d=d, **facts))


def odd_one_out(pen: Pen) -> Draft:
    """Three of a kind and one stranger."""
    home, away = pen.some(table("kinds"), 2)
    while home["family"] == away["family"]:
        home, away = pen.some(table("kinds"), 2)
    members = pen.some(home["members"].split(", "), pen.number(3, 4))
    stranger = pen.one(away["members"].split(", "))
    shown = [*members, stranger]
    pen.rng.shuffle(shown)
    facts = {
        "stranger": stranger,
        "members": listed(members),
        "kind": home["kind"],
        "kinds": home["kinds"],
        "other": away["kind"],
        "other_kinds": away["kinds"],
        "why": home["why"],
        "else_why": away["why"],
    }
    instruction = pen.prose(
        (
            "Which [word|one] does not belong[ with the others|], and why?",
            "[Find|Name|Pick out] the odd one out and [explain your choice|give a reason].",
            "One of these is [not like the rest|different]. Which one?",
        )
    )
    answer = pen.prose(
        (
            "{stranger} is the odd one out. {members} are all {kinds}: {why}. {stranger}, on the "
            "other hand, is a^ {other}.",
            "the answer is {stranger}. it is a^ {other}, [while|whereas] {members} are {kinds}.",
            "{stranger} does not belong. it is a^ {other}, and of {other_kinds} one says that "
            "{else_why}. the rest, {members}, are {kinds}.",
            "{members} have something in common: {why}. {stranger} is [no such thing|different], "
            "since it is a^ {other}.",
        ),
        **facts,
    )
    return Draft(instruction, ", ".join(shown), answer)


def conditional(pen: Pen) -> Draft:
    """Modus ponens, modus tollens and the two fallacies that look like them."""
    row = pen.one(table("conditionals"))
    form = pen.one(("ponens", "tollens", "converse", "inverse"))
    fact, ask, answer = {
        "ponens": (
            "{if_true}",
            "{then_question}",
            "yes. [we are told that|it is given that] {if_true}, and the rule takes us from there "
            "to "
            "its second half: {then_true}.",
        ),
        "tollens": (
            "{then_false}",
            "{if_question}",
            "no. [suppose|imagine] {if_true}. then, by the rule, {then_true}; but {then_false}. "
            "[that is a contradiction|the two cannot both be so], hence {if_false}.",
        ),
        "converse": (
            "{then_true}",
            "{if_question}",
            "we cannot tell. the rule does not say that this is the only [way|reason]: {other}. "
            "so {then_true}, and yet it may be that {if_false}.",
        ),
        "inverse": (
            "{if_false}",
            "{then_question}",
            "[that is not certain|not necessarily no]. the rule speaks only of the case in which "
            "{if_true}. it may still be that {then_true}, for instance because {other}.",
        ),
    }[form]
    who = pen.person()
    facts = {key: pen.fill(value, **who) for key, value in row.items()}
    question = pen.prose(f"if {{if_true}}, then {{then_true}}. we know that {fact}. {ask}", **facts)
    instruction = pen.prose(
        (
            "[What follows from the rule|What can we conclude]? [Explain|Give your reason].",
            "[Answer with yes, no or cannot tell|Say yes, no or not certain], and say why.",
            "[Apply the rule with care|Reason carefully] and answer.",
        )
    )
    return Draft(instruction, question, pen.prose(answer, **facts))
