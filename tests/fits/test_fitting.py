"""Fitting around dictionaries: it closes the gap, leaves the frozen frozen, and goes on exactly."""

import json
import warnings

import pytest
import torch
from peft import PeftModel
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

from lorascope.errors import InputError
from lorascope.fits import run as running
from lorascope.fits.card import open_fitted, read_card
from lorascope.fits.run import HELD_OUT_KL
from lorascope.fits.wrapper import Spliced
from lorascope.models.freezing import fingerprint
from lorascope.outputs.splicing import spliced

ARCHITECTURES = ("llama", "gemma2", "gpt2", "gpt_neox", "qwen2", "qwen3")


def stored(folder):
    return (folder / "adapter_model.safetensors").read_bytes()


@torch.no_grad()
def plain_losses(module, found):
    """Mean −log p of all tokens but the first of each window, a window at a time."""
    losses = []
    for window in found:
        ids = torch.tensor([window.ids])
        log_p = module(input_ids=ids).logits[0].log_softmax(-1)
        losses += (-log_p[:-1].gather(1, ids[0, 1:, None])).flatten().tolist()
    return sum(losses) / len(losses)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_gap_closes_and_everything_frozen_stays(
    architecture, go, make, tiny_checkpoint, cut, tmp_path
):
    dictionary = make("topk")
    before = fingerprint(dictionary)
    fitted, model = go({"layers.0": dictionary}, architecture, tokens=2400)
    place = tiny_checkpoint(architecture)
    fresh = AutoModelForCausalLM.from_pretrained(place).eval()
    assert fingerprint(model) == fingerprint(fresh) == fitted.card.base
    assert fingerprint(dictionary) == before
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    conditions = fitted.card.held_out
    assert conditions["original"].kl == pytest.approx(0, abs=1e-6)
    assert conditions["spliced"].kl > 0.05
    assert conditions["adapted"].kl < 0.9 * conditions["spliced"].kl
    kl = fitted.history.series("kl")
    assert sum(kl[-3:]) < 0.9 * sum(kl[:3])
    # by plain PEFT, without this package's loading
    held_out = cut(AutoTokenizer.from_pretrained(tiny_checkpoint("llama")))[1]
    assert conditions["original"].loss == pytest.approx(plain_losses(fresh, held_out), rel=1e-4)
    peft = PeftModel.from_pretrained(fresh, tmp_path / "out").eval()
    assert conditions["unspliced"].loss == pytest.approx(plain_losses(peft, held_out), rel=1e-4)
    with spliced(peft, {0: dictionary}):
        assert conditions["adapted"].loss == pytest.approx(plain_losses(peft, held_out), rel=1e-4)
    wrapped = open_fitted(tmp_path / "out", model, {"0": dictionary})
    wrapped.save(tmp_path / "saved")
    again = Spliced.open(tmp_path / "saved", device="cpu")
    ids = torch.tensor([held_out[0].ids[:5]])
    arguments = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 1}
    texts = [each.generate(ids, **arguments).tolist() for each in (wrapped, again)]
    assert texts[0] == texts[1]
    with torch.no_grad():
        assert torch.equal(wrapped(input_ids=ids).logits, again(input_ids=ids).logits)


@pytest.mark.parametrize("direction", ["spliced_original", "original_spliced"])
def test_the_first_steps_loss_is_kl_on_full_logits(direction, go, make, tiny_checkpoint, cut):
    dictionary = make("jumprelu")
    fitted, model = go({0: dictionary}, direction=direction, tokens=120, batch=2)
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint("llama"))
    windows = cut(tokenizer)[0]
    special = set(tokenizer.all_special_ids)
    (first, *_), sums, count = running_plan(windows, tokenizer, 120, 2), 0.0, 0
    for number in first[0]:
        ids = torch.tensor([windows[number].ids])
        with torch.no_grad():
            original = model(input_ids=ids).logits[0].log_softmax(-1)
            with spliced(model, {0: dictionary}, special_ids=list(special)):
                changed = model(input_ids=ids).logits[0].log_softmax(-1)
        kept = torch.tensor([token not in special for token in windows[number].ids])
        one, other = (changed, original) if direction == "spliced_original" else (original, changed)
        each = functional.kl_div(other, one, reduction="none", log_target=True).sum(-1)
        sums, count = sums + each[kept].sum().item(), count + int(kept.sum())
    assert fitted.history.series("kl")[0] == pytest.approx(sums / count, rel=1e-4)
    assert fitted.history.series("tokens")[0] == count


def running_plan(windows, tokenizer, tokens, batch):
    from lorascope.fits.budget import kept_tokens, planned

    sizes = kept_tokens(windows, tokenizer)
    return planned(sizes, tokens=tokens, batch=batch, accumulate=1, seed=0)


