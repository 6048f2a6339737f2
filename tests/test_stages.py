"""Stages: keys follow from what decides them, what is finished stays, what fails leaves nothing."""

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from lorascope import stages
from lorascope.config import Settings, Subset
from lorascope.errors import InputError
from lorascope.progress import Reporter
from lorascope.runners.driving import StagesError
from lorascope.runners.local import run_here
from lorascope.runners.pool import in_pool
from lorascope.runs import Run
from lorascope.stages import MAKERS, Graph, Stage, drop_others, make, record_of, stage

QUIET = Reporter(quiet=True)


class Inner(Settings):
    rows: int = 8
    names: tuple[str, ...] = ("a",)


class Study(Settings):
    name: str = "one"
    measures: Inner = Inner()
    seed: int = 3

    @property
    def doubled(self) -> int:
        return 2 * self.measures.rows

    def plus(self, other: int) -> int:
        return self.seed + other


@stage(version=1, title="numbers")
def number(work, *, value):
    (work.folder / "n.txt").write_text(str(value))


@stage(version=1, title="sums")
def add(work, *, plus):
    work.state.append(work.stage.name)
    with work.reporter.bar("adding", 2, "numbers") as advance:
        parts = [int((work.input(name) / "n.txt").read_text()) for name in work.stage.inputs]
        advance(2)
    (work.folder / "n.txt").write_text(str(sum(parts) + plus))


@stage(version=1, title="refusals")
def refuse(work, *, how):
    (work.folder / "half.txt").write_text("half")
    if how == "input":
        raise InputError("there is nothing to add; give something")
    if how == "killed":
        os.kill(os.getpid(), 9)
    raise ZeroDivisionError("nothing to divide by")


@stage(version=1, title="groups", together=True)
def together(works):
    for work in works:
        (work.folder / "n.txt").write_text(f"{work.stage.arguments['value']} of {len(works)}")


def graph_of(one=1, two=2, plus=0):
    return Graph(
        [
            Stage("n/one", number, {"value": one}),
            Stage("n/two", number, {"value": two}),
            Stage("sum", add, {"plus": plus}, ("n/one", "n/two")),
            Stage("g/a", together, {"value": "a"}, ("sum",), group="g"),
            Stage("g/b", together, {"value": "b"}, ("sum",), group="g"),
        ]
    )


def broken(how):
    return Graph(
        [
            Stage("n/one", number, {"value": 1}),
            Stage("bad", refuse, {"how": how}),
            Stage("after", add, {"plus": 0}, ("bad",)),
            Stage("sum", add, {"plus": 5}, ("n/one",)),
        ]
    )


@dataclass(frozen=True)
class Opened:
    graph: Graph
    state: list


def open_whole(folder, reporter):
    return Opened(graph_of(), [])


def open_refused(folder, reporter):
    return Opened(broken("input"), [])


def open_killed(folder, reporter):
    return Opened(broken("killed"), [])


def open_divided(folder, reporter):
    return Opened(broken("divided"), [])


def run(folder, graph, runner=run_here):
    state = []
    runner(graph, Run(folder, Study()), state, QUIET)
    return state


def inodes(folder, graph):
    return {name: (folder / name).stat().st_ino for name in graph.stages}


def test_stages_are_made_once_in_order_and_their_groups_at_once(tmp_path):
    assert run(tmp_path / "run", graph_of()) == ["sum"]
    folder = tmp_path / "run"
    assert (folder / "sum" / "n.txt").read_text() == "3"
    assert (folder / "g" / "b" / "n.txt").read_text() == "b of 2"
    before = inodes(folder, graph_of())
    assert run(folder, graph_of()) == []
    assert inodes(folder, graph_of()) == before
    assert not list(folder.rglob("*.partial"))


def test_what_decides_a_stage_makes_it_and_all_that_read_it_again(tmp_path):
    folder = tmp_path / "run"
    run(folder, graph_of())
    before = inodes(folder, graph_of())

    def redone(graph):
        run(folder, graph)
        after = inodes(folder, graph)
        found = {name for name in before if before[name] != after[name]}
        before.update(after)
        return found

    assert redone(graph_of(plus=4)) == {"sum", "g/a", "g/b"}
    assert redone(graph_of(two=7, plus=4)) == {"n/two", "sum", "g/a", "g/b"}
    assert (folder / "sum" / "n.txt").read_text() == "12"


