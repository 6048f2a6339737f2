"""What runs leave, as folders for the hub: opened again by SAELens, PEFT and this package."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import torch
from huggingface_hub import ModelCard, SpaceCard
from huggingface_hub.repocard_data import model_index_to_eval_results
from peft import PeftModel
from sae_lens import SAE

import lorascope as ls
from lorascope import cli
from lorascope.activations.text import Document, Segment
from lorascope.activations.tokens import windows
from lorascope.dictionaries import hub
from lorascope.dictionaries.files import save
from lorascope.fits.fitting import fit as fit_around
from lorascope.fits.settings import Adapting, Lora
from lorascope.fits.wrapper import Spliced
from lorascope.latent_adapters.adapter import LatentAdapter
from lorascope.latent_adapters.card import LatentCard, OverDictionary
from lorascope.models.load import load_base
from lorascope.results import Estimates
from lorascope.workflows import publishing
from lorascope.workflows.publishing import Wish, publish_folder, writer

ROWS = torch.randn(300, 32, generator=torch.Generator().manual_seed(0))


def card_of(folder, kind=ModelCard):
    """The card, its metadata held to what the hub's own reader takes."""
    card = kind.load(folder / "README.md", ignore_metadata_errors=False)
    assert hub.UNNAMED not in card.content
    return card


@pytest.fixture(scope="module")
def published(finished_run, tmp_path_factory):
    """The audit's dictionaries as they would be uploaded."""
    out = tmp_path_factory.mktemp("published") / "saes"
    assert publish_folder(finished_run, "me/saes", Wish(license="mit"), out) == str(out)
    return out


def test_dictionaries_of_an_audit_are_its_own_and_no_controls(published, finished_run):
    made = {path.name for path in published.iterdir() if path.is_dir()}
    assert made == {
        f"layers.1-{what}-seed{seed}"
        for what in ("base", "delta-r2", "delta-r4")
        for seed in (0, 1)
    }
    assert len(list((finished_run / "dictionaries").iterdir())) > len(made)


