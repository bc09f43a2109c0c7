"""A TCP proxy on the loopback interface that tests can cut."""

import contextlib
import select
import socket
import threading


class Proxy:
    """Forwards connections to a port until it is cut.

    While it is cut nothing passes and nothing is refused, as if packets were
    lost. `restore` closes the connections from before the cut.
    """

    def __init__(self, port: int, *, host: str = "127.0.0.1") -> None:
        self._target = port
        self._listener = socket.create_server((host, 0))
        self.url = f"{host}:{self._listener.getsockname()[1]}"
        self._connected = threading.Event()
        self._connected.set()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._connected.clear()

    def restore(self) -> None:
        pairs, self._pairs = self._pairs, []
        for connection in (connection for pair in pairs for connection in pair):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._connected.set()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.restore()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        self._connected.wait()
        with client, contextlib.suppress(OSError):
            server = socket.create_connection(("127.0.0.1", self._target))
            self._pairs.append((client, server))
            with server:
                self._forward(client, server)

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        peers = {client: server, server: client}
        while True:
            ready, _, _ = select.select([client, server], [], [])
            self._connected.wait()
            for source in ready:
                data = source.recv(1 << 16)
                if not data:
                    return
                peers[source].sendall(data)
