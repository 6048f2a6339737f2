"""A run folder: stages resume, crashes leave nothing, and another study's folder is refused."""

import json
import socket

import pytest

from lorascope.config import Settings
from lorascope.errors import InputError
from lorascope.runs import Run, read_json, write_atomically


class Depth(Settings):
    context: int = 8


class Study(Settings):
    name: str = "one"
    capture: Depth = Depth()


class Maker:
    """Makes a stage and counts how often."""

    def __init__(self, content="made"):
        self.content, self.calls = content, 0

    def __call__(self, folder):
        self.calls += 1
        (folder / "result.txt").write_text(self.content)


def crash(folder):
    (folder / "half.txt").write_text("half")
    raise ZeroDivisionError


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_stage_is_made_once_and_found_again(tmp_path):
    folder = tmp_path / "out" / "run"
    first, again = Maker(), Maker("not wanted")
    path = Run(folder, Study()).stage("activations/probe", {"rows": 3}, first)
    assert path == folder / "activations" / "probe"
    assert not Run(folder, Study()).finished("results")
    resumed = Run(folder, Study())
    assert resumed.finished("activations/probe")
    assert resumed.stage("activations/probe", {"rows": 3}, again) == path
    assert (first.calls, again.calls) == (1, 0)
    assert (path / "result.txt").read_text() == "made"
    assert files(folder) == ["activations/probe/result.txt", "manifest.json", "study.yaml"]


def test_a_change_of_what_it_depends_on_makes_it_and_its_children_again(tmp_path):
    def steps(rows, learning):
        run = Run(tmp_path, Study())
        made = {name: Maker(f"{name} {rows} {learning}") for name in ("capture", "learn", "other")}
        run.stage("capture", {"rows": rows}, made["capture"])
        run.stage("learn", {"rate": learning}, made["learn"], "capture")
        run.stage("other", {}, made["other"])
        return [maker.calls for maker in made.values()]

    assert steps(3, 0.1) == [1, 1, 1]
    assert steps(3, 0.1) == [0, 0, 0]
    assert steps(3, 0.2) == [0, 1, 0]
    assert steps(4, 0.2) == [1, 1, 0]
    assert (tmp_path / "learn" / "result.txt").read_text() == "learn 4 0.2"
    assert steps(4, 0.2) == [0, 0, 0]


def test_files_of_an_earlier_making_do_not_stay(tmp_path):
    run = Run(tmp_path, Study())
    run.stage("a", 1, lambda folder: (folder / "old.txt").write_text("old") and None)
    run.stage("a", 2, Maker())
    assert files(tmp_path / "a") == ["result.txt"]


def test_a_crash_leaves_nothing_and_earlier_stages_stay(tmp_path):
    run = Run(tmp_path, Study())
    run.stage("first", 1, Maker())
    with pytest.raises(ZeroDivisionError):
        run.stage("deep/second", 1, crash)
    assert files(tmp_path) == ["first/result.txt", "manifest.json", "study.yaml"]
    resumed = Run(tmp_path, Study())
    unwanted, second = Maker(), Maker()
    resumed.stage("first", 1, unwanted)
    resumed.stage("deep/second", 1, second)
    assert (unwanted.calls, second.calls) == (0, 1)


def test_a_crash_while_making_again_keeps_what_was_there(tmp_path):
    run = Run(tmp_path, Study())
    run.stage("a", 1, Maker("before"))
    with pytest.raises(ZeroDivisionError):
        run.stage("a", 2, crash)
    unwanted = Maker()
    assert (Run(tmp_path, Study()).stage("a", 1, unwanted) / "result.txt").read_text() == "before"
    assert unwanted.calls == 0


def test_what_a_killed_process_left_behind_is_cleared(tmp_path):
    left = tmp_path / f".a.4194305@{socket.gethostname()}.partial"  # above any process number
    (Run(tmp_path, Study()).folder / left.name).mkdir()
    (left / "half.txt").write_text("half")
    path = Run(tmp_path, Study()).stage("a", 1, Maker())
    assert files(path) == ["result.txt"]
    assert not left.exists()


def test_a_kill_between_new_content_and_manifest_does_not_pass_for_the_old(tmp_path, monkeypatch):
    run = Run(tmp_path, Study())
    run.stage("a", 1, Maker("one"))
    saves = []

    def killed():
        saves.append(json.loads(json.dumps(run.manifest["stages"])))
        if len(saves) == 2:
            raise KeyboardInterrupt
        write_atomically(tmp_path / "manifest.json", json.dumps(run.manifest))

    monkeypatch.setattr(run, "_save", killed)
    with pytest.raises(KeyboardInterrupt):
        run.stage("a", 2, Maker("two"))
    assert (tmp_path / "a" / "result.txt").read_text() == "two"
    again = Maker("one")
    Run(tmp_path, Study()).stage("a", 1, again)
    assert again.calls == 1


def test_a_stage_whose_folder_was_removed_is_made_again(tmp_path):
    run = Run(tmp_path, Study())
    path = run.stage("a", 1, Maker())
    (path / "result.txt").unlink()
    path.rmdir()
    assert not run.finished("a")
    maker = Maker()
    run.stage("a", 1, maker)
    assert maker.calls == 1


def test_another_studys_folder_is_refused_with_what_differs(tmp_path):
    Run(tmp_path, Study()).stage("a", 1, Maker())
    other = Study(name="two", capture=Depth(context=16))
    with pytest.raises(
        InputError, match=r"holds another study \(differs in name, capture\.context\); give --out"
    ):
        Run(tmp_path, other)
    with pytest.raises(InputError, match=r"\(differs in capture\.context\)"):
        Run(tmp_path, Study(capture=Depth(context=16)))
    assert Run(tmp_path, Study()).finished("a")


def test_a_folder_of_something_else_is_refused_untouched(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty and not a run folder; give --out another"):
        Run(tmp_path, Study())
    assert files(tmp_path) == ["notes.txt"]
    with pytest.raises(InputError, match=r"notes\.txt: is a file; give --out a folder"):
        Run(tmp_path / "notes.txt", Study())
    (tmp_path / "empty").mkdir()
    assert Run(tmp_path / "empty", Study()).folder.exists()


def test_the_manifest_says_what_made_it(tmp_path):
    run = Run(tmp_path, Study())
    run.stage("a", 1, Maker())
    manifest = read_json(tmp_path / "manifest.json")
    assert manifest["study"] == Study().digest()
    assert set(manifest["stages"]) == {"a"}
    assert run.seconds() == {"a": manifest["stages"]["a"]["seconds"]}
    assert 0 <= run.seconds()["a"] < 5


def test_a_broken_manifest_is_one_clear_line(tmp_path):
    Run(tmp_path, Study())
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(InputError, match=r"manifest\.json: not readable as JSON"):
        Run(tmp_path, Study())
    with pytest.raises(InputError, match=r"nothing\.json: no such file; is this a run folder\?"):
        read_json(tmp_path / "nothing.json")


def test_a_write_that_fails_leaves_the_old_content(tmp_path):
    path = tmp_path / "deep" / "a.json"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "new \ud800")
    assert path.read_text() == "old"
    write_atomically(path, "new")
    assert path.read_text() == "new"
    assert files(tmp_path) == ["deep/a.json"]
