"""What a study costs, worked out by hand for a tiny one, and what is refused."""

import copy
import importlib.util
import math
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from lorascope.activations.text import read_documents
from lorascope.activations.tokens import count_tokens, windows
from lorascope.errors import InputError
from lorascope.models.load import read_tokenizer
from lorascope.models.shapes import Shape
from lorascope.studies.audit import costs
from lorascope.studies.audit import plan as plan_module
from lorascope.studies.audit.costs import StudyCounts
from lorascope.studies.audit.plan import plan
from lorascope.studies.audit.study import AuditStudy
from lorascope.training.architectures import BatchTopK, ReLU, TopK
from lorascope.workflows import cost as cost_module
from lorascope.workflows import sizes, speed
from lorascope.workflows.cost import CostPart, operations_a_row, refuse_what_cannot_fit
from lorascope.workflows.sizes import StudySizes, _tokens

D, LATENTS, BLOCK, HEAD = 32, 64, 7744, 2048


@pytest.fixture(scope="module")
def cost(study):
    return plan(study)


@pytest.fixture(scope="module")
def saved(save_adapter, tmp_path_factory):
    """{name: folder} of an adapter that fits the tiny model."""
    return {"a": str(save_adapter(tmp_path_factory.mktemp("a") / "a", target_modules=["q_proj"]))}


def test_numbers_of_the_tiny_study(cost, finished_run):
    from lorascope.runs import read_json

    assert (cost.parameters, cost.d_model, cost.blocks) == (27360, D, 3)
    assert (cost.adapters, cost.sites, cost.documents) == (2, 1, 120)
    assert cost.adapter_steps == 2 * 5
    # Base of two seeds; of each adapter a delta of two seeds, two controls, two of Gaussian rows
    # and one of each null adapter; two of the ablation.
    assert cost.dictionaries == 2 + 2 * (2 + 2 + 2 + 2) + 2
    assert cost.dictionary_steps == math.ceil(cost.probe_tokens / 128)
    # The plan takes all documents of the adapters' half for seen; some are only measured on.
    held_out = read_json(finished_run / "activations" / "held_out" / "manifest.json")["rows"]
    assert 0 < cost.held_out_tokens <= held_out
    tokens = cost.probe_tokens + cost.held_out_tokens
    # Base, two adapters and two null adapters of each in bfloat16; token fields.
    activations = tokens * (7 * D * 2 + 25)
    # 20 dictionaries, and while two are trained the checkpoint of each with two moments.
    dictionaries = (20 + 2 * 3) * 4 * (2 * D * LATENTS + D + LATENTS)
    adapters = (2 + 4) * 4 * 1392  # ranks 2 and 4
    assert cost.disk == activations + dictionaries + adapters
    texts = dict(cost.lines())
    assert texts["adapters × sites"] == "2 × 1"
    assert texts["dictionaries"].startswith("20 of ")
    assert "estimated" not in "".join(texts.values())


def test_arithmetic_of_the_tiny_study_by_hand(cost):
    flops = {part.name: part.flops for part in cost.parts}
    tokens = cost.probe_tokens + cost.held_out_tokens
    # Base, two adapters and four null adapters through two of three blocks.
    assert flops["capture"] == 2 * (2 * BLOCK) * tokens * 7
    # Five products of two operations a row, in batches of 128; the ablation's two for two epochs.
    steps = 18 * cost.dictionary_steps + 2 * math.ceil(2 * cost.probe_tokens / 128)
    assert flops["dictionary training"] == 10 * D * LATENTS * 128 * steps
    assert cost.flops == sum(flops.values())


def test_sanity_checks_matching_and_the_first_look_by_hand(settings, tiny_model):
    plain = settings(adapters={"a": "x", "b": "y"}, measures={"samples": 3})
    study, shape = AuditStudy.parse(plain, "test"), Shape.of(tiny_model("llama").config)
    found = StudySizes(0, probe_tokens=1000, held_out_tokens=500, held_out_documents=20)
    counts = StudyCounts(adapters=2, sites=1, deepest=2, trained=12, controls=6, nulls=4)
    whole, before, window = 3 * BLOCK + HEAD, 2 * BLOCK, 25
    # Held-out texts through the third block and the head; eight windows through everything; sixteen
    # as far as the site, together, one by one, and in float64 at half the speed.
    part = costs.sanity_checks(study, shape, found, counts, torch.float32, 0)
    checked = 2 * (whole - before) * 500 * 7 + 2 * whole * 8 * window * 7
    assert part.flops == pytest.approx(checked + 2 * before * 16 * window * 4)
    # Base and two adapters once, four null adapters three times, on sixteen documents.
    part = costs.matching(study, shape, found, counts, torch.float32)
    assert part.flops == 2 * before * 16 * window * (1 + 2 + 3 * 4)
    # Ten prompts as dear as sixteen, and three samples as dear each, under base and two adapters.
    part = costs.first_look(study, shape, counts, torch.float32)
    assert part.flops == 2 * whole * 3 * (24 * 16 + 3 * 60 * 16)


