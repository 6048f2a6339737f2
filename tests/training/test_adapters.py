"""Training adapters: they learn, they open in plain PEFT, and rank is all that differs."""

import json

import pytest
import torch
from peft import PeftModel
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

from lorascope.activations.text import Document, Segment
from lorascope.activations.tokens import Window, windows
from lorascope.errors import InputError
from lorascope.models.adapted import load
from lorascope.training import adapters
from lorascope.training.adapters import mean_response_loss, train_adapter
from lorascope.training.settings import LoraTraining

SETTINGS = LoraTraining(steps=60, batch=8, rate=1e-2, context=32, products="float32")
RANK_4 = SETTINGS.model_copy(update={"ranks": (4,)})
IDS = torch.arange(24).reshape(2, 12) + 3


def record(number):
    """A prompt of three words, answered by its first word twice and then always w60."""
    first = 7 * number % 50
    prompt = f"w{first} w{number % 13} w{number % 31} w58"
    return Document((Segment(prompt), Segment(f" w{first} w{first} w60", response=True)))


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint):
    return str(tiny_checkpoint("llama"))


@pytest.fixture(scope="module")
def cut(checkpoint):
    """(windows to train on, windows held out)."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    documents = [record(i) for i in range(120)]
    return windows(documents[:96], tokenizer, 32), windows(documents[96:], tokenizer, 32)


@pytest.fixture(scope="module")
def trained(checkpoint, cut, tmp_path_factory):
    """An adapter of rank 4: (folder, outcome, global random state before and after)."""
    folder = tmp_path_factory.mktemp("adapters") / "r4"
    before = torch.get_rng_state()
    outcome = train_adapter(
        checkpoint, "r4", *cut, folder, RANK_4, trained_on=["b", "a"], device="cpu"
    )
    return folder, outcome, before, torch.get_rng_state()


@torch.no_grad()
def plain_loss(module, found):
    """Mean −log p of the response tokens, a window at a time, without this package's code."""
    losses = []
    for window in found:
        logits = module(input_ids=torch.tensor([window.ids])).logits[0]
        log_p = functional.log_softmax(logits, dim=-1)
        losses += [
            -log_p[place - 1, window.ids[place]].item()
            for place in range(1, len(window.ids))
            if window.response[place]
        ]
    return sum(losses) / len(losses)


def test_the_held_out_loss_falls_and_is_what_plain_peft_computes(checkpoint, cut, trained):
    folder, outcome, *_ = trained
    base = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    assert outcome.held_out_before == pytest.approx(plain_loss(base, cut[1]), rel=1e-4)
    assert outcome.held_out_after < 0.7 * outcome.held_out_before
    assert outcome.train_loss < 0.7 * outcome.held_out_before
    peft = PeftModel.from_pretrained(base, folder).eval()
    assert outcome.held_out_after == pytest.approx(plain_loss(peft, cut[1]), rel=1e-4)
    assert (outcome.adapter, outcome.rank, outcome.steps) == ("r4", 4, 60)


def test_the_folder_opens_in_plain_peft_with_equal_logits(checkpoint, trained):
    folder = trained[0]
    base = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    with torch.no_grad():
        bare = base(input_ids=IDS).logits.clone()
        plain = PeftModel.from_pretrained(base, folder).eval()(input_ids=IDS).logits
        with load(checkpoint, {"r4": folder}, device="cpu").variant("r4") as module:
            ours = module(input_ids=IDS).logits
    assert (plain - bare).abs().max() > 0.1
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)


