"""What the feature browser shows of a finished audit, counted again from activations and texts."""

import shutil

import pytest
import torch

from lorascope.activations.shards import Shards
from lorascope.config import read_yaml
from lorascope.dictionaries.files import open_dictionary
from lorascope.geometry.cosine import unit_rows
from lorascope.report.latents import read_latents
from lorascope.runs import read_json
from lorascope.stages import Graph, make
from lorascope.studies.audit.browsing import without_latents
from lorascope.studies.audit.state import Audited
from lorascope.studies.audit.study import AuditStudy
from lorascope.studies.audit.workflow import stages
from lorascope.workflows.run_dictionaries import AuditDictionary

SITE, ADAPTER = "layers.1", "r4"


@pytest.fixture(scope="module")
def browsed(finished_run, quiet, tmp_path_factory):
    """A copy of the finished run whose latents have been looked at."""
    folder = tmp_path_factory.mktemp("browsed") / "run"
    shutil.copytree(finished_run, folder)
    study = AuditStudy.parse(read_yaml(folder / "study.yaml"), "study.yaml")
    state = Audited(study, folder, quiet)
    graph = Graph(stages(state))
    shutil.rmtree(folder / "features")
    for unit in graph.units:
        if unit[0].name.startswith("features/"):
            make(graph, folder, unit, state, quiet)
    assert without_latents(folder) == []
    return folder


@pytest.fixture(scope="module")
def found(browsed):
    return next(each for each in read_latents(browsed) if each.head["adapter"] == ADAPTER)


@pytest.fixture(scope="module")
def rows(browsed):
    """Activations of the delta dictionary on every held-out row, and where the rows come from."""
    shards = Shards.open(browsed / "activations" / "held_out")
    dictionary = dictionary_of(browsed, "delta")
    return dictionary.encode(shards.load(SITE, ADAPTER)), shards.tokens()


def dictionary_of(folder, target, adapter=ADAPTER):
    name = AuditDictionary(target, SITE, adapter if target == "delta" else "", 0).name
    return open_dictionary(folder / "dictionaries" / name)


def test_every_latent_that_fires_stands_in_order_of_what_it_writes(found, rows):
    written = found.columns["written"]
    assert written == sorted(written, reverse=True)
    assert found.head["rows"] <= 500 < len(rows[0])
    assert set(found.columns["latent"]) <= set((rows[0] > 0).any(0).nonzero().flatten().tolist())
    assert len(set(found.columns["latent"])) == len(found)


def test_density_and_mean_are_those_of_all_rows_within_sampling(found, rows):
    z = rows[0][:, found.columns["latent"]]
    density, mean = (z > 0).float().mean(0), z.sum(0) / (z > 0).sum(0)
    often = density > 0.2
    assert often.any()
    torch.testing.assert_close(
        torch.tensor(found.columns["density"])[often], density[often], atol=0.1, rtol=0
    )
    torch.testing.assert_close(
        torch.tensor(found.columns["mean"])[often], mean[often], atol=0, rtol=0.3
    )


def test_cosines_are_with_the_base_dictionary(browsed, found):
    ours = unit_rows(dictionary_of(browsed, "delta").directions)[found.columns["latent"]]
    cosines = ours @ unit_rows(dictionary_of(browsed, "base").directions).T
    best, nearest = cosines.max(1)
    assert found.columns["base"] == nearest.tolist()
    assert found.columns["cosine"] == pytest.approx(best.tolist(), rel=1e-3)


def test_neighbours_are_the_other_adapters_latents(browsed, found):
    other = unit_rows(dictionary_of(browsed, "delta", "r2").directions)
    assert [(n["site"], n["adapter"]) for n in found.head["near"]] == [(SITE, "r2")]
    ours = unit_rows(dictionary_of(browsed, "delta").directions)
    for latent, record in zip(found.columns["latent"], found.block(0), strict=True):
        ((nearest, cosine),) = record["near"]
        cosines = other @ ours[latent]
        assert nearest == int(cosines.argmax())
        assert cosine == pytest.approx(float(cosines.max()), rel=1e-3)


def test_passages_are_the_texts_with_the_activations_there(found, rows):
    z, tokens = rows
    latent = found.columns["latent"][0]
    for example in found.block(0)[0]["examples"]:
        step = example["value"] / found.block(0)[0]["max"] * 99
        assert example["shades"][example["at"]] == pytest.approx(max(1, step), abs=0.51)
        fits = z[:, latent].sub(example["value"]).abs() < 1e-3 * example["value"]
        words = [int(word.strip().removeprefix("w")) + 3 for word in example["tokens"]]
        at = example["at"]
        places = [
            row
            for row in fits.nonzero().flatten().tolist()
            if tokens.token[row - at : row - at + len(words)].tolist() == words
        ]
        assert places
        stretch = z[places[0] - at : places[0] - at + len(words), latent]
        assert [shade > 0 for shade in example["shades"]] == (stretch > 0).tolist()


def test_effects_stand_with_the_latents_that_were_removed(browsed, found):
    records = read_json(browsed / "effects" / ADAPTER / "latents.json")
    taken = {r["latent"]: r["ablation_loss"] for r in records if r["site"] == SITE}
    loss = dict(zip(found.columns["latent"], found.columns["loss"], strict=True))
    assert {latent for latent, value in loss.items() if value is not None} == set(taken) & set(loss)
    for latent in set(taken) & set(loss):
        assert loss[latent] == pytest.approx(taken[latent], rel=1e-3)
