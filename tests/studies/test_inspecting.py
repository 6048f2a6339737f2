"""A dictionary tried on texts: numbers against plain transformers, planted truth, refusals."""

import json
import math
import random

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lorascope.dictionaries.card import Card
from lorascope.dictionaries.files import open_dictionary, save
from lorascope.dictionaries.jumprelu import JumpReluDictionary
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.dictionaries.topk import TopKDictionary
from lorascope.errors import InputError
from lorascope.workflows.inspecting import complaints, describe, tables, try_on
from lorascope.workflows.settings import OnTexts

D = 32


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A file of 30 texts of 20 words of the tiny tokenizer."""
    words = random.Random(1)
    records = [{"text": " ".join(f"w{words.randrange(61)}" for _ in range(20))} for _ in range(30)]
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def stream(tiny_checkpoint, texts):
    """The output of block 1 at every token but special ones, by plain transformers."""
    folder = tiny_checkpoint("llama")
    tokenizer, model = (c.from_pretrained(folder) for c in (AutoTokenizer, AutoModelForCausalLM))
    found = []
    with torch.no_grad():
        for line in texts.read_text(encoding="utf-8").splitlines():
            ids = tokenizer(json.loads(line)["text"], return_tensors="pt")["input_ids"]
            plain = ids[0].apply_(lambda i: i not in tokenizer.all_special_ids).bool()
            ids = tokenizer(json.loads(line)["text"], return_tensors="pt")["input_ids"]
            found.append(model(ids, output_hidden_states=True).hidden_states[2][0][plain])
    rows = torch.cat(found)
    assert len(rows) == 600
    return rows


@pytest.fixture
def wanted(tiny_checkpoint, texts):
    """`wanted(**changes)`: the tiny model on those texts."""

    def build(**changes):
        given = {"model": str(tiny_checkpoint("llama")), "texts": [str(texts)], "device": "cpu"}
        return OnTexts.parse({**given, **changes}, "test")

    return build


def test_an_adapter_that_acts_deeper_has_no_delta_to_try_on(wanted, save_adapter, tmp_path):
    fields = {"target_modules": ["q_proj"], "layers_to_transform": [2]}
    adapter = str(save_adapter(tmp_path / "late", **fields))
    dictionary = both_signs()
    with pytest.raises(InputError, match=r"changes nothing at layers\.1: it acts from layers\.2"):
        try_on(dictionary, wanted(adapter=adapter, site="layers.1"))
    # What it says helps.
    tried = try_on(dictionary, wanted(adapter=adapter, site="layers.2", force=True))
    assert tried["site"] == "layers.2"


def both_signs(**options):
    """z = [max(0, x), max(0, −x)] reconstructs every row exactly, with d active latents."""
    eye = torch.eye(D)
    maps = (torch.cat([eye, -eye], 1), torch.zeros(2 * D), torch.cat([eye, -eye]), torch.zeros(D))
    return ReluDictionary(*maps, card=Card(site="layers.1", **options))


def some(seed=0, **options):
    random = torch.Generator().manual_seed(seed)
    shapes = ((D, 50), (50,), (50, D), (D,))
    maps = [0.2 * torch.randn(*shape, generator=random) for shape in shapes]
    threshold = torch.rand(50, generator=random)
    return JumpReluDictionary(*maps, threshold, card=Card(site="layers.1", **options))


def values(tried):
    return {one["measure"]: one["value"] for one in tried["estimates"]}


def test_numbers_against_plain_transformers(wanted, stream):
    dictionary = some()
    tried = try_on(dictionary, wanted())
    with torch.no_grad():
        z = dictionary.encode(stream)
        left = stream - dictionary.decode(z)
        mean = stream.mean(0)
        spread = (stream - mean).square().sum()
    assert tried["tokens"] == len(stream)
    assert tried["documents"] == 30
    found = values(tried)
    assert found["fvu"] == pytest.approx((left.square().sum() / spread).item(), rel=1e-4)
    relative = (left.norm(dim=1) / stream.norm(dim=1)).mean().item()
    assert found["relative_error"] == pytest.approx(relative, rel=1e-4)
    assert found["density"] == pytest.approx((z > 0).sum(1).double().mean().item(), rel=1e-3)
    assert found["dead_share"] == pytest.approx(((z > 0).sum(0) == 0).double().mean().item())
    assert 0 < found["dead_share"] < 1
    references = {one["measure"]: one["references"] for one in tried["estimates"]}
    assert references["fvu"] == {"mean predictor": 1.0}
    by_mean = ((stream - mean).norm(dim=1) / stream.norm(dim=1)).mean().item()
    assert references["relative_error"]["zero predictor"] == 1.0
    assert references["relative_error"]["mean predictor"] == pytest.approx(by_mean, rel=1e-4)
    assert references["density"]["norm-matched random"] > 0
    for one in tried["estimates"]:
        low, high = one["interval"]
        assert low <= one["value"] <= high


def test_planted_a_perfect_dictionary_and_one_that_says_the_mean(wanted, stream):
    perfect = values(try_on(both_signs(), wanted()))
    assert perfect["fvu"] == pytest.approx(0, abs=1e-9)
    assert perfect["relative_error"] == pytest.approx(0, abs=1e-5)
    assert perfect["density"] == D
    silent = both_signs()
    silent.encoder_bias -= 1e6
    silent.decoder_bias += stream.mean(0)
    silent.subtract_bias = False
    found = values(try_on(silent, wanted()))
    assert found["fvu"] == pytest.approx(1, abs=1e-4)
    assert (found["density"], found["dead_share"]) == (0, 1)


def test_no_more_rows_than_asked(wanted):
    tried = try_on(some(), wanted(rows=150))
    assert 100 < tried["tokens"] <= 150


def test_on_what_an_adapter_adds(wanted, save_adapter, tmp_path):
    adapter = save_adapter(tmp_path / "a", target_modules=["o_proj"])
    base, delta = try_on(some(), wanted()), try_on(some(), wanted(adapter=str(adapter)))
    assert (base["rows_are"], delta["rows_are"]) == ("h_base", "h_adapted − h_base")
    assert values(base) != values(delta)
    learned = both_signs(target="delta", adapter="a")
    assert values(try_on(learned, wanted(adapter=str(adapter))))["fvu"] == pytest.approx(
        0, abs=1e-9
    )
    with pytest.raises(InputError, match=r"trained on what adapter a adds .*--adapter"):
        try_on(learned, wanted())
    other = both_signs(target="delta", adapter="a", adapter_sha256="ab" * 32)
    with pytest.raises(InputError, match=r"adapter a with SHA-256 abababababab…, .* or --force"):
        try_on(other, wanted(adapter=str(adapter)))
    assert try_on(other, wanted(adapter=str(adapter), force=True))["tokens"] == 600


def test_another_model_site_or_width_is_refused(wanted):
    with pytest.raises(InputError, match="made for org/other, not for"):
        try_on(some(model="org/other"), wanted())
    with pytest.raises(InputError, match=r"made for layers\.1, not for layers\.2; .*--force"):
        try_on(some(), wanted(site="layers.2"))
    assert try_on(some(model="org/other"), wanted(site="2", force=True))["site"] == "layers.2"
    with pytest.raises(InputError, match=r"so sites go from layers\.0 to layers\.2"):
        try_on(some(), wanted(site="layers.7", force=True))


def test_another_width_is_refused_even_when_forced(wanted, tmp_path):
    maps = (torch.ones(8, 3), torch.ones(3), torch.ones(3, 8), torch.ones(8))
    save(TopKDictionary(*maps, k=1, card=Card(site="layers.1")), tmp_path)
    with pytest.raises(InputError, match="reads rows of width 8, the model's are 32 wide"):
        try_on(open_dictionary(tmp_path), wanted(force=True))


@pytest.mark.parametrize(
    ("site", "expected"),
    [
        ("", "does not say what it reads; name the site to try it at with --site"),
        ("blocks.1.hook_mlp_out", r"reads blocks\.1\.hook_mlp_out, which is no block's output"),
    ],
)
def test_a_place_that_is_no_site(wanted, site, expected):
    dictionary = some()
    dictionary.card = Card(site=site)
    with pytest.raises(InputError, match=expected):
        try_on(dictionary, wanted())


def test_description():
    facts = describe(some(model="org/small", scale=2.5, l0=7.0, neuronpedia="a/1-b"))
    assert (facts["architecture"], facts["n_latents"], facts["d_model"]) == ("jumprelu", 50, D)
    assert (facts["site"], facts["model"], facts["scale"]) == ("layers.1", "org/small", 2.5)
    norms = some().directions.norm(dim=1)
    assert facts["decoder_norms"]["mean"] == pytest.approx(norms.mean().item())
    assert facts["decoder_norms"]["min"] < facts["decoder_norms"]["max"]
    assert facts["threshold"]["max"] == some().threshold.max().item()
    assert (facts["stated_l0"], facts["neuronpedia"]) == (7.0, "a/1-b")
    assert "k" not in facts
    maps = tuple(dict(some().named_buffers())[n] for n in ("encoder", "encoder_bias"))
    top = TopKDictionary(*maps, some().directions, some().decoder_bias, k=4)
    assert (describe(top)["k"], "threshold" in describe(top)) == (4, False)
    assert json.loads(json.dumps(facts)) == facts


def tried_with(**numbers):
    estimates = [{"measure": name, "value": value} for name, value in numbers.items()]
    return {"stated_l0": 50.0, "tried": {"estimates": estimates}}


def test_trap_a_dictionary_of_another_place_is_complained_of():
    assert complaints(tried_with(fvu=0.2, density=60.0)) == []
    (line,) = complaints(tried_with(fvu=1.5, density=60.0))
    assert line.startswith("FVU 1.5 is above 0.9")
    (line,) = complaints(tried_with(fvu=0.2, density=1089.0))
    assert "1.09e+03 latents are active a token and its makers state 50" in line
    assert len(complaints(tried_with(fvu=1.5, density=2.0))) == 2
    assert complaints({"stated_l0": None}) == []


def test_tables_hold_every_number(wanted):
    facts = describe(both_signs(note="look here"))
    facts["tried"] = try_on(both_signs(), wanted())
    described, numbers = tables(facts)
    words = [str(cell) for column in described.columns for cell in column.cells]
    assert {"relu", "layers.1", "64", "look here"} <= set(words)
    assert numbers.row_count == 4
    facts["tried"]["estimates"][0]["interval"] = [None, None]
    assert next(tables({**facts, "tried": facts["tried"]})).row_count == described.row_count
    assert math.isfinite(facts["tried"]["estimates"][1]["value"])
