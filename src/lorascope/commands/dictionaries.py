"""The command that describes one dictionary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lorascope.errors import InputError
from lorascope.printing import say, say_json

if TYPE_CHECKING:
    from lorascope.workflows.settings import OnTexts

Address = Annotated[
    str,
    typer.Argument(
        help="Folder, hf://owner/repo/folder[@revision], or saelens:release/id; ?site=layers.5 "
        "or ?k=50 at its end says what its file leaves open."
    ),
]


def dictionary(
    address: Address,
    model: Annotated[
        str | None, typer.Option(help="Try it on this model: hub id or folder.")
    ] = None,
    texts: Annotated[
        list[str] | None, typer.Option(help="Texts to try it on: file, folder or dataset id.")
    ] = None,
    rows: Annotated[int, typer.Option(help="Most tokens to try it on.")] = 4096,
    site: Annotated[
        str | None,
        typer.Option(help="Where to try it; by default where its file says it reads."),
    ] = None,
    adapter: Annotated[
        str | None, typer.Option(help="Try it on what this adapter adds: folder or hub id.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Try it on a model or site it was not made for.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Plain JSON instead of a table.")] = False,
) -> None:
    """Say what a dictionary is: format, sizes, site, gate; and how it does on texts.

    Reads SAELens, Gemma Scope 1 and 2, Llama Scope, Llamascopium, Qwen Scope, sparsify and
    dictionary_learning files. With --model and --texts it prints FVU, relative error, L0 and dead
    share beside what predicts nothing, and warns where the dictionary does not fit.

    **Examples**

    `lorascope dictionary runs/demo/dictionaries/layers.5-base-seed0`

    `lorascope dictionary hf://google/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82 --json`

    `lorascope dictionary saelens:llama_scope_lxr_8x/l15r_8x --model meta-llama/Llama-3.1-8B
    --texts alpaca.json`
    """
    from lorascope.dictionaries.addresses import require_there

    if bool(model) != bool(texts):
        raise InputError("--model and --texts go together: give both, or neither")
    require_there(address)
    wanted = _on_texts(model, texts, rows, site, adapter, force) if model and texts else None
    _describe(address, site, wanted, json_)


def _on_texts(
    model: str, texts: list[str], rows: int, site: str | None, adapter: str | None, force: bool
) -> OnTexts:
    from lorascope.studies import missing
    from lorascope.workflows.settings import OnTexts

    given = {"model": model, "texts": texts, "rows": rows, "site": site, "force": force}
    wanted = OnTexts.parse({**given, "adapter": adapter}, "dictionary")
    missing.in_trial(wanted)
    return wanted


def _describe(address: str, site: str | None, wanted: OnTexts | None, json_: bool) -> None:
    from lorascope.dictionaries.files import open_dictionary
    from lorascope.printing import Console
    from lorascope.workflows import inspecting

    opened = open_dictionary(address, site)
    facts = inspecting.describe(opened)
    if wanted is not None:
        facts["tried"] = inspecting.try_on(opened, wanted)
    if json_:
        say_json(facts)
    else:
        for table in inspecting.tables(facts):
            Console().print(table)
    for line in inspecting.complaints(facts):
        say(f"lorascope: warning: {line}", err=True)
