"""One request and its answer, bounded in size and in time whatever the other side does."""

from __future__ import annotations

import contextlib
import socket
import threading
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

# An answer of a chat model is a few kilobytes; unpacked, no more than this is read.
LONGEST = 2**23
_PACKED = ("gzip", "x-gzip", "deflate")


class WireError(Exception):
    """No whole answer came: too slow, too long, cut off, or of an unknown encoding."""


@dataclass(frozen=True)
class Answer:
    """A whole answer. `headers` by lower-case name; `body` unpacked."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def post(client: httpx2.Client, url: str, body: Mapping[str, Any], seconds: float) -> Answer:
    """Send JSON and read the answer, in so many seconds from first to last byte.

    Args:
        client: keeps no connections, so that this request's own can be cut off.

    Raises:
        WireError: no whole answer within the time or the size.
    """
    cut = _Cut()
    watch = threading.Timer(seconds, cut.off)
    watch.daemon = True
    watch.start()
    try:
        with client.stream("POST", url, json=body, extensions={"trace": cut.trace}) as response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            found = _whole(response, headers.get("content-encoding", "identity").lower(), cut)
            return Answer(response.status_code, headers, found)
    except httpx2.TimeoutException:
        raise WireError(f"no answer within {seconds:g} s") from None
    except (httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL) as error:
        if cut.is_off:
            raise WireError(f"no answer within {seconds:g} s") from None
        raise WireError(f"{type(error).__name__}: {error}") from None
    finally:
        watch.cancel()


def _whole(response: httpx2.Response, encoding: str, cut: _Cut) -> bytes:
    """The body, unpacked no further than it may be long."""
    if encoding not in ("identity", "", *_PACKED):
        raise WireError(f"a body in an encoding that was not asked for ({encoding[:40]})")
    unpacker = zlib.decompressobj(wbits=47) if encoding in _PACKED else None
    found = bytearray()
    for chunk in response.iter_raw(2**16):
        if unpacker is not None:
            try:
                chunk = unpacker.decompress(chunk, LONGEST + 1 - len(found))
            except zlib.error:
                raise WireError("a body that cannot be unpacked") from None
        found += chunk
        if len(found) > LONGEST:
            raise WireError(f"an answer of more than {LONGEST:,} bytes")
    if cut.is_off:
        raise httpx2.ReadError("cut off")
    return bytes(found)


class _Cut:
    """Ends a request from another thread: its connection is shut, and whoever reads it wakes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self.is_off = False

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Told by the client of each step; notes the connection as soon as there is one."""
        stream = info.get("return_value")
        if not event.endswith(("connect_tcp.complete", "start_tls.complete")) or stream is None:
            return
        with self._lock:
            self._socket = stream.get_extra_info("socket")
            if self.is_off:
                self._shut()

    def off(self) -> None:
        """The time is over."""
        with self._lock:
            self.is_off = True
            self._shut()

    def _shut(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
