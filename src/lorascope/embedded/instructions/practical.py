"""Practical: cooking, packing, letters of business, plans, budgets, safety and the household."""

from __future__ import annotations

from lorascope.embedded.instructions.cooking import recipe, scaling, shopping_list
from lorascope.embedded.instructions.writing import (
    Draft,
    Pen,
    Task,
    bulleted,
    listed,
    numbered,
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
        "fog": "a whistle and a bright scarf",
    }[weather]
    clothes = f"{plural(days, 'shirt')} and {plural(days, 'pair')} of socks"
    clothes = clothes.replace("pairs of socks", "pairs of socks")
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
            "Write [an e-mail|a short message] from {sender} to {to}. [Purpose|Subject]: {purpose}.",
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
        output += pen.prose("\n\n[Tip: |]{hint}.", **row).join(("\n", ""))
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
    instruction = (
        pen.prose(
            (
                "{name} has {income} pounds for the {period}. Check the budget.",
                "[Do|Will] {income} pounds [cover|be enough for] these costs of a {period}?",
                "Draw up the balance for {name}'s {period}: income {income} pounds.",
            ),
            **facts,
        )
        .replace("Do ", "Will ")
        .replace("Will " + str(income) + " pounds for", f"Are {income} pounds for")
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
        else "[look first at {most}, the largest item|can {most} be reduced|{most} is the place to "
        "save]"
    ).replace("can {most} be reduced", "see whether {most} can be reduced")
    output = pen.prose(
        (
            "the costs come to {sum} pounds. " + verdict + ". " + advice + ".",
            "{sum}. with an income of {income}, " + verdict + ". " + advice + ".",
            verdict + ", because the items add up to {sum}. [the largest is {most}|{most} weighs "
            "most].",
        ),
        **facts,
    )
    return Draft(instruction, sentences(given) + ".", output)


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
        output += pen.prose("\n[Reason|Why]: {reason}.", **facts).join(("\n", ""))
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
    instruction = (
        pen.prose(
            (
                "There are two stains on {cloth}: {stain} and {other}. What should I do?",
                "{name} has {stain} and {other} on {cloth}. How can {he} get them out?",
            )
            if two
            else (
                "How do I remove {stain} from {cloth}?",
                "{name} has a stain of {stain} on {cloth}. [Advise {him}|What helps]?",
                "[Help|Quick]: {stain} on {cloth}!",
            ),
            **facts,
        )
        .replace("Advise him?", "Advise him.")
        .replace("Advise her?", "Advise her.")
    )
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
                "Plan a bed with {plant} and {other}. [Say when to plant each|What do they need]?",
            ),
            **facts,
        ).replace("Say when to plant each?", "Say when to plant each.")
        answer = (
            "{plant} need {place}; {other} need {other_place}. the season for the first is "
            "{season}, for the second {other_season}. [Later|In the months after], {care}.",
            "in {season} prepare {place} for {plant}. in {other_season} find {other_place} for "
            "{other}. mind two things: {water}, and, with the {other}, {other_care}.",
        )
    else:
        instruction = pen.prose(
            (
                "How do I [grow|look after] {plant}?",
                "{name} has planted {plant} in {town}. What care do they need?",
                "When and where should I plant {plant}?",
                "My {plant} do not thrive. What may be wrong?",
            ),
            **facts,
        )
        answer = (
            "plant {plant} in {season}. they like {place}. {water}, and {care}.",
            "{place} suits {plant} best. [the time to plant is {season}|plant in {season}]. {care}, "
            "and {water}.",
            "three things matter: the place, which should be {place}; the water: {water}; and "
            "some work: {care}.",
        )
    output = pen.prose(answer, **facts)
    for single in ("lavender", "lettuce", "mint", "garlic", "basil"):
        output = output.replace(f"{single.capitalize()} need ", f"{single.capitalize()} needs ")
        output = output.replace(f" {single} need ", f" {single} needs ")
        output = output.replace(f"plant {single} in", f"plant {single} in")
    return Draft(_singular(instruction), "", _singular(output))


def _singular(text: str) -> str:
    for name in ("lavender", "lettuce", "mint", "garlic", "basil"):
        text = text.replace(f"My {name} do not", f"My {name} does not")
        if name in text.lower():
            text = text.replace("What care do they need", "What care is needed")
            text = text.replace("They like", "The right place is")
    return text


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
                "{day}, {date}, at {hour}\n[Please bring|Bring]: a chair and some {fruit}\n[We look "
                "forward to seeing you|Answers to {name} by the day before].",
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
