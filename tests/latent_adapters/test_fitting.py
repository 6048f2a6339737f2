"""Training: it learns, from what the site sees once; what is frozen stays; it resumes exactly."""

import json
from itertools import islice

import pytest
import torch

from lorascope.activations.tokens import pad
from lorascope.dictionaries.files import save
from lorascope.errors import InputError
from lorascope.latent_adapters import fitting
from lorascope.latent_adapters.adapter import LatentAdapter
from lorascope.latent_adapters.attribution import attribute
from lorascope.latent_adapters.card import CARD, WEIGHTS
from lorascope.latent_adapters.fitting import Examples, _AdapterFit, fit
from lorascope.latent_adapters.loading import load
from lorascope.latent_adapters.reading import ActiveLatents, FrozenSite
from lorascope.latent_adapters.settings import LatentTraining
from lorascope.latent_adapters.sparsity import Dense, HardConcrete, Proximal, TopM
from lorascope.models.freezing import fingerprint
from lorascope.outputs.responses import response_token_losses
from lorascope.randomness import generator

from .conftest import ANSWER, LATENTS, QUICK, SITE, WIDTH, a_dictionary, behaviour

ARCHITECTURES = ("llama", "gemma2", "gpt2", "gpt_neox", "qwen2")


class Stopped(Exception):  # noqa: N818 - stands for a killed run
    """Stands for a killed run."""


def logits_of_answers(module, tokenizer, windows, adapter=None, site=SITE):
    """Logit of ANSWER less the mean logit, where the response begins."""
    batch = pad(windows, tokenizer, 1)
    at = batch.response.long().argmax(1) - 1
    with torch.no_grad():
        if adapter is None:
            found = module(batch.ids, attention_mask=batch.attended.long()).logits
        else:
            with adapter.attached(module, site):
                found = module(batch.ids, attention_mask=batch.attended.long()).logits
    found = found[torch.arange(len(at)), at]
    return found[:, ANSWER] - found.mean(1)


@pytest.mark.parametrize("kind", ["jumprelu", "topk", "relu"])
def test_codes_read_as_the_dense_latents_do(kind):
    dictionary = a_dictionary(kind)
    rows = torch.randn(50, WIDTH, generator=generator(1))
    codes, z = ActiveLatents.of(dictionary, rows), dictionary.encode(rows)
    assert len(codes.latent) == int((z != 0).sum()) < z.numel()
    factor = torch.randn(3, LATENTS, generator=generator(2))
    torch.testing.assert_close(codes.read(factor), z @ factor.T, atol=1e-4, rtol=1e-5)
    weights = torch.randn(50, 2, generator=generator(3))
    torch.testing.assert_close(codes.sums(weights, LATENTS), z.T @ weights, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_step_from_the_site_is_a_step_through_the_whole_model(
    architecture, tiny_model, tokenizer
):
    """Loss and gradients by hooks on the whole model, and from what was read once."""
    module = tiny_model(architecture)
    reading = FrozenSite(module, tokenizer, a_dictionary(), "layers.1")
    windows = [w for kind in behaviour(4) for w in kind]
    batch = reading.batch(reading.see(windows))
    found = []
    for way in ("hooks", "site"):
        adapter = LatentAdapter(reading.dictionary, 2, scale=2.0, generator=generator(1))
        if way == "hooks":
            with adapter.attached(module, "layers.1", reading.special_ids):
                losses, _ = response_token_losses(module, batch.tokens, reading.device)
        else:
            with reading.going_on(reading.changed(adapter, batch)) as resumed:
                losses, _ = response_token_losses(resumed, batch.tokens, reading.device)
        plain, _ = response_token_losses(module, batch.tokens, reading.device)
        assert (losses - plain).abs().max() > 1e-3
        losses.mean().backward()
        found.append([losses.detach(), *(p.grad for p in adapter.parameters())])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-3)


def test_it_learns_when_to_answer_and_leaves_the_frozen_alone(reading, trained, tokenizer):
    before = [fingerprint(reading.module), fingerprint(reading.dictionary)]
    fitted = trained(steps=120)
    assert [fingerprint(reading.module), fingerprint(reading.dictionary)] == before
    losses = fitted.history.series("loss")
    assert sum(losses[-10:]) < 0.75 * sum(losses[:10])
    changed, unchanged = behaviour(16, seed=9)
    gains = [
        (
            logits_of_answers(reading.module, tokenizer, kind, fitted.adapter)
            - logits_of_answers(reading.module, tokenizer, kind)
        ).mean()
        for kind in (changed, unchanged)
    ]
    assert gains[0] > gains[1] + 0.1, gains
    assert not any(
        part._forward_hooks or part._forward_pre_hooks for part in reading.module.modules()
    )


