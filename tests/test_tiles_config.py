"""Tiles' own configuration, from its daemon and from its file."""

from pathlib import Path

import pytest

from app.settings import read
from tests.tiles_daemon import tiles_daemon


@pytest.mark.parametrize(
    "url", ["http://example.org:1729", "https://127.0.0.1:1729", "127.0.0.1:1729", "http://10.0.0.1"]
)
def test_the_daemon_is_on_this_machine(url: str) -> None:
    with pytest.raises(ValueError, match="give an address on this machine"):
        read({}, {"TILES_DAEMON_URL": url})


def test_the_context_is_that_of_tiles_unless_a_flag_or_a_variable_says_another(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "TILES_DAEMON_URL": "http://127.0.0.1:9"}
    config = tmp_path / ".config/tiles/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("[llama]\ncontext_length = 4096\ngpu_layers = 99\n")
    assert read({}, environ).context_length is None  # Tiles is not installed
    (tmp_path / ".local/share/tiles").mkdir(parents=True)
    assert read({}, environ).context_length == 4096
    assert read({}, environ | {"TILES_CONTEXT_LENGTH": "2048"}).context_length == 2048
    assert read({"context_length": "1024"}, environ).context_length == 1024
    named = tmp_path / "named.toml"
    named.write_text("[inference]\ndaemon = true\n")
    assert read({}, environ | {"TILES_CONFIG": str(named)}).context_length is None  # it says nothing, and is Tiles' own
    with tiles_daemon(llama={"context_length": 512}) as daemon:
        assert read({}, environ | {"TILES_DAEMON_URL": daemon.url}).context_length == 512
        daemon.llama = {}
        assert read({}, environ | {"TILES_DAEMON_URL": daemon.url}).context_length is None


@pytest.mark.parametrize(
    "content", ["[llama", "[llama]\ncontext_length = 'much'", "[llama]\ncontext_length = true", "llama = 3", "\udcff"]
)
def test_a_configuration_that_cannot_be_read_is_a_warning(tmp_path: Path, content: str) -> None:
    config = tmp_path / "config.toml"
    config.write_bytes(content.encode("utf-8", "surrogateescape"))
    settings = read({}, {"HOME": str(tmp_path), "TILES_CONFIG": str(config)})
    assert settings.context_length is None
    assert [str(config) in warning for warning in settings.warnings] == [True]
