"""A callback for transformers' `Trainer` and TRL's trainers: the adapter is checked at the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lorascope.checking.check import Check, check_adapter
from lorascope.checking.settings import CheckSettings
from lorascope.errors import InputError
from lorascope.printing import say
from lorascope.reading.result import Read
from lorascope.reading.settings import Reading
from lorascope.runs import write_atomically

FOLDER = "lorascope"
_NAME = "adapter"


class CheckCallback(TrainerCallback):
    """Saves the adapter once training ends, checks it, and reads it if asked.

    Written below `output_dir`/lorascope: `adapter/`, `check.json`, and `reading/`. A missed gate or
    an adapter that cannot be checked is said and ends no training.

    Attributes:
        check: what was found; None before the end, or where it could not be checked.
        reading: what was read; None where that was not asked for.
    """

    def __init__(
        self, model: str | None = None, *, read: Reading | bool = False, **settings: Any
    ) -> None:
        """What is checked.

        Args:
            model: base to try it on: hub id, folder or embedded; without it the files alone.
            read: read it as `lorascope read` does; needs `model`.
            settings: further fields of `CheckSettings`: `gates={"require": ("live",)}`.

        Raises:
            InputError: a setting is wrong, or a reading is asked for without a model.
        """
        self.settings = CheckSettings.parse({**settings, "model": model}, "check")
        if read and model is None:
            raise InputError("a reading needs the base model: give CheckCallback(model=...)")
        self._reading = Reading() if read is True else read or None
        self.check: Check | None = None
        self.reading: Read | None = None

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **given: Any,
    ) -> None:
        """What the trainer calls."""
        del control
        model = given.get("model")
        # What wraps the model for several devices has it as `module`.
        model = getattr(model, "module", model)
        if not state.is_world_process_zero:
            return
        folder = Path(str(args.output_dir)) / FOLDER
        try:
            self._look(model, folder, sharded=bool(args.deepspeed or args.fsdp))
        except InputError as error:
            say(f"lorascope: not checked: {error}", err=True)

    def _look(self, model: Any, folder: Path, sharded: bool) -> None:
        if not isinstance(model, PeftModel):
            raise InputError("the trained model is no PEFT model, so there is no adapter")
        if sharded:
            raise InputError(
                "its weights are sharded (DeepSpeed or FSDP): save it, then run lorascope check"
            )
        model.save_pretrained(folder / _NAME, selected_adapters=[model.active_adapter])
        place = folder / _NAME
        # PEFT puts an adapter that is not called default into a folder of its name.
        place = place if model.active_adapter == "default" else place / model.active_adapter
        self.check = found = check_adapter(str(place), self.settings)
        text = json.dumps(found.plain(), indent=1, ensure_ascii=False, allow_nan=False)
        write_atomically(folder / "check.json", text + "\n")
        for finding in found.findings:
            if finding.level != "note":
                say(f"lorascope: {finding.level}: [{finding.rule}] {finding.message}", err=True)
        for gate in found.missed:
            say(f"lorascope: missed {gate.option}: {gate.message}", err=True)
        if self._reading is not None:
            self._read(place, folder / "reading", self._reading)

    def _read(self, adapter: Path, folder: Path, settings: Reading) -> None:
        # Loads the base another time: the trained one is the trainer's.
        from lorascope.latent_adapters.loading import load
        from lorascope.reading.running import read

        assert self.settings.model is not None
        base = load(self.settings.model, {_NAME: str(adapter)}, force=self.settings.force)
        self.reading = read(base, _NAME, settings)
        self.reading.write(folder)
