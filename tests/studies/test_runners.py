"""An audit's stages made elsewhere: in a pool, by SLURM, on Ray. The results are the same."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from lorascope.errors import InputError
from lorascope.locking import locked
from lorascope.results import Estimates
from lorascope.runners.pool import in_pool
from lorascope.runners.slurm import Jobs, write_jobs
from lorascope.stages import Graph, record_of
from lorascope.studies.audit.state import Audited
from lorascope.studies.audit.workflow import AUDIT, stages
from lorascope.studies.opening import open_study, prepare
from lorascope.studies.study_files import read_study

ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    "OMP_NUM_THREADS": "1",
}


def numbers(run):
    return Estimates.read(run / "results" / "estimates.parquet").to_frame()


def same(run, other):
    pd.testing.assert_frame_equal(numbers(run), numbers(other), check_exact=True)


def lorascope(*arguments, **options):
    command = [sys.executable, "-m", "lorascope", *map(str, arguments)]
    return subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, check=False, **options
    )


@pytest.fixture
def prepared(study, tmp_path):
    """A run folder in which no stage has been made."""
    prepare(study, tmp_path / "run")
    return tmp_path / "run"


def test_a_pool_gives_the_same_numbers_bit_for_bit(study, finished_run, quiet, tmp_path, capfd):
    AUDIT.run(study, tmp_path / "run", quiet, runner=in_pool(open_study, 2, 1))
    assert "FutureWarning" not in capfd.readouterr().err
    same(tmp_path / "run", finished_run)
    assert (tmp_path / "run" / "report" / "index.html").exists()


def test_a_study_that_a_folder_holds_has_the_stages_it_was_made_from(finished_run, quiet):
    graph = open_study(finished_run, quiet).graph
    assert all(graph.is_done(finished_run, name) for name in graph.stages)


def test_an_engine_can_make_a_run_stage_by_stage(prepared, finished_run):
    # What stands in the other run is as good as made here.
    shutil.rmtree(prepared)
    shutil.copytree(finished_run, prepared)
    shutil.rmtree(prepared / "measures" / "layers.1")
    shutil.rmtree(prepared / "results")
    listed = lorascope("stages", prepared)
    assert listed.returncode == 0, listed.stderr
    lines = [line.split(" ") for line in listed.stdout.splitlines()]
    todo = [name for level, state, name, _ in lines if state == "todo"]
    assert todo == ["measures/layers.1", "results"]
    early = lorascope("stage", prepared, "results")
    assert early.returncode == 2
    assert "reads measures/layers.1" in early.stderr
    for name in todo:
        made = lorascope("stage", prepared, name, "--quiet")
        assert made.returncode == 0, made.stderr
    same(prepared, finished_run)


def test_stages_are_made_side_by_side_but_not_beside_a_whole_run(prepared):
    with (
        locked(prepared, shared=True),
        locked(prepared, shared=True),
        pytest.raises(InputError, match="at work on it"),
        locked(prepared),
    ):
        pass
    with locked(prepared):
        refused = lorascope("stage", prepared, "sanity_checks")
        assert refused.returncode == 2
        assert "is at work on it" in refused.stderr


def test_a_study_file_is_prepared_and_a_foreign_one_refused(study, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(study.yaml(), encoding="utf-8")
    assert read_study(file) == study
    listed = lorascope("stages", file, "--out", tmp_path / "run", "--json")
    assert listed.returncode == 0, listed.stderr
    assert (tmp_path / "run" / "study.yaml").exists()
    file.write_text("workflow: cooking\n", encoding="utf-8")
    refused = lorascope("stages", file)
    assert refused.returncode == 2
    assert "cooking" in refused.stderr


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """A stand-in for SLURM's sbatch: runs every task of a job at once, if what it waits for did."""
    place = tmp_path / "bin"
    place.mkdir()
    script = place / "sbatch"
    script.write_text(
        f"""#!{sys.executable}
import os, pathlib, re, subprocess, sys
state = pathlib.Path(__file__).parent / "jobs"
state.mkdir(exist_ok=True)
number = len(list(state.iterdir())) + 1
for option in sys.argv[1:-1]:
    if option.startswith("--dependency=afterok:"):
        if (state / option.rpartition(":")[2]).read_text() != "ok":
            (state / str(number)).write_text("never")
            print(number)
            sys.exit()
text = pathlib.Path(sys.argv[-1]).read_text()
array = re.search(r"--array=1-(\\d+)", text)
codes = []
for task in range(1, int(array[1]) + 1 if array else 2):
    environment = {{**os.environ, "SLURM_ARRAY_TASK_ID": str(task)}}
    done = subprocess.run(["sh", sys.argv[-1]], env=environment, stdout=subprocess.DEVNULL)
    codes.append(done.returncode)
(state / str(number)).write_text("ok" if not any(codes) else "failed")
print(number)
"""
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setitem(ENVIRONMENT, "PATH", f"{place}{os.pathsep}{os.environ['PATH']}")
    return place / "jobs"


def test_slurm_arrays_make_what_is_not_finished_in_order(
    study, finished_run, quiet, tmp_path, sbatch
):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    for name in ("measures/layers.1", "weights", "results"):
        shutil.rmtree(run / name)
    graph = Graph(stages(Audited(study, run, quiet)))
    arrays = write_jobs(graph, run, Jobs(threads=1, further=("--partition=short",)))
    assert arrays == [["measures/layers.1", "weights"], ["results"]]
    text = next((run / "slurm").glob("*.sbatch")).read_text()
    assert "#SBATCH --partition=short" in text
    assert "#SBATCH --cpus-per-task=1" in text
    page = run / "report" / "index.html"
    page.unlink()
    done = subprocess.run(["sh", str(run / "slurm" / "submit.sh")], env=ENVIRONMENT, check=True)
    assert done.returncode == 0
    assert [job.read_text() for job in sorted(sbatch.iterdir())] == ["ok", "ok", "ok"]
    same(run, finished_run)
    assert page.exists()
    assert write_jobs(graph, run, Jobs()) == []


SLURM_CONF = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
SlurmUser=root
SlurmdUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.log
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=8000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A real SLURM on this machine, for the time of a test."""
    if os.geteuid() != 0 or not shutil.which("slurmctld"):
        pytest.skip("needs root and Debian's slurmctld, slurmd, munge and slurm-client")
    place = tmp_path / "slurm"
    for name in ("state", "spool"):
        (place / name).mkdir(parents=True)
    conf = place / "slurm.conf"
    host = socket.gethostname().partition(".")[0]
    conf.write_text(SLURM_CONF.format(host=host, place=place, cpus=os.cpu_count()))
    monkeypatch.setitem(ENVIRONMENT, "SLURM_CONF", str(conf))
    key = Path("/etc/munge/munge.key")
    if not key.exists():
        key.write_bytes(os.urandom(1024))
    for path, mode in ((key, 0o400), (Path("/run/munge"), 0o755)):
        if path.suffix == "":
            path.mkdir(exist_ok=True)
        shutil.chown(path, "munge", "munge")
        path.chmod(mode)
    subprocess.run(["runuser", "-u", "munge", "--", "munged", "--force"], check=True)
    for daemon in ("slurmctld", "slurmd"):
        subprocess.run([daemon], env=ENVIRONMENT, check=True)
    waited = time.monotonic() + 60
    while "idle" not in slurm_says("sinfo", "-h", "-o", "%t"):
        assert time.monotonic() < waited, "SLURM did not become idle"
        time.sleep(1)
    yield
    for daemon in ("slurmd", "slurmctld"):
        os.kill(int((place / f"{daemon}.pid").read_text()), signal.SIGTERM)
    subprocess.run(["pkill", "munged"], check=False)


def slurm_says(*command):
    found = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    return found.stdout


@pytest.mark.slow
def test_a_real_slurm_makes_a_run_one_of_whose_tasks_was_killed(
    slurm, study, finished_run, quiet, tmp_path
):
    run = tmp_path / "run"
    prepare(study, run)
    written = lorascope("slurm", run, "--threads", 1, "--sbatch=--mem=2000M")
    assert written.returncode == 0, written.stderr

    def submitted():
        subprocess.run(["sh", str(run / "slurm" / "submit.sh")], env=ENVIRONMENT, check=True)

    submitted()
    killed = False
    until = time.monotonic() + 2400  # far more than minutes on a busy machine
    while queue := slurm_says("squeue", "-h", "-r", "-o", "%i %t %j").split("\n")[:-1]:
        assert time.monotonic() < until, queue
        running = [line.split()[0] for line in queue if line.split()[1] == "R"]
        if not killed and running and record_of(run / "sanity_checks"):
            subprocess.run(["scancel", "--signal=KILL", running[0]], env=ENVIRONMENT, check=True)
            killed = True
        time.sleep(0.5)
    assert killed
    assert not record_of(run / "results")
    assert lorascope("slurm", run, "--threads", 1, "--sbatch=--mem=2000M").returncode == 0
    submitted()
    while slurm_says("squeue", "-h", "-r", "-o", "%i"):
        assert time.monotonic() < until
        time.sleep(0.5)
    same(run, finished_run)


@pytest.mark.slow
def test_a_ray_cluster_loses_a_node_and_gives_the_same_numbers(
    study, finished_run, quiet, tmp_path, monkeypatch
):
    ray_utils = pytest.importorskip("ray.cluster_utils")
    ray = pytest.importorskip("ray._private")
    from lorascope.runners.on_ray import on_ray

    for name in ("PYTHONPATH", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, ENVIRONMENT[name])
    cluster = ray_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    seen = []

    class Watching(type(quiet)):
        """Takes a node away once dictionaries are being trained."""

        def stages(self, totals):
            context = super().stages(totals)
            return Killing(context, lambda title: lose(title))

    def lose(title):
        if title == "training dictionaries" and not seen:
            seen.append(title)
            # The driver hangs on one of the nodes, which cannot be taken from under it.
            own = ray.worker._global_node._raylet_socket_name
            other = next(node for node in nodes if node._raylet_socket_name != own)
            cluster.remove_node(other, allow_graceful=False)

    try:
        AUDIT.run(
            study,
            tmp_path / "run",
            Watching(quiet=True, track="tensorboard"),
            runner=on_ray(open_study, cluster.address),
        )
    finally:
        cluster.shutdown()
    assert seen
    assert [*(tmp_path / "run" / "logs" / "dictionaries").rglob("events.*")]
    same(tmp_path / "run", finished_run)


class Killing:
    def __init__(self, context, then):
        self.context, self.then = context, then

    def __enter__(self):
        advance = self.context.__enter__()

        def watched(title, count):
            advance(title, count)
            self.then(title)

        return watched

    def __exit__(self, *error):
        return self.context.__exit__(*error)
