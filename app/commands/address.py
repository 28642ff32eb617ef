"""The address of a server on this machine."""


def base_url(host: str, port: int) -> str:
    """Give the address at which a server that listens on a host is reached from here."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"
