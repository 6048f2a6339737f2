"""`lorascope dictionary`: what it prints, what it warns of, and one line for wrong input."""

import json
import sys
from pathlib import Path

import pytest
import torch

from lorascope import cli
from lorascope.dictionaries.card import Card
from lorascope.dictionaries.files import save
from lorascope.dictionaries.relu import ReluDictionary

GOLDEN = Path(__file__).parent / "reference" / "golden"
TRAINER = GOLDEN / "dictionary_learning" / "batch_top_k" / "trainer_0"


@pytest.fixture
def lorascope(monkeypatch, capsys):
    """`lorascope(*arguments)`: exit code, stdout and stderr of the command in this process."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["lorascope", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as stopped:
            code = stopped.code or 0
        return code, *capsys.readouterr()

    return call


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


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["no/such/folder"], "no/such/folder: no such folder."),
        (["hf://gemma"], "expected hf://owner/repo/folder[@revision]"),
        (["saelens:nothing"], "expected saelens:release/id"),
        ([TRAINER, "--model", "embedded"], "--model and --texts go together"),
        ([TRAINER, "--texts", "embedded"], "--model and --texts go together"),
        ([TRAINER, "--model", "m", "--texts", "t", "--rows", "3"], '"rows": Input should be'),
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
