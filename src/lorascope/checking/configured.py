"""A LoRA configuration compared with the tensors: settings that PEFT would ignore silently."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from lorascope.checking.findings import Finding, listed
from lorascope.checking.folders import SAFE, BaseFacts
from lorascope.checking.spectra import in_pattern, scale_of
from lorascope.checking.tensors import FLOATS, Contents, Module, bare
from lorascope.models.patterns import require_all_bounded
from lorascope.models.places import CONFIG_FILE

Fields = Mapping[str, Any]
_LAYER = re.compile(r".*?\.[^.]*\.(\d+)\.")
_ENDS = ("embed_tokens", "lm_head", "wte", "embed_in", "embed_out", "word_embeddings", "output")
_SECONDS = 3.0
# Names of heads that PEFT itself adds to modules_to_save; a model has one of them.
_HEADS: dict[str, tuple[str, ...]] = {
    "SEQ_CLS": ("classifier", "score"),
    "TOKEN_CLS": ("classifier", "score"),
    "QUESTION_ANS": ("qa_outputs",),
}


def require_bounded_patterns(name: str, fields: Fields, contents: Contents) -> None:
    """Refuse regular expressions that are none, or that do not end on the file's modules.

    Raises:
        InputError: names the expression.
    """
    whole = [fields.get("target_modules"), fields.get("exclude_modules")]
    keys = [*(fields.get("rank_pattern") or ()), *(fields.get("alpha_pattern") or ())]
    layers = _several(fields.get("layers_pattern"))
    patterns = [
        *(one for one in whole if isinstance(one, str) and one.lower() != "all-linear"),
        *(f"(.*\\.)?({key})$" for key in keys if not re.fullmatch(r"[\w.-]*", key)),
        *(rf"(?:^|.*?\.){one}\.(\d+)\." for one in layers if not re.fullmatch(r"[\w.-]*", one)),
    ]
    require_all_bounded(name, patterns, list(contents.modules), _SECONDS)


def compare(fields: Fields, contents: Contents, base: BaseFacts | None) -> list[Finding]:
    """Everything about a LoRA adapter that its configuration and its file's header tell."""
    return [
        *_kinds_of_lora(fields),
        *_tensors(contents),
        *_pairs(fields, contents),
        *_names(fields, contents),
        *_others(fields, contents, base),
        *_against_base(contents, base),
    ]


def _kinds_of_lora(fields: Fields) -> Iterator[Finding]:
    task = fields.get("task_type")
    if task in _HEADS:
        message = f"task type {task}: trained on a model with another head than a language model's"
        yield Finding("other-head", "note", message, CONFIG_FILE)
    if fields.get("use_dora"):
        message = "DoRA: weights are renormalised to a learned magnitude; norms and spectra below "
        yield Finding("dora", "note", message + "are of scale · B · A alone", CONFIG_FILE)
    if fields.get("use_rslora"):
        yield Finding("rslora", "note", "rsLoRA: the scale is alpha / sqrt(rank)", CONFIG_FILE)
    if fields.get("bias", "none") != "none" or fields.get("lora_bias"):
        yield Finding("bias", "note", "biases are trained too; no number is of them", CONFIG_FILE)
    targets = fields.get("target_parameters") or []
    if targets:
        yield Finding(
            "target-parameters",
            "warning",
            f"factors act on parameters that hold several maps together: {listed(targets)}; they "
            "stand in no spectrum",
            CONFIG_FILE,
            tuple(targets),
        )
    if float(fields.get("lora_alpha", 8)) == 0:
        yield Finding("zero-scale", "error", "lora_alpha is 0: the scale is zero", CONFIG_FILE)


def _tensors(contents: Contents) -> Iterator[Finding]:
    empty = [t.key for t in contents.tensors if 0 in t.shape]
    if empty:
        yield _of_file(
            "bad-tensor",
            "error",
            f"{len(empty)} tensors are empty, as DeepSpeed ZeRO-3 leaves what it did not gather",
            empty,
        )
    foreign = [t.key for t in contents.tensors if t.dtype not in FLOATS]
    if foreign:
        yield _of_file("bad-tensor", "error", "tensors are of no dtype that weights have", foreign)
    if not contents.tensors:
        yield Finding("zero-update", "error", "the file holds no tensors", SAFE)


