"""Rows of one batch under several variants are what each variant gives alone."""

from contextlib import contextmanager

import pytest
import torch

from lorascope.models.adapted import BASE, load
from lorascope.models.mixed import UnmixedRows, VariantRows, can_mix, mixed
from lorascope.models.null_adapters import add_null_adapters
from lorascope.models.updates import lora_layers
from lorascope.reading.decoding import Amplification, decode
from lorascope.reading.prompts import Prompt
from lorascope.reading.removing import Modules, left_out, modules_of
from lorascope.reading.settings import Reading


@pytest.fixture
def model(tiny_checkpoint, save_adapter, tmp_path):
    path = save_adapter(tmp_path / "a", target_modules=["q_proj", "down_proj"])
    found = load(str(tiny_checkpoint("llama")), {"a": str(path)}, device="cpu")
    add_null_adapters(found, "a", 1, 0)
    return found


@torch.no_grad()
def test_rows_are_those_of_each_variant_alone(model):
    ids = torch.randint(3, 60, (7, 9), generator=torch.Generator().manual_seed(0))
    (null,) = model.nulls_of("a")
    without = tuple(path for path in modules_of(model, "a") if "down_proj" in path)
    shares = [
        VariantRows(BASE, slice(0, 2)),
        VariantRows("a", slice(2, 4)),
        VariantRows("a", slice(4, 6), frozenset(without)),
        VariantRows(null, slice(6, 7)),
    ]
    with mixed(model, shares) as module:
        found = module(ids).logits
    alone = []
    for share in shares:
        silent = Modules(tuple(share.silent))
        with model.variant(share.variant) as module:
            if silent.paths:
                with left_out(model, share.variant, silent):
                    alone.append(module(ids[share.rows]).logits)
            else:
                alone.append(module(ids[share.rows]).logits)
    torch.testing.assert_close(found, torch.cat(alone), rtol=1e-5, atol=1e-5)
    with model.variant(BASE) as module:
        plain = module(ids).logits
    for share in shares[1:]:
        assert not torch.allclose(found[share.rows], plain[share.rows], rtol=1e-3, atol=1e-3)
    assert not torch.allclose(found[2:4], found[4:6], rtol=1e-3, atol=1e-3)
    assert not any("forward" in layer.__dict__ for _, layer in lora_layers(model))
    assert model.current == BASE


@torch.no_grad()
def test_other_rows_than_the_batch_are_refused(model):
    with pytest.raises(UnmixedRows), mixed(model, [VariantRows("a", slice(0, 3))]) as module:
        module(torch.tensor([[5, 6], [7, 8]]))
    assert not any("forward" in layer.__dict__ for _, layer in lora_layers(model))


@pytest.mark.parametrize(
    "changes",
    [{"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"target_modules": ["embed_tokens"]}],
)
def test_adapters_that_are_more_than_maps_go_one_after_the_other(
    tiny_checkpoint, save_adapter, tmp_path, changes
):
    arguments = {"target_modules": ["q_proj"], **changes}
    path = save_adapter(tmp_path / "b", **arguments)
    model = load(str(tiny_checkpoint("llama")), {"b": str(path)}, device="cpu")
    assert can_mix(model, [BASE])
    assert not can_mix(model, [BASE, "b"])


@contextmanager
def refusing(*_):
    """What `mixed` does where a layer is given other rows."""
    raise UnmixedRows
    yield


@pytest.mark.parametrize(
    ("prompts", "refused"), [((3, 4, 2), False), ((1, 2, 40, 41, 1, 39), False), ((3, 1), True)]
)
def test_texts_are_the_same_together_and_in_turn(model, monkeypatch, prompts, refused):
    given = [Prompt(str(n), tuple(range(5, 5 + n))) for n in prompts]
    (null,) = model.nulls_of("a")
    every = modules_of(model, "a")
    conditions = [
        Amplification(BASE),
        *(Amplification(v, a) for v in ("a", null) for a in (0.0, 2.0)),
        Amplification("a", 1.0, Modules(tuple(every[:2]))),
    ]
    seen: dict[bool, list[tuple[int, list[int]]]] = {True: [], False: []}

    def run(together):
        def observe(column, own, base, going):
            assert own.shape == base.shape == (len(going), model.vocab_size)
            seen[together].append((column, going.tolist()))

        return decode(model, given, conditions, Reading(tokens=12), observe=observe)

    together = run(True)
    if refused:
        monkeypatch.setattr("lorascope.reading.passes.mixed", refusing)
    else:
        monkeypatch.setattr("lorascope.reading.decoding.can_mix", lambda *_: False)
    assert run(False) == together

    def order(found):
        return sorted((column, n) for column, going in found for n in going)

    assert order(seen[True]) == order(seen[False])
    assert len({str(row) for rows in together for row in rows}) > 2 * len(prompts)
