"""What stages take follows from what the study is planned to take, and a pool keeps to it."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lorascope.machine import total_memory
from lorascope.progress import Reporter
from lorascope.runners import pool as pools
from lorascope.runners.pool import _Pool, as_many_as_fit, fitting_workers
from lorascope.stages import Graph, Need, Stage
from lorascope.studies.audit.learning import train
from lorascope.studies.opening import with_needs
from lorascope.workflows.cost import Cost, CostPart, resident
from lorascope.workflows.needs import stated


def part(name, memory):
    return CostPart(name, 1.0, memory, torch.float32, 0.5)


@pytest.mark.parametrize(("device", "gpus"), [("cpu", 0.0), ("cuda", 1.0)])
def test_a_stage_needs_what_its_part_of_the_plan_does(device, gpus):
    parts = (
        part("measures", 300),
        part("pursuit", 500),
        part("effects", 900),
        part("sanity checks", 40),
    )
    cost = Cost(disk=1, parts=parts, device=device)
    names = ("measures/layers.1", "effects/a", "sanity_checks", "results", "something/else")
    found = stated(Graph(Stage(name, train) for name in names), cost)
    needs = {one.name: one.need for one in found}
    base = resident(part("nothing", 0))
    assert needs["measures/layers.1"] == Need(500 + base, 0.0, 2.0)
    assert needs["effects/a"] == Need(900 + base, gpus, 1.0)
    assert needs["sanity_checks"] == Need(40 + base, gpus, 1.0)
    assert needs["results"].memory == base
    assert needs["something/else"].memory == 900 + base


def test_stages_of_a_kind_share_its_arithmetic():
    cost = Cost(disk=1, parts=(part("effects", 1), part("capture", 1)), device="cpu")
    found = stated(Graph(Stage(name, train) for name in ("effects/a", "effects/b", "x")), cost)
    assert [one.need.flops for one in found] == [0.5, 0.5, 0.0]


GB = 10**9


@pytest.mark.parametrize(
    ("processors", "memory", "need", "workers"),
    [
        (1, 64, Need(GB, 0.0, 1e14), 1),
        (2, 64, Need(GB, 0.0, 1e14), 2),
        (64, 64, Need(GB, 0.0, 1e14), 4),
        # Each has a gigabyte beside what it needs.
        (8, 7, Need(2 * GB, 0.0, 1e14), 2),
        (8, 1, Need(2 * GB, 0.0, 1e14), 1),
        # Starting processes takes longer than so little work, and a GPU is not shared.
        (8, 64, Need(GB, 0.0, 1e11), 1),
        (8, 64, Need(GB, 1.0, 1e14), 1),
    ],
)
def test_so_many_processes_begin_unasked(monkeypatch, tmp_path, processors, memory, need, workers):
    monkeypatch.setattr(pools, "processors", lambda: processors)
    monkeypatch.setattr(pools, "available_memory", lambda: memory * GB)
    graph = Graph([Stage("adapters/a", train, need=need), Stage("adapters/b", train)])
    assert fitting_workers(graph, tmp_path) == workers
    started = []
    monkeypatch.setattr(pools, "in_pool", lambda opener, *many: lambda *of: started.append(many))
    monkeypatch.setattr(pools, "run_here", lambda *of: started.append("here"))
    as_many_as_fit(lambda *_: None)(graph, SimpleNamespace(folder=tmp_path), None, Reporter(True))
    assert started == ["here" if workers == 1 else (workers, max(1, processors // workers))]


def test_every_stage_of_a_study_has_a_need(finished_run, quiet):
    from lorascope.studies.opening import open_study

    opened = open_study(finished_run, quiet)
    found = with_needs(finished_run, opened)
    assert found.keys == opened.graph.keys
    assert all(one.need.memory > 10**8 for one in found)


def test_a_pool_begins_what_its_memory_and_processes_allow():
    pool = _Pool(lambda *_: None, Path(), 3, 1, Reporter(quiet=True))
    half = (Stage("half", train, need=Need(total_memory() // 2 + 1)),)
    small = (Stage("small", train, need=Need(1)),)
    huge = (Stage("huge", train, need=Need(2 * total_memory())),)
    # Alone anything may try.
    assert pool.has_room(huge)
    pool._workers = [SimpleNamespace(unit=half)]
    assert pool.has_room(small)
    assert not pool.has_room(half)
    assert not pool.has_room(huge)
    pool._workers = [SimpleNamespace(unit=small)] * 3
    assert not pool.has_room(small)
