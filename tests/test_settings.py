"""Lists in settings: the same by flag and by variable, and an error for what could never count."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.access import Access
from app.application import create_app
from app.services.errors import Forbidden, Unauthorized
from app.settings import SettingError, Settings, read

LISTS = {
    "api_key": ["k1", "k 2", "schlüssel", "ключ", "k=3;/+"],
    "allow_host": ["tiles.example", "192.168.1.5", "fd00::1", "tiles.test"],
    "allow_origin": ["https://app.example", "vscode-webview://*", "https://*.app.example", "tauri://localhost"],
    "lora": ["/a", "/b:0.5", "/c c", "/d"],
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_is_the_same_by_flag_and_by_variable(name: str) -> None:
    items = tuple(LISTS[name])
    for text in (",".join(items), " , ".join(items), f",,{','.join(items)}, ,"):
        assert getattr(read({name: (text,)}, {}), name) == items
        assert getattr(read({}, {f"TILES_{name.upper()}": text}), name) == items
    assert getattr(read({name: items}, {}), name) == items
    assert getattr(read({name: (",".join(items[:2]), *items[2:])}, {}), name) == items


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("empty", ["", " ", ",", " , ,"])
def test_a_flag_with_nothing_in_it_is_an_error(name: str, empty: str) -> None:
    with pytest.raises(SettingError, match="give at least one"):
        read({name: (empty,)}, {})


def test_a_variable_that_is_empty_counts_as_absent() -> None:
    assert read({}, {"TILES_API_KEY": "", "TILES_LORA": ""}) == Settings()


def test_an_adapter_whose_name_has_a_comma_is_one(tmp_path: Path) -> None:
    folder = tmp_path / "one,two"
    folder.mkdir()
    for text in (str(folder), f"{folder}:0.5"):
        assert read({"lora": (text,)}, {}).lora == (text,)
        assert read({}, {"TILES_LORA": text}).adapters[0][0] == folder


@pytest.mark.parametrize(
    "origin",
    [
        *("*", "null", "NULL", "file://", "file:", "file:///", "app.example", "//app.example", "https://"),
        *("https://app.example/path", "https://app.example?x", "https://app.example#x", "https://user@app.example"),
        *("https://*", "http://*", "https://*.example", "https://app.*", "https://*app.example", "https://a.*.example"),
        *("https://app.example:port", "https://app.example:99999", "https://app.example:*", "https://пример.example"),
        *("https://app.example https://other.example", "vscode-webview://*.x.y*", "*.app.example", "https://**.app.example"),
    ],
)  # fmt: skip
def test_an_origin_that_could_never_be_or_lets_all_in_is_an_error(origin: str) -> None:
    for given_as in (
        {"flags": {"allow_origin": (origin,)}, "environ": {}},
        {"environ": {"TILES_ALLOW_ORIGIN": origin}},
    ):
        with pytest.raises(SettingError, match=r"^(--allow-origin|TILES_ALLOW_ORIGIN): .*: give ") as refused:
            read(**given_as)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "host",
    ["*", "*.example", "http://tiles.example", "tiles.example/x", "a b", "user@tiles.example", "пример.test", ":80"],
)
def test_a_host_that_no_header_names_is_an_error(host: str) -> None:
    with pytest.raises(SettingError, match=r"--allow-host: .*: give names"):
        read({"allow_host": (host,)}, {})


def test_a_key_that_fits_into_no_header_is_an_error_that_does_not_show_it() -> None:
    for key in ("se\ncret", "se\x00cret", "se\x7fcret"):
        with pytest.raises(SettingError) as refused:
            read({"api_key": (key,)}, {})
        assert "cret" not in str(refused.value)


def lets_in(access: Access, **headers: str) -> bool:
    try:
        access.check("GET", "/v1/models", {name.replace("_", "-"): value for name, value in headers.items()})
    except (Forbidden, Unauthorized):
        return False
    return True


def as_header(key: str, encoding: str) -> str:
    """A key as the gate sees it when a client has sent it in this encoding."""
    return key.encode(encoding, "surrogateescape").decode("latin-1")


keys = st.text(min_size=1, max_size=12).filter(
    lambda key: key == key.strip() and "," not in key and key.isprintable() and not key.lower().startswith("bearer")
)


@settings(deadline=None)
@given(st.lists(keys, min_size=1, max_size=3, unique=True), keys)
def test_any_of_the_keys_lets_in_whatever_its_letters_and_no_other(allowed: list[str], other: str) -> None:
    access = Access(read({"api_key": (",".join(allowed),)}, {}))
    for key in allowed:
        spellings = {as_header(key, "utf-8")} | ({key} if key.isascii() or max(key) < "\u0100" else set())
        for sent in spellings:
            assert lets_in(access, x_api_key=sent)
            assert lets_in(access, authorization=f"Bearer {sent}")
    if other not in allowed:
        wrong = as_header(other, "utf-8")
        if all(wrong not in {as_header(key, "utf-8"), key} for key in allowed):
            assert not lets_in(access, x_api_key=wrong)
            assert not lets_in(access, authorization=f"Bearer {wrong}")
            assert lets_in(access, x_api_key=wrong, authorization=f"Bearer {as_header(allowed[0], 'utf-8')}")


WRONG: list[str | None] = [
    None,
    "",
    "Bearer",
    "Bearer ",
    "Bearer other",
    "Basic dXNlcjpwYXNz",
    "other",
    "Digest a=b, c=d",
]


@pytest.mark.parametrize("wrong", WRONG)
def test_one_right_key_is_enough(wrong: str | None) -> None:
    access = Access(Settings(api_key=("good",)))
    beside: dict[str, Any] = {} if wrong is None else {"authorization": wrong}
    assert lets_in(access, **beside, x_api_key="good")
    assert not lets_in(access, **beside, x_api_key="bad")
    assert not lets_in(access, **beside)
    if wrong is not None:  # the same header twice, as the gate joins it
        for right in ("Bearer good", "bearer  good", "good"):
            assert lets_in(access, authorization=f"{wrong}, {right}")
            assert lets_in(access, authorization=f"{right}, {wrong}")
        assert lets_in(access, authorization="Bearer good", x_api_key=wrong)


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        (
            "vscode-webview://*",
            ["vscode-webview://1a2b", "vscode-webview://0nq5t8"],
            ["https://1a2b", "vscode-webviews://1a", "vscode-webview://a/b", "null"],
        ),
        (
            "https://*.app.example",
            ["https://a.app.example", "https://a.b.app.example", "https://A.App.Example", "https://a.app.example:443"],
            [
                *("https://app.example", "http://a.app.example", "https://a.app.example:8443", "https://aapp.example"),
                *("https://a.app.example.evil.example", "https://evil.example/.app.example"),
            ],
        ),
        ("https://app.example", ["https://app.example:443", "https://app.example."], ["https://app.example:444"]),
        ("https://app.example:8443/", ["https://app.example:8443"], ["https://app.example"]),
        ("chrome-extension://abc", ["chrome-extension://abc"], ["chrome-extension://abd", "chrome-extension://*"]),
    ],
)
def test_origins_and_patterns(pattern: str, inside: list[str], outside: list[str]) -> None:
    access = Access(read({"allow_origin": (pattern,)}, {}))
    assert all(access.allows_origin(origin, "localhost") for origin in inside)
    assert not any(access.allows_origin(origin, "localhost") for origin in outside)


def test_a_host_is_allowed_at_any_port_and_however_it_is_written() -> None:
    access = Access(read({"allow_host": ("Tiles.Example:6969", "fd00::1,[fd00::2]:1")}, {}))
    for host in ("tiles.example", "TILES.example:1", "tiles.example.", "[fd00::1]", "[fd00::2]:80"):
        assert lets_in(access, host=host)
    assert not lets_in(access, host="other.example")
    assert not lets_in(access, host="")
    assert lets_in(access)  # a client of HTTP/1.0, which is no browser


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "tiles.example"])
def test_no_server_lets_other_machines_in_without_a_key(host: str) -> None:
    with pytest.raises(SettingError, match="lets other machines in"):
        create_app(Settings(host=(host,)))
    Settings(host=(host,), insecure=True).check()
    Settings(host=(host,), api_key=("k",)).check()
    Settings(host=("127.0.0.2",)).check()


def test_settings_that_contradict_each_other_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"model": "x", "demo": True}, "exclude each other"),
        ({"draft_tokens": 8}, "give --draft-model too"),
        ({"max_models": 2}, "give --models-dir too"),
        ({"sleep_idle_seconds": 5.0}, "give --models-dir too"),
        ({"models_dir": tmp_path / "no"}, "is no folder"),
        ({"models_dir": tmp_path}, "--model serves it"),
        ({"models_dir": tmp_path.parent, "lora": (str(tmp_path),)}, "--lora is for one model"),
        ({"lora": (f"{tmp_path}:nan",)}, "nan is no scale"),
        ({"webui_dir": tmp_path}, "no index.html"),
    ]
    for values, message in wrong:
        with pytest.raises(SettingError, match=message):
            Settings(**values).check()


def test_a_switch_is_on_or_off() -> None:
    for name in ("store", "stop_repetition"):
        assert getattr(Settings(), name) is True
        assert getattr(read({name: "off"}, {}), name) is False
        assert getattr(read({}, {f"TILES_{name.upper()}": "on"}), name) is True
        with pytest.raises(SettingError, match="give one of on, off"):
            read({name: "1"}, {})
