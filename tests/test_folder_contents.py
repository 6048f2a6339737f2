"""A folder of another kind than wanted is refused by what it holds."""

import pytest

from lorascope.errors import InputError
from lorascope.folder_contents import require_finished
from lorascope.reading.result import MARK as READING
from lorascope.workflows.comparison_folders import MARK as COMPARISON

STUDIES = {
    "sites: [layers.1]": "audit",
    "workflow: adapt": "adapt",
    "workflow: latent": "latent",
    "workflow: evaluate": "evaluat",
    "training: {}": "training",
}
FILES = {
    READING: "reading",
    COMPARISON: "comparison",
    "resemblance.json": "adapters",
    "scan.jsonl": "scan",
    "adapter_config.json": "adapter",
    "latent_adapter.safetensors": "latent adapter",
    "sae_weights.safetensors": "dictionary",
    "config.json": "model",
}
COMMANDS = ("card", "report", "features")


def refusal(lorascope, *arguments):
    code, out, err = lorascope(*arguments)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    return line


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("file", FILES)
def test_what_is_no_run_is_named(lorascope, tmp_path, command, file):
    (tmp_path / file).write_text("{}")
    line = refusal(lorascope, command, tmp_path)
    assert f"{tmp_path}: holds " in line
    assert FILES[file] in line.partition("holds ")[2].partition(";")[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_at_all(lorascope, tmp_path, command):
    assert "empty" in refusal(lorascope, command, tmp_path)
    assert "no such folder" in refusal(lorascope, command, tmp_path / "nope")
    (tmp_path / "file").write_text("")
    assert "is a file" in refusal(lorascope, command, tmp_path / "file")
    assert "holds no run" in refusal(lorascope, command, tmp_path)


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_that_is_not_finished_is_not_one_of_another_kind(lorascope, tmp_path, study):
    (tmp_path / "study.yaml").write_text(study)
    line = refusal(lorascope, "card", tmp_path)
    assert STUDIES[study] in line
    assert ("not finished" in line) == (STUDIES[study] == "audit")
    assert "not finished" in refusal(lorascope, "report", tmp_path)


def test_results_of_another_study_are_no_audits(lorascope, tmp_path):
    (tmp_path / "results").mkdir()
    require_finished(tmp_path, "audit")
    (tmp_path / "study.yaml").write_text("workflow: adapt")
    require_finished(tmp_path)
    assert "adapt" in refusal(lorascope, "card", tmp_path)
    (tmp_path / "study.yaml").unlink()
    (tmp_path / COMPARISON).write_text("{}")
    with pytest.raises(InputError, match="comparison"):
        require_finished(tmp_path, "audit")