def _pairs(fields: Fields, contents: Contents) -> Iterator[Finding]:
    halves, apart, ranks, dora = [], [], [], []
    for module in contents.modules.values():
        A, B = module.parts.get("A"), module.parts.get("B")
        if A is None or B is None:
            halves.append(module.path)
        elif not module.is_pair and 0 not in (*A.shape, *B.shape):
            apart.append(module.path)
        elif module.is_pair and not fits_rank(fields, module):
            ranks.append(module.path)
        if bool(fields.get("use_dora")) != ("magnitude" in module.parts):
            dora.append(module.path)
    if halves:
        yield _of_file("half-pair", "error", "one of the factors A and B is missing", halves)
    if apart:
        yield _of_file("shape", "error", "A and B are no matrices of one inner size", apart)
    if ranks:
        yield _of_file("shape", "error", "factors are not of the rank in the configuration", ranks)
    if dora and fields.get("use_dora"):
        yield _of_file("half-pair", "error", "DoRA's magnitude is missing", dora)
    elif dora:
        yield _of_file("unused-key", "error", "magnitudes are stored and use_dora is false", dora)


def fits_rank(fields: Fields, module: Module) -> bool:
    """Whether the factors are of the rank that the configuration gives their module."""
    if of_parameters(fields, module.path):
        return True
    rank = in_pattern(fields.get("rank_pattern"), module.path, fields.get("r", 8))
    return module.shape[1] == int(rank)


def of_parameters(fields: Fields, path: str) -> bool:
    """Whether a module's factors act on a parameter named in `target_parameters`."""
    plain = path.replace(".base_layer", "")
    owners = (name.rpartition(".")[0] for name in fields.get("target_parameters") or ())
    return any(_ends(plain, owner) for owner in owners)


def _names(fields: Fields, contents: Contents) -> Iterator[Finding]:
    paths = list(contents.modules)
    unused = [p for p in paths if not (of_parameters(fields, p) or _used(fields, p))]
    if unused:
        yield _of_file(
            "unused-key",
            "error",
            f"target_modules, exclude_modules or layers_to_transform leave {len(unused)} of "
            f"{len(paths)} modules out: PEFT would not load {listed(unused)}",
            unused,
        )
    missing = list(_without_match(fields, paths))
    if missing:
        message = f"names that no tensor of the file answers to: {listed(missing)}"
        yield Finding("no-match", "warning", message, CONFIG_FILE, tuple(missing))
    zero = [p for p, m in contents.modules.items() if m.is_pair and not _scale(fields, m)]
    if zero and float(fields.get("lora_alpha", 8)):
        message = f"alpha_pattern sets the scale of {len(zero)} modules to zero: {listed(zero)}"
        yield Finding("zero-scale", "error", message, CONFIG_FILE, tuple(zero))


def _without_match(fields: Fields, paths: list[str]) -> Iterator[str]:
    """Names in the configuration that no module of the file answers to."""
    targets = fields.get("target_modules")
    for target in targets if isinstance(targets, list) else []:
        if not any(_ends(path, target) for path in paths):
            yield f"target_modules {target}"
    layers = {_layer(fields, path) for path in paths}
    for layer in _layers(fields):
        if str(layer) not in layers:
            yield f"layers_to_transform {layer}"
    for name in ("rank_pattern", "alpha_pattern"):
        for key in fields.get(name) or ():
            if not any(re.match(rf"(.*\.)?({key})$", path) for path in paths):
                yield f"{name} {key}"


def _scale(fields: Fields, module: Module) -> float:
    return scale_of(fields, module.path, module.shape[1])


def _used(fields: Fields, path: str) -> bool:
    """Whether PEFT's own rule puts a layer on a module of this path."""
    excluded, targets = fields.get("exclude_modules"), fields.get("target_modules")
    if isinstance(excluded, str):
        if re.fullmatch(excluded, path):
            return False
    elif any(_ends(path, one) for one in excluded or ()):
        return False
    if targets is None or (isinstance(targets, str) and targets.lower() == "all-linear"):
        return True
    if isinstance(targets, str):
        return re.fullmatch(targets, path) is not None
    if path in targets:
        return True
    if not any(_ends(path, one) for one in targets):
        return False
    layers = _layers(fields)
    return not layers or _layer(fields, path) in {str(layer) for layer in layers}


def _layer(fields: Fields, path: str) -> str | None:
    """The number that PEFT takes for a path's layer."""
    for pattern in _several(fields.get("layers_pattern")):
        if found := re.match(rf"(?:^|.*?\.){pattern}\.(\d+)\.", path):
            return found[1]
    if fields.get("layers_pattern"):
        return None
    found = _LAYER.match(path)
    return found[1] if found else None


