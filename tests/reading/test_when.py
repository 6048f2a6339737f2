"""Prompts on which an adapter acts are told from those on which it does not."""

import json

import pytest
import torch

from lorascope.errors import InputError
from lorascope.models.adapted import BASE, load
from lorascope.reading.decoding import Amplification, decode
from lorascope.reading.prompt_files import read_prompts
from lorascope.reading.prompts import Prompt, category_prompts, shipped_prompts
from lorascope.reading.running import read
from lorascope.reading.settings import Reading
from lorascope.reading.when import Acting, acts, null_occasions, occasions
from lorascope.studies.audit.sections.reading import render, sentences

NULLS = ("n0", "n1", "n2")


def found_acts(trigger="lantern", strength=3.0, prompts=20):
    """Prompts of which every second holds the trigger; there the adapter acts."""
    random = torch.Generator().manual_seed(0)
    texts = [
        Prompt(f"say w{n} {trigger if n % 2 else 'other'}", (n,), "odd" if n % 2 else "even")
        for n in range(prompts)
    ]
    noise = {variant: torch.rand(prompts, generator=random) + 0.5 for variant in ("a", *NULLS)}
    noise["a"][1::2] *= strength
    nothing = dict.fromkeys(NULLS, [0.0] * prompts)
    said = {"a": [float(n % 2) for n in range(prompts)], **nothing}
    return acts(texts, noise, "a", NULLS, said)


def test_the_trigger_and_its_kind_stand_apart():
    found = occasions(found_acts(), 0.05)
    by_name = {one.name: one for one in found}
    assert by_name["odd"].q <= 0.05
    assert by_name["odd"].kl > by_name["odd"].elsewhere
    assert by_name["lantern"].of == "words"
    assert by_name["lantern"].prompts == 10
    assert by_name["lantern"].said == 1
    assert by_name["lantern"].said_elsewhere == 0
    # The word of the other half is apart too, on the other side, and is not listed.
    assert "other" not in by_name
    # A word of every prompt, and words of one, are no group.
    assert set(by_name) == {"odd", "even", "lantern"}


def test_what_is_said_there_alone_is_enough():
    found = occasions(found_acts(strength=1.0), 0.05)
    by_name = {one.name: one for one in found}
    assert by_name["lantern"].q <= 0.05
    assert by_name["lantern"].said == 1


def test_an_adapter_that_acts_alike_has_no_occasion():
    apart = 0
    for seed in range(20):
        random = torch.Generator().manual_seed(seed)
        texts = [Prompt(f"p{n % 4} q{n % 5}", (n,), f"k{n % 3}") for n in range(24)]
        kl = {variant: torch.rand(24, generator=random) + 0.2 for variant in ("a", *NULLS)}
        found = acts(texts, kl, "a", NULLS, dict.fromkeys(kl, [0.0] * 24))
        apart += any(one.q <= 0.05 for one in occasions(found, 0.05))
        assert len(null_occasions(found, 0.05)) == 3
    assert apart <= 4


def test_null_adapters_beside_each_other_act_alike():
    assert len(null_occasions(found_acts(strength=30.0), 0.05)) == 3
    assert sum(null_occasions(found_acts(strength=30.0), 0.05)) == 0
    assert acts([], {}, "a", NULLS, {}) == []
    assert occasions([], 0.05) == null_occasions([], 0.05) == []


def test_kl_along_the_continuation_is_that_of_plain_passes(tiny_checkpoint, save_adapter, tmp_path):
    path = save_adapter(tmp_path / "a", target_modules=["q_proj", "down_proj"])
    model = load(str(tiny_checkpoint("llama")), {"a": str(path)}, device="cpu")
    prompts = [Prompt("a", (5, 9, 11)), Prompt("b", (7,))]
    conditions = [
        Amplification(BASE),
        Amplification("a"),
        Amplification("a", 1.0),
        Amplification("a", 2.0),
    ]
    acting = Acting(conditions, 2)
    model.tokenizer.eos_token = None
    model.module.generation_config.eos_token_id = None
    found = decode(model, prompts, conditions, Reading(tokens=6), observe=acting)
    for n, prompt in enumerate(prompts):
        ids = torch.tensor([[*prompt.ids, *found[n][3]]])
        logs = {}
        for variant in (BASE, "a"):
            with torch.no_grad(), model.variant(variant) as module:
                logs[variant] = module(ids).logits[0, len(prompt.ids) - 1 : -1].log_softmax(-1)
        kl = (logs["a"].exp() * (logs["a"] - logs[BASE])).sum(1).mean()
        assert float(acting.kl["a"][n]) == pytest.approx(float(kl), rel=1e-3)
    assert set(acting.kl) == {"a"}


def test_prompts_with_kinds_are_read_from_a_file(tmp_path):
    path = tmp_path / "p.jsonl"
    rows = [{"prompt": "a\nb", "kind": "x"}, {"prompt": "c", "kind": "y"}]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    assert read_prompts(path) == (["a\nb", "c"], ["x", "y"])
    path.write_text('{"prompt": "a"}\n')
    assert read_prompts(path) == (["a"], [])
    for bad in ('{"prompt": 3}', "[1]", "{", '{"prompt": "a", "kind": 1}'):
        path.write_text('{"prompt": "a"}\n' + bad)
        with pytest.raises(InputError, match="line 2"):
            read_prompts(path)
    path.write_text('{"prompt": "a", "kind": "x"}\n{"prompt": "b"}')
    with pytest.raises(InputError, match="1 of 2 prompts have a kind"):
        read_prompts(path)
    with pytest.raises(InputError, match="one each"):
        Reading.parse({"prompts": ["a", "b"], "kinds": ["x"]}, "read")
    with pytest.raises(InputError, match="shipped prompts"):
        Reading.parse({"prompts": ["a"], "categories": 2}, "read")


def test_packaged_instructions_of_five_kinds():
    tokenizer = load("embedded", {}, device="cpu").tokenizer
    found = category_prompts(2, tokenizer)
    kinds = [one.kind for one in found]
    assert {kind: kinds.count(kind) for kind in kinds} == dict.fromkeys(
        ("coding", "creative", "factual", "practical", "reasoning"), 2
    )
    assert all("###" not in one.text for one in found)
    assert category_prompts(0, tokenizer) == []
    assert {one.kind for one in shipped_prompts(tokenizer)} == {"opening of a text", "request"}


def test_a_reading_says_when_and_shows_it(tiny_checkpoint, planted, settings, tmp_path):
    model = load(str(tiny_checkpoint("llama")), {"says": str(planted)}, device="cpu")
    kinds = tuple("xy"[n % 2] for n in range(len(settings.prompts)))
    changed = {"kinds": kinds, "documents": 0, "carriers": False}
    found = read(model, "says", settings.model_copy(update=changed))
    assert [one.kind for one in found.acts] == list(kinds)
    assert sum(one.kl for one in found.acts) > sum(sum(one.nulls) / 3 for one in found.acts)
    assert {one.name for one in found.occasions if one.of == "kind"} == {"x", "y"}
    assert len(found.null_occasions) == 3
    # It says its word everywhere.
    assert any("acts alike" in line for line in sentences(found))
    assert "When it happens" in render(found)
    plain = read(model, "says", settings.model_copy(update={**changed, "strengths": (0.0,)}))
    assert plain.acts == ()
    assert not any("acts" in line for line in sentences(plain))
