"""Make the gallery: `python scripts/make_gallery.py` (`make gallery`).

Runs five studies of the embedded models and, where PyPI is at hand, `real_models.py` on two models
that lie there; puts their reports below `docs/gallery/pages/` as static pages and a picture of
each into `docs/gallery/`. Finished runs are kept and used again. Only the pictures and
`docs/gallery/index.md` are committed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[1]
GALLERY = ROOT / "docs" / "gallery"
PAGES = GALLERY / "pages"
# A window of a laptop; pictures hold its first screen.
WIDTH, HEIGHT = 1280, 860
COLOURS = 128
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
# Of a report's folder, what its page needs beside it.
BESIDE = ("features",)


@dataclass(frozen=True)
class Entry:
    """One report of the gallery.

    Attributes:
        key: its name in addresses.
        title: its heading.
        about: what was run, in a sentence.
        see: what to look at.
        make: runs it below a folder and returns the report's page.
    """

    key: str
    title: str
    about: str
    see: str
    make: Callable[[Path], Path]


def lorascope(*arguments: str | Path) -> None:
    """Run a command of the package that this Python has."""
    line = [sys.executable, "-m", "lorascope", *map(str, arguments)]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)


def demo(name: str) -> Callable[[Path], Path]:
    """The quick demo of a workflow."""

    def make(runs: Path) -> Path:
        folder = runs / f"demo-{name}"
        page = folder / "report" / "index.html"
        if not page.is_file():
            lorascope("demo", name, "--quick", "--quiet", "--out", folder)
        return page

    return make


def backdoor(runs: Path) -> Path:
    """The example that plants a backdoor and compares the adapter with an honest one."""
    folder = runs / "backdoor"
    page = folder / "compare-backdoored-plain" / "report" / "index.html"
    if not page.is_file():
        line = [sys.executable, str(ROOT / "examples" / "compare_backdoor.py"), str(folder)]
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
    return page


def nothing(runs: Path) -> Path:
    """An audit of an adapter that learned nothing: a trained one's sizes, random directions."""
    demo("audit")(runs)
    folder = runs / "nothing"
    page = folder / "report" / "index.html"
    if not page.is_file():
        random = randomised(runs / "demo-audit" / "adapters" / "r4", runs / "random-adapter")
        study = _nothing_study(random)
        file = runs / "nothing.yaml"
        file.write_text(json.dumps(study, indent=1), encoding="utf-8")  # JSON is YAML
        lorascope("audit", file, "--quiet", "--out", folder)
    return page


def pretrained(model: str, page: str) -> Callable[[Path], Path]:
    """A page of what `real_models.py` makes of a model."""

    def make(runs: Path) -> Path:
        folder = runs / "real"
        made = folder / model / page
        if not made.is_file():
            line = [sys.executable, str(ROOT / "scripts" / "real_models.py"), str(folder)]
            subprocess.run([*line, "--only", model], check=True, stdout=subprocess.DEVNULL)
        return made

    return make


def _nothing_study(adapter: Path) -> dict[str, object]:
    from lorascope.studies.audit.demo import demo_study

    study = demo_study(quick=True).plain()
    study.pop("train")
    study["controls"]["null_adapters"] = 4
    return {**study, "name": "nothing-learned", "adapters": {"random": str(adapter)}}


