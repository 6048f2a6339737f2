"""`lorascope dictionary`: what it prints, what it warns of, and one line for wrong input."""

import json
import math
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from lorascope.dictionaries.card import Card
from lorascope.dictionaries.files import save
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.workflows import inspecting

GOLDEN = Path(__file__).parent / "reference" / "golden"
TRAINER = GOLDEN / "dictionary_learning" / "batch_top_k" / "trainer_0"


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    """A terminal in which no table is cut."""
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(scope="module")
def reversed_stream(tmp_path_factory):
    """A dictionary of width 32 that writes the negative of what it reads: FVU far above 1."""
    eye = torch.eye(32)
    maps = (torch.cat([eye, -eye], 1), torch.zeros(64), torch.cat([-eye, eye]), torch.zeros(32))
    folder = tmp_path_factory.mktemp("sae")
    save(ReluDictionary(*maps, card=Card(site="layers.1", target="base")), folder)
    return folder


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    lines = [
        json.dumps({"text": " ".join(f"w{(i * j) % 61}" for i in range(20))}) for j in range(9)
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_help_has_examples_and_names_the_formats(lorascope):
    code, out, _ = lorascope("dictionary", "--help")
    assert code == 0
    assert "Examples" in out
    for word in ("hf://", "saelens:", "--json", "--texts", "Gemma Scope", "dictionary_learning"):
        assert word in out


def test_a_table(lorascope):
    code, out, err = lorascope("dictionary", TRAINER)
    assert (code, err) == (0, "")
    lines = dict(line.strip().split(maxsplit=1) for line in out.strip().splitlines())
    assert lines["format"] == "dictionary_learning"
    assert lines["architecture"] == "jumprelu"
    assert (lines["latents"], lines["width"], lines["site"]) == ("10", "6", "layers.4")


def test_json_is_plain_and_whole(lorascope):
    code, out, err = lorascope("dictionary", GOLDEN / "sparsify" / "layers.5", "--json")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    assert (facts["format"], facts["architecture"], facts["k"]) == ("sparsify", "topk", 3)
    assert (facts["d_model"], facts["n_latents"], facts["site"]) == (6, 10, "layers.5")
    assert "tried" not in facts


def test_on_texts_with_a_warning_on_stderr(lorascope, reversed_stream, tiny_checkpoint, texts):
    given = ("--model", tiny_checkpoint("llama"), "--texts", texts, "--rows", "100")
    code, out, err = lorascope("dictionary", reversed_stream, *given, "--json")
    assert code == 0
    tried = json.loads(out)["tried"]
    measured = {one["measure"]: one["value"] for one in tried["estimates"]}
    assert measured["fvu"] > 3
    assert measured["relative_error"] == pytest.approx(2, abs=1e-4)
    (line,) = [line for line in err.splitlines() if line.startswith("lorascope:")]
    assert line.startswith("lorascope: warning: FVU ")
    code, out, _ = lorascope("dictionary", reversed_stream, *given)
    assert code == 0
    for word in (
        "FVU",
        "relative error",
        "zero predictor 1.00",
        "dead share",
        "h_base at layers.1",
    ):
        assert word in out


@pytest.fixture
def untrained_threshold(tmp_path):
    """A BatchTopK of dictionary_learning after few steps: threshold −1, so half of 64 fire."""
    eye = torch.eye(32)
    tensors = {
        "encoder.weight": torch.cat([eye, -eye]),
        "encoder.bias": torch.zeros(64),
        "decoder.weight": torch.cat([eye, -eye], 1),
        "b_dec": torch.zeros(32),
        "k": torch.tensor(12),
        "threshold": torch.tensor(-1.0),
    }
    torch.save(tensors, tmp_path / "ae.pt")
    trainer = {"dict_class": "BatchTopKSAE", "layer": 1, "k": 12}
    (tmp_path / "config.json").write_text(json.dumps({"trainer": trainer}))
    return tmp_path


def test_trap_more_latents_are_active_than_it_was_made_for(
    lorascope, untrained_threshold, tiny_checkpoint, texts
):
    given = ("--model", tiny_checkpoint("llama"), "--texts", texts, "--rows", "100")
    code, out, err = lorascope("dictionary", untrained_threshold, *given, "--json")
    assert code == 0
    facts = json.loads(out)
    measured = {one["measure"]: one["value"] for one in facts["tried"]["estimates"]}
    assert (facts["stated_l0"], measured["density"]) == (12, pytest.approx(32, abs=0.5))
    assert facts["note"].startswith("64 of 64 thresholds lie below 0")
    (line,) = [line for line in err.splitlines() if line.startswith("lorascope:")]
    assert "latents are active a token and its makers state 12" in line
    code, out, err = lorascope("dictionary", untrained_threshold)
    assert (code, err) == (0, "")
    assert "L0 as stated" in out
    assert "thresholds lie below 0" in out


def test_no_warning_where_as_many_are_active_as_stated(
    lorascope, untrained_threshold, tiny_checkpoint, texts
):
    config = untrained_threshold / "config.json"
    tensors = torch.load(untrained_threshold / "ae.pt", weights_only=True)
    torch.save({**tensors, "k": torch.tensor(30)}, untrained_threshold / "ae.pt")
    config.write_text(config.read_text().replace("12", "30"))
    given = ("--model", tiny_checkpoint("llama"), "--texts", texts, "--rows", "100")
    code, _, err = lorascope("dictionary", untrained_threshold, *given)
    assert code == 0
    assert not [line for line in err.splitlines() if line.startswith("lorascope:")]


def test_a_file_that_does_not_say_what_it_reads(lorascope, tmp_path, tiny_checkpoint, texts):
    """Gemma Scope's file from an unknown place: said to be one, tried where its user says."""
    eye = np.eye(32, dtype=np.float32)
    np.savez(
        tmp_path / "params.npz",
        W_enc=np.concatenate([eye, -eye], 1),
        W_dec=np.concatenate([eye, -eye]),
        b_enc=np.zeros(64, np.float32),
        b_dec=np.zeros(32, np.float32),
        threshold=np.zeros(64, np.float32),
    )
    code, out, _ = lorascope("dictionary", tmp_path)
    assert code == 0
    assert "not said" in out
    assert "?site=layers.L" in out.replace("\n", "")
    given = ("--model", tiny_checkpoint("llama"), "--texts", texts, "--rows", "100", "--json")
    code, out, err = lorascope("dictionary", tmp_path, *given)
    assert (code, out) == (2, "")
    assert "does not say what it reads" in err
    for arguments in ((tmp_path, "--site", "layers.1"), (f"{tmp_path}?site=layers.1",)):
        code, out, _ = lorascope("dictionary", *arguments, *given)
        assert code == 0
        facts = json.loads(out)
        assert facts["tried"]["site"] == "layers.1"
        fvu = next(e for e in facts["tried"]["estimates"] if e["measure"] == "fvu")
        assert fvu["value"] < 1e-6


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["no/such/folder"], "no/such/folder: no such folder."),
        (["hf://gemma"], "expected hf://owner/repo/folder[@revision]"),
        (["saelens:nothing"], "expected saelens:release/id"),
        ([TRAINER, "--model", "embedded"], "--model and --texts go together"),
        ([TRAINER, "--texts", "embedded"], "--model and --texts go together"),
        ([TRAINER, "--model", "m", "--texts", "t", "--rows", "3"], '"rows" is 3; give'),
        ([TRAINER, "--model", "embedded", "--texts", "embedded"], "reads rows of width 6"),
        ([], "Missing argument 'address'"),
    ],
)
def test_wrong_input_is_one_line(lorascope, arguments, expected):
    if "reads rows" in expected:
        arguments = [*arguments, "--force"]
    code, out, err = lorascope("dictionary", *arguments)
    assert (code, out) == (2, "")
    line = err.strip().splitlines()[-1]
    assert line.startswith("lorascope: ")
    assert expected in line
    assert "Traceback" not in err