def test_reading_by_hand(settings, tiny_model):
    read = {"tokens": 5, "documents": 3, "context": 20}
    study = AuditStudy.parse(settings(adapters={"a": "x", "b": "y"}, reading=read), "test")
    shape = Shape.of(tiny_model("llama").config)
    counts = StudyCounts(adapters=2, sites=1, deepest=2, trained=12, controls=6, nulls=4)
    part = costs.reading(study, shape, counts, torch.float32, 0)
    # Of two adapters and two null adapters each, beside the base: twenty prompts at two strengths,
    # and sixty tokens of text; of the adapters 38 times twenty prompts more.
    whole = 2 * (3 * BLOCK + HEAD)
    assert part.flops == whole * 2 * 2 * (3 * (20 * 2 * 5 + 60) + 38 * 20 * 5)
    read["carriers"] = False
    without = AuditStudy.parse(settings(adapters={"a": "x", "b": "y"}, reading=read), "test")
    few = costs.reading(without, shape, counts, torch.float32, 0)
    assert few.flops == whole * 2 * 2 * 3 * (20 * 2 * 5 + 60)
    # Weights, and what gradients of twenty continuations go through; without these five
    # distributions over 64 tokens for each of the sixty; or what capture holds.
    kept = 3 * (16 * D + 4 * 48) + 3 * 64
    assert part.memory == 4 * 27360 + 4 * 20 * (5 + 30) * kept
    assert few.memory == 4 * 27360 + 4 * 5 * 60 * 64
    assert costs.reading(study, shape, counts, torch.float32, 10**9).memory == 10**9


def test_null_adapters_that_keep_their_spectrum_are_not_matched(settings, saved):
    parts = {}
    for match in ("delta norm", "spectrum"):
        plain = settings(adapters=saved, controls={"match": match})
        parts[match] = {part.name for part in plan(AuditStudy.parse(plain, "test")).parts}
    assert parts["delta norm"] - parts["spectrum"] == {"matching"}


def test_adapter_training_by_hand(study, tiny_model):
    shape = Shape.of(tiny_model("llama").config)
    found = StudySizes(0, 0, 0, 0, records=100, record_tokens=20.0, padded_tokens=30.0)
    part = costs.adapter_training(study, shape, found, torch.float32, torch.bfloat16)
    # 2 ranks × 5 steps × 8 records of 30 tokens, 4 operations a parameter; 30 % of 100 records
    # of 20 tokens, measured once before and once after each rank, 2 operations a parameter.
    assert part.flops == (3 * BLOCK + HEAD) * (4 * 2 * 5 * 8 * 30 + 2 * 3 * 0.3 * 100 * 20)
    batch = 8 * 64  # records of at most 64 tokens
    kept = 3 * (16 * D + 4 * 48 + 6 * 4 * 64)
    assert part.memory == 27360 * 4 + 4 * 4 * 4 * 1392 + batch * (kept + 3 * 64) * 4


def test_measures_by_hand(settings):
    # Two adapters at one site whose base dictionary is brought, one seed, one dictionary pair each.
    plain = settings(adapters={"a": "x", "b": "y"}, dictionaries={"seeds": [0]})
    plain["dictionaries"]["base"] = {"layers.1": "somewhere"}
    plain["measures"] = {"rows": 200, "repeats": 3}
    counts = StudyCounts(adapters=2, sites=1, deepest=2, trained=12, controls=6, nulls=4)
    found = StudySizes(0, probe_tokens=1000, held_out_tokens=500, held_out_documents=20)
    part = costs.measures(AuditStudy.parse(plain, "test"), D, found, counts)
    through = 4 * D * LATENTS * (8 * 200 + 3 * 5 * 200)
    cosines = 2 * D * LATENTS * LATENTS * (1 + 4 * 3)
    angles = (1 + 4 * 3) * (2 * D * D * LATENTS + 10 * D**3)
    similar = 12 * D * D * 200
    # Four null adapters and six dictionaries trained on what a delta was turned into, once each.
    once = 4 * D * LATENTS * 8 * 200 + 2 * D * LATENTS * LATENTS + 2 * D * D * LATENTS + 10 * D**3
    assert part.flops == 2 * (through + similar + cosines + angles) + 10 * (once + similar)


