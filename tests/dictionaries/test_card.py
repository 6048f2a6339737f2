"""A dictionary says what it was made for, and is refused elsewhere."""

import pytest

from lorascope.dictionaries.card import Card
from lorascope.errors import InputError

CARD = Card(model="google/gemma-2-9b", site="layers.20", d_model=3584, source="folder")


def test_what_it_was_made_for_passes_in_every_spelling():
    CARD.require(model="google/gemma-2-9b", site="layers.20")
    CARD.require(model="/models/gemma-2-9b/", site="layers.20", d_model=3584)
    CARD.require(model="Gemma-2-9B", site="layers.20")
    Card(model="gpt2-small").require(model="openai-community/gpt2", site="layers.1")
    Card(model="google/gemma-3-270m-pt").require(model="google/gemma-3-270m", site="layers.1")


def test_what_it_does_not_know_passes():
    Card().require(model="anything", site="layers.3", d_model=12)
    Card(site="layers.3").require(model="anything", site="layers.3")


def test_another_model_or_site_is_refused_unless_forced():
    with pytest.raises(
        InputError,
        match=r"dictionary folder: made for google/gemma-2-9b, not for .*gemma-2-2b; .*--force",
    ):
        CARD.require(model="google/gemma-2-2b", site="layers.20")
    with pytest.raises(InputError, match=r"made for google/gemma-2-9b, not for .*gemma-2-9b-it"):
        CARD.require(model="google/gemma-2-9b-it", site="layers.20")
    with pytest.raises(InputError, match=r"made for layers\.20, not for layers\.2; .*--force"):
        CARD.require(model="google/gemma-2-9b", site="layers.2")
    CARD.require(model="another", site="layers.2", force=True)


def test_another_place_of_the_same_layer_is_refused():
    card = Card(site="blocks.20.hook_mlp_out")
    with pytest.raises(InputError, match=r"made for blocks\.20\.hook_mlp_out, not for layers\.20"):
        card.require(model="any", site="layers.20")


@pytest.mark.parametrize("force", [True, False])
def test_another_width_is_refused_even_when_forced(force):
    with pytest.raises(InputError, match=r"folder: reads rows of width 3584, the model's are 2304"):
        CARD.require(model="google/gemma-2-9b", site="layers.20", d_model=2304, force=force)
