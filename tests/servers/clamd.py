"""A small clamd: speaks INSTREAM over TCP as the real one does, and knows one virus, the test string of EICAR."""

import contextlib
import socket
import struct
import threading

EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
"""Scanners take it for a virus by agreement; it does nothing."""


class Clamd:
    """Listens on ``address`` while it is entered. ``scanned`` has the sizes of streams, ``largest`` that of a piece."""

    def __init__(self, limit=25 * 1024 * 1024):
        self.limit = limit  # as StreamMaxLength, in bytes
        self.scanned, self.largest = [], 0

    def __enter__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(ConnectionError), connection.makefile("rb") as stream:
                self._serve(connection, stream)

    def _serve(self, connection, stream):
        command, end = stream.read(1), b"\n"
        if command == b"z":  # else it ends with a newline
            end, command = b"\0", b""
        while not command.endswith(end):
            if not (byte := stream.read(1)):
                return
            command += byte
        answer = self._scan(stream) if command.lstrip(b"n")[:-1] == b"INSTREAM" else b"UNKNOWN COMMAND"
        connection.sendall(answer + end)

    def _scan(self, stream):
        size, tail, found = 0, b"", False
        while True:
            (length,) = struct.unpack("!L", stream.read(4))
            if not length:
                self.scanned.append(size)
                return b"stream: Eicar-Test-Signature FOUND" if found else b"stream: OK"
            if size + length > self.limit:
                return b"INSTREAM size limit exceeded. ERROR"
            piece = stream.read(length)
            if len(piece) < length:
                return b"INSTREAM: Can't read. ERROR"
            size, self.largest = size + length, max(self.largest, length)
            found = found or EICAR in tail + piece
            tail = (tail + piece)[-len(EICAR) :]
