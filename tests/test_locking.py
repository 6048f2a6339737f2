"""One process on a folder: the second is told whose it is; what a dead one left is taken over."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from lorascope.config import Settings
from lorascope.errors import InputError
from lorascope.locking import LOCK, contents, is_running, locked, require_writable
from lorascope.runs import Run, fresh_partial
from lorascope.workflows.run_folders import run_folder

HOLD = """
import sys, pathlib
from lorascope.locking import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


class Study(Settings):
    name: str = "one"


@pytest.fixture
def holder(tmp_path):
    """Another process that holds `tmp_path / "run"`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_told_who_is_at_work(tmp_path, holder):
    run = tmp_path / "run"
    with pytest.raises(InputError, match=f"process {holder.pid} on {socket.gethostname()}"):
        run_folder(run, Study()).__enter__()
    assert contents(run) == []
    holder.communicate("")
    assert not (run / LOCK).exists()
    with run_folder(run, Study()) as made:
        assert json.loads((run / LOCK).read_text())["pid"] == os.getpid()
        fresh_partial(made.folder / "one").replace(made.folder / "one")
    assert sorted(path.name for path in run.iterdir()) == ["manifest.json", "one", "study.yaml"]


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "run" / LOCK).exists()
    assert not is_running(holder.pid)
    with locked(tmp_path / "run"):
        assert json.loads((tmp_path / "run" / LOCK).read_text())["pid"] == os.getpid()


def test_another_machine_is_asked_about(tmp_path):
    signed = {"pid": 7, "host": "elsewhere", "since": "2020-01-01 00:00:00"}
    (tmp_path / LOCK).write_text(json.dumps(signed))
    with pytest.raises(InputError, match=r"process 7 on elsewhere, .*; if that has ended, remove"):
        locked(tmp_path).__enter__()
    (tmp_path / LOCK).write_text("half a li")
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_alone_is_no_content_and_a_file_no_folder(tmp_path):
    with locked(tmp_path / "a" / "b"):
        Run(tmp_path / "a" / "b", Study())
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="file: is a file"):
        locked(tmp_path / "file").__enter__()


def test_a_refused_study_takes_its_folder_away_again(tmp_path):
    with pytest.raises(InputError, match="no"), run_folder(tmp_path / "run", Study()):
        raise InputError("no")
    assert not (tmp_path / "run").exists()


def test_half_made_stages_are_told_apart_by_process(tmp_path, holder):
    run = Run(tmp_path / "mine", Study())
    others = tmp_path / "mine" / f".one.{holder.pid}@{socket.gethostname()}.partial"
    # Above any process number.
    dead = tmp_path / "mine" / f".one.4194305@{socket.gethostname()}.partial"
    elsewhere = tmp_path / "mine" / f".one.{holder.pid}@another-machine.partial"
    for folder in (others, dead, elsewhere):
        folder.mkdir()
    partial = fresh_partial(run.folder / "one")
    assert [partial.name] == [f".one.{os.getpid()}@{socket.gethostname()}.partial"]
    left = sorted(path.name for path in (tmp_path / "mine").iterdir() if path.is_dir())
    assert left == sorted([others.name, elsewhere.name, partial.name])


def test_a_folder_is_tried_before_the_work_and_left_as_it_was(tmp_path):
    require_writable(tmp_path / "a" / "b")
    require_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        require_writable(tmp_path / "file")
    for wrong in (tmp_path / "file" / "deeper", tmp_path / "new" / ("n" * 300)):
        with pytest.raises(OSError, match=r"Not a directory|too long"):
            require_writable(wrong)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
