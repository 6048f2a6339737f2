"""Core against numbers worked out by hand, by intervention, and where nothing is kept or lost."""

import copy
import math
from functools import partial

import pytest
import torch

from lorascope.dictionaries.relu import ReluDictionary
from lorascope.fits.conditions import ADAPTED, ORIGINAL, SPLICED, UNSPLICED
from lorascope.fits.wrapper import with_adapter
from lorascope.models.hooks import replace
from lorascope.models.sites import parse_site
from lorascope.outputs.evaluation import Evaluated
from lorascope.results import Estimates, Key, null_names
from lorascope.stats.intervals import detectable
from lorascope.studies.evaluate.baselines import random_decoder
from lorascope.studies.evaluate.core import core, recovered
from lorascope.studies.evaluate.reconstructing import histogram, tell
from lorascope.studies.evaluate.rows import StreamRows, stream_rows
from lorascope.studies.evaluate.subjects import OpenedSubject

SITE = "layers.1"


def two_latents():
    """Reads and writes the first axis of a plane; a second latent never fires."""
    encoder = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    directions = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    return ReluDictionary(encoder, torch.tensor([0.0, -1.0]), directions, torch.zeros(2))


def test_reconstruction_by_hand():
    """x̂ = (max(x₁, 0), 0): what is missed is x₂ and negative x₁."""
    rows = torch.tensor([[2.0, 0.0], [4.0, 1.0], [0.0, 3.0], [-2.0, 0.0]] * 4)
    documents = torch.arange(16) // 2
    training = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.1], [0.0, -0.1]])
    told = tell(two_latents(), training, StreamRows(rows, documents), {})
    # errors 0, 1, 9, 4 a block of four; mean (1, 1), squares about it 2, 9, 5, 10
    found = Estimates(told.estimates(Key()))
    assert found.one("evaluate.fvu").value == pytest.approx(14 / 26)
    assert found.one("evaluate.fvu").n == 16
    assert found.one("evaluate.l0").value == pytest.approx(0.5)
    assert found.one("evaluate.dead_share").value == 0.5
    levels = {null.name: null.level for null in found.one("evaluate.fvu").nulls}
    assert levels["mean predictor"] == 1.0
    # one component, the first axis, about the training mean 0: the rest is x₂² = 0, 1, 9, 0
    assert levels["as many principal components"] == pytest.approx(10 / 26)
    facts = told.facts()
    assert facts["dead"] == 1
    assert facts["counts"] == [0] * 9 + [1]


