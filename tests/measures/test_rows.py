"""Held-out rows in document order, and sums by document."""

import pytest
import torch

from lorascope.activations.batch import TokenRows
from lorascope.activations.shards import BASE, Shards, ShardWriter
from lorascope.measures import rows as rows_module
from lorascope.measures.rows import HeldOut, by_document, chunks, shared_out
from lorascope.randomness import generator

NO_OUTLIERS = torch.tensor([], dtype=torch.long)


def test_sums_by_document_by_hand():
    values = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    documents = torch.tensor([7, 7, 2, 9, 2])
    sums, counts = by_document(values, documents)
    assert sums.tolist() == [8.0, 3.0, 4.0]  # documents 2, 7, 9
    assert counts.tolist() == [2.0, 2.0, 1.0]
    assert sums.dtype == torch.float64


def test_sums_keep_digits_that_float32_loses():
    values = torch.tensor([1e8, 1.0, 1.0])
    assert by_document(values, torch.zeros(3, dtype=torch.long))[0].item() == 1e8 + 2


def test_rows_are_cut_and_put_together_in_order(monkeypatch):
    held_out = HeldOut(
        torch.tensor([[1.0], [2.0]]), torch.tensor([[10.0], [20.0]]), torch.arange(2)
    )
    assert held_out.adapted.tolist() == [[11.0], [22.0]]
    assert len(held_out) == 2
    assert held_out.first(1).delta.tolist() == [[10.0]]
    monkeypatch.setattr(rows_module, "CHUNK", 2)
    assert [len(c) for c in chunks(torch.zeros(5, 1))] == [2, 2, 1]


@pytest.mark.parametrize(("most", "expected"), [(None, [1.0, 2.0, 25.0, 40.0, 41.0]), (3, None)])
def test_loaded_rows_stand_in_document_order(tmp_path, most, expected):
    # Row i is (document, position); the base holds 10·document + position, the delta minus that.
    origin = [(4, 0), (4, 1), (0, 1), (0, 2), (2, 5)]
    document = torch.tensor([d for d, _ in origin])
    position = torch.tensor([p for _, p in origin])
    writer = ShardWriter(tmp_path, "test", torch.float32, shard_rows=2)
    for start in range(0, 5, 2):
        part = slice(start, start + 2)
        zeros = torch.zeros(len(document[part]), dtype=torch.long)
        tokens = TokenRows(document[part], position[part], zeros, zeros.bool())
        base = (10 * document[part] + position[part]).float()[:, None]
        writer.add(tokens, {("layers.1", BASE): base, ("layers.1", "r4"): -base})
    facts = {"sites": ["layers.1"], "variants": [BASE, "r4"], "d_model": 1}
    writer.close(NO_OUTLIERS, facts)
    loaded = HeldOut.load(Shards.open(tmp_path), "layers.1", "r4", most)
    if expected is not None:
        assert loaded.base[:, 0].tolist() == expected
    assert torch.equal(loaded.delta, -loaded.base)
    assert loaded.documents.tolist() == ([0, 0, 2, 4, 4] if most is None else [0, 2, 4])


def test_long_documents_give_way_to_many():
    # Documents of 5, 1 and 3 rows. Seven rows: at most 3 a document. Two: the first two give one.
    documents = torch.tensor([0, 0, 0, 0, 0, 1, 4, 4, 4])
    kept = {n: documents[shared_out(documents, n, generator(0))].tolist() for n in (9, 7, 6, 2)}
    assert kept[9] == documents.tolist()
    assert kept[7] == [0, 0, 0, 1, 4, 4, 4]
    assert kept[6] == [0, 0, 1, 4, 4]
    assert kept[2] == [0, 1]


def test_a_cut_document_gives_every_row_alike():
    documents = torch.zeros(8, dtype=torch.long)
    drawn = [shared_out(documents, 2, generator(0, i)) for i in range(400)]
    shares = torch.stack(drawn).double().mean(0)
    assert shares.sum() == pytest.approx(2.0)
    assert bool(((shares - 0.25).abs() < 0.08).all())
