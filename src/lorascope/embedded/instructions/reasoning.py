"""Reasoning: numbers, calendars, orderings and syllogisms, every answer computed from its terms."""

from __future__ import annotations

import datetime
from fractions import Fraction

from lorascope.embedded.instructions.logic import conditional, odd_one_out, ordering, syllogism
from lorascope.embedded.instructions.writing import Draft, Pen, Task, plural, table, words

MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


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
    return Draft(_solve(pen), question, answer)


def _solve(pen: Pen) -> str:
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
    boxes = plural(full, box, box + ("es" if box.endswith(("x", "sh")) else "s"))
    boxes = boxes.replace("shelfs", "shelves")
    plural_box = boxes.split(" ", 1)[1]
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
    return Draft(_solve(pen), question, answer)


def sequence(pen: Pen) -> Draft:
    """Continue a sequence and name its rule."""
    start, step = pen.number(1, 60), pen.number(2, 19)
    kind = pen.one(("add", "subtract", "multiply", "squares", "sums", "growing", "two rules"))
    if kind == "add":
        terms = [start + step * n for n in range(7)]
        rule = f"[each number is {step} more than the one before|the step is always {step} upwards]"
    elif kind == "subtract":
        terms = [start + step * (8 - n) for n in range(7)]
        rule = f"[each number is {step} less than the last|{step} is taken away every time]"
    elif kind == "multiply":
        factor, first = pen.number(2, 4), pen.number(1, 12)
        terms = [first * factor**n for n in range(7)]
        rule = f"[every term is {factor} times its neighbour on the left|multiply by {factor}]"
    elif kind == "squares":
        first, extra = pen.number(1, 9), pen.number(0, 9)
        terms = [(first + n) ** 2 + extra for n in range(7)]
        tail = f", with {extra} added to each" if extra else ""
        rule = f"[these are the squares of {first}, {first + 1}, {first + 2} and so on{tail}|" + (
            f"square the whole numbers from {first} upwards{tail}]"
        )
    elif kind == "sums":
        terms = [pen.number(1, 9), pen.number(1, 12)]
        while len(terms) < 7:
            terms.append(terms[-1] + terms[-2])
        rule = f"[each number is the sum of the two before it|add the last two], as {terms[0]} + "
        rule += f"{terms[1]} = {terms[2]}"
    elif kind == "growing":
        first = pen.number(1, 9)
        terms = [start + sum(range(first, first + n)) for n in range(7)]
        rule = f"the gaps are {first}, {first + 1}, {first + 2} and [go on growing|grow] by one"
    else:
        other = pen.number(2, 9)
        terms = [start]
        for n in range(6):
            terms.append(terms[-1] + (step if n % 2 == 0 else other))
        rule = f"add {step}, then add {other}, [in turn|and so on by turns]"
    known = ", ".join(map(str, terms[:5]))
    instruction = pen.prose(
        (
            "[Continue|Extend] the sequence by two [terms|numbers] and [state|give] the rule.",
            "What are the next two numbers? [Explain why|Say how you know].",
            "[Find the pattern|Look for the rule] and write the next two numbers.",
        )
    )
    answer = pen.prose(
        (
            "{rule}. [the next two are|so we get|next come] {x} and {y}.",
            "{x}, {y}. [the rule|the pattern] is this: {rule}.",
            "after {last} comes {x}, and after that {y}[, because|, since] {rule}.",
        ),
        rule=rule,
        x=terms[5],
        y=terms[6],
        last=terms[4],
    )
    return Draft(instruction, known, answer)