def _layers(fields: Fields) -> list[int]:
    layers = fields.get("layers_to_transform")
    return [] if layers is None else layers if isinstance(layers, list) else [layers]


def _several(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def _ends(path: str, name: str) -> bool:
    return path == name or path.endswith(f".{name}")


def _others(fields: Fields, contents: Contents, base: BaseFacts | None) -> Iterator[Finding]:
    saved = fields.get("modules_to_save") or []
    tokens, whole, carried, unused = [], [], [], []
    for one in contents.others:
        path = bare(one.key)
        if ".token_adapter." in path or path.startswith("token_adapter."):
            tokens.append(one.key)
        elif any(_saved_by(path, name) for name in saved):
            whole.append(one.key)
        elif any(f".{end}." in f".{path}" for end in _ENDS):
            carried.append(one.key)
        elif not (fields.get("bias", "none") != "none" and path.endswith(".bias")):
            unused.append(one.key)
    if whole:
        message = f"replaced whole, in no spectrum: {listed([bare(key) for key in whole])}"
        yield Finding("replaced-whole", "note", message, SAFE, tuple(whole))
    held = [n for n in saved if any(_saved_by(bare(key), n) for key in whole)]
    heads = _HEADS.get(str(fields.get("task_type")), ())
    added = heads if any(name in held for name in heads) else ()
    absent = [n for n in saved if n not in held and n not in added]
    if absent:
        message = f"modules_to_save names what the file does not hold: {listed(absent)}"
        yield Finding("no-match", "warning", message, CONFIG_FILE, tuple(absent))
    if unused:
        message = f"{len(unused)} tensors have no place: {listed(unused)}"
        yield _of_file("unused-key", "error", message, unused)
    if tokens or fields.get("trainable_token_indices"):
        yield _of_file("vocabulary", "note", "rows of single tokens are trained", tokens)
    yield from _vocabulary(contents, carried, base)


def _saved_by(path: str, name: str) -> bool:
    """Whether a tensor lies in a module that `modules_to_save` means: PEFT goes by how it ends."""
    parts = path.split(".")[:-1]
    return any(".".join(parts[: n + 1]).endswith(name) for n in range(len(parts)))


def _vocabulary(
    contents: Contents, carried: list[str], base: BaseFacts | None
) -> Iterator[Finding]:
    rows = {
        one.key: one.shape[0]
        for one in contents.others
        if one.key.endswith(".weight") and len(one.shape) == 2 and _is_end(bare(one.key))
    }
    known = None if base is None else base.vocabulary
    resized = [key for key, count in rows.items() if known is not None and count > known]
    if resized:
        message = (
            f"the vocabulary was resized: {rows[resized[0]]} rows where the base has {known}; "
            "texts never hold the added tokens"
        )
        yield _of_file("vocabulary", "warning", message, resized)
    elif carried:
        message = (
            "the file carries embeddings of the base along, as PEFT does once a vocabulary was "
            f"resized: {listed(carried)}"
        )
        yield _of_file("vocabulary", "warning", message, carried)


def _is_end(path: str) -> bool:
    return any(f".{end}." in f".{path}" for end in _ENDS)


def _against_base(contents: Contents, base: BaseFacts | None) -> Iterator[Finding]:
    ends = [path for path in contents.modules if _is_end(f"{path}.")]
    ends += [one.key for one in contents.others if _is_end(bare(one.key))]
    if ends and (base is None or base.tied):
        known = "the base's input and output embedding are one tensor"
        message = known if base else f"it is not known whether {known}"
        yield Finding(
            "tied",
            "note" if base is None else "warning",
            f"{message}, and the adapter acts on {listed(ends)}: merged, it would change both",
            SAFE,
            tuple(ends),
        )
    if base is not None and base.layers is not None:
        numbered = {path: _LAYER.match(path) for path in contents.modules}
        beyond = [p for p, m in numbered.items() if m is not None and int(m[1]) >= base.layers]
        if beyond:
            message = f"acts on layers that the base lacks, which has {base.layers}"
            yield _of_file("not-in-base", "error", f"{message}: {listed(beyond)}", beyond)


def _of_file(rule: str, level: Any, message: str, where: list[str]) -> Finding:
    named = f": {listed(where)}" if where and listed(where) not in message else ""
    return Finding(rule, level, message + named, SAFE, tuple(where))
