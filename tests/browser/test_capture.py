"""While no tile is taken the page says so in words: paused by an operator, or because the daemon stops."""

from __future__ import annotations

import time
import urllib.request

from daemon import Daemon
from test_mosaic import fill
from test_page import assert_accessible
from view import View

#: What a word may take on a loaded machine; the aim is 2 s, and the time itself is printed.
SAID_S_MAX = 5.0


def post(daemon: Daemon, path: str) -> None:
    urllib.request.urlopen(urllib.request.Request(f"{daemon.http}{path}", data=b"", method="POST"), timeout=60).close()


def test_a_pause_is_said_until_capture_goes_on(daemon: Daemon, view: View) -> None:
    fill(daemon.started(4, 4), range(4), range(2))
    page = view.open(daemon)
    view.count("received", 8)
    assert page.is_hidden("#held")
    began = time.monotonic()
    post(daemon, "/api/v1/admin/capture/pause")
    page.wait_for_selector("#held:not([hidden])")
    took = time.monotonic() - began
    assert view.text("#held").startswith("Capture is paused: no tile is taken until")
    assert view.text("#capture") == "Capture paused"
    assert "paused" in view.text("#live"), "a screen reader is told, too"
    assert page.is_hidden("#pressure"), "it is RED for the pause alone"
    assert_accessible(view)
    began = time.monotonic()
    post(daemon, "/api/v1/admin/capture/resume")
    page.wait_for_selector("#held", state="hidden")
    took_back = time.monotonic() - began
    assert view.text("#capture") == "Capture running"
    assert view.text("#pressure") == "Pressure GREEN"
    assert view.text("#live") == "Tiles are taken again."
    print(f"a pause was said after {took:.1f} s, its end after {took_back:.1f} s")
    assert max(took, took_back) < SAID_S_MAX


def test_a_daemon_that_stops_says_so_before_it_is_gone(daemon: Daemon, view: View) -> None:
    view.allow("ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE")
    fill(daemon.started(4, 4), range(4), range(2))
    page = view.open(daemon)
    view.count("received", 8)
    page.evaluate(
        """() => {
          const held = document.querySelector("#held");
          window.said = [];
          new MutationObserver(() => window.said.push(held.textContent)).observe(held, { childList: true, subtree: true });
        }"""
    )
    post(daemon, "/api/v1/admin/drain")
    page.wait_for_selector("#banner:not([hidden])")
    assert page.evaluate("window.said") == ["The daemon is stopping: it takes no new tile, and stores what has begun."]
    assert view.text("#banner-text").startswith("Not connected: the daemon has stopped.")
    assert page.is_hidden("#held"), "it is not stopping any more"
    assert daemon.process.wait(60) == 0
    daemon.start()
    view.live()
    page.wait_for_selector("#capture[data-tone=good]")
    assert page.is_hidden("#held")
