"""The audit takes a latent adapter like any other, and sees what was put into it."""

import json

import pytest

from lorascope.latent_adapters.adapter import LatentAdapter
from lorascope.results import Estimates
from lorascope.workflows.audit import audit
from lorascope.workflows.study import AuditStudy


@pytest.mark.slow  # a whole audit of its own
def test_audited_beside_a_lora(save_latent_adapter, save_adapter, settings, quiet, tmp_path):
    folder = save_latent_adapter(tmp_path)
    lora = save_adapter(tmp_path / "lora")
    given = {"latent": str(folder), "plain": str(lora)}
    plain = settings(adapters=given, sites=["layers.1", "layers.2"], force=True)
    study = AuditStudy.parse(plain, "tiny study")
    page = audit(study, tmp_path / "run", quiet)
    assert page.is_file()
    table = Estimates.read(tmp_path / "run" / "results" / "estimates.parquet").select().to_frame()
    of_latent, of_lora = (set(table[table["adapter"] == name]["measure"]) for name in given)
    # Everything but the weights, of which it has none.
    assert {
        "delta_norm",
        "delta_rank",
        "relative_error",
        "max_cosine.mean",
        "recovery.kl",
    } <= of_latent
    missing = of_lora - of_latent
    assert missing
    # Recovery of loss is left out where the change of loss may be none.
    assert all(m.startswith("weights.") or m == "recovery.loss" for m in missing), sorted(missing)
    # Rank 2 at its own site: what it writes spans two directions, and the delta is of that rank.
    rank = table[(table["measure"] == "delta_rank") & (table["adapter"] == "latent")]
    by_site = dict(zip(rank["site"], rank["value"], strict=True))
    assert by_site["layers.1"] <= 2.0 + 1e-3
    assert by_site["layers.2"] > by_site["layers.1"]
    facts = json.loads((tmp_path / "run" / "results" / "facts.json").read_text())
    (known,) = [a for a in facts["adapters"] if a["name"] == "latent"]
    assert known["rank"] == LatentAdapter.from_pretrained(folder).rank
