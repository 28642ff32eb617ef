"""Profiles of coding agents: what each is told of the server, and that nothing else of it changes."""

import json
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.services.coding_agents import AGENTS, Agent, JsonFile, Profile, ServerFacts, folder
from app.services.coding_agents.agent import KEY_VARIABLE

KEY = "a-secret-of-the-tests"
SERVER = ServerFacts("http://127.0.0.1:7070", "my-model", 65_536, reasoning=True, api_key=KEY)
FOLDER = Path("/profiles/one")


@pytest.fixture(params=AGENTS.values(), ids=AGENTS)
def agent(request: pytest.FixtureRequest) -> Agent:
    assert isinstance(request.param, Agent)
    return request.param


def profile_of(name: str, server: ServerFacts = SERVER, **environ: str) -> Profile:
    return AGENTS[name].profile(server, FOLDER, environ)


def words(profile: Profile) -> str:
    """All that an agent is given, in one text."""
    files = [json.dumps(dict(file.settings) | dict(file.defaults)) for file in profile.files.values()]
    return "\n".join([*map(str, profile.env.values()), *profile.arguments, *files])


def test_each_agent_is_told_the_address_the_model_and_its_context(agent: Agent) -> None:
    made = words(agent.profile(SERVER, FOLDER, {}))
    assert all(text in made for text in (SERVER.url, SERVER.model, str(SERVER.context)))


def test_the_key_is_only_in_the_environment(agent: Agent) -> None:
    profile = agent.profile(SERVER, FOLDER, {})
    assert KEY in profile.env.values()
    assert KEY not in words(Profile({}, profile.arguments, profile.files))


def test_an_agent_gets_some_key_where_the_server_wants_none(agent: Agent) -> None:
    profile = agent.profile(ServerFacts(SERVER.url, SERVER.model, 8192), FOLDER, {})
    names = [name for name, value in agent.profile(SERVER, FOLDER, {}).env.items() if value == KEY]
    assert names
    assert all(profile.env[name] for name in names)


def test_telemetry_is_off_unless_the_user_says_otherwise(agent: Agent) -> None:
    assert agent.profile(SERVER, FOLDER, {}).env.items() >= agent.quiet.items()
    kept = dict.fromkeys(agent.quiet, "as the user wants it")
    assert not agent.quiet.keys() & agent.profile(SERVER, FOLDER, kept).env.keys()


def test_what_an_agent_writes_lies_in_its_folder(agent: Agent) -> None:
    assert str(FOLDER) in words(agent.profile(SERVER, FOLDER, {}))


def test_claude_knows_all_its_models_by_the_one_name() -> None:
    env = profile_of("claude").env
    assert {value for name, value in env.items() if name.endswith("_MODEL")} == {"my-model"}
    assert env["ANTHROPIC_AUTH_TOKEN"] == KEY
    assert env["ANTHROPIC_API_KEY"] is None
    assert env["CLAUDE_CODE_USE_BEDROCK"] is None
    assert env["CLAUDE_CODE_ATTRIBUTION_HEADER"] == "0"


def test_claude_summarizes_only_where_there_is_space_for_it() -> None:
    assert profile_of("claude", ServerFacts(SERVER.url, "small", 32_768)).env["DISABLE_AUTO_COMPACT"] == "1"
    assert "DISABLE_AUTO_COMPACT" not in profile_of("claude", ServerFacts(SERVER.url, "large", 131_072)).env


def test_codex_gets_a_provider_of_its_own() -> None:
    profile = profile_of("codex")
    overrides = dict(word.split("=", 1) for word in profile.arguments if word != "-c")
    assert overrides["model_provider"] == '"tiles"'
    assert overrides["model_providers.tiles.base_url"] == '"http://127.0.0.1:7070/v1"'
    assert overrides["model_providers.tiles.wire_api"] == '"responses"'
    assert overrides["model_providers.tiles.supports_websockets"] == "true"
    assert overrides["model_providers.tiles.requires_openai_auth"] == "false"
    assert overrides["model_context_window"] == "65536"
    assert profile.env["CODEX_HOME"] == str(FOLDER)
    assert profile.env[json.loads(overrides["model_providers.tiles.env_key"])] == KEY


def test_opencode_is_told_everything_by_one_variable() -> None:
    config: dict[str, Any] = json.loads(profile_of("opencode").env["OPENCODE_CONFIG_CONTENT"] or "")
    (provider,) = config["enabled_providers"]
    assert config["model"] == config["small_model"] == f"{provider}/my-model"
    options = config["provider"][provider]["options"]
    assert options["baseURL"] == "http://127.0.0.1:7070/v1"
    assert options["apiKey"] == "{env:" + KEY_VARIABLE + "}"
    limit = config["provider"][provider]["models"]["my-model"]["limit"]
    assert limit == {"context": 65_536, "output": 16_384}


