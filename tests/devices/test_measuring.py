"""Capture, effects on the outputs and single latents with the model on the second device."""

from collections import Counter

import pytest
import torch
from waits import counted

from lorascope.activations.collect import collect
from lorascope.activations.settings import Capture
from lorascope.activations.shards import Shards
from lorascope.activations.text import Document, Segment
from lorascope.activations.tokens import Window, windows
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.dictionaries.topk import TopKDictionary
from lorascope.geometry.chance import isotropic
from lorascope.measures.attribution import attributed_losses
from lorascope.measures.matched_latents import matched_latents
from lorascope.measures.recovery import recovery_estimates, splice
from lorascope.measures.removals import Sight
from lorascope.measures.single_latents import latent_effects, latent_estimates, leading_latents
from lorascope.measures.surveys import change_estimates, survey
from lorascope.models.adapted import load
from lorascope.models.sites import Site, resolve_sites
from lorascope.outputs.scoring import Outcome
from lorascope.randomness import generator
from lorascope.results import Key

D, LATENTS = 32, 48
SITES = ("layers.0", "layers.1")
IDS = torch.randint(3, 60, (6, 10), generator=generator(0, "ids"))
WINDOWS = [Window(row.tolist(), [False] * 3 + [True] * 7, index) for index, row in enumerate(IDS)]


@pytest.fixture
def model(tiny_checkpoint, save_adapter, tmp_path):
    """`model(device)`: a tiny Llama with an adapter."""
    folder = save_adapter(tmp_path / "adapter", target_modules=["q_proj", "down_proj"])
    return lambda device: load(str(tiny_checkpoint("llama")), {"a": str(folder)}, device=device)


def a_dictionary(kind=ReluDictionary, **own):
    directions = isotropic(LATENTS, D, generator(0, "directions"))
    return kind(directions.T.clone(), torch.zeros(LATENTS), directions, torch.zeros(D), **own)


def documents():
    """Texts of 3 to 20 words, the last third of each a response."""
    random, made = generator(1, "documents"), []
    for length in torch.randint(3, 21, (20,), generator=random).tolist():
        words = [f"w{i}" for i in torch.randint(0, 61, (length,), generator=random).tolist()]
        cut = 2 * length // 3
        response = Segment(" " + " ".join(words[cut:]), response=True)
        made.append(Document((Segment(" ".join(words[:cut])), response)))
    return made


def test_capture_writes_the_cpus_rows(model, tmp_path, there):
    settings = Capture(context=16, store="float32", batch_tokens=64)
    found = {}
    for device, name in (("cpu", "here"), ("second:0", "there")):
        loaded = model(device)
        cut = windows(documents(), loaded.tokenizer, settings.context)
        begin = len(there.waits)
        batches = []
        collect(
            *(loaded, cut, resolve_sites(loaded.n_blocks, SITES), tmp_path / name, settings, "id"),
            advance=batches.append,
        )
        found[name] = Shards.open(tmp_path / name)
    ours, cpus = found["there"], found["here"]
    assert len(batches) > 3
    for site in SITES:
        for variant in ("base", "a"):
            assert torch.equal(ours.load(site, variant), cpus.load(site, variant)), (site, variant)
    assert torch.equal(ours.tokens().token, cpus.tokens().token)
    # A site's streams are looked at for NaN and its rows written, base and adapter; base norms
    # are kept; and the adapter is seen to change something, once.
    assert counted(there.waits[begin:]) == {
        "lorascope/models/hooks.py:_check_finite": 2 * 2 * len(batches),
        "lorascope/activations/shards.py:add": 2 * 2 * len(batches),
        "lorascope/activations/collect.py:_collect_batch": 2 * len(batches) + 2,
    }


@pytest.fixture
def calls(monkeypatch):
    """How often passes with changed streams are run, for how many windows, and outcomes added."""
    found = Counter()
    together, add = Sight._together, Outcome.add

    def counting(self, *arguments):
        found["windows"] += 1
        for one in together(self, *arguments):
            found["passes"] += 1
            yield one

    def adding(self, *arguments):
        found["outcomes"] += 1
        add(self, *arguments)

    monkeypatch.setattr(Sight, "_together", counting)
    monkeypatch.setattr(Outcome, "add", adding)
    return found


def equal(ours, theirs):
    """Whether all tensors of two results are the same."""
    if isinstance(ours, torch.Tensor):
        return torch.equal(ours.nan_to_num(-9.0).cpu(), theirs.nan_to_num(-9.0).cpu())
    if isinstance(ours, dict):
        return all(equal(ours[key], theirs[key]) for key in theirs)
    return all(equal(ours_one, vars(theirs)[name]) for name, ours_one in vars(ours).items())


@pytest.mark.parametrize("place", ["cpu", "second:0"])
def test_effects_and_single_latents_are_the_cpus(place, model, calls, there):
    """Wherever the dictionaries lie; those read from files are on the CPU."""
    found = []
    for device in ("cpu", "second:0"):
        calls.clear()
        loaded = model(device)
        beside = "cpu" if place == "cpu" else device
        dictionary, topk = a_dictionary().to(beside), a_dictionary(TopKDictionary, k=6).to(beside)
        surveyed = survey(loaded, "a", WINDOWS, SITES)
        latents = leading_latents(dictionary, surveyed.pool[Site(1)][0], 4)
        here = (loaded, surveyed, "layers.1", dictionary)
        effects = latent_effects(*here, latents)
        matched = matched_latents(*here, latents, alternatives=3)
        attributed = attributed_losses(*here)
        dictionaries = {Key(site=site, dictionary="delta"): dictionary for site in SITES}
        differences = {Key(site=site, dictionary="difference"): topk for site in SITES}
        means = {site: torch.full((D,), 0.1) for site in SITES}
        spliced = splice(loaded, surveyed, dictionaries, differences, means, repeats=2)
        key = Key(adapter="a", rank=4)
        estimates = [
            *change_estimates(surveyed, key),
            *latent_estimates(effects, key),
            *recovery_estimates(spliced, key),
        ]
        assert len(estimates) > 20
        assert (there.operations > 1000) == (device != "cpu")
        outcomes = surveyed.base, surveyed.adapted, effects, matched, attributed
        found.append((estimates, outcomes))
    (cpus, theirs), (ours, own) = found
    assert ours == cpus
    assert effects.changes["ablation"].kl.abs().min() > 0
    assert all(map(equal, own, theirs))
    waits = counted(there.waits)
    # A pass is read once, and a window once to know where latents on the device are active.
    looked = calls["windows"] if place != "cpu" else 0
    assert calls["passes"] > 10
    assert waits["lorascope/measures/removals.py:changed"] == calls["passes"] + looked
    assert waits["lorascope/outputs/scoring.py:add"] == calls["outcomes"]
    # Nothing is asked for that the CPU knows: which positions are scored, which rows are spliced.
    for known in (
        "models/interventions.py:gather",
        "models/interventions.py:forward",
        "models/passages.py:open_passage",
        "measures/removals.py:_streams",
        "measures/recovery.py:_given",
    ):
        assert waits[f"lorascope/{known}"] == 0, waits
    # Gradients are on their way back without a wait.
    assert waits["unknown"] == 0, waits
