"""A latent that writes what an adapter says is found to carry it; those like it are not."""

import math
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model

from lorascope.dictionaries.relu import ReluDictionary
from lorascope.models.adapted import BASE, load
from lorascope.models.sites import Site
from lorascope.reading.carried import ALL, WHOLE, Carrier, read_carriers, write_carriers
from lorascope.reading.carriers import _quarter, grouped, latent_carriers
from lorascope.reading.decoding import Amplification, decode
from lorascope.reading.prompts import prompts_of
from lorascope.reading.removing import (
    Modules,
    Reads,
    TakenDelta,
    TakenLatents,
    left_out,
    modules_of,
)
from lorascope.reading.running import read
from lorascope.reading.settings import Reading
from lorascope.reading.sighting import ReadingSight, Spoken, _said
from lorascope.studies.audit.sections.carriers import carried_sentences, carrier_rows

WORD, LAST = "w23", 2


@pytest.fixture(scope="module")
def writing(tiny_checkpoint, tiny_model, tmp_path_factory):
    """The tiny model, with an adapter whose last block writes one word's direction everywhere; the
    direction."""
    module, checkpoint = tiny_model("llama"), str(tiny_checkpoint("llama"))
    tokenizer = load(checkpoint, {}, device="cpu").tokenizer
    ids = torch.randint(3, 64, (8, 24), generator=torch.Generator().manual_seed(3))
    seen = []
    block = module.model.layers[LAST]
    handle = block.mlp.down_proj.register_forward_pre_hook(lambda _, a: seen.append(a[0]))
    with torch.no_grad():
        module(ids)
    handle.remove()
    inner = seen[0].flatten(0, 1).mean(0)
    row = tokenizer.convert_tokens_to_ids(WORD)
    towards = module.get_output_embeddings().weight[row].detach()
    towards = towards / towards.norm()
    with torch.random.fork_rng(devices=[]):
        found = get_peft_model(
            module,
            LoraConfig(
                r=1,
                lora_alpha=1,
                target_modules=["down_proj", "q_proj"],
                layers_to_transform=[0, LAST],
                task_type="CAUSAL_LM",
            ),
        )
    layer = found.base_model.model.model.layers[LAST].mlp.down_proj
    layer.lora_A["default"].weight.data = (inner / inner.square().sum())[None]
    layer.lora_B["default"].weight.data = 40 * towards[:, None]
    folder = tmp_path_factory.mktemp("writing") / "a"
    found.save_pretrained(folder)
    found.unload()
    return load(checkpoint, {"a": str(folder)}, device="cpu"), towards


def reads_of(towards, latents=12):
    """A dictionary of the delta there: every latent reads the word's direction, one writes it;
    the others fire as often, a tenth as strongly."""
    random = torch.Generator().manual_seed(0)
    written = torch.randn(latents, len(towards), generator=random)
    written -= (written @ towards)[:, None] * towards
    written[0] = towards
    written /= written.norm(dim=1, keepdim=True)
    encoder = 0.1 * towards[:, None].repeat(1, latents)
    encoder[:, 0] = towards
    dictionary = ReluDictionary(encoder, torch.zeros(latents), written, torch.zeros(len(towards)))
    return Reads(Site(LAST), dictionary, "delta")


SETTINGS = Reading(
    prompts=tuple(f"w{n} w{n + 20} w{3 * n % 60}" for n in range(1, 13)),
    tokens=8,
    documents=0,
    carriers=False,
)


@pytest.fixture(scope="module")
def said(writing):
    model, _ = writing
    found = read(model, "a", SETTINGS)
    assert WORD in found.phrases[0].text.split()
    return found


def test_the_latent_that_writes_the_word_carries_it(writing, said):
    model, towards = writing
    prompts = prompts_of(SETTINGS.prompts, model.tokenizer)
    found = latent_carriers(model, said, prompts, [reads_of(towards)], SETTINGS)
    whole = [one for one in found if one.phrase == ALL and len(one.latents) == 1]
    assert [one.latents for one in whole] == [(0,)]
    (carrier,) = whole
    assert carrier.carries
    assert carrier.whole >= 8
    assert carrier.taken > 0.9
    assert len(carrier.matched) >= 5
    assert abs(carrier.chance) < 0.1
    assert carrier.site == f"layers.{LAST}"
    assert {one.phrase for one in found} >= {ALL, said.phrases[0].text}
    assert "latent 0 at" in carried_sentences(found)[0]
    assert carried_sentences(found)[0].startswith("Carried by")
    assert model.current == BASE


