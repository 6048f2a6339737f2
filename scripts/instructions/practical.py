"""Practical: cooking, packing, letters of business, plans, budgets, safety and the household."""

from __future__ import annotations

from instructions.cooking import recipe, scaling, shopping_list
from instructions.household import cleaning, gardening, how_to, safety
from instructions.writing import (
    Draft,
    Pen,
    Task,
    bulleted,
    listed,
    plural,
    sentences,
    table,
    words,
)


def packing(pen: Pen) -> Draft:
    """A packing list for a trip, with a remark."""
    row = pen.one(table("packing"))
    days = pen.number(2, 9)
    weather = pen.one(("rain", "heat", "frost", "strong wind", "changeable weather", "fog"))
    things = pen.some(row["need"].split(", "), pen.number(4, 6))
    extra = {
        "rain": "a waterproof coat",
        "heat": "a hat with a brim",
        "frost": "a second pair of gloves",
        "strong wind": "a cap that fits tightly",
        "changeable weather": "clothes in several thin layers",
        "fog": "a bright scarf",
    }[weather]
    clothes = f"{plural(days, 'shirt')} and {plural(days, 'pair')} of socks"
    facts = {**row, **pen.person(), "days": days, "weather": weather, "clothes": clothes}
    facts |= {"extra": extra, "town": pen.word("towns")}
    instruction = pen.prose(
        (
            "What should {name} pack for {trip}? It will last {days} days, with {weather}.",
            "Write a packing list for {trip} of {days} days. Expect {weather}.",
            "[Help me pack|I must pack] for {trip} near {town}: {days} days, {weather} [likely|"
            "forecast].",
        ),
        **facts,
    )
    if pen.chance(0.6):
        items = pen.some([*things, clothes, extra], len(things) + 2)
        output = bulleted(items) + pen.fill(
            "\n\n[Leave {avoid} at home.|Remember: {tip}.|Do not take {avoid}; {tip}.]", **facts
        )
    else:
        output = pen.prose(
            "take {things}. for {days} days {clothes} [are enough|will do]. because of "
            "{weather}, add {extra}. [{tip}|leave {avoid} at home].",
            things=listed(things),
            **facts,
        )
    return Draft(instruction, "", output)


def email(pen: Pen) -> Draft:
    """A short message of business."""
    row = pen.one(table("mail"))
    sender, to = pen.some((*words("women"), *words("men")), 2)
    facts = {
        "day": pen.word("days"),
        "town": pen.word("towns"),
        "object": pen.word("objects"),
        "event": pen.word("events"),
        "relation": pen.word("relations"),
        "trade": pen.word("trades"),
        "hour": pen.one(("six", "seven", "nine", "ten")) + " o'clock",
        "number": pen.number(1001, 9899),
        "guests": pen.number(8, 60),
        "money": pen.number(20, 400),
        "nights": pen.one(("two", "three", "four", "five")),
    }
    parts = {key: pen.fill(value, **facts) for key, value in row.items()}
    parts["end"] = "." if parts["ask"].startswith(("please", "do ", "if ")) else "?"
    instruction = pen.prose(
        (
            "Write [an e-mail|a short message] from {sender} to {to}. [Purpose|Topic]: {purpose}.",
            "{sender} must write to {to}: {purpose}. [Draft|Write] the message.",
            "Draft a polite e-mail ({purpose}) to {to}, signed {sender}.",
        ),
        sender=sender,
        to=to,
        **parts,
    )
    given = pen.prose("[Notes|Facts]: {open}; {detail}", **parts) if pen.chance(0.2) else ""
    output = pen.prose(
        (
            "[Dear|Good morning,] {to},\n\n{open}. {detail}. {ask}{end}\n\n[Kind regards|Best "
            "wishes|Yours sincerely],\n{sender}",
            "Subject: {purpose}\n\nDear {to},\n\n{open}: {detail}. {ask}{end}\n\n[With thanks|"
            "Regards],\n{sender}",
        ),
        sender=sender,
        to=to,
        **parts,
    )
    return Draft(instruction, given, output)


