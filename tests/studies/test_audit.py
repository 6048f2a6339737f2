"""A whole audit: every number there, beside chance, in both tables; the report made from them."""

import json
import shutil
from itertools import product

import numpy as np
import pandas as pd
import pytest

from lorascope.activations.shards import Shards
from lorascope.activations.text import read_documents
from lorascope.measures.definitions import definition
from lorascope.report import build
from lorascope.report.result import read_results
from lorascope.results import ADAPTER, GAUSSIAN
from lorascope.results.labels import DELTA, Of
from lorascope.runs import read_json
from lorascope.selftest.null_audit import null_audit_shares
from lorascope.studies.audit.measuring import TRAINED_ON
from lorascope.studies.audit.study import AuditStudy
from lorascope.studies.audit.workflow import AUDIT

COLUMNS = "measure, adapter, rank, site, seed, dictionary, value, chance, low, high, n, unit"
ADAPTERS, SEEDS = ("r2", "r4"), (0, 1)
COSINES = [f"max_cosine.{x}" for x in ("mean", "median", "q90", "above_0.7", "below_0.3")]
ANGLES = [f"angle.{x}" for x in ("mean", "min", "above_70", "below_20")]
YARDSTICKS = [f"yardstick.{x}" for x in ("fvu", "fvu_pca", "l0", "live_share")]
ERRORS = ["relative_error", "relative_error.frobenius"]
FURTHER = (
    *("ablation", "latent_", "output_change", "pca", "pursuit", "reading", "recovery", "variance"),
    "weights",
)
ONE_A_SITE = [
    "delta_norm",
    "delta_norm.relative",
    "delta_rank",
    "cka.base_delta",
    "cka.base_adapted",
    "cka_debiased.base_delta",
    "cka_debiased.base_adapted",
]


def named(frame):
    """With pairs of dictionaries as tables call them."""
    pairs = zip(frame["dictionary"], frame["compared"], strict=True)
    return frame.assign(dictionary=[str(Of(*pair)) for pair in pairs])


@pytest.fixture(scope="module")
def table(finished_run):
    return named(read_results(finished_run).numbers.select().to_frame())


def expected_rows():
    """(measure, adapter, site, seed, dictionary) of every number, seed −1 where it has none."""
    site = "layers.1"
    yield from ((m, "", site, 0, "base vs base") for m in COSINES + ANGLES)
    yield "massive.share", "", site, -1, ""
    yield from ((m, "", site, seed, "base") for m, seed in product(YARDSTICKS, SEEDS))
    for adapter in ADAPTERS:
        yield "response_loss", adapter, "", -1, ""
        yield from ((m, adapter, site, -1, "") for m in ONE_A_SITE)
        yield from ((m, adapter, site, 0, "delta vs delta") for m in COSINES + ANGLES)
        trained = [(0, "delta"), (1, "delta"), (0, "shuffled"), (0, "permuted")]
        # Those of the ablation too.
        trained += [(0, "delta")] * 2 * (adapter == "r2")
        yield from ((m, adapter, site, *each) for m, each in product(YARDSTICKS, trained))
        for seed in SEEDS:
            of = ("base", "delta", "base difference")
            yield from ((m, adapter, site, seed, d) for m, d in product(ERRORS, of))
            for measure, dictionary in product(["density", "dead_share"], ["base", "delta"]):
                yield measure, adapter, site, seed, dictionary
            for measure in ("overlap", "weakly_aligned"):
                yield measure, adapter, site, seed, "base"
            yield "improvement", adapter, site, seed, "delta"
            yield from ((m, adapter, site, seed, "delta vs base") for m in COSINES + ANGLES)


def test_every_number_is_there_once(table):
    keys = table[["measure", "adapter", "site", "seed", "dictionary"]]
    found = keys.assign(seed=table["seed"].fillna(-1))
    further = table["measure"].str.startswith(FURTHER)
    assert sorted(found[~further].itertuples(index=False, name=None)) == sorted(expected_rows())
    assert not found.assign(**{c: table[c] for c in ("setting", "k", "about")}).duplicated().any()
    ranks = table.loc[table["adapter"] != ""].set_index("adapter")["rank"].to_dict()
    assert ranks == {"r2": 2, "r4": 4}
    angles = table["measure"].str.startswith("angle")
    assert set(table.loc[angles, "k"]) == {8}  # a quarter of the width of 32
    yardsticks = table["measure"].str.startswith("yardstick.")
    assert set(table.loc[~angles & ~further & ~yardsticks, "setting"]) == {""}
    assert set(table.loc[yardsticks, "setting"]) == {"", "l1=0.05", "l1=0.5"}