def test_agents_that_want_to_know_are_told_whether_the_model_sees() -> None:
    for sees in (False, True):
        server = replace(SERVER, sees=sees)
        opencode = json.loads(profile_of("opencode", server).env["OPENCODE_CONFIG_CONTENT"] or "")
        (model,) = opencode["provider"]["tiles"]["models"].values()
        assert (model["attachment"], "image" in model["modalities"]["input"]) == (sees, sees)
        (model,) = profile_of("pi", server).files["models.json"].settings["providers"]["tiles"]["models"]
        assert ("image" in model["input"]) == sees
        (model,) = profile_of("qwen", server).files["settings.json"].settings["modelProviders"]["openai"]
        assert model["generationConfig"]["modalities"]["image"] is sees


def test_claude_asks_before_it_runs_a_command_until_its_user_says_otherwise() -> None:
    file = profile_of("claude").files["settings.json"]
    assert file.settings == {}
    assert file.defaults == {"permissions": {"defaultMode": "default"}}


def test_qwen_gets_a_provider_that_no_variable_of_the_user_goes_before() -> None:
    profile = profile_of("qwen")
    settings = profile.files["settings.json"].settings
    (model,) = settings["modelProviders"][settings["security"]["auth"]["selectedType"]]
    assert (model["id"], model["baseUrl"]) == ("my-model", "http://127.0.0.1:7070/v1")
    assert model["generationConfig"]["contextWindowSize"] == 65_536
    assert profile.env[model["envKey"]] == KEY
    assert profile.env["QWEN_HOME"] == str(FOLDER)
    assert profile.env["OPENAI_BASE_URL"] is None


def test_cline_uses_the_provider_that_its_settings_have() -> None:
    providers = profile_of("cline").files["data/settings/providers.json"].settings
    provider = providers["providers"][providers["lastUsedProvider"]]["settings"]
    assert (provider["model"], provider["baseUrl"]) == ("my-model", "http://127.0.0.1:7070/v1")
    assert (provider["contextWindow"], provider["maxTokens"]) == (65_536, 16_384)


def test_continue_reads_the_file_that_it_is_given() -> None:
    profile = profile_of("continue")
    assert profile.arguments == ("--config", str(FOLDER / "config.yaml"))
    (model,) = profile.files["config.yaml"].settings["models"]
    assert (model["model"], model["apiBase"]) == ("my-model", "http://127.0.0.1:7070/v1")
    assert model["apiKey"] == "${{ secrets." + KEY_VARIABLE + " }}"


def test_aider_reads_how_long_the_context_is_from_a_file() -> None:
    profile = profile_of("aider")
    options = dict(zip(profile.arguments[::2], profile.arguments[1::2], strict=False))
    assert options["--model"] == options["--weak-model"] == "openai/my-model"
    assert options["--openai-api-base"] == "http://127.0.0.1:7070/v1"
    (name,) = profile.files
    assert options["--model-metadata-file"] == str(FOLDER / name)
    assert profile.files[name].settings["openai/my-model"]["max_input_tokens"] == 65_536


def test_an_answer_has_a_part_of_the_context_and_a_limit() -> None:
    assert ServerFacts("", "", 8192).output == 2048
    assert ServerFacts("", "", 2**20).output == 32_000


def test_a_profile_is_its_owners_alone_and_keeps_what_the_agent_has_added(tmp_path: Path) -> None:
    where = tmp_path / "launch" / "one"
    profile = Profile(files={"a/b.json": JsonFile({"model": {"name": "new"}}, {"theme": "dark", "model": {"x": 1}})})
    folder.write(profile, where)
    file = where / "a" / "b.json"
    assert json.loads(file.read_text()) == {"theme": "dark", "model": {"x": 1, "name": "new"}}
    assert stat.S_IMODE(where.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_text(json.dumps({"theme": "light", "model": {"name": "old", "x": 2}, "more": [1]}))
    folder.write(profile, where)
    assert json.loads(file.read_text()) == {"theme": "light", "model": {"name": "new", "x": 2}, "more": [1]}


def test_a_broken_file_is_named_and_stays(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text("{broken")
    with pytest.raises(ValueError, match=r"b\.json is no JSON object"):
        folder.write(Profile(files={"b.json": JsonFile({})}), tmp_path)
    assert (tmp_path / "b.json").read_text() == "{broken"


def test_a_profile_can_be_removed_once(tmp_path: Path) -> None:
    where = tmp_path / "one"
    folder.write(Profile(files={"b.json": JsonFile({})}), where)
    assert [folder.remove(where), folder.remove(where)] == [True, False]
    assert not where.exists()