def test_pursuit_effects_and_weights_by_hand(settings, tiny_model):
    made = {"architecture": "topk", "n_latents": LATENTS, "k": 5}
    plain = settings(adapters={"a": "x", "b": "y"}, dictionaries={"architecture": made})
    plain["measures"] = {"effect_tokens": 256, "latents": 3}
    study, shape = AuditStudy.parse(plain, "test"), Shape.of(tiny_model("llama").config)
    found = StudySizes(0, probe_tokens=1000, held_out_tokens=500, held_out_documents=20)
    counts = StudyCounts(adapters=2, sites=1, deepest=2, trained=12, controls=6, nulls=4)
    # Two dictionaries, each once and under two nulls of five draws; once the two of each null
    # adapter and each dictionary trained on what a delta was turned into.
    searches = 22 * 2 + 2 * 4 + 6
    assert costs.pursued(study, D, found, counts).flops == 2 * D * LATENTS * 5 * 500 * searches
    part = costs.effects(study, shape, found, counts, torch.float32, 0)
    whole, behind = 2 * (3 * BLOCK + HEAD), 2 * (3 * BLOCK * (1 - 2 / 6) + HEAD)
    # 29 spliced passes a site, two of them through dictionaries trained on Gaussian rows; three
    # latents removed and added, then 83 latents in six tenths of the windows.
    passes = 4 * whole * 256 + behind * 256 * (29 + 2 * 3 + 1.2 * 83)
    # A null adapter's own four, and as many through its dictionaries, without nulls.
    of_null = 3 * whole * 256 + behind * 256 * 4
    assert part.flops == pytest.approx(2 * passes + 4 * of_null)
    assert costs.weights(shape, counts).flops == pytest.approx(10 * 3 * BLOCK * D * 1.4)


@pytest.mark.parametrize(
    ("made", "device", "expected"),
    [
        (ReLU(n_latents=1024), "cpu", 10 * D * 1024),
        (TopK(n_latents=1024, k=64), "cpu", 2 * D * 1024 + 8 * D * 64),
        (TopK(n_latents=1024, k=512), "cpu", 10 * D * 1024),
        (BatchTopK(n_latents=1024, k=8), "cpu", 2 * D * 1024 + 8 * D * 8),
        (BatchTopK(n_latents=1024, k=8), "cuda", 10 * D * 1024),
    ],
)
def test_few_latents_cost_less_where_products_are_sparse(made, device, expected):
    assert operations_a_row(made, D, device)[0] == expected


def test_time_from_speed_by_hand(cost, monkeypatch):
    part = CostPart("x", flops=6e9, memory=0, dtype=torch.float32, reached=0.3, fixed=1.5)
    assert part.seconds(1e10) == pytest.approx(1.5 + 2.0)
    monkeypatch.setattr(cost_module, "product_speed", lambda device, dtype: 1e10)
    seconds = cost.seconds()
    (capture,) = (p for p in cost.parts if p.name == "capture")
    assert seconds["capture"] == pytest.approx(capture.flops / (0.5 * 32 / 160 * 1e10))
    # A thousandth of a second and a bit for each step of each of eighteen dictionaries.
    assert seconds["dictionary training"] > 18 * cost.dictionary_steps * 0.0013


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_speed_is_of_this_device(dtype, monkeypatch):
    monkeypatch.setattr(speed, "_SECONDS", 0.0)
    speed.product_speed.cache_clear()
    assert 1e8 < speed.product_speed("cpu", dtype) < 1e14


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (5.04, "5 s"),
        (99, "99 s"),
        (99.7, "1.7 min"),
        (99.7 * 60, "1.7 h"),
        (150, "2.5 min"),
        (7200, "2 h"),
        (864000, "10 days"),
    ],
)
def test_times_as_people_say_them(seconds, text):
    assert cost_module._time(seconds) == text


def test_longest_of_a_batch_by_hand():
    # Of two draws from 1, 2, 3 the larger is 1, 2, 3 in 1, 3, 5 of nine cases.
    assert sizes._longest([1.0, 2.0, 3.0], 2) == pytest.approx((1 + 2 * 3 + 3 * 5) / 9)


