"""The page as a test sees it: opens it, waits for what it shows, reads the canvas, and keeps what went wrong in it."""

from __future__ import annotations

from typing import Any

from daemon import Daemon
from playwright.sync_api import Browser, ConsoleMessage, Page, Request

#: Bounds every wait; what is to be fast is measured by itself.
PATIENCE_MS = 30_000

#: A place's pixel an eighth into it, where neither a cursor nor a shape covers it; none before it is drawn.
_COLOUR = """
([col, row]) => {
  const canvas = document.querySelector("#canvas");
  const [x, y, scale] = (canvas.dataset.view ?? "").split(" ").map(Number);
  const ratio = canvas.width / canvas.clientWidth;
  const at = (first, step) => Math.round((first + (step + 0.12) * scale) * ratio);
  return [...canvas.getContext("2d").getImageData(at(x, col), at(y, row), 1, 1).data].slice(0, 3).join(",");
}
"""
_VARIABLE = "(name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim()"


class View:
    """A page in a context of its own."""

    def __init__(self, browser: Browser, width: int = 1440, height: int = 900, scheme: str = "dark") -> None:
        self.problems: list[str] = []
        # A daemon that has too much to do says so, and the page comes again.
        self.allowed: list[str] = ["status of 503"]
        self.context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        self.context.set_default_timeout(PATIENCE_MS)
        self.page: Page = self.context.new_page()
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("requestfailed", self._failed)

    def open(self, daemon: Daemon, query: str = "") -> Page:
        """Loads the page and waits until events come."""
        self.page.goto(f"{daemon.http}/{query}")
        self.live()
        return self.page

    def live(self) -> None:
        self.page.wait_for_selector("#link[data-tone=good]")

    def allow(self, *texts: str) -> None:
        """These belong to what is tested."""
        self.allowed.extend(texts)

    def close(self) -> None:
        """Ends the page; whatever went wrong in it fails the test."""
        problems = [text for text in self.problems if not any(known in text for known in self.allowed)]
        self.context.close()
        assert not problems, problems

    def wait(self, script: str, argument: Any = None) -> None:
        """Until the script says so; looked at with every frame."""
        self.page.wait_for_function(script, arg=argument, polling="raf")

    def count(self, state: str, number: int) -> None:
        """Until the legend shows this many places."""
        self.wait(
            "([state, number]) => [...document.querySelectorAll('#legend button')].some((button) =>"
            " button.textContent.trim() === `${state} ${number}`)",
            [state, f"{number:,}"],
        )

    def shows(self, col: int, row: int, variable: str) -> None:
        """Until a place has the colour that the style sheet has for it."""
        red, green, blue = bytes.fromhex(self.page.evaluate(_VARIABLE, variable)[1:])
        self.wait(f"([place, colour]) => ({_COLOUR})(place) === colour", [[col, row], f"{red},{green},{blue}"])

    def colour(self, col: int, row: int) -> str:
        """The colour of a place in the next frame."""
        self.page.evaluate("new Promise(requestAnimationFrame)")
        return self.page.evaluate(_COLOUR, [col, row])

    def text(self, selector: str) -> str:
        return self.page.text_content(selector) or ""

    def keys(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def _said(self, message: ConsoleMessage) -> None:
        # That the canvas is read often is what the test does, not the page.
        if message.type in ("error", "warning") and "getImageData" not in message.text:
            self.problems.append(f"console: {message.text}")

    def _failed(self, request: Request) -> None:
        # What the page itself gives up, such as the events of an acquisition that is no longer shown.
        if request.failure != "net::ERR_ABORTED":
            self.problems.append(f"request: {request.url} {request.failure}")
