"""Messages between two machines of a group, over TCP, once each has shown that it knows the group's key."""

import hmac
import secrets
import socket
import struct
import threading
from contextlib import suppress

import msgspec

from app.services.engine.group.messages import Message

_LENGTH = struct.Struct("!I")
_LARGEST = 16 * 2**20  # bytes of a message
_CHALLENGE = 32  # bytes


class ChannelLost(ConnectionError):
    """The other side is gone, silent, or says what it should not; the message says which."""


class Channel:
    """Any thread may send; one receives. A message that does not come or go within `silence` seconds ends it."""

    def __init__(self, connection: socket.socket, key: bytes, *, is_leader: bool, silence: float) -> None:
        """Raise ChannelLost where the other side does not know the key."""
        self._connection = connection
        self._sending = threading.Lock()
        self._encoder, self._decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(Message)
        connection.settimeout(silence)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._authenticate(key, is_leader=is_leader)
        except BaseException:
            self.close()
            raise

    @property
    def silence(self) -> float:
        """Seconds after which it ends if nothing comes or goes."""
        return self._connection.gettimeout() or 0.0

    @silence.setter
    def silence(self, seconds: float) -> None:
        self._connection.settimeout(seconds)

    def send(self, message: Message) -> None:
        """Send a message. Raises ChannelLost."""
        data = self._encoder.encode(message)
        try:
            with self._sending:
                self._connection.sendall(_LENGTH.pack(len(data)) + data)
        except TimeoutError:
            raise ChannelLost("it takes nothing") from None
        except OSError as error:
            raise ChannelLost(f"connection lost ({error.strerror or error})") from None

    def receive(self) -> Message:
        """Wait for the next message. Raises ChannelLost."""
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
        if length > _LARGEST:
            raise ChannelLost("it says too much")
        try:
            message: Message = self._decoder.decode(self._read(length))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise ChannelLost("it says what cannot be understood") from None
        return message

    def close(self) -> None:
        """Close it, whoever waits in it."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def _authenticate(self, key: bytes, *, is_leader: bool) -> None:
        own = secrets.token_bytes(_CHALLENGE)
        self._write(own)
        other = self._read(_CHALLENGE)
        sides = (b"leader", own, other), (b"worker", other, own)
        mine, theirs = sides if is_leader else ((b"worker", own, other), (b"leader", other, own))
        self._write(_proof(key, *mine))
        if not hmac.compare_digest(self._read(_CHALLENGE), _proof(key, *theirs)):
            raise ChannelLost("it does not know the key of this group")

    def _write(self, data: bytes) -> None:
        try:
            self._connection.sendall(data)
        except OSError as error:
            raise ChannelLost(f"connection lost ({error.strerror or error})") from None

    def _read(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            try:
                part = self._connection.recv(min(length - len(data), 2**20))
            except TimeoutError:
                raise ChannelLost(f"silent for {self.silence:g} s") from None
            except OSError as error:
                raise ChannelLost(f"connection lost ({error.strerror or error})") from None
            if not part:
                raise ChannelLost("connection lost")
            data += part
        return bytes(data)


def _proof(key: bytes, side: bytes, own: bytes, other: bytes) -> bytes:
    return hmac.digest(key, side + own + other, "sha256")
