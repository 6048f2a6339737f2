"""Write the 4-bit checkpoints under tests/reference/golden/bitsandbytes, by bitsandbytes itself.

Needs `pip install bitsandbytes`, which lorascope does not depend on:

    python scripts/golden_quantised.py
"""

from pathlib import Path

import bitsandbytes.functional as bnb
import torch
from safetensors.torch import save_file

GOLDEN = Path(__file__).parents[1] / "tests" / "reference" / "golden" / "bitsandbytes"
MATRIX, NORM = "model.layers.0.mlp.up_proj.weight", "model.norm.weight"


def main() -> None:
    random = torch.Generator().manual_seed(0)
    plain = (torch.randn(24, 64, generator=random) * 0.02).bfloat16()
    norm = torch.randn(64, generator=random).bfloat16()
    checkpoints = {"plain": {MATRIX: plain}}
    for kind in ("nf4", "fp4"):
        for nested in (True, False):
            packed, state = bnb.quantize_4bit(
                plain, quant_type=kind, compress_statistics=nested, blocksize=64
            )
            parts = {f"{MATRIX}.{part}": t for part, t in state.as_dict(packed=True).items()}
            checkpoints[f"{kind}-nested" if nested else kind] = {MATRIX: packed, **parts}
    for name, tensors in checkpoints.items():
        folder = GOLDEN / name
        folder.mkdir(parents=True, exist_ok=True)
        whole = {key: t.contiguous() for key, t in {**tensors, NORM: norm}.items()}
        save_file(whole, folder / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main()