def test_predicting_the_mean_at_an_offset_explains_nothing():
    """A dictionary that writes the mean alone, of rows far from zero: FVU is 1, not 0.1."""
    rows = 3.0 + torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
    constant = ReluDictionary(
        torch.zeros(4, 2), torch.zeros(2), torch.eye(2, 4), rows.double().mean(0).float()
    )
    told = tell(constant, rows, StreamRows(rows, torch.arange(400) // 20), {})
    assert Estimates(told.estimates(Key())).one("evaluate.fvu").value == pytest.approx(
        1.0, abs=1e-6
    )


def test_the_histogram_counts_every_latent_once():
    rate = torch.tensor([0.0, 1e-7, 1e-5, 10**-4.5, 0.05, 0.1, 1.0], dtype=torch.float64)
    counts, dead = histogram(rate)
    assert dead == 1
    assert sum(counts) == 6
    assert counts == [2, 1, 0, 0, 0, 0, 0, 1, 1, 1]


def evaluated(loss, kl):
    ones = torch.ones(len(loss), dtype=torch.float64)
    loss, kl = torch.tensor(loss).double(), torch.tensor(kl).double()
    return Evaluated(loss, kl, ones, loss, torch.arange(len(loss)))


def test_recovered_by_hand(subject, identity_dictionary):
    """(5 − 2)/(5 − 1) of the loss and 1 − 0.5/2 of the KL, in every one of eight documents."""
    many = 8
    found = {
        "reference": evaluated([1.0] * many, [0.0] * many),
        "side": evaluated([2.0] * many, [0.5] * many),
        "zero": evaluated([5.0] * many, [2.0] * many),
        "mean": evaluated([3.0] * many, [1.0] * many),
        "random": evaluated([4.0] * many, [1.5] * many),
    }
    table = Estimates(recovered(subject({SITE: identity_dictionary}), SPLICED, found, None))
    by_zero, by_mean = {"setting": "zero ablation"}, {"setting": "mean ablation"}
    assert table.one("evaluate.ce_recovered", **by_zero).value == pytest.approx(3 / 4)
    assert table.one("evaluate.ce_recovered", **by_mean).value == pytest.approx(1 / 2)
    assert table.one("evaluate.kl_recovered", **by_zero).value == pytest.approx(3 / 4)
    assert table.one("evaluate.kl_recovered", **by_mean).value == pytest.approx(1 / 2)
    levels = {n.name: n.level for n in table.one("evaluate.ce_recovered", **by_zero).nulls}
    assert levels == {null_names.ABLATED: 0.0, null_names.RANDOM_DECODER: pytest.approx(1 / 4)}
    costs_nothing = {**found, "zero": found["reference"], "mean": found["reference"]}
    assert recovered(subject({SITE: identity_dictionary}), SPLICED, costs_nothing, None) == []


def test_what_reconstructs_everything_costs_nothing(subject, identity_dictionary, cut):
    table = Estimates(core(subject({SITE: identity_dictionary}), *cut).estimates)
    assert table.one("evaluate.fvu").value == pytest.approx(0.0, abs=1e-9)
    assert table.one("evaluate.loss", model=SPLICED).value == pytest.approx(
        table.one("evaluate.loss", model=ORIGINAL).value, abs=1e-5
    )
    # the loss of a random model may fall under ablation: there is no share of that
    kept = table.taken("evaluate.ce_recovered", "evaluate.kl_recovered")
    assert {one.key.setting for one in kept} == {"zero ablation", "mean ablation"}
    for one in kept:
        assert one.value == pytest.approx(1.0, abs=1e-3)
        assert one.verdict == "above"


def test_zero_ablation_is_what_a_hook_does(subject, identity_dictionary, loaded, cut):
    """A dictionary that writes nothing recovers nothing of zero ablation, and its loss is that of
    a model whose stream is zeroed by a plain hook."""
    empty = copy.deepcopy(identity_dictionary)
    empty.directions.zero_()
    table = Estimates(core(subject({SITE: empty}), *cut).estimates)
    assert table.one("evaluate.kl_recovered", setting="zero ablation").value == pytest.approx(0.0)
    module, tokenizer = loaded
    loss = count = 0.0
    for window in cut[1]:
        ids = torch.tensor([window.ids])
        special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
        zeroed = partial(lambda kept, x: torch.where(kept[..., None], x, 0.0), special)
        with torch.no_grad(), replace(module, parse_site(SITE), zeroed):
            log_p = module(input_ids=ids).logits.log_softmax(-1)
        kept = ~special[0]
        wanted = kept[:-1] & kept[1:]
        loss -= float(log_p[0, :-1].gather(1, ids[0, 1:, None]).squeeze(1)[wanted].sum())
        count += int(wanted.sum())
    # windows are of nearly equal length: no document's weight is cut
    assert table.one("evaluate.loss", model=SPLICED).value == pytest.approx(loss / count, rel=1e-4)


def test_a_random_decoder_has_the_size_and_sparsity_asked_for_and_knows_the_mean(
    identity_dictionary,
):
    random = torch.Generator().manual_seed(0)
    rows = 5.0 + torch.randn(3000, 32, generator=random)
    made = random_decoder(identity_dictionary, rows, 6.4, 0, "mine")
    codes = made.encode(rows)
    assert made.n_latents == 64
    assert (codes > 0).sum(1).max() == 6
    fvu = float((made(rows) - rows).square().sum() / (rows - rows.mean(0)).square().sum())
    assert 0.5 < fvu < 1.0
    again = random_decoder(identity_dictionary, rows, 6.4, 0, "mine")
    assert torch.equal(again.directions, made.directions)
    other = random_decoder(identity_dictionary, rows, 6.4, 1, "mine")
    assert not torch.equal(other.directions, made.directions)


def test_the_smallest_difference_that_shows():
    """Of a standard error of 1: 1.96 + 0.84."""
    assert detectable((-1.959964, 1.959964)) == pytest.approx(2.8016, abs=1e-3)
    assert math.isnan(detectable((math.nan, math.nan)))


@pytest.fixture
def fine_tuned(loaded, save_adapter, tmp_path):
    """(the tiny model under an adapter, its tokenizer)."""
    module = copy.deepcopy(loaded[0])
    folder = save_adapter(tmp_path / "tuned", target_modules=["q_proj", "v_proj", "down_proj"])
    return with_adapter(module, folder), loaded[1]


def on(fine_tuned, dictionary, **fields):
    module, tokenizer = fine_tuned
    placed = {parse_site(SITE): dictionary}
    special = tuple(tokenizer.all_special_ids)
    return OpenedSubject(
        "mine", module, tokenizer, placed, placed, {}, special, adapter="tuned", **fields
    )


def test_with_an_adapter_every_number_is_taken_with_it_and_without(
    fine_tuned, identity_dictionary, cut
):
    tuned = on(fine_tuned, identity_dictionary)
    assert tuned.conditions == (ORIGINAL, SPLICED, UNSPLICED, ADAPTED)
    table = Estimates(core(tuned, *cut).estimates)
    losses = {one.key.model: one.value for one in table.select("evaluate.loss")}
    assert losses[UNSPLICED] != pytest.approx(losses[ORIGINAL], abs=1e-3)
    assert losses[ADAPTED] == pytest.approx(losses[UNSPLICED], abs=1e-4)
    change = table.one("evaluate.change", about="evaluate.loss")
    assert change.value == pytest.approx(losses[ADAPTED] - losses[SPLICED], abs=1e-6)
    # both sides recover all of what ablation costs their own model: no difference
    changes = table.select("evaluate.change", about="evaluate.kl_recovered")
    assert len(changes) == 2
    for one in changes:
        assert one.value == pytest.approx(0.0, abs=1e-3)


def test_a_delta_dictionary_stands_for_what_the_adapter_adds(fine_tuned, identity_dictionary, cut):
    """An exact one keeps the adapted model, an empty one gives the base's stream at the site."""
    exact = on(fine_tuned, identity_dictionary, delta=True)
    assert exact.conditions == (ORIGINAL, UNSPLICED, ADAPTED)
    table = Estimates(core(exact, *cut).estimates)
    losses = {one.key.model: one.value for one in table.select("evaluate.loss")}
    assert losses[ADAPTED] == pytest.approx(losses[UNSPLICED], abs=1e-4)
    assert table.one("evaluate.fvu").value == pytest.approx(0.0, abs=1e-6)
    rows = stream_rows(exact, cut[1], adapter=True)[parse_site(SITE)]
    both = on(fine_tuned, identity_dictionary)
    with_, without = (
        stream_rows(both, cut[1], adapter=one)[parse_site(SITE)].rows for one in (True, False)
    )
    assert torch.allclose(rows.rows, with_ - without, atol=1e-6)
    assert float(rows.rows.norm()) > 0.01 * float(without.norm())
    empty = copy.deepcopy(identity_dictionary)
    empty.directions.zero_()
    nothing = Estimates(core(on(fine_tuned, empty, delta=True), *cut).estimates)
    for one in nothing.select("evaluate.kl_recovered", setting="zero ablation"):
        assert one.value == pytest.approx(0.0, abs=1e-6)


def test_a_model_without_dictionaries_has_its_loss_alone(subject, cut):
    table = Estimates(core(subject(), *cut).estimates)
    assert [one.measure for one in table] == ["evaluate.loss"]