def test_another_version_of_a_maker_gives_another_key():
    raised = Graph(
        Stage(one.name, number if one.maker is number else one.maker, one.arguments, one.inputs)
        for one in graph_of()
    )
    assert raised.keys["sum"] == graph_of().keys["sum"]
    newer = type(number)(number.function, 2, number.title)
    stages = [Stage(s.name, newer, s.arguments) for s in graph_of() if s.maker is number]
    changed = Graph([*stages, *(s for s in graph_of() if s.maker is not number)])
    assert all(changed.keys[name] != graph_of().keys[name] for name in changed.stages)


def test_the_record_says_what_made_a_stage(tmp_path):
    run(tmp_path, graph_of())
    record = record_of(tmp_path / "sum")
    graph = graph_of()
    assert record["key"] == graph.keys["sum"]
    assert record["inputs"] == {name: graph.keys[name] for name in ("n/one", "n/two")}
    assert record["arguments"] == {"plus": 0}
    assert record["made_by"]["version"] == 1
    assert "torch" in record["versions"]
    assert record["peak_memory"] > 1e6
    noted = json.loads((tmp_path / "manifest.json").read_text())["stages"]
    assert {name: one["key"] for name, one in noted.items()} == graph.keys


def test_a_stage_reads_only_what_it_says_it_reads(tmp_path):
    @stage(version=1, title="curious")
    def curious(work):
        work.input("n/one")

    graph = Graph([Stage("n/one", number, {"value": 1}), Stage("c", curious)])
    with pytest.raises(LookupError, match="c reads n/one, which is not among its inputs"):
        run(tmp_path, graph)
    MAKERS.pop(curious.name)


def test_a_graph_is_refused_where_its_order_or_names_do_not_hold():
    one = Stage("n/one", number, {"value": 1})
    with pytest.raises(ValueError, match="two stages are named n/one"):
        Graph([one, one])
    with pytest.raises(ValueError, match="reads n/one, which is not before it"):
        Graph([Stage("sum", add, {"plus": 0}, ("n/one",)), one])


def test_a_stage_alone_is_refused_before_its_inputs_are_there(tmp_path):
    graph = graph_of()
    with pytest.raises(InputError, match="stage sum reads n/one, n/two: make that first"):
        make(graph, tmp_path, graph.unit_of("sum"), [], QUIET)
    with pytest.raises(InputError, match='Did you mean "sum"'):
        graph.unit_of("summ")


def test_levels_hold_what_can_be_made_at_the_same_time():
    names = [[[one.name for one in unit] for unit in level] for level in graph_of().levels()]
    assert names == [[["n/one"], ["n/two"]], [["sum"]], [["g/a", "g/b"]]]


@pytest.mark.parametrize("how", ["input", "divided"])
def test_a_failure_leaves_nothing_behind_and_what_was_finished_stays(tmp_path, how):
    with pytest.raises((InputError, ZeroDivisionError)):
        run(tmp_path, broken(how))
    assert record_of(tmp_path / "n" / "one")
    assert not (tmp_path / "bad").exists()
    assert not list(tmp_path.rglob("*.partial"))


def test_a_disk_that_is_full_when_the_record_is_written_leaves_nothing_behind(
    tmp_path, monkeypatch
):
    def full(path, _record):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(stages, "write_json", full)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path, graph_of())
    assert not list(tmp_path.rglob("*.partial"))
    monkeypatch.undo()
    run(tmp_path, graph_of())
    assert (tmp_path / "sum" / "n.txt").is_file()


def test_files_of_an_earlier_making_do_not_stay(tmp_path):
    run(tmp_path, graph_of())
    (tmp_path / "sum" / "old.txt").write_text("old")
    run(tmp_path, graph_of(plus=1))
    assert sorted(path.name for path in (tmp_path / "sum").iterdir()) == ["n.txt", "stage.json"]


