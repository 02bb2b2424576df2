"""The page says when the daemon is away and goes on when it is back; where a token is needed it asks for it and uses it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from daemon import ACQ, Daemon, program
from test_mosaic import fill, image
from view import View

from tilecatcher import Tile, minimal_log


def add_token(tokens: Path, name: str, scope: str) -> str:
    """Adds a token to a daemon's file; returns it."""
    command = [program(), "token", "add", name, "--scope", scope, "--tokens", str(tokens)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def test_a_restart_of_the_daemon_is_said_and_survived(daemon: Daemon, view: View) -> None:
    view.allow("ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE")
    fill(daemon.started(4, 4), range(4), range(2))
    page = view.open(daemon)
    view.count("received", 8)
    daemon.kill()
    page.wait_for_selector("#banner:not([hidden])")
    assert view.text("#banner-text").startswith("Not connected")
    assert view.text("#link") == "Not connected"
    assert "lost" in view.text("#live")
    daemon.start()
    with daemon.client().sender() as sender:
        sender.send(Tile(acq=ACQ, col=3, row=3, image=image(3, 3)))
    view.live()
    view.count("received", 9)
    assert page.is_hidden("#banner")
    page.wait_for_selector("#restarted:not([hidden])")
    assert "started again" in view.text("#restarted-text")


def test_a_token_is_asked_for_and_used(tmp_path: Path, view: View) -> None:
    view.allow("status of 401")
    tokens = tmp_path / "tokens"
    sends, reads = add_token(tokens, "sends", "ingest"), add_token(tokens, "reads", "read")
    running = Daemon(tmp_path / "data", settings=(f"access.tokens={tokens}",))
    try:
        client = running.client(token=sends)
        client.start_acquisition(f"{ACQ}_4x4_logfile.ini", minimal_log(4, 4))
        fill(client, range(4), range(2))
        page = view.page
        page.goto(running.http)
        page.fill("#token-text", "tilecatcher_wrong")
        page.keyboard.press("Enter")
        page.get_by_text("The daemon says").wait_for()
        page.fill("#token-text", reads)
        page.keyboard.press("Enter")
        view.live()
        view.count("received", 8)
        page.focus("#canvas")
        view.keys("Enter")
        page.wait_for_selector("canvas.preview")
        with page.expect_download() as saved:
            page.click("a.download")
        assert saved.value.suggested_filename == "tile-1.tif"
        assert reads not in page.url and page.evaluate("localStorage.length + document.cookie.length") == 0
        page.reload()
        view.live()
        page.click("#forget")
        page.wait_for_selector("#token[open]")
    finally:
        running.kill()