def calendar(pen: Pen) -> Draft:
    """The weekday a number of days before or after a known one, or the date."""
    who, days = pen.person(), pen.number(8, 95)
    event = pen.word("events")
    back = pen.chance(0.4)
    way = "before" if back else "after"
    weeks, rest = divmod(days, 7)
    if pen.chance(0.5):
        today = pen.number(0, 6)
        target = WEEKDAYS[(today - days) % 7 if back else (today + days) % 7]
        question = pen.prose(
            (
                "{name}'s {event} was on a {day}. which day of the week was {n} days {way} it?",
                "today is {day}. what weekday [will it be|comes] {n} days {way} it?",
                "a^ {event} falls on a {day}. name the day that lies {n} days {way}.",
            ),
            **who,
            event=event,
            day=WEEKDAYS[today],
            n=days,
            way=way,
        )
        answer = pen.prose(
            (
                "{n} days are {w} and {r}. whole weeks do not change the weekday, so [count|move] "
                "{r} [back|backwards|on] from {day}: {target}.",
                "since {n} = 7 x {weeks} + {rest}, only the remainder {rest} matters. {r} {way} "
                "{day} is {target}.",
                "{target}. {w} bring us to {day} again, and {r} {way} that is {target}.",
            )[1:]
            if back
            else (
                "{n} days are {w} and {r}. whole weeks do not change the weekday, so count {r} on "
                "from {day}: {target}.",
                "since {n} = 7 x {weeks} + {rest}, only the remainder {rest} matters. {r} {way} "
                "{day} is {target}.",
            ),
            n=days,
            w=plural(weeks, "week"),
            r=plural(rest, "day") if rest else "no days",
            weeks=weeks,
            rest=rest,
            day=WEEKDAYS[today],
            target=target,
            way=way,
        )
        return Draft(_solve(pen), question, answer)
    return _dates(pen, who["name"], event, days % 40 + 5)


def _dates(pen: Pen, name: str, event: str, days: int) -> Draft:
    start = datetime.date(2023, pen.number(1, 11), pen.number(1, 28))
    end = start + datetime.timedelta(days=days)
    last = datetime.date(2023, start.month + 1, 1) - datetime.timedelta(days=1)
    left = last.day - start.day
    month = MONTHS[start.month - 1]
    question = pen.prose(
        (
            "{name}'s {event} is {n} days after {d} {month}, in a year that is not a leap year. "
            "what is the date?",
            "from {d} {month} {name} counts {n} days to the {event}. which date is that? "
            "(not a leap year)",
        ),
        name=name,
        event=event,
        n=days,
        d=start.day,
        month=month,
    )
    if end.month == start.month:
        steps = "{month} has {size} days, and {d} + {n} = {end}, [so we stay within the month|"
        steps += "which is still in {month}]. "
    else:
        steps = "{month} has {size} days, so {left} [of them remain|are left] after the {d}. "
        if end.month == start.month + 1:
            steps += "{n} - {left} = {end}, "
        else:
            between = MONTHS[start.month]
            steps += f"All of {between} is used up as well, "
        steps += "[which falls in|which takes us into] {target}. "
    return Draft(
        _solve(pen),
        question,
        pen.prose(
            steps + "the [date|answer] is {end} {target}.",
            month=month,
            size=last.day,
            d=start.day,
            n=days,
            left=left,
            end=end.day,
            target=MONTHS[end.month - 1],
        ),
    )


def conversion(pen: Pen) -> Draft:
    """Convert a quantity between two units, using the stated factor."""
    row = pen.one(table("units"))
    factor, thing = int(row["factor"]), pen.fill(row["thing"])
    big, small = row["big"], row["small"]
    count, extra = pen.number(2, 24), pen.number(1, factor - 1)
    total = count * factor + extra
    facts = {
        **pen.person(),
        "thing": thing,
        "big": big,
        "small": small,
        "count": count,
        "extra": extra,
        "total": total,
        "factor": factor,
        "product": count * factor,
    }
    if pen.chance(0.5):
        question = "{thing} [comes to|measures|is] {count} {big} and {extra} {small}. "
        question += "[How many {small} is that|Express it in {small}]?"
        answer = (
            "{count} {big} make {count} x {factor} = {product} {small}. add the {extra}: "
            "{total} {small}.",
            "[one has to multiply by {factor}|the factor is {factor}]. {count} x {factor} = "
            "{product}, and {product} + {extra} = {total}. the answer is {total} {small}.",
        )
    else:
        question = "{thing} [comes to|measures|is] {total} {small}. [How much is that|What is it] "
        question += "in {big} and {small}?"
        answer = (
            "divide by {factor}: {total} / {factor} gives {count} with {extra} over. so it is "
            "{count} {big} and {extra} {small}.",
            "{factor} {small} go into one of the {big}. {count} x {factor} = {product} and "
            "{total} - {product} = {extra}, [hence|so] {count} {big}, {extra} {small}.",
        )
    question = question.replace("Express it in {small}]?", "What does that make in {small}]?")
    return Draft(_solve(pen), pen.prose(question, **facts), pen.prose(answer, **facts))


