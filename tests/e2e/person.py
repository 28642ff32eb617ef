"""A person in front of the Web UI: what they do and what they see, in the words of the page."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import ConsoleMessage, Locator, Page, expect

from tests.e2e.wire import CHAT, Wire

PATIENCE = 120_000  # milliseconds; machines that do other things meanwhile are slow
REFUSED = re.compile(r"Failed to load resource: .* status of (\d+)")

_SCROLL = "element => { element.style.scrollMarginTop = '56px'; element.scrollIntoView({ block: 'start' }) }"

# As the settings dialog keeps them.
_KEEP = """(settings) => {
    if (localStorage.getItem("LlamaUi.config")) return;
    localStorage.setItem("LlamaUi.config", JSON.stringify(settings));
    localStorage.setItem("LlamaUi.userOverrides", JSON.stringify(Object.keys(settings)));
}"""


class Person:
    """One page of one browser profile."""

    def __init__(self, page: Page, url: str, settings: dict[str, Any]) -> None:
        self.page = page
        self.url = url
        self.wire = Wire(page)
        self.complaints: list[str] = []
        # What the console may say: refusals that belong to the scenario (browsers log each), and words.
        self.expected: set[tuple[int, str] | str] = {(403, "/tools")}
        page.set_default_timeout(PATIENCE)
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        if settings:
            page.add_init_script(f"({_KEEP})({json.dumps(settings)})")

    def _heard(self, message: ConsoleMessage) -> None:
        place = urlsplit(message.location.get("url", "")).path
        refused = REFUSED.match(message.text)
        known = (int(refused[1]), place) in self.expected if refused else self._is_expected(message.text)
        if message.type == "error" and not known:
            self.complaints.append(f"{message.text} ({place})")

    def _is_expected(self, said: str) -> bool:
        return any(isinstance(words, str) and words in said for words in self.expected)

    # What they do.

    def opens(self, path: str = "/") -> None:
        self.page.goto(self.url + path)
        expect(self.box).to_be_visible()

    def writes(self, text: str) -> None:
        self.box.fill(text)
        self.box.press("Enter")

    def asks(self, text: str) -> str:
        """Write, wait for the whole answer, read it."""
        number = self.answers.count()
        self.writes(text)
        expect(self.answers).to_have_count(number + 1)
        return self.reads()

    def reads(self) -> str:
        """Wait until the last answer is whole."""
        self.waits_for_the_end()
        return self.text.inner_text().strip()

    @contextmanager
    def asks_anew(self) -> Iterator[None]:
        """Wait until what is done inside has begun another answer: until then the one before looks like it."""
        with self.page.expect_response(lambda answer: urlsplit(answer.url).path == CHAT):
            yield

    def waits_for_the_end(self) -> None:
        expect(self.answer.get_by_role("button", name="Regenerate")).to_be_visible()
        expect(self.stop).to_have_count(0)

    def presses(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def keeps_a_picture(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=path, animations="disabled")

    def scrolls_to(self, place: Locator) -> None:
        """Have something at the top, below the page's own bar."""
        place.evaluate(_SCROLL)

    # What they see.

    @property
    def box(self) -> Locator:
        return self.page.get_by_role("textbox", name="Type a message")

    @property
    def questions(self) -> Locator:
        return self.page.get_by_role("group", name="User message with actions")

    @property
    def answers(self) -> Locator:
        return self.page.get_by_role("group", name="Assistant message with actions")

    @property
    def answer(self) -> Locator:
        return self.answers.last

    @property
    def text(self) -> Locator:
        return self.answer.locator(".markdown-content").last

    @property
    def stop(self) -> Locator:
        return self.page.locator("form").get_by_role("button", name="Stop", exact=True)

    @property
    def dialog(self) -> Locator:
        return self.page.get_by_role("alertdialog").or_(self.page.get_by_role("dialog"))

    def sees(self, words: str | re.Pattern[str]) -> None:
        expect(self.page.get_by_text(words).first).to_be_visible()
