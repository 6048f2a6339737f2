"""What is fitted beside LoRA: affine maps and the dictionaries themselves, alone and together."""

from contextlib import ExitStack
from itertools import pairwise

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch.func import functional_call
from transformers import AutoModelForCausalLM, AutoTokenizer

from lorascope.dictionaries.files import open_dictionary, save
from lorascope.errors import InputError
from lorascope.fits import run as running
from lorascope.fits.card import open_fitted, read_card
from lorascope.fits.conditions import conditions_of
from lorascope.fits.parts import Affine, AffinePart, LoraPart, Tuned, TunedPart
from lorascope.fits.parts.affine import read_affine
from lorascope.fits.parts.lora import Lora, same_spectrum
from lorascope.fits.parts.part import exchanged
from lorascope.fits.parts.tuned import TunedDictionary
from lorascope.fits.settings import Adapting
from lorascope.fits.wrapper import identity
from lorascope.models.freezing import fingerprint
from lorascope.models.sites import Site
from lorascope.outputs.evaluation import evaluate
from lorascope.outputs.splicing import spliced
from lorascope.randomness import generator

WITHOUT = {"lora": None}
AFFINE = Affine(rate=3e-3)
TUNED = Tuned(rate=3e-3)
PARTS = {
    "affine": {**WITHOUT, "affine": AFFINE},
    "dictionary": {**WITHOUT, "dictionary": TUNED},
    "next block": {"blocks": "next"},
    "all": {"affine": AFFINE, "dictionary": TUNED},
}


def logits(model, tokens):
    with torch.no_grad():
        return model(input_ids=tokens[0], attention_mask=tokens[1]).logits


@pytest.mark.parametrize("name", PARTS)
def test_each_part_closes_the_gap_and_opens_again(name, go, make, tiny_checkpoint, cut, tmp_path):
    dictionaries = {0: make("topk"), 1: make("topk", seed=1)}
    before = [identity(each) for each in dictionaries.values()]
    arguments = {"random_draws": 1}
    fitted, model = go(dictionaries, tokens=2400, arguments=arguments, **PARTS[name])
    card, conditions = fitted.card, fitted.card.held_out
    assert card == read_card(tmp_path / "out")
    fresh = AutoModelForCausalLM.from_pretrained(tiny_checkpoint("llama")).eval()
    assert fingerprint(model) == fingerprint(fresh) == card.base
    assert [identity(each) for each in dictionaries.values()] == before
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    assert conditions["adapted"].kl < 0.9 * conditions["spliced"].kl
    assert fitted.random[0]["adapted"].mean_kl > 0.9 * conditions["spliced"].kl
    # what was fitted acts through the splice alone, but for LoRA
    assert (conditions["unspliced"].kl > 1e-4) == ("lora" in card.fitted)
    require_files(tmp_path / "out", name, card)
    # opened again, all conditions do as they did
    opened = open_fitted(tmp_path / "out", model, dictionaries)
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint("llama"))
    all_ways = conditions_of(opened, dictionaries)
    again = evaluate(opened.module, tokenizer, cut(tokenizer)[1], all_ways["original"], all_ways)
    for condition, result in conditions.items():
        assert again[condition].mean_loss == pytest.approx(result.loss, rel=1e-4), condition
        torch.testing.assert_close(
            again[condition].losses, fitted.conditions[condition].losses, atol=1e-3, rtol=0
        )


def require_files(folder, name, card):
    parts, changed = set(card.fitted), name not in ("next block",)
    assert (folder / "adapter_model.safetensors").exists() == ("lora" in parts)
    assert (folder / "affine" / "layers.1.safetensors").exists() == ("affine" in parts)
    assert (folder / "dictionaries" / "layers.0").exists() == changed
    assert set(card.standing) == ({"layers.0", "layers.1"} if changed else set())
    assert card.blocks == (() if "lora" not in parts else (1, 2))
    width, latents = 32, 96
    counts = {"affine": width * width + width, "dictionary": (2 * width + 1) * latents + width}
    for part, count in counts.items():
        assert card.fitted.get(part, 2 * count) == 2 * count


