"""A run folder: another study's is refused, and no file is ever half there."""

import pytest

from lorascope.config import Settings
from lorascope.errors import InputError
from lorascope.runs import Run, read_json, write_atomically


class Depth(Settings):
    context: int = 8


class Study(Settings):
    name: str = "one"
    capture: Depth = Depth()


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_another_studys_folder_is_refused_with_what_differs(tmp_path):
    Run(tmp_path, Study())
    before = (tmp_path / "study.yaml").read_text()
    other = Study(name="two", capture=Depth(context=16))
    with pytest.raises(
        InputError, match=r"holds another study \(differs in name, capture\.context\); give --out"
    ):
        Run(tmp_path, other)
    with pytest.raises(InputError, match=r"\(differs in capture\.context\)"):
        Run(tmp_path, Study(capture=Depth(context=16)))
    assert (tmp_path / "study.yaml").read_text() == before
    assert Run(tmp_path, Study()).folder == tmp_path


def test_a_folder_of_something_else_is_refused_untouched(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty and not a run folder; give --out another"):
        Run(tmp_path, Study())
    assert files(tmp_path) == ["notes.txt"]
    with pytest.raises(InputError, match=r"notes\.txt: is a file; give --out a folder"):
        Run(tmp_path / "notes.txt", Study())
    (tmp_path / "empty").mkdir()
    assert Run(tmp_path / "empty", Study()).folder.exists()


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
