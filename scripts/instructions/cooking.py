"""Practical tasks of the kitchen: recipes, amounts for more guests and shopping lists."""

from __future__ import annotations

from instructions.writing import (
    Draft,
    Pen,
    Row,
    bulleted,
    listed,
    numbered,
    sentences,
    table,
    words,
)

DISHES = ("soup", "stew", "pie", "salad", "bake", "omelette", "risotto", "curry")


def recipe(pen: Pen) -> Draft:
    """A recipe composed of two vegetables, something filling and a herb."""
    dish = pen.one(DISHES)
    first, second = pen.some(words("vegetables"), 2)
    facts = {
        **pen.person(),
        "dish": dish,
        "first": first,
        "second": second,
        "protein": pen.one([p for p in words("proteins") if p != "eggs" or dish != "omelette"]),
        "herb": pen.word("herbs"),
        "minutes": pen.number(15, 45, 5),
        "fat": pen.one(("butter", "oil", "olive oil")),
        "guests": pen.number(2, 6),
    }
    base = table("dishes")
    row = next(entry for entry in base if entry["dish"] == dish)
    steps = [pen.fill(step, **facts) for step in row["steps"].split(";")]
    instruction = pen.prose(
        (
            "[Give|Write] a recipe for a^ {dish} with {first} and {second}.",
            "What can {name} cook from {first}, {second} and {protein}? [A^ {dish} would be nice.|"
            "Perhaps a^ {dish}?]",
            "I have {first} and {protein}. [How do I make a^ {dish} for {guests}?|Suggest a^ "
            "{dish} for {guests}.]",
            "Explain how to [make|cook] a^ {dish} with {first} and {herb}.",
        ),
        **facts,
    )
    if pen.chance(0.5):
        output = sentences(numbered([sentences(step) + "." for step in steps]))
    else:
        joints = ("", pen.one(("then ", "next, ")), "", pen.one(("after that, ", "now ")), "")
        output = sentences(
            " ".join(f"{joint}{step}." for joint, step in zip(joints, steps, strict=False))
        )
    return Draft(instruction, "", output)


def scaling(pen: Pen) -> Draft:
    """Amounts of a recipe for another number of guests, computed."""
    served, factor = pen.number(2, 6), pen.number(2, 5)
    down = pen.chance(0.35)
    small, large = served, served * factor
    entries = pen.some(table("amounts"), pen.number(3, 4))
    base = [pen.number(int(e["low"]), int(e["high"]), int(e["step"])) for e in entries]
    old = [amount * factor for amount in base] if down else base
    new = base if down else [amount * factor for amount in base]
    before, after = (large, small) if down else (small, large)
    given = listed([_amount(n, e) for n, e in zip(old, entries, strict=True)])
    result = [_amount(n, e) for n, e in zip(new, entries, strict=True)]
    dish = pen.one(("pancakes", "a cake", "a stew", "a pudding", "a pie", "dumplings", "a soup"))
    verb = f"divide everything by {factor}" if down else f"multiply everything by {factor}"
    instruction = pen.prose(
        (
            "The recipe is for {before} people. [Change|Adapt] it for {after}.",
            "{name} has a recipe for {dish} for {before}. How much does {he} need for {after}?",
            "[Work out|Calculate] the amounts for {after} guests. The recipe serves {before}.",
        ),
        before=before,
        after=after,
        dish=dish,
        **pen.person(),
    )
    if pen.chance(0.5):
        output = pen.prose(
            "[{verb}|{after} is to {before} as {ratio}, so {verb}]. [you need|that makes] {all}.",
            verb=verb,
            before=before,
            after=after,
            ratio=f"1 to {factor}" if down else f"{factor} to 1",
            all=listed(result),
        )
    else:
        output = (
            bulleted(result)
            + "\n"
            + pen.prose(
                "[{verb}|the rule: {verb}][, as {big} / {low} = {factor}|].",
                verb=verb,
                big=large,
                low=small,
                factor=factor,
            )
        )
    return Draft(instruction, sentences(given) + ".", output)


def _amount(count: int, entry: Row) -> str:
    unit = entry["unit"]
    if unit == "-":
        return f"{count} {entry['one'] if count == 1 else entry['many']}"
    if unit in {"spoon", "cup"} and count != 1:
        unit += "s"
    return f"{count} {unit} of {entry['many']}"


def shopping_list(pen: Pen) -> Draft:
    """Sort a heap of goods by the shop that sells them."""
    shelves = pen.some(table("shelves"), pen.number(2, 3))
    chosen = {row["shop"]: pen.some(row["goods"].split(", "), pen.number(2, 3)) for row in shelves}
    flat = [item for items in chosen.values() for item in items]
    mixed = pen.some(flat, len(flat))
    instruction = pen.prose(
        (
            "Sort this shopping list by shop.",
            "[Where|In which shop] does {name} get these things?",
            "[Arrange|Group] the items [according to|by] the shops that sell them.",
            "Plan {name}'s errands[ on {day}|]: which shop for what?",
        ),
        day=pen.word("days"),
        **pen.person(),
    )
    if pen.chance(0.5):
        output = "\n".join(f"{shop.capitalize()}: {', '.join(i)}" for shop, i in chosen.items())
    else:
        parts = [f"{listed(items)} at the {shop}'s" for shop, items in chosen.items()]
        lead = pen.one(("Buy ", "You find ", "Get "))
        output = lead + "; ".join(parts) + "."
    most = max(chosen, key=lambda shop: len(chosen[shop]))
    if len({len(items) for items in chosen.values()}) == len(chosen):
        output += "\n" + pen.prose(
            "[Most things come from|The longest stop is at] the {most}'s.", most=most
        )
    return Draft(instruction, ", ".join(mixed), output)