def test_causes_pursuit_weights_seeds_and_ablation_are_there(table):
    for adapter in ADAPTERS:
        here = table[table["adapter"] == adapter]
        at = {m: set(rows["dictionary"]) for m, rows in here.groupby("measure")}
        assert at["recovery.kl"] == {"exact delta", "delta", "base", "base difference"}
        assert at["latent_ablation.kl"] == at["latent_addition.kl"] == {"delta"}
        assert at["pursuit.gap"] == at["pursuit.relative_error"] == {"base", "delta"}
        assert at["pca.fvu"] == {"PCA"}
        assert at["weights.written_cosine"] == {"base"}
        assert {"output_change.loss", "output_change.kl", "weights.intruders"} <= set(at)
        assert set(here.loc[here["measure"] == "weights.norm", "module"]) == {"all modules"}
    ablation = table[table["measure"] == "ablation.relative_error"]
    assert list(ablation[["adapter", "setting"]].itertuples(index=False, name=None)) == [
        ("r2", "l1=0.05"),
        ("r2", "l1=0.5"),
    ]
    error, density = (
        table[table["measure"] == f"ablation.{m}"]["value"].tolist()
        for m in ("relative_error", "density")
    )
    assert density[0] > density[1]
    assert error[0] != error[1]
    shares = table[table["measure"] == "variance.condition_share"]
    assert "max_cosine.mean" in set(shares["about"])
    assert set(shares["adapter"]) == {""}


def test_trained_controls_are_chance_levels(finished_run):
    nulls = named(read_results(finished_run).estimates.nulls_frame())
    pairs = nulls[nulls["dictionary"] == "delta vs base"]
    for measure in ("improvement", "relative_error", "max_cosine.mean", "angle.mean"):
        rows = pairs if measure.startswith(("max_cosine", "angle")) else nulls
        names = set(rows.loc[rows["measure"] == measure, "null"])
        assert set(TRAINED_ON.values()) <= names, measure


def test_held_out_error_is_followed_epoch_by_epoch(finished_run):
    facts = read_json(finished_run / "results" / "facts.json")
    for fact in facts["dictionaries"]:
        points = fact["held_out_error"]
        assert len(points) == fact["epochs"]
        assert points[-1]["step"] == fact["steps"]
    twice = [f["held_out_error"] for f in facts["dictionaries"] if f["setting"]]
    assert len(twice) == 2
    assert all(points[1]["error"] != points[0]["error"] for points in twice)


def test_tables_beside_the_estimates(finished_run):
    seeds = pd.read_csv(finished_run / "results" / "seeds.csv")
    cosine = seeds[(seeds["measure"] == "max_cosine.mean") & (seeds["group"] == "r2")]
    assert list(cosine["replicates"]) == [len(SEEDS)] * 2
    assert list(cosine["massive"].fillna("")) == ["", "without"]
    modules = pd.read_csv(finished_run / "weights" / "modules.csv")
    assert {"layers.0", "layers.0.self_attn.q_proj", "all modules"} <= set(modules["module"])
    latents = read_json(finished_run / "effects" / "r4" / "latents.json")
    assert {"latent", "density", "promoted", "ablation_loss"} <= set(latents[0])


def test_every_number_has_its_chance_level_and_interval(table):
    assert np.isfinite(table["value"]).all()
    # How large a share is massive and how many latents fire says something without a level.
    alone = table["measure"].isin(["massive.share", "yardstick.l0", "yardstick.live_share"])
    numbers = table.loc[~alone, ["chance", "chance_low", "chance_high"]]
    assert np.isfinite(numbers.to_numpy()).all()
    bounds = table[["low", "high"]].isna().all(axis=1)
    # Weights are read, not sampled, and so is what is massive; a 90th percentile needs 35 latents
    # of which none is a copy of another.
    exact = {"weights.norm", "massive.share"}
    assert set(table.loc[bounds, "measure"]) - {"max_cosine.q90"} <= exact
    table = table[~bounds]
    assert np.isfinite(table[["low", "high"]].to_numpy()).all()
    assert (table["low"] <= table["value"] + 1e-9).all()
    assert (table["value"] <= table["high"] + 1e-9).all()
    assert (table["n"] > 0).all()
    table = table[~alone]
    assert (table["chance_low"] <= table["chance_high"]).all()
    assert (table["null"] != "").all()
    assert [definition(measure).unit for measure in table["measure"]] == list(table["unit"])


def test_the_seed_of_a_row_is_its_dictionarys(finished_run):
    """Null adapters have dictionaries of one seed; rows of the other seeds keep their own."""
    numbers = read_results(finished_run).numbers
    for measure in ("improvement", "relative_error"):
        by_place: dict[tuple, dict] = {}
        for one in numbers.select(measure, dictionary="delta"):
            if not one.key.setting and not one.key.compared:
                by_place.setdefault((one.key.adapter, one.key.site), {})[one.key.seed] = one
        assert by_place
        for found in by_place.values():
            assert set(found) == set(SEEDS)
            assert len({one.value for one in found.values()}) == len(SEEDS)
    written = pd.read_csv(finished_run / "results" / "estimates.csv")["seed"].dropna()
    assert set(written.astype(int)) == set(SEEDS)