ALPACA = "tatsu-lab/alpaca"


@pytest.mark.parametrize(
    ("texts", "learned", "share", "probe", "held_out"),
    [
        ({"sources": [f"{ALPACA}:train[:1000]"]}, "train[2000:]", 0.5, 800, 200),
        ({"sources": [f"{ALPACA}:train[:1000]"]}, "train[600:]", 0.5, 640, 160),
        ({"sources": [f"{ALPACA}:train[:1000]"], "keep_seen": True}, "train[600:]", 1, 800, 120),
        (
            {"sources": [f"{ALPACA}:train[:1000]"], "measure_on": [f"{ALPACA}:train[900:1100]"]},
            "train[2000:]",
            1,
            900,
            200,
        ),
        ({"sources": [f"{ALPACA}:train[:1000]"], "documents": 500}, "train[2000:]", 1, 400, 100),
        (
            {
                "sources": [ALPACA],
                "balance": {"categories": ["coding", "factual"], "probe": 90, "held_out": 30},
            },
            "train[:9]",
            1,
            180,
            60,
        ),
    ],
)
def test_estimates_by_hand(settings, texts, learned, share, probe, held_out):
    train = {"records": [f"{ALPACA}:{learned}"], "share": share}
    plain = settings(train=train)
    plain["texts"] = texts
    cost = plan(AuditStudy.parse(plain, "test"))
    each = 540 / 4.4
    assert cost.probe_tokens == pytest.approx(probe * each, abs=1)
    assert cost.held_out_tokens == pytest.approx(held_out * each, abs=1)
    assert cost.notes == (
        f"{ALPACA} is not at hand: rows and mean length as published, 4.4 characters a token",
    )


def test_texts_at_hand_are_counted_even_for_a_model_that_is_not(settings, saved):
    plain = settings(adapters=saved, model="EleutherAI/pythia-70m-deduped")
    cost = plan(AuditStudy.parse(plain, "test"))
    assert cost.documents == 120
    assert cost.notes == (
        "EleutherAI/pythia-70m-deduped is not at hand: its shape as published",
        "4.4 characters a token",
        "adapters not looked at: a",
    )


def test_a_run_takes_no_estimate(settings, saved):
    plain = settings(adapters=saved, model="EleutherAI/pythia-70m-deduped")
    with pytest.raises(InputError, match='pythia-70m-deduped" cannot be loaded'):
        plan(AuditStudy.parse(plain, "test"), estimates=False)
    plain = settings(adapters=saved)
    plain["texts"] = {"sources": [ALPACA]}
    with pytest.raises(InputError, match="tatsu-lab/alpaca: neither a file here nor a dataset"):
        plan(AuditStudy.parse(plain, "test"), estimates=False)


def test_planned_disk_is_what_the_run_takes(cost, finished_run):
    written = sum(
        file.stat().st_size
        for part in ("activations", "dictionaries")
        for file in (finished_run / part).rglob("*.safetensors")
    )
    assert cost.disk == pytest.approx(written, rel=0.35)


def test_more_of_anything_costs_more(settings, saved):
    def of(**sections):
        return plan(AuditStudy.parse(settings(adapters=saved, **sections), "test"))

    once = of()
    twice = of(sites=["layers.1", "layers.2"])
    assert twice.disk > once.disk
    assert twice.flops > once.flops
    assert of(dictionaries={"architecture": {"n_latents": 4096}}).memory > once.memory
    assert of(capture={"store": "float32"}).disk > once.disk