def test_a_failure_while_making_again_keeps_what_was_there(tmp_path, monkeypatch):
    run(tmp_path, graph_of())
    before = inodes(tmp_path, graph_of())
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        make(graph_of(one=5), tmp_path, graph_of(one=5).unit_of("n/one"), [], QUIET)
    monkeypatch.undo()
    # The old content does not pass for the new, and what else there is stands.
    assert not graph_of(one=5).is_done(tmp_path, "n/one")
    after = inodes(tmp_path, graph_of(one=5)) if (tmp_path / "n" / "one").exists() else {}
    assert all(after[name] == before[name] for name in after)
    run(tmp_path, graph_of(one=5))
    assert (tmp_path / "sum" / "n.txt").read_text() == "7"


def test_what_a_killed_process_left_behind_is_cleared(tmp_path):
    # Above any process number.
    Run(tmp_path, Study())
    left = tmp_path / "n" / f".one.4194305@{socket.gethostname()}.partial"
    left.mkdir(parents=True)
    (left / "half.txt").write_text("half")
    run(tmp_path, graph_of())
    assert not left.exists()
    assert (tmp_path / "n" / "one" / "n.txt").read_text() == "1"


def test_a_stage_whose_folder_was_removed_is_made_again_and_no_other(tmp_path):
    run(tmp_path, graph_of())
    before = inodes(tmp_path, graph_of())
    shutil.rmtree(tmp_path / "g" / "a")
    run(tmp_path, graph_of())
    after = inodes(tmp_path, graph_of())
    assert all(before[name] == after[name] for name in before if name != "g/a")
    assert (tmp_path / "g" / "a" / "n.txt").read_text() == "a of 1"


def test_stages_the_study_no_longer_asks_for_go(tmp_path):
    run(tmp_path, graph_of())
    left = Graph([Stage("n/one", number, {"value": 1})])
    drop_others(left, tmp_path)
    kept = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert kept == ["manifest.json", "n/one/n.txt", "n/one/stage.json", "study.yaml"]


def test_a_pool_makes_the_same_stages(tmp_path):
    run(tmp_path / "here", graph_of())
    run(tmp_path / "pool", graph_of(), in_pool(open_whole, 2, 1))
    for name in graph_of().stages:
        here, pool = (tmp_path / place / name / "n.txt" for place in ("here", "pool"))
        assert here.read_text() == pool.read_text()
        assert record_of(here.parent)["key"] == record_of(pool.parent)["key"]


@pytest.mark.parametrize(
    ("opener", "how", "reason"),
    [
        (open_refused, "input", "there is nothing to add"),
        (open_killed, "killed", "killed by signal 9"),
        (open_divided, "divided", "ZeroDivisionError"),
    ],
)
def test_a_stage_that_fails_in_a_pool_leaves_the_others_going(tmp_path, opener, how, reason):
    with pytest.raises(StagesError, match=reason):
        run(tmp_path, broken(how), in_pool(opener, 2, 1))
    assert (tmp_path / "sum" / "n.txt").read_text() == "6"
    assert not (tmp_path / "after").exists()


def test_two_processes_that_make_one_stage_leave_it_whole(tmp_path):
    script = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[2]); import test_stages as t;"
        "from lorascope.stages import make; g = t.graph_of();"
        "[make(g, pathlib.Path(sys.argv[1]), g.unit_of('n/one'), [], t.QUIET) for _ in range(3)]"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "both"), str(Path(__file__).parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [subprocess.Popen(command, env=environment) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert (tmp_path / "both" / "n" / "one" / "n.txt").read_text() == "1"
    assert record_of(tmp_path / "both" / "n" / "one")["inputs"] == {}
    assert not list((tmp_path / "both").rglob("*.partial"))


def test_a_stage_given_some_settings_can_read_no_others():
    study = Study(measures=Inner(rows=5))
    given = study.only("measures.rows", "seed")
    assert isinstance(given, Subset)
    assert (given.measures.rows, given.seed, given.doubled, given.plus(4)) == (5, 3, 10, 7)
    assert given.plain() == {"measures.rows": 5, "seed": 3}
    with pytest.raises(AttributeError, match=r"measures\.names is none of the settings given"):
        _ = given.measures.names
    with pytest.raises(AttributeError, match="name is none of the settings given"):
        _ = given.name
    with pytest.raises(ValueError, match=r"Study has no setting measures\.row"):
        study.only("measures.row")
    assert study.only("measures").measures == Inner(rows=5)