def test_rivals_are_those_declared_and_the_headline_is_the_hardest_to_leave(finished_run):
    seen = set()
    for estimate in read_results(finished_run).numbers.select():
        known, key = definition(estimate.measure), estimate.key
        rivals = {null.name for null in estimate.rivals}
        of_draws = key.seed in (None, SEEDS[0]) and not key.setting and not Of.key(key).seeds_alone
        if rivals:
            seen |= rivals
            assert rivals <= set(known.rivals), estimate
            assert estimate.headline in estimate.rivals
        elif estimate.nulls:
            # Seeds beside each other, and seeds of which no null has its like.
            assert not known.rivals or not of_draws, estimate
            assert estimate.headline == estimate.nulls[0]
        # A dictionary trained on Gaussian rows stands in for the delta dictionary alone.
        stands_in = GAUSSIAN not in known.rivals or DELTA in (key.dictionary, key.compared)
        if rivals and of_draws and stands_in:
            assert rivals == set(known.rivals), estimate
    assert {ADAPTER, GAUSSIAN, "matched latents", "random update"} <= seen


def test_tables_hold_the_same_and_start_with_the_promised_columns(finished_run, table):
    assert list(table.columns)[:12] == COLUMNS.split(", ")
    every = read_results(finished_run).estimates
    for name, parquet in (("estimates", every.to_frame()), ("chance_levels", every.nulls_frame())):
        text = list(parquet.columns[parquet.dtypes == "str"])
        csv = pd.read_csv(
            finished_run / "results" / f"{name}.csv", dtype=dict.fromkeys(text, "str")
        )
        csv = csv.assign(**{column: csv[column].fillna("") for column in text})
        pd.testing.assert_frame_equal(csv.astype(parquet.dtypes), parquet)


def test_dictionaries_of_one_seed_do_not_start_alike(table):
    # After nine steps, dictionaries that began with the same directions would have cosines near 1.
    cosines = table[table["measure"] == "max_cosine.mean"]
    assert set(cosines["dictionary"]) == {"base vs base", "delta vs base", "delta vs delta"}
    assert (cosines["value"] < 0.6).all()


def test_facts_say_what_the_run_did(finished_run, study):
    facts = read_json(finished_run / "results" / "facts.json")
    assert facts["command"] == "lorascope audit tiny.yaml"
    assert facts["settings"] == study.plain()
    assert facts["model"]["d_model"] == 32
    assert [a["name"] for a in facts["adapters"]] == list(ADAPTERS)
    assert all(one["passed"] for one in facts["sanity_checks"])
    assert [row["held_out_after"] < row["held_out_before"] for row in facts["adapter_training"]]
    # Base of two seeds; for each adapter a delta of two, two controls, two of Gaussian rows and one
    # of each of two null adapters; two of the ablation.
    assert len(facts["dictionaries"]) == 2 + 2 * (2 + 2 + 2 + 2) + 2
    assert facts["warnings"] == []
    for name in ("probe", "held_out"):
        activations = read_json(finished_run / "activations" / name / "manifest.json")
        assert facts["tokens"][name]["tokens"] == activations["rows"] - activations["outliers"]


def test_report_is_made_and_can_be_made_again_from_the_results_alone(finished_run, tmp_path):
    page = finished_run / "report" / "index.html"
    text = page.read_text(encoding="utf-8")
    assert "max cosine" in text.lower()
    for folder in ("activations", "dictionaries", "adapters"):
        assert (finished_run / folder).is_dir()
    for part in ("results", "features"):
        shutil.copytree(finished_run / part, tmp_path / "kept" / part)
    again = build(tmp_path / "kept")
    assert again.read_text(encoding="utf-8") == text
    assert list((again.parent / "figures").glob("*.svg"))


