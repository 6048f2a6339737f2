"""The files in `studies/`: the paper's settings, valid and planned without network or weights."""

import importlib.util
import os
import re
from itertools import chain
from pathlib import Path

import datasets
import pytest
import yaml

from lorascope.dictionaries.registry import look_up
from lorascope.errors import InputError
from lorascope.models.shapes import Shape, published
from lorascope.studies.audit.plan import plan
from lorascope.studies.audit.study import AuditStudy
from lorascope.studies.latent.plan import plan_latent
from lorascope.studies.latent.study import LatentStudy
from lorascope.workflows import speed

STUDIES = Path(__file__).parents[2] / "studies"
ALL = sorted(STUDIES.glob("*.yaml"))
FILES = [file for file in ALL if "workflow" not in yaml.safe_load(file.read_text(encoding="utf-8"))]
PUBLISHED = STUDIES / "gemma-2-9b-as-published.yaml"
CORRECTED = STUDIES / "gemma-2-9b-corrected.yaml"
PYTHIA = STUDIES / "pythia-70m.yaml"


def rows(source):
    (piece,) = datasets.ReadInstruction.from_spec(source.partition(":")[2]).to_absolute(
        {"train": 52002}
    )
    return set(range(piece.from_ or 0, 52002 if piece.to is None else piece.to))


def test_all_of_them_are_here():
    assert [file.stem for file in ALL] == [
        "adapt_embedded",
        "adapt_gemma-2-27b",
        "adapt_gemma-2-2b-steering",
        "adapt_gemma-2-2b-times",
        "adapt_gemma-2-2b-tokens",
        "adapt_gemma-2-2b",
        "adapt_gemma-2-9b",
        "adapt_llama-3.1-8b",
        "adapt_llama-3.2-1b-times",
        "embedded",
        "evaluate_embedded",
        "evaluate_table5_gemma-2-2b",
        "evaluate_tables3_and_6_gemma-2-2b",
        "gemma-2-9b-as-published",
        "gemma-2-9b-corrected",
        "gemma-2-9b-it-latent",
        "latent_embedded",
        "latent_embedded_8k",
        "pythia-70m",
    ]


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_planned_offline_without_weights(file, monkeypatch):
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    monkeypatch.setattr(speed, "_SECONDS", 0.0)
    study = AuditStudy.read(file)
    assert study.name == file.stem
    lines = plan(study).lines()
    said = dict(lines)
    assert {"tokens", "disk", "memory", "arithmetic", "time", "  capture"} <= said.keys()
    assert said["arithmetic"].endswith("floating-point operations")
    assert re.match(r"about [\d.,]+ (s|min|h|days) on this machine", said["time"])
    notes = [text for what, text in lines if what == "estimated"]
    assert bool(notes) == (study.model != "embedded")
    assert ("(estimated)" in said["tokens"]) == bool(notes)
    if notes:
        assert notes[0].startswith(study.model)
        assert notes[1].startswith("tatsu-lab/alpaca")


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_a_typo_gives_one_line(file, tmp_path):
    text = file.read_text(encoding="utf-8")
    copy = tmp_path / file.name
    copy.write_text(text.replace("  n_latents:", "  n_latent:"), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        AuditStudy.read(copy)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f'{copy}: unknown key "dictionaries.architecture.n_latent".')
    assert 'Did you mean "n_latents"?' in line


def test_the_papers_setting():
    study = AuditStudy.read(PUBLISHED)
    training, made = study.train.training, study.dictionaries.architecture
    assert training.ranks == (4, 8, 16, 32)
    assert (training.alpha_over_rank, training.seed, study.train.share) == (2, 42, 1)
    assert study.sites == tuple(f"layers.{i}" for i in (5, 10, 18, 22, 32, 38))
    assert (made.architecture, made.n_latents, made.l1) == ("relu", 16384, 0.15)
    assert study.measures.angles_k == (256, 64, 128, 512)
    assert (study.ablation.site, study.ablation.adapter) == ("layers.5", "r4")
    assert study.ablation.epochs == 3
    assert rows(study.train.records[0]) == set(range(10000))
    assert rows(study.texts.sources[0]) == set(range(5000, 7000))
    assert rows(study.texts.measure_on[0]) == set(range(11000, 11200))
    assert study.texts.keep_seen


def test_the_corrected_setting_differs_where_it_says():
    leaky, clean = AuditStudy.read(PUBLISHED), AuditStudy.read(CORRECTED)
    assert not rows(clean.texts.sources[0]) & rows(clean.train.records[0])
    assert not clean.texts.keep_seen
    balance = clean.texts.balance
    assert len(balance.categories) == 5
    assert (5 * balance.probe, 5 * balance.held_out) == (2000, 200)
    assert len(clean.dictionaries.seeds) >= 3
    assert clean.dictionaries.controls
    for same in ("model", "sites", "seed"):
        assert getattr(clean, same) == getattr(leaky, same)
    assert clean.train.model_copy(update={"seeds": ()}) == leaky.train
    assert len(clean.train.seeds) >= 2
    assert clean.measures.angles_k == leaky.measures.angles_k
    assert clean.measures.effects
    assert clean.measures.pursuit
    assert clean.measures.weights
    assert clean.ablation.values == leaky.ablation.values
    assert clean.dictionaries.base == leaky.dictionaries.base
    assert clean.dictionaries.fitting == leaky.dictionaries.fitting