def test_saelens_opens_each_and_computes_the_same(published):
    rows = ROWS[:, : ls.SAE.from_pretrained(published / "layers.1-base-seed0").d_model]
    for folder in (p for p in published.iterdir() if p.is_dir()):
        ours, theirs = ls.SAE.from_pretrained(folder), SAE.load_from_disk(folder)
        torch.testing.assert_close(theirs.encode(rows), ours.encode(rows), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(theirs(rows), ours(rows), rtol=1e-5, atol=1e-5)
        assert theirs.cfg.metadata["hook_name"] == "blocks.1.hook_resid_post"


def test_the_card_has_every_number_beside_its_chance_level(published, finished_run):
    card = card_of(published)
    assert (card.data.library_name, card.data.license) == ("saelens", "mit")
    assert "me/saes" in card.text
    assert "It reads differences" in card.text
    results = {
        (one.dataset_config, one.metric_name): one.metric_value for one in card.data.eval_results
    }
    measured = Estimates.read(finished_run / "results" / "estimates.parquet")
    error = measured.of_adapters.one(
        "relative_error", adapter="r2", site="layers.1", seed=1, dictionary="delta"
    )
    of = next(of for of, _ in results if "r2" in of and "seed 1" in of)
    value = results[of, "relative_error (ratio)"]
    chance = results[of, f"relative_error (ratio), chance level: {error.headline.name}"]
    assert value == pytest.approx(error.value, rel=1e-3)
    assert chance == pytest.approx(error.chance, rel=1e-3)
    row = next(line for line in card.text.splitlines() if of in line and "`relative_error`" in line)
    assert f"{error.value:.3g}" in row
    assert error.verdict in row
    # What the hub shows is read from the metadata alone.
    stored = card.data.to_dict()["model-index"]
    assert len(model_index_to_eval_results(stored)[1]) == len(results)


def test_nothing_published_says_where_on_this_machine_it_lay(published, finished_run):
    for file in (p for p in published.rglob("*") if p.is_file() and p.suffix != ".safetensors"):
        assert str(finished_run.parent) not in file.read_text(), file


def test_some_dictionaries_are_chosen_by_name(finished_run, tmp_path):
    publish_folder(finished_run, "me/a", Wish(only=("*-delta-r4-seed0",)), tmp_path / "out")
    made = [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()]
    assert made == ["layers.1-delta-r4-seed0"]
    with pytest.raises(ls.InputError, match="no dictionary of"):
        publish_folder(finished_run, "me/a", Wish(only=("*r9*",)), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_one_dictionary_with_the_numbers_of_its_run(finished_run, tmp_path):
    source = finished_run / "dictionaries" / "layers.1-delta-r2-seed0"
    publish_folder(source, "me/one", Wish(), tmp_path / "out")
    measures = {one.metric_type for one in card_of(tmp_path / "out").data.eval_results}
    assert {"relative_error", "recovery.kl"} <= measures
    assert SAE.load_from_disk(tmp_path / "out").cfg.d_sae == 64
    # Out of its run nothing is known of it but its card.
    shutil.copytree(source, tmp_path / "alone" / "sae")
    publish_folder(tmp_path / "alone" / "sae", "me/one", Wish(), tmp_path / "other")
    assert not card_of(tmp_path / "other").data.eval_results


def test_the_report_as_a_space(finished_run, tmp_path):
    publish_folder(finished_run, "me/report", Wish(report=True), tmp_path / "out")
    assert card_of(tmp_path / "out", SpaceCard).data.to_dict()["sdk"] == "static"
    page = (finished_run / "report" / "index.html").read_bytes()
    assert (tmp_path / "out" / "index.html").read_bytes() == page
    assert writer(finished_run, Wish(report=True))[1] == "space"


@pytest.fixture
def dictionary(tiny_checkpoint):
    model = str(tiny_checkpoint("llama"))
    rows = torch.randn(400, ls.load(model).d_model, generator=torch.Generator().manual_seed(1))
    made = ls.fit(ls.TopK(n_latents=24, k=4), rows, fitting=ls.Fitting(epochs=1, batch=64))
    made.card = made.card.model_copy(update={"site": "layers.1", "model": model, "target": "base"})
    return made


def test_the_idiom_for_a_dictionary(dictionary, tmp_path):
    dictionary.save_pretrained(tmp_path / "saved")
    assert "topk" in card_of_unnamed(tmp_path / "saved")
    assert opened_by_saelens(tmp_path / "saved", dictionary)
    said = dictionary.push_to_hub("me/sae", dry_run=tmp_path / "dry")
    assert said == str(tmp_path / "dry")
    for folder in (tmp_path / "saved", tmp_path / "dry"):
        opened = ls.SAE.from_pretrained(folder)
        assert torch.equal(opened.directions, dictionary.directions)
    # A path of this machine is not told to the hub as the base model.
    assert card_of(tmp_path / "dry").data.base_model is None


def card_of_unnamed(folder):
    return (folder / "README.md").read_text()


def test_a_base_model_of_the_hub_is_named(dictionary, tmp_path):
    dictionary.card = dictionary.card.model_copy(update={"model": "google/gemma-2-2b"})
    dictionary.push_to_hub("me/sae", dry_run=tmp_path / "dry")
    assert card_of(tmp_path / "dry").data.base_model == "google/gemma-2-2b"


def opened_by_saelens(folder, dictionary):
    """The one dictionary below a folder, as SAELens opens it, computes what it is to."""
    (place,) = (file.parent for file in folder.rglob("cfg.json"))
    rows = ROWS[:, : dictionary.d_model]
    torch.testing.assert_close(SAE.load_from_disk(place).encode(rows), dictionary.encode(rows))
    return True


def latent_adapter(dictionary):
    adapter = LatentAdapter(dictionary, 2, scale=0.5, generator=torch.Generator().manual_seed(0))
    adapter.card = LatentCard(
        model=dictionary.card.model,
        site="layers.1",
        dictionary=OverDictionary.of(dictionary),
        rank=2,
    )
    return adapter


def test_a_latent_adapter_carries_its_dictionary_along(dictionary, tmp_path):
    save(dictionary, tmp_path / "elsewhere")
    adapter = latent_adapter(ls.open_dictionary(tmp_path / "elsewhere"))
    adapter.push_to_hub("me/latent", dry_run=tmp_path / "dry")
    shutil.rmtree(tmp_path / "elsewhere")
    moved = (tmp_path / "dry").rename(tmp_path / "downloaded")
    opened = LatentAdapter.from_pretrained(moved)
    assert opened.pairs(5) == adapter.pairs(5)
    assert opened_by_saelens(moved, dictionary)
    card = card_of(moved)
    assert card.data.library_name == "lorascope"
    assert "me/latent" in card.text
    publish_folder(moved, "you/latent", Wish(license="mit"), tmp_path / "again")
    assert LatentAdapter.from_pretrained(tmp_path / "again").pairs(5) == adapter.pairs(5)
    assert card_of(tmp_path / "again").data.license == "mit"


def test_a_spliced_model_and_a_fit(dictionary, tiny_checkpoint, tmp_path):
    model = str(tiny_checkpoint("llama"))
    module, tokenizer = load_base(model)
    run = tmp_path / "run"
    save(dictionary, run / "dictionaries" / "layers.1-24-k4")
    (run / "study.yaml").write_text("workflow: adapt\n")
    texts = [
        Document((Segment(" ".join(f"w{(i * j) % 50}" for j in range(20))),)) for i in range(12)
    ]
    cut = windows(texts[:8], tokenizer, 16), windows(texts[8:], tokenizer, 16)
    folder = run / "fits" / "layers.1-24-k4-lora-all-r2-s0"
    settings = Adapting(lora=Lora(rank=2, blocks="all", rate=1e-2), tokens=200, batch=4)
    fit_around(
        module,
        tokenizer,
        {"layers.1": dictionary},
        *cut,
        folder,
        settings,
        model=model,
        evaluations=0,
    )
    publish_folder(folder, "me/spliced", Wish(), tmp_path / "out")
    shutil.rmtree(run)
    opened = Spliced.from_pretrained(tmp_path / "out", device="cpu")
    bare, _ = load_base(model)
    ids = torch.tensor([[3, 4, 5, 6]])
    by_hand = PeftModel.from_pretrained(bare, tmp_path / "out" / "adapter")
    expected = Spliced(by_hand.eval(), {"layers.1": dictionary}, special_ids=opened.special_ids)
    torch.testing.assert_close(opened(ids).logits, expected(ids).logits)
    assert not torch.equal(opened(ids).logits, load_base(model)[0](ids).logits)
    assert "low-rank adapter" in card_of(tmp_path / "out").text
    assert str(run) not in card_of(tmp_path / "out").text
    # The same idiom for the model itself.
    opened.push_to_hub("me/spliced", dry_run=tmp_path / "again")
    again = Spliced.from_pretrained(tmp_path / "again", device="cpu")
    torch.testing.assert_close(again(ids).logits, opened(ids).logits)
    for folder in (tmp_path / "out", tmp_path / "again"):
        assert opened_by_saelens(folder, dictionary)
        assert card_of(folder).data.library_name == "lorascope"


def test_nothing_goes_out_in_a_dry_run_and_all_of_it_otherwise(dictionary, tmp_path, monkeypatch):
    calls = []

    class Api:
        def __init__(self, **options):
            calls.append(("api", options["token"]))

        def create_repo(self, repo_id, **options):
            calls.append(("create", repo_id, options))
            return f"https://hub/{repo_id}"

        def upload_folder(self, *, folder_path, **options):
            files = sorted(p.name for p in folder_path.iterdir())
            calls.append(("upload", options["repo_id"], files, options["revision"]))

    monkeypatch.setattr(hub, "HfApi", Api)
    dictionary.push_to_hub("me/sae", dry_run=tmp_path / "dry")
    assert calls == []
    said = dictionary.push_to_hub("me/sae", private=True, token="t", revision="two")
    assert said == "https://hub/me/sae"
    files = ["README.md", "cfg.json", "lorascope.json", "sae_weights.safetensors"]
    assert calls == [
        ("api", "t"),
        ("create", "me/sae", {"repo_type": "model", "private": True, "exist_ok": True}),
        ("upload", "me/sae", files, "two"),
    ]


def test_what_the_hub_says_becomes_one_line(dictionary, monkeypatch):
    class Refuses:
        def __init__(self, **options):
            pass

        def create_repo(self, *args, **options):
            raise OSError("403\nForbidden")

    monkeypatch.setattr(hub, "HfApi", Refuses)
    with pytest.raises(ls.InputError, match=r"^me/sae: the hub did not take it \(403\)"):
        dictionary.push_to_hub("me/sae")


@pytest.mark.parametrize("name", ["sae", "me/", "me/a b", "a/b/c", ""])
def test_what_names_no_repository_is_refused_first(dictionary, tmp_path, name):
    with pytest.raises(ls.InputError):
        dictionary.push_to_hub(name, dry_run=tmp_path / "dry")
    assert not (tmp_path / "dry").exists()


def test_folders_with_nothing_to_publish_are_refused(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(ls.InputError, match="no dictionary"):
        writer(tmp_path / "mine", Wish())
    with pytest.raises(ls.InputError, match="no such folder"):
        writer(tmp_path / "nope", Wish())
    with pytest.raises(ls.InputError, match="lorascope report"):
        publish_folder(tmp_path / "mine", "me/a", Wish(report=True), tmp_path / "out")
    fits = tmp_path / "mine" / "fits" / "one"
    fits.mkdir(parents=True)
    with pytest.raises(ls.InputError, match="give one of its parts"):
        writer(tmp_path / "mine", Wish())


def test_the_command(finished_run, tmp_path, monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["lorascope", "publish", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as stopped:
            return stopped.code
        return 0

    out = tmp_path / "out"
    only = ("--only", "*-delta-r2-seed0")
    assert call(finished_run, "me/saes", *only, "--dry-run", out) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert json.loads((out / "layers.1-delta-r2-seed0" / "lorascope.json").read_text())
    assert call(finished_run, "me/saes", *only, "--dry-run", out) == 2
    assert "holds something already" in capsys.readouterr().err
    assert call(finished_run) == 2
    assert "--dry-run" in capsys.readouterr().err
    licensed = tmp_path / "licensed"
    assert call(finished_run, *only, "--license", "apache-2.0", "--dry-run", licensed) == 0
    assert ModelCard.load(licensed / "README.md").data.license == "apache-2.0"
    page = tmp_path / "page"
    assert call(finished_run, "me/page", "--report", "--dry-run", page) == 0
    assert (page / "index.html").is_file()
    wishes = []
    monkeypatch.setattr(
        publishing, "publish_folder", lambda *asked: wishes.append(asked) or "there"
    )
    assert call(finished_run, "me/saes", "--private", "--revision", "draft") == 0
    assert (wishes[0][2].private, wishes[0][2].revision, wishes[0][3]) == (True, "draft", None)


def test_the_numbers_of_cards_are_defined():
    from lorascope.measures.definitions import DEFINITIONS

    for names in (publishing.OF_DELTA, publishing.OF_BASE, publishing.OF_FIT):
        assert set(names) <= set(DEFINITIONS)
    for start in publishing.OF_LATENT:
        assert any(name.startswith(start) for name in DEFINITIONS)
