"""axe-core, which looks for what keeps people with a keyboard or a screen reader out: installed once from npm."""

import json
import subprocess
from collections.abc import Collection

from playwright.sync_api import Page

from tests.e2e.build import cache, need_npm

RELEASE = "4.14.1"
_SERIOUS = {"serious", "critical"}


def source() -> str:
    """Give axe-core as a script, from the cache or from npm."""
    folder = cache().parent / f"axe-core-{RELEASE}"
    script = folder / "node_modules" / "axe-core" / "axe.min.js"
    if not script.is_file():
        need_npm()
        quiet = ("--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error")
        subprocess.run(["npm", "install", *quiet, "--prefix", str(folder), f"axe-core@{RELEASE}"], check=True)
    return script.read_text()


# What Swagger UI's own markup does, and a dark mode by a filter, of which axe does not know.
SWAGGER_UIS = frozenset(
    {"button-name", "color-contrast", "nested-interactive", "scrollable-region-focusable", "select-name"}
)


def serious_findings(page: Page, besides: Collection[str] = ()) -> list[str]:
    """Give what is serious of what axe finds on a page, in one line each, but for some rules.

    The script comes through the debugger's door, since the page's own rules let no other script in.
    """
    session = page.context.new_cdp_session(page)
    session.send("Runtime.evaluate", {"expression": source()})
    run = "axe.run().then(({violations}) => JSON.stringify(violations))"
    result = session.send("Runtime.evaluate", {"expression": run, "awaitPromise": True, "returnByValue": True})
    session.detach()
    return [
        f"{finding['id']}: {finding['help']}: {[node['html'][:200] for node in finding['nodes']]}"
        for finding in json.loads(result["result"]["value"])
        if finding["impact"] in _SERIOUS and finding["id"] not in besides
    ]
