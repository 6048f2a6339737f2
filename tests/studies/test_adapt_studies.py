"""The adapt studies in `studies/`: valid, planned without network or weights, true to the paper."""

import importlib.util
import os
import re
from pathlib import Path

import pytest
import torch

from lorascope.dictionaries.registry import look_up
from lorascope.errors import InputError
from lorascope.models.shapes import Shape, published
from lorascope.studies.adapt import costs
from lorascope.studies.adapt.cells import FitCell, asked
from lorascope.studies.adapt.costs import widths
from lorascope.studies.adapt.demo import adapt_demo
from lorascope.studies.adapt.plan import plan_adapt
from lorascope.studies.adapt.study import AdaptStudy
from lorascope.workflows import speed
from lorascope.workflows.sizes import base_of

STUDIES = Path(__file__).parents[2] / "studies"
FILES = sorted(STUDIES.glob("adapt_*.yaml"))
GEMMA, LLAMA = STUDIES / "adapt_gemma-2-2b.yaml", STUDIES / "adapt_llama-3.1-8b.yaml"


def test_all_of_them_are_here():
    assert [file.stem for file in FILES] == [
        "adapt_embedded",
        "adapt_gemma-2-27b",
        "adapt_gemma-2-2b-steering",
        "adapt_gemma-2-2b-times",
        "adapt_gemma-2-2b-tokens",
        "adapt_gemma-2-2b",
        "adapt_gemma-2-9b",
        "adapt_llama-3.1-8b",
        "adapt_llama-3.2-1b-times",
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
    assert {"tokens", "disk", "memory", "arithmetic", "time"} <= said.keys()
    assert said.keys() & {"  fits", "  times"}
    assert re.match(r"about [\d.,]+ (s|min|h|days) on this machine", said["time"])
    notes = [text for what, text in lines if what == "estimated"]
    assert bool(notes) == (study.model != "embedded")
    if notes:
        assert notes[0].startswith(study.model)
        assert notes[1].startswith(study.texts.sources[0].partition(":")[0])
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
    assert len(found.cells["scaling"]) == 14 * 5
    known = widths(found, 2304)
    assert known.guessed == ()
    assert (known.latents["l0_82"], known.latents["width_131k"]) == (16 * 1024, 131 * 1024)


def test_llamas_sets_of_sites():
    study = AdaptStudy.read(LLAMA)
    found = asked(study, Shape.of(published(study.model)).blocks)
    sets = [cell.sites for cell in found.cells["several"][::3]]
    assert [len(sites) for sites in sets] == [1, 3, 5, 7, 10, 15]
    assert sets[1] == ("layers.10", "layers.20", "layers.30")
    assert sets[3] == tuple(f"layers.{i}" for i in range(4, 29, 4))
    assert sets[4] == tuple(f"layers.{i}" for i in range(3, 31, 3))
    assert sets[5] == tuple(f"layers.{i}" for i in range(2, 31, 2))
    assert set(widths(found, 4096).latents.values()) == {32 * 4096}
    assert {one.k for one in found.dictionaries.values()} == {50}
    assert not study.fit.before_thresholds


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_what_only_the_paper_has(file):
    whole, own = AdaptStudy.read(file), AdaptStudy.read(file, ["paper_only=true"])
    assert own.experiments.baselines == ()
    assert own.experiments.scaling_seeds == ()
    assert own.seeds == whole.seeds[:1]
    assert own.fit.random_draws == 2
    left = {"experiments", "fit", "seeds", "paper_only"}
    assert own.model_dump(exclude=left) == whole.model_dump(exclude=left)
    changed = {"baselines", "scaling_seeds"}
    assert own.experiments.model_dump(exclude=changed) == whole.experiments.model_dump(
        exclude=changed
    )
    # What is written into a run folder is the same study again.
    assert AdaptStudy.parse(own.plain(), "again") == own


@pytest.mark.parametrize("name", ["gemma-2-2b", "llama-3.2-1b"])
def test_the_papers_curves(name):
    study = AdaptStudy.read(STUDIES / f"adapt_{name}-times.yaml")
    times, train = study.experiments.times, study.dictionaries.train
    gemma = name == "gemma-2-2b"
    assert (train.n_latents, train.k) == ((18432 if gemma else 16384,), (64,))
    assert (times.tokens, times.end_to_end_tokens) == 2 * ((2 if gemma else 4) * 10**9,)
    assert times.fit_tokens == (15 if gemma else 100) * 10**6
    assert (study.fit.lora.rank, study.fit.lora.blocks) == (64, "all")
    assert times.shares == tuple(i / 10 for i in range(1, 11))


def test_the_papers_token_counts():
    file = STUDIES / "adapt_gemma-2-2b-tokens.yaml"
    assert AdaptStudy.read(file).measure_tokens == 15_000_000
    assert plan_adapt(AdaptStudy.read(file)).held_out_tokens == 15_000_000
    eleven = AdaptStudy.read(file, ["experiments.tokens=false", "measure_tokens=500000"])
    assert (eleven.measure_tokens, eleven.experiments.distances) == (500_000, True)


@pytest.mark.parametrize("file", FILES[1:], ids=lambda f: f.stem)
def test_hours_and_memory_of_named_cards(file):
    lines = dict(plan_adapt(AdaptStudy.read(file)).lines())
    cards = {name: said for name, said in lines.items() if name.startswith("on one ")}
    assert set(cards) == {
        f"on one {card}"
        for card in ("A100 SXM 40 GB", "A100 SXM 80 GB", "H100 SXM 80 GB", "H200 SXM")
    }
    assert re.fullmatch(r"about [\d,.]+ h, \d+ GB", cards["on one H200 SXM"])
    small = cards["on one A100 SXM 40 GB"]
    if file == LLAMA:
        assert small.startswith("too small: ")
    elif small.startswith("about"):
        hours = [
            float(s.split()[1].replace(",", "")) for s in (small, cards["on one H100 SXM 80 GB"])
        ]
        assert 2 < hours[0] / hours[1] < 3.2


def test_a_small_study_needs_no_card():
    lines = dict(plan_adapt(AdaptStudy.read(FILES[0])).lines())
    assert not any(name.startswith("on one ") for name in lines)


def test_their_dictionaries_are_in_saelens_list():
    if importlib.util.find_spec("sae_lens") is None:
        pytest.skip("SAELens, whose list is read, is not installed")
    gemma = [file for file in FILES if "gemma" in file.stem]
    brought = [one for f in gemma for one in AdaptStudy.read(f).dictionaries.bring.values()]
    assert len(brought) == 14 + 3
    for one in brought:
        release, _, inside = one.address.removeprefix("hf://google/").partition("/")
        entry = look_up(f"saelens:{release}/{inside}")
        assert one.address == f"hf://{entry.repo}/{entry.path}"
        assert f"layers.{inside.split('_')[1].split('/')[0]}" == one.site
    for name, one in AdaptStudy.read(LLAMA).dictionaries.bring.items():
        entry = look_up(f"saelens:llama_scope_lxr_32x/{name}r_32x")
        assert one.address == f"hf://{entry.repo}/{entry.path}"
        assert one.site == f"layers.{name[1:]}"


@pytest.mark.parametrize("quick", [False, True])
def test_the_demos_are_planned(quick):
    study = adapt_demo(quick)
    assert AdaptStudy.parse(study.plain(), "again") == study
    assert plan_adapt(study).held_out_tokens == study.measure_tokens


def test_what_fits_take_from_each_other_is_planned_once(monkeypatch):
    study = adapt_demo(quick=True)
    shape = base_of(study, estimates=False).shape
    cells = [
        FitCell(("d",), ("layers.3",), "lora", r, "all", s) for r, s in ((4, 0), (8, 0), (8, 1))
    ]
    behind = FitCell(("d",), ("layers.3",), "lora", 4, "after", 0)

    def flops(*some, **others):
        given = (study, shape, list(some), {"d": 512}, torch.float32, torch.float32)
        return costs.fits(*given, **others).flops

    def saved(*some):
        return sum(map(flops, some)) - flops(*some)

    whole, inside = 2.0 * shape.block_parameters, 4.0 * shape.d_model * 512
    held_out = study.measure_tokens * (2 * whole + inside)
    one, same, other = cells
    assert saved(one, same) == pytest.approx(study.fit.tokens * whole + held_out)
    assert saved(one, other) == pytest.approx(held_out)
    assert flops(one, same, sharing=False) == pytest.approx(flops(one) + flops(same))
    # Half of eight blocks lie behind the site: forth and back, and in every way that is scored.
    passes = 2 * study.fit.tokens + study.measure_tokens * (2 * (1 + study.fit.random_draws) + 1)
    assert flops(one) - flops(behind) == pytest.approx(passes * whole / 2)
    monkeypatch.setattr(costs, "KEPT_BYTES", 0)
    assert saved(one, same) == pytest.approx(0, abs=1)
