"""What a study costs, worked out by hand for a tiny one, and what is refused."""

import math
import shutil
from types import SimpleNamespace

import pytest

from lorascope.errors import InputError
from lorascope.workflows import plan as plan_module
from lorascope.workflows.plan import plan, refuse_what_cannot_fit
from lorascope.workflows.study import AuditStudy

D, LATENTS = 32, 64


@pytest.fixture
def cost(study):
    return plan(study)


def test_numbers_of_the_tiny_study(cost, finished_run):
    from lorascope.runs import read_json

    assert (cost.parameters, cost.d_model, cost.blocks) == (27360, D, 3)
    assert (cost.adapters, cost.sites, cost.documents) == (2, 1, 120)
    assert cost.adapter_steps == 2 * 5
    assert cost.dictionaries == 2 + 2 * (2 + 1)
    assert cost.dictionary_steps == math.ceil(cost.probe_tokens / 128)
    # The plan takes all documents of the adapters' half for seen; some are only measured on.
    held_out = read_json(finished_run / "activations" / "held_out" / "manifest.json")["rows"]
    assert 0 < cost.held_out_tokens <= held_out
    tokens = cost.probe_tokens + cost.held_out_tokens
    activations = tokens * (3 * D * 2 + 25)  # base and two adapters in bfloat16; token fields
    dictionaries = 8 * 4 * (2 * D * LATENTS + D + LATENTS)
    assert cost.disk == activations + dictionaries
    texts = dict(cost.lines())
    assert texts["adapters × sites"] == "2 × 1"
    assert texts["dictionaries"].startswith("8 of ")


def test_planned_disk_is_what_the_run_takes(cost, finished_run):
    written = sum(
        file.stat().st_size
        for part in ("activations", "dictionaries")
        for file in (finished_run / part).rglob("*.safetensors")
    )
    assert cost.disk == pytest.approx(written, rel=0.35)


def test_more_of_anything_costs_more(settings, records, tmp_path):
    def of(**sections):
        return plan(AuditStudy.parse(settings(adapters={"a": "x"}, **sections), "test"))

    once = of()
    twice = of(sites=["layers.1", "layers.2"])
    assert twice.disk > once.disk
    assert twice.flops > once.flops
    assert of(dictionaries={"architecture": {"n_latents": 4096}}).memory > once.memory
    assert of(capture={"store": "float32"}).disk > once.disk


def test_disk_that_is_not_there_is_refused(cost, study, run, tmp_path, monkeypatch):
    free = cost.disk - 1
    monkeypatch.setattr(plan_module.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(InputError, match=r"new: the study needs .* of disk and .* are free; use"):
        refuse_what_cannot_fit(cost, tmp_path / "new")
    # What the run has written already need not be written again.
    refuse_what_cannot_fit(cost, run)
    shutil.rmtree(run)
    with pytest.raises(InputError, match="of disk"):
        refuse_what_cannot_fit(cost, run)


def test_memory_that_is_not_there_is_refused(cost, tmp_path, monkeypatch):
    monkeypatch.setattr(plan_module.os, "sysconf", lambda name: 1000)
    with pytest.raises(InputError, match=r"of memory and this machine has 1 MB; use a smaller"):
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
        ({"dictionaries": {"fitting": {"batch": 5000}}}, r"set dictionaries\.fitting\.batch="),
        ({"texts": {"documents": 20}, "dictionaries": {"fitting": {"batch": 8}}}, "10 documents"),
        ({"model": "/no/such/model"}, 'model "/no/such/model": its configuration cannot be read'),
    ],
)
def test_what_cannot_be_done_is_refused_before_weights_are_loaded(settings, sections, match):
    plain = settings(adapters={"a": "x"}, **sections)
    with pytest.raises(InputError, match=match):
        plan(AuditStudy.parse(plain, "test"))