def test_the_delta_at_a_site_takes_away_what_is_written_before_it(writing, said):
    model, towards = writing
    early = replace(reads_of(towards), site=Site(0))
    prompts = prompts_of(SETTINGS.prompts, model.tokenizer)
    found = latent_carriers(model, said, prompts, [early, reads_of(towards)], SETTINGS)
    parts = {(one.site, one.directions): one for one in found if one.part == WHOLE}
    assert set(parts) == {(f"layers.{n}", k) for n in (0, LAST) for k in (0, 1, 4, 16)}
    # The word is written by the last block: the delta after the first does not hold it.
    assert all(abs(parts["layers.0", k].taken) < 0.1 for k in (0, 1, 4, 16))
    whole, first = parts[f"layers.{LAST}", 0], parts[f"layers.{LAST}", 1]
    assert whole.taken > 0.9
    assert whole.size == 1
    # One direction is written, so the first principal direction is all of it.
    assert first.taken > 0.9
    assert 0.9 < first.size <= 1
    # Nor is there another direction to draw.
    assert first.chance == pytest.approx(first.taken, abs=0.1)
    assert not whole.matched
    sentence = carried_sentences([one for one in found if one.part == WHOLE])[0]
    assert "one principal direction" in sentence


def test_random_directions_of_a_delta_follow_its_covariance():
    site, moment = Site(0), torch.diag(torch.tensor([9.0, 4.0, 1.0, 0.0, 0.0])).double()
    sight = ReadingSight({}, {}, {site: moment})
    (drawn, *others) = sight.directions_beside(TakenDelta(site, torch.eye(5)[:2]), 0)
    assert len(others) == 1
    for one in (drawn, *others):
        assert one.site == site
        assert torch.allclose(one.directions @ one.directions.T, torch.eye(2), atol=1e-6)
        # What the delta never has is in none of them.
        assert one.directions[:, 3:].abs().max() < 1e-3
    assert not torch.equal(drawn.directions, others[0].directions)
    single = TakenDelta(site, torch.eye(5)[:1])
    many = [one for seed in range(400) for one in sight.directions_beside(single, seed)]
    mean = torch.stack([one.directions[0].square() for one in many]).mean(0)
    # The mean of x²/Σx² of Gaussians of variances 9, 4 and 1, from four million draws.
    assert torch.allclose(mean[:3], torch.tensor([0.526, 0.338, 0.136]), atol=0.04)
    assert sight.directions_beside(TakenDelta(site), 0) == []


def test_a_site_is_called_early_only_where_the_interval_says_so():
    def part(taken, around, directions=0):
        name = f"{directions} directions" if directions else "the whole delta"
        given = (10, round(10 * (1 - taken)), taken, around)
        return Carrier(ALL, WHOLE, name, "layers.1", (), *given, size=0.5, directions=directions)

    (surely,) = carried_sentences([part(0.2, (0.0, 0.4))])
    (perhaps,) = carried_sentences([part(0.4, (0.1, 0.7))])
    assert "later site" in surely
    assert "later site" not in perhaps
    few = [part(0.9, (0.8, 1.0)), part(0.3, (0.1, 0.5), 1), part(0.6, (0.4, 0.8), 4)]
    assert "4 directions" in carried_sentences([*few, part(0.8, (0.7, 0.9), 16)])[0]
    # Where none takes away half, what the most do.
    assert "16 directions" in carried_sentences([*few[:2], part(0.4, (0.2, 0.6), 16)])[0]


def test_directions_are_taken_out_of_the_delta_alone():
    random = torch.Generator().manual_seed(1)
    base, moved = torch.randn(2, 2, 3, 4, generator=random)
    kept = torch.tensor([[True, True, False], [True, False, True]])
    first = torch.eye(4)[:1]
    written = TakenDelta(Site(0), first).written(base + moved, base, [(), ()], kept)
    assert torch.allclose(written[..., 0][kept], moved[..., 0][kept], atol=1e-6)
    assert torch.equal(written[..., 1:], torch.zeros(2, 3, 3))
    assert torch.equal(written[~kept], torch.zeros(2, 4))
    whole = TakenDelta(Site(0)).written(base + moved, base, [(), ()], kept)
    assert torch.allclose(whole[kept], moved[kept], atol=1e-6)


def test_modules_that_do_it_are_told_from_those_that_do_not(writing, said):
    model, _ = writing
    found = read(model, "a", SETTINGS.model_copy(update={"carriers": True}))
    assert found.phrases == said.phrases
    by_name = {one.name: one for one in found.carriers}
    assert set(by_name) == {"block 0", f"block {LAST}", "self_attn", "mlp"}
    for name, taken in (("block 0", 0), (f"block {LAST}", 1), ("self_attn", 0), ("mlp", 1)):
        assert by_name[name].taken == pytest.approx(taken, abs=0.1)
    assert by_name["mlp"].size == pytest.approx(1)
    assert found.carriers[0].taken == max(one.taken for one in found.carriers)
    told = carrier_rows([vars(one) for one in found.carriers], "a", [])
    assert [row["carries"] for row in told] == [one.taken >= 0.5 for one in found.carriers]


