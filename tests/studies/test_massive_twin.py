"""A model with a massive coordinate and its twin without compute the same, and are judged alike.

RMSNorm divides by √(mean x² + ε). A coordinate that is c at every token adds c²/d to the mean
square: with ε less by that much, and a norm weight of 0 there, nothing downstream can tell.
"""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lorascope.measures.definitions import declared
from lorascope.measures.massive import judged_without
from lorascope.measures.null_draws import beside_draws
from lorascope.measures.yardsticks import without_verdicts
from lorascope.results import Estimates
from lorascope.stages import Graph, make
from lorascope.studies.audit.massive import audit_without
from lorascope.studies.audit.state import Audited
from lorascope.studies.audit.study import AuditStudy
from lorascope.studies.audit.workflow import stages
from lorascope.studies.audit.yardsticks import judge_dictionaries, massive_at
from lorascope.workflows.measured import Measured

D, COORDINATE, SIZE = 32, 7, 60.0
MADE = (
    "matching",
    "sanity_checks",
    "activations",
    "dictionaries",
    "yardsticks",
    "measures",
    "massive",
)
MADE = (*MADE, "written", "recovered")


@pytest.fixture(scope="module")
def twins(tiny_model, tiny_checkpoint, tmp_path_factory):
    """{name: checkpoint}: "plain", and "massive" with 60 in coordinate 7 of every token."""
    folder, found = tmp_path_factory.mktemp("twins"), {}
    square, tokenizer = SIZE**2 / D, AutoTokenizer.from_pretrained(tiny_checkpoint("llama"))
    for name, constant in (("plain", 0.0), ("massive", SIZE)):
        model = tiny_model("llama", rms_norm_eps=1.0 + square - constant**2 / D)
        with torch.no_grad():
            model.model.embed_tokens.weight *= 8
            model.model.embed_tokens.weight[:, COORDINATE] = constant
            model.lm_head.weight[:, COORDINATE] = 0.0
            norms = [model.model.norm]
            for block in model.model.layers:
                norms += [block.input_layernorm, block.post_attention_layernorm]
                for writer in (block.self_attn.o_proj, block.mlp.down_proj):
                    writer.weight[COORDINATE] = 0.0
            for norm in norms:
                # As large as after a norm that does divide by the stream's own size.
                norm.weight *= square**0.5
                norm.weight[COORDINATE] = 0.0
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        found[name] = folder / name
    return found


@torch.no_grad()
def test_the_twins_compute_the_same(twins):
    ids = torch.randint(3, 60, (4, 20), generator=torch.Generator().manual_seed(0))
    outputs = {}
    for name, path in twins.items():
        model = AutoModelForCausalLM.from_pretrained(path)
        outputs[name] = model(ids, output_hidden_states=True)
    plain, massive = outputs["plain"], outputs["massive"]
    torch.testing.assert_close(massive.logits, plain.logits, atol=1e-4, rtol=1e-3)
    assert plain.logits.std() > 0.3
    for here, there in zip(massive.hidden_states[:-1], plain.hidden_states[:-1], strict=True):
        assert (here[..., COORDINATE] == SIZE).all()
        assert (there[..., COORDINATE] == 0).all()
        others = [i for i in range(D) if i != COORDINATE]
        torch.testing.assert_close(here[..., others], there[..., others], atol=1e-4, rtol=1e-3)


@pytest.fixture(scope="module")
def runs(twins, settings, save_adapter, quiet, tmp_path_factory):
    """{name: (state, audit)} of both, with every dictionary trained."""
    folder = tmp_path_factory.mktemp("audits")
    adapter = save_adapter(folder / "adapter", target_modules=["q_proj", "up_proj"])
    found = {}
    for name, path in twins.items():
        sections = {
            "adapters": {"a": str(adapter)},
            "controls": {"null_adapters": 2, "gaussian_dictionaries": 2},
            "dictionaries": {
                "seeds": [0, 1],
                "controls": [],
                "architecture": {"n_latents": 64, "l1": 0.1},
                "fitting": {"epochs": 12, "batch": 64, "products": "float32"},
            },
            "measures": {"angles_k": [8], "rows": 500, "repeats": 3, "effect_tokens": 512},
        }
        study = AuditStudy.parse(settings(model=str(path), **sections), name)
        state = Audited(study, folder / name, quiet)
        graph = Graph(stages(state))
        for unit in graph.units:
            if unit[0].name.partition("/")[0] in MADE:
                make(graph, state.folder, unit, state, quiet)
        found[name] = state, state.audit(study, 0)
    return found


@pytest.fixture(scope="module")
def yardsticks(runs):
    return {name: judge_dictionaries(*both) for name, both in runs.items()}


