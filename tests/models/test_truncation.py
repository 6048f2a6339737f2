"""An adapter cut to a rank is its nearest one of that rank, and whole again afterwards."""

import pytest
import torch

from lorascope.errors import InputError
from lorascope.models.adapted import load
from lorascope.models.adapter_config import largest_rank as stated_rank
from lorascope.models.adapter_config import require_ranks
from lorascope.models.truncation import largest_rank, leading, truncated
from lorascope.models.updates import lora_updates


def test_leading_factors_are_the_svds():
    random = torch.Generator().manual_seed(0)
    B, A = torch.randn(7, 4, generator=random), torch.randn(4, 5, generator=random)
    U, S, Vh = torch.linalg.svd(B @ A)
    for rank in (1, 2, 4, 9):
        left, right = leading(B, A, rank)
        k = min(rank, 4)
        torch.testing.assert_close(left @ right, U[:, :k] * S[:k] @ Vh[:k])
        assert left.shape == B.shape


def test_within_the_with_the_rank_is_lower_and_afterwards_all_is_as_before(
    tiny_checkpoint, save_adapter, tmp_path
):
    path = save_adapter(tmp_path / "a", target_modules=["q_proj", "embed_tokens"])
    model = load(str(tiny_checkpoint("llama")), {"a": str(path)}, device="cpu")
    before = lora_updates(model, "a")
    kept = [(u.B.clone(), u.A.clone()) for u in before]
    assert all(len(u.svd().S) > 1 for u in before)
    with truncated(model, ["a"], 1):
        for cut, (B, A) in zip(lora_updates(model, "a"), kept, strict=True):
            S = torch.linalg.svdvals((cut.B @ cut.A).double())
            assert S[1] < 1e-5 * S[0]
            assert float(S[0]) == pytest.approx(
                float(torch.linalg.svdvals((B @ A).double())[0]), rel=1e-4
            )
    with pytest.raises(RuntimeError, match="stop"), truncated(model, ["a"], 2):
        raise RuntimeError("stop")
    for update, (B, A) in zip(lora_updates(model, "a"), kept, strict=True):
        assert torch.equal(update.B, B)
        assert torch.equal(update.A, A)


def test_an_adapter_without_factors_has_no_rank_to_cut(tiny_checkpoint):
    model = load(str(tiny_checkpoint("llama")), {}, device="cpu")
    with pytest.raises(InputError), truncated(model, ["a"], 1):
        pass
    with pytest.raises(InputError, match="rank of 0"), truncated(model, [], 0):
        pass


def test_a_rank_above_its_own_cuts_nothing_and_is_refused(tiny_checkpoint, save_adapter, tmp_path):
    """A rank pattern's counts, in the file and on the model; where there are no factors none is."""
    pattern = {"layers.1.self_attn.q_proj": 6}
    path = save_adapter(tmp_path / "a", r=2, target_modules=["q_proj"], rank_pattern=pattern)
    assert stated_rank("a", path) == 6
    base = str(tiny_checkpoint("llama"))
    model = load(base, {"a": str(path)}, device="cpu")
    assert largest_rank(model, "a") == 6
    with truncated(model, ["a"], 6):
        pass
    with (
        pytest.raises(InputError, match=r"rank 6: .* to cut to 7; give ranks of 6 or less"),
        truncated(model, ["a"], 7),
    ):
        pass
    with pytest.raises(InputError, match="leave the ranks out"):
        require_ranks("tuned", 0, [1])
