"""What is public: wrong arguments end in one line, results show themselves in one."""

import pytest
import torch

import lorascope as ls
from lorascope.latent_adapters.sparsity import TopM

ROWS = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
SETTINGS = ls.ReLU(n_latents=8, l1=0.1, resample=False)
SHORT = ls.Fitting(epochs=1, batch=64)


@pytest.fixture(scope="module")
def dictionary():
    return ls.fit(SETTINGS, ROWS, fitting=SHORT)


@pytest.fixture(scope="module")
def model():
    return ls.load("embedded")


def refused(call):
    with pytest.raises(ls.InputError) as error:
        call()
    text = str(error.value)
    assert text.strip()
    assert "\n" not in text
    return text


def test_what_is_no_dictionary_is_refused_by_all_that_takes_one(dictionary, tmp_path):
    for wrong in (SETTINGS, "folder", None, [[1.0, 0.0]], torch.ones(3, 4, dtype=torch.long)):
        assert "first" in refused(lambda wrong=wrong: ls.max_cosine(wrong, dictionary))
        assert "second" in refused(lambda wrong=wrong: ls.max_cosine(dictionary, wrong))
        refused(lambda wrong=wrong: ls.save(wrong, tmp_path))
        refused(lambda wrong=wrong: ls.LatentAdapter(wrong, 1))
    assert list(tmp_path.iterdir()) == []
    assert "ReLU" in refused(lambda: ls.max_cosine(dictionary, SETTINGS))
    refused(lambda: ls.max_cosine(dictionary, dictionary, seed="0"))
    refused(lambda: ls.save(dictionary, None))


def test_dictionaries_and_their_directions_compare_alike(dictionary):
    other = ls.fit(SETTINGS, ROWS, fitting=SHORT, seed=1)
    whole = ls.max_cosine(dictionary, other)
    assert whole == ls.max_cosine(dictionary.directions, other)
    assert whole == ls.max_cosine(dictionary, other.directions)


@pytest.mark.parametrize("address", [None, 3, SETTINGS])
def test_what_is_no_address_is_refused(address):
    refused(lambda: ls.open_dictionary(address))
    refused(lambda: ls.load(address))
    refused(lambda: ls.load("embedded", {"r4": address}))


@pytest.mark.parametrize(
    "changed",
    [
        {"architecture": "relu"},
        {"architecture": None},
        {"rows": [[1.0, 2.0]]},
        {"rows": {"layers.1": ROWS}},
        {"rows": ROWS[0]},
        {"rows": ROWS.long()},
        {"fitting": {"epochs": 1}},
        {"seed": "0"},
        {"seed": True},
        {"card": {"site": "layers.1"}},
        {"device": "no such device"},
        {"checkpoint": 3},
    ],
    ids=str,
)
def test_training_refuses_arguments_of_another_kind(changed):
    given = {"architecture": SETTINGS, "rows": ROWS, "fitting": SHORT} | changed
    architecture, rows = given.pop("architecture"), given.pop("rows")
    refused(lambda: ls.fit(architecture, rows, **given))


@pytest.mark.parametrize("jobs", [SETTINGS, [SETTINGS], [], ls.Job(SETTINGS), None], ids=repr)
def test_several_dictionaries_are_asked_for_by_a_list_of_jobs(jobs):
    refused(lambda: ls.fit_many(jobs, ROWS, SHORT))
    refused(lambda: ls.fit_many([ls.Job(SETTINGS)], ROWS, SHORT, held_out=[[1.0]]))


def test_rows_of_one_site_are_named_where_a_whole_dict_is_given():
    assert 'deltas(…)["layers.7"]' in refused(lambda: ls.fit(SETTINGS, {"layers.7": ROWS}))


def test_deltas_refuse_arguments_of_another_kind(model, monkeypatch):
    refused(lambda: ls.deltas("embedded", ["a"], ["layers.1"], "r4"))
    refused(lambda: ls.deltas(model, ["a"], ["layers.1"], None))
    assert "list" in refused(lambda: ls.deltas(model, ["a"], "layers.1", "r4"))
    # What follows is looked at before anything is read.
    monkeypatch.setattr(type(model), "info", lambda self, name: None)
    refused(lambda: ls.deltas(model, None, ["layers.1"], "r4"))
    refused(lambda: ls.deltas(model, [3], ["layers.1"], "r4"))


def test_models_refuse_arguments_of_another_kind():
    for adapters in (["folder"], "folder", {3: "folder"}):
        refused(lambda adapters=adapters: ls.load("embedded", adapters))
    refused(lambda: ls.load("embedded", dtype=32))
    refused(lambda: ls.AdaptedModel("embedded", None, "embedded"))
    assert ls.load("embedded", dtype=torch.float32).dtype == torch.float32


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (ls.ReLU, {}),
        (ls.ReLU, {"n_latents": 8, "k": 3}),
        (ls.TopK, {"n_latents": 8, "k": -1}),
        (ls.BatchTopK, {"n_latents": "many", "k": 2}),
        (ls.JumpReLU, {"n_latents": 8, "start": "nowhere"}),
        (ls.Gated, {"n_latents": None}),
        (ls.Matryoshka, {"n_latents": [8]}),
        (ls.Fitting, {"epochs": "two"}),
    ],
)
def test_settings_that_are_wrong_are_refused_in_one_line_that_names_them(kind, given):
    assert kind.__name__ in refused(lambda: kind(**given))


def test_latent_adapters_refuse_arguments_of_another_kind(dictionary):
    for rank in ("1", 1.5, None):
        refused(lambda rank=rank: ls.LatentAdapter(dictionary, rank))
    refused(lambda: ls.LatentAdapter(dictionary, 1, "topk"))
    assert ls.LatentAdapter(dictionary, 1, TopM(m=2)).rank == 1


def test_results_show_themselves_in_one_short_line(dictionary, model):
    (_, history), *_ = ls.fit_many([ls.Job(SETTINGS)], ROWS, SHORT)
    shown = {
        "8 latents of 4": repr(dictionary),
        "rank 2 over 8": repr(ls.LatentAdapter(dictionary, 2)),
        "8 blocks × 192; adapters: none; shows base": repr(model),
        "error": repr(history),
        "seed=0": repr(ls.max_cosine(dictionary, dictionary)),
    }
    for part, text in shown.items():
        assert part in text
        assert "\n" not in text
        assert len(text) < 250
    card = repr(dictionary.card)
    assert "scale" in card
    assert "neuronpedia" not in card
