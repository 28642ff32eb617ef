"""What the page says beside the chat."""

import json

from playwright.sync_api import expect

from tests.conftest import Server
from tests.e2e.conftest import Visit
from tests.e2e.wire import CHAT


def test_too_long_a_prompt_is_told_with_its_numbers(demo: Server, visit: Visit) -> None:
    person = visit(demo)
    person.expected |= {(400, CHAT), "The prompt has"}
    person.opens()
    person.writes("one two three " * 4000)
    expect(person.dialog).to_contain_text("Server Error")
    assert person.wire.chat.status == 400
    error = json.loads(person.wire.chat.answer)["error"]
    assert error["type"] == "exceed_context_size_error"
    assert error["n_prompt_tokens"] > error["n_ctx"] == 8192
    expect(person.dialog).to_contain_text(f"Prompt tokens: {error['n_prompt_tokens']:,}")
    expect(person.dialog).to_contain_text("Context size: 8,192")
    person.keeps_a_picture(demo.home / "overflow.png")


def test_the_model_describes_itself(demo: Server, visit: Visit) -> None:
    person = visit(demo)
    person.opens()
    person.presses("tiles-nano")
    props, row = demo.client.get("/props").json(), demo.client.get("/v1/models").json()["data"][0]
    expect(person.dialog).to_contain_text(props["model_path"])
    shown = " ".join(person.dialog.inner_text().split())
    told = {
        "Model": row["id"],
        "File Path": props["model_path"],
        "Context Size": f"{props['default_generation_settings']['n_ctx']:,} tokens",
        "Training Context": f"{row['meta']['n_ctx_train']:,} tokens",
        "Parameters": f"{row['meta']['n_params'] / 1e6:.2f}M",
        "Embedding Size": str(row["meta"]["n_embd"]),
        "Vocabulary Size": f"{row['meta']['n_vocab']:,} tokens",
        "Parallel Slots": str(props["total_slots"]),
        "Build Info": props["build_info"],
    }
    assert [f"{name} {value}" for name, value in told.items() if f"{name} {value}" not in shown] == []
    expect(person.dialog.locator("pre").first).to_have_text(props["chat_template"].strip())
    assert "undefined" not in shown
    assert "Not available" not in shown
