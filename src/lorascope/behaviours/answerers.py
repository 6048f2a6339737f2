"""What answers a study's questions: a model behind an endpoint, or one on this machine."""

from __future__ import annotations

from typing import Final

from lorascope.behaviours.asking import Answerer
from lorascope.behaviours.endpoint import Endpoint
from lorascope.errors import InputError

_LOCAL: Final = "local:"
# Most tokens of an answer: a sentence, or some digits.
_TOKENS, _LOCAL_TOKENS = 256, 128


def answerer(judge: str) -> Answerer:
    """The model that a setting names: `local:MODEL` on this machine, else behind the endpoint.

    Args:
        judge: hub id, folder or embedded model after "local:", or the id that the endpoint of
            OPENAI_BASE_URL knows a model by.

    Raises:
        InputError: no endpoint or no model is named.
    """
    local = local_judge(judge)
    if local is not None:
        # Imports torch, which an endpoint does without.
        from lorascope.behaviours.local import LocalModel

        return LocalModel(local, max_tokens=_LOCAL_TOKENS)
    return Endpoint(judge, max_tokens=_TOKENS)


def local_judge(judge: str) -> str | None:
    """The model of a judge on this machine; None for one behind an endpoint.

    Raises:
        InputError: no model is named.
    """
    named = judge.removeprefix(_LOCAL)
    if not named.strip():
        raise InputError(
            f'judge "{judge}" names no model: give the id of one at OPENAI_BASE_URL, or local:MODEL'
        )
    return named if judge.startswith(_LOCAL) else None