def schedule(pen: Pen) -> Draft:
    """Tasks one after another, the times computed."""
    chosen = pen.some(words("tasks"), pen.number(3, 4))
    lengths = [pen.number(15, 75, 5) for _ in chosen]
    start = pen.number(7, 14) * 60 + pen.number(0, 45, 15)
    clock, rows = start, []
    pause = pen.one((0, 0, 10))
    for task, length in zip(chosen, lengths, strict=True):
        rows.append(f"{_clock(clock)} to {_clock(clock + length)}: {task}")
        clock += length + pause
    end = clock - pause
    total = sum(lengths)
    given = "; ".join(
        f"{task} ({length} minutes)" for task, length in zip(chosen, lengths, strict=True)
    )
    rest = " with ten minutes of rest between them" if pause else ""
    instruction = pen.prose(
        (
            "Make a schedule that starts at {start}{rest}.",
            "[Plan|Arrange] these tasks one after another from {start} on{rest}.",
            "{name} begins at {start}. When is each task done{rest}?",
        ),
        start=_clock(start),
        rest=rest,
        **pen.person(),
    )
    note = pen.prose(
        (
            "Everything is done by {end}.",
            "The work itself takes {total} minutes, and you are free at {end}.",
            "You finish at {end}. [The longest task is to {longest}|Most of the time goes to this: "
            "{longest}].",
        ),
        end=_clock(end),
        total=total,
        longest=chosen[lengths.index(max(lengths))],
    )
    return Draft(instruction, sentences(given) + ".", "\n".join(rows) + "\n" + note)


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def budget(pen: Pen) -> Draft:
    """Income, expenses and what is left, computed."""
    chosen = pen.some(words("costs"), pen.number(3, 4))
    sums = [pen.number(5, 180) for _ in chosen]
    total = sum(sums)
    income = total + pen.number(-60, 200)
    left = income - total
    who = pen.person()
    facts = {
        **who,
        "income": income,
        "total": total,
        "sum": " + ".join(map(str, sums)) + f" = {total}",
        "left": abs(left),
        "most": chosen[sums.index(max(sums))],
        "share": f"{income} - {total} = {left}" if left >= 0 else f"{total} - {income} = {-left}",
        "period": pen.one(("week", "month", "fortnight")),
    }
    given = ", ".join(f"{item} {cost}" for item, cost in zip(chosen, sums, strict=True))
    instruction = pen.prose(
        (
            "{name} has {income} pounds for the {period}. Check the budget.",
            "[Will {income} pounds cover|Are {income} pounds enough for] these costs of a "
            "{period}?",
            "Draw up the balance for {name}'s {period}: income {income} pounds.",
        ),
        **facts,
    )
    verdict = (
        "[{left} pounds are left|that leaves {left} pounds] ({share})"
        if left > 0
        else "[{left} pounds are missing|the money falls short by {left} pounds] ({share})"
        if left < 0
        else "nothing is left, and nothing is missing"
    )
    advice = (
        "[put half of it aside|keep it for a bad {period}|it could go into savings]"
        if left > 0
        else "[look first "
        "at {most}, the largest item|see whether {most} can be reduced|{most} is the place to "
        "save]"
    )
    output = pen.prose(
        (
            "the costs come to {sum} pounds. " + verdict + ". " + advice + ".",
            "{sum}. with an income of {income}, " + verdict + ". " + advice + ".",
            verdict + ", because the items add up to {sum}. [the largest is {most}|the largest "
            "item: {most}].",
        ),
        **facts,
    )
    return Draft(instruction, sentences(given) + ".", output)


