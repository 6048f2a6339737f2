"""The site a dictionary reads, from the many spellings that files use for it.

Only the output of a block is a site of lorascope; any other place keeps the name its file gives
it, so that it is never mistaken for one.
"""

from __future__ import annotations

import re

EMBEDDINGS = "embeddings"
# TransformerLens 3 calls hook_resid_pre and hook_resid_post by shorter names.
_TRANSFORMER_LENS = re.compile(r"blocks\.(\d+)\.hook_(resid_pre|resid_post|in|out)")
_BLOCK = re.compile(r"(?:[A-Za-z_]\w*\.)*(?:layers|h|blocks)\.(\d+)(?:\.output)?")


def site_of(hook: str | None) -> str:
    """`layers.L` where the hook is the output of block L, else the hook's own name.

    The input of block L is the output of block L − 1; the input of block 0 is `embeddings`.
    """
    name = (hook or "").strip()
    if match := _TRANSFORMER_LENS.fullmatch(name):
        return output_of(int(match[1]) - (match[2] in ("resid_pre", "in")))
    if match := _BLOCK.fullmatch(name):
        return output_of(int(match[1]))
    return name


def output_of(block: int) -> str:
    """The site that is the output of a block, counted from 0; below 0 are the embeddings."""
    return f"layers.{block}" if block >= 0 else EMBEDDINGS


def block_of(site: str) -> int | None:
    """The block a site is the output of; None for any other place."""
    match = re.fullmatch(r"layers\.(\d+)", site)
    return int(match[1]) if match else None
