"""What holds of the page as such: small, soon there, all of it from the daemon, for keys and for screen readers, in dark and light,
on a phone and on a desk."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from daemon import Daemon
from playwright.sync_api import Browser, Page
from test_mosaic import fill, put
from view import View

BYTES_MAX = 150_000
FIRST_PAINT_MS_MAX = 3000
LOOKS = {
    "dark": (1440, 900, "dark"),
    "light": (1440, 900, "light"),
    "phone": (360, 740, "dark"),
    "phone-light": (360, 740, "light"),
    "tablet": (900, 1100, "light"),
}


def assert_accessible(view: View) -> None:
    found = Axe().run(view.page, options={"resultTypes": ["violations"]})
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_nothing(daemon: Daemon, browser: Browser, look: str) -> None:
    client = daemon.started(8, 8)
    fill(client, range(8), range(4))
    put(daemon, "col0001_row0006_cam0.tif", b"an image", "&checksum=00000000")
    view = View(browser, *LOOKS[look])
    page = view.open(daemon)
    view.count("received", 32)
    view.count("refused", 1)
    page.focus("#canvas")
    view.keys("Enter")
    page.wait_for_selector("canvas.preview")
    assert_accessible(view)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it is wider than the screen"
    page.click("#help-open")
    assert_accessible(view)
    view.close()


def test_a_desk_shows_all_at_once(daemon: Daemon, view: View) -> None:
    fill(daemon.started(16, 8), range(16), range(4))
    page = view.open(daemon)
    view.count("missing", 64)
    page.locator("#summary table").nth(1).wait_for()
    assert page.evaluate("document.documentElement.scrollHeight <= innerHeight"), "the page is longer than the screen"
    cut = page.evaluate("[...document.querySelectorAll('.scroll')].filter((box) => box.scrollWidth > box.clientWidth).map((box) => box.id)")
    assert cut == []


def test_axe_finds_nothing_where_nothing_is(daemon: Daemon, view: View) -> None:
    view.open(daemon).get_by_text("No acquisition yet.").wait_for()
    assert_accessible(view)


def first_paints(page: Page) -> Iterator[float]:
    """The time to the first paint, ms; of some more visits where it was long: something else may have been in the way."""
    for _ in range(5):
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        yield paint
        if paint < FIRST_PAINT_MS_MAX:
            return
        page.reload()
        page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length > 0")


def test_it_is_small_and_soon_there(daemon: Daemon, view: View) -> None:
    fill(daemon.started(4, 4), range(4), range(4))
    received = []
    view.page.on("response", lambda response: received.append(response))
    page = view.open(daemon)
    view.count("received", 16)
    files = [each for each in received if "/page/" in each.url or each.url.split("?")[0].endswith("/")]
    total = sum(len(each.body()) for each in files)
    paint = min(first_paints(page))
    print(f"{len(files)} files, {total} bytes; first paint after {paint:.0f} ms")
    assert total < BYTES_MAX
    assert paint < FIRST_PAINT_MS_MAX
    assert all(each.url.startswith(daemon.http) for each in received), [each.url for each in received]
    assert {each.status for each in received} <= {200, 304}
    policy = files[0].headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy and "unsafe" not in policy


def test_keys_walk_zoom_and_open(daemon: Daemon, view: View) -> None:
    fill(daemon.started(8, 8), range(8), range(4))
    page = view.open(daemon)
    view.count("received", 32)
    page.focus("#canvas")
    view.keys("ArrowRight", "ArrowRight", "ArrowDown")
    assert view.text("#cursor") == "Column 2, row 1: received"
    before = page.get_attribute("#canvas", "data-view")
    view.keys("+")
    view.wait("(before) => document.querySelector('#canvas').dataset.view !== before", before)
    view.keys("0")
    view.wait("(before) => document.querySelector('#canvas').dataset.view === before", before)
    view.keys("n")
    assert view.text("#cursor") == "Column 0, row 4: missing"
    view.keys("p", "End", "PageUp", "Home", "Enter")
    assert view.text("#tile-title") == "Tile 0, 0"
    page.wait_for_selector("canvas.preview")
    assert "md5" in view.text("#tile-body").lower()
    assert page.evaluate("document.activeElement.id") == "tile"
    view.keys("Escape")
    assert page.evaluate("document.activeElement.id") == "canvas"
    view.keys("s")
    assert page.input_value("#show") == "states"
    view.keys("?")
    assert page.is_visible("#help")


def test_a_kind_of_place_can_be_singled_out(daemon: Daemon, view: View) -> None:
    fill(daemon.started(8, 8), range(8), range(4))
    page = view.open(daemon)
    page.select_option("#show", "states")
    view.shows(5, 2, "--cell-received")
    view.count("missing", 32)
    page.locator("#legend button", has_text="missing").click()
    page.wait_for_selector("#legend button[aria-pressed=true]")
    faded = view.colour(5, 2)
    page.locator("#legend button[aria-pressed=true]").click()
    view.shows(5, 2, "--cell-received")
    assert faded != view.colour(5, 2)
