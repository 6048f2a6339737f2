"""Conversations through chat templates: what the model was trained to see, and who wrote what."""

import json

import pytest
from transformers import AutoTokenizer

from lorascope.activations.chat import Message, templated
from lorascope.activations.text import document, read_documents
from lorascope.activations.tokens import prompt_of, windows
from lorascope.embedded import model_path
from lorascope.errors import InputError

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As Gemma's: no system turn, roles alternate, the assistant is the model, contents are trimmed.
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
# As Qwen3's: what the assistant thought in earlier turns is left out of a longer conversation.
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last %}<think></think>{% endif %}"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# ChatML that marks the assistant's words itself.
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}<|im_end|>"
    "{% endgeneration %}{% else %}{{ m['content'] }}<|im_end|>{% endif %}\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TURNS = [
    ("user", "What is two and two?"),
    ("assistant", "It is four."),
    ("user", "And three?"),
    ("assistant", "Seven, all told."),
]


def tokenizer(template):
    found = AutoTokenizer.from_pretrained(model_path("embedded"))
    found.add_special_tokens(
        {
            "additional_special_tokens": [
                *("<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>")
            ]
        }
    )
    found.chat_template = template
    return found


def messages(turns=TURNS):
    return [Message(role, content) for role, content in turns]


def written(turns, template):
    """The text of each stretch that is marked as the assistant's."""
    reader = tokenizer(template)
    ids, response, _ = templated(messages(turns), reader)
    found, before = [], False
    for token, own in zip(ids, response, strict=True):
        if own and not before:
            found.append([])
        if own:
            found[-1].append(token)
        before = own
    return [reader.decode(part) for part in found]


@pytest.mark.parametrize(
    ("template", "end"), [(CHATML, "<|im_end|>"), (GEMMA, "<end_of_turn>"), (MARKED, "<|im_end|>")]
)
def test_every_turn_of_the_assistant_is_marked_with_its_end(template, end):
    assert written(TURNS, template) == [f"It is four.{end}", f"Seven, all told.{end}"]


def test_the_ids_are_the_template_s_own():
    reader = tokenizer(CHATML)
    ids, _, spelled = templated(messages(), reader)
    plain = [message.plain() for message in messages()]
    assert ids == reader.apply_chat_template(plain, tokenize=True, return_dict=True)["input_ids"]
    assert spelled == 0


@pytest.mark.parametrize("template", [CHATML, GEMMA, MARKED])
def test_what_comes_before_a_response_is_asked_as_it_is_captured(template):
    reader = tokenizer(template)
    record = {"instruction": "Add.", "input": "2 and 3", "output": "5"}
    asked = document(record, "a file", template="chat")
    shown, ids = prompt_of(asked, reader)
    (window,) = windows([asked], reader, 256)
    assert shown == "Add.\n\n2 and 3"
    assert ids == window.ids[: window.response.index(True)]
    assert reader.decode(ids).endswith(("<|im_start|>assistant\n", "<start_of_turn>model\n"))


def test_without_a_template_it_is_the_plain_text():
    reader = tokenizer(None)
    asked = document({"instruction": "Add.", "output": "5"}, "a file", template="chat")
    shown, ids = prompt_of(asked, reader)
    assert shown == asked.prompt
    assert shown.endswith("### Response:\n")
    assert reader.decode(ids) == reader.bos_token + shown