def test_foreign_words_are_shown_and_never_obeyed(lorascope, tmp_path, reversed_stream):
    """Folders and cards with escape sequences, as anyone can upload them."""
    folder = tmp_path / "a\u202eb\x1b[2J"
    shutil.copytree(reversed_stream, folder)
    for arguments in ((folder,), (folder, "--json"), (tmp_path / "\x1b[2Jnot there",)):
        code, out, err = lorascope("dictionary", *arguments)
        assert code == (0 if out else 2)
        assert not {"\x1b", "\x07", "\u202e"} & set(out + err)
        assert "[2J" in out + err
        if "--json" in arguments:
            assert json.loads(out)["address"] == str(folder)
    (folder / "lorascope.json").unlink()
    card = json.loads((folder / "cfg.json").read_text())
    card["metadata"]["neuronpedia_id"] = "gemma\x1b]0;title\x07"
    (folder / "cfg.json").write_text(json.dumps(card))
    code, out, err = lorascope("dictionary", folder)
    assert (code, out) == (2, "")
    assert not {"\x1b", "\x07", "\u202e"} & set(err)


def test_warnings_of_libraries_are_shown_too(lorascope, reversed_stream, monkeypatch):
    describe, before = inspecting.describe, warnings.showwarning

    def warn(opened):
        warnings.warn(f"of {opened.card.source}: \x1b[2J\u202e", stacklevel=1)
        return describe(opened)

    monkeypatch.setattr(inspecting, "describe", warn)
    code, out, err = lorascope("dictionary", reversed_stream)
    assert code == 0
    assert out
    assert "UserWarning" in err
    assert r"\x1b[2J\u202e" in err
    assert not {"\x1b", "\u202e"} & set(err)
    assert warnings.showwarning is before


def test_json_has_null_for_what_is_no_number(
    lorascope, reversed_stream, tiny_checkpoint, texts, monkeypatch
):
    plain = inspecting._plain
    bad = {"value": math.nan, "references": {"mean predictor": math.inf}}
    monkeypatch.setattr(inspecting, "_plain", lambda found: plain(found) | bad)
    given = ("--model", tiny_checkpoint("llama"), "--texts", texts, "--rows", "100", "--json")
    code, out, _ = lorascope("dictionary", reversed_stream, *given)
    assert code == 0

    def refuse(constant):
        raise AssertionError(constant)

    estimates = json.loads(out, parse_constant=refuse)["tried"]["estimates"]
    assert {one["value"] for one in estimates} == {None}
    assert estimates[0]["references"] == {"mean predictor": None}