def test_batches_are_balanced_and_every_example_comes_before_any_comes_again(reading, examples):
    adapter = LatentAdapter(reading.dictionary, 1)
    run = _AdapterFit(reading, examples, QUICK, adapter)
    seen = []
    for batch in islice(run._batches(0), 6):
        answers = batch.tokens.ids[batch.tokens.response]
        assert (answers == ANSWER).sum() == QUICK.batch // 2
        seen += batch.tokens.documents.tolist()
    assert sorted(seen) == list(range(48))
    later = next(run._batches(4)).tokens.ids
    assert torch.equal(later, list(islice(run._batches(0), 5))[-1].tokens.ids)


@pytest.mark.parametrize(
    "sparsity",
    [Dense(), HardConcrete(), TopM(m=4), Proximal(), Dense(preselect=9)],
    ids=["dense", "gates", "top_m", "proximal", "preselected"],
)
def test_a_stopped_run_goes_on_bit_for_bit(sparsity, reading, examples, tmp_path, monkeypatch):
    settings = QUICK.model_copy(update={"sparsity": sparsity, "steps": 10})
    whole = fit(reading, examples, settings, model="tiny")
    monkeypatch.setattr(fitting, "SAVE_SECONDS", 0.0)
    file = tmp_path / "state.pt"

    def stop(progress):
        if progress.step == 4:
            raise Stopped

    with pytest.raises(Stopped):
        fit(reading, examples, settings, model="tiny", observers=[stop], checkpoint=file)
    steps = []
    look = lambda progress: steps.append(progress.step)  # noqa: E731
    again = fit(reading, examples, settings, model="tiny", observers=[look], checkpoint=file)
    assert steps[0] == 4
    assert not file.exists()
    for name, tensor in whole.adapter.state_dict().items():
        assert torch.equal(tensor, again.adapter.state_dict()[name])
    for series in ("loss", "penalty", "effective_read"):
        assert whole.history.series(series) == again.history.series(series)
    other = fit(reading, examples, settings.model_copy(update={"seed": 1}), model="tiny")
    assert not torch.equal(other.adapter.scale, whole.adapter.scale)


def test_the_global_random_state_is_never_touched(trained):
    before = torch.get_rng_state()
    first = trained(steps=3, sparsity=HardConcrete())
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(3)
    second = trained(steps=3, sparsity=HardConcrete())
    assert torch.equal(first.adapter.read, second.adapter.read)


def test_saved_and_opened_it_does_the_same(reading, trained, tmp_path):
    fitted = trained(sparsity=TopM(m=4), rank=2)
    fitted.adapter.save_pretrained(tmp_path / "mine")
    saved = {path.name for path in (tmp_path / "mine").iterdir()}
    assert saved == {"README.md", "config.json", WEIGHTS, CARD}
    # Entries of zero are not stored: four and four latents a rank, of 80.
    assert (tmp_path / "mine" / WEIGHTS).stat().st_size < 1500
    again = LatentAdapter.from_pretrained(tmp_path / "mine", dictionary=reading.dictionary)
    x = torch.randn(9, WIDTH, generator=generator(1))
    assert not torch.equal(fitted.adapter(x), x)
    torch.testing.assert_close(again(x), fitted.adapter(x), atol=1e-6, rtol=1e-6)
    for ours, theirs in zip(again.pairs(), fitted.adapter.pairs(), strict=True):
        assert ours[:2] == theirs[:2]
        assert ours.weight == pytest.approx(theirs.weight, rel=1e-5)
    card = again.card
    assert (card.site, card.model, card.data, card.rank) == (SITE, "tiny", "planted", 2)
    assert card.trained_on == ("a", "b")
    assert card.examples == {"changed": 24, "unchanged": 24}
    assert json.loads((tmp_path / "mine" / CARD).read_text())["base"] == fingerprint(reading.module)
    again.save_pretrained(tmp_path / "copy")
    twice = LatentAdapter.from_pretrained(tmp_path / "copy", dictionary=reading.dictionary)
    assert torch.equal(twice(x), again(x))


def test_a_run_that_was_moved_opens_its_own_dictionary(trained, tmp_path, monkeypatch):
    run = tmp_path / "run"
    stored, adapter = run / "dictionaries" / "d", run / "adapters" / "mine"
    fitted = trained(steps=2).adapter
    save(fitted.dictionary, stored)
    card = fitted.card

    def saved(address, folder):
        over = card.dictionary.model_copy(update={"address": address})
        fitted.card = card.model_copy(update={"dictionary": over})
        fitted.save_pretrained(folder)
        return json.loads((folder / CARD).read_text())["dictionary"]["address"]

    assert saved(str(stored), adapter) == "../../dictionaries/d"
    assert "../../dictionaries/d" in (adapter / "README.md").read_text()
    moved = run.rename(tmp_path / "renamed")
    monkeypatch.chdir(tmp_path.parent)
    x = torch.randn(3, WIDTH, generator=generator(1))
    again = LatentAdapter.from_pretrained(moved / "adapters" / "mine")
    torch.testing.assert_close(again(x), fitted(x), atol=1e-6, rtol=1e-6)
    # One from elsewhere stays where it is, and is named by its whole path.
    monkeypatch.chdir(tmp_path)
    elsewhere = moved.parent / "d"
    save(fitted.dictionary, elsewhere)
    assert saved("d", tmp_path / "a" / "b" / "c" / "e") == str(elsewhere)
    assert saved("hf://a/b/c", tmp_path / "h") == "hf://a/b/c"
    assert saved("", tmp_path / "n") == ""
    fitted.card = card


