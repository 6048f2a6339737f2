"""Which dictionaries a study trains, and which brought ones it accepts."""

import pytest
import torch

from lorascope.activations.batch import TokenRows
from lorascope.activations.shards import BASE, Shards, ShardWriter
from lorascope.dictionaries.card import Card
from lorascope.dictionaries.files import save
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.errors import InputError
from lorascope.fits.wrapper import identity
from lorascope.geometry.chance import isotropic
from lorascope.randomness import generator
from lorascope.report.result import read_results
from lorascope.runs import read_json
from lorascope.studies.audit.learning import bring, rows_for, wanted
from lorascope.studies.audit.study import AuditStudy
from lorascope.studies.audit.workflow import AUDIT
from lorascope.workflows.run_dictionaries import AuditDictionary


def test_a_brought_dictionary_is_known_by_what_it_computes(settings, tmp_path):
    place = tmp_path / "brought"
    study = AuditStudy.parse(
        settings(
            model="embedded",
            adapters={"a": "x"},
            sites=["layers.1"],
            dictionaries={"base": {"layers.1": str(place)}},
        ),
        "test",
    )

    def mark(seed, where=place):
        directions = isotropic(40, 16, generator(seed))
        parts = (directions.T.clone(), torch.zeros(40), directions, torch.zeros(16))
        save(ReluDictionary(*parts), where)
        return identity(bring(study, 16)["layers.1"])

    first = mark(0)
    assert mark(1) != first  # written over in place
    assert mark(0) == first


def test_wanted_by_hand(settings):
    plain = settings(
        adapters={"a": "x", "b": "y"},
        sites=["layers.0", "layers.1"],
        dictionaries={
            "seeds": [3, 5],
            "base": {"layers.1": "address"},
            "controls": ["shuffled", "permuted"],
        },
        controls={"gaussian_dictionaries": 2},
        ablation={"values": [0.05, 0.5], "site": "layers.1"},
    )
    study = AuditStudy.parse(plain, "test")
    names = [
        key.name for key in wanted(study, list(study.sites), ["a", "b"], ["a~null0", "b~null0"])
    ]
    assert names == [
        "layers.0-base-seed3",
        "layers.0-base-seed5",
        "layers.0-delta-a-seed3",
        "layers.0-delta-a-seed5",
        "layers.0-shuffled-a-seed3",
        "layers.0-permuted-a-seed3",
        "layers.0-gaussian-a-seed3-draw0",
        "layers.0-gaussian-a-seed3-draw1",
        "layers.0-delta-b-seed3",
        "layers.0-delta-b-seed5",
        "layers.0-shuffled-b-seed3",
        "layers.0-permuted-b-seed3",
        "layers.0-gaussian-b-seed3-draw0",
        "layers.0-gaussian-b-seed3-draw1",
        "layers.0-delta-a~null0-seed3",
        "layers.0-delta-b~null0-seed3",
        "layers.1-delta-a-seed3",
        "layers.1-delta-a-seed5",
        "layers.1-shuffled-a-seed3",
        "layers.1-permuted-a-seed3",
        "layers.1-gaussian-a-seed3-draw0",
        "layers.1-gaussian-a-seed3-draw1",
        "layers.1-delta-b-seed3",
        "layers.1-delta-b-seed5",
        "layers.1-shuffled-b-seed3",
        "layers.1-permuted-b-seed3",
        "layers.1-gaussian-b-seed3-draw0",
        "layers.1-gaussian-b-seed3-draw1",
        "layers.1-delta-a~null0-seed3",
        "layers.1-delta-b~null0-seed3",
        "layers.1-delta-a-seed3-l1=0.05",
        "layers.1-delta-a-seed3-l1=0.5",
    ]


def brought(folder, model, d=32, site="layers.1"):
    directions = isotropic(48, d, generator(0, "brought"))
    card = Card(target="base", site=site, model=model)
    zeros = torch.zeros(48)
    save(ReluDictionary(directions.T, zeros, directions, torch.zeros(d), card=card), folder)
    return str(folder)


@pytest.fixture
def with_base(settings, save_adapter, tiny_checkpoint, quiet, no_report, tmp_path):
    """Audit with a base dictionary brought along; returns the run folder."""
    adapter = save_adapter(tmp_path / "a", target_modules=["o_proj"])

    def run(**options):
        address = brought(tmp_path / "base", **{"model": str(tiny_checkpoint("llama")), **options})
        plain = settings(
            adapters={"a": str(adapter)},
            dictionaries={"seeds": [0], "controls": [], "base": {"layers.1": address}},
        )
        AUDIT.run(AuditStudy.parse(plain, "test"), tmp_path / "run", quiet)
        return tmp_path / "run"

    return run