def test_what_the_paper_leaves_open_is_said():
    text = PUBLISHED.read_text(encoding="utf-8")
    for key in ("dtype", "targets", "steps", "batch", "rate", "dropout", "context", "held_out"):
        lines = re.findall(rf"^ +{key}: .*$|^{key}: .*$", text, re.MULTILINE)
        assert lines, key
        assert all("open" in line for line in lines), key


def test_costs_of_the_papers_setting_by_hand():
    cost = plan(AuditStudy.read(PUBLISHED))
    assert (cost.probe_tokens, cost.held_out_tokens) == (245455, 24545)  # 540 / 4.4 a record
    assert (cost.adapters, cost.sites, cost.dictionaries) == (4, 6, 24 + 5)
    assert cost.dictionary_steps == 3836  # ceil(8 · 245455 / 512)
    d, n = 3584, 16384
    dictionary = 4 * (2 * d * n + d + n)
    activations = 270000 * (6 * 5 * d * 2 + 25)
    lora = 4 * 60 * Shape.of(published("google/gemma-2-9b")).rank_one_parameters
    assert cost.disk == activations + lora + dictionary * (29 + 3)
    parts = {part.name: part for part in cost.parts}
    # The five of the ablation for 3 epochs, 1,439 steps.
    steps = 3836 * 24 + 1439 * 5
    assert parts["dictionary training"].flops == 10 * d * n * 512 * steps
    # 4 variants and the base over 39 of 42 blocks: two operations a parameter and token.
    blocks = 9_241_705_984 - 256000 * d - d
    assert parts["capture"].flops == pytest.approx(2 * blocks * 39 / 42 * 270000 * 5, rel=1e-9)


def test_addresses_are_in_saelens_list():
    if importlib.util.find_spec("sae_lens") is None:
        pytest.skip("SAELens, whose list is read, is not installed")
    for site, address in AuditStudy.read(PUBLISHED).dictionaries.base.items():
        layer = site.removeprefix("layers.")
        entry = look_up(
            f"saelens:gemma-scope-9b-pt-res-canonical/layer_{layer}/width_16k/canonical"
        )
        assert address == f"hf://{entry.repo}/{entry.path}"
    for site, address in AuditStudy.read(PYTHIA).dictionaries.base.items():
        name = f"blocks.{site.removeprefix('layers.')}.hook_resid_post__trainer_10"
        entry = look_up(f"saelens:sae_bench_pythia70m_sweep_topk_ctx128_0730/{name}")
        assert address == f"hf://{entry.repo}/{entry.path}"
        assert "topk-res-16k" in entry.neuronpedia


def test_every_site_of_the_paper_has_its_dictionary():
    for file in (PUBLISHED, CORRECTED):
        study = AuditStudy.read(file)
        assert tuple(study.dictionaries.base) == study.sites


def test_the_page_names_every_study_and_every_open_setting():
    page = (STUDIES.parent / "docs" / "studies.md").read_text(encoding="utf-8")
    for file in FILES:
        assert f"studies/{file.name}" in page
    plain = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))
    for key in chain(plain["capture"], ("targets", "steps", "rate", "epochs", "start")):
        assert f"`{key}`" in page, key


@pytest.mark.parametrize("name", ["latent_embedded", "latent_embedded_8k", "gemma-2-9b-it-latent"])
def test_latent_studies_are_planned_offline(name, monkeypatch):
    monkeypatch.setattr(speed, "_SECONDS", 0.0)
    study = LatentStudy.read(STUDIES / f"{name}.yaml")
    assert study.name == name
    lines = plan_latent(study).lines()
    said, notes = dict(lines), [text for what, text in lines if what == "estimated"]
    assert re.match(r"about [\d.,]+ (s|min|h|days) on this machine", said["time"])
    if study.model == "embedded-it":
        assert not notes
        return
    assert said["dictionary"] == "131,072 latents"
    assert notes[0].startswith("google/gemma-2-9b-it is not at hand")
    assert notes[1].startswith("behaviours/math-in-french is not made yet: 512 records")


def test_the_source_s_setting():
    study = LatentStudy.read(STUDIES / "gemma-2-9b-it-latent.yaml")
    assert (study.site, study.training.rank, study.training.rate) == ("layers.31", 1, 1e-4)
    entry = look_up(study.dictionary)
    assert entry.neuronpedia == "gemma-2-9b-it/31-gemmascope-res-131k"
    assert study.choices["raw L1"].weight == 0.05
    assert {choice.kind for choice in study.choices.values()} == {
        *("dense", "raw_l1", "ratio_l1", "proximal", "top_m", "hard_concrete")
    }
    assert any(choice.preselect for choice in study.choices.values())
    assert len(study.seeds) >= 3