def test_disk_that_is_not_there_is_refused(cost, study, run, tmp_path, monkeypatch):
    free = cost.disk - 1
    monkeypatch.setattr(cost_module.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(InputError, match=r"new: the study needs .* of disk and .* are free; use"):
        refuse_what_cannot_fit(cost, tmp_path / "new")
    # What the run has written already need not be written again.
    refuse_what_cannot_fit(cost, run)
    shutil.rmtree(run)
    with pytest.raises(InputError, match="of disk"):
        refuse_what_cannot_fit(cost, run)


def test_an_address_that_saelens_does_not_list_is_refused(settings, saved):
    if importlib.util.find_spec("sae_lens") is None:
        pytest.skip("SAELens, whose list is read, is not installed")
    address = "saelens:gemma-scope-2b-pt-res-canonical/layer_1/width_16k/canonica"
    plain = settings(adapters=saved, dictionaries={"base": {"layers.1": address}})
    with pytest.raises(InputError, match=r'has no id .* Did you mean "layer_1.*canonical"'):
        plan(AuditStudy.parse(plain, "test"))


def test_memory_that_is_not_there_is_refused(cost, tmp_path, monkeypatch):
    monkeypatch.setattr(cost_module, "total_memory", lambda: 10**6)
    with pytest.raises(InputError, match=r"of memory in .* and this machine has 1 MB; lower "):
        refuse_what_cannot_fit(cost, tmp_path)


@pytest.mark.parametrize(
    ("sections", "match"),
    [
        ({"sites": ["layers.3"]}, r"has 3 blocks, so sites go from layers\.0 to layers\.2"),
        ({"sites": ["lm_head"]}, 'site "lm_head" is not the output of a block'),
        (
            {"dictionaries": {"base": {"layer.1": "somewhere"}}},
            r'dictionaries\.base: "layer\.1" is none of the sites .*Did you mean "layers\.1"',
        ),
        ({"texts": {"documents": 20}, "dictionaries": {"fitting": {"batch": 8}}}, "10 documents"),
        (
            {"texts": {"sources": [f"{ALPACA}:train[:10"]}},
            "expected one stretch of the 52,002 rows",
        ),
        ({"texts": {"sources": [f"{ALPACA}:test"]}}, "expected one stretch of the 52,002 rows"),
        ({"texts": {"sources": ["some/dataset"]}}, "some/dataset: neither a file here nor a"),
        ({"model": "/no/such/model"}, 'model folder "/no/such/model" does not exist'),
        ({"adapters": {"a": "/no/such/adapter"}}, 'folder "/no/such/adapter" does not exist'),
    ],
)
def test_what_cannot_be_done_is_refused_before_weights_are_loaded(settings, saved, sections, match):
    plain = settings(**{"adapters": saved, **sections})
    with pytest.raises(InputError, match=match):
        plan(AuditStudy.parse(plain, "test"))


def test_the_texts_come_before_the_batch_and_each_advice_suffices(settings, saved):
    study = AuditStudy.parse(settings(adapters=saved), "test")
    require = plan_module.require_tokens
    need = plan_module.LEAST_TOKENS
    require(study, need, 500, 10)
    for probe, held_out, documents in ((need - 1, 499, 10), (need - 1, 500, 9), (need, 499, 10)):
        with pytest.raises(InputError, match="to measure on"):
            require(study, probe, held_out, documents)
    with pytest.raises(InputError, match=r"leave 499 tokens to train .* at least 500: give more"):
        require(study, need - 1, 500, 10)
    # As few as four batches of the settings are enough.
    plain = study.plain()
    plain["dictionaries"]["fitting"]["batch"] = 100
    require(AuditStudy.parse(plain, "test"), 400, 500, 10)


def test_few_texts_are_trained_on_in_smaller_batches_and_said_to_be(settings, saved):
    plain = settings(adapters=saved)
    plain["dictionaries"]["fitting"]["batch"] = 512
    study = AuditStudy.parse(plain, "test")
    found = plan(study)
    assert 500 <= found.probe_tokens < 4 * 512
    batch = found.probe_tokens // 4
    assert found.dictionary_steps == math.ceil(found.probe_tokens / batch)
    (caution,) = found.cautions
    assert f"{batch} in place of 512 rows" in caution
    smaller = copy.deepcopy(plain)
    smaller["dictionaries"]["fitting"]["batch"] = batch
    same = plan(AuditStudy.parse(smaller, "test"))
    assert replace(found, cautions=()) == same
    assert same.cautions == ()


def test_tokens_of_many_texts_follow_from_the_first(monkeypatch):
    tokenizer = read_tokenizer("embedded")
    documents = read_documents("embedded", 300)
    whole = _tokens(documents, tokenizer, 128)
    assert whole == count_tokens(windows(documents, tokenizer, 128), tokenizer)
    monkeypatch.setattr(sizes, "COUNTED", sum(len(d.text) for d in documents) // 4)
    seen = []
    monkeypatch.setattr(
        sizes, "windows", lambda some, *_: seen.append(len(some)) or windows(some, *_)
    )
    assert _tokens(documents, tokenizer, 128) == pytest.approx(whole, rel=0.1)
    assert 0 < seen[0] < 150
    # Longer than what is counted, the first text alone tells of the rest.
    monkeypatch.setattr(sizes, "COUNTED", 1)
    assert _tokens(documents, tokenizer, 128) > 0
    assert seen[1] == 1
