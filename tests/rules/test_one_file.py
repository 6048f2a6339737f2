"""A measure is one file and an experiment is one file: toys that nothing else knows of."""

import importlib.util
import sys

import pytest

from lorascope.config import Settings
from lorascope.measures import definitions
from lorascope.progress import Reporter
from lorascope.runners.local import run_here
from lorascope.runs import Run
from lorascope.stages import MAKERS, Graph

MEASURE = '''
"""Share of rows whose norm is above one."""

from lorascope.measures.definitions import Definition, define
from lorascope.results import Estimate, Key, Null
from lorascope.stats.intervals import wilson_interval

define(
    "toy.long",
    Definition("Long rows", "share", "#{|x| > 1}/n", "half", "rows", __name__, rivals=("half",)),
)


def long_rows(norms, place=Key()):
    count = sum(norm > 1 for norm in norms)
    interval = wilson_interval(count, len(norms))
    null = Null.exact("half", 0.5)
    return Estimate("toy.long", count / len(norms), interval, len(norms), "share", (null,), place)
'''

EXPERIMENT = '''
"""Doubles of numbers, then their sum."""

import json

from lorascope.stages import Stage, stage


@stage(version=1, title="doubling")
def double(work, *, number):
    (work.folder / "found.json").write_text(json.dumps(2 * number))


@stage(version=1, title="adding")
def add(work):
    parts = [json.loads((work.input(n) / "found.json").read_text()) for n in work.stage.inputs]
    (work.folder / "found.json").write_text(json.dumps(sum(parts)))


def stages(numbers):
    doubled = [Stage(f"doubled/{n}", double, {"number": n}) for n in numbers]
    yield from doubled
    yield Stage("sum", add, {}, tuple(one.name for one in doubled))
'''


@pytest.fixture
def load(tmp_path, monkeypatch):
    """`load(name, text)`: a module of that text; what it registers is forgotten afterwards."""
    monkeypatch.setattr(definitions, "DEFINITIONS", definitions.DEFINITIONS)
    known, made = dict(definitions.DEFINITIONS), dict(MAKERS)

    def one(name, text):
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    yield one
    for registered, before in ((definitions.DEFINITIONS, known), (MAKERS, made)):
        registered.clear()
        registered.update(before)


def test_a_measure_is_one_file(load):
    assert not definitions.definition_of("toy.long").unit.startswith("share")
    toy = load("toy_measure", MEASURE)
    found = definitions.declared(toy.long_rows([0.5, 2.0, 3.0, 4.0] * 20))
    assert found.value == 0.75
    assert found.rivals[0].name == "half"
    # The margin is the unit's; the verdict follows.
    assert found.margin == 0.05
    assert found.verdict == "above"
    assert definitions.definition_of("toy.long").title == "Long rows"
    with pytest.raises(ValueError, match="twice"):
        load("toy_again", MEASURE)


def test_an_experiment_is_one_file(load, tmp_path):
    toy = load("toy_experiment", EXPERIMENT)
    folder = tmp_path / "run"
    folder.mkdir()

    def go(numbers):
        graph = Graph(toy.stages(numbers))
        undone = [one.name for one in graph if not graph.is_done(folder, one.name)]
        run_here(graph, Run(folder, Settings()), None, Reporter(quiet=True))
        return undone, (folder / "sum" / "found.json").read_text()

    assert go([1, 2, 5]) == (["doubled/1", "doubled/2", "doubled/5", "sum"], "16")
    assert go([1, 2, 5]) == ([], "16")
    # Another number: its own stage, and the sum that reads it.
    assert go([1, 2, 4]) == (["doubled/4", "sum"], "14")
