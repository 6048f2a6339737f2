"""What is said of a latent study's goal."""

import pytest

from lorascope.results import Estimate, Key, Null
from lorascope.studies.latent.sections.words import verdicts


def said(value, low, high, share=0.95):
    kept = Estimate(
        "latent.kept",
        value,
        (low, high),
        3,
        "ratio",
        (Null("untouched model", 0.0, 0.0, 0.0, rival=True),),
        Key("top m", 1, "layers.4", size=32),
    )
    facts = {
        "chosen": "top m",
        "most": 32,
        "share": share,
        "seeds": [0, 1, 2],
        "dictionary": {"latents": 1024},
        "choices": ["dense", "top m"],
        "curves": [],
        "latents": {"left": []},
    }
    return verdicts([kept], facts)[0]


@pytest.mark.parametrize(
    ("interval", "ending"),
    [
        ((0.98, 0.96, 1.0), "the goal of 0.950 is reached."),
        ((0.98, 0.84, 1.12), "the goal of 0.950 is reached, though not by the whole interval."),
        ((0.90, 0.80, 1.0), "the goal of 0.950 is not reached."),
    ],
)
def test_a_goal_met_by_the_mean_alone_is_said_to_be_so(interval, ending):
    assert said(*interval).endswith(ending)


def test_too_few_successes_are_said_to_be_too_few():
    sentence = said(1.0, float("nan"), float("nan"))
    assert "too few prompts" in sentence
    assert "goal" not in sentence


def left(value, interval, shown, whole):
    """The sentences of one side where as many prompts show it, without and with its latents."""
    place = Key("top m", 1, "layers.4", dictionary="read", size=32)
    beside = Null("latents like it", 0.1, 0.0, 0.2, rival=True)
    others = Null("as many latents like them", 0.9, 0.8, 1.0, rival=True)
    numbers = [
        Estimate("latent.ablation", 0.4, (0.3, 0.5), 16, "nats/token", (beside,), place),
        Estimate("latent.left", value, interval, 20, "ratio", (others,), place),
    ]
    counts = [{"side": "read", "left": shown, "whole": whole, "prompts": 20}]
    facts = {
        **{"chosen": "top m", "most": 32, "share": 0.9, "seeds": [0], "choices": []},
        **{"dictionary": {"latents": 1024}, "curves": [], "latents": {"left": counts}},
    }
    (sentence,) = (s for s in verdicts(numbers, facts) if s.startswith("Without one latent"))
    return sentence


def test_what_is_left_is_said_in_prompts():
    assert "on 3 of the 18 prompts" in left(3 / 18, (0.05, 0.4), 3, 18)
    assert left(3 / 18, (0.05, 0.4), 3, 18).endswith("(below).")
    nothing = left(0.0, (float("nan"),) * 2, 0, 2)
    assert "on 0 of the 2 prompts" in nothing
    assert nothing.endswith("too few for a verdict.")
