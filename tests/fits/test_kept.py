"""States that fits take from each other, and passes begun at a site: same bits, fewer passes."""

from contextlib import contextmanager

import pytest
import torch

from lorascope.activations.tokens import Window, pad
from lorascope.fits import fitting
from lorascope.fits.settings import Affine, Tuned
from lorascope.models.load import load_base
from lorascope.models.sites import Site, block_list
from lorascope.outputs.begun import Begun
from lorascope.outputs.divergence import scores_of_several, token_scores
from lorascope.outputs.evaluation import states_at
from lorascope.outputs.head import Head
from lorascope.outputs.kept import KeptStates
from lorascope.outputs.splicing import spliced
from lorascope.randomness import generator

LOOKS = {"evaluations": 2, "random_draws": 2}
KINDS = {
    "lora on all blocks": {"blocks": "all"},
    "lora behind the site": {"blocks": "after"},
    "recomputed": {"blocks": "after", "recompute": True, "affine": Affine()},
    "affine": {"lora": None, "affine": Affine()},
    "dictionary": {"lora": None, "dictionary": Tuned()},
    "in parts, special tokens too": {"batch": 4, "accumulate": 2, "splice_special": True},
    "bfloat16": {"blocks": "after", "products": "bfloat16"},
}


@pytest.fixture
def fit_(go, monkeypatch, tmp_path):
    """`fit_(name, dictionaries, kept, whole=…, **changes)`: everything a fit leaves, and how often
    the model's first and last blocks ran."""

    def start(name, dictionaries, kept=None, whole=False, prepare=None, architecture="llama", **of):
        ran = {}

        def counting(model):
            if prepare is not None:
                prepare(model)
            for place in (0, -1):
                block = block_list(model)[place]
                ran[place] = 0
                monkeypatch.setattr(block, "forward", counted(block.forward, ran, place))

        with monkeypatch.context() as patch:
            if whole:
                patch.setattr(fitting, "_passes", lambda *_: None)
            arguments = {"kept": kept, **LOOKS}
            found, _ = go(
                dictionaries, architecture, name, arguments, counting, **{"tokens": 500, **of}
            )
        return left(found, tmp_path / name), ran

    return start


def counted(forward, ran, place):
    def run(*given, **named):
        ran[place] += 1
        return forward(*given, **named)

    return run


def left(fitted, folder):
    """Every number and every weight of a fit, but for seconds."""
    numbers = {name: fitted.history.series(name) for name in ("kl", "tokens")}
    numbers["looks"] = fitted.history.points("held_out_kl")
    ways = [fitted.conditions, *fitted.random]
    sums = [
        {name: (one.loss.tolist(), one.kl.tolist(), one.losses.tolist()) for name, one in w.items()}
        for w in ways
    ]
    weights = {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*.safetensors"))
    }
    return numbers, sums, weights


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_with_the_states_of_another_is_the_same_fit(kind, fit_, make):
    changes, kept = KINDS[kind], KeptStates()
    alone, passes = fit_("alone", {1: make()}, whole=True, **changes)
    first, _ = fit_("first", {1: make()}, kept, **changes)
    before = kept.taken
    second, fewer = fit_("second", {1: make()}, kept, **changes)
    assert alone == first == second
    assert len(set(alone[0]["kl"])) > 2
    assert kept.taken > before
    assert fewer[-1] < passes[-1] - len(alone[0]["kl"])
    # Of blocks before the site nothing is left but the trials of head and beginning, and scales.
    if changes.get("blocks", "after") == "after":
        assert fewer[0] <= 5 < passes[0] / 4


def test_other_fits_take_what_is_the_same_for_them(fit_, make):
    kept = KeptStates()
    fit_("one", {1: make()}, kept, blocks="all")
    for name, dictionaries, changes in (
        ("rank", {1: make()}, {"blocks": "all", "rank": 2}),
        ("dictionary", {1: make(seed=3)}, {"blocks": "all"}),
        ("site", {0: make()}, {"blocks": "after"}),
        ("other direction", {1: make()}, {"direction": "original_spliced"}),
    ):
        before = kept.taken
        found, _ = fit_(name, dictionaries, kept, **changes)
        assert kept.taken > before
        assert found == fit_(f"{name} alone", dictionaries, whole=True, **changes)[0]


def move(model):
    block_list(model)[1].mlp.up_proj.weight.data[0, 0] += 0.5


STALE = {
    "base": {"prepare": move},
    "settings of the model": {"prepare": lambda model: setattr(model.config, "note", 1)},
    "order of the texts": {"seed": 7},
    "other batches": {"batch": 6},
    "products": {"products": "bfloat16"},
}


@pytest.mark.parametrize("changed", STALE)
def test_states_of_something_else_are_not_taken(changed, fit_, make):
    kept = KeptStates()
    mine, _ = fit_("first", {1: make()}, kept)
    before, changes = kept.taken, STALE[changed]
    found, _ = fit_("other", {1: make()}, kept, **changes)
    alone, _ = fit_("alone", {1: make()}, whole=True, **changes)
    assert found == alone
    if changed != "settings of the model":
        assert found != mine
    # Held-out text is looked at in the same batches; its original is the same unless that changed.
    looks = kept.taken - before
    fresh = KeptStates()
    fit_("again", {1: make()}, fresh, **changes)
    shares = changed in ("order of the texts", "other batches")
    assert (looks > fresh.taken) == shares