def test_the_marks_are_those_of_a_template_that_marks_itself():
    reader = tokenizer(MARKED)
    plain = [message.plain() for message in messages()]
    own = reader.apply_chat_template(
        plain, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    ids, response, _ = templated(messages(), reader)
    assert ids == own["input_ids"]
    assert [int(mark) for mark in response] == own["assistant_masks"]
    assert 0 < sum(response) < len(response)


def test_a_turn_that_is_written_otherwise_later_is_found_by_its_words():
    assert written(TURNS, THINKING) == ["It is four.", "<think></think>Seven, all told.<|im_end|>"]


def test_a_system_turn_goes_where_the_template_has_none():
    turns = [("system", "Be brief."), *TURNS]
    reader = tokenizer(GEMMA)
    ids, _, _ = templated(messages(turns), reader)
    assert "<start_of_turn>user\nBe brief.\n\nWhat is two and two?" in reader.decode(ids)
    ids, _, _ = templated(messages(turns), tokenizer(CHATML))
    assert "<|im_start|>system\nBe brief.<|im_end|>" in tokenizer(CHATML).decode(ids)


def test_turns_of_one_role_are_joined_where_roles_must_alternate():
    turns = [("user", "One."), ("user", "Two."), ("tool", "Three."), ("assistant", "Six.")]
    assert written(turns, GEMMA) == ["Six.<end_of_turn>"]
    reader = tokenizer(GEMMA)
    assert "One.\n\nTwo.\n\nThree." in reader.decode(templated(messages(turns), reader)[0])


def test_a_template_that_leaves_turns_out_is_refused():
    with pytest.raises(InputError, match=r"leaves out a turn.*texts\.template: plain"):
        templated(messages(), tokenizer("{{ messages[-1]['content'] }}"))
    with pytest.raises(InputError, match="refuses a conversation"):
        templated(messages(), tokenizer("{{ raise_exception('never') }}"))


def test_special_tokens_in_contents_are_counted():
    turns = [("user", "say <|im_end|> twice: <|im_end|>"), ("assistant", "no")]
    *_, spelled = templated(messages(turns), tokenizer(CHATML))
    assert spelled == 2
    found = windows(
        [
            document(
                {"messages": [dict(zip(("role", "content"), t, strict=True)) for t in turns]}, "x"
            )
        ],
        tokenizer(CHATML),
        64,
    )
    assert [window.written for window in found] == [2]


SHAPES = {
    "messages": {"messages": [{"role": r, "content": c} for r, c in TURNS]},
    "conversations": {
        "conversations": [
            {"from": {"user": "human", "assistant": "gpt"}[r], "value": c} for r, c in TURNS
        ]
    },
    "prompt and completion": {
        "prompt": [{"role": r, "content": c} for r, c in TURNS[:3]],
        "completion": [{"role": "assistant", "content": TURNS[3][1]}],
    },
}


@pytest.mark.parametrize("shape", SHAPES)
def test_conversations_of_every_shape_are_the_same(shape):
    found = document(SHAPES[shape], "here")
    assert found.messages == tuple(messages())
    assert found.digest == document(SHAPES["messages"], "here").digest
    assert found.has_response


def test_a_prompt_and_completion_in_words_are_two_turns():
    found = document({"prompt": "Two and two?", "completion": "Four."}, "here")
    assert found.messages == (Message("user", "Two and two?"), Message("assistant", "Four."))


def test_templates_are_for_chats_and_for_instructions_where_that_is_asked():
    record = {"instruction": "Add.", "input": "2 2", "output": "4"}
    assert document(record, "x").messages == ()
    assert document(record, "x", template="chat").messages == (
        Message("user", "Add.\n\n2 2"),
        Message("assistant", "4"),
    )
    assert document(SHAPES["messages"], "x", template="plain").messages == ()
    texts = {document(record, "x", template=one).text for one in ("auto", "chat", "plain")}
    assert len(texts) == 1


def test_windows_go_through_the_template_where_there_is_one(tmp_path):
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps(SHAPES["messages"]) + "\n", encoding="utf-8")
    documents = read_documents(str(path))
    reader = tokenizer(GEMMA)
    (window,) = windows(documents, reader, 200)
    opening = [reader.bos_token_id]
    assert window.ids[:1] == opening
    assert window.ids.count(reader.bos_token_id) == 1
    assert reader.decode(window.ids[1:4]).startswith("<start_of_turn>user")
    answered = [t for t, own in zip(window.ids, window.response, strict=True) if own]
    assert reader.decode(answered) == "It is four.<end_of_turn>Seven, all told.<end_of_turn>"
    plain = windows(documents, tokenizer(None), 200)
    assert "### User:" in reader.decode(plain[0].ids)
    parts = windows(documents, reader, 20)
    assert len(parts) > 1
    joined = [token for part in parts for token in part.ids[1:]]
    assert joined == window.ids[1:]
