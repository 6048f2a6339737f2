"""All tests of the pretended second device, in a process of its own: see `devices/conftest.py`."""

import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "devices"


def test_what_runs_on_a_second_device_does_as_on_the_cpu():
    line = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", str(FOLDER)]
    environment = {**os.environ, "SECOND_DEVICE": "1", "OMP_NUM_THREADS": "1"}
    for name in [name for name in environment if name.startswith("PYTEST_")]:
        del environment[name]
    done = subprocess.run(
        line, cwd=FOLDER.parents[1], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