def test_the_configuration_is_as_asked(checkpoint, trained):
    config = json.loads((trained[0] / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (4, 8)
    assert config["base_model_name_or_path"] == checkpoint
    blocks = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert sorted(config["target_modules"]) == sorted(blocks)
    # per block, rank times inputs and outputs of each map: width 32, keys and values 16, MLP 48
    sizes = [(32, 32), (32, 16), (32, 16), (32, 32), (32, 48), (32, 48), (48, 32)]
    assert trained[1].parameters == 3 * sum(4 * (i + o) for i, o in sizes)


def test_names_are_written_in_one_order_and_the_readme_says_what_it_is(checkpoint, trained):
    config = json.loads((trained[0] / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(config["target_modules"])
    assert list(config) == sorted(config)
    readme = (trained[0] / "README.md").read_text()
    assert readme.startswith(f"# LoRA adapter of {checkpoint}\n")
    assert "Rank 4, alpha 8" in readme
    assert "More Information Needed" not in readme


def test_the_card_lists_what_it_was_trained_on(checkpoint, trained):
    card = json.loads((trained[0] / "lorascope.json").read_text())
    assert card["trained_on"] == ["a", "b"]
    assert card["model"] == checkpoint
    assert card["records"]["training"] > card["records"]["held_out"] > 0
    assert card["records"]["without a response"] == 0
    assert card["settings"] == RANK_4.plain()
    assert card["outcome"]["held_out_after"] == trained[1].held_out_after


def test_the_global_random_state_is_left_alone(trained):
    assert torch.equal(trained[2], trained[3])


def test_the_base_model_is_not_trained(checkpoint, trained):
    base = AutoModelForCausalLM.from_pretrained(checkpoint)
    stored = PeftModel.from_pretrained(base, trained[0]).base_model.model.state_dict()
    fresh = AutoModelForCausalLM.from_pretrained(checkpoint).state_dict()
    assert all(
        torch.equal(stored[key.replace("_proj.", "_proj.base_layer.")], fresh[key]) for key in fresh
    )


def brief(checkpoint, cut, folder, rank=2, **changed):
    settings = SETTINGS.model_copy(update={"ranks": (rank,), "steps": 15, **changed})
    outcome = train_adapter(checkpoint, f"r{rank}", *cut, folder, settings, device="cpu")
    weights = load(checkpoint, {"a": folder}, device="cpu").module.state_dict()
    return outcome, {key: tensor for key, tensor in weights.items() if "lora_" in key}


def test_a_seed_gives_one_adapter_and_another_seed_another(checkpoint, cut, tmp_path):
    first = brief(checkpoint, cut, tmp_path / "first")[1]
    torch.rand(5)
    again = brief(checkpoint, cut, tmp_path / "again")[1]
    other = brief(checkpoint, cut, tmp_path / "other", seed=1)[1]
    assert len(first) == 2 * 7 * 3
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first)


def batches_seen(monkeypatch, checkpoint, cut, folder, rank, **changed):
    seen = []
    real = adapters.response_token_losses

    def recorded(module, batch, device):
        if module.training:
            seen.append(batch.ids.clone())
        return real(module, batch, device)

    with monkeypatch.context() as patch:
        patch.setattr(adapters, "response_token_losses", recorded)
        brief(checkpoint, cut, folder, rank, **changed)
    return seen


def test_every_rank_sees_the_same_records_in_the_same_order(checkpoint, cut, tmp_path, monkeypatch):
    seen = {
        rank: batches_seen(monkeypatch, checkpoint, cut, tmp_path / f"r{rank}", rank)
        for rank in (2, 8)
    }
    assert len(seen[2]) == 15
    assert all(torch.equal(a, b) for a, b in zip(seen[2], seen[8], strict=True))
    # 96 records in batches of 8: twelve steps see each once
    once = torch.cat([batch[:, :7] for batch in seen[2][:12]])
    assert sorted(map(tuple, once.tolist())) == sorted(tuple(window.ids[:7]) for window in cut[0])
    other = batches_seen(monkeypatch, checkpoint, cut, tmp_path / "seed", 2, seed=1)
    assert not torch.equal(seen[2][0], other[0])


def test_bfloat16_products_train_float32_adapters(checkpoint, cut, tmp_path):
    exact = brief(checkpoint, cut, tmp_path / "float32")[0]
    low, weights = brief(checkpoint, cut, tmp_path / "bfloat16", products="bfloat16")
    assert all(tensor.dtype == torch.float32 for tensor in weights.values())
    assert low.held_out_after == pytest.approx(exact.held_out_after, rel=0.05)
    assert low.held_out_after != exact.held_out_after


def test_named_targets_and_another_alpha(checkpoint, cut, tmp_path, monkeypatch):
    changed = {"targets": ("q_proj", "down_proj"), "alpha_over_rank": 1.5}
    weights = brief(checkpoint, cut, tmp_path / "a", rank=6, **changed)[1]
    assert {key.split(".")[4] for key in weights} == {"q_proj", "down_proj"}
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert config["lora_alpha"] == 9
    # Scales are not rounded: at rank 1 this alpha would be nought.
    brief(checkpoint, cut, tmp_path / "c", rank=1, alpha_over_rank=0.4)
    config = json.loads((tmp_path / "c" / "adapter_config.json").read_text())
    assert config["lora_alpha"] == 0.4
    assert load(checkpoint, {"c": str(tmp_path / "c")}, device="cpu").info("c").alpha == 0.4
    monkeypatch.setattr(adapters, "load_base", None)
    with pytest.raises(InputError, match=r"targets \('query',\): .*name linear maps"):
        brief(checkpoint, cut, tmp_path / "b", targets=("query",))


def test_a_window_that_only_opens_with_a_response_teaches_nothing(checkpoint, cut, tmp_path):
    lone = [Window([5], [True], 900), Window([5, 6], [True, False], 901)]
    outcome, weights = brief(checkpoint, (lone + cut[0][:4], cut[1]), tmp_path / "a", batch=1)
    assert outcome.train_loss < outcome.held_out_before
    assert all(bool(tensor.isfinite().all()) for tensor in weights.values())
    with pytest.raises(InputError, match="no response to learn from"):
        train_adapter(checkpoint, "r2", lone, cut[1], tmp_path / "b", SETTINGS, device="cpu")


def test_records_without_responses_are_refused(checkpoint, cut, tmp_path):
    plain = [Window(window.ids, [False] * len(window.ids), 0) for window in cut[0]]
    with pytest.raises(InputError, match="the records hold no response to learn from"):
        train_adapter(checkpoint, "r2", plain, cut[1], tmp_path / "a", SETTINGS, device="cpu")
    with pytest.raises(InputError, match="the records hold no response to learn from"):
        train_adapter(checkpoint, "r2", cut[0], [], tmp_path / "b", SETTINGS, device="cpu")


def test_the_mean_is_over_tokens_whatever_the_batches(checkpoint, cut):
    base = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    uneven = windows(
        [record(1), Document((Segment("w1 w2"), Segment(" w3" * 20, response=True)))], tokenizer, 32
    )
    expected = plain_loss(base, uneven)
    for batch_tokens in (8, 4096):
        found = mean_response_loss(base, tokenizer, uneven, batch_tokens=batch_tokens)
        assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("field", ["alpha_over_rank", "rate"])
def test_settings_are_finite(field):
    for value in (float("inf"), float("nan")):
        with pytest.raises(InputError, match=field):
            LoraTraining.parse({field: value}, "test")