def test_lora_beside_other_parts_is_an_ordinary_peft_adapter(go, make, tmp_path):
    fitted, model = go({0: make()}, tokens=1000, affine=AFFINE, dictionary=TUNED)
    ids = torch.arange(5, 15)[None]
    opened = open_fitted(tmp_path / "out", model, {0: make()})
    with torch.no_grad():
        expected = opened.module(input_ids=ids).logits
        bare = AutoModelForCausalLM.from_pretrained(fitted.card.model).eval()
        plain = bare(input_ids=ids).logits
        peft = PeftModel.from_pretrained(bare, tmp_path / "out").eval()
        torch.testing.assert_close(peft(input_ids=ids).logits, expected)
    assert (expected - plain).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["topk", "jumprelu", "gated"])
def test_an_affine_map_is_folded_into_the_decoder(kind, go, make, tmp_path):
    dictionary = make(kind)
    go({0: dictionary}, tokens=1500, **PARTS["affine"])
    folded = open_dictionary(tmp_path / "out" / "dictionaries" / "layers.0")
    ((site, (weight, bias)),) = read_affine(tmp_path / "out").items()
    x = torch.randn(50, 32, generator=generator(4, "x"))
    assert site == Site(0)
    assert (weight - torch.eye(32)).norm() > 0.1
    assert bias.norm() > 0.01
    torch.testing.assert_close(folded(x), dictionary(x) @ weight + bias, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(folded.encode(x), dictionary.encode(x), atol=1e-4, rtol=1e-4)


def test_tuned_directions_keep_their_norms_and_k(go, make, tmp_path):
    dictionary = make("topk")
    dictionary.directions[:4] *= 3
    go({0: dictionary}, tokens=1500, **PARTS["dictionary"])
    tuned = open_dictionary(tmp_path / "out" / "dictionaries" / "layers.0")
    norms = tuned.directions.norm(dim=1)
    torch.testing.assert_close(norms[:4], torch.full((4,), 3.0))
    torch.testing.assert_close(norms[4:], torch.ones(92))
    x = torch.randn(50, 32, generator=generator(4, "x"))
    assert (tuned.encode(x) > 0).sum(1).max() <= 12
    assert (tuned.directions - dictionary.directions).norm() > 0.1
    assert (tuned.encoder - dictionary.encoder).norm() > 0.1


@pytest.mark.parametrize("kind", ["jumprelu", "gated"])
def test_with_thresholds_the_decoder_alone_is_tuned_and_l0_stays(kind, go, make, tmp_path):
    dictionary = make(kind)
    fitted, _ = go({0: dictionary}, tokens=2500, **PARTS["dictionary"])
    assert fitted.card.held_out["adapted"].kl < 0.95 * fitted.card.held_out["spliced"].kl
    tuned = open_dictionary(tmp_path / "out" / "dictionaries" / "layers.0")
    x = torch.randn(50, 32, generator=generator(4, "x"))
    torch.testing.assert_close(tuned.encode(x), dictionary.encode(x), atol=1e-4, rtol=1e-4)
    assert (tuned.decoder_bias - dictionary.decoder_bias).norm() > 0.01


@pytest.mark.parametrize(
    ("dictionaries", "changes", "words"),
    [
        ({0: "jumprelu"}, {"dictionary": Tuned(encoder=True)}, "fitting the encoder of the jumpr"),
        ({0: "topk", 1: "relu"}, {"dictionary": TUNED}, r"at layers\.0 acts on what the dictionar"),
        ({0: "topk", 1: "relu"}, {"affine": AFFINE}, r"splice at layers\.1 alone"),
    ],
)
def test_what_would_let_l0_drift_is_refused(dictionaries, changes, words, go, make):
    given = {site: make(kind) for site, kind in dictionaries.items()}
    with pytest.raises(InputError, match=words) as caught:
        go(given, **WITHOUT, **changes)
    assert "\n" not in str(caught.value)
    if "affine" in changes:
        with pytest.warns(UserWarning, match="L0 drift"):
            go(given, **WITHOUT, **changes, before_thresholds=True, tokens=200)


def test_nothing_to_fit_and_no_next_block(go, make):
    with pytest.raises(InputError, match="nothing is to be fitted"):
        Adapting.parse({"lora": None}, "study.yaml")
    with pytest.raises(InputError, match=r"no block comes after layers\.2"):
        go({2: make()}, blocks="next")


def test_a_changed_dictionary_that_was_exchanged_is_refused(go, make, tmp_path):
    _, model = go({0: make()}, tokens=300, **PARTS["dictionary"])
    save(make(seed=8), tmp_path / "out" / "dictionaries" / "layers.0")
    with pytest.raises(InputError, match=r"saved for layers\.0 is not the one"):
        open_fitted(tmp_path / "out", model, {0: make()})


class Stopped(Exception):  # noqa: N818 - a signal
    """Ends a run in its middle."""


def test_all_parts_go_on_bit_for_bit_after_a_stop(go, make, tmp_path, monkeypatch):
    changes = {"tokens": 900, "affine": AFFINE, "dictionary": TUNED}
    whole, _ = go({0: make()}, name="whole", **changes)
    monkeypatch.setattr(running, "SAVE_SECONDS", 0.0)

    def stop(progress):
        if progress.step == 4:
            raise Stopped

    state = {"checkpoint": tmp_path / "state.pt"}
    with pytest.raises(Stopped):
        go({0: make()}, name="broken", arguments={"observers": [stop], **state}, **changes)
    resumed, _ = go({0: make()}, name="broken", arguments=state, **changes)
    files = ["adapter_model.safetensors", "affine/layers.0.safetensors"]
    files.append("dictionaries/layers.0/sae_weights.safetensors")
    for file in files:
        both = [load_file(tmp_path / name / file) for name in ("whole", "broken")]
        assert all(torch.equal(both[0][key], both[1][key]) for key in both[0] | both[1])
    seconds = resumed.history.series("seconds")
    assert all(early < late for early, late in pairwise(seconds))
    assert resumed.card.seconds == pytest.approx(seconds[-1])
    assert resumed.history.series("kl") == whole.history.series("kl")


def test_recomputing_changes_no_gradient_of_any_part(go, make):
    changes = {"tokens": 500, "affine": AFFINE, "dictionary": TUNED}
    dictionaries = {0: make(), 1: make(seed=1)}
    plain, _ = go(dictionaries, name="plain", **changes)
    recomputed, _ = go(dictionaries, name="recomputed", recompute=True, **changes)
    assert recomputed.history.series("kl") == plain.history.series("kl")
    assert len(set(plain.history.series("kl"))) > 3


def everything_on(model, placed):
    """LoRA, tuned dictionaries and affine maps on a model, each already moved from its start."""
    stack = ExitStack()
    lora = stack.enter_context(LoraPart.on(model, Lora(rank=3), [1, 2], model="tiny", seed=0))
    splice = stack.enter_context(spliced(model, placed))
    scales = dict.fromkeys(splice.dictionaries, 2.0)
    tuned = stack.enter_context(TunedPart.on(splice, Tuned(), scales))
    affine = stack.enter_context(AffinePart.on(splice, Affine(), scales))
    return stack, splice, [lora, tuned, affine]


def move(parts):
    random = generator(9, "moves")
    for part in parts:
        for parameter in part.parameters:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=random)


