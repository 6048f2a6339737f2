"""The audit takes latent adapters and PEFT's other types like LoRA, and sees what was put in."""

import json

import pytest
import torch
from peft import LoHaConfig, get_peft_model

from lorascope.latent_adapters.adapter import LatentAdapter
from lorascope.results import Estimates
from lorascope.results.null_names import ADAPTER
from lorascope.studies.audit.study import AuditStudy
from lorascope.studies.audit.workflow import AUDIT


@pytest.mark.slow  # a whole audit of its own
def test_audited_beside_a_lora(
    save_latent_adapter, save_adapter, tiny_model, settings, quiet, tmp_path
):
    folder = save_latent_adapter(tmp_path)
    lora = save_adapter(tmp_path / "lora")
    torch.manual_seed(0)
    hadamard = LoHaConfig(r=2, target_modules=["q_proj", "up_proj"], init_weights=False)
    get_peft_model(tiny_model("llama"), hadamard).save_pretrained(tmp_path / "loha")
    given = {"latent": str(folder), "plain": str(lora), "loha": str(tmp_path / "loha")}
    plain = settings(adapters=given, sites=["layers.1", "layers.2"], force=True)
    study = AuditStudy.parse(plain, "tiny study")
    page = AUDIT.run(study, tmp_path / "run", quiet)
    assert page.is_file()
    table = Estimates.read(tmp_path / "run" / "results" / "estimates.parquet").select().to_frame()
    of_latent, of_lora, of_loha = (
        set(table[table["adapter"] == name]["measure"]) for name in given
    )
    assert of_loha >= of_lora - {"recovery.loss"}
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
    # Null adapters of every kind that has them, under one name of the condition.
    everything = Estimates.read(tmp_path / "run" / "results" / "estimates.parquet").to_frame()
    drawn = everything[everything["draw_of"] == ADAPTER]
    assert set(drawn["adapter"]) == {"plain", "loha"}
    judged = table[(table["measure"] == "delta_rank") & (table["null"] == ADAPTER)]
    assert set(judged["adapter"]) == {"plain", "loha"}
    (reason,) = [line for line in facts["warnings"] if "null adapters" in line]
    assert '"latent" acts by hooks' in reason
    (known,) = [a for a in facts["adapters"] if a["name"] == "latent"]
    assert known["rank"] == LatentAdapter.from_pretrained(folder).rank
