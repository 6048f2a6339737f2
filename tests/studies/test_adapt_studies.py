"""The adapt studies in `studies/`: valid, planned without network or weights, true to the paper."""

import importlib.util
import os
import re
from pathlib import Path

import pytest

from lorascope.dictionaries.registry import look_up
from lorascope.errors import InputError
from lorascope.models.shapes import Shape, published
from lorascope.studies.adapt.cells import asked
from lorascope.studies.adapt.costs import widths
from lorascope.studies.adapt.demo import adapt_demo
from lorascope.studies.adapt.plan import plan_adapt
from lorascope.studies.adapt.study import AdaptStudy
from lorascope.workflows import speed

STUDIES = Path(__file__).parents[2] / "studies"
FILES = sorted(STUDIES.glob("adapt_*.yaml"))
GEMMA, LLAMA = STUDIES / "adapt_gemma-2-2b.yaml", STUDIES / "adapt_llama-3.1-8b.yaml"


def test_all_of_them_are_here():
    assert [file.stem for file in FILES] == [
        "adapt_embedded",
        "adapt_gemma-2-2b",
        "adapt_llama-3.1-8b",
    ]


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_planned_offline_without_weights(file, monkeypatch):
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    monkeypatch.setattr(speed, "_SECONDS", 0.0)
    study = AdaptStudy.read(file)
    assert study.name == file.stem
    cost = plan_adapt(study)
    lines = cost.lines()
    said = dict(lines)
    assert {"tokens", "disk", "memory", "arithmetic", "time", "  fits"} <= said.keys()
    assert re.match(r"about [\d.,]+ (s|min|h|days) on this machine", said["time"])
    notes = [text for what, text in lines if what == "estimated"]
    assert bool(notes) == (study.model != "embedded")
    if notes:
        assert notes[0].startswith(study.model)
        assert notes[1].startswith("NeelNanda/pile-10k")
        with pytest.raises(InputError, match="cannot be loaded: the hub is switched off"):
            plan_adapt(study, estimates=False)


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_a_typo_gives_one_line(file, tmp_path):
    copy = tmp_path / file.name
    copy.write_text(file.read_text(encoding="utf-8").replace("  lora:", "  lore:"), "utf-8")
    with pytest.raises(InputError) as caught:
        AdaptStudy.read(copy)
    line = str(caught.value)
    assert line.startswith(f'{copy}: unknown key "fit.lore". Did you mean "lora"?')
    assert "\n" not in line


def test_the_embedded_study_covers_what_it_says():
    study = AdaptStudy.read(STUDIES / "adapt_embedded.yaml")
    found = asked(study, 8)
    scaled = {cell.around for cell in found.cells["scaling"]}
    named = [found.dictionaries[name] for name in scaled]
    assert {one.k for one in named} == {8, 16, 32}
    assert len({one.n_latents for one in named}) == 2
    assert {one.site for one in named} == {"layers.1", "layers.3", "layers.5"}
    assert {cell.rank for cell in found.cells["scaling"]} == {1, 4, 16, 64}
    assert [len(cell.sites) for cell in found.cells["several"][:: len(study.seeds)]] == [1, 3, 5]
    assert len(found.cells["single"]) == 4 * len(study.seeds)
    kinds = {cell.kind for cell in found.cells["baselines"]}
    assert {"dictionary", "affine", "lora", "affine+dictionary", "lora+affine+dictionary"} <= kinds


def test_gemma_is_the_papers_setting():
    study = AdaptStudy.read(GEMMA)
    assert study.fit.tokens == 15_000_000
    assert (study.fit.lora.rank, study.fit.lora.blocks) == (64, "after")
    assert study.experiments.ranks == (1, 4, 16, 64, 256)
    found = asked(study, Shape.of(published(study.model)).blocks)
    assert found.reference.site == "layers.12"
    assert len(found.cells["scaling"]) == 13 * 5
    known = widths(found, 2304)
    assert known.guessed == ()
    assert (known.latents["l0_82"], known.latents["width_131k"]) == (16 * 1024, 131 * 1024)


def test_llamas_sets_of_sites():
    study = AdaptStudy.read(LLAMA)
    found = asked(study, Shape.of(published(study.model)).blocks)
    sets = [cell.sites for cell in found.cells["several"][::3]]
    assert sets[1] == ("layers.10", "layers.20", "layers.30")
    assert [len(sites) for sites in sets] == [1, 3, 5]
    assert set(widths(found, 4096).latents.values()) == {32 * 4096}
    assert study.fit.before_thresholds


def test_their_dictionaries_are_in_saelens_list():
    if importlib.util.find_spec("sae_lens") is None:
        pytest.skip("SAELens, whose list is read, is not installed")
    for one in AdaptStudy.read(GEMMA).dictionaries.bring.values():
        inside = one.address.removeprefix("hf://google/gemma-scope-2b-pt-res/")
        entry = look_up(f"saelens:gemma-scope-2b-pt-res/{inside}")
        assert one.address == f"hf://{entry.repo}/{entry.path}"
    for name, one in AdaptStudy.read(LLAMA).dictionaries.bring.items():
        entry = look_up(f"saelens:llama_scope_lxr_32x/{name}r_32x")
        assert one.address == f"hf://{entry.repo}/{entry.path}"
        assert one.site == f"layers.{name[1:]}"


@pytest.mark.parametrize("quick", [False, True])
def test_the_demos_are_planned(quick):
    study = adapt_demo(quick)
    assert AdaptStudy.parse(study.plain(), "again") == study
    assert plan_adapt(study).held_out_tokens == study.measure_tokens