def test_a_part_starts_as_nothing_and_is_off_as_if_never_there(tiny_model, make, tokens):
    model, placed = tiny_model(), {0: make("topk"), 1: make("jumprelu")}
    bare = logits(model, tokens)
    with spliced(model, placed):
        plain = logits(model, tokens)
    stack, splice, parts = everything_on(model, placed)
    with stack:
        torch.testing.assert_close(logits(model, tokens), plain, atol=1e-4, rtol=1e-4)
        move(parts)
        moved = logits(model, tokens)
        assert (moved - plain).abs().max() > 0.1
        for part in parts:
            with part.off():
                assert not torch.equal(logits(model, tokens), moved)
        with parts[0].off(), parts[1].off(), parts[2].off():
            assert torch.equal(logits(model, tokens), plain)
            with splice.off():
                assert torch.equal(logits(model, tokens), bare)
    assert torch.equal(logits(model, tokens), bare)


def test_a_random_change_is_of_the_same_size_and_goes_again(tiny_model, make, tokens):
    model, placed = tiny_model(), {0: make("topk"), 1: make("jumprelu")}
    stack, _, parts = everything_on(model, placed)
    with stack:
        move(parts)
        moved = logits(model, tokens)
        lora, tuned, affine = parts
        before, sizes = [[updates(part) for part in parts] for _ in range(2)]
        for part in parts:
            with exchanged(part.scrambled(generator(3, "draw"))):
                assert (logits(model, tokens) - moved).abs().max() > 0.01
                for was, now in zip(before[parts.index(part)], updates(part), strict=True):
                    assert not torch.allclose(was, now)
                    torch.testing.assert_close(spectrum(part, now), spectrum(part, was))
            assert torch.equal(logits(model, tokens), moved)
        assert [len(each) for each in sizes] == [14, 2, 2]
        assert lora is parts[0]
        assert tuned.name == "dictionary"
        assert affine.name == "affine"


