"""Reasoning with quantities: money, boxes, speeds, shares and ages, all worked in steps."""

from __future__ import annotations

from fractions import Fraction

from instructions.writing import Draft, Pen, words


def shopping(pen: Pen) -> Draft:
    """Two purchases and the change from a note."""
    goods = pen.some(words("goods"), 2)
    counts = [pen.number(2, 9), pen.number(2, 9)]
    prices = [pen.number(2, 19), pen.number(2, 19)]
    costs = [count * price for count, price in zip(counts, prices, strict=True)]
    total = sum(costs)
    note = next(value for value in (50, 100, 200, 400) if value > total)
    who = pen.person()
    coin = pen.one(("coins", "pence", "cents", "crowns", "dollars"))
    facts = {
        **who,
        "a": f"{counts[0]} {goods[0]} at {prices[0]} {coin} each",
        "b": f"{counts[1]} {goods[1]} at {prices[1]} {coin} each",
        "n": f"{note} {coin}",
        "s1": f"{counts[0]} x {prices[0]} = {costs[0]}",
        "s2": f"{counts[1]} x {prices[1]} = {costs[1]}",
        "g1": goods[0],
        "g2": goods[1],
        "total": total,
        "sum": f"{costs[0]} + {costs[1]} = {total}",
        "rest": f"{note} - {total} = {note - total}",
        "change": f"{note - total} {coin}",
    }
    question = pen.prose(
        (
            "{name} buys {a} and {b}. {he} pays with {n}. How much change does {he} get?",
            "at the [market|shop|fair], {name} picks out {a}, then {b}. what is left of {n}?",
            "{name} has {n} and wants {a} together with {b}. how much will {he} have afterwards?",
        ),
        **facts,
    )
    answer = pen.prose(
        (
            "the {g1} cost {s1} and the {g2} cost {s2}. [Together that is|The sum is] {sum}. "
            "[So the change is|That leaves] {rest}. {name} [has|keeps] {change}.",
            "[First the {g1}|Begin with the {g1}]: {s1}. Then the {g2}: {s2}. The bill is {sum}, "
            "so {name} gets back {rest}, [that is|or] {change}.",
            "{name} [spends|pays] {total} in all, because {s1} for the {g1}, {s2} for the {g2}, "
            "and {sum}. from {n} there [remains|is left] {rest}, which makes {change}.",
        ),
        **facts,
    )
    return Draft(solve_instruction(pen), question, answer)


def solve_instruction(pen: Pen) -> str:
    """One way of asking for a worked answer."""
    return pen.prose(
        (
            "[Solve|Work out] the problem[ and show your steps|].",
            "Answer the question, [showing your working|step by step].",
            "[Work through this problem|Think it through] and give the [answer|result].",
            "[Find|Calculate] the answer and explain [how you got it|each step].",
        )
    )


def packing_boxes(pen: Pen) -> Draft:
    """Division with a remainder: full containers and what is left over."""
    item, box = pen.word("goods"), pen.word("containers")
    size = pen.number(4, 15)
    full, left = pen.number(3, 19), pen.number(1, size - 1)
    total = size * full + left
    plural_box = box + ("es" if box.endswith("x") else "s")
    facts = {
        **pen.person(),
        "trade": pen.word("trades"),
        "item": item,
        "box": box,
        "many": plural_box,
        "size": size,
        "full": full,
        "left": left,
        "total": total,
        "product": f"{size} x {full} = {size * full}",
        "rest": f"{total} - {size * full} = {left}",
        "next": f"{size} x {full + 1} = {size * (full + 1)}",
    }
    question = pen.prose(
        (
            "{name} the {trade} has {total} {item} to put away. Each {box} holds {size}. "
            "How many {many} does {he} fill, and how many {item} are left?",
            "a^ {trade} sorts {total} {item} into {many} of {size}. how many {many} are full "
            "and what remains?",
            "if one {box} takes {size} {item}, how many {many} can be filled from {total} {item}, "
            "and how many are over?",
        ),
        **facts,
    )
    answer = pen.prose(
        (
            "divide {total} by {size}. since {product} and {next} would be too many, {full} {many} "
            "are full. {rest}, so {left} [of the {item} stay|{item} remain|is the remainder].",
            "{full} full {many} hold {product} {item}. [what is left is|that leaves] {rest}.",
            "count in steps of {size}: {product}. one more {box} would need {next}, which is more "
            "than {total}. so {full} {many} are full and {rest} [left over|remain loose].",
        ),
        **facts,
    )
    return Draft(solve_instruction(pen), question, answer)


