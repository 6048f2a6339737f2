"""Page safety: data that cannot leave its script element, and a content policy for scripts."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Final

_JSON_ESCAPES: Final = str.maketrans(
    {character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}
)


def embedded_json(data: object) -> str:
    """JSON that cannot end the script element it stands in, nor start a comment there."""
    return escaped_json(
        json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    )


def escaped_json(text: str) -> str:
    """JSON text whose strings cannot end a script element; it stays the same data."""
    return text.translate(_JSON_ESCAPES)


def content_policy(*scripts: str) -> str:
    """A content-security policy under which these scripts run, and what they load, and no other.

    Scripts are known by their hash, so that no text on the page can become one; nothing may be
    evaluated from strings, nothing fetched, no form sent. Styles may stand anywhere: figures set
    them on their marks.

    Args:
        scripts: the text of each script element, exactly.
    """
    known = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {known} 'strict-dynamic'; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
