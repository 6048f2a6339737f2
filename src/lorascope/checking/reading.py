"""One adapter's files, read whole once: findings, and the exact numbers of every module."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorascope.checking.configured import (
    compare,
    fits_rank,
    of_parameters,
    require_bounded_patterns,
)
from lorascope.checking.findings import Finding, listed
from lorascope.checking.folders import SAFE, base_facts, beside, find
from lorascope.checking.spectra import ModuleNumbers, is_finite, module_numbers, scale_of
from lorascope.checking.tensors import FLOATS, Contents, WeightsFile, open_weights
from lorascope.errors import InputError
from lorascope.models.adapter_config import LORA, read_fields, require_usable
from lorascope.models.places import CONFIG_FILE
from lorascope.progress import Advance, Reporter


@dataclass
class FilesRead:
    """What an adapter's files hold.

    Attributes:
        name: what messages call it.
        path: as it was asked for.
        folder: where it lies.
        kind: PEFT's tuner type, in capitals.
        fields: of its configuration.
        base: the base model that its configuration names; None where it names none.
        parameters: how many numbers the file holds.
        modules: the numbers of every LoRA update, zero ones included.
        findings: in the order in which they were found.
        usable: whether the configuration asks for nothing that no variant can do.
    """

    name: str
    path: str
    folder: Path
    kind: str
    fields: dict[str, Any]
    base: str | None
    parameters: int = 0
    modules: list[ModuleNumbers] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    usable: bool = True
    anything: bool = False

    @property
    def has_errors(self) -> bool:
        """Whether any finding is an error."""
        return any(finding.level == "error" for finding in self.findings)

    @property
    def may_live(self) -> bool:
        """Whether anything that it adds is not zero, as far as files tell."""
        return self.anything or any(module.norm > 0 for module in self.modules)


def read_adapter(path: str, reporter: Reporter | None = None) -> FilesRead:
    """Look at an adapter's files; nothing is unpickled, one module is in memory at a time.

    Args:
        path: its folder, or an id of the hub.
        reporter: shows a bar of the modules.

    Raises:
        InputError: there is no adapter, or its files are damaged.
    """
    name = Path(path).name or str(path)
    folder = find(name, path)
    kind, fields = read_fields(name, folder)
    named = fields.get("base_model_name_or_path")
    base = named if isinstance(named, str) and named else None
    found = FilesRead(name, path, folder, kind, fields, base)
    found.findings += beside(folder)
    try:
        require_usable(name, kind, fields)
    except InputError as error:
        found.usable = False
        found.findings.append(Finding("unusable", "error", str(error), CONFIG_FILE))
    if kind != LORA and found.usable:
        message = f"tuner type {kind}: supported; its updates show with --model alone"
        found.findings.append(Finding("tuner", "note", message, CONFIG_FILE))
    weights = folder / SAFE
    if weights.is_file():
        with open_weights(name, weights) as file:
            _read_tensors(found, file, reporter or Reporter(quiet=True))
    elif not any(finding.rule == "pickled" for finding in found.findings):
        raise InputError(f'adapter "{name}": no {SAFE} in "{folder}": fetch it again')
    return found


def _read_tensors(found: FilesRead, file: WeightsFile, reporter: Reporter) -> None:
    contents = file.contents()
    for one in contents.tensors:
        size = 1
        for extent in one.shape:
            size *= extent
        found.parameters += size
    as_lora = found.kind == LORA and found.usable
    if as_lora:
        require_bounded_patterns(found.name, found.fields, contents)
        found.findings += compare(found.fields, contents, base_facts(found.base))
    bad: list[str] = []
    if as_lora:
        with reporter.bar("updates", len(contents.modules), "modules") as advance:
            bad = _modules(found, file, contents, advance)
    measured = {module.path for module in found.modules} if as_lora else set()
    rest = [t for p, m in contents.modules.items() if p not in measured for t in m.parts.values()]
    for one in [*rest, *contents.others]:
        if 0 in one.shape or one.key in bad:
            continue
        tensor = file.read(one)
        if one.dtype in FLOATS and not is_finite(tensor):
            bad.append(one.key)
        # What starts at zero tells of training; factors A and magnitudes do not.
        trained = one.key.endswith(("lora_B.weight", "lora_B")) or one in contents.others
        found.anything |= trained and bool(tensor.any())
    if bad:
        message = f"{len(bad)} of {len(contents.tensors)} tensors hold NaN or infinity"
        where = tuple(bad)
        told = f"{message}: {listed(bad)}; the training diverged: give an earlier checkpoint"
        found.findings.append(Finding("not-finite", "error", told, SAFE, where))
    _say_zeros(found)


def _modules(
    found: FilesRead, file: WeightsFile, contents: Contents, advance: Advance
) -> list[str]:
    """Read every pair of factors; returns the names of tensors that are not finite."""
    bad: list[str] = []
    for module in contents.modules.values():
        floats = all(part.dtype in FLOATS for part in module.parts.values())
        if module.is_pair and floats and not of_parameters(found.fields, module.path):
            scale = scale_of(found.fields, module.path, module.shape[1])
            if not fits_rank(found.fields, module):
                # PEFT refuses it: no scale is right.
                scale = 1.0
            numbers = module_numbers(file, module, scale)
            if isinstance(numbers, list):
                bad += numbers
            else:
                found.modules.append(numbers)
        advance(1)
    return bad


def _say_zeros(found: FilesRead) -> None:
    zeros = [module.path for module in found.modules if module.norm == 0]
    if not zeros and (found.may_live or found.has_errors):
        return
    if not found.may_live:
        message = (
            "the update is zero in every module: it may have been saved before training, or scaled "
            "to nothing"
        )
        found.findings.append(Finding("zero-update", "error", message, SAFE, tuple(zeros)))
    elif zeros:
        message = f"the update of {len(zeros)} of {len(found.modules)} modules is zero"
        told = f"{message}: {listed(zeros)}"
        found.findings.append(Finding("zero-update", "warning", told, SAFE, tuple(zeros)))
