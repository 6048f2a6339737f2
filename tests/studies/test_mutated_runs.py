"""Files of a finished run changed at random: read, or refused in one line; remade where it can."""

import json
import random
import shutil
from contextlib import nullcontext

import pytest
from mutations import other_bytes, other_values, seconds

from lorascope.studies.audit import page

# Pages and pictures are written and never read.
UNREAD = {".html", ".svg", ".png", ".pdf", ".tex", ".csv", ".md", ".js"}

OFTEN = ("results", "features", "manifest.json")


@pytest.fixture(scope="module")
def files(finished_run):
    """What is read of a run, by the folder it lies in, so that large folders are not all."""
    found = {}
    for path in sorted(finished_run.rglob("*")):
        where = path.relative_to(finished_run)
        if path.is_file() and path.suffix not in UNREAD and path.name != ".lock":
            found.setdefault(where.parts[0] if len(where.parts) > 1 else "", []).append(where)
    assert {"", "results", "features", "activations", "dictionaries", "read"} <= set(found)
    return list(found.values())


def change(chance, path):
    how = chance.random()
    if how < 0.6 and path.suffix == ".json":
        other_values(chance, path)
    elif how < 0.9:
        other_bytes(chance, path)
    else:
        path.unlink()
        if how > 0.95:
            path.mkdir()


def commands(run):
    yield "features", run
    yield "features", run, "--json"
    yield "card", run, "--adapter", "r2", "--out", run.parent / "card.md"
    yield "stages", run
    yield "report", run
    yield "compare", f"{run}:r2", ":r4", "--rows", "200", "--out", run.parent / "compared"


def many(lorascope, finished_run, files, root, numbers):
    refused = 0
    for number in numbers:
        chance = random.Random(number)
        run = shutil.copytree(finished_run, root / "run")
        # Half of the time what every command reads; the rest is read by some or by none.
        often = [each for each in files if each[0].parts[0] in (*OFTEN, "study.yaml")]
        file = chance.choice(chance.choice(often if chance.random() < 0.5 else files))
        change(chance, run / file)
        for given in commands(run):
            with seconds(60):
                code, _, err = lorascope(*given)
            assert code in (0, 2), (number, file, given, err)
            said = [line for line in err.splitlines() if line.startswith("lorascope: ")]
            if code == 2:
                refused += 1
                assert len(said) == 1, (number, file, err)
                assert len(said[0]) < 1500
        for left in root.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    # Some changes show; many are harmless, or of files that these commands do not read.
    assert refused > 0.05 * len(numbers)


@pytest.fixture
def quickly(monkeypatch):
    """Reports without pictures, which are drawn from what was read."""
    monkeypatch.setattr(page, "written_figures", lambda figures, _: nullcontext(list(figures)))


@pytest.mark.usefixtures("quickly")
def test_what_a_page_trusts_and_somebody_changed_is_named(lorascope, finished_run, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    facts = run / "results" / "facts.json"
    whole = json.loads(facts.read_text())
    refused = set()
    for key in ("seconds", "adapters", "tokens", "sanity_checks", "sites", "texts", "warnings"):
        facts.write_text(json.dumps({**whole, key: 2.5}))
        code, _, err = lorascope("report", run)
        assert code in (0, 2), key
        if code == 2:
            refused.add(key)
            assert f"{facts}: changed since it was made" in err
    # What a page does not show it does not miss.
    assert {"seconds", "adapters"} <= refused
    facts.write_text(json.dumps({**whole, "warnings": ["a further one"]}))
    assert lorascope("report", run)[0] == 0


@pytest.mark.usefixtures("quickly")
def test_a_few(lorascope, finished_run, files, tmp_path):
    many(lorascope, finished_run, files, tmp_path, range(6))


@pytest.mark.slow
@pytest.mark.usefixtures("quickly")
def test_many(lorascope, finished_run, files, tmp_path):
    many(lorascope, finished_run, files, tmp_path, range(6, 500))
