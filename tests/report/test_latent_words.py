"""What is said of a latent study's goal."""

import pytest

from lorascope.report.latent_words import verdicts
from lorascope.results import Estimate, Key, Null


def said(value, low, high, share=0.95):
    kept = Estimate(
        "latent.kept",
        value,
        (low, high),
        3,
        "share",
        (Null("untouched model", 0.0, 0.0, 0.0),),
        Key("top m", 1, "layers.4", None, "", "m=32"),
    )
    facts = {
        "chosen": "top m",
        "most": 32,
        "share": share,
        "seeds": [0, 1, 2],
        "dictionary": {"latents": 1024},
        "choices": ["dense", "top m"],
        "curves": [],
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