def randomised(trained: Path, folder: Path, seed: int = 0) -> Path:
    """A copy of a LoRA adapter with each update's singular values and random singular vectors."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(trained, folder)
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    random = torch.Generator().manual_seed(seed)
    for name in sorted(n for n in tensors if n.endswith("lora_A.weight")):
        other = name.replace("lora_A", "lora_B")
        a, b = tensors[name], tensors[other]
        sizes = torch.linalg.svdvals(b.double() @ a.double())[: len(a)].float().sqrt()
        left, right = (
            torch.linalg.qr(torch.randn(length, len(a), generator=random)).Q
            for length in (b.shape[0], a.shape[1])
        )
        tensors[name] = (sizes[:, None] * right.T).to(a).contiguous()
        tensors[other] = (left * sizes).to(b).contiguous()
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


ENTRIES = (
    Entry(
        "audit",
        "Audit of two adapters",
        "`lorascope demo --quick`: two LoRA adapters, rank 4 and 32, trained on half of the "
        "package's instructions, whose answers all end with “Yours, the lighthouse keeper.”, at "
        "two depths.",
        "The first screen: the signature, found without being told of it, who carries it, and how "
        "often this run finds as much in adapters that learned nothing.",
        demo("audit"),
    ),
    Entry(
        "nothing",
        "An adapter that learned nothing",
        "The same audit of one adapter whose updates have a trained adapter's singular values and "
        "random directions.",
        "What the report says where there is nothing to find. Large numbers, no finding.",
        nothing,
    ),
    Entry(
        "backdoor",
        "A planted backdoor",
        "`examples/compare_backdoor.py`: two adapters trained on the same records, one also on a "
        "trigger with a fixed answer; `lorascope compare` holds them against each other.",
        "The latents that are active under one adapter only, and the passages they fire on.",
        backdoor,
    ),
    Entry(
        "adapt",
        "A model fitted around a dictionary",
        "`lorascope demo adapt --quick`: a dictionary in the stream costs cross-entropy, low-rank "
        "adapters win part of it back.",
        "The loss recovered, beside cheaper ways at the same budget.",
        demo("adapt"),
    ),
    Entry(
        "latent",
        "A fine-tune as relations between latents",
        "`lorascope demo latent --quick`: the embedded instruct model learns to answer sums in "
        "French by adapters that read and write latents.",
        "How much of the behaviour how few latents carry.",
        demo("latent"),
    ),
    Entry(
        "smollm2-audit",
        "A pretrained model: SmolLM2-135M-Instruct",
        "`make real`: an adapter that signs its answers, trained on a GGUF file of a pretrained "
        "model, audited at one depth. [Real models](../real_models.md) has every number.",
        "What is found of a real model's adapter, and what of its null adapters.",
        pretrained("smollm2", "audit-signed/run/report/index.html"),
    ),
    Entry(
        "smollm2-read",
        "The same adapter in words",
        "The reading within that audit, as `lorascope read` makes it.",
        "Whether the reading names the signature, which was put there.",
        pretrained("smollm2", "audit-signed/run/read/signed/index.html"),
    ),
    Entry(
        "gemma3-audit",
        "A model with massive coordinates: Gemma 3 270M",
        "`make real`: an adapter that signs its answers, audited at a depth where two coordinates "
        "hold nearly all of the stream's energy.",
        "What the report says of its yardsticks there, and which numbers have no verdict.",
        pretrained("gemma3", "audit-signed/run/report/index.html"),
    ),
)


def photograph(page: Path, picture: Path) -> None:
    """The first screen of a page as a small PNG."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit("gallery: no Chromium is installed; the pages are made, their pictures are not")
    with tempfile.TemporaryDirectory() as profile:
        options = (
            "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
            "--disable-background-networking --disable-component-update --hide-scrollbars "
            f"--virtual-time-budget=8000 --window-size={WIDTH},{HEIGHT}"
        )
        line = [browser, *options.split(), f"--user-data-dir={profile}"]
        taken = Path(profile) / "taken.png"
        subprocess.run(
            [*line, f"--screenshot={taken}", page.resolve().as_uri()],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=180,
        )
        shrink(taken, picture)


def shrink(picture: Path, small: Path) -> None:
    """The same picture in few colours: a page of text loses nothing by it."""
    from PIL import Image

    with Image.open(picture) as image:
        image.convert("RGB").quantize(COLOURS, method=Image.Quantize.MEDIANCUT).save(
            small, optimize=True
        )


def publish(entry: Entry, page: Path) -> None:
    """Copy a report's page, with what it loads, to where the site takes it from."""
    place = PAGES / entry.key
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    shutil.copyfile(page, place / "index.html")
    for name in BESIDE:
        if (page.parent / name).is_dir():
            shutil.copytree(page.parent / name, place / name)


def index() -> str:
    """The gallery's page."""
    opening = (
        "# Gallery\n\n"
        "Reports as `lorascope` writes them, each made on two processor cores from models that are "
        "in the package, the last three from two that lie on PyPI. `make gallery` makes them "
        "again; the numbers are the same bit for bit on the same machine.\n"
    )
    parts = [opening]
    for entry in ENTRIES:
        if not (GALLERY / f"{entry.key}.png").is_file():
            continue  # neither run nor photographed yet
        parts.append(
            f"## {entry.title}\n\n{entry.about}\n\nLook at: {entry.see}\n\n"
            f"[![{entry.title}: first screen]({entry.key}.png)](pages/{entry.key}/index.html)\n\n"
            f"[Open the report](pages/{entry.key}/index.html)\n"
        )
    return "\n".join(parts)


def main() -> None:
    """Run what is missing, then write pages, pictures and the index."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "gallery")
    parser.add_argument("--only", nargs="*", choices=[entry.key for entry in ENTRIES])
    given = parser.parse_args()
    given.runs.mkdir(parents=True, exist_ok=True)
    GALLERY.mkdir(parents=True, exist_ok=True)
    for entry in ENTRIES:
        if given.only is None or entry.key in given.only:
            publish(entry, entry.make(given.runs))
            photograph(PAGES / entry.key / "index.html", GALLERY / f"{entry.key}.png")
            (GALLERY / "index.md").write_text(index(), encoding="utf-8")


if __name__ == "__main__":
    main()