def test_another_dictionarys_spliced_states_are_not_taken(fit_, make):
    kept = KeptStates()
    mine, _ = fit_("first", {1: make()}, kept)
    found, _ = fit_("second", {1: make(seed=4)}, kept)
    spliced_losses = [one[1][0]["spliced"] for one in (mine, found)]
    assert spliced_losses[0] != spliced_losses[1]
    assert found == fit_("alone", {1: make(seed=4)})[0]


def test_what_is_kept_is_what_is_used(fit_, make):
    """The tests above would see a stale state: one that is planted changes every number."""
    kept = KeptStates()
    mine, _ = fit_("first", {1: make()}, kept, blocks="all")
    for states in kept._found.values():
        states.add_(0.1 * torch.randn(states.shape, generator=generator(0, "planted")))
    planted, _ = fit_("second", {1: make()}, kept, blocks="all")
    assert planted[0]["kl"][0] != mine[0]["kl"][0]
    assert planted[1][0]["spliced"] != mine[1][0]["spliced"]


@pytest.mark.parametrize("share", [0.0, 0.4])
@pytest.mark.parametrize("blocks", ["all", "after"])
def test_beyond_the_limit_states_are_computed_again(share, blocks, fit_, make):
    whole = KeptStates()
    expected, _ = fit_("all", {1: make()}, whole, blocks=blocks)
    kept = KeptStates(most=int(share * whole.size))
    for name in ("one", "two"):
        found, _ = fit_(name, {1: make()}, kept, blocks=blocks)
        assert found == expected
        assert kept.size <= kept.most
    assert kept.size == sum(t.numel() * t.element_size() for t in kept._found.values())
    assert (kept.taken > 0) == (share > 0)


def test_by_default_a_quarter_of_the_free_memory(monkeypatch):
    monkeypatch.setattr("lorascope.outputs.kept.available_memory", lambda: 400)
    kept, ids = KeptStates(), torch.zeros(1, 5, dtype=torch.long)
    batch = pad([Window([1] * 5, [False] * 5, 0)], Named, 0)
    for number in range(3):
        known, states = kept.of(number), torch.zeros(5, 3)
        known.states(batch, ids == 0, torch.float32, torch.device("cpu"), lambda s=states: s)
    assert (kept.most, kept.size) == (100, 60)


class Named:
    all_special_ids = (0,)


@contextmanager
def as_it_is():
    yield


def test_a_model_whose_later_blocks_read_earlier_ones_is_run_whole(tiny_checkpoint):
    model, _ = load_base(str(tiny_checkpoint("llama")), device="cpu")
    batch = pad([Window([3, 4, 5, 6], [False] * 4, 0), Window([7, 8], [False] * 2, 1)], Named, 1)
    plain = Begun(model, Site(1), as_it_is, torch.float32)
    with plain(batch):
        pass
    assert plain.holds
    seen = []
    first, last = block_list(model)[0], block_list(model)[2]
    first.register_forward_hook(lambda _block, inputs, output: seen.append(output[:, :1]))
    last.register_forward_hook(lambda _block, inputs, output: output + seen[-1])
    begun = Begun(model, Site(1), as_it_is, torch.float32)
    with torch.no_grad():
        whole = states_at(model, batch, batch.attended)
        with begun(batch):
            assert torch.equal(states_at(model, batch, batch.attended), whole)
    assert not begun.holds


def test_what_is_spliced_reads_the_given_stream(tiny_checkpoint, make):
    model, _ = load_base(str(tiny_checkpoint("llama")), device="cpu")
    batch = pad([Window([3, 4, 5, 6], [False] * 4, 0), Window([7, 8], [False] * 2, 1)], Named, 1)
    with spliced(model, {1: make()}) as splice, torch.no_grad():
        begun = Begun(model, Site(1), splice.off, torch.float32)
        expected = states_at(model, batch, batch.attended)
        with splice.off():
            assert not torch.equal(expected, states_at(model, batch, batch.attended))
        with begun(batch):
            assert torch.equal(expected, states_at(model, batch, batch.attended))
        assert begun.holds
    assert not any("forward" in block.__dict__ for block in block_list(model))


@pytest.mark.parametrize("direction", ["spliced_original", "original_spliced"])
def test_scores_of_several_are_those_of_each(direction):
    random = generator(0, "several")
    head = Head(torch.randn(301, 16, generator=random), None, 1.0, 5.0)
    original, *several = torch.randn(4, 23, 16, generator=random)
    targets = torch.randint(301, (23,), generator=random)
    for chunk in (7 * 301, 2**24):
        together = scores_of_several(several, original, targets, head, direction, chunk=chunk)
        for states, found in zip(several, together, strict=True):
            alone = token_scores(states, original, targets, head, direction, chunk=chunk)
            assert all(map(torch.equal, found, alone))
            assert alone[0].min() > 0.1
