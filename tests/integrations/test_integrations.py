"""The action's script, the hook's command and the trainer's callback, as their tools run them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import torch
import yaml
from written_adapters import factors, write

import lorascope as ls
from lorascope.checking import formats
from lorascope.integrations import pre_commit

ROOT = Path(__file__).parents[2]
ACTION = ROOT / "integrations" / "github-action" / "action.yml"


@pytest.fixture
def good(tmp_path):
    return write(tmp_path / "a good one", factors(layers=6))


@pytest.fixture
def bad(tmp_path):
    tensors = factors(layers=4)
    next(iter(tensors.values()))[0, 0] = float("nan")
    return write(tmp_path / "bad; touch boom", tensors)


def test_the_action_writes_sarif_and_fails_where_a_gate_is_missed(bad, tmp_path):
    action = yaml.safe_load(ACTION.read_text())
    step = action["runs"]["steps"][-1]
    given = {"adapter": str(bad), "model": "", "options": "--require=whole\n\n--require=live"}
    given["sarif"] = "out.sarif"
    names = {k: re.fullmatch(r"\$\{\{ inputs\.(\w+) \}\}", v)[1] for k, v in step["env"].items()}
    assert set(names.values()) == set(given) <= set(action["inputs"])
    assert "${{" not in step["run"]
    tools = tmp_path / "bin"
    tools.mkdir()
    command = f'#!/bin/sh\nexec "{sys.executable}" -m lorascope "$@"\n'
    (tools / "lorascope").write_text(command)
    (tools / "lorascope").chmod(0o755)
    import os

    env = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    env |= {name: given[source] for name, source in names.items()}
    run = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
    done = subprocess.run(run, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "--require whole" in done.stderr
    data = json.loads((tmp_path / "out.sarif").read_text())
    assert {one["ruleId"] for one in data["runs"][0]["results"]} == {"not-finite", "gate"}
    assert not (tmp_path / "boom").exists()


def test_the_hook_takes_files_of_adapters_and_no_others(good, bad, tmp_path, capsys):
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    local = yaml.safe_load((ROOT / "integrations/pre-commit/local.yaml").read_text())
    (same,) = local["repos"][0]["hooks"]
    assert (same["entry"], same["files"]) == (hook["entry"], hook["files"])
    assert hook["entry"].split()[-1] == pre_commit.__name__
    names = ["x/adapter_config.json", "adapter_model.safetensors", "my_adapter_config.json", "a.py"]
    assert [bool(re.search(hook["files"], name)) for name in names] == [True, True, False, False]
    files = [f"{folder}/{name}" for folder in (good, bad) for name in names[:2]]
    files = [file.replace("x/", "") for file in files]
    assert pre_commit.adapters_of([*files, "README.md"]) == [good, bad]
    assert pre_commit.main(files[:2]) == 0
    assert capsys.readouterr().err == ""
    assert pre_commit.main(files) == 1
    assert "not-finite" in capsys.readouterr().err
    (good / "adapter_config.json").write_text("{")
    assert pre_commit.main(files) == 2


class _Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, i):
        ids = torch.arange(8) + i
        return {"input_ids": ids, "labels": ids}


def test_a_trainer_ends_with_a_check_and_a_reading(tmp_path, tiny_checkpoint):
    """A few steps of transformers' own Trainer on the tiny model."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    from lorascope.integrations.trainer import CheckCallback

    path = str(tiny_checkpoint())
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(path),
        LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"),
    )
    texts = tmp_path / "texts"
    texts.mkdir()
    for i in range(9):
        (texts / f"{i}.txt").write_text(" ".join(f"w{(3 * i + j) % 60}" for j in range(12)))
    gates = {"require": ("live", "whole"), "max_kl": 1e-12}
    callback = CheckCallback(path, texts=[str(texts)], gates=gates, intruders=1)
    arguments = TrainingArguments(
        str(tmp_path / "out"),
        max_steps=2,
        per_device_train_batch_size=4,
        learning_rate=0.1,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    Trainer(model, arguments, train_dataset=_Rows(), callbacks=[callback]).train()
    assert [gate.passed for gate in callback.check.gates] == [True, True, False]
    assert callback.reading is None
    out = tmp_path / "out" / "lorascope"
    data = json.loads((out / "check.json").read_text())
    jsonschema.validate(data, formats.schema())
    saved = ls.check(out / "adapter").read
    assert [module.norm for module in saved.modules] == [
        module.norm for module in callback.check.read.modules
    ]


@pytest.mark.slow
def test_a_trainer_ends_with_a_reading(tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    from lorascope import embedded
    from lorascope.integrations.trainer import CheckCallback

    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(embedded.model_path("embedded")),
        LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"),
    )
    callback = CheckCallback("embedded", read=True, intruders=0)
    arguments = TrainingArguments(
        str(tmp_path),
        max_steps=1,
        learning_rate=0.01,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
    )
    Trainer(model, arguments, train_dataset=_Rows(), callbacks=[callback]).train()
    assert callback.check.effect.live
    assert ls.Read.load(tmp_path / "lorascope" / "reading").adapter == callback.reading.adapter


def test_what_cannot_be_checked_ends_no_training(tmp_path, capsys):
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from lorascope.integrations.trainer import CheckCallback

    with pytest.raises(ls.InputError, match="needs the base"):
        CheckCallback(read=True)
    callback = CheckCallback()
    arguments = TrainingArguments(str(tmp_path), report_to=[], use_cpu=True)
    state, control = TrainerState(is_world_process_zero=True), TrainerControl()
    callback.on_train_end(arguments, state, control, model=torch.nn.Linear(2, 2))
    assert callback.check is None
    assert "no PEFT model" in capsys.readouterr().err