def test_the_coordinate_is_found_and_named(yardsticks, runs):
    assert yardsticks["plain"].massive == {"layers.1": {"coordinates": [], "directions": []}}
    [only] = yardsticks["massive"].massive["layers.1"]["coordinates"]
    assert (only["coordinate"], only["share"] > 0.5) == (COORDINATE, True)
    for name in runs:
        [share] = [e for e in yardsticks[name].measured.estimates if e.measure == "massive.share"]
        assert (share.value > 0) == (name == "massive")
    for key in runs["massive"][1].learned.folders:
        dictionary = runs["massive"][1].learned.open(key)
        assert dictionary.card.massive == ([COORDINATE] if key.target == "base" else [])


def test_moments_without_what_is_massive_are_not_those_with_it(runs):
    _, whole = runs["massive"]
    massive = massive_at(whole, "layers.1")
    assert massive
    # Constant over tokens, the coordinate stands in the mean alone.
    mean, covariance = whole.probe.moments("layers.1", "base")
    without = audit_without(whole, {"layers.1": massive})
    found, _ = without.probe.moments("layers.1", "base")
    assert mean[COORDINATE].abs() > 10
    assert found[COORDINATE].abs() < 1e-4
    assert torch.equal(without.probe.load("layers.1", "base").double().mean(0).float(), found)
    assert whole.probe.moments("layers.1", "base")[1] is covariance


def test_every_dictionary_has_its_yardsticks(yardsticks, runs):
    for name, (_, whole) in runs.items():
        verdicts = yardsticks[name].verdicts
        assert len(verdicts) == len(whole.learned.folders) == 2 + 2 + 2 + 2
        labels = [(v.dictionary, v.adapter, v.null, v.draw, v.seed) for v in verdicts]
        assert len(set(labels)) == len(labels)
        table = Estimates(yardsticks[name].measured.estimates)
        for number in ("yardstick.fvu", "yardstick.l0", "yardstick.live_share"):
            assert len(table.select(number)) == 4
            assert len(table.select(number, draw=[0, 1])) == 4
        assert {e.key.dictionary for e in table.taken("yardstick.loss_recovered")} <= {"base"}


def fvu(found):
    """{place: FVU}, without what is massive where something is."""
    table = [e for e in found.measured.estimates if e.measure == "yardstick.fvu"]
    apart = {replace(e.key, massive="") for e in table if e.key.massive}
    return {
        replace(e.key, massive=""): e.value for e in table if e.key.massive or e.key not in apart
    }


def test_both_are_worth_the_same(yardsticks):
    plain, massive = fvu(yardsticks["plain"]), fvu(yardsticks["massive"])
    assert set(plain) == set(massive)
    for key, value in massive.items():
        assert value == pytest.approx(plain[key], abs=0.02), str(key)
    passed = {name: [v.passed for v in found.verdicts] for name, found in yardsticks.items()}
    assert passed["plain"] == passed["massive"]


def test_verdicts_are_the_twin_s(runs, yardsticks, quiet):
    found = {}
    for name, (state, _) in runs.items():
        numbers = Measured()
        for stage in ("measures/layers.1", "massive/layers.1", "written/layers.1"):
            numbers.add(Measured.read(state.folder / stage))
        judged = judged_without([declared(e) for e in beside_draws(numbers.estimates)])
        found[name] = without_verdicts(judged, yardsticks[name].verdicts)
    plain = {(e.measure, e.key): e for e in found["plain"]}
    whole = {(e.measure, e.key): e for e in found["massive"] if not e.key.massive}
    apart = {(e.measure, replace(e.key, massive="")): e for e in found["massive"] if e.key.massive}
    assert set(plain) == set(apart)
    assert len(plain) > 150
    # One of them is judged, and it says what the twin says: rounding moves what lies on a bound.
    assert not any(e.judged for e in whole.values())
    both = {(e.verdict, plain[key].verdict) for key, e in apart.items()}
    assert not {("above", "below"), ("below", "above")} & both
    assert {("above", "above"), ("equal", "equal"), ("not settled", "not settled")} <= both
    same = [e.verdict == plain[key].verdict for key, e in apart.items()]
    assert sum(same) > 0.95 * len(same)
    # A base dictionary asked about a delta takes the missing constant for the delta.
    errors = [
        (key, e)
        for key, e in apart.items()
        if e.measure == "relative_error"
        and e.key.seed == 0
        and e.key.dictionary == "base"
        and e.key.draw is None
    ]
    [(key, error)] = errors
    assert error.value == pytest.approx(plain[key].value, rel=0.05)
    assert whole[key].value > 10 * error.value
