"""Who may not ask: hosts, origins and web pages."""

from app.services.errors.base import Forbidden


class UnknownHost(Forbidden):
    """The `Host` header names a host that this server does not answer to."""

    code = "host"
    advice = "Start the server with `--allow-host`."
    default_message = "This server does not answer to that Host; start it with --allow-host to let it"


class UnknownOrigin(Forbidden):
    """The `Origin` header names a web origin that this server does not answer."""

    code = "origin"
    advice = "Start the server with `--allow-origin`."
    default_message = "This server does not answer pages of that Origin; start it with --allow-origin to let it"


class BrowserPage(Forbidden):
    """A web page asks for what no web page may do, as `/start` or memory mode."""

    code = "browser_page"
    advice = "Use a client that is not a browser."
    default_message = "A web page may not do this"


class TargetForbidden(Forbidden):
    """The proxy of the Web UI does not reach this host: it is on this machine or its network, and no file names it."""

    code = "proxy_target"
    advice = "Name a server with that `url` in the file of `--mcp-config`."


class CrossSite(Forbidden):
    """A page of another site embeds or links what it may not."""

    code = "cross_site"
    advice = "Use `fetch` from an origin of `--allow-origin`."
    default_message = "A page of another site may not do this"
