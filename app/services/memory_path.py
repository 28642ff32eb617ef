"""Which folders may be a session's memory: the model will read and write what is in them."""

from pathlib import Path

from app.services.errors import InvalidRequest


def check(memory_path: str, data_dir: Path) -> None:
    """Raise InvalidRequest for a folder that holds far more than notes: /, the home folder, or a parent of our data.

    An empty path is no memory.
    """
    if not memory_path:
        return
    try:
        folder = Path(memory_path).expanduser().resolve()
        home = Path.home().resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise InvalidRequest("memory_path is no path of this machine", param="memory_path") from error
    forbidden = {Path("/"), home, *home.parents, *data_dir.resolve().parents}
    if folder in forbidden:
        raise InvalidRequest(
            "memory_path may not be /, the home folder or a folder above this server's data: give a folder of its own",
            param="memory_path",
        )