def speed(pen: Pen) -> Draft:
    """Distance, speed and time, one of them wanted."""
    mover, low, high = pen.one(
        (
            ("a cyclist", 12, 30),
            ("a walker", 3, 6),
            ("a lorry", 50, 80),
            ("a goods train", 40, 90),
            ("a rowing boat", 4, 9),
            ("a horse and cart", 6, 14),
            ("a coach", 60, 95),
            ("a steamer", 18, 35),
            ("a skier", 8, 20),
            ("a canal barge", 3, 7),
        )
    )
    rate, hours = pen.number(low, high), pen.number(2, 9)
    distance = rate * hours
    unit = pen.one(("km", "miles"))
    facts = {
        "mover": mover,
        "the_mover": "the " + mover.split(" ", 1)[1],
        "rate": f"{rate} {unit} an hour",
        "hours": f"{hours} hours",
        "distance": f"{distance} {unit}",
        "place": pen.word("towns"),
        "times": f"{rate} x {hours} = {distance}",
        "by_rate": f"{distance} / {rate} = {hours}",
        "by_time": f"{distance} / {hours} = {rate}",
    }
    wanted = pen.one(("distance", "time", "rate"))
    question, answer = {
        "distance": (
            "{mover} [goes|keeps on] at a steady {rate} [towards|on the road to] {place}. How far "
            "does it get in {hours}?",
            "distance is speed [times|multiplied by] time. {times}, so {the_mover} "
            "[covers|travels] "
            "{distance} in {hours}.",
        ),
        "time": (
            "{place} is {distance} away. how long [does it take|will the way take] {mover} at "
            "{rate}?",
            "time is distance divided by speed: {by_rate}. {the_mover} [needs|is on the way for] "
            "{hours} [to reach|before reaching] {place}.",
        ),
        "rate": (
            "{mover} covers the {distance} to {place} in {hours}. what is the average speed?",
            "[divide the distance by the time|speed is distance over time]. {by_time}, that is, "
            "{the_mover} [moves|travels] at {rate} on [average|the whole].",
        ),
    }[wanted]
    return Draft(solve_instruction(pen), pen.prose(question, **facts), pen.prose(answer, **facts))


def shares(pen: Pen) -> Draft:
    """A fraction or a percentage of a group, and the rest."""
    bottom = pen.one((3, 4, 5, 6, 8, 10, 12))
    part = Fraction(pen.number(1, bottom - 1), bottom)
    total = part.denominator * pen.number(3, 30)
    taken = int(total * part)
    percent = part * 100
    as_percent = percent.denominator == 1 and pen.chance(0.5)
    share = f"{percent.numerator} per cent" if as_percent else f"{part}"
    goods = pen.word("goods")
    one = total // part.denominator
    facts = {
        **pen.person(),
        "goods": goods,
        "total": total,
        "share": share,
        "part": part,
        "one": f"{total} / {part.denominator} = {one}",
        "take": f"{part.numerator} x {one} = {taken}",
        "taken": taken,
        "left": total - taken,
        "rest": f"{total} - {taken} = {total - taken}",
        "verb": pen.one(("sells", "gives away", "loses", "packs", "lends out")),
    }
    question = pen.prose(
        (
            "{name} has {total} {goods} and {verb} {share} of them. How many are left?",
            "out of {total} {goods}, {name} {verb} {share}. how many does {he} still have?",
        ),
        **facts,
    )
    same = "{share} is the fraction {part}. " if as_percent else ""
    answer = pen.prose(
        (
            same + "{one} is one equal part, and {take} {goods} [go|are gone]. {rest} remain.",
            same + "[divide first|split the {goods} evenly]: {one}. Then multiply: {take}. "
            "{name} [keeps|still has] {rest} {goods}.",
            "{left} {goods}. "
            + same
            + "since {one} and {take}, {name} {verb} {taken}, and {rest}.",
        ),
        **facts,
    )
    return Draft(solve_instruction(pen), question, answer)


def ages(pen: Pen) -> Draft:
    """Two people's ages from a sum or a difference, now or in years to come."""
    a, b = pen.person(), pen.person("b_")
    while a["name"] == b["b_name"]:
        b = pen.person("b_")
    young, gap, ahead = pen.number(4, 40), pen.number(2, 25), pen.number(3, 15)
    old = young + gap
    facts = {
        **a,
        **b,
        "rel": f"{pen.word('relations')}",
        "gap": gap,
        "total": young + old,
        "twice": f"{young + old} - {gap} = {2 * young}",
        "half": f"{2 * young} / 2 = {young}",
        "add": f"{young} + {gap} = {old}",
        "later": f"{young} + {ahead} = {young + ahead}",
        "young": young,
        "old": old,
        "ahead": ahead,
        "then": young + ahead,
    }
    if pen.chance(0.5):
        question = "{name} is {gap} years older than {b_name}, and their ages add up to {total}. "
        question += "[How old is each|What are their ages]?"
        answer = (
            "take the extra {gap} years away: {twice}. that is twice {b_name}'s age, so {half}. "
            "then {name} is {add}.",
            "if both were as young as {b_name}, the sum would be {twice}. half of it is {half}, "
            "the age of {b_name}; {name}, with {gap} years more, is {add}.",
        )
    else:
        question = "{b_name} is {young} and {b_his} {rel} {name} is {gap} years older. "
        question += "how old will {name} be in {ahead} years?"
        then = f"{old} + {ahead} = {old + ahead}"
        answer = (
            f"{{name}} is {{add}} now. in {{ahead}} years {{he}} will be {then}.",
            f"in {{ahead}} years {{b_name}} is {{later}}, and the difference stays {{gap}}: "
            f"{{then}} + {{gap}} = {old + ahead}. {{name}} will be {old + ahead}.",
        )
    return Draft(solve_instruction(pen), pen.prose(question, **facts), pen.prose(answer, **facts))
