"""A line between client and server that a test can cut at the worst moment."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from simpleworkflow.dburl import parse


class Line:
    """A TCP proxy in front of the server of ``url``; ``url`` of the line leads through it."""

    def __init__(self, url: str) -> None:
        place = parse(url)
        words = conninfo_to_dict(place.conninfo)
        self._server = (str(words["host"]), int(words.get("port") or 5432))
        self._listener = socket.create_server(("127.0.0.1", 0))
        host, port = self._listener.getsockname()
        through = parse(make_conninfo(place.conninfo, host=host, port=port, sslmode="disable"))
        self.url = f"{through.conninfo}&schema={place.schema}"
        self._is_down = threading.Event()
        self._carried: list[socket.socket] = []
        self._is_swallowing = threading.Event()
        self.swallowed = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def swallow_next_answer(self) -> None:
        """Let the next query pass, and cut the line when the server has answered it."""
        self._is_swallowing.set()

    @contextmanager
    def down(self, *, seconds: float) -> Iterator[None]:
        """Cut the line, and refuse to connect for so long, while the block goes on."""
        self._is_down.set()
        while self._carried:
            with suppress(OSError):
                self._carried.pop().shutdown(socket.SHUT_RDWR)
        up_again = threading.Timer(seconds, self._is_down.clear)
        up_again.start()
        yield
        up_again.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._is_down.is_set():
                near.close()
                continue
            far = socket.create_connection(self._server)
            self._carried += [near, far]
            for source, target, is_answer in ((near, far, False), (far, near, True)):
                threading.Thread(target=self._carry, args=(source, target, is_answer), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if is_answer and self._is_swallowing.is_set():
                    self._is_swallowing.clear()
                    self.swallowed.set()
                    break
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
