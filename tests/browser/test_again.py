"""The page is right again after something went wrong or was not heard: failed requests, lost connections, another acquisition,
a page that is open for long."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import numpy as np
from daemon import ACQ, Daemon
from test_mosaic import fill, with_rois
from view import View

from tilecatcher import Tile

LOST = ("ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE", "ERR_FAILED")
#: The grey of a place's middle.
GREY = """
(place) => {
  const canvas = document.querySelector("#canvas");
  const [x, y, scale] = canvas.dataset.view.split(" ").map(Number);
  const at = [x + (place[0] + 0.5) * scale, y + (place[1] + 0.5) * scale].map(Math.round);
  const [red, green, blue] = canvas.getContext("2d").getImageData(...at, 1, 1).data;
  return red === green && green === blue ? red : -1;
}
"""


def flat(col: int, row: int, grey: int) -> Tile:
    return Tile(acq=ACQ, col=col, row=row, image=np.full((64, 64), grey, np.uint8))


def test_a_mosaic_that_could_not_be_had_is_fetched_again(daemon: Daemon, view: View) -> None:
    client = daemon.started(4, 4)
    fill(client, range(4), range(1))
    page = view.page
    page.route("**/mosaic", lambda route: route.fulfill(status=503, json={"errormessage": "busy: try again"}))
    view.open(daemon)
    page.get_by_text("No mosaic: busy: try again").wait_for()
    page.unroute("**/mosaic")
    view.count("received", 4)
    assert page.is_hidden("#no-mosaic")


def test_pictures_of_tiles_that_came_while_nobody_listened_are_shown(daemon: Daemon, view: View) -> None:
    view.allow(*LOST)
    with daemon.started(2, 2).sender() as sender:
        sender.send(flat(0, 0, 60))
    page = view.open(daemon)
    page.select_option("#show", "images")
    view.wait(f"(place) => ({GREY})(place) === 60", [0, 0])
    page.route("**/api/v1/events*", lambda route: route.abort())
    daemon.kill()
    page.wait_for_selector("#banner:not([hidden])")
    daemon.start()
    with daemon.client().sender() as sender:
        # One that is new in a picture that is here already, and one that is sent again.
        sender.send(flat(1, 1, 90))
        sender.send(flat(0, 0, 120))
    # What is found out of them later would be heard, and says that they changed.
    page.wait_for_function(
        """async () => {
          const answer = await (await fetch("/api/v1/acquisitions/123/tiles")).json();
          return answer.tiles.length === 2 && answer.tiles.every((tile) => tile.quality);
        }""",
        polling=100,
    )
    page.unroute("**/api/v1/events*")
    view.live()
    view.wait(f"(place) => ({GREY})(place) === 90", [1, 1])
    view.wait(f"(place) => ({GREY})(place) === 120", [0, 0])


def test_another_acquisition_with_the_same_counts_has_its_summary(daemon: Daemon, view: View) -> None:
    daemon.started(4, 4, acq=124)
    daemon.started(4, 4)
    page = view.open(daemon)
    view.count("missing", 16)
    page.locator("#summary table").first.wait_for()
    assert "acquisition=" not in page.url, "nobody chose one"
    # Until its mosaic has come, the title is without the size.
    other = "(before) => { const now = document.querySelector('#mosaic-title').textContent; return now.includes('×') && now !== before; }"
    view.wait(other, "")
    first = view.text("#mosaic-title")
    page.locator("#acquisition-list button:not([aria-current])").click()
    view.wait(other, first)
    page.locator("#summary table").first.wait_for()
    assert "acquisition=" in page.url
    chosen = view.text("#mosaic-title")
    page.reload()
    view.count("missing", 16)
    view.wait("(chosen) => document.querySelector('#mosaic-title').textContent === chosen", chosen)


def test_an_acquisition_that_is_deleted_is_not_shown_any_more(daemon: Daemon, view: View) -> None:
    view.allow("status of 404")
    daemon.started(3, 3, acq=124)
    fill(daemon.started(4, 4), range(4), range(1))
    page = view.open(daemon, f"?acquisition={ACQ}")
    view.count("received", 4)
    url = f"{daemon.http}/service/v1/acquisition/{ACQ}?confirm={ACQ}"
    urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=60).close()
    page.get_by_text("Mosaic of 124, 3 × 3").wait_for()
    view.count("missing", 9)
    assert "acquisition=" not in page.url


def test_an_answer_for_an_acquisition_that_is_left_is_not_shown(daemon: Daemon, view: View) -> None:
    daemon.started(3, 3, acq=124)
    fill(daemon.started(4, 4), range(4), range(1))
    page = view.open(daemon)
    view.count("missing", 12)
    held = []
    page.route("**/acquisitions/124/mosaic", lambda route: held.append(route))
    page.locator("#acquisition-list button", has_text="124").click()
    page.locator("#acquisition-list button[aria-current]", has_text="124").wait_for()
    view.live()
    view.wait("() => document.querySelector('#mosaic-title').textContent === 'Mosaic of 124'")
    # The events of the one that is chosen do not come, so that nothing else would put an end to what was asked for.
    page.route("**/api/v1/events*", lambda route: None)
    page.locator("#acquisition-list button", has_text="123").click()
    for route in held:
        route.continue_()
    page.evaluate("fetch('/readyz').then(() => new Promise((done) => setTimeout(done, 300)))")
    assert "3 × 3" not in view.text("#mosaic-title")
    assert page.evaluate("document.querySelectorAll('#legend button').length") == 0


def test_what_is_singled_out_stays_so_when_the_mosaic_is_fetched_again(daemon: Daemon, view: View, tmp_path: Path) -> None:
    fill(with_rois(daemon, tmp_path), range(4), range(1))
    page = view.open(daemon)
    page.select_option("#show", "states")
    view.count("missing", 12)
    view.shows(3, 0, "--cell-ready")
    page.locator("#legend button", has_text="missing").click()
    page.wait_for_selector("#legend button[aria-pressed=true]")
    faded = view.colour(3, 0)
    page.select_option("#section", "5801")
    view.count("missing", 6)
    assert page.locator("#legend button[aria-pressed=true]").count() == 1
    assert view.colour(3, 0) == faded


def test_timers_do_not_pile_up_while_pictures_can_not_be_had(daemon: Daemon, view: View) -> None:
    fill(daemon.started(8, 8), range(8), range(8))
    page = view.page
    page.add_init_script(
        """
        const [set, clear, waiting] = [window.setTimeout, window.clearTimeout, new Set()];
        window.setTimeout = (work, ms) => {
          const timer = set(() => { waiting.delete(timer); work(); }, ms);
          if (ms > 400) waiting.add(timer);
          return timer;
        };
        window.clearTimeout = (timer) => { waiting.delete(timer); clear(timer); };
        window.timersWaiting = () => waiting.size;
        """
    )
    page.route("**/thumbnails/**", lambda route: route.fulfill(status=503, json={"errormessage": "busy: try again"}))
    view.open(daemon)
    page.select_option("#show", "images")
    view.count("received", 64)
    page.wait_for_event("response", lambda response: response.status == 503)
    most = page.evaluate(
        """async () => {
          let most = 0;
          for (let step = 0; step < 100; step += 1) {
            document.querySelector("#canvas").dispatchEvent(
              new WheelEvent("wheel", { deltaY: step % 2 ? -40 : 40, clientX: 700, clientY: 400, cancelable: true }));
            await new Promise(requestAnimationFrame);
            most = Math.max(most, window.timersWaiting());
          }
          return most;
        }"""
    )
    print("most timers that waited:", most)
    assert most < 20


def test_a_daemon_that_does_not_even_refuse_is_given_up(daemon: Daemon, view: View) -> None:
    fill(daemon.started(4, 4), range(4), range(1))
    page = view.page
    page.clock.install()
    page.route("**/api/v1/events*", lambda route: None)
    page.goto(daemon.http)
    page.get_by_text("4 of 16").wait_for()
    page.clock.fast_forward(16_000)
    page.wait_for_selector("#banner:not([hidden])")
    assert "gone silent" in view.text("#banner-text")
    page.unroute("**/api/v1/events*")
    page.clock.fast_forward(2_000)
    view.live()


def test_a_page_that_is_not_looked_at_lets_go_and_is_right_when_it_is_looked_at(daemon: Daemon, view: View) -> None:
    client = daemon.started(4, 4)
    fill(client, range(4), range(1))
    page = view.page
    page.add_init_script("window.away = false; Object.defineProperty(document, 'hidden', { get: () => window.away });")
    page.clock.install()
    view.open(daemon)
    view.count("received", 4)
    turn = "(away) => { window.away = away; document.dispatchEvent(new Event('visibilitychange')); }"
    page.evaluate(turn, True)
    page.clock.fast_forward(61_000)
    view.wait("() => document.title === 'tilecatcher'")
    fill(client, range(4), range(1, 3))
    page.evaluate(turn, False)
    view.count("received", 12)
    view.wait("() => document.title === '123: 12 of 16 · tilecatcher'")
