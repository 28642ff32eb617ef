"""The page at / that comes with the server, in every state, by day and by night, on a desk and in a hand."""

import plistlib
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from app.services.generation import Event, ToolCall
from tests.conftest import KEY, Server, environment, running
from tests.e2e.axe import SWAGGER_UIS, serious_findings
from tests.e2e.conftest import PICTURES, picture_name
from tests.e2e.person import PATIENCE
from tests.e2e.wire import Wire
from tests.hub_stand_in import Hub, running_hub
from tests.scripted import ScriptedModel, answer, serving, thought

NANO = Path(__file__).parents[2] / "app" / "tiles_nano"
SCREENS = {"desk": {"width": 1280, "height": 900}, "hand": {"width": 390, "height": 844}}
LOOKS = [("light", "desk"), ("dark", "desk"), ("light", "hand"), ("dark", "hand")]
HARM = "<img src=x onerror=\"document.title='harm'\"><script>document.title='harm'</script>"


class Guest:
    """Somebody in front of the page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.wire = Wire(page)
        self.refusals: set[str] = set()  # what the console may say of refused or lost requests
        self.complaints: list[str] = []
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: self._hear(message.type, message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _hear(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"} and not any(words in text for words in self.refusals):
            self.complaints.append(text)

    @property
    def box(self) -> Locator:
        return self.page.get_by_role("textbox", name="Your message")

    @property
    def answers(self) -> Locator:
        return self.page.locator(".message.answer")

    @property
    def notice(self) -> Locator:
        return self.page.locator("#notice")

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def asks(self, text: str) -> Locator:
        """Write, wait for the whole answer, give it."""
        number = self.answers.count()
        self.box.fill(text)
        self.box.press("Enter")
        expect(self.answers).to_have_count(number + 1)
        expect(self.button("Send")).to_be_visible()
        return self.answers.last

    def looks_for(self, text: str) -> None:
        """Send a name, or words, from the box for downloads."""
        box = self.page.get_by_role("textbox", name="Name of a model on Hugging Face, or words to look for")
        box.fill(text)
        box.press("Enter")


Serve = Callable[..., Server]
Come = Callable[..., Guest]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Run servers with these flags until the guests are gone."""
    with ExitStack() as servers:
        yield lambda *flags, **env: servers.enter_context(running(tmp_path, *flags, env=env))


@pytest.fixture
def come(browser: Browser, request: pytest.FixtureRequest, serve: Serve) -> Iterator[Come]:
    """Let somebody come to an address. At the end: a picture, nothing serious for axe, and a silent console."""
    guests: list[Guest] = []
    with ExitStack() as contexts:

        def come(url: str, look: str = "light", screen: str = "desk", *refusals: str) -> Guest:
            context = browser.new_context(viewport=SCREENS[screen], color_scheme=look, locale="en-GB")  # type: ignore[arg-type]
            contexts.callback(context.close)
            guest = Guest(context.new_page())
            guest.refusals |= set(refusals)
            guests.append(guest)
            guest.page.goto(url)
            return guest

        yield come
        for number, guest in enumerate(guests):
            keep_picture(guest, picture_name(f"home-{request.node.name}", number))
            assert serious_findings(guest.page, SWAGGER_UIS if "/schema" in guest.page.url else ()) == []
    assert [complaint for guest in guests for complaint in guest.complaints] == []


