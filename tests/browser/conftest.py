"""Fixtures: a browser for all tests, a daemon and a watched page for each. A script error, an error on the console or a request
that fails ends a test badly, unless the test says that it expects it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

sys.path.append(str(Path(__file__).resolve().parents[2] / "schema" / "python" / "tests"))

from daemon import Daemon  # noqa: E402
from view import View  # noqa: E402

CHROMIUM = os.environ.get("TILECATCHER_CHROMIUM", "/usr/bin/chromium")
#: As root in a container, and quiet on the network.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield running
        running.close()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    running = Daemon(tmp_path / "data")
    yield running
    running.kill()


@pytest.fixture
def view(browser: Browser) -> Iterator[View]:
    """A page of its own; `view.open(daemon)` loads it."""
    watched = View(browser)
    yield watched
    watched.close()
