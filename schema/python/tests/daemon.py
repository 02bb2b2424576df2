"""Starts the real daemon for the tests: ports from the system, a data directory of its own, every wait bounded."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tilecatcher import Client, minimal_log

PATIENCE_S = 60.0
ACQ = 123

_BUILT = Path(__file__).resolve().parents[3] / "target" / "debug" / "tilecatcher"
#: Small enough for many tests, large enough for their tiles.
_SETTINGS = (
    "log.level=error",
    "storage.segment_size=4MiB",
    "storage.control_segment_size=1MiB",
    "storage.reserve=1MiB",
    "memory.buffers=64MiB",
    "capture.frame_max=8MiB",
    "index.cache=16MiB",
)


def program() -> str:
    """The built daemon; without it a test fails."""
    binary = Path(os.environ.get("TILECATCHER_BINARY", _BUILT))
    if not binary.is_file():
        pytest.fail(f"{binary} is not there: run `cargo build`, or set TILECATCHER_BINARY", pytrace=False)
    return str(binary)


class Daemon:
    """A running daemon."""

    def __init__(self, data: Path, settings: tuple[str, ...] = ()) -> None:
        self.data = data
        self.settings = settings
        self.capture = ("127.0.0.1", 0)
        self.capture_tls = ("127.0.0.1", 0)
        self.http_port = 0
        self.start()

    def start(self) -> None:
        """Starts it; the second time on the ports it had."""
        command = [program(), "serve", "--data", str(self.data)]
        command += ["--capture", f"127.0.0.1:{self.capture[1]}", "--http", f"127.0.0.1:{self.http_port}"]
        for setting in _SETTINGS + self.settings:
            command += ["--set", setting]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TILECATCHER_")}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        limit = threading.Timer(PATIENCE_S, self.process.kill)
        limit.start()
        assert self.process.stdout is not None
        ready = self.process.stdout.readline()
        limit.cancel()
        assert ready.startswith("ready "), f"the daemon did not start: {ready!r}"
        ports = dict(word.split("=", 1) for word in ready.split()[1:])
        self.capture = ("127.0.0.1", int(ports["capture"].rpartition(":")[2]))
        if "capture_tls" in ports:
            self.capture_tls = ("127.0.0.1", int(ports["capture_tls"].rpartition(":")[2]))
        self.http_port = int(ports["http"].rpartition(":")[2])

    def kill(self) -> None:
        """SIGKILL, by its id; waits until it is gone."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def client(self, **options: Any) -> Client:
        return Client(self.http, self.capture, timeout_s=PATIENCE_S, **options)

    def started(self, cols: int = 8, rows: int = 8, acq: int = ACQ) -> Client:
        """A client, with an acquisition started."""
        client = self.client()
        assert client.start_acquisition(f"{acq}_{cols}x{rows}_logfile.ini", minimal_log(cols, rows)) == acq
        return client