def test_a_brought_dictionary_stands_in_for_a_trained_one(with_base):
    run = with_base()
    name = "layers.1-delta-a"
    drawn = [f"{name}~null{draw}-seed0" for draw in (0, 1)]
    drawn += [f"layers.1-gaussian-a-seed0-draw{draw}" for draw in (0, 1)]
    found = {folder.name for folder in (run / "dictionaries").iterdir()}
    assert found == {f"{name}-seed0", "layers.1-brought", *drawn}
    table = read_results(run).numbers.select().to_frame()
    assert not ((table["dictionary"] == "base") & (table["compared"] != "")).any()
    dead = table[(table["measure"] == "dead_share") & (table["dictionary"] == "base")]
    assert list(dead["n"]) == [48]
    card = read_json(run / "dictionaries" / "layers.1-delta-a-seed0" / "lorascope.json")
    assert (card["target"], card["site"], card["adapter"]) == ("delta", "layers.1", "a")
    assert len(card["adapter_sha256"]) == 64


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"d": 16}, "reads a stream of width 16, the model's is 32"),
        ({"model": "org/another"}, "made for org/another"),
        ({"site": "layers.2"}, r"made for layers\.2, not for layers\.1"),
    ],
)
def test_a_brought_dictionary_of_another_kind_is_refused_first(with_base, options, match, tmp_path):
    with pytest.raises(InputError, match=match):
        with_base(**options)
    assert not (tmp_path / "run").exists()


def test_a_site_before_the_first_adapted_block_is_refused_before_capture(
    settings, save_adapter, quiet, tmp_path
):
    late = save_adapter(tmp_path / "a", target_modules=["o_proj"], layers_to_transform=[2])
    plain = settings(adapters={"late": str(late)})
    with pytest.raises(InputError, match=r'adapter "late" changes nothing at layers\.1'):
        AUDIT.run(AuditStudy.parse(plain, "test"), tmp_path / "run", quiet)
    assert not (tmp_path / "run").exists()


def test_an_ablation_names_what_the_study_has(settings):
    plain = settings(adapters={"a": "x"}, ablation={"values": [0.1, 0.2], "adapter": "b"})
    with pytest.raises(InputError, match="ablation: b is none of the study's a"):
        list(wanted(AuditStudy.parse(plain, "test"), ["layers.1"], ["a"]))


@pytest.mark.parametrize(
    ("ablation", "match"),
    [
        ({"setting": "k", "values": [4, 8]}, r"relu has no k"),
        ({"setting": "l1", "values": [0.1, -1.0]}, r"l1"),
        ({"values": [0.1]}, "values"),
    ],
)
def test_an_ablation_the_architecture_cannot_take_is_refused(settings, ablation, match):
    plain = settings(adapters={"a": "x"}, ablation=ablation)
    with pytest.raises(InputError, match=match):
        AuditStudy.parse(plain, "test")


def test_several_adapters_of_one_name_are_a_group(settings):
    plain = settings(adapters={"mine": ["one", "two"], "other": "three"})
    study = AuditStudy.parse(plain, "test")
    assert study.given == {"mine-1": "one", "mine-2": "two", "other": "three"}
    assert study.groups == {"mine-1": "mine", "mine-2": "mine", "other": "other"}
    trained = settings(train={"training": {"ranks": [4, 8]}, "seeds": [1, 2]})
    assert AuditStudy.parse(trained, "test").groups == {
        "r4-s1": "r4",
        "r4-s2": "r4",
        "r8-s1": "r8",
        "r8-s2": "r8",
    }


def test_what_controls_are_made_of(tmp_path):
    n, d, site = 400, 6, "layers.0"
    random = generator(0)
    rows = torch.randn(n, d, generator=random) @ torch.randn(d, d, generator=random) + 1
    zeros = torch.zeros(n, dtype=torch.long)
    writer = ShardWriter(tmp_path, "x", torch.float32)
    writer.add(TokenRows(zeros, zeros, zeros, zeros.bool()), {(site, f): rows for f in (BASE, "a")})
    writer.close(zeros[:0], {"sites": [site], "variants": [BASE, "a"], "d_model": d})
    shards = Shards.open(tmp_path)

    def made(target):
        return torch.cat(list(rows_for(AuditDictionary(target, site, "a", 0), shards).chunks()))

    assert torch.equal(made("delta"), rows)
    permuted, shuffled, gaussian = made("permuted"), made("shuffled"), made("gaussian")
    assert torch.equal(permuted.sort(1).values, rows.sort(1).values)
    assert not torch.equal(permuted, rows)
    order = [int((permuted[0] == value).nonzero()) for value in rows[0]]
    assert torch.equal(permuted[:, order], rows)
    assert torch.equal(shuffled.sort(0).values, rows.sort(0).values)
    assert not torch.equal(shuffled.sort(1).values, rows.sort(1).values)
    torch.testing.assert_close(gaussian.mean(0), rows.mean(0), atol=0.4, rtol=0)
    torch.testing.assert_close(gaussian.T.cov(), rows.T.cov(), atol=2.5, rtol=0.3)