@pytest.mark.parametrize(("rank", "inside", "outside"), [(3, 20, 7), (8, 5, 6), (2, 2, 9)])
def test_random_factors_have_the_same_singular_values(rank, inside, outside):
    random = generator(7, "factors")
    A, B = (torch.randn(shape, generator=random) for shape in ((rank, inside), (outside, rank)))
    new_a, new_b = same_spectrum(A, B, random)
    assert new_a.shape == A.shape
    assert new_b.shape == B.shape
    before, after = (torch.linalg.svdvals(each) for each in (B @ A, new_b @ new_a))
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(B @ A, new_b @ new_a, atol=0.1)


def updates(part):
    """The matrices a part adds or changes, as they are now."""
    if part.name == "lora":
        pairs = [(layer.lora_A["default"], layer.lora_B["default"]) for layer in part._layers]
        return [(B.weight @ A.weight).detach() for A, B in pairs]
    if part.name == "affine":
        return [each.weight.detach() - torch.eye(32) for each in part.fitted.values()]
    return [each.decoder.detach() - each.start.directions for each in part.fitted.values()]


def spectrum(part, matrix):
    """What a random change keeps: singular values, or the length of each latent's change."""
    if part.name == "dictionary":
        return matrix.norm(dim=1)
    return torch.linalg.svdvals(matrix)


@pytest.mark.parametrize("kind", ["topk", "batch_topk", "jumprelu"])
@pytest.mark.parametrize("encoder", [True, False])
def test_gradients_of_a_tuned_dictionary_are_finite_differences(kind, encoder, make):
    tuned = TunedDictionary(make(kind).double(), 2.0, encoder).double()
    tuned._norms = tuned._norms.double()
    parameters = dict(tuned.named_parameters())
    x = torch.randn(6, 32, generator=generator(5, "x"), dtype=torch.float64, requires_grad=True)
    random = generator(6, "directions")
    weights = torch.randn(6, 32, generator=random, dtype=torch.float64)

    def value(changed, x):
        return (functional_call(tuned, changed, (x,)) * weights).sum()

    gradients = torch.autograd.grad(value(parameters, x), [*parameters.values(), x])
    assert len(parameters) == (4 if encoder else 2)
    for number, gradient in enumerate(gradients):
        step = torch.randn(gradient.shape, generator=random, dtype=torch.float64)
        step *= 1e-6 / step.norm()
        ends = []
        for sign in (1, -1):
            moved = [each.detach().clone() for each in (*parameters.values(), x)]
            moved[number] += sign * step
            ends.append(value(dict(zip(parameters, moved[:-1], strict=True)), moved[-1]))
        difference = (ends[0] - ends[1]) / 2
        assert gradient.norm() > 1e-3
        assert difference.item() == pytest.approx((gradient * step).sum().item(), rel=1e-4)
