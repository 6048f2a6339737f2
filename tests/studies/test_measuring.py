"""Numbers that cannot be computed are left out with the reason; they do not take others along."""

import json
import re
from collections import Counter

import pytest
import torch

from lorascope.activations.batch import TokenRows
from lorascope.activations.shards import BASE, Shards, ShardWriter
from lorascope.dictionaries.files import save
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.errors import InputError
from lorascope.geometry.chance import isotropic
from lorascope.randomness import generator
from lorascope.results import ADAPTER, GAUSSIAN, Key
from lorascope.studies.audit.learning import RunDictionaries
from lorascope.studies.audit.measuring import SETTINGS, Audit, at_site
from lorascope.studies.audit.study import AuditStudy
from lorascope.studies.audit.variants import Variants
from lorascope.studies.audit.workflow import AUDIT
from lorascope.workflows.measured import Measured
from lorascope.workflows.run_dictionaries import AuditDictionary

D, LATENTS, SITE = 12, 10, "layers.1"


def shards(folder, rows_per_document, name):
    """Independent Gaussian streams and deltas of 20 documents."""
    n = 20 * rows_per_document
    random = generator(0, name)
    zeros = torch.zeros(n, dtype=torch.long)
    document = torch.arange(n) // rows_per_document
    writer = ShardWriter(folder, name, torch.float32)
    rows = {(SITE, variant): torch.randn(n, D, generator=random) for variant in (BASE, "r4")}
    writer.add(TokenRows(document, torch.arange(n), zeros, zeros.bool()), rows)
    writer.close(zeros[:0], {"sites": [SITE], "variants": [BASE, "r4"], "d_model": D})
    return Shards.open(folder)


def dictionary(name, directions, bias=-0.5):
    n = len(directions)
    return ReluDictionary(directions.T, torch.full((n,), bias), directions, torch.zeros(D))


@pytest.fixture
def measured(tmp_path, quiet):
    """`measured(delta dictionary, measures=…)`: what an audit of synthetic rows comes to."""

    def run(delta, **measures):
        base = dictionary("base", isotropic(LATENTS, D, generator(1, "base")))
        folders = {
            AuditDictionary("base", SITE, "", 0): base,
            AuditDictionary("delta", SITE, "r4", 0): delta,
        }
        for key, one in folders.items():
            save(one, tmp_path / key.name)
        study = AuditStudy.parse(
            {
                "model": "none",
                "adapters": {"r4": "none"},
                "sites": [SITE],
                "texts": {"sources": ["none"]},
                "dictionaries": {"seeds": [0]},
                "measures": {"repeats": 3, "pursuit": False, **measures},
            },
            "test",
        )
        learned = RunDictionaries({key: tmp_path / key.name for key in folders}, {})
        probe, held_out = (shards(tmp_path / name, 12, name) for name in ("probe", "held_out"))
        variants = Variants({"r4": Key("r4", 4)})
        given = study.only(*SETTINGS)
        whole = Audit(given, probe, held_out, learned, variants, {SITE: 0.01}, 0)
        found = at_site(whole, SITE, lambda count: None)
        found.write(tmp_path)
        # Written out, because a missing interval is no number and equals nothing.
        assert repr(Measured.read(tmp_path)) == repr(found)
        return found

    return run


def settings_of(found):
    """How many angle numbers there are for each k."""
    return Counter(e.key.k for e in found.estimates if e.measure.startswith("angle"))


def delta_dictionary(**options):
    return dictionary("delta", isotropic(LATENTS, D, generator(2, "delta")), **options)


def test_everything_is_there_where_nothing_stands_in_the_way(measured):
    found = measured(delta_dictionary(), angles_k=(2, 4))
    assert found.warnings == []
    assert settings_of(found) == {2: 4, 4: 4}
    assert len(found.estimates) == 3 + 4 + 6 + 1 + 4 + 2 + 5 + 8
    verdicts = {e.measure: e.verdict for e in found.estimates if e.key.dictionary != "base"}
    for measure_ in ("max_cosine.mean", "angle.mean", "cka_debiased.base_delta"):
        assert verdicts[measure_] in ("equal", "not settled")


def test_pursuit_joins_where_it_is_asked_for(measured):
    found = measured(delta_dictionary(), angles_k=(2,), pursuit=True)
    names = {(e.measure, e.key.dictionary) for e in found.estimates}
    assert {("pursuit.gap", "base"), ("pursuit.fvu", "delta"), ("pca.fvu", "PCA")} <= names