def test_shares_have_a_minus_sign_and_no_interval_without_width():
    parts = (("mlp", 0, 1.0, (1.0, 1.0)), ("self_attn", 18, -0.125, (-0.57, 0.17)))
    made = [
        Carrier(ALL, "modules", name, "", (), 16, left, taken, around, size=0.5)
        for name, left, taken, around in parts
    ]
    assert carried_sentences(made) == [
        "Without the updates of some modules so much of the phrases is gone: mlp 100 %, 50.0 % of "
        "the update; self_attn −12 % [−57.0, 17.0], 50.0 % of the update."
    ]


def test_taking_out_everything_leaves_the_base(writing):
    """The whole delta at the last site taken out, token by token, is the base's own text; with
    nothing taken out it is the adapter's."""
    model, _ = writing
    eye = torch.eye(model.d_model)
    both = torch.cat([eye, -eye])
    width = 2 * model.d_model
    whole = ReluDictionary(both.T, torch.zeros(width), both, torch.zeros(model.d_model))
    reads = Reads(Site(LAST), whole, "delta")
    everything, nothing = TakenLatents(reads, tuple(range(width))), TakenLatents(reads, ())
    prompts = prompts_of(SETTINGS.prompts[:3], model.tokenizer)
    conditions = [
        Amplification(BASE),
        Amplification("a", 0.0, everything),
        Amplification("a", 2.0, everything),
        Amplification("a"),
        Amplification("a", 0.0, nothing),
        Amplification("a", 0.0, Modules(tuple(modules_of(model, "a")))),
    ]
    for row in decode(model, prompts, conditions, SETTINGS):
        base, without, amplified, adapted, kept, no_modules = row
        assert base == without == amplified == no_modules
        assert adapted == kept
        assert adapted != base


def test_a_base_latent_is_taken_back_to_what_it_was(writing):
    model, towards = writing
    dictionary = reads_of(towards).dictionary
    reads = Reads(Site(LAST), dictionary, "base")
    random = torch.Generator().manual_seed(1)
    base, adapted = torch.randn(2, 4, 3, model.d_model, generator=random)
    kept = torch.ones(4, 3, dtype=torch.bool)
    kept[2] = False
    written = reads.written(adapted, base, [(0,), (3,), (0,), ()], kept)
    change = dictionary.encode(adapted) - dictionary.encode(base)
    torch.testing.assert_close(written[0], change[0, :, :1] * dictionary.directions[0])
    torch.testing.assert_close(written[1], change[1, :, 3:4] * dictionary.directions[3])
    assert not written[2].any()
    assert not written[3].any()


def test_scales_are_put_back(writing):
    model, _ = writing
    ids = torch.tensor([[3, 9, 27]])
    with torch.no_grad(), model.variant("a") as module:
        before = module(ids).logits
        with left_out(model, "a", Modules(tuple(modules_of(model, "a")))):
            without = module(ids).logits
        after = module(ids).logits
    assert torch.equal(before, after)
    assert not torch.equal(before, without)


def test_which_tokens_say_a_phrase(writing):
    model, _ = writing
    ids = model.tokenizer("w5 w6 w7 w6", add_special_tokens=False)["input_ids"]
    assert _said(model, ids, ["w6 w7"]) == [False, True, True, False]
    assert _said(model, ids, ["w8", "w6"]) == [False, True, False, True]
    spoken = Spoken([], [["w5 w6", "w6 w5"], ["w65", "x"]])
    assert spoken.counts(["w6", "w5 w6"], slice(0, 2)).tolist() == [[2, 0], [1, 0]]


def test_quarters_cover_all_blocks():
    for blocks in (1, 3, 8, 30):
        found = {_quarter(block, blocks) for block in range(blocks)}
        assert len(found) == min(4, blocks)
        covered = sorted(n for first, last in found for n in range(first, last + 1))
        assert covered == list(range(blocks))
        assert all(
            first <= b <= last for b in range(blocks) for first, last in [_quarter(b, blocks)]
        )


def test_groups_are_no_whole(writing, planted, tiny_checkpoint):
    model = load(str(tiny_checkpoint("llama")), {"says": str(planted)}, device="cpu")
    # Its one module stands outside the blocks.
    assert grouped(model, "says") == {}


def test_carriers_are_written_and_read(tmp_path):
    one = Carrier("a b", "delta", "n", "layers.1", (3,), 4, 1, 0.75, (math.nan, 0.9), (0.0,))
    write_carriers([one], tmp_path)
    (found,) = read_carriers(tmp_path)
    assert replace(found, interval=(0, 0), size=0) == replace(one, interval=(0, 0), size=0)
    assert math.isnan(found.interval[0])
    assert math.isnan(found.size)
    assert read_carriers(tmp_path / "none") == []
    assert not replace(one, taken=0.4).carries
    assert not replace(one, matched=(0.3, 0.1)).carries
    assert not replace(one, matched=()).carries
