"""What an adapt study found, in plain sentences made from its numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from lorascope.report.formatting import interval, number, plural, span, verdict_words
from lorascope.report.left_out import of_how_many
from lorascope.results import Estimate
from lorascope.results.null_names import RANDOM_CHANGE
from lorascope.studies.adapt.sections.reported import REPORTED
from lorascope.studies.adapt.sections.results import (
    COST_AFTER,
    COST_BEFORE,
    GENERAL,
    SHARE,
    AdaptResults,
    FitCondition,
    best,
    level_under,
)


@dataclass(frozen=True)
class ExperimentSection:
    """One experiment of the report.

    Attributes:
        key: name of its place on the page.
        title: heading.
        question: what it answers.
    """

    key: str
    title: str
    question: str


SECTIONS = (
    ExperimentSection(
        "baselines",
        "What else could be done",
        "Of what splicing the dictionary costs, how much does each way recover, at what price?",
    ),
    ExperimentSection(
        "scaling",
        "Sparsity, width, depth, rank",
        "On which dictionaries does fitting the model help, and how large must the adapter be?",
    ),
    ExperimentSection(
        "times",
        "Loss against training time",
        "Is a TopK dictionary with LoRA sooner at a loss than one trained end to end?",
    ),
    ExperimentSection(
        "several",
        "Several dictionaries at once",
        "Do their costs add up, and how much of the compound cost comes back?",
    ),
    ExperimentSection("tokens", "Single tokens", "Which tokens gain, and how many get worse?"),
    ExperimentSection(
        "streams",
        "Streams behind the site",
        "Does the fitted model follow the original's path, or only end where it does?",
    ),
    ExperimentSection("single", "One block alone", "Which block behind the site does the work?"),
    ExperimentSection(
        "steering",
        "Steering",
        "Does a latent steer the fitted model farther on the texts it is about, and on no others?",
    ),
)


def verdict(found: AdaptResults) -> list[str]:
    """The first screen: cost, loss recovered, the cheap ways, the general loss."""
    main = found.main
    said: list[str] = []
    if main is not None:
        said += [*_cost(found, main), *_share(found, main), *_cheap(found, main)]
        said += _general(found, main)
    else:
        said += _share_range(found)
    return said


def sentences(found: AdaptResults) -> dict[str, list[str]]:
    """{section: what was found, then where the paper's figure lies}."""
    return {key: [*say(found), REPORTED[key].said] for key, say in _SENTENCES.items()}


def scope(found: AdaptResults) -> str:
    """What was studied, in one sentence."""
    facts = found.facts
    texts = facts.get("texts", {}).get("held_out", {})
    fits = facts.get("fits", [])
    seeds = {fit["seed"] for fit in fits}
    count, model = len(found.dictionaries), facts.get("model", {}).get("id", "the model")
    return (
        f"{count} {'dictionary' if count == 1 else 'dictionaries'} in the stream of {model}, "
        f"{plural(len(fits), 'fit')} ({plural(len(seeds), 'seed')}), measured on "
        f"{texts.get('tokens', 0):,} held-out tokens of {texts.get('documents', 0):,}"
        f"{of_how_many(facts, 'held-out documents')} documents."
    )


def _with_interval(estimate: Estimate, as_share: bool = False) -> str:
    if not as_share:
        return f"{number(estimate.value)} {interval(*estimate.interval)}".strip()
    low, high = estimate.interval
    around = "" if math.isnan(low) else f" [{hundredths(low)}, {hundredths(high)}]"
    return f"{hundredths(estimate.value)} %{around}"


def hundredths(value: float) -> str:
    """A share in whole per cent, with a true minus sign."""
    return f"{round(100 * value)}".replace("-", "−")


def _cost(found: AdaptResults, main: FitCondition) -> list[str]:
    cost, loss = found.number(main, COST_BEFORE), found.number(main, "adapt.loss_original")
    if cost is None or loss is None:
        return []
    return [
        f"Splicing {found.reference} costs {_with_interval(cost)} nats/token of cross-entropy, on "
        f"top of the model's own {number(loss.value)}."
    ]


def _share(found: AdaptResults, main: FitCondition) -> list[str]:
    share, after = found.number(main, SHARE), found.number(main, COST_AFTER)
    if share is None:
        cost = found.number(main, COST_BEFORE)
        if cost is None:
            return []
        if cost.verdict == "no verdict":
            return ["These are too few documents for a share of it recovered."]
        return ["That is no cost that this text shows: there is no share to recover."]
    left = f", {number(after.value)} nats/token are left" if after else ""
    random = level_under(share, RANDOM_CHANGE)
    chance = "" if random is None else f"; a random change of equal size {hundredths(random)} %"
    wins = "recovers" if share.value > 0 else "recovers nothing:"
    return [
        f"{main.fitted} {wins} {_with_interval(share, True)} of it{left}{chance} "
        f"({_verdict(share)})."
    ]


def _cheap(found: AdaptResults, main: FitCondition) -> list[str]:
    others = [
        (condition, estimate)
        for condition in found.conditions("baselines")
        if condition != main and (estimate := found.number(condition, SHARE)) is not None
    ]
    if not others:
        return []
    listed = "; ".join(f"{c.fitted} {_with_interval(e, True)}" for c, e in others)
    said = [f"At the same budget of tokens: {listed}."]
    share = found.number(main, SHARE)
    top = best(others)
    if share is not None and top is not None and top[1].value > share.value:
        said.append(f"Most comes back with {top[0].fitted}.")
    elif share is not None:
        said.append(f"None of them recovers more than {main.fitted}.")
    return said


def _general(found: AdaptResults, main: FitCondition) -> list[str]:
    change = found.number(main, GENERAL)
    if change is None:
        return []
    margin = f"{number(change.margin or 0.0)} nats/token"
    kept = {
        "equal": f"its general loss is unchanged within {margin}",
        "above": "its general loss rises",
        "below": "its general loss falls",
        "not settled": "whether its general loss is unchanged is not settled by this many tokens",
        "no verdict": "these are too few documents for a verdict",
    }[change.verdict]
    return [
        f"Without the dictionary the fitted model is off by {_with_interval(change)} nats/token: "
        f"{kept}."
    ]


def _verdict(estimate: Estimate) -> str:
    words = {
        "above": "more than nothing fitted and than a random change",
        "below": "worse than nothing fitted",
        "equal": f"within {hundredths(estimate.margin or 0.0)} % of a rival",
        "no verdict": "too few documents for a verdict",
    }
    return words.get(estimate.verdict) or verdict_words(estimate)


def _share_range(found: AdaptResults) -> list[str]:
    conditions = [*found.conditions("scaling"), *found.conditions("several")]
    shares = [e.value for c in conditions if (e := found.number(c, SHARE)) is not None]
    if not shares:
        return []
    return [f"Fitting recovers {span(shares)} of what splicing costs."]


def _baselines(found: AdaptResults) -> list[str]:
    main = found.main
    conditions = found.conditions("baselines")
    parts = {
        c.kind: found.number(c, SHARE) for c in conditions if "lora" not in c.kind or c == main
    }
    both = [
        (c, e) for c in conditions if "+" in c.kind and (e := found.number(c, SHARE)) is not None
    ]
    said = []
    for condition, estimate in both:
        alone = [parts.get(part) for part in condition.kind.split("+")]
        known = [one.value for one in alone if one is not None]
        if len(known) == len(alone):
            total = sum(known)
            less = "less than" if estimate.value < total else "no less than"
            said.append(
                f"{condition.fitted}: {hundredths(estimate.value)} %, {less} the "
                f"{hundredths(total)} % that its parts recover one by one."
            )
    return [*said, *_other_way(found)]


def _other_way(found: AdaptResults) -> list[str]:
    """The two directions of the KL at the same budget, and why they need not agree."""
    main = found.main
    pairs = [(c, found.number(c, SHARE)) for c in found.conditions("baselines")]
    other = next((e for c, e in pairs if c.kind == "lora_other_kl" and e is not None), None)
    share = found.number(main, SHARE) if main else None
    if main is None or other is None or share is None:
        return []
    paper = found.facts.get("settings", {}).get("fit", {}).get("direction") != "original_spliced"
    own, turned = "KL(spliced, original)", "KL(original, spliced)"
    if not paper:
        own, turned = turned, own
    papers = ", the direction of the paper," if paper else ""
    return [
        f"Fitted by {own}{papers} LoRA recovers {_with_interval(share, True)}, by {turned} "
        f"{_with_interval(other, True)}. KL(original, spliced) is, but for a constant, the "
        "cross-entropy under the original's own predictions, the nearest thing to the loss that "
        "the share is made of; KL(spliced, original) weighs tokens by the spliced model's "
        "predictions, so that what it leaves out counts little."
    ]


def _scaling(found: AdaptResults) -> list[str]:
    taken = [
        (c, e) for c in found.conditions("scaling") if (e := found.number(c, SHARE)) is not None
    ]
    if not taken:
        return []
    above = sum(e.verdict == "above" for _, e in taken)
    top = best(taken)
    assert top is not None
    if len(taken) == 1:
        return []
    return [
        f"Over {len(taken)} combinations of dictionary and rank the loss recovered is "
        f"{span(e.value for _, e in taken)}, beyond nothing fitted and a random change in {above}; "
        f"most for {top[0].around} with {top[0].fitted}."
    ]


def _times(found: AdaptResults) -> list[str]:
    ups = [e for e in found.all_of("adapt.speed_up") if e.value == e.value]
    if not ups:
        return []
    sooner = sum(e.verdict == "above" for e in ups)
    return [
        f"TopK + LoRA takes {span(e.value for e in ups)} times less time than end to end over "
        f"{plural(len(ups), 'loss').replace('losss', 'losses')}; sooner for certain in {sooner}."
    ]


def _several(found: AdaptResults) -> list[str]:
    said = []
    for condition in found.conditions("several"):
        before = found.number(condition, "adapt.loss_spliced")
        after = found.number(condition, "adapt.loss_adapted")
        if before and after:
            said.append(
                f"{plural(len(condition.sites), 'site')}: {number(before.value)} nats/token "
                f"spliced, {_with_interval(after)} with {condition.fitted}."
            )
    return said


def _tokens(found: AdaptResults) -> list[str]:
    worse = found.number(found.main, "adapt.tokens_worse") if found.main else None
    if worse is None:
        return []
    random = level_under(worse, RANDOM_CHANGE)
    chance = f"; under a random change of equal size {hundredths(random)} %" if random else ""
    return [f"{_with_interval(worse, True)} of the tokens get worse{chance}."]


def _streams(found: AdaptResults) -> list[str]:
    changes = found.all_of("adapt.distance_change")
    behind = [e for e in changes if e.key.site != (found.main.site if found.main else "")]
    if not behind:
        return []
    closer = sum(e.verdict == "below" for e in behind)
    places = {e.key.site for e in behind}
    euclidean = [e.value for e in found.all_of("adapt.euclidean_change") if e.key.site in places]
    beside = f", the Euclidean one by {span(euclidean)}" if euclidean else ""
    return [
        f"The stream comes closer to the original's at {closer} of {len(behind)} blocks behind the "
        f"site: the relative distance changes by {span(e.value for e in behind)}{beside}."
    ]


def _single(found: AdaptResults) -> list[str]:
    conditions = found.conditions("single")
    whole = found.number(found.main, SHARE) if found.main else None
    if not conditions or whole is None or found.main is None:
        return []
    first, last = (found.number(conditions[i], SHARE) for i in (0, -1))
    if first is None or last is None:
        return []
    part = found.number(conditions[0], "adapt.next_share")
    of_all = (
        [] if part is None else [f"That is {_with_interval(part, True)} of what all blocks do."]
    )
    return [
        f"The next block alone recovers {_with_interval(first, True)}, the last alone "
        f"{_with_interval(last, True)}; {found.main.fitted} {_with_interval(whole, True)}.",
        *of_all,
    ]


def _steering(found: AdaptResults) -> list[str]:
    positive = found.all_of("steering.change_positive")
    if not positive:
        return []
    better = sum(e.verdict == "above" for e in positive)
    return [
        f"With LoRA steering raises positive texts further, beyond random directions, for {better} "
        f"of {plural(len(positive), 'latent')}: {span(e.value for e in positive)} points."
    ]


_SENTENCES: dict[str, Callable[[AdaptResults], list[str]]] = {
    "baselines": _baselines,
    "scaling": _scaling,
    "times": _times,
    "several": _several,
    "tokens": _tokens,
    "streams": _streams,
    "single": _single,
    "steering": _steering,
}