def test_documents_an_adapter_saw_are_left_out_and_counted(
    settings, records, tiny_model, tiny_checkpoint, save_adapter, quiet, no_report, tmp_path
):
    """A full fine-tune and a LoRA adapter side by side; what each saw is known in its own way."""
    documents = read_documents(str(records))
    full = shutil.copytree(tiny_checkpoint("llama"), tmp_path / "full")
    model = tiny_model("llama")
    model.model.layers[0].mlp.down_proj.weight.data *= 1.5
    model.save_pretrained(full)
    seen_by_full = tmp_path / "seen.jsonl"
    seen_by_full.write_text("\n".join(records.read_text().splitlines()[:7]), encoding="utf-8")
    lora = save_adapter(tmp_path / "lora", target_modules=["o_proj"])
    card = {"trained_on": [document.digest for document in documents[5:12]]}
    (lora / "lorascope.json").write_text(json.dumps(card), encoding="utf-8")
    plain = settings(
        adapters={"full": str(full), "low": str(lora)},
        texts={"seen": [str(seen_by_full)]},
        dictionaries={"seeds": [0], "controls": []},
    )
    AUDIT.run(AuditStudy.parse(plain, "test"), tmp_path / "run", quiet)
    found = read_results(tmp_path / "run")
    kept = sum(found.facts["tokens"][part]["documents"] for part in ("probe", "held_out"))
    assert kept == len(documents) - 12
    (line,) = [g["detail"] for g in found.facts["sanity_checks"] if g["check"] == "disjoint rows"]
    assert line.startswith("12 documents the adapters had seen were left out")
    table = found.numbers.select().to_frame()
    table = table[table["adapter"] != ""]  # yardsticks of the base dictionary have none
    assert set(table["adapter"]) == {"full", "low"}
    assert table.loc[table["adapter"] == "full", "rank"].isna().all()
    per_adapter = table.groupby("adapter")["measure"].agg(set)
    resolved = {"recovery.loss"}  # only where the change of loss is told from nothing
    assert per_adapter["full"] - resolved == per_adapter["low"] - resolved
    # Where something is massive in the stream, verdicts are drawn without it.
    norms = found.numbers.select("delta_norm", massive=["", "without"]).to_frame()
    norms = norms[norms["judged"]]
    assert list(norms["adapter"]) == ["full", "low"]
    assert (norms["verdict"] == "above").all()


def test_dora_rslora_and_a_full_fine_tune_are_audited_alike(
    settings, tiny_model, tiny_checkpoint, save_adapter, quiet, no_report, tmp_path
):
    full = shutil.copytree(tiny_checkpoint("llama"), tmp_path / "full")
    model = tiny_model("llama")
    model.model.layers[0].mlp.down_proj.weight.data *= 1.5
    model.save_pretrained(full)
    targets = ["o_proj", "down_proj"]
    adapters = {
        "full": str(full),
        "dora": str(save_adapter(tmp_path / "dora", target_modules=targets, use_dora=True)),
        "rslora": str(save_adapter(tmp_path / "rslora", target_modules=targets, use_rslora=True)),
    }
    plain = settings(adapters=adapters, dictionaries={"seeds": [0], "controls": []})
    AUDIT.run(AuditStudy.parse(plain, "test"), tmp_path / "run", quiet)
    found = read_results(tmp_path / "run")
    kinds = {a["name"]: (a["dora"], a["rslora"], a["rank"]) for a in found.facts["adapters"]}
    assert kinds["full"] == (False, False, None)
    assert kinds["dora"][:2] == (True, False)
    assert kinds["rslora"][:2] == (False, True)
    per_adapter = found.numbers.select().to_frame().groupby("adapter")["measure"].agg(set)
    for name in adapters:
        assert {"weights.intruders", "improvement", "max_cosine.mean"} <= per_adapter[name]
    modules = pd.read_csv(tmp_path / "run" / "weights" / "modules.csv")
    touched = modules.groupby("adapter")["module"].agg(set)
    assert "layers.0.mlp.down_proj" in touched["full"] & touched["dora"] & touched["rslora"]
    assert "layers.0.self_attn.o_proj" in touched["dora"] - touched["full"]


def test_null_adapters_are_matched_by_the_deltas_norm(finished_run):
    """On probe texts to 2 %; on the held-out ones nearly so."""
    checks = read_json(finished_run / "sanity_checks" / "sanity_checks.json")
    assert checks["matches"] == read_json(finished_run / "matching" / "matches.json")
    assert checks["matches"].keys() == checks["null_adapters"].keys()
    assert len(checks["matches"]) == 2 * 2
    for name, match in checks["matches"].items():
        assert match["ratios"]["layers.1"] == pytest.approx(1, abs=0.0201)
        assert match["factor"] == checks["null_adapters"][name]["factor"] != 1
    shards = Shards.open(finished_run / "activations" / "held_out")
    norms = {
        variant: shards.load("layers.1", variant).norm(dim=1).mean()
        for variant in shards.manifest["variants"]
    }
    assert {name.split("~")[0] for name in checks["matches"]} == set(ADAPTERS)
    for name in checks["matches"]:
        assert float(norms[name] / norms[name.split("~")[0]]) == pytest.approx(1, abs=0.1)


def test_null_draws_of_an_audit_are_counted(finished_run):
    """Every null adapter's primary numbers, and every Gaussian-trained dictionary's directions."""
    shares = null_audit_shares(read_results(finished_run).estimates, strict=False)
    whole = shares[0]
    assert whole.trials == sum(s.trials for s in shares[1:] if s.part == whole.part)
    assert whole.trials > 0
    assert {s.part for s in shares} == {"null adapters", "featureless dictionaries"}
