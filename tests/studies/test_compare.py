"""`lorascope compare`: what it leaves behind, how rows are matched, and what it refuses."""

import json
import shutil

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from lorascope.activations.shards import ShardWriter
from lorascope.errors import InputError
from lorascope.measures.definitions import DEFINITIONS
from lorascope.measures.definitions import comparison as definitions
from lorascope.progress import Reporter
from lorascope.report import build
from lorascope.report.result import read_results
from lorascope.runs import read_json
from lorascope.studies.compare.finished import Finished, Traced
from lorascope.studies.compare.page import LATENT_COLUMNS, TEXT_COLUMNS, render
from lorascope.studies.compare.pairing import pair, sides
from lorascope.studies.compare.study import CompareSettings
from lorascope.studies.compare.workflow import compare

KNOWN = {**DEFINITIONS, **definitions.DEFINITIONS}
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"


def compared(first, second, out, **settings):
    settings = {"first": str(first), "second": str(second), "repeats": 2, **settings}
    return compare(CompareSettings(**settings), out, Reporter(quiet=True), "lorascope compare a b")


@pytest.fixture(scope="module")
def found(finished_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("compared") / "comparison"
    return compared(f"{finished_run}:r2", ":r4", out), out


@pytest.fixture
def other_run(finished_run, tmp_path):
    """A second run of the same study."""
    return shutil.copytree(finished_run, tmp_path / "other")


def edit(path, change):
    data = read_json(path)
    change(data)
    path.write_text(json.dumps(data))


def test_everything_is_written(found):
    result, out = found
    assert result.report == out / "report" / "index.html"
    names = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    assert {
        "comparison.json",
        "latents.csv",
        "texts.csv",
        "report/index.html",
        "results/estimates.csv",
        "results/estimates.parquet",
        "results/facts.json",
    } <= names
    assert tuple(pd.read_csv(out / "latents.csv").columns) == LATENT_COLUMNS
    assert tuple(pd.read_csv(out / "texts.csv").columns) == TEXT_COLUMNS
    again = read_results(out).numbers
    assert [(e.measure, e.value) for e in again] == [
        (e.measure, pytest.approx(e.value)) for e in result.estimates
    ]


def test_every_number_is_there_once_beside_chance(found):
    result, _ = found
    keys = [(e.measure, e.key) for e in result.estimates]
    assert len(set(keys)) == len(keys)
    assert set(definitions.DEFINITIONS) <= {e.measure for e in result.estimates}
    for estimate in result.estimates:
        assert KNOWN[estimate.measure].unit == estimate.unit
        assert estimate.nulls, estimate
        assert estimate.value == estimate.value
    cosines = [e.key for e in result.estimates if e.measure == "compare.cosine"]
    assert {(key.adapter, key.compared) for key in cosines} == {("r2", "r4")}
    assert not result.facts["warnings"]


def test_the_page_holds_numbers_and_texts_and_no_scripts(found):
    result, _ = found
    page = result.report.read_text(encoding="utf-8")
    assert "<script" not in page
    assert "r2 and r4" in page
    assert "Cosine of two deltas" in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    marked = result.texts.iloc[0]
    assert f"<mark>{marked.token}</mark>" in page


def test_its_page_can_be_made_again(found):
    result, out = found
    before = result.report.read_text(encoding="utf-8")
    result.report.unlink()
    assert build(out).read_text(encoding="utf-8") == before


def test_words_and_gaps_come_back_as_they_were_written(found, tmp_path):
    result, out = found
    shutil.copytree(out, tmp_path / "copy")
    latents, texts = result.latents.copy(), result.texts.copy()
    latents["contrast_low"] = latents["contrast_low"].astype(float)
    latents.loc[latents.index[:3], ["contrast_low", "contrast_high"]] = float("nan")
    texts["token"] = (["NA", " 007", "null", "", "a\r\nb"] * len(texts))[: len(texts)]
    texts["document"] = "12e4"
    latents.to_csv(tmp_path / "copy" / "latents.csv", index=False)
    texts.to_csv(tmp_path / "copy" / "texts.csv", index=False)
    page = render(result.estimates, latents, texts, result.facts)
    assert build(tmp_path / "copy").read_text(encoding="utf-8") == page.replace("\r\n", "\n")
    (tmp_path / "copy" / "texts.csv").write_text("kind\nNA\n")
    with pytest.raises(InputError, match="compare again"):
        build(tmp_path / "copy")


def test_hostile_texts_are_no_markup(found):
    result, _ = found
    texts, facts = result.texts.copy(), dict(result.facts)
    for column in ("before", "token", "after"):
        texts[column] = HOSTILE
    facts["adapters"] = [{**a, "path": HOSTILE, "run": HOSTILE} for a in facts["adapters"]]
    facts["warnings"], facts["command"] = [HOSTILE], HOSTILE
    page = render(result.estimates, result.latents, texts, facts)
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_texts_are_those_of_the_rows(found, finished_run):
    result, _ = found
    run = Finished.open(finished_run)
    documents = {d.digest: d for d in run.trace().documents}
    assert set(result.texts["kind"]) >= {"document", "token"}
    for row in result.texts.head(10).itertuples():
        text = documents[row.document].text
        assert row.token.strip() in text
        assert row.text == text[:600]
    values = result.texts[result.texts["kind"] == "document"]["value"].tolist()
    assert values == sorted(values, reverse=True)


def test_differences_are_ranked_by_plain_arithmetic(found, finished_run):
    result, _ = found
    matched = pair(*sides(f"{finished_run}:r2", ":r4"), 20000)
    rows = matched.load("layers.1")
    apart = (rows.first - rows.second).norm(dim=-1)
    means = {int(d): float(apart[rows.documents == d].mean()) for d in rows.documents.unique()}
    best = max(means, key=means.__getitem__)
    first = result.texts[result.texts["kind"] == "document"].iloc[0]
    assert first.document == matched.trace.documents[best].digest
    assert first.value == pytest.approx(means[best] / apart.mean().item(), rel=1e-4)
    token = result.texts[result.texts["kind"] == "token"].iloc[0]
    assert token.value == pytest.approx((apart.max() / apart.mean()).item(), rel=1e-4)


def test_two_runs_meet_row_by_row(finished_run, other_run):
    """The second run lacks ten rows as outliers: all others meet their own kind."""
    folder = other_run / "activations" / "held_out"
    identity = read_json(folder / "manifest.json")["identity"]
    ShardWriter(folder, identity, torch.float32)._write("outliers", 0, {"rows": torch.arange(10)})
    edit(folder / "manifest.json", lambda manifest: manifest.update(outliers=10))
    whole = pair(*sides(f"{finished_run}:r2", ":r4"), 20000)
    across = pair(*sides(f"{finished_run}:r2", f"{other_run}:r4"), 20000)
    assert len(across) == len(whole) - 10
    kept = (whole.rows[0] >= 10).nonzero().squeeze(1)
    one, two = whole.load("layers.1"), across.load("layers.1")
    assert torch.equal(one.second[kept], two.second)
    assert torch.equal(one.first[kept], two.first)
    assert torch.equal(one.documents[kept], two.documents)


def test_the_same_adapter_in_two_runs_is_told_apart_by_its_run(finished_run, other_run, tmp_path):
    result = compared(f"{finished_run}:r4", f"{other_run}:r4", tmp_path / "out")
    labels = {a["name"] for a in result.facts["adapters"]}
    assert labels == {f"{finished_run.name}/r4", "other/r4"}
    found = {e.measure: e for e in result.estimates}
    assert found["compare.cosine"].value == pytest.approx(1)
    assert found["compare.difference"].value == 0
    assert not result.latents["only_here"].any()
    assert not result.latents["one_sided"].any()


def test_a_run_of_two_adapters_needs_no_names(finished_run):
    first, second = sides(str(finished_run), str(finished_run))
    assert (first.adapter, second.adapter) == ("r2", "r4")


def refusal(first, second, tmp_path, **settings):
    with pytest.raises(InputError) as caught:
        compared(first, second, tmp_path / "refused", **settings)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "refused").exists()
    return str(caught.value)


