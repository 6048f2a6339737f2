"""The command line where machines are hard on it: full disks, other terminals, sudden ends."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys

import pytest
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lorascope import report
from lorascope.activations import shards
from lorascope.commands import running
from lorascope.errors import as_system_error, system_error
from lorascope.locking import locked
from lorascope.report.left_out import left_out_lines

SMALL = [
    "capture.context=64",
    "dictionaries.architecture.n_latents=32",
    "dictionaries.fitting.epochs=1",
    "dictionaries.fitting.batch=128",
    "dictionaries.fitting.products=float32",
    "dictionaries.seeds=[0]",
    "dictionaries.controls=[]",
    "measures.repeats=2",
    "measures.rows=500",
    "measures.samples=0",
    "measures.pursuit=false",
    "measures.effects=false",
    "measures.weights=false",
    "measures.latents=0",
    "device=cpu",
]


@pytest.fixture
def command(tiny_checkpoint, save_adapter, tmp_path, monkeypatch):
    """Arguments of a small audit into `tmp_path / "run"`, of a model that may be overwritten."""
    monkeypatch.setattr(report, "build", lambda folder: folder / "report" / "index.html")
    model = shutil.copytree(tiny_checkpoint("llama"), tmp_path / "model")
    adapter = save_adapter(tmp_path / "adapter", target_modules=["o_proj"])
    words = random.Random(1)
    rows = [" ".join(f"w{words.randrange(61)}" for _ in range(24)) for _ in range(100)]
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    sets = [part for change in SMALL for part in ("--set", change)]
    named = {"model": model, "adapter": f"tiny={adapter}", "sites": "layers.1", "texts": texts}
    options = [str(part) for name, value in named.items() for part in (f"--{name}", value)]
    return ["audit", *options, *sets, "--force", "--quiet", "--out", str(tmp_path / "run")]


def one_line(err):
    lines = [line for line in err.splitlines() if line.startswith("lorascope: ")]
    assert lines == err.strip().splitlines()[-1:]
    assert "Traceback" not in err
    return lines[0]


def stages(tmp_path):
    return json.loads((tmp_path / "run" / "manifest.json").read_text())["stages"]


def test_a_full_disk_is_one_line_and_the_run_goes_on(lorascope, command, tmp_path, monkeypatch):
    def full(tensors, path, metadata=None):
        if "tokens" not in str(path):
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        return save_file(tensors, path, metadata=metadata)

    monkeypatch.setattr(shards, "save_file", full)
    code, out, err = lorascope(*command)
    assert (code, out) == (2, "")
    line = one_line(err)
    assert "base-00000.safetensors: No space left on device; free some space" in line
    assert list(stages(tmp_path)) == ["glance", "matching", "sanity_checks", "read/tiny"]
    left = [path.name for path in (tmp_path / "run").rglob("*") if "partial" in path.name]
    assert left == []
    assert not (tmp_path / "run" / ".lock").exists()
    monkeypatch.setattr(shards, "save_file", save_file)
    code, out, err = lorascope(*command)
    assert code == 0, err
    assert "results" in stages(tmp_path)


def test_what_was_overwritten_in_place_is_not_taken_for_what_it_was(lorascope, command, tmp_path):
    assert lorascope(*command)[0] == 0
    before = stages(tmp_path)
    assert lorascope(*command)[0] == 0
    assert stages(tmp_path) == before
    file = tmp_path / "model" / "model.safetensors"
    weights = {name: tensor * 1.01 for name, tensor in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})
    code, _, err = lorascope(*command)
    assert code == 0, err
    after = stages(tmp_path)
    assert after.keys() == before.keys()
    for name in ("sanity_checks", "activations/probe", "results"):
        assert after[name]["key"] != before[name]["key"]


def test_a_run_that_another_process_holds_is_left_alone(lorascope, command, tmp_path):
    with locked(tmp_path / "run"):
        code, out, err = lorascope(*command)
    assert (code, out) == (2, "")
    assert f"process {os.getpid()}" in one_line(err)
    assert not list((tmp_path / "run").iterdir())


def test_texts_say_how_many_were_left_out(lorascope, command, tmp_path):
    texts = tmp_path / "texts.jsonl"
    rows = texts.read_text().splitlines(keepends=True)
    empty = ['{"text": null}\n'] * 15
    texts.write_text("".join([*rows, *empty, rows[0], rows[1]]))
    code, _, err = lorascope(*command)
    assert code == 0, err
    facts = json.loads((tmp_path / "run" / "results" / "facts.json").read_text())
    counts = facts["texts"]
    assert (counts["records"], counts["empty"], counts["duplicates"]) == (117, 15, 2)
    assert counts["used"] == 100 - counts["seen"] - counts["surplus"] == 100
    records, *tokens = facts["left_out"]
    assert (records["used"], records["of"]) == (100, 117)
    assert records["reason"] == "15 empty, 2 that stand there twice"
    # Tokens used and left out are those that were captured.
    for one, counted in zip(tokens, facts["tokens"].values(), strict=True):
        assert one["used"] == counted["tokens"]
        assert one["of"] - one["used"] == counted["special"] + counted["outliers"]
    (caution,) = left_out_lines({"left_out": [records]})
    assert "14.5 %" in caution


def test_few_texts_are_enough_for_smaller_batches_and_the_page_says_so(
    lorascope, command, tmp_path
):
    """Short texts, and settings whose batch is larger than all that they leave."""
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(texts.read_text().splitlines(keepends=True)[:70]))
    command = [*command[:-2], "--set", "texts.held_out=0.4"]
    few = [*command, "--set", "dictionaries.fitting.batch=5000"]
    code, _, err = lorascope(*few, "--out", tmp_path / "run")
    assert code == 0, err
    facts = json.loads((tmp_path / "run" / "results" / "facts.json").read_text())
    tokens = facts["tokens"]["probe"]
    batch = (tokens["tokens"] + tokens["outliers"]) // 4
    assert 125 <= batch < 500
    (said,) = [line for line in facts["warnings"] if "to train dictionaries on" in line]
    assert f"{batch} in place of 5000 rows" in said
    # Trained as with that batch in the settings, bit for bit.
    same = [*command, "--set", f"dictionaries.fitting.batch={batch}"]
    code, _, err = lorascope(*same, "--out", tmp_path / "same")
    assert code == 0, err
    made = sorted((tmp_path / "run" / "dictionaries").glob("*/sae_weights.safetensors"))
    assert made
    for one in made:
        other = tmp_path / "same" / one.relative_to(tmp_path / "run")
        assert one.read_bytes() == other.read_bytes()
    facts = json.loads((tmp_path / "same" / "results" / "facts.json").read_text())
    assert not [line for line in facts["warnings"] if "to train dictionaries on" in line]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.EROFS, "Read-only file system", "/a/b"),
            "/a/b: Read-only file system",
        ),
        (
            OSError(errno.EACCES, "Permission denied", b"/a"),
            "/a: Permission denied; check",
        ),
        (OSError(errno.EMFILE, "Too many open files", "x"), "x: Too many open files; allow more"),
        (OSError(errno.ENODEV, "No such device", "/m"), "/m: No such device; run the same command"),
        (OSError("just words\nand more"), "just words; run"),
        (SafetensorError("I/O error: x (os error 28)"), "No space left on device; free some space"),
    ],
)
def test_what_the_system_refuses_is_one_line(lorascope, command, monkeypatch, error, said):
    def refuse(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(running, "run", refuse)
    code, out, err = lorascope(*command)
    assert (code, out) == (2, "")
    assert said in one_line(err)


def test_errors_of_the_system_inside_others():
    assert as_system_error(ValueError("nothing of the kind"), "x") is None
    found = as_system_error(RuntimeError("[Errno 122] Disk quota exceeded: 'a'"), "/run/a.pt")
    assert (found.errno, found.filename) == (errno.EDQUOT, "/run/a.pt")
    assert system_error(OSError(errno.ENOSPC, "full"), "/run").startswith("/run: full; free")


def test_faults_of_our_own_are_not_hidden(lorascope, command, monkeypatch):
    def wrong(*_args, **_kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr(running, "run", wrong)
    with pytest.raises(ZeroDivisionError):
        lorascope(*command)


def test_names_that_are_too_long_and_folders_that_are_none(lorascope, command, tmp_path):
    (tmp_path / "file").write_text("x")
    for out, said in (("n" * 300, "File name too long"), ("file/run", "Not a directory")):
        code, _, err = lorascope(*command[:-1], str(tmp_path / out))
        assert code == 2
        assert said in one_line(err)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(lorascope, command, tmp_path):
    (tmp_path / "shut").mkdir(mode=0o500)
    code, _, err = lorascope(*command[:-1], str(tmp_path / "shut" / "run"))
    assert code == 2
    assert "Permission denied; check its permissions" in one_line(err)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stop_is_one_line(lorascope, command, monkeypatch, number, code):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(running, "run", lambda *_: os.kill(os.getpid(), number))
    # Jobs that a shell starts in the background ignore it.
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        found, out, err = lorascope(*command)
    finally:
        signal.signal(signal.SIGINT, interrupt)
    assert (found, out) == (code, "")
    assert one_line(err) == "lorascope: stopped; run the same command to go on"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_stop_in_the_middle_of_a_stage_leaves_nothing_half_made(
    lorascope, command, tmp_path, monkeypatch
):
    def stopped(*_args, **_kwargs):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(shards, "save_file", stopped)
    assert lorascope(*command)[0] == 143
    assert list(stages(tmp_path)) == ["glance", "matching", "sanity_checks", "read/tiny"]
    assert not [path for path in (tmp_path / "run").rglob("*") if "partial" in path.name]
    assert not (tmp_path / "run" / ".lock").exists()


def test_escape_sequences_of_names_are_only_shown(lorascope):
    code, _, err = lorascope("report", "no\x1b]0;title\x07such\u202erun")
    assert code == 2
    assert not {"\x1b", "\x07", "\u202e"} & set(err)
    assert r"no\x1b]0;title\x07such\u202erun" in one_line(err)


def test_no_home_no_terminal_twenty_columns_and_plain_ascii(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-m", "lorascope", "report", tmp_path / "kein-überlauf-\udcff-日本"],
        capture_output=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(sys.path),
            "COLUMNS": "20",
            "LANG": "C",
            "LC_ALL": "C",
            "PYTHONUTF8": "0",
            "PYTHONCOERCECLOCALE": "0",
            "PYTHONIOENCODING": "ascii",
        },
    )
    assert ran.returncode == 2
    assert b"Traceback" not in ran.stderr
    line = ran.stderr.decode("ascii").strip()
    assert line.startswith("lorascope: ")
    assert r"kein-\udcc3\udcbcberlauf-\udcff-" in line


def test_a_reader_that_has_seen_enough_is_no_fault():
    reading, writing = os.pipe()
    os.close(reading)
    ran = subprocess.run(
        [sys.executable, "-m", "lorascope", "selftest", "--help"],
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)
    assert ran.returncode in (0, 1)
    assert b"Traceback" not in ran.stderr