def test_the_budget_is_kept_and_windows_come_in_turn(go, make, cut, tiny_checkpoint):
    fitted, _ = go({0: make()}, tokens=1000)
    assert 1000 - 8 * 16 < fitted.card.tokens <= 1000
    assert fitted.card.tokens == sum(fitted.history.series("tokens"))
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint("llama"))
    windows = cut(tokenizer)[0]
    steps = running_plan(windows, tokenizer, 10**4, 8)
    taken = [number for step in steps for part in step for number in part]
    turn = len(windows) // 8 * 8
    assert len(set(taken[:turn])) == turn


def test_only_the_chosen_blocks_are_adapted(go, make, tmp_path):
    for name, blocks, expected in (
        ("after", "after", {1, 2}),
        ("all", "all", {0, 1, 2}),
        ("one", (2,), {2}),
    ):
        fitted, _ = go({0: make()}, name=name, blocks=blocks, tokens=200)
        keys = PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(fitted.card.model), tmp_path / name
        ).state_dict()
        blocks_found = {int(key.split("layers.")[1][0]) for key in keys if "lora_A" in key}
        assert blocks_found == expected == set(fitted.card.blocks)
        maps = {key.split(".")[-4] for key in keys if "lora_A" in key}
        assert len(maps) == 7  # four of attention, three of the MLP


def test_accumulated_gradients_are_those_of_one_pass(go, make, tmp_path):
    arguments = {"tokens": 700, "rate": 3e-3}
    one, _ = go({0: make()}, name="one", batch=8, accumulate=1, **arguments)
    four, _ = go({0: make()}, name="four", batch=2, accumulate=4, **arguments)
    assert one.card.steps == four.card.steps > 4
    assert four.history.series("kl") == pytest.approx(one.history.series("kl"), rel=1e-4)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_recomputing_changes_no_gradient(architecture, go, make, tmp_path, monkeypatch):
    calls = []
    real = torch.utils.checkpoint.checkpoint
    monkeypatch.setattr(
        "transformers.modeling_utils.checkpoint", lambda *a, **k: calls.append(1) or real(*a, **k)
    )
    dictionaries = {0: make(), 1: make("topk", seed=1)}
    go(dictionaries, architecture, "plain", tokens=500)
    assert not calls
    _, model = go(dictionaries, architecture, "recomputed", tokens=500, recompute=True)
    assert calls
    assert stored(tmp_path / "plain") == stored(tmp_path / "recomputed")
    assert not any(part.training for part in model.modules())


def test_looking_on_the_way_does_not_change_the_run(go, make, tmp_path):
    looked, _ = go({0: make()}, name="looked", arguments={"evaluations": 5}, tokens=900)
    blind, _ = go({0: make()}, name="blind", arguments={"evaluations": 0}, tokens=900)
    assert stored(tmp_path / "looked") == stored(tmp_path / "blind")
    assert len(looked.history.points(HELD_OUT_KL)) == 5
    assert not blind.history.points(HELD_OUT_KL)
    last = looked.history.points(HELD_OUT_KL)[-1]
    assert last == (looked.card.steps, pytest.approx(looked.card.held_out["adapted"].kl))


def test_the_model_comes_back_in_the_mode_it_came_in(go, make):
    _, model = go({0: make()}, prepare=lambda model: model.train())
    assert all(module.training for module in model.modules())


class Stopped(Exception):  # noqa: N818 - a signal
    """Ends a run in its middle."""


def test_a_stopped_run_goes_on_bit_for_bit(go, make, tmp_path):
    looks = {"evaluations": 3}
    whole, _ = go({0: make()}, name="whole", tokens=900, arguments=looks)
    file = tmp_path / "state.pt"

    def stop(progress):
        if progress.step == 4:
            raise Stopped

    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr(running, "SAVE_SECONDS", 0.0)
        with pytest.raises(Stopped):
            go(
                {0: make()},
                name="broken",
                tokens=900,
                arguments={"observers": [stop]} | at(file) | looks,
            )
        assert file.stat().st_size < 300_000  # the adapter alone, not the model
        seen = []
        arguments = {"observers": [lambda progress: seen.append(progress.step)]} | at(file) | looks
        resumed, _ = go({0: make()}, name="broken", tokens=900, arguments=arguments)
    assert seen[0] == 4
    assert stored(tmp_path / "whole") == stored(tmp_path / "broken")
    assert resumed.history.series("kl") == whole.history.series("kl")
    assert resumed.history.points(HELD_OUT_KL) == whole.history.points(HELD_OUT_KL)
    assert len(whole.history.points(HELD_OUT_KL)) == 3
    assert resumed.card.seconds > 0
    seconds = {"seconds": whole.card.seconds}
    assert resumed.card.model_copy(update=seconds) == whole.card
    assert not file.exists()


def at(file):
    return {"checkpoint": file}


