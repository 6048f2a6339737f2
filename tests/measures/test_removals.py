"""Changes of many latents side by side: each as if alone, none run in vain or twice."""

from collections import Counter
from dataclasses import replace as replace_fields

import pytest
import torch

from lorascope.activations.tokens import Window
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.measures import removals, surveys
from lorascope.measures.attribution import Attributing, attributed_losses
from lorascope.measures.matched_latents import Matching, matched_latents
from lorascope.measures.removals import Change, RemovalMeasure, sweep
from lorascope.measures.single_latents import Effects, latent_effects
from lorascope.measures.spots import MODES, read_spots, signed
from lorascope.models.adapted import load
from lorascope.models.hooks import replace, run_until
from lorascope.models.passages import Passage
from lorascope.models.sites import Site

D, SITE = 32, Site(1)
LENGTHS = (10, 7, 12, 9, 5)
IDS = [
    torch.randint(3, 60, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in LENGTHS
]
# Responses begin at the fourth token; the last window holds none.
WINDOWS = [
    Window(ids, [False] * 4 + [len(ids) > 5] * (len(ids) - 4), index)
    for index, ids in enumerate(IDS)
]


@pytest.fixture(scope="module")
def model(tiny_checkpoint, save_adapter, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    path = save_adapter(folder / "whole", target_modules=["q_proj", "up_proj"])
    return load(str(tiny_checkpoint()), {"whole": str(path)}, device="cpu")


@pytest.fixture(scope="module")
def found(model):
    return surveys.survey(model, "whole", WINDOWS, ["layers.1"])


@pytest.fixture(scope="module")
def dictionary(found):
    """Eight latents, each firing on a fifth of the tokens."""
    axes = torch.linalg.qr(torch.randn(D, 8, generator=torch.Generator().manual_seed(2))).Q.T
    deltas = found.pool[SITE][0].float()
    bias = -(deltas @ axes.T).quantile(0.8, dim=0)
    return ReluDictionary(axes.T, bias, axes, torch.zeros(D))


@torch.no_grad()
def by_hand(model, mode, dictionary, latent, ids):
    """log p before and after at every position of a window, with a hook on the whole model."""
    tokens = torch.tensor([ids])
    streams = {}
    for variant in model.variants:
        with model.variant(variant) as module:
            streams[variant] = run_until(module, [SITE], tokens)[SITE]
    code = dictionary.encode(streams["whole"] - streams["base"])[..., latent, None]
    written = code * dictionary.directions[latent]
    # Special tokens keep their stream.
    written[tokens <= 2] = 0
    with model.variant("whole" if mode == "ablation" else "base") as module:
        before = torch.log_softmax(module(input_ids=tokens).logits[0].double(), -1)
        with replace(module, SITE, lambda stream: stream + signed(mode, written)):
            after = torch.log_softmax(module(input_ids=tokens).logits[0].double(), -1)
    return before, after, code[0, :, 0]


class Asking(RemovalMeasure):
    """Asks for every latent in every window, and keeps what comes."""

    def __init__(self, dictionary):
        self.units = dictionary.directions
        self.found = {}

    def asks(self, number, mode, window):
        return {Change(latent): self.units[latent] for latent in range(len(self.units))}

    def take(self, number, sight, one, found):
        document = int(sight.spot.batch.documents[sight.window])
        self.found[sight.mode, document, one.latent] = found


@pytest.fixture(scope="module")
def asked(model, found, dictionary):
    spots = list(read_spots(model, found, SITE, dictionary, 512))
    part = Asking(dictionary)
    sweep(model, spots, [part])
    return part.found


@pytest.mark.parametrize("mode", MODES)
def test_each_change_side_by_side_is_that_change_alone(model, dictionary, asked, mode):
    compared = silent = 0
    for document, ids in enumerate(IDS):
        for latent in range(8):
            before, after, code = by_hand(model, mode, dictionary, latent, ids)
            kl = loss = 0.0
            for t in range(4, len(ids) if document < 4 else 0):
                p, q = before[t - 1], after[t - 1]
                kl += float((p.exp() * (p - q)).sum())
                loss += float(p[ids[t]] - q[ids[t]])
            fires = (code > 0).nonzero().flatten().tolist()
            if document == 4 or not fires or fires[0] > len(ids) - 2:
                assert (mode, document, latent) not in asked
                assert kl == pytest.approx(0, abs=1e-9)
                silent += 1
                continue
            one = asked[mode, document, latent]
            assert one.kl == pytest.approx(kl, rel=1e-3)
            assert one.loss == pytest.approx(loss, rel=1e-3, abs=1e-5)
            # Scored tokens before the first change of those that share the pass are left out.
            assert one.first <= max(0, fires[0] - 3)
            expected = after[3 + one.first : len(ids) - 1].float()
            torch.testing.assert_close(one.log_p, expected, atol=1e-4, rtol=1e-4)
            compared += 1
    assert compared > 15
    assert silent > 8


def counted(monkeypatch):
    """Counts the changes and positions that are run."""
    ran, own = Counter(), Passage.resume

    def resume(passage, streams, begin):
        ran.update(changes=len(streams), positions=streams.shape[0] * streams.shape[1])
        return own(passage, streams, begin)

    monkeypatch.setattr(Passage, "resume", resume)
    return ran


def test_what_two_parts_ask_for_is_run_once(model, found, dictionary, monkeypatch):
    spots = list(read_spots(model, found, SITE, dictionary, 512))
    one, two = Asking(dictionary), Asking(dictionary)
    ran = counted(monkeypatch)
    sweep(model, spots, [one])
    once = ran.total()
    assert ran["changes"] == len(one.found)
    ran.clear()
    sweep(model, spots, [one, two])
    assert ran.total() == once
    assert two.found.keys() == one.found.keys()


def test_no_position_before_the_first_change_is_run(model, found, dictionary, monkeypatch, asked):
    monkeypatch.setattr(removals, "_VAIN", {"cpu": 0})
    ran = counted(monkeypatch)
    spots = list(read_spots(model, found, SITE, dictionary, 512))
    part = Asking(dictionary)
    sweep(model, spots, [part])
    needed = 0
    for mode, document, latent in part.found:
        _, _, code = by_hand(model, mode, dictionary, latent, IDS[document])
        # The last token predicts nothing.
        needed += len(IDS[document]) - 1 - int((code > 0).nonzero()[0])
    assert ran["positions"] == needed
    for key, one in part.found.items():
        assert one.kl == pytest.approx(asked[key].kl, rel=1e-4)


@pytest.mark.parametrize("limit", ["_POSITIONS", "_LOGITS"])
def test_passes_are_as_small_as_they_must_be(model, found, dictionary, monkeypatch, asked, limit):
    monkeypatch.setattr(removals, limit, {"cpu": 1} if limit == "_POSITIONS" else 1)
    ran, own = [], Passage.resume
    monkeypatch.setattr(
        Passage, "resume", lambda p, s, begin: (ran.append(len(s)), own(p, s, begin))[1]
    )
    part = Asking(dictionary)
    sweep(model, list(read_spots(model, found, SITE, dictionary, 512)), [part])
    assert set(ran) == {1}
    for key, one in part.found.items():
        assert one.kl == pytest.approx(asked[key].kl, rel=1e-4)


def test_one_sweep_gives_what_each_measure_gives_alone(model, found, dictionary):
    named = torch.tensor([3, 1, 6])
    spots = list(read_spots(model, found, SITE, dictionary, 512))
    parts = (
        Effects(model, spots, dictionary, named),
        Matching(spots, "layers.1", dictionary, named),
        Attributing(dictionary, "layers.1"),
    )
    sweep(model, spots, parts)
    effects, matched, attributed = (part.found() for part in parts)
    alone = latent_effects(model, found, "layers.1", dictionary, named)
    beside = matched_latents(model, found, "layers.1", dictionary, named)
    every = attributed_losses(model, found, "layers.1", dictionary)
    close = {"rtol": 1e-4, "atol": 1e-9, "equal_nan": True}
    for mode in MODES:
        assert alone.changes[mode].kl.min() > 0
        torch.testing.assert_close(effects.changes[mode].kl, alone.changes[mode].kl, **close)
        torch.testing.assert_close(effects.changes[mode].loss, alone.changes[mode].loss, **close)
        torch.testing.assert_close(matched[mode].kl, beside[mode].kl, **close)
        torch.testing.assert_close(matched[mode].alternatives, beside[mode].alternatives, **close)
    torch.testing.assert_close(attributed.loss, every.loss, **close)


def test_kept_passes_and_passes_run_again_give_the_same(model, found, dictionary):
    assert found.kept is not None
    fresh = replace_fields(found, kept=None)
    kept, again = (list(read_spots(model, f, SITE, dictionary, 512)) for f in (found, fresh))
    assert len(kept) == len(again)
    for one, other in zip(kept, again, strict=True):
        assert torch.equal(one.rows, other.rows)
        torch.testing.assert_close(one.strengths, other.strengths, atol=1e-5, rtol=1e-5)
    for one, other in zip(found.passes(model), fresh.passes(model), strict=True):
        torch.testing.assert_close(one.adapted.logits, other.adapted.logits)
        torch.testing.assert_close(one.base.streams, other.base.streams)
        assert not torch.equal(one.adapted.logits, one.base.logits)


def test_passes_are_kept_up_to_a_size(model, monkeypatch):
    monkeypatch.setattr(surveys, "_KEPT", 100)
    assert surveys.survey(model, "whole", WINDOWS, ["layers.1"]).kept is None
