"""Reasoning: numbers, calendars, orderings and syllogisms, every answer computed from its terms."""

from __future__ import annotations

import datetime

from instructions.logic import conditional, odd_one_out, ordering, syllogism
from instructions.quantities import (
    ages,
    packing_boxes,
    shares,
    shopping,
    solve_instruction,
    speed,
)
from instructions.writing import Draft, Pen, Task, plural, table

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
    who = pen.person()
    days = 7 * pen.number(1, 13) + pen.number(1, 6)
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
                "{n} days are {w} and {r}. whole weeks do not change the weekday, so [count|go] "
                "{r} "
                "{direction} from {day}: {target}.",
                "since {n} = 7 x {weeks} + {rest}, only the remainder {rest} matters. {r} {way} "
                "{day} is {target}.",
                "{target}. {w} bring us to {day} again, and {r} {way} that is {target}.",
            ),
            direction="back" if back else "on",
            n=days,
            w=plural(weeks, "week"),
            r=plural(rest, "day"),
            weeks=weeks,
            rest=rest,
            day=WEEKDAYS[today],
            target=target,
            way=way,
        )
        return Draft(solve_instruction(pen), question, answer)
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
        solve_instruction(pen),
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
        question += "[How many {small} is that|What does that make in {small}]?"
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
    return Draft(solve_instruction(pen), pen.prose(question, **facts), pen.prose(answer, **facts))


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
            "{name}'s {ride} leaves for {place} at {start} and takes {length}. when does "
            "it arrive?",
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
    return Draft(solve_instruction(pen), pen.prose(question, **facts), pen.prose(answer, **facts))


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


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