def keep_picture(guest: Guest, name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    guest.page.screenshot(path=PICTURES / f"{name}.png", animations="disabled", full_page=True)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the demo model, and without a Web UI."""
    with running(tmp_path_factory.mktemp("plain"), "--demo") as server:
        yield server
        assert server.errors() == []


@pytest.fixture
def script(tmp_path: Path) -> Iterator[tuple[str, ScriptedModel]]:
    """A server whose model says what a test writes down."""
    model = ScriptedModel()
    with serving(model, tmp_path) as url:
        yield url, model


@pytest.mark.parametrize(("look", "screen"), LOOKS)
def test_a_first_conversation(plain: Server, come: Come, look: str, screen: str) -> None:
    guest = come(plain.url, look, screen)
    expect(guest.page.get_by_role("status").first).to_have_text("tiles-nano")
    assert "Zoë" in guest.asks("My name is Zoë.").inner_text()
    last = guest.asks("What is my name?")
    assert "Zoë" in last.inner_text()
    expect(last.locator(".facts")).to_have_text(re.compile(r"^\d+ tokens · \d+\.\d tokens/s$"))
    expect(guest.box).to_be_focused()
    assert [message["role"] for message in guest.wire.chat.body["messages"]] == ["user", "assistant", "user"]
    assert guest.wire.hosts() == {plain.url.removeprefix("http://")}
    expect(guest.page.locator("#cached")).to_have_text(re.compile(r"^\d+ %$"))
    expect(guest.page.locator("#used-today")).to_have_text(re.compile(r"^[1-9]\d* requests, \d+ tokens$"))
    graph = guest.page.get_by_role("img", name=re.compile("Tokens per second of the last five minutes: .* [1-9]"))
    expect(graph).to_be_visible()
    assert guest.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_new_chat_begins_anew(plain: Server, come: Come) -> None:
    guest = come(plain.url)
    guest.asks("Hello")
    guest.button("New chat").click()
    expect(guest.page.locator(".message")).to_have_count(0)
    expect(guest.button("New chat")).to_be_hidden()
    guest.asks("My name is Ada.")
    assert len(guest.wire.chat.body["messages"]) == 1


def test_the_keyboard_is_enough(plain: Server, come: Come) -> None:
    guest = come(plain.url)
    expect(guest.page.get_by_role("status").first).to_have_text("tiles-nano")
    guest.page.keyboard.press("Tab")
    expect(guest.page.get_by_role("link", name="Skip to the chat")).to_be_focused()
    guest.page.keyboard.press("Enter")
    guest.page.keyboard.press("Tab")
    guest.box.focus()
    guest.page.keyboard.type("My name")
    guest.page.keyboard.press("Shift+Enter")
    guest.page.keyboard.type("is Eve.")
    expect(guest.answers).to_have_count(0)
    guest.page.keyboard.press("Enter")
    expect(guest.answers).to_have_count(1)
    expect(guest.button("Send")).to_be_visible()
    assert guest.wire.chat.body["messages"][0]["content"] == "My name\nis Eve."
    names = set()
    for _ in range(30):
        guest.page.keyboard.press("Tab")
        names.add(guest.page.evaluate("document.activeElement.textContent.trim()"))
    assert {"API", "New chat", "Copy"} <= names


def test_an_answer_can_be_stopped_and_the_chat_goes_on(script: tuple[str, ScriptedModel], come: Come) -> None:
    url, model = script
    endless: list[Event] = answer("It ", "goes ", "on")[:-1]
    model.scripts += [endless, answer("Enough.")]
    guest = come(url)
    guest.box.fill("Go on")
    guest.box.press("Enter")
    expect(guest.answers.last).to_contain_text("It goes on")
    expect(guest.button("Send")).to_be_hidden()
    guest.button("Stop").click()
    expect(guest.answers.last.locator(".facts")).to_have_text(re.compile("stopped"))
    assert "Enough." in guest.asks("Now?").inner_text()
    assert [message.content for message in model.requests[-1].messages] == ["Go on", "It goes on", "Now?"]
    assert model.cancelled == 1


def test_thoughts_calls_and_code_are_shown_and_nothing_is_html(script: tuple[str, ScriptedModel], come: Come) -> None:
    url, model = script
    call = ToolCall(0, "call_1", "look_up", f'{{"what": "{HARM[:9]}"}}')
    model.scripts += [answer(thought(f"Hm {HARM}"), f"So: {HARM}\n```html\n<b>{HARM}</b>\n```\nDone", call)]
    guest = come(url, "dark")
    reply = guest.asks("<b>bold?</b>")
    expect(guest.page.locator(".message.user")).to_contain_text("<b>bold?</b>")
    expect(reply).to_contain_text("So: <img src=x")
    expect(reply.locator("pre").first).to_have_text(f"<b>{HARM}</b>")
    expect(reply.locator(".call")).to_contain_text("Wants to call look_up")
    thoughts = reply.locator("details")
    expect(thoughts.locator(".text")).to_be_hidden()
    thoughts.locator("summary").click()
    expect(thoughts).to_contain_text("Hm <img src=x")
    assert reply.locator("img, script, b").count() == 0
    assert guest.page.title() == "Tiles Server"


def test_a_refused_message_comes_back(plain: Server, come: Come) -> None:
    guest = come(plain.url, "light", "desk", "status of 400")
    expect(guest.page.get_by_role("status").first).to_have_text("tiles-nano")
    long = "many words " * 4000
    guest.box.fill(long)
    guest.box.press("Enter")
    expect(guest.answers.last.locator(".error")).to_contain_text("tokens")
    expect(guest.box).to_have_value(long.strip())
    guest.box.fill("")
    guest.asks("Hello")
    assert len(guest.wire.chat.body["messages"]) == 1


def test_the_key_is_asked_for_once_and_stays_in_the_tab(serve: Serve, come: Come) -> None:
    server = serve("--demo", "--api-key", KEY)
    guest = come(server.url, "light", "desk", "status of 401")
    field = guest.page.get_by_label("Key", exact=True)
    expect(field).to_be_focused()
    keep_picture(guest, "home-key")
    field.fill("wrong")
    guest.button("Use this key").click()
    expect(guest.page.get_by_text("That is not a key of this server")).to_be_visible()
    field.fill(KEY)
    field.press("Enter")
    expect(field).to_be_hidden()
    guest.asks("Hello")
    assert guest.wire.chat.headers["authorization"] == f"Bearer {KEY}"
    guest.page.reload()
    expect(guest.page.get_by_role("status").first).to_have_text("tiles-nano")
    expect(field).to_be_hidden()
    assert guest.page.evaluate("[localStorage.length, document.cookie, location.href.split('/').pop()]") == [
        0,
        "",
        "",
    ]
    other = come(server.url, "dark", "hand", "status of 401")  # another profile has no key
    expect(other.page.get_by_label("Key", exact=True)).to_be_visible()
    assert KEY not in server.log


@pytest.mark.parametrize("look", ["light", "dark"])
def test_without_a_model_it_says_what_to_do(serve: Serve, come: Come, tmp_path: Path, look: str) -> None:
    server = serve()
    guest = come(server.url, look)
    expect(guest.notice).to_contain_text("No model is loaded")
    expect(guest.notice).to_contain_text("tiles-server --demo")
    guest.box.fill("Hello")
    expect(guest.button("Send")).to_be_disabled()


def test_a_model_that_cannot_be_loaded_says_why(serve: Serve, come: Come, tmp_path: Path) -> None:
    server = serve("--model", str(tmp_path / "absent"))
    guest = come(server.url)
    expect(guest.notice).to_contain_text("The model could not be loaded")
    expect(guest.notice).to_contain_text("absent")


def test_a_load_shows_how_far_it_is(plain: Server, come: Come) -> None:
    activity = plain.client.get("/v1/activity").json()
    loading: dict[str, Any] = {"status": "loading", "loading": "a-large-model", "progress": 0.42, "models": []}
    guest = come(plain.url + "/ping", "light", "desk", "status of 404")  # there is no favicon
    guest.page.route("**/v1/activity", lambda route: route.fulfill(json=activity | loading))
    guest.page.goto(plain.url)
    expect(guest.notice).to_contain_text("Loading a-large-model")
    expect(guest.notice.get_by_role("progressbar")).to_have_attribute("value", "0.42")
    expect(guest.page.get_by_role("status").first).to_have_text("Loading a-large-model: 42 %")
    guest.page.unroute("**/v1/activity")
    expect(guest.page.get_by_role("status").first).to_have_text("tiles-nano")
    expect(guest.notice).to_be_hidden()


def test_several_models_are_chosen_from(serve: Serve, come: Come, tmp_path: Path) -> None:
    for name in ("first", "second"):
        shutil.copytree(NANO, tmp_path / "models" / name)
    server = serve("--models-dir", str(tmp_path / "models"))
    guest = come(server.url)
    select = guest.page.get_by_label("Model", exact=True)
    select.select_option("second")
    guest.asks("Hello")
    assert guest.wire.chat.body["model"] == "second"
    expect(guest.page.locator("#models li", has_text="second")).to_contain_text("in memory")
    expect(guest.page.locator("#models li", has_text="first")).to_contain_text("loads when asked")
    assert server.errors() == []


def test_a_server_that_is_gone_is_told_and_so_is_its_return(serve: Serve, come: Come) -> None:
    server = serve("--demo")
    guest = come(server.url, "dark", "hand", "ERR_CONNECTION_REFUSED", "ERR_EMPTY_RESPONSE", "ERR_CONNECTION_RESET")
    expect(guest.page.get_by_role("status").first).to_have_text("tiles-nano")
    server.stop()
    expect(guest.notice).to_contain_text("The server does not answer")
    keep_picture(guest, "home-gone")
    serve("--demo", "--port", str(httpx.URL(server.url).port))
    expect(guest.page.get_by_role("status").first).to_have_text("tiles-nano")
    guest.asks("Hello")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with running_hub() as hub:
        source = shutil.copytree(NANO, tmp_path / "source", ignore=shutil.ignore_patterns("*.md"))
        hub.add("org/nano-two", source)
        yield hub


@pytest.mark.parametrize(("look", "screen"), [("light", "desk"), ("dark", "hand")])
def test_a_model_is_found_downloaded_loaded_and_another_deleted(
    hub: Hub, serve: Serve, come: Come, look: str, screen: str
) -> None:
    server = serve("--demo", HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="0")
    guest = come(server.url, look, screen)
    guest.page.get_by_text("Download a model").click()
    guest.looks_for("nothing of the kind")
    expect(guest.page.get_by_role("alert")).to_contain_text("no model of that name")
    guest.looks_for("NANO")
    held = hub.pause("model.safetensors")
    guest.button("Download org/nano-two").click()
    bar = guest.page.get_by_role("progressbar", name="Downloading org/nano-two")
    expect(bar).to_be_visible()
    expect(guest.button("Stop the download of org/nano-two")).to_be_visible()
    keep_picture(guest, picture_name("home-download", 0 if look == "light" else 1))
    assert serious_findings(guest.page) == []
    held.set()
    expect(bar).to_have_count(0)
    guest.page.get_by_text("More on this machine").click()
    guest.button("Load org/nano-two").click()
    expect(guest.page.get_by_role("status").first).to_have_text("org/nano-two")
    guest.asks("My name is Zoë.")
    assert guest.page.locator("#models").get_by_role("button").count() == 0  # it is in use
    assert server.errors() == []


def test_a_model_of_the_folder_is_deleted_once_it_is_confirmed(
    hub: Hub, serve: Serve, come: Come, tmp_path: Path
) -> None:
    folder = tmp_path / "models"
    shutil.copytree(NANO, folder / "mine")
    server = serve("--models-dir", str(folder), HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="0")
    guest = come(server.url, "light", "desk", "status of 404")
    guest.page.get_by_text("Download a model").click()
    guest.looks_for("org/none")
    expect(guest.page.get_by_role("alert")).to_contain_text("has no model org/none")
    guest.looks_for("https://huggingface.co/org/nano-two")
    row = guest.page.locator("#models li", has_text="org/nano-two")
    expect(row).to_contain_text("loads when asked")
    expect(guest.page.locator("#models li", has_text="mine").get_by_role("button")).to_have_count(0)
    guest.page.once("dialog", lambda dialog: dialog.dismiss())
    guest.button("Delete org/nano-two from this disk").click()
    expect(row).to_have_count(1)
    guest.page.once("dialog", lambda dialog: dialog.accept())
    guest.button("Delete org/nano-two from this disk").click()
    expect(row).to_have_count(0)
    assert (folder / "mine" / "config.json").exists()
    assert server.errors() == []


@pytest.mark.parametrize(("look", "screen"), LOOKS)
def test_the_documentation_of_the_api_begins_with_the_chat(plain: Server, come: Come, look: str, screen: str) -> None:
    guest = come(plain.url + "/schema", look, screen)
    expect(guest.page.get_by_text("Create a chat completion").first).to_be_visible()
    assert guest.page.locator(".opblock-tag").first.inner_text().startswith("Chat")
    guest.page.locator(".opblock-summary-control").first.click()
    expect(guest.page.get_by_role("button", name="Try it out")).to_be_visible()
    assert guest.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_call_can_be_tried(plain: Server, come: Come) -> None:
    guest = come(plain.url + "/schema")
    guest.page.locator("#operations-tag-Operations").click()
    guest.page.locator(".opblock", has_text="Check that the server is there").locator(
        ".opblock-summary-control"
    ).click()
    guest.button("Try it out").click()
    guest.button("Execute").click()
    expect(guest.page.locator(".responses-table.live-responses-table")).to_contain_text("pong")


def test_the_first_evening_of_a_newcomer(hub: Hub, serve: Serve, come: Come, tmp_path: Path) -> None:
    """From the demo model to one of one's own that is there again when the machine was off."""
    hub_is = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
    server = serve("--demo", **hub_is)
    guest = come(server.url, "light", "desk", "ERR_CONNECTION_REFUSED", "ERR_EMPTY_RESPONSE", "ERR_CONNECTION_RESET")
    assert "Zoë" in guest.asks("My name is Zoë.").inner_text()
    guest.page.get_by_text("Download a model").click()
    guest.looks_for("NANO")
    held = hub.pause("model.safetensors")
    guest.button("Download org/nano-two").click()
    expect(guest.page.get_by_role("progressbar", name="Downloading org/nano-two")).to_be_visible()
    assert "Zoë" in guest.asks("What is my name?").inner_text()  # meanwhile
    keep_picture(guest, "newcomer-1-download")
    held.set()
    guest.page.get_by_text("More on this machine").click()
    guest.button("Load org/nano-two").click()
    expect(guest.page.get_by_role("status").first).to_have_text("org/nano-two")
    assert "Zoë" in guest.asks("What is my name?").inner_text()
    used = guest.page.locator("#used-today")
    expect(used).to_have_text(re.compile("^3 requests"))
    keep_picture(guest, "newcomer-2-numbers")

    command = [sys.executable, "-m", "app", "service", "install", "--print", "--model", "org/nano-two"]
    port = str(httpx.URL(server.url).port)
    shown = subprocess.run(
        [*command, "--port", port], env=environment(tmp_path, **hub_is), capture_output=True, text=True, check=True
    )
    server.stop()
    expect(guest.notice).to_contain_text("The server does not answer")
    again = serve(*service_flags(shown.stdout))  # what systemd or launchd runs at the next login
    expect(guest.page.get_by_role("status").first).to_have_text("org/nano-two")
    assert "Zoë" in guest.asks("What is my name?").inner_text()
    expect(used).to_have_text(re.compile("^4 requests"))
    keep_picture(guest, "newcomer-3-after-a-restart")
    assert server.errors() == again.errors() == []


def service_flags(text: str) -> list[str]:
    """The flags of serve in a unit of systemd or an agent of launchd, without anything that a shell reads otherwise."""
    if text.startswith("<?xml"):
        words = plistlib.loads(text.encode())["ProgramArguments"]
    else:
        words = shlex.split(next(line for line in text.splitlines() if line.startswith("ExecStart=:")))
    return list(words[words.index("serve") + 1 :])