def test_refuses_what_is_no_pair(finished_run, tmp_path):
    said = refusal(f"{finished_run}:r2", ":r2", tmp_path)
    assert "two different adapters" in said
    assert 'Did you mean "r4"?' in refusal(f"{finished_run}:r2", ":r4x", tmp_path)
    assert "finished audit" in refusal(tmp_path, f"{finished_run}:r2", tmp_path)
    assert "name the run first" in refusal(":r2", ":r4", tmp_path)


def test_refuses_an_unfinished_run(finished_run, other_run, tmp_path):
    edit(other_run / "manifest.json", lambda m: m["stages"].pop("results"))
    assert "not finished" in refusal(f"{finished_run}:r2", f"{other_run}:r4", tmp_path)


def test_refuses_a_run_without_activations(finished_run, other_run, tmp_path):
    shutil.rmtree(other_run / "activations")
    assert "have been removed" in refusal(f"{finished_run}:r2", f"{other_run}:r4", tmp_path)


def called_gates(run):
    """A run folder as it was before sanity checks had this name."""
    (run / "sanity_checks").rename(run / "gates")
    (run / "gates" / "sanity_checks.json").rename(run / "gates" / "gates.json")
    edit(
        run / "manifest.json", lambda m: m["stages"].update(gates=m["stages"].pop("sanity_checks"))
    )