def advice(pen: Pen) -> Draft:
    """Advice on an everyday problem."""
    row, other = pen.some(table("advice"), 2)
    facts = {**row, "other": other["problem"], "other_do": other["do"], "other_why": other["why"]}
    facts |= {"other_also": other["also"]}
    if pen.chance(0.5):
        instruction = pen.prose("{problem}, and {other}. [What should I do|Can you help]?", **facts)
        answer = (
            "as to the first, {do}. as to the second, {other_do}. [in both cases be patient|for "
            "{why}].",
            "take one thing at a time. this week, {do}; {why}. next week, {other_do}.",
            "{also} and {do}. [and for the other trouble|then]: {other_do}, since {other_why}.",
        )
    else:
        instruction = pen.prose(
            (
                "{problem}. [What can I do|What do you advise|Have you any advice]?",
                'A friend tells me: "{problem}." What would you say?',
            ),
            **facts,
        )
        answer = (
            "{do}. [it also helps if you|you might also] {also}. {why}.",
            "try this: {do}, and {also}. [the idea behind it|the reason]: {why}.",
            "{why}. so {do}[, and if that is not enough, {also}|; then {also}].",
        )
    return Draft(instruction, "", pen.prose(answer, **facts))


def notice(pen: Pen) -> Draft:
    """A notice or an invitation for a door or a board."""
    hour = pen.number(8, 19)
    facts = {
        **pen.person(),
        "event": pen.word("events"),
        "day": pen.word("days"),
        "town": pen.word("towns"),
        "hour": f"{hour}:{pen.one(('00', '15', '30'))}",
        "object": pen.word("objects"),
        "room": pen.word("rooms"),
        "fruit": pen.word("fruits"),
        "trade": pen.word("trades"),
        "date": f"{pen.number(1, 28)} {pen.one(('March', 'May', 'June', 'September', 'October'))}",
    }
    instruction, answer = pen.one(
        (
            (
                "Write an invitation to {name}'s {event} on {day}, {date}, in {town}.",
                "You are [warmly|kindly] invited to the {event} of {name} in {town}.\n\nWhen: "
                "{day}, {date}, at {hour}\n[Please bring|Bring]: a chair and some {fruit}\n[We "
                "look forward to seeing you|Answers to {name} by the day before].",
            ),
            (
                "Write a notice: a^ {object} was found in the {room} of a house in {town}.",
                "Found on {day}, {date}: a^ {object}, in the {room}. The owner may collect it from "
                "{name} after {hour}. [Please describe it first|A small reward is not expected, "
                "though {fruit} are welcome].",
            ),
            (
                "Write a notice for the shop of {name} the {trade}: closed on {day}, {date}.",
                "Dear customers, our shop in {town} is closed on {day}, {date}, because of a^ "
                "{event}. We open again the next morning. [For urgent work call at the {room} "
                "door|Repairs can be collected before {hour} today].\n{name}, {trade}",
            ),
            (
                "Write a small advertisement: {name} sells a^ {object} in {town}.",
                "For sale: one {object}, [well kept|used with care|old but sound], from the {room} "
                "of a^ {trade}. To be seen in {town} on {day} from {hour}. Ask for {name}. [Price "
                "by agreement|Will also exchange for {fruit}].",
            ),
            (
                "Write a note for the {room} door. [On {day} the painters come|Painters come on "
                "{day}] at {hour}.",
                "Please empty the {room} before {day}, {date}. The painters start at {hour}. Take "
                "the {object} with you and [cover the rest|leave the window open]. Questions? Ask "
                "{name}.",
            ),
        )
    )
    return Draft(pen.prose(instruction, **facts), "", pen.prose(answer, **facts))


TASKS = (
    Task("recipe", recipe, 90),
    Task("scaling", scaling, 80),
    Task("shopping list", shopping_list, 80),
    Task("packing", packing, 80),
    Task("email", email, 90),
    Task("schedule", schedule, 80),
    Task("how to", how_to, 60),
    Task("budget", budget, 80),
    Task("safety", safety, 60),
    Task("cleaning", cleaning, 70),
    Task("gardening", gardening, 80),
    Task("advice", advice, 80),
    Task("notice", notice, 80),
)
