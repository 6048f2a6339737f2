"""Real processes where the system gives little: one line and exit code 2, or the work is done."""

import errno
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

from lorascope.errors import InputError, as_system_error, cause_in_the_system
from lorascope.machine import require_files

SMALL = [
    "capture.context=64",
    "dictionaries.architecture.n_latents=32",
    "dictionaries.fitting.epochs=1",
    "dictionaries.fitting.batch=128",
    "dictionaries.fitting.products=float32",
    "dictionaries.seeds=[0]",
    "dictionaries.controls=[]",
    "controls.null_adapters=0",
    "controls.gaussian_dictionaries=0",
    "measures.repeats=2",
    "measures.rows=500",
    "measures.samples=0",
    "measures.pursuit=false",
    "measures.effects=false",
    "measures.weights=false",
    "measures.latents=0",
    "reading=null",
    "device=cpu",
]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}
# Root may write everywhere; without these of its powers it may not.
OBEYING = (
    ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner"]
    if os.geteuid() == 0
    else []
)


def works(*command):
    return shutil.which(command[0]) and subprocess.run(command, capture_output=True).returncode == 0


mounting = pytest.mark.skipif(
    not works("unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"),
    reason="needs mounts of its own (unshare)",
)
obeying = pytest.mark.skipif(
    bool(OBEYING) and not works(*OBEYING, "true"), reason="root may do everything here (setpriv)"
)


@pytest.fixture
def arguments(tiny_checkpoint, save_adapter, tmp_path):
    """Of a small audit, all but --out."""
    adapter = save_adapter(tmp_path / "adapter", target_modules=["o_proj"])
    words = random.Random(1)
    rows = [" ".join(f"w{words.randrange(61)}" for _ in range(24)) for _ in range(100)]
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    named = {
        "model": tiny_checkpoint("llama"),
        "adapter": f"tiny={adapter}",
        "sites": "layers.1",
        "texts": texts,
    }
    options = [str(part) for name, value in named.items() for part in (f"--{name}", value)]
    sets = [part for change in SMALL for part in ("--set", change)]
    return ["audit", *options, *sets, "--force", "--quiet"]


def command(*arguments):
    return [sys.executable, "-m", "lorascope", *map(str, arguments)]


def run(*arguments, before=(), **options):
    """A finished process; `before` stands in front of the command."""
    whole = [*before, *command(*arguments)]
    return subprocess.run(whole, env=ENVIRONMENT, capture_output=True, text=True, **options)


def one_line(ran):
    """The refusal of a process that was refused; nothing else was printed."""
    assert (ran.returncode, ran.stdout) == (2, ""), ran.stderr
    (line,) = ran.stderr.splitlines()
    assert line.startswith("lorascope: ")
    return line


@obeying
def test_a_folder_that_may_not_be_written_to(arguments, tmp_path):
    shut = tmp_path / "shut"
    shut.mkdir(mode=0o500)
    line = one_line(run(*arguments, "--out", shut / "run", before=OBEYING))
    assert f"{shut / 'run'}: Permission denied; check its permissions" in line
    assert list(shut.iterdir()) == []
    reading = ("read", tmp_path / "adapter", "--model", "embedded", "--out", shut / "read")
    assert f"{shut}" in one_line(run(*reading, before=OBEYING))


@obeying
def test_a_file_that_may_not_be_read_is_not_called_damaged(arguments, tmp_path):
    (tmp_path / "adapter" / "adapter_model.safetensors").chmod(0)
    line = one_line(run("check", tmp_path / "adapter", before=OBEYING))
    assert "Permission denied" in line
    assert "fetch it again" not in line