@pytest.mark.parametrize("name", ["sanity_checks", "gates"])
def test_refuses_another_base_model(finished_run, other_run, tmp_path, name):
    if name == "gates":
        called_gates(other_run)
    edit(other_run / name / f"{name}.json", lambda record: record["model"].update(d_model=48))
    said = refusal(f"{finished_run}:r2", f"{other_run}:r4", tmp_path)
    assert "different base models" in said
    assert "d_model 32 and 48" in said


def test_refuses_sites_that_are_not_shared(finished_run, other_run, tmp_path):
    def move(manifest):
        manifest["sites"] = ["layers.2"]

    folder = other_run / "activations" / "held_out"
    edit(folder / "manifest.json", move)
    identity = read_json(folder / "manifest.json")["identity"]
    writer = ShardWriter(folder, identity, torch.float32)
    for path in (folder / "layers.1").iterdir():
        variant = path.name.removesuffix("-00000.safetensors")
        writer._write(f"layers.2/{variant}", 0, load_file(path))
    said = refusal(f"{finished_run}:r2", f"{other_run}:r4", tmp_path)
    assert "no site in common" in said
    said = refusal(f"{finished_run}:r2", ":r4", tmp_path, sites=("layers.11",))
    assert 'Did you mean "layers.1"?' in said


def test_refuses_texts_that_are_not_those_captured(other_run, tmp_path):
    study = other_run / "study.yaml"
    study.write_text(study.read_text().replace("held_out: 0.5", "held_out: 0.4"))
    said = refusal(f"{other_run}:r2", ":r4", tmp_path)
    assert "no longer those it was captured from" in said


def test_refuses_another_base_stream(finished_run, other_run, tmp_path):
    folder = other_run / "activations" / "held_out"
    identity = read_json(folder / "manifest.json")["identity"]
    (path,) = (folder / "layers.1").glob("base-*")
    rows = {"rows": 1.2 * load_file(path)["rows"]}
    ShardWriter(folder, identity, torch.float32)._write("layers.1/base", 0, rows)
    said = refusal(f"{finished_run}:r2", f"{other_run}:r4", tmp_path)
    assert "base streams of the two runs differ by 20%" in said


def test_refuses_windows_of_another_length(finished_run, other_run, tmp_path):
    study = other_run / "study.yaml"
    text = study.read_text()
    assert "capture:\n  context: 64" in text
    study.write_text(text.replace("capture:\n  context: 64", "capture:\n  context: 32"))
    said = refusal(f"{finished_run}:r2", f"{other_run}:r4", tmp_path)
    assert "windows of 64 and 32 tokens" in said


@pytest.mark.parametrize(
    ("other_keys", "complaint"),
    [
        (lambda keys: [(f"other {k[0]}", *k[1:]) for k in keys], "no held-out document in common"),
        (lambda keys: keys[::-1], "different tokens for the same texts"),
    ],
)
def test_refuses_other_documents_and_other_tokens(
    finished_run, other_run, tmp_path, monkeypatch, other_keys, complaint
):
    keys = Traced.keys
    once = keys(Finished.open(finished_run).trace())
    both = iter([once, other_keys(once)])
    monkeypatch.setattr(Traced, "keys", lambda traced: next(both))
    assert complaint in refusal(f"{finished_run}:r2", f"{other_run}:r4", tmp_path)


def test_refuses_a_folder_that_holds_something_else(finished_run, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty and no comparison"):
        compared(f"{finished_run}:r2", ":r4", tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_the_command(finished_run, tmp_path, lorascope):
    out = tmp_path / "out"
    arguments = ("compare", f"{finished_run}:r2", ":r4", "--rows", 500, "--out", out)
    code, printed, _ = lorascope(*arguments, "--quiet")
    assert code == 0
    assert "r2: no latent active under it alone" in " ".join(printed.split())
    assert printed.rstrip().endswith("index.html")
    # The same folder again, as data.
    code, printed, _ = lorascope(*arguments, "--json")
    data = json.loads(printed)
    assert code == 0
    assert {"estimates", "chance_levels", "only_here", "texts", "adapters"} <= set(data)
    assert data["tokens"]["compared"]["tokens"] <= 500
    code, _, complaint = lorascope("compare", finished_run, tmp_path / "none")
    assert code == 2
    assert complaint.count("\n") == 1


def test_nothing_in_the_runs_changes(finished_run, tmp_path):
    def state():
        return {p: p.stat().st_mtime_ns for p in finished_run.rglob("*")}

    before = state()
    compared(f"{finished_run}:r2", ":r4", tmp_path / "out")
    assert state() == before
