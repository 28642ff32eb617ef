"""What a server has imported by its first answer: each module is waited for by everybody who starts one."""

import re
from pathlib import Path

from tests.conftest import running

# What takes long to import, and no answer of a model with a tokenizer.json needs.
NEEDLESS = {
    "transformers",  # the package itself, which indexes all its models; its modules are imported without it
    "transformers.models",
    "torch",
    "transformers.processing_utils",  # what prepares images, once there is one
    "scipy",
    "httpx",  # reads of files on hubs, where a client asks what they would take
    "prometheus_client",  # metrics, once they are read
}


def test_a_server_imports_nothing_needless_before_its_first_answer(home: Path) -> None:
    with running(home, "--demo", program=("-X", "importtime", "-m", "app")) as server:
        assert server.chat().status_code == 200
        modules = set(re.findall(r"^import time:[^|]*\|[^|]*\| +([\w.]+)$", server.log, re.MULTILINE))
    assert "mlx.core" in modules  # what is imported is seen at all
    assert not NEEDLESS & modules
