"""The callback in TRL's own trainers, on the embedded chat model; skipped where TRL is missing."""

from __future__ import annotations

import json

import jsonschema
import pytest
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

import lorascope as ls
from lorascope import embedded
from lorascope.checking import formats
from lorascope.integrations.trainer import CheckCallback

trl = pytest.importorskip("trl", reason="TRL is not installed")

BASE = "embedded-it"
PATH = str(embedded.model_path(BASE))
CHATS = [
    {
        "prompt": [{"role": "user", "content": f"Say {i}"}],
        "completion": [{"role": "assistant", "content": f"number {i} is blue"}],
    }
    for i in range(12)
]
PAIRS = [
    {"prompt": f"Say {i}", "chosen": f"number {i} is blue", "rejected": "no"} for i in range(12)
]


def settings(kind, folder):
    return kind(
        str(folder),
        max_steps=2,
        per_device_train_batch_size=4,
        learning_rate=0.01,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )


def lora(task="CAUSAL_LM"):
    return LoraConfig(r=2, target_modules=["q_proj"], task_type=task)


def callback(model=BASE):
    further = {"documents": 4, "tokens": 12, "intruders": 0} if model else {}
    return CheckCallback(model, gates={"require": ("live", "whole")}, **further)


def test_supervised_fine_tuning_ends_with_a_check_of_what_was_trained(tmp_path):
    looking = callback()
    trainer = trl.SFTTrainer(
        model=PATH,
        args=settings(trl.SFTConfig, tmp_path),
        train_dataset=Dataset.from_list(CHATS),
        peft_config=lora(),
        callbacks=[looking],
    )
    trainer.train()
    found = looking.check
    assert found.missed == []
    assert (found.effect.live, found.effect.restored) == (True, True)
    assert found.effect.estimates[0].value > 0
    jsonschema.validate(
        json.loads((tmp_path / "lorascope" / "check.json").read_text()), formats.schema()
    )
    trainer.save_model(tmp_path / "saved")
    saved = ls.check(tmp_path / "saved").read.modules
    assert [one.norm for one in saved] == [one.norm for one in found.read.modules]
    assert all(one.norm > 0 for one in saved)


def test_preferences_from_a_trained_adapter_check_the_one_that_was_trained(tmp_path):
    """TRL puts the adapter as it was at first beside the one that it trains."""
    start = tmp_path / "start"
    get_peft_model(AutoModelForCausalLM.from_pretrained(PATH), lora()).save_pretrained(start)
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(PATH), start, is_trainable=True
    )
    looking = callback()
    trainer = trl.DPOTrainer(
        model=model,
        args=settings(trl.DPOConfig, tmp_path / "out"),
        train_dataset=Dataset.from_list(PAIRS),
        processing_class=AutoTokenizer.from_pretrained(PATH),
        callbacks=[looking],
    )
    trainer.train()
    assert len(trainer.model.peft_config) == 2
    # The one it began from changes nothing.
    assert looking.check.missed == []
    assert looking.check.effect.live


def test_a_reward_model_is_checked_by_its_files_and_refused_by_name_with_a_model(tmp_path, capsys):
    for model in (None, BASE):
        looking = callback(model)
        trl.RewardTrainer(
            model=PATH,
            args=settings(trl.RewardConfig, tmp_path / str(model)),
            train_dataset=Dataset.from_list(PAIRS),
            peft_config=lora("SEQ_CLS"),
            callbacks=[looking],
        ).train()
        if model is None:
            assert looking.check.missed == []
            rules = {finding.rule for finding in looking.check.findings}
            assert "other-head" in rules
            assert "no-match" not in rules
            assert "not checked" not in capsys.readouterr().err
        else:
            assert looking.check is None
            assert "SEQ_CLS" in capsys.readouterr().err