def journey(pen: Pen) -> Draft:
    """Departure, duration and arrival of a journey by the clock."""
    hour, minute = pen.number(5, 16), pen.number(0, 55, 5)
    long_hours, long_minutes = pen.number(1, 5), pen.number(5, 55, 5)
    start = hour * 60 + minute
    end = start + long_hours * 60 + long_minutes
    halfway = start + long_hours * 60
    facts = {
        **pen.person(),
        "place": pen.word("towns"),
        "ride": pen.one(("train", "bus", "ferry", "coach", "boat")),
        "start": _clock(start),
        "end": _clock(end),
        "halfway": _clock(halfway),
        "h": plural(long_hours, "hour"),
        "m": plural(long_minutes, "minute"),
        "length": f"{plural(long_hours, 'hour')} and {plural(long_minutes, 'minute')}",
    }
    if pen.chance(0.5):
        question = (
            "{name}'s {ride} leaves for {place} at {start} and takes {length}. when does it arrive?",
            "the {start} {ride} to {place} needs {length}. at what time does {name} get there?",
        )
        answer = (
            "{h} after {start} it is {halfway}. another {m} bring us to {end}, [when {name} is in "
            "{place}|the time of arrival].",
            "[start|begin] at {start}. add {h}: {halfway}. add {m}: {end}. the {ride} [is due|"
            "gets in] at {end}.",
        )
    else:
        question = (
            "{name}'s {ride} to {place} leaves at {start} and arrives at {end}. how long is the "
            "journey?",
            "how much time passes on a^ {ride} that sets out at {start} and reaches {place} at "
            "{end}?",
        )
        answer = (
            "from {start} to {halfway} is {h}, and from {halfway} to {end} is {m}. the journey "
            "[lasts|takes] {length}.",
            "{length}. count the whole hours first, {start} to {halfway}, which is {h}; then the "
            "{m} from there to {end}.",
        )
    return Draft(_solve(pen), pen.prose(question, **facts), pen.prose(answer, **facts))


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


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
            "distance is speed [times|multiplied by] time. {times}, so {mover} [covers|travels] "
            "{distance} in {hours}.",
        ),
        "time": (
            "{place} is {distance} away. how long [does it take|will the way take] {mover} at "
            "{rate}?",
            "time is distance divided by speed: {by_rate}. {mover} [needs|is on the way for] "
            "{hours} [to reach|before reaching] {place}.",
        ),
        "rate": (
            "{mover} covers the {distance} to {place} in {hours}. what is the average speed?",
            "[divide the distance by the time|speed is distance over time]. {by_time}, that is, "
            "{mover} [moves|travels] at {rate} on [average|the whole].",
        ),
    }[wanted]
    return Draft(_solve(pen), pen.prose(question, **facts), pen.prose(answer, **facts))


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
    return Draft(_solve(pen), question, answer)


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
        question = "{b_name} is {young} and {his} {rel} {name} is {gap} years older. "
        question = question.replace("{his}", "{b_his}")
        question += "how old will {name} be in {ahead} years?"
        then = f"{old} + {ahead} = {old + ahead}"
        answer = (
            f"{{name}} is {{add}} now. in {{ahead}} years {{he}} will be {then}.",
            f"in {{ahead}} years {{b_name}} is {{later}}, and the difference stays {{gap}}: "
            f"{{then}} + {{gap}} = {old + ahead}. {{name}} will be {old + ahead}.",
        )
    return Draft(_solve(pen), pen.prose(question, **facts), pen.prose(answer, **facts))


TASKS = (
    Task("shopping", shopping, 80),
    Task("packing boxes", packing_boxes, 80),
    Task("sequence", sequence, 80),
    Task("calendar", calendar, 80),
    Task("conversion", conversion, 80),
    Task("journey", journey, 80),
    Task("speed", speed, 80),
    Task("shares", shares, 80),
    Task("ages", ages, 80),
    Task("syllogism", syllogism, 80),
    Task("ordering", ordering, 80),
    Task("odd one out", odd_one_out, 80),
    Task("conditional", conditional, 80),
)
