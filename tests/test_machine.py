"""What this machine has and runs; and that nothing needs what Windows lacks."""

import os
import subprocess
import sys

from lorascope.machine import available_memory, is_running, peak_memory, total_memory


def test_memory_is_that_of_this_machine():
    assert 10**8 < available_memory() <= total_memory() < 10**14


def test_the_peak_stays_where_memory_has_been():
    before = peak_memory()
    block = bytearray(os.urandom(1)) * (before + 100_000_000)
    high = peak_memory()
    del block
    assert high >= before + 90_000_000
    assert peak_memory() >= high - 5_000_000


def test_processes_are_told_from_ended_ones():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert is_running(process.pid)
    process.communicate(b"\n")
    assert not is_running(process.pid)
    assert is_running(os.getpid())


WITHOUT = """
import os, subprocess, sys
import psutil, torch, transformers  # the standard library and others know what system this is
for name in ("fcntl", "resource"):
    sys.modules[name] = None
for name in ("sysconf", "pread", "pwrite", "geteuid", "getuid", "O_CLOEXEC", "O_NONBLOCK"):
    if hasattr(os, name):
        delattr(os, name)
class Locks:
    LK_NBLCK, LK_UNLCK, held = 1, 2, set()
    @classmethod
    def locking(cls, descriptor, how, count):
        place = os.fstat(descriptor).st_ino
        if how == cls.LK_UNLCK:
            cls.held.discard(place)
        elif place in cls.held:
            raise OSError("held")
        else:
            cls.held.add(place)
sys.modules["msvcrt"] = Locks
from pathlib import Path
from lorascope.errors import InputError
from lorascope.locking import locked
from lorascope.machine import peak_memory
from lorascope.studies.audit.demo import demo_study
from lorascope.studies.audit.plan import plan
from lorascope.workflows.cost import refuse_what_cannot_fit
folder = Path(sys.argv[1])
assert peak_memory() > 1e6
with locked(folder):
    try:
        locked(folder).__enter__()
    except InputError as error:
        print("refused:", error)
refuse_what_cannot_fit(plan(demo_study(True)), folder)
print("planned")
"""


def test_nothing_needs_what_windows_lacks(tmp_path):
    found = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(tmp_path / "run")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert "is at work on it" in found.stdout
    assert "planned" in found.stdout


WAITING = """
import os, sys
from lorascope import cli
sys.argv = ["lorascope", "--help"]
cli.main()
assert "torch" not in sys.modules  # OpenMP looks at its environment when it is loaded
print(os.environ["OMP_WAIT_POLICY"])
"""


def test_threads_of_a_command_do_not_spin_unless_told_to():
    for given, expected in (({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")):
        kept = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
        done = subprocess.run(
            [sys.executable, "-c", WAITING], env={**kept, **given}, capture_output=True, text=True
        )
        assert done.stdout.splitlines()[-1] == expected, done.stderr
