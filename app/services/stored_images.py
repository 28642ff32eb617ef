"""Images of stored responses: each is a file beside those that hold it, under a name for each but once on the disk."""

import json
import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from app.services import atomic

_DATA_URL = re.compile(rb'"(data:image/[\w.+-]{1,40};base64,[A-Za-z0-9+/=]{1024,})"')
_HEAD = b'{"images":'
_NAME = re.compile(r"(?P<identity>resp_[0-9a-f]{32})\.(?P<digest>[0-9a-f]{32})\.image")
_OLD = 3600.0  # seconds after which an image without a response is of one that was never written


def split(content: bytes) -> tuple[bytes, Mapping[str, bytes]]:
    """Cut the images out of the JSON of a response. Returns what is left, and the images by their digests.

    What is left has a line before it that says where they were. Without images it is the content as it was.
    """
    texts, images, places, start, length = [], {}, [], 0, 0
    for match in _DATA_URL.finditer(content):
        digest = blake2b(match[1], digest_size=16).hexdigest()
        images[digest] = match[1]
        texts.append(content[start : match.start(1)])
        length += len(texts[-1])
        places.append([length, digest])
        start = match.end(1)
    if not images:
        return content, {}
    head = json.dumps({"images": places}, separators=(",", ":")).encode()
    return b"".join((head, b"\n", *texts, content[start:])), images


def join(content: bytes, read: Callable[[str], bytes]) -> bytes:
    """Put the images back, as `read` gives them by their digests. Raises what that raises."""
    if not content.startswith(_HEAD):
        return content
    head, _, rest = content.partition(b"\n")
    parts, start = [], 0
    for end, digest in json.loads(head)["images"]:
        parts += [rest[start:end], read(digest)]
        start = end
    return b"".join((*parts, rest[start:]))


class StoredImages:
    """The files of images in a folder of responses, named after both: hard links, so the last one to go frees the disk.

    Other servers may use the folder too. Not safe for two threads at once, but for `read`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sizes: dict[str, int] = {}  # bytes, by digest
        self._responses: defaultdict[str, set[str]] = defaultdict(set)  # ids, by the digest of an image that they have

    @property
    def size(self) -> int:
        """Bytes of all images on the disk, each counted once."""
        return sum(self._sizes.values())

    def look(self) -> None:
        """Find out what is there."""
        for path, identity, digest in self._files():
            with suppress(OSError):  # another server may have removed it
                self._sizes[digest] = path.stat().st_size
                self._responses[digest].add(identity)

    def save(self, identity: str, images: Mapping[str, bytes]) -> None:
        """Write the images of a response, before it is written itself. Raises OSError."""
        for digest, data in images.items():
            path = self._path(identity, digest)
            if not any(self._link(other, digest, path) for other in self._responses[digest]):
                atomic.write(path, data.decode())
            self._sizes[digest] = len(data)
            self._responses[digest].add(identity)

    def read(self, identity: str, digest: str) -> bytes:
        """Give an image of a response. Raises OSError."""
        return self._path(identity, digest).read_bytes()

    def remove(self, identity: str) -> None:
        """Remove the images of a response, as far as no other one has them."""
        for digest in [digest for digest, identities in self._responses.items() if identity in identities]:
            with suppress(OSError):
                self._path(identity, digest).unlink(missing_ok=True)
            self._responses[digest].discard(identity)
            if not self._responses[digest]:
                del self._responses[digest], self._sizes[digest]

    def tidy(self, identities: Collection[str]) -> None:
        """Remove images of responses that were never written, or are gone: all but these, unless they are new."""
        for path, identity, _ in self._files():
            with suppress(OSError):
                if identity not in identities and path.stat().st_ctime < time.time() - _OLD:
                    self.remove(identity)

    def _link(self, identity: str, digest: str, path: Path) -> bool:
        try:
            os.link(self._path(identity, digest), path)
        except FileExistsError:
            return True
        except OSError:  # it is gone, or the file system has no links
            return False
        return True

    def _path(self, identity: str, digest: str) -> Path:
        return self._folder / f"{identity}.{digest}.image"

    def _files(self) -> Iterator[tuple[Path, str, str]]:
        for path in self._folder.glob("resp_*.image"):
            if match := _NAME.fullmatch(path.name):
                yield path, match["identity"], match["digest"]