@mounting
def test_a_read_only_disk(arguments, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f'mount -t tmpfs -o ro tmpfs {disk} && exec "$@"'
    line = one_line(
        run(*arguments, "--out", disk / "run", before=["unshare", "-rm", "sh", "-c", script, "sh"])
    )
    assert "Read-only file system; give --out a folder that can be written to" in line


@mounting
def test_a_disk_with_too_little_room_is_refused_before_anything_is_made(arguments, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f'mount -t tmpfs -o size=100k tmpfs {disk} && exec "$@"'
    line = one_line(
        run(*arguments, "--out", disk / "run", before=["unshare", "-rm", "sh", "-c", script, "sh"])
    )
    assert re.search(r"needs [\d.]+ kB of disk and [\d.]+ kB are free", line)


@mounting
def test_a_disk_that_gets_full_is_one_line_and_room_is_all_that_is_needed(arguments, tmp_path):
    """A small disk that something else fills while the run is at work, and then clears."""
    disk = tmp_path / "disk"
    disk.mkdir()
    audit = shlex.join(command(*arguments, "--out", disk / "run"))
    script = f"""
        mount -t tmpfs -o size=64m tmpfs {disk} || exit 9
        {audit} & audit=$!
        until [ -d {disk}/run/sanity_checks ] || ! kill -0 $audit; do sleep 0.01; done
        cat /dev/zero > {disk}/other 2> /dev/null
        wait $audit; code=$?
        ls -A {disk}/run > {tmp_path}/left
        find {disk} -path '*partial*' > {tmp_path}/partial
        rm {disk}/other
        {audit} > {tmp_path}/second 2>&1; echo $? >> {tmp_path}/second
        exit $code
    """
    ran = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert "No space left on device; free some space and run the same command" in one_line(ran)
    left = (tmp_path / "left").read_text().split()
    assert "sanity_checks" in left
    assert "results" not in left
    assert ".lock" not in left
    assert (tmp_path / "partial").read_text() == "", ran.stderr
    page, code = (tmp_path / "second").read_text().splitlines()
    assert (page, code) == (f"{disk}/run/report/index.html", "0")


@pytest.mark.parametrize(
    "allowed",
    [9, *(pytest.param(n, marks=pytest.mark.slow) for n in (7, 12, 16, 32))],
)
def test_few_files_at_once(arguments, tmp_path, allowed):
    """Too few is one line before anything is computed, and no file is called damaged for it."""
    few = ["sh", "-c", f'ulimit -n {allowed} && exec "$@"', "sh"]
    ran = run(*arguments, "--out", tmp_path / "run", before=few)
    if ran.returncode == 0:
        assert allowed >= 16
        assert (tmp_path / "run" / "results").is_dir()
        return
    assert "Too many open files; allow more open files (ulimit -n)" in one_line(ran)
    assert not (tmp_path / "run").exists()


def test_the_systems_reasons_are_told_from_damage():
    with pytest.raises(OSError, match="Too many open files") as caught:
        require_files(10**6)
    assert caught.value.errno == errno.EMFILE
    require_files(4)
    said = "unable to open file </a/b.safetensors> in read-only mode: Too many open files (24)"
    assert as_system_error(RuntimeError(said), "x").errno == errno.EMFILE
    assert as_system_error(RuntimeError("tensor 3 (24) is cut off"), "x") is None

    def refused(error):
        try:
            try:
                raise error
            except Exception as seen:
                raise InputError("a: damaged: fetch it again") from seen
        except InputError as found:
            return cause_in_the_system(found)

    found = refused(RuntimeError(said))
    assert (found.errno, found.filename) == (errno.EMFILE, "/a/b.safetensors")
    assert refused(ValueError("cut off")) is None
    assert refused(FileNotFoundError(errno.ENOENT, "No such file", "a")) is None


BARE = {
    "PATH": os.environ["PATH"],
    "PYTHONPATH": ENVIRONMENT["PYTHONPATH"],
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "COLUMNS": "20",
    "LANG": "C",
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
}


@pytest.mark.parametrize("home", [None, pytest.param("/nowhere/at/all", marks=pytest.mark.slow)])
def test_work_is_done_without_home_terminal_columns_or_an_encoding(arguments, tmp_path, home):
    """An audit, and the commands that print tables of foreign names."""
    place = tmp_path / "überlauf-日本"
    place.mkdir()
    shutil.copytree(tmp_path / "adapter", place / "adapter-ü")
    bare = BARE if home is None else {**BARE, "HOME": home}

    def done(*given):
        ran = subprocess.run(
            command(*given), env=bare, cwd=place, stdin=subprocess.DEVNULL, capture_output=True
        )
        assert ran.returncode == 0, ran.stderr
        assert b"Traceback" not in ran.stderr
        return ran.stdout.decode("ascii")

    assert "report/index.html" in done(*arguments, "--out", "run").replace("\n", "")
    assert done("features", "--help")
    assert done("report", "run")
    assert "adapter-\\" in done("check", "adapter-ü") or home is not None
    assert json.loads(done("check", "adapter-ü", "--json"))
    assert done("scan", ".", "--out", "scanned")
    assert done("dictionary", "run/dictionaries/layers.1-base-seed0")


def test_names_that_are_no_utf8_are_said_to_be(arguments, tmp_path):
    """Tensors cannot be read or written there; a scan names them and goes on with the others."""
    wrong = os.fsencode(tmp_path) + b"/named-\xff"
    shutil.copytree(os.fsencode(tmp_path / "adapter"), wrong + b"/adapter")
    said = r"named-\udcff"
    for given in (
        ("check", os.fsdecode(wrong + b"/adapter")),
        ("dictionary", os.fsdecode(wrong)),
        (*arguments, "--out", os.fsdecode(wrong + b"/run")),
    ):
        line = one_line(run(*given))
        assert said in line
        assert line.endswith("rename it")
    scanned = run("scan", tmp_path, "--out", tmp_path / "scan", "--json")
    assert scanned.returncode == 0, scanned.stderr
    found = {row["path"]: row["refused"] for row in json.loads(scanned.stdout)}
    assert found[str(tmp_path / "adapter")] == ""
    assert "rename it" in found[f"{tmp_path}/named-\ufffd/adapter"]
    assert (tmp_path / "scan" / "scan.html").is_file()


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_stop_is_one_line_and_the_same_command_goes_on(arguments, tmp_path, number):
    out = tmp_path / "run"
    process = subprocess.Popen(
        command(*arguments, "--out", out),
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A job in the background of a shell would ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    manifest = out / "manifest.json"
    while process.poll() is None and not (
        manifest.is_file() and json.loads(manifest.read_text())["stages"]
    ):
        time.sleep(0.005)
    process.send_signal(number)
    said, err = process.communicate(timeout=120)
    assert (process.returncode, said) == (128 + number, "")
    assert err.splitlines() == ["lorascope: stopped; run the same command to go on"]
    before = json.loads(manifest.read_text())["stages"]
    assert before
    assert not (out / "results").exists()
    assert not list(out.rglob("*partial*"))
    assert not (out / ".lock").exists()
    ran = run(*arguments, "--out", out)
    assert ran.returncode == 0, ran.stderr
    after = json.loads(manifest.read_text())["stages"]
    assert {name: after[name] for name in before} == before
