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
    if not judge.removeprefix(_LOCAL).strip():
        raise InputError(
            f'judge "{judge}" names no model: give the id of one at OPENAI_BASE_URL, or local:MODEL'
        )
    if judge.startswith(_LOCAL):
        # Imports torch, which an endpoint does without.
        from lorascope.behaviours.local import LocalModel

        return LocalModel(judge.removeprefix(_LOCAL), max_tokens=_LOCAL_TOKENS)
    return Endpoint(judge, max_tokens=_TOKENS)
