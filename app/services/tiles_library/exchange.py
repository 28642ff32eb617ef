"""Two folders change places in one step, as `mv --exchange` does."""

import ctypes
import errno
import os
import sys
from pathlib import Path

_AT_CURRENT_FOLDER = -100  # AT_FDCWD of Linux
_SWAP = 2  # RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS
_UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}


def exchange(first: Path, second: Path, aside: Path) -> None:
    """Let two names of one folder change places. Raises OSError.

    A file system that cannot do it in one step does it in three, by way of a third name.
    """
    try:
        _exchange_at_once(os.fsencode(first), os.fsencode(second))
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        first.rename(aside)
        second.rename(first)
        aside.rename(second)


def _exchange_at_once(first: bytes, second: bytes) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    try:
        if sys.platform == "darwin":
            failed = library.renamex_np(first, second, _SWAP)
        else:
            failed = library.renameat2(_AT_CURRENT_FOLDER, first, _AT_CURRENT_FOLDER, second, _SWAP)
    except AttributeError:  # an old C library
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fsdecode(first))