def test_angles_the_directions_do_not_span_are_left_out(measured):
    found = measured(delta_dictionary(), angles_k=(4, 11, 2))
    assert settings_of(found) == {2: 4, 4: 4}
    (warning,) = found.warnings
    assert warning.startswith("r4 at layers.1 (delta vs base, seed 0): numbers left out: ")
    assert "k=11" in warning
    assert "spans 10 dimensions" in warning
    assert any(e.measure == "max_cosine.mean" for e in found.estimates)


def test_a_dictionary_without_alive_latents_leaves_the_rest_standing(measured):
    found = measured(delta_dictionary(bias=-1e6), angles_k=(2,))
    (warning,) = found.warnings
    assert "no latent of the first dictionary is alive" in warning
    measures = {e.measure for e in found.estimates}
    assert not any(m.startswith(("max_cosine", "angle")) for m in measures)
    assert {"relative_error", "improvement", "delta_norm", "cka.base_delta"} <= measures
    (dead,) = [
        e for e in found.estimates if e.measure == "dead_share" and e.key.dictionary == "delta"
    ]
    assert dead.value == 1.0


def test_too_few_documents_for_cka_leave_the_rest_standing(measured, monkeypatch):
    monkeypatch.setattr("lorascope.measures.rows.HeldOut.load", one_document)
    found = measured(delta_dictionary(), angles_k=(2,))
    (warning,) = found.warnings
    assert warning.startswith("r4 at layers.1: numbers left out: CKA of r4: ")
    assert "add documents" in warning
    assert {e.measure for e in found.estimates} >= {"delta_rank", "overlap", "angle.mean"}


def one_document(shards, site, adapter, most=None):
    from lorascope.measures.rows import HeldOut

    base, delta = (shards.load(site, variant) for variant in (BASE, adapter))
    return HeldOut(base, delta, torch.zeros(len(base), dtype=torch.long))


def test_the_line_names_the_place():
    found = Measured()

    def fail():
        raise InputError("too little of it")

    assert found.attempt(Key(site="layers.3"), fail) is False
    assert found.warnings == ["base at layers.3: numbers left out: too little of it"]
    assert found.estimates == []


def test_warnings_reach_the_report(settings, save_adapter, quiet, tmp_path):
    adapter = save_adapter(tmp_path / "a", target_modules=["o_proj", "down_proj"])
    plain = settings(
        adapters={"a": str(adapter)},
        dictionaries={"seeds": [0], "controls": []},
        measures={"angles_k": [8, 33]},
    )
    page = AUDIT.run(AuditStudy.parse(plain, "test"), tmp_path / "run", quiet)
    facts = json.loads((tmp_path / "run" / "results" / "facts.json").read_text())
    drawn = [line for line in facts["warnings"] if re.match(r"draw |\d+ draws ", line)]
    # One line for all draws of a null that fail alike.
    assert len({line.split(" of ", 1)[1] for line in drawn}) == len(drawn)
    assert any("draws (0, 1) of " in line for line in drawn)
    # So many angles are no more to be had of the draws' directions.
    assert {line.split(" of ")[1] for line in drawn} == {ADAPTER, GAUSSIAN}
    # Once for the whole stream and once without its massive coordinates.
    unknown, left_out, without = (line for line in facts["warnings"] if line not in drawn)
    assert without.startswith("a at layers.1 ")
    assert unknown.startswith("a: what it was trained on is unknown")
    assert left_out.startswith("a at layers.1 (delta vs base, seed 0): numbers left out: ")
    assert "choose k ≤ " in left_out
    assert left_out in page.read_text(encoding="utf-8")


def test_one_line_stands_for_all_draws_of_a_null_and_says_how_many():
    def refuse():
        raise InputError("the draw spans 3 dimensions; choose k ≤ 3")

    def refuse_otherwise():
        raise InputError("another reason")

    found = Measured()
    adapters = [Key("r4", None, SITE, 0, "delta", null=ADAPTER, draw=draw) for draw in (0, 1, 2)]
    for place in adapters:
        found.attempt(place, refuse)
    found.attempt(adapters[0], refuse_otherwise)
    found.attempt(Key("r4", None, SITE, 0, "delta"), refuse)
    found.attempt(Key("r4", None, "layers.2", 0, "delta", null=ADAPTER, draw=2), refuse)
    assert len(found.warnings) == 6
    several, other, own, elsewhere = found.told
    assert several.startswith("3 draws (0, 1, 2) of null adapters of r4 at layers.1")
    assert several.endswith("choose k ≤ 3")
    assert other.startswith("draw 0 of null adapters of r4 at layers.1")
    assert own == found.warnings[4]
    assert elsewhere.startswith("draw 2 of null adapters of r4 at layers.2")
    twice = Measured(warnings=[found.warnings[4], found.warnings[0]] * 2)
    assert twice.told == [
        f"{found.warnings[4]} (2 times)",
        f"{found.warnings[0]} (2 times)",
    ]
