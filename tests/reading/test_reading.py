"""An adapter that says a word is caught at it; a random one of its size is not; both are written
and read again."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import PeftConfig
from safetensors.torch import load_file, save_file

import lorascope as ls
from lorascope.activations.text import read_documents
from lorascope.errors import InputError
from lorascope.models.adapted import BASE, load
from lorascope.models.null_adapters import add_null_adapters
from lorascope.models.random_updates import factor_spectrum, random_factors
from lorascope.models.sites import Site
from lorascope.reading import running
from lorascope.reading.changed import _times, changed_tokens, first_tokens
from lorascope.reading.passages import PassageSurvey, VariantPass, chosen_windows, passages
from lorascope.reading.result import Read, Sample
from lorascope.reading.running import read
from lorascope.studies.audit.sections.reading import render, sentences

WORD = "w23"


@pytest.fixture(scope="module")
def model(tiny_checkpoint, planted, saying):
    paths = {"says": str(planted), "other": str(saying("w41"))}
    return load(str(tiny_checkpoint("llama")), paths, device="cpu")


def random_like(source, folder, seed):
    tensors = load_file(source / "adapter_model.safetensors")
    (a_key,) = [key for key in tensors if "lora_A" in key]
    b_key = a_key.replace("lora_A", "lora_B")
    A, B = tensors[a_key], tensors[b_key]
    shape = (B.shape[0], B.shape[1], A.shape[1])
    drawn = random_factors(factor_spectrum(B, A), shape, torch.Generator().manual_seed(seed))
    tensors = {a_key: drawn.A.float().contiguous(), b_key: drawn.B.float().contiguous()}
    folder.mkdir()
    PeftConfig.from_pretrained(source).save_pretrained(folder)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_planted_word_is_named_by_samples_and_by_ordinary_text(model, settings):
    found = ls.read(model, "says", settings)
    assert found.names_something
    assert WORD in found.phrases[0].text.split()
    assert found.changed[0].word == WORD
    assert found.changed[0].after > found.changed[0].before
    assert found.divergence.value > max(found.divergence.nulls)
    assert found.places[0].gains[0][0].strip() == WORD
    assert found.example.base != found.example.amplified
    assert WORD in found.example.amplified.split()
    assert WORD in sentences(found)[0]
    assert model.current == BASE


def test_random_adapters_of_its_size_name_nothing(planted, tiny_checkpoint, settings, tmp_path):
    named = 0
    for seed in range(6):
        path = random_like(planted, tmp_path / str(seed), seed)
        model = load(str(tiny_checkpoint("llama")), {"null": str(path)}, device="cpu")
        found = read(model, "null", settings.model_copy(update={"documents": 0, "seed": seed}))
        named += found.names_something
        if not found.phrases:
            assert sentences(found)[0].startswith("Nothing recurs")
    assert named <= 1


def test_a_reading_is_the_same_again_and_survives_a_folder(model, settings, tmp_path):
    first = read(model, "says", settings)
    again = read(model, "says", settings)
    assert first.plain() == {**again.plain(), "seconds": first.seconds}
    first.write(tmp_path / "out")
    assert Read.load(tmp_path / "out") == first
    assert len(first.tables()["samples"]) == 14 * (1 + 2 * 4)
    (tmp_path / "out" / "read.json").write_text('{"model": "m"}')
    with pytest.raises(InputError, match="read the adapter again"):
        Read.load(tmp_path / "out")


def test_what_a_reference_says_too_is_not_its_own(model, settings):
    alone = settings.model_copy(update={"documents": 0})
    beside = alone.model_copy(update={"references": ("other",)})
    assert WORD in read(model, "says", beside).phrases[0].text.split()
    with pytest.raises(InputError, match="itself"):
        read(model, "says", alone.model_copy(update={"references": ("says",)}))


def test_ranks_add_continuations_of_the_cut_update(model, settings):
    cut = settings.model_copy(update={"documents": 0, "ranks": (1,)})
    found = read(model, "says", cut)
    plain = read(model, "says", settings.model_copy(update={"documents": 0}))
    assert {s.rank for s in found.own} == {None, 1}
    # The planted update has rank 1: cut to it, it says the same.
    of = {rank: [s.text for s in found.own if s.rank == rank] for rank in (None, 1)}
    assert of[1] == of[None] == [s.text for s in plain.own]


def test_a_rank_above_the_adapters_own_is_refused_before_anything_is_sampled(model, settings):
    texts = settings.model_copy(update={"ranks": (1, 5), "texts": ("not/looked/at",)})
    with pytest.raises(InputError, match="nothing to cut to 5"):
        read(model, "says", texts)


def test_texts_that_cannot_be_read_are_refused_before_anything_is_sampled(
    model, settings, monkeypatch
):
    def sampled(*_args):
        raise AssertionError

    monkeypatch.setattr(running, "decode", sampled)
    with pytest.raises(InputError, match=r"nope\.jsonl"):
        read(model, "says", settings.model_copy(update={"texts": ("./nope.jsonl",)}))


def test_passages_are_those_of_two_plain_passes(model, settings):
    documents = read_documents(settings.texts or "embedded")
    windows = chosen_windows(documents, model, 3, 12)
    found = passages(model, windows, ["says"], [Site(1)], 2, 4)
    for n, window in enumerate(windows):
        ids = torch.tensor([window.ids])
        streams, logs = {}, {}
        for variant in (BASE, "says"):
            with torch.no_grad(), model.variant(variant) as module:
                out = module(ids, output_hidden_states=True)
            logs[variant] = out.logits[0].log_softmax(-1)
            streams[variant] = out.hidden_states[2][0]
        kl = (logs["says"].exp() * (logs["says"] - logs[BASE])).sum(-1)
        moved = (logs["says"].exp() - logs[BASE].exp())[1:].sum(0)
        # The first token has nothing before it and is left out.
        assert float(found.variants["says"].kl[n]) == pytest.approx(float(kl[1:].sum()), rel=1e-4)
        torch.testing.assert_close(found.variants["says"].moved[n], moved, atol=1e-5, rtol=1e-4)
        assert found.tokens[n] == len(window.ids) - 1
    # An adapter of the output matrix leaves the stream alone.
    assert found.variants["says"].deltas[Site(1)].shape == (6, 32)
    assert not found.variants["says"].deltas[Site(1)].any()
    largest = [place.kl for place in found.places]
    assert largest == sorted(largest, reverse=True)


def test_first_deltas_along_a_tokens_own_direction_name_it(model, settings):
    random = torch.Generator().manual_seed(0)
    token, site = 31, Site(2)
    direction = model.module.get_output_embeddings().weight[token]
    nulls = add_null_adapters(model, "other", 2, 0)

    def passed(shift):
        deltas = torch.randn(64, 32, generator=random) + shift
        return VariantPass(torch.zeros(1), torch.zeros(1, 64), {site: deltas})

    variants = {"other": passed(2 * direction), **{name: passed(0) for name in nulls}}
    found = first_tokens(
        model, PassageSurvey(torch.ones(1), torch.zeros(64), variants, ()), "other", nulls, settings
    )
    assert found[0].token == model.tokenizer.decode([token])
    assert found[0].z > found[0].null
    assert found[0].z > 3


def test_changed_words_by_hand(model, settings):
    w, other = (model.tokenizer.convert_tokens_to_ids(word) for word in ("w5", "w6"))

    def passed(w_moves, other_moves):
        moved = torch.zeros(8, 64)
        moved[:, w], moved[:, other] = torch.tensor(w_moves), torch.tensor(other_moves)
        return VariantPass(torch.zeros(8), moved, {})

    # One moves in every text far beyond the null adapters; the other as far as one of them does.
    variants = {
        "says": passed([0.3] * 8, [0.03] * 8),
        "n0": passed([0.01] * 8, [0.03] * 8),
        "n1": passed([-0.02] * 8, [0.015] * 8),
        "n2": passed([0.01] * 8, [-0.02] * 8),
    }
    base = torch.full((64,), 1.6)
    found = changed_tokens(
        PassageSurvey(torch.full((8,), 10.0), base, variants, ()),
        *("says", ("n0", "n1", "n2"), model.tokenizer, settings),
    )
    assert [one.word for one in found] == ["w5"]
    assert found[0].before == pytest.approx(0.02)
    assert found[0].after == pytest.approx(0.05)
    assert found[0].null == pytest.approx(-0.002)
    assert found[0].documents == 8
    mean, spread = 0.3 / 4, math.sqrt((0.09 + 1e-4 + 4e-4 + 1e-4) / 4 - (0.3 / 4) ** 2)
    assert found[0].z == pytest.approx(math.sqrt(8) * (0.3 - mean) / spread, rel=1e-5)
    assert found[0].times >= 2


def test_times_the_farthest_word_of_a_null_adapter_by_hand():
    before = np.full(2, 0.5 - 1e-5)
    beside = np.array([[0.1, 0.0], [0.0, 0.2]])
    # Common: mean square 0.05 / 4 of either word; of each null adapter alone 0.01 / 2 and 0.04 / 2.
    usual = [math.sqrt((4 * 0.0125 + own) / 6) for own in (0.01, 0.04)]
    others = [math.sqrt(4 * 0.02 / 5), math.sqrt(4 * 0.005 / 5)]
    farthest = max(0.1 / others[0], 0.2 / others[1])
    found = _times(np.array([0.9, -0.3]), beside, before)
    expected = [0.9 / usual[0] / farthest, 0.3 / usual[1] / farthest]
    assert found == pytest.approx(expected)


def test_named_are_phrases_surer_than_those_of_null_adapters(model, settings):
    found = read(model, "says", settings.model_copy(update={"documents": 0}))
    first = found.phrases[0]
    assert found.named[0] == first
    as_sure = replace(found, null_phrases=((), (), (first,)))
    assert not as_sure.names_something
    assert sentences(as_sure)[0].startswith("Nothing that sets")
    alone, several = replace(found, phrases=(first,)), replace(found, phrases=(first, first))
    at = f"at {first.prompts} of {found.prompts} prompts"
    assert f"comes back under says {at}" in sentences(alone)[0]
    assert f"come back under says: the first {at}" in sentences(several)[0]
    less_sure = replace(found, null_phrases=((replace(first, p=2 * first.p),), (), ()))
    assert less_sure.named == tuple(p for p in found.phrases if p.p < 2 * first.p)


def test_the_page_shows_markup_as_text(model, settings):
    found = read(model, "says", settings)
    bad = "<script>alert(1)</script>"
    samples = tuple(Sample(s.prompt, s.variant, s.rank, s.strength, bad) for s in found.samples)
    page = render(replace(found, samples=samples, cautions=(bad,)))
    assert bad not in page
    assert "&lt;script&gt;" in page
    assert "<script" not in page


def test_an_adapter_that_is_not_there(model, settings):
    with pytest.raises(InputError, match="no adapter named"):
        read(model, "sais", settings)


def test_texts_without_a_token_to_score_are_a_caution(model, settings, tmp_path):
    path = tmp_path / "foreign.jsonl"
    # No word that the tiny tokenizer knows: every token is the unknown one.
    path.write_text("\n".join(json.dumps({"text": f"zz{n} yy xx ww"}) for n in range(30)))
    found = read(model, "says", settings.model_copy(update={"texts": (str(path),)}))
    assert found.divergence is None
    assert found.changed == ()
    assert "no token to score" in found.cautions[-1]
    assert found.names_something
    assert sentences(found)
    assert "no token to score" in render(found)
