"""HTTP/2 over cleartext, by hand: frames that no well-behaved client would send."""

import contextlib
import socket
import struct

DATA, HEADERS, RST_STREAM, SETTINGS = 0, 1, 3, 4
END_STREAM, END_HEADERS = 1, 4
STREAM = 1


class Http2Connection:
    """One connection with one request on it."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(SETTINGS, 0, 0))

    def send_headers(self, headers: dict[str, str]) -> None:
        # HPACK: literals that are not indexed, their names spelled out.
        block = b"".join(b"\0" + _encode(name) + _encode(value) for name, value in headers.items())
        self.socket.sendall(_frame(HEADERS, END_HEADERS, STREAM, block))

    def send_data(self, data: bytes, *, end: bool = False) -> None:
        """Sends at most 64 kB in all: HAProxy's window at first."""
        pieces = [data[at : at + 16000] for at in range(0, len(data), 16000)] or [b""]
        for number, piece in enumerate(pieces, 1):
            flags = END_STREAM if end and number == len(pieces) else 0
            self.socket.sendall(_frame(DATA, flags, STREAM, piece))

    def reset(self) -> None:
        self.socket.sendall(_frame(RST_STREAM, 0, STREAM, struct.pack(">I", 8)))

    def read_status(self) -> int | None:
        """The response's status; None if HAProxy resets the stream or closes the connection."""
        while header := self._read(9):
            size, kind = int.from_bytes(header[:3]), header[3]
            payload = self._read(size)
            if kind == HEADERS:
                # Indexed 8 to 14, or a literal of name 8: HAProxy's encoder knows no other form.
                known = {0x88: 200, 0x8C: 400, 0x8D: 404, 0x8E: 500}
                return known.get(payload[0]) or int(payload[2:5])
            if kind == RST_STREAM:
                return None
        return None

    def _read(self, size: int) -> bytes:
        data = b""
        try:
            while len(data) < size and (more := self.socket.recv(size - len(data))):
                data += more
        except ConnectionError:
            return b""
        return data

    def close(self) -> None:
        self.socket.close()


def upload_http2(
    port: int, path: str, body: bytes, ending: str = "end", **headers: str
) -> int | None:
    """Declare 2 GB, send this as the beginning of a body, and end after the answer.

    No server takes 2 GB, so that it answers before the body has ended.

    Args:
        ending: ``end`` of the stream, as ``curl --http2-prior-knowledge`` does; ``reset`` of it;
            or ``close`` of the connection.
    """
    with contextlib.closing(Http2Connection(port)) as connection:
        connection.send_headers(
            {":method": "POST", ":path": path, ":scheme": "http", ":authority": "x"}
            | {"content-length": "2000000000"}
            | headers
        )
        connection.send_data(body)
        status = connection.read_status()
        with contextlib.suppress(ConnectionError):
            if ending == "end":
                connection.send_data(b"", end=True)
            elif ending == "reset":
                connection.reset()
        return status


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _encode(text: str) -> bytes:
    data = text.encode()
    assert len(data) < 127
    return bytes([len(data)]) + data
