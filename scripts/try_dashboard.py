"""Hold what SAEDashboard made of exported folders against numbers computed here.

    python scripts/try_dashboard.py FOLDER...

Of every latent shown: its largest activation, the share of tokens it fires on, and the token that
its direction promotes most, computed by lorascope from the checkpoint and the dictionary in the
folder. Exit code 1 where one differs by more than SAEDashboard rounds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from lorascope.dictionaries.files import open_dictionary
from lorascope.models.load import load_base
from lorascope.models.sites import Site
from lorascope.studies.evaluate.dashboards import CHECK, EXPORT, stream


@torch.no_grad()
def differences(folder: Path) -> list[str]:
    """What differs, latent by latent."""
    told = json.loads((folder / EXPORT).read_text())
    ids, site = load_file(folder / CHECK)["tokens"], Site(told["layer"])
    module, tokenizer = load_base(str(folder / "model"))
    head, rows = module.get_output_embeddings().weight, stream(module, site, ids)
    if len(told["models"]) > 1:
        rows = rows - stream(load_base(str(folder / "base"))[0], site, ids)
    dictionary = open_dictionary(str(folder / "dictionary"))
    codes = dictionary.encode(rows) * ~torch.isin(ids, torch.tensor(told["ignored"]))[..., None]
    found = []
    features = json.loads((folder / "neuronpedia" / "batch-0.json").read_text())["features"]
    if [one["feature_index"] for one in features] != told["features"]:
        found.append("the latents are others than those asked for")
    for one in features:
        number = int(one["feature_index"])
        own = codes[..., number]
        if dictionary.architecture != "topk":
            # SAEDashboard shows latents times the norms of their directions.
            own = own * dictionary.directions[number].norm()
        largest = max(value for sequence in one["activations"] for value in sequence["values"])
        promoted = int((head @ dictionary.directions[number]).argmax())
        for what, theirs, ours, room in (
            ("largest activation", largest, float(own.max()), 1e-3),
            ("share of tokens", one["frac_nonzero"], float((own > 0).float().mean()), 2e-5),
        ):
            if abs(theirs - ours) > room:
                found.append(f"latent {number}: {what} {theirs}, here {ours}")
        word = tokenizer.convert_ids_to_tokens(promoted)
        if one["pos_str"][0] != word:
            found.append(f"latent {number}: promotes {one['pos_str'][0]!r}, here {word!r}")
    print(f"{folder}: {len(features)} latents, {told['reads']}; {len(found)} differences")
    return found


def main() -> int:
    """Compare every folder; the exit code."""
    found = [f"{folder}: {one}" for folder in sys.argv[1:] for one in differences(Path(folder))]
    print("\n".join(found))
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