def test_it_is_attached_to_what_load_returns(trained, tiny_checkpoint):
    fitted = trained(steps=5).adapter
    loaded = load(str(tiny_checkpoint("llama")), device="cpu")
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    with torch.no_grad():
        before = loaded.module(input_ids=ids).logits
        with fitted.attached(loaded):
            there = loaded.module(input_ids=ids).logits
        with fitted.attached(loaded.module):
            wanted = loaded.module(input_ids=ids).logits
    assert torch.equal(there, wanted)
    assert not torch.equal(there, before)


def test_another_dictionary_is_refused(trained, tmp_path):
    trained(steps=2).adapter.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="made over another dictionary"):
        LatentAdapter.from_pretrained(tmp_path, dictionary=a_dictionary(seed=1))
    with pytest.raises(InputError, match="names no dictionary to open: give it one"):
        LatentAdapter.from_pretrained(tmp_path)
    with pytest.raises(InputError, match=f"has no {WEIGHTS}"):
        LatentAdapter.from_pretrained(tmp_path.parent)


def test_refusals(reading, tiny_model, tokenizer):
    with pytest.raises(InputError, match="reads rows of width 8, the model's are 32 wide"):
        FrozenSite(tiny_model("llama"), tokenizer, a_dictionary(d=8), SITE)
    with pytest.raises(InputError, match=r"sites go from layers\.0 to layers\.2"):
        FrozenSite(tiny_model("llama"), tokenizer, a_dictionary(), "layers.7")
    with pytest.raises(InputError, match="no changed example with a response"):
        Examples.read(reading, [], behaviour()[1])
    with pytest.raises(InputError, match="set its card first"):
        LatentAdapter(reading.dictionary, 1).save_pretrained("never")


def test_attribution_is_the_gradient_of_every_pair(reading, examples):
    """M = −∂loss/∂(weight of the pair) at nothing, by autograd; then its singular vectors."""
    seen = [*examples.changed, *examples.unchanged]
    batch = reading.batch(seen)
    z = reading.dictionary.encode(batch.stream[batch.acted_on])
    weights = torch.zeros(LATENTS, LATENTS, requires_grad=True)
    change = (z @ weights) @ reading.dictionary.directions
    places = batch.acted_on.nonzero(as_tuple=True)
    with reading.going_on(batch.stream.index_put(places, change, accumulate=True)) as module:
        losses, _ = response_token_losses(module, batch.tokens, reading.device)
    # Every window has one response token, and there are as many of either kind.
    losses.mean().mul(2).backward()
    u, s, vh = torch.linalg.svd(-weights.grad)
    found = attribute(reading, examples.changed, examples.unchanged, rank=1)
    assert found.values[0].item() == pytest.approx(s[0].item(), rel=1e-2)
    assert abs(found.read[0] @ u[:, 0]) > 0.99
    assert abs(found.write[0] @ vh[0]) > 0.99
    assert ((found.read[0] @ u[:, 0]) * (found.write[0] @ vh[0])) > 0
    reads, writes = found.candidates(5)
    assert set(reads.tolist()) == set(u[:, 0].abs().topk(5).indices.tolist())
    assert set(writes.tolist()) == set(vh[0].abs().topk(5).indices.tolist())


def test_preselected_latents_alone_are_trained(reading, examples):
    settings = QUICK.model_copy(update={"sparsity": Dense(preselect=6), "steps": 5})
    adapter = fit(reading, examples, settings, model="tiny").adapter
    assert adapter.read.shape == adapter.write.shape == (1, 6)
    expected = attribute(reading, examples.changed, examples.unchanged).candidates(6)
    for found, wanted in zip(adapter.support(), expected, strict=True):
        assert torch.equal(found, wanted)


def test_cut_down_it_keeps_the_heaviest_as_they_are(trained):
    adapter = trained(rank=2).adapter
    small = adapter.cut(5, 3)
    for whole, cut, most in zip(adapter.factors(), small.factors(), (5, 3), strict=True):
        kept = cut.any(0)
        assert int(kept.sum()) == most
        assert torch.equal(cut[:, kept], whole[:, kept])
        assert whole.norm(dim=0)[kept].min() >= whole.norm(dim=0)[~kept].max()
    assert small.scale.equal(adapter.scale)


def test_settings_are_checked():
    with pytest.raises(InputError, match='"batch"'):
        LatentTraining.parse({"batch": 7}, "settings")
