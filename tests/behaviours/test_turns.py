"""Conversations as tokens: chat templates as their tokenizers write them, responses marked."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from lorascope.behaviours.records import BehaviourRecord, Turn
from lorascope.behaviours.turns import prompt_ids, record_windows
from lorascope.embedded import model_path
from lorascope.errors import InputError

GEMMA = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{ raise_exception('no system turns') }}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "<start>{{ role }}\n{{ message['content'] | trim }}<eos>\n{% endfor %}"
    "{% if add_generation_prompt %}<start>model\n{% endif %}"
)


@pytest.fixture
def tokenizer():
    found = AutoTokenizer.from_pretrained(model_path())
    assert found.chat_template is None
    return found


def record(*turns, response="Four."):
    messages = tuple(Turn(role=role, content=content) for role, content in turns)
    return BehaviourRecord(messages=messages, response=response, changed=True, split="train")


def marked(window, tokenizer):
    return tokenizer.decode([i for i, r in zip(window.ids, window.response, strict=True) if r])


ASKED = record(("user", "Hello"), ("assistant", "Yes?"), ("user", " 2 + 2? "), response=" Four. ")


def test_without_a_template_turns_are_plain_text(tokenizer):
    (window,) = record_windows([ASKED], tokenizer, 100)
    assert tokenizer.decode(window.ids).startswith("<bos>### User:\nHello\n\n### Assistant:\nYes?")
    assert marked(window, tokenizer).endswith("Four. <eos>")
    short = record(("user", "2 + 2?"))
    (window,) = record_windows([short], tokenizer, 100)
    prompt = prompt_ids(short.messages, tokenizer)
    assert window.ids[: len(prompt)] == prompt
    assert window.response == [False] * len(prompt) + [True] * (len(window.ids) - len(prompt))


def test_a_template_is_respected(tokenizer):
    tokenizer.chat_template = GEMMA
    (window,) = record_windows([ASKED], tokenizer, 100)
    text = "<bos><start>user\nHello<eos>\n<start>model\nYes?<eos>\n<start>user\n2 + 2?<eos>\n"
    assert tokenizer.decode(window.ids) == text + "<start>model\nFour.<eos>"
    # Earlier turns of the assistant are part of the prompt.
    assert marked(window, tokenizer) == "Four.<eos>"
    prompt = prompt_ids(ASKED.messages, tokenizer)
    assert window.ids[: len(prompt)] == prompt
    assert window.ids.count(tokenizer.bos_token_id) == 1
    assert window.ids[-1] == tokenizer.eos_token_id


def test_what_is_longer_than_the_context_is_left_out(tokenizer):
    long, short = record(("user", "word " * 100)), record(("user", "2 + 2?"))
    for template in (None, GEMMA):
        tokenizer.chat_template = template
        assert [w.document for w in record_windows([long, short], tokenizer, 60)] == [1]


def test_templates_that_do_not_serve(tokenizer):
    tokenizer.chat_template = GEMMA
    with pytest.raises(InputError, match=r"refuses a conversation \(no system turns\)"):
        record_windows([record(("system", "Be kind."), ("user", "2 + 2?"))], tokenizer, 100)
    tokenizer.chat_template = (
        "{{ messages[0]['content'] }}{% if add_generation_prompt %}A:{% endif %}"
    )
    with pytest.raises(InputError, match="does not write the response after the prompt"):
        record_windows([record(("user", "2 + 2?"))], tokenizer, 100)
