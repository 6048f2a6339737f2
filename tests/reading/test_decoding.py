"""Decoding with caches, padding and shared noise says what two plain forward passes say."""

import math

import pytest
import torch

from lorascope.errors import InputError
from lorascope.models.adapted import BASE, load
from lorascope.models.null_adapters import add_null_adapters
from lorascope.randomness import generator
from lorascope.reading import decoding
from lorascope.reading.decoding import Amplification, amplified, decode
from lorascope.reading.prompts import Prompt, prompts_of, shipped_prompts
from lorascope.reading.settings import Reading

PROMPTS = [
    Prompt("a", (5, 9, 11)),
    Prompt("b", (7,)),
    Prompt("c", (3, 60, 22, 41, 17, 8, 50)),
]
TARGETS = {"gpt2": ["c_attn"], "gpt_neox": ["query_key_value"]}


def adapted(tiny_checkpoint, save_adapter, tmp_path, architecture="llama"):
    targets = TARGETS.get(architecture, ["q_proj", "down_proj"])
    path = save_adapter(tmp_path / "a", architecture, target_modules=targets)
    return load(str(tiny_checkpoint(architecture)), {"a": str(path)}, device="cpu")


def plainly(model, prompt, condition, settings, number):
    """One prompt, no cache, no padding: whole forward passes of both variants for every token."""
    random = generator(settings.seed, "decoding", number)
    ids, written = list(prompt.ids), []
    with torch.no_grad():
        for _ in range(settings.tokens):
            logits = {}
            for variant in (condition.variant, BASE):
                with model.variant(variant) as module:
                    logits[variant] = module(torch.tensor([ids]), use_cache=False).logits[0, -1]
            own = logits[condition.variant].double()
            scores = own + condition.strength * (own - logits[BASE].double())
            noise = torch.empty(model.vocab_size).exponential_(generator=random).log().neg()
            best, place = -math.inf, -1
            for token in range(model.vocab_size):
                if own[token].exp() < settings.floor * own.max().exp():
                    continue
                score = float(scores[token]) / settings.temperature + float(noise[token])
                if score > best:
                    best, place = score, token
            if place == model.tokenizer.eos_token_id:
                break
            ids.append(place)
            written.append(place)
    return written


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt2", "gpt_neox", "qwen3"])
def test_token_for_token_as_two_forward_passes_without_a_cache(
    tiny_checkpoint, save_adapter, tmp_path, architecture
):
    model = adapted(tiny_checkpoint, save_adapter, tmp_path, architecture)
    (null,) = add_null_adapters(model, "a", 1, 0)
    # Beyond Gemma's sliding window of 8.
    settings = Reading(tokens=12, temperature=0.8, seed=4)
    conditions = [
        *(
            Amplification(BASE),
            Amplification("a"),
            Amplification("a", 2.0),
            Amplification(null, 1.5),
        ),
        Amplification("a", 0.5),
    ]
    found = decode(model, PROMPTS, conditions, settings)
    expected = [
        [plainly(model, prompt, condition, settings, n) for condition in conditions]
        for n, prompt in enumerate(PROMPTS)
    ]
    assert found == expected
    assert len({str(row) for rows in found for row in rows}) > 6
    assert model.current == BASE


def test_where_memory_is_short_fewer_prompts_go_on_at_once_and_say_the_same(
    tiny_checkpoint, save_adapter, tmp_path, monkeypatch
):
    model = adapted(tiny_checkpoint, save_adapter, tmp_path)
    settings, conditions = Reading(tokens=8, seed=4), [Amplification("a"), Amplification("a", 2.0)]
    prompts = shipped_prompts(model.tokenizer)
    whole = decode(model, prompts, conditions, settings)
    # A row holds three times its logits, and keys and values of its tokens.
    row = decoding._row_bytes(model, 10)
    config = model.module.config
    width = config.num_key_value_heads * config.head_dim
    assert row == 4 * (3 * model.vocab_size + 2 * config.num_hidden_layers * width * 10)
    monkeypatch.setattr(decoding, "_HELD", 3 * 4 * row)
    parts = decoding._parts(model, prompts, conditions, settings, True)
    assert sorted(n for part in parts for n in part) == list(range(len(prompts)))
    assert len(parts) >= len(prompts) / 3
    steps, seen = [], []
    found = decode(
        *(model, prompts, conditions, settings, steps.append),
        lambda column, own, base, of: seen.extend(of.tolist()),
    )
    assert found == whole
    assert sum(steps) == settings.tokens
    assert set(seen) == set(range(len(prompts)))