def test_a_state_of_other_dictionaries_is_not_gone_on_with(go, make, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "SAVE_SECONDS", 0.0)
    file = tmp_path / "state.pt"

    def stop(progress):
        if progress.step == 2:
            raise Stopped

    with pytest.raises(Stopped):
        go({0: make()}, arguments={"observers": [stop]} | at(file), tokens=500)
    seen = []
    arguments = {"observers": [lambda progress: seen.append(progress.step)]} | at(file)
    go({0: make(seed=5)}, arguments=arguments, tokens=500)
    assert seen[0] == 0


def test_global_random_state_and_seed(go, make, tmp_path):
    before = torch.get_rng_state()
    go({0: make()}, name="a", tokens=300)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(7)
    go({0: make()}, name="b", tokens=300)
    go({0: make()}, name="c", tokens=300, seed=1)
    assert stored(tmp_path / "a") == stored(tmp_path / "b") != stored(tmp_path / "c")


def test_bfloat16_products_fit_as_well(go, make):
    exact, _ = go({0: make()}, name="exact", tokens=1200)
    low, _ = go({0: make()}, name="low", tokens=1200, products="bfloat16")
    kl = [one.card.held_out["adapted"].kl for one in (exact, low)]
    assert kl[0] != kl[1]
    assert kl[1] == pytest.approx(kl[0], rel=0.1)


def test_an_adapter_belongs_to_its_dictionaries_and_its_base(go, make, tmp_path, tiny_model):
    _, model = go({0: make()}, tokens=300)
    folder = tmp_path / "out"
    for dictionaries, words in (
        ({0: make(seed=3)}, r"another dictionary at layers\.0"),
        ({1: make()}, r"at layers\.0, not at layers\.1"),
        ({0: make(), 1: make()}, r"not at layers\.0, layers\.1"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            open_fitted(folder, model, dictionaries)
        assert "\n" not in str(caught.value)
    other = tiny_model("llama")
    next(other.parameters()).data[0, 0] += 1
    with pytest.raises(InputError, match="other weights"):
        open_fitted(folder, other, {0: make()})
    assert open_fitted(folder, other, {0: make()}, force=True).special_ids == (0, 1, 2)
    with pytest.raises(InputError, match=r"lorascope\.json"):
        read_card(tmp_path)


def test_the_card_says_how_it_was_made(go, make, tmp_path):
    fitted, _ = go({0: make()}, arguments={"trained_on": ["b", "a"]}, tokens=300)
    card = read_card(tmp_path / "out")
    assert card == fitted.card
    assert card.trained_on == ("a", "b")
    assert card.settings["tokens"] == 300
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["r"] == 4
    loss = {name: condition.loss for name, condition in card.held_out.items()}
    gap = loss["spliced"] - loss["original"]
    assert card.share_closed == pytest.approx((loss["spliced"] - loss["adapted"]) / gap)


@pytest.mark.parametrize(
    ("sites", "changes", "words"),
    [
        ({0: "topk"}, {"tokens": 20}, "budget of 20 tokens is smaller than one step"),
        ({0: "topk"}, {"batch": 500}, "60 windows of text are too few for a step of 500"),
        ({2: "topk"}, {"blocks": "after"}, r"no block comes after layers\.2"),
        ({0: "topk"}, {"blocks": ()}, "no block to adapt"),
        ({0: "topk"}, {"blocks": (1, 9)}, "block 9 does not exist"),
        ({0: "topk"}, {"blocks": (1, 1)}, "block 1 is given more than once"),
        ({0: "topk"}, {"targets": ("q_prj",)}, 'Did you mean "q_proj"'),
        ({1: "jumprelu"}, {"blocks": "all"}, "block 0 acts on .* adapt blocks 2 to 2"),
        ({1: "batch_topk"}, {"blocks": (1,)}, "block 1 acts on what"),
        ({0: "topk", 1: "relu"}, {"blocks": "after"}, r"the relu dictionary at layers\.1"),
        ({2: "jumprelu"}, {"blocks": "all"}, "splice at an earlier site"),
    ],
)
def test_what_cannot_be_fitted_is_one_clear_line(sites, changes, words, go, make):
    with pytest.raises(InputError, match=words) as caught:
        go({site: make(kind) for site, kind in sites.items()}, **changes)
    assert "\n" not in str(caught.value)


def test_blocks_before_thresholds_by_an_explicit_flag_with_a_warning(go, make):
    with pytest.warns(UserWarning, match="L0 can drift"):
        fitted, _ = go({1: make("jumprelu")}, blocks="all", before_thresholds=True, tokens=200)
    assert fitted.card.blocks == (0, 1, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        go({0: make("topk"), 1: make("topk")}, blocks="all", tokens=200)


def test_a_base_that_moves_is_noticed(go, make, monkeypatch):
    dictionary = make()
    weight = dictionary.directions

    def move(progress):
        weight[0, 0] += 1

    with pytest.raises(RuntimeError, match=r"dictionary at layers\.0 was to stay frozen"):
        go({0: dictionary}, arguments={"observers": [move]}, tokens=200)
