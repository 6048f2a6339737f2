"""What PEFT leaves in an adapter's folder, put in order: one order of names, and a README that says
something."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lorascope.foreign import parse_json
from lorascope.models.adapter_files import without_order
from lorascope.models.places import CONFIG_FILE
from lorascope.runs import write_atomically

README = "README.md"
_LISTED = 8


def put_in_order(folder: Path) -> None:
    """Rewrite the configuration and README of an adapter that PEFT has just saved.

    PEFT keeps names of modules as sets, so that two equal runs write them in different orders.
    """
    path = folder / CONFIG_FILE
    config = without_order(parse_json(path.read_bytes(), path))
    write_atomically(path, json.dumps(config, indent=2, sort_keys=True) + "\n")
    write_atomically(folder / README, _readme(config))


def _readme(config: dict[str, Any]) -> str:
    base = config.get("base_model_name_or_path") or "its base model"
    targets = config.get("target_modules") or []
    listed = [targets] if isinstance(targets, str) else targets[:_LISTED]
    more = f" and {len(targets) - _LISTED} more" if len(listed) < len(targets) else ""
    scale = "alpha / sqrt(rank)" if config.get("use_rslora") else "alpha / rank"
    return (
        f"# LoRA adapter of {base}\n\n"
        f"Rank {config.get('r')}, alpha {config.get('lora_alpha')} (scale {scale})"
        f"{', with DoRA magnitudes' if config.get('use_dora') else ''}; on "
        f"{', '.join(listed)}{more if not isinstance(targets, str) else ''}. Trained with "
        "lorascope; what it was trained on and how stands in the JSON files beside it.\n\n"
        "```python\n"
        "from peft import PeftModel\n"
        "from transformers import AutoModelForCausalLM\n\n"
        f"model = AutoModelForCausalLM.from_pretrained({json.dumps(str(base))})\n"
        'model = PeftModel.from_pretrained(model, "this folder")\n'
        "```\n"
    )