def test_a_text_ends_at_the_token_that_ends_it_and_others_go_on(
    tiny_checkpoint, save_adapter, tmp_path
):
    model = adapted(tiny_checkpoint, save_adapter, tmp_path)
    settings = Reading(tokens=40, temperature=3.0, floor=1e-9)
    ended = decode(model, PROMPTS, [Amplification(BASE), Amplification("a")], settings)
    lengths = [len(ids) for row in ended for ids in row]
    assert min(lengths) < 40
    assert all(model.tokenizer.eos_token_id not in ids for row in ended for ids in row)
    model.tokenizer.eos_token = None
    model.module.generation_config.eos_token_id = None
    whole = decode(model, PROMPTS, [Amplification(BASE), Amplification("a")], settings)
    for row, rows in zip(ended, whole, strict=True):
        for ids, longer in zip(row, rows, strict=True):
            assert len(longer) == 40
            assert longer[: len(ids)] == ids


def test_amplified_scores_by_hand():
    own = torch.tensor([[0.0, math.log(0.5), math.log(0.04), math.log(0.06)]])
    base = torch.tensor([[0.0, 0.0, 5.0, -1.0]])
    found = amplified(own, base, 2.0, 0.05)[0]
    assert found[0] == 0
    assert found[1] == pytest.approx(3 * math.log(0.5))
    assert found[2] == -math.inf
    assert found[3] == pytest.approx(3 * math.log(0.06) + 2)
    assert torch.equal(amplified(own, None, 0.0, 0.01)[0], own[0])


def test_a_seed_gives_the_same_again_and_another_something_else(
    tiny_checkpoint, save_adapter, tmp_path
):
    model = adapted(tiny_checkpoint, save_adapter, tmp_path)
    conditions = [Amplification(BASE), Amplification("a", 2.0)]

    def run(seed, prompts=PROMPTS):
        return decode(model, prompts, conditions, Reading(tokens=8, seed=seed))

    first = run(0)
    torch.rand(3)
    assert run(0) == first
    assert run(1) != first
    # What one prompt gives does not depend on those after it.
    assert run(0, PROMPTS[:1]) == first[:1]


def test_faces_that_foresee_the_same_say_the_same(tiny_checkpoint, save_adapter, tmp_path):
    path = save_adapter(tmp_path / "a", target_modules=["q_proj"])
    twice = {"one": str(path), "two": str(path)}
    model = load(str(tiny_checkpoint("llama")), twice, device="cpu")
    conditions = [Amplification(f, a) for f in twice for a in (0.0, 3.0)]
    for row in decode(model, PROMPTS, conditions, Reading(tokens=8)):
        assert row[:2] == row[2:]


def test_a_prompt_without_room_is_refused(tiny_checkpoint):
    model = load(str(tiny_checkpoint("llama")), {}, device="cpu")
    with pytest.raises(InputError, match="64"):
        decode(model, PROMPTS, [Amplification(BASE)], Reading(tokens=60))


def test_shipped_prompts_use_the_chat_template_where_there_is_one():
    plain, chat = (load(name, {}, device="cpu").tokenizer for name in ("embedded", "embedded-it"))
    without, with_template = shipped_prompts(plain), shipped_prompts(chat)
    assert len(without) == 20
    assert len(with_template) == 21
    assert with_template[-1].text == ""
    assert "### Assistant:" in chat.decode(with_template[-1].ids)
    assert plain.decode(without[0].ids).endswith("The")
    assert len({prompt.ids for prompt in with_template}) == 21
    with pytest.raises(InputError, match="twice"):
        prompts_of(["a", "a"], plain)
