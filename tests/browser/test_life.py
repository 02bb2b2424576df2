"""What the page tells of a place when it is asked what happened there: the same as `tilecatcher why`."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from daemon import ACQ, Daemon, program
from playwright.sync_api import Route
from test_mosaic import fill, image, put, with_rois
from view import View

from tilecatcher import Tile

#: A time and what is said of it, in parts: who sent a tile is told by the page where it is known only.
Line = tuple[str, list[str]]


def parts(words: str) -> list[str]:
    return sorted(part for part in re.split("[,;] ", words) if not part.startswith("from"))


def why(daemon: Daemon, col: int, row: int) -> tuple[str, list[Line], list[str]]:
    """What the command tells: what the place came to, what happened with its times, how it stands in its ROIs."""
    command = [program(), "why", str(ACQ), str(col), str(row), "--http", daemon.http]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert told.returncode in (0, 1), told.stderr
    because, *lines = told.stdout.splitlines()
    happened = [line.strip().split("  ", 1) for line in lines if not line.startswith("  now ")]
    now = [line.strip() for line in lines if line.startswith("  now ")]
    return because.split(": ", 1)[1], sorted((at, parts(words)) for at, words in happened), now


def page_tells(view: View) -> tuple[str, list[Line], list[str]]:
    """The same, from the tile's panel."""
    entries = view.page.locator("#tile-body .log li").all()
    happened = [
        (entry.locator("time").get_attribute("datetime") or "", parts(", ".join(entry.locator("span").all_text_contents())))
        for entry in entries
    ]
    because, *now = view.page.locator("#tile-body .life > p").all_text_contents()
    return because, sorted(happened), now


def ask(view: View, col: int, row: int) -> None:
    """Walks to a place, opens it and asks what happened there."""
    view.page.focus("#canvas")
    view.keys("Home", "PageUp", *["ArrowRight"] * col, *["ArrowDown"] * row, "Enter")
    assert view.text("#tile-title") == f"Tile {col}, {row}"
    view.page.click("#life")
    view.page.wait_for_selector("#tile-body .log li")
    assert view.page.evaluate("document.activeElement.textContent") == "What happened here"


def test_what_happened_is_told_of_a_stored_tile(daemon: Daemon, view: View) -> None:
    fill(daemon.started(4, 4), range(4), range(2))
    page = view.open(daemon)
    view.count("received", 8)
    ask(view, 2, 1)
    # Judged a little later, perhaps: what is told goes on by itself.
    page.locator("#tile-body .log").get_by_text("judged").wait_for()
    assert page_tells(view) == why(daemon, 2, 1)
    assert page_tells(view)[0].startswith("stored as tile ")
    assert "undefined" not in view.text("#tile-body") and "from:" not in view.text("#tile-body")
    inside = "([outer, inner]) => outer.bottom >= inner.bottom && outer.top <= inner.bottom"
    boxes = "['#tile-body', '#tile-body .life'].map((each) => document.querySelector(each).getBoundingClientRect())"
    assert page.evaluate(f"({inside})({boxes})"), "what was asked for lies below what is in view"


def test_what_happened_is_told_of_a_refused_tile(daemon: Daemon, view: View) -> None:
    daemon.started(4, 4)
    page = view.open(daemon)
    assert put(daemon, "col0001_row0002_cam0.tif", b"an image", "&checksum=00000000") >= 400
    view.count("refused", 1)
    ask(view, 1, 2)
    told = page_tells(view)
    assert told == why(daemon, 1, 2)
    assert told[0].startswith("refused (bad_checksum)")
    refusal = page.locator("#tile-body .log li").last.text_content() or ""
    assert re.search(r"refused: bad_checksum, from 127\.0\.0\.1:\d+$", refusal), refusal
    # What comes then is told, too, behind the refusal.
    fill(daemon.client(), range(1, 2), range(2, 3))
    page.locator("#tile-body .log").get_by_text("stored as tile").wait_for()
    words = [text.split(" ")[0] for text in page.locator("#tile-body .log li span:first-of-type").all_text_contents()]
    assert words[:3] == ["acquisition", "refused:", "stored"]
    assert view.text("#tile-body .state-line") == "received"


def test_what_happened_is_told_of_a_missing_place_of_a_roi(daemon: Daemon, view: View, tmp_path: Path) -> None:
    fill(with_rois(daemon, tmp_path), range(4), range(1))
    view.open(daemon)
    view.count("missing", 12)
    ask(view, 3, 2)
    told = page_tells(view)
    assert told == why(daemon, 3, 2)
    assert told[0].startswith("expected by ROI 5801, never seen"), told
    assert ["expected by ROI 5801 (section 5801)"] in [words for _, words in told[1]]
    assert "undefined" not in view.text("#tile-body")


def test_what_happened_can_be_asked_again_where_it_failed(daemon: Daemon, view: View) -> None:
    fill(daemon.started(4, 4), range(4), range(1))
    page = view.open(daemon)
    view.count("received", 4)
    page.route("**/places/**", lambda route: route.fulfill(status=503, json={"errormessage": "busy: try again"}))
    page.focus("#canvas")
    view.keys("Enter")
    page.click("#life")
    page.get_by_text("busy: try again").wait_for()
    page.unroute("**/places/**")
    page.click("#life")
    page.wait_for_selector("#tile-body .log li")


def test_a_tile_that_is_sent_again_is_shown_anew(daemon: Daemon, view: View) -> None:
    client = daemon.started(4, 4)
    fill(client, range(4), range(1))
    page = view.open(daemon)
    view.count("received", 4)
    ask(view, 1, 0)
    with client.sender() as sender:
        sender.send(Tile(acq=ACQ, col=1, row=0, image=image(7, 7)))
    page.locator("#tile-body .log").get_by_text("version 2, camera").wait_for()
    page.locator("#tile-body .facts div", has_text="Version2").wait_for()


def test_who_sent_a_tile_is_told_where_it_is_known(daemon: Daemon, view: View) -> None:
    fill(daemon.started(4, 4), range(4), range(1))
    page = view.open(daemon)
    view.count("received", 4)

    def with_sender(route: Route) -> None:
        answer = route.fetch()
        life = answer.json()
        for event in life["events"]:
            if event["event"] == "stored":
                event["from"] = "127.0.0.1:51234"
        route.fulfill(response=answer, json=life)

    page.route("**/places/**", with_sender)
    ask(view, 0, 0)
    assert "stored as tile 1, version 1, camera 0, from 127.0.0.1:51234" in view.text("#tile-body")
