"""A headless Chromium, driven through its DevTools protocol over a pipe; nothing else is needed."""

import fcntl
import json
import os
import shutil
import subprocess
import time

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)


class Chromium:
    """A headless Chromium with one page open, its exceptions and console errors collected."""

    def __init__(self, profile):
        ours, theirs = [], []
        for of_ours, of_theirs in ((1, 0), (0, 1)):
            pair = os.pipe()
            # Away from 3 and 4, which Chromium reads and writes.
            moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20) for end in pair]
            for end in pair:
                os.close(end)
            ours.append(moved[of_ours])
            theirs.append(moved[of_theirs])
        options = (
            "--headless --no-sandbox --disable-gpu --no-first-run --disable-sync "
            "--disable-background-networking --disable-component-update --remote-debugging-pipe"
        )
        # Single digits are all that a shell redirects; the shell becomes Chromium.
        line = f'exec "$0" "$@" 3<&{theirs[0]} 4>&{theirs[1]}'
        profile_option = f"--user-data-dir={profile}"
        self._process = subprocess.Popen(
            ["bash", "-c", line, CHROMIUM, *options.split(), profile_option, "about:blank"],
            pass_fds=theirs,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in theirs:
            os.close(end)
        self._to, self._from = ours
        self._buffer, self._count, self._session = b"", 0, None
        self.errors = []
        pages = self.call("Target.getTargets")["targetInfos"]
        target = next(page["targetId"] for page in pages if page["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._read()
            if reply.get("id") == self._count:
                assert "error" not in reply, reply["error"]
                return reply["result"]
            self._notice(reply)

    def _read(self):
        while b"\0" not in self._buffer:
            part = os.read(self._from, 1 << 20)
            assert part, "Chromium has gone"
            self._buffer += part
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def _notice(self, event):
        parameters = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.errors.append(parameters["exceptionDetails"])
        elif event.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.errors.append(parameters["entry"])
        elif event.get("method") == "Runtime.consoleAPICalled" and parameters["type"] == "error":
            self.errors.append(parameters)

    def open(self, address):
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && location.protocol === 'file:'")
        self.errors.clear()

    def js(self, expression):
        """The value of an expression, promises awaited."""
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, expression, seconds=15):
        end = time.monotonic() + seconds
        while not self.js(f"!!({expression})"):
            assert time.monotonic() < end, f"never came true: {expression}"
            time.sleep(0.02)

    def press(self, key):
        for kind in ("keyDown", "keyUp"):
            typed = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            code = {"Enter": 13}.get(key, 0)
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **typed
            )

    def close(self):
        self._process.terminate()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)
