"""Batched greedy answers against one prompt at a time, token by token, without a cache."""

from __future__ import annotations

import pytest
import torch

from lorascope.behaviours.generation import answers, completions
from lorascope.models.hooks import replace
from lorascope.models.load import load_base
from lorascope.models.sites import parse_site


@pytest.fixture(scope="module")
def loaded():
    return load_base("embedded", device="cpu")


PROMPTS = ("The", "What is the sum of two and three? The answer is", "In the year 1850 a")


def slowly(model, tokenizer, prompt, count):
    ids = list(prompt)
    for _ in range(count):
        with torch.no_grad():
            token = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        ids.append(token)
        if token == tokenizer.eos_token_id:
            break
    return tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True).strip()


def test_together_as_one_by_one(loaded):
    model, tokenizer = loaded
    prompts = [tokenizer(text)["input_ids"] for text in PROMPTS]
    wanted = [slowly(model, tokenizer, prompt, 6) for prompt in prompts]
    seen = []
    found = answers(model, tokenizer, prompts, new_tokens=6, batch=2, advance=seen.append)
    assert found == wanted
    assert len(set(found)) == 3
    assert seen == [2, 1]


def test_hooks_stay_on_and_modes_are_put_back(loaded):
    model, tokenizer = loaded
    prompts = [tokenizer(PROMPTS[1])["input_ids"]]
    plain = answers(model, tokenizer, prompts, new_tokens=4)
    model.train()
    try:
        with replace(model, parse_site("layers.4"), lambda stream: -stream):
            changed = answers(model, tokenizer, prompts, new_tokens=4)
        assert model.training
    finally:
        model.eval()
    assert changed != plain
    assert answers(model, tokenizer, prompts, new_tokens=4) == plain


def test_an_answer_says_whether_it_ended(loaded):
    model, tokenizer = loaded
    prompts = [tokenizer(PROMPTS[0])["input_ids"]]
    (open_end,) = completions(model, tokenizer, prompts, new_tokens=4)
    assert not open_end.ended
    first = tokenizer(open_end.text, add_special_tokens=False)["input_ids"][0]
    assert first != tokenizer.eos_token_id
    # Every token is the end once its output is the largest everywhere.
    with replace(model, parse_site("layers.7"), lambda stream: 0 * stream + ending(model)):
        (ended,) = completions(model, tokenizer, prompts, new_tokens=4)
    assert ended.ended
    assert ended.text == ""


def ending(model):
    """A stream that points at the end-of-text token."""
    return model.get_input_embeddings().weight[1] * 100
