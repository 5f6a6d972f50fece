"""Sources and readers at their edges; what every adapter shares is in test_contract."""

import copy
import gc
import gzip
import hashlib
import http.client
import io
import mmap
import os
import pickle
import random
import shutil
import socket
import tempfile

import pytest
from conftest import BYTES
from django.core.files.base import File
from django.core.files.uploadedfile import SimpleUploadedFile, TemporaryUploadedFile, UploadedFile
from django.core.handlers.asgi import ASGIRequest
from django.http import FileResponse, HttpRequest, StreamingHttpResponse
from django.test import RequestFactory

from storage import ContentMismatch, MemoryStorageAdapter, ObjectNotFound, ObjectReader, StorageError
from storage.streams import CHUNK, Meter, check_source, known_length

DATA = BYTES[: 3 * CHUNK + 17]


@pytest.fixture
def memory():
    adapter = MemoryStorageAdapter()
    yield adapter
    adapter.close()


@pytest.fixture
def reader(memory):
    with memory.get_final_stream(memory.put_final("a/b.bin", DATA)) as reader:
        yield reader


class AsyncOnly:
    def __aiter__(self):
        return self


async def asynchronous():
    yield b"x"


REFUSED = {
    "str": "text",
    "text file": io.StringIO("text"),
    "None": None,
    "int": 5,
    "dict": {b"a": b"b"},
    "async generator": asynchronous(),
    "async iterable": AsyncOnly(),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_anything_is_started(name):
    with pytest.raises(TypeError) as caught:
        check_source(REFUSED[name])
    assert ("async" in str(caught.value)) == name.startswith("async")


class Answers:
    """A source whose next answers are given."""

    def __init__(self, method, *answers):
        self.answers = list(answers)
        setattr(self, method, lambda *_: self.answers.pop(0))


@pytest.mark.parametrize("method", ["read", "readinto"])
def test_none_is_no_end(memory, method):
    with pytest.raises(StorageError) as caught:
        memory.put_final("a", Answers(method, None))
    assert (caught.value.code, caught.value.retryable) == ("source", True)


@pytest.mark.parametrize("count", [-1, CHUNK + 1, 1 << 62])
def test_readinto_out_of_range(memory, count):
    with pytest.raises(ValueError):
        memory.put_final("a", Answers("readinto", 5, count))


@pytest.mark.parametrize("pieces", [[b"ab", b""], [bytearray(b"a"), memoryview(b"b"), memoryview(b"")]])
def test_read_ends_with_an_empty_piece(memory, pieces):
    assert memory.put_final("a", Answers("read", *pieces)).size == 2


def test_a_read_longer_than_asked(memory):
    final = memory.put_final("a", Answers("read", DATA, b""))
    assert final.sha256 == hashlib.sha256(DATA).hexdigest()


def test_a_stop_iteration_of_the_source_is_no_end(memory):
    error = StopIteration()

    class Source:
        def read(self, n):
            raise error

    with pytest.raises(StopIteration) as caught:
        memory.put_final("a", Source())
    assert caught.value is error


def test_buffers_are_free_afterwards(memory):
    """No export is left: a bytearray can be resized, a mapping closed."""
    data = bytearray(DATA)
    memory.put_final("a", data)
    data.append(1)
    with pytest.raises(ValueError):
        memory.put_final("a", [data, memoryview(data)], size=len(data) + 1)
    data.clear()
    with mmap.mmap(-1, CHUNK) as mapping:
        assert memory.put_final("a", mapping).size == CHUNK
    target = bytearray(10)
    with memory.get_final_stream("memory", "a") as reader:
        reader.readinto(target)
    target.append(1)


def test_meter_tells_the_final_figure_once():
    for done in ([], [0], [5], [5, 9]):
        told = []
        meter = Meter(lambda *args, told=told: told.append(args), 9)
        for n in done:
            meter(n)
        meter.final(9)
        assert told[-1] == (9, 9) and told.count((9, 9)) == 1


def test_reader_describes_itself(reader):
    assert isinstance(reader, io.BufferedReader)
    assert (reader.name, reader.size) == ("a/b.bin", len(DATA))
    assert reader.sha256 == hashlib.sha256(DATA).hexdigest()
    assert "a/b.bin" in repr(reader)


def test_reader_as_others_use_it(reader):
    target = io.BytesIO()
    shutil.copyfileobj(reader, target)
    assert target.getvalue() == DATA
    assert reader.seek(0, io.SEEK_END) == len(DATA)
    reader.seek(0)
    assert hashlib.file_digest(reader, "sha256").hexdigest() == reader.sha256
    reader.seek(0)
    assert b"".join(File(reader, name="b.bin").chunks()) == DATA
    reader.seek(0)
    with tempfile.TemporaryFile() as file:
        shutil.copyfileobj(reader, file)
        assert file.tell() == len(DATA)


def test_reader_in_a_response(memory):
    from django.test import override_settings

    final = memory.put_final("b.bin", DATA)
    with override_settings(ROOT_URLCONF="portal.urls"):
        stream = memory.get_final_stream(final)
        response = FileResponse(stream, filename="b.bin")
        assert b"".join(response.streaming_content) == DATA
        response.close()
        assert stream.closed


def test_lines_and_peeks(memory):
    final = memory.put_final("a", b"one\ntwo\nthree")
    with memory.get_final_stream(final) as reader:
        assert reader.peek(1)[:3] == b"one" and reader.tell() == 0
        assert (reader.readline(), reader.readline()) == (b"one\n", b"two\n")
        assert io.TextIOWrapper(reader).read() == "three"
    with memory.get_final_stream(final, start=4, length=5) as reader:
        assert reader.size == 5 and reader.readlines() == [b"two\n", b"t"]
        assert reader.sha256 == final.sha256


def test_lines_and_chunks(memory):
    for data in (b"one\ntwo\n\nlast", b"\n" * (CHUNK + 1)):
        final = memory.put_final("a", data)
        with memory.get_final_stream(final) as reader:
            assert list(reader) == io.BytesIO(data).readlines()
            assert list(reader) == list(reader.chunks()) == []
        with memory.get_final_stream(final) as reader:
            assert next(reader) == io.BytesIO(data).readline()
            assert b"".join(reader.chunks(3)) == data.partition(b"\n")[2]
    with memory.get_final_stream(final) as reader:
        assert [len(chunk) for chunk in reader.chunks()] == [CHUNK, 1]
        reader.seek(0)
        assert [len(chunk) for chunk in reader.chunks(CHUNK - 1)] == [CHUNK - 1, 2]
        for bad, error in ((0, ValueError), (-1, ValueError), (None, TypeError), (True, TypeError), (2.0, TypeError)):
            with pytest.raises(error):
                reader.chunks(bad)


def test_closing_the_chunks_closes_the_stream(memory):
    """Django closes what a StreamingHttpResponse was given, also if nobody has asked for a piece."""
    reader = memory.get_final_stream(memory.put_final("a", DATA))
    response = StreamingHttpResponse(reader.chunks())
    assert next(iter(response)) == DATA[:CHUNK]
    response.close()
    assert reader.closed


def test_closing(memory):
    reader = memory.get_final_stream(memory.put_final("a", DATA))
    reader.close()
    reader.close()
    for call in (reader.read, reader.tell, lambda: reader.seek(0), reader.__enter__):
        with pytest.raises(ValueError):
            call()


def test_a_reader_keeps_its_adapter():
    adapter = MemoryStorageAdapter()
    reader = adapter.get_final_stream(adapter.put_final("a", DATA))
    del adapter
    gc.collect()
    assert isinstance(reader, ObjectReader) and reader.read() == DATA


def test_a_reader_of_a_closed_adapter(memory):
    reader = memory.get_final_stream(memory.put_final("a", DATA))
    memory.close()
    with pytest.raises(StorageError) as caught:
        reader.read()
    assert caught.value.code == "closed"
    reader.close()


# ---- plain files, which the Go side reads by their descriptor


FILE = random.Random(7).randbytes(700_001)


class Upper(io.FileIO):
    """Gives other bytes than its descriptor has."""

    def readinto(self, buffer):
        count = super().readinto(buffer)
        buffer[:count] = bytes(buffer[:count]).upper()
        return count

    def read(self, size=-1):
        return super().read(size).upper()

    def readall(self):
        return super().readall().upper()


def written_to(path):
    file = path.open("r+b")
    file.seek(5)
    file.write(b"written just now, not flushed")
    return file


def temporary(make):
    def opened(path):
        file = make()
        file.write(path.read_bytes())
        file.seek(0)
        return file

    return opened


FILES = {
    "buffered": lambda path: path.open("rb"),
    "raw": lambda path: path.open("rb", buffering=0),
    "to be updated": lambda path: path.open("r+b"),
    "with unwritten bytes": written_to,
    "of Django": lambda path: File(path.open("rb")),
    "of Django twice": lambda path: File(File(path.open("rb"))),
    "uploaded": temporary(lambda: TemporaryUploadedFile("a", "text/plain", None, None)),
    "temporary": temporary(tempfile.NamedTemporaryFile),
    "without a name": temporary(tempfile.TemporaryFile),
    "spooled": temporary(lambda: tempfile.SpooledTemporaryFile(1000)),  # noqa: SIM115 - the test closes it
    "with other bytes": lambda path: Upper(path),
    "buffered, with other bytes": lambda path: io.BufferedReader(Upper(path)),
    "unzipped": lambda path: gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(path.read_bytes()))),
}


@pytest.mark.parametrize("read", [0, 3, 10_000, 400_000, len(FILE)])
@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_from_where_it_stands(memory, tmp_path, name, read):
    path = tmp_path / "file"
    path.write_bytes(FILE)
    with FILES[name](path) as same, FILES[name](path) as file:
        if name == "with unwritten bytes":
            same.seek(0)
            file.seek(0)
        expected = same.read()
        start = file.read(read)
        final = memory.put_final("a", file)
        assert not file.closed and file.tell() == len(FILE) and not file.read(1)
    with memory.get_final_stream(*final) as reader:
        assert start + reader.read() == expected
    assert (final.size, final.sha256) == (len(expected) - read, hashlib.sha256(expected[read:]).hexdigest())


def test_a_file_that_cannot_be_read_says_why_itself(memory, tmp_path):
    with (tmp_path / "new").open("wb") as file, pytest.raises(io.UnsupportedOperation):
        memory.put_final("a", file)
    file = (tmp_path / "new").open("rb")
    file.close()
    with pytest.raises(ValueError, match="closed"):
        memory.put_final("a", file)


def test_a_file_longer_than_expected(memory, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(FILE)
    with path.open("rb") as file, pytest.raises(ContentMismatch):
        memory.put_final("a", file, size=len(FILE) - 1)
    with path.open("rb") as file:
        assert memory.put_final("a", file, size=len(FILE)).size == len(FILE)


def test_a_pipe_is_read_as_it_comes(memory):
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as source, os.fdopen(writing, "wb") as sink:
        sink.write(b"abc")
        sink.close()
        assert memory.put_final("a", source).size == 3


# ---- sources that know how long they are


class Reads:
    """Has only `read`, as the bodies of requests have."""

    def __init__(self, data):
        self._bytes = io.BytesIO(data)
        self.read = self._bytes.read
        self.readline = self._bytes.readline
        self.close = self._bytes.close


def wsgi(data, **environ):
    return RequestFactory().generic("PUT", "/", data, **environ)


def cut(request, left):
    """The same request, of whose body only `left` bytes arrive."""
    body = request.environ["wsgi.input"].read(left)
    return type(request)(request.environ | {"wsgi.input": Reads(body)})


def asgi(data, length):
    headers = [] if length is None else [(b"content-length", str(length).encode())]
    scope = {"type": "http", "method": "PUT", "path": "/", "query_string": b"", "headers": headers}
    return ASGIRequest(scope, io.BytesIO(data))


class Wrapped:
    """As Django REST framework wraps a request."""

    def __init__(self, request):
        self._request = request

    def __getattr__(self, name):
        return getattr(self._request, name)


def accessed(request):
    assert request.body
    return request


def answered(data, length):
    """The answer to a request, as `urlopen` gives it too."""
    here, there = socket.socketpair()
    with there:
        there.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length + data)
    response = http.client.HTTPResponse(here)
    here.close()
    response.begin()
    return response


def sized(stream, size):
    file = File(stream, name="a")
    file.size = size
    return file


class KnowsItsSize(File):
    size = 100


# Each gives 50 bytes, of 100 that it tells of.
CUT = {
    "WSGI": lambda data: cut(wsgi(data * 2), 50),
    "WSGI, wrapped": lambda data: Wrapped(cut(wsgi(data * 2), 50)),
    "WSGI, body accessed": lambda data: accessed(cut(wsgi(data * 2), 50)),
    "ASGI": lambda data: asgi(data, 100),
    "ASGI, body accessed": lambda data: accessed(asgi(data, 100)),
    "answer": lambda data: answered(data, 100),
    "answer in a file": lambda data: File(answered(data, 100), name="a"),
    "answer in two files": lambda data: UploadedFile(File(answered(data, 100), name="a"), "a"),
    "answer, buffered": lambda data: io.BufferedReader(answered(data, 100)),
    "answer, buffered, in a file": lambda data: File(io.BufferedReader(answered(data, 100)), name="a"),
    "file": lambda data: sized(Reads(data), 100),
    "file of a class": lambda data: KnowsItsSize(io.BytesIO(data), name="a"),
    "uploaded": lambda data: UploadedFile(io.BytesIO(data), "a", size=100),
    "uploaded, only read": lambda data: UploadedFile(Reads(data), "a", size=100),
    "file in a file": lambda data: UploadedFile(File(io.BytesIO(data), name="a"), "a", size=100),
}
# They do not tell where they stand: at their start, it is thought, or no size is known.
MUTE = ("file", "uploaded, only read", "answer, buffered", "answer, buffered, in a file")
WHOLE = {
    "WSGI": lambda data: wsgi(data),
    "WSGI, wrapped": lambda data: Wrapped(wsgi(data)),
    "WSGI, body accessed": lambda data: accessed(wsgi(data)),
    "ASGI": lambda data: asgi(data, 50),
    "ASGI, chunked": lambda data: asgi(data, None),
    "ASGI, body accessed": lambda data: accessed(asgi(data, 50)),
    "answer": lambda data: answered(data, 50),
    "answer in a file": lambda data: File(answered(data, 50), name="a"),
    "answer, buffered": lambda data: io.BufferedReader(answered(data, 50)),
    "answer, buffered by little": lambda data: io.BufferedReader(answered(data, 50), 10),
    "file": lambda data: sized(io.BytesIO(data), 50),
    "longer than its size": lambda data: sized(io.BytesIO(data), 49),
    "of no size": lambda data: File(Reads(data), name="a"),
    "uploaded": lambda data: UploadedFile(io.BytesIO(data), "a", size=50),
    "uploaded, simple": lambda data: SimpleUploadedFile("a", data),
}
FIFTY = b"0123456789" * 5


def close(source):
    if hasattr(source, "close"):
        source.close()


@pytest.mark.parametrize(
    ("name", "read"), [(name, read) for name in CUT for read in (0, 3) if name not in MUTE or not read]
)
def test_a_source_that_ends_early_is_never_stored(memory, name, read):
    source = CUT[name](FIFTY)
    assert len(source.read(read)) == read
    assert known_length(source) == 100 - read
    with pytest.raises(ContentMismatch) as caught:
        memory.put_final("a", source)
    assert (caught.value.op, caught.value.key) == ("put", "a")
    assert f"after {50 - read} of its {100 - read} bytes" in str(caught.value)
    with pytest.raises(ObjectNotFound):
        memory.stat_final("memory", "a")
    with pytest.raises(ContentMismatch):
        memory.put_temp_part("s", 1, CUT[name](FIFTY), size=100)
    assert memory.list_temp_parts("s") == []
    close(source)


@pytest.mark.parametrize("read", [0, 3])
@pytest.mark.parametrize("name", WHOLE)
def test_a_source_that_gives_what_it_says(memory, name, read):
    source = WHOLE[name](FIFTY)
    assert len(source.read(read)) == read
    final = memory.put_final("a", source)
    assert final.sha256 == hashlib.sha256(FIFTY[read:]).hexdigest()
    close(source)


def test_a_body_that_wsgi_does_not_give(memory):
    chunked = {"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": ""}
    for environ in (chunked, chunked | {"CONTENT_LENGTH": "0"}, {"CONTENT_LENGTH": "abc"}, {"CONTENT_LENGTH": "-5"}):
        for source in (wsgi(b"x", **environ), Wrapped(wsgi(b"x", **environ))):
            with pytest.raises(StorageError) as caught:
                memory.put_final("a", source)
            assert caught.value.code == "no_length" and "Content-Length" in str(caught.value)
    for environ in ({}, {"CONTENT_LENGTH": "0"}, {"CONTENT_LENGTH": ""}):
        assert memory.put_final("a", wsgi(b"", **environ)).size == 0
    assert memory.put_final("a", asgi(b"", None)).size == memory.put_final("a", asgi(b"", 0)).size == 0
    given = wsgi(b"", **chunked)
    given._stream = io.BytesIO(FIFTY)  # a middleware has put in what the server gives
    assert memory.put_final("a", given).size == 50
    accessed = wsgi(b"x", **chunked)
    assert accessed.body == b""
    with pytest.raises(StorageError):
        memory.put_final("a", accessed)
    bare = HttpRequest()
    bare._stream = io.BytesIO(FIFTY)
    assert memory.put_final("a", bare).size == 50


def test_a_body_that_was_parsed(memory):
    request = RequestFactory().post("/", {"file": SimpleUploadedFile("a", FIFTY)})
    assert request.FILES["file"].size == 50
    with pytest.raises(StorageError) as caught:
        memory.put_final("a", request)
    assert caught.value.code == "source" and "request.FILES" in str(caught.value)
    assert memory.put_final("a", request.FILES["file"]).size == 50


@pytest.mark.parametrize("buffering", [-1, 0])
def test_a_file_that_shrinks_while_it_is_read(memory, tmp_path, buffering):
    path = tmp_path / "file"
    path.write_bytes(FILE)
    with path.open("rb", buffering=buffering) as file, pytest.raises(ContentMismatch):
        memory.put_final("a", file, progress=lambda *_: os.truncate(path, 300_000))
    path.write_bytes(FILE)
    with path.open("rb", buffering=buffering) as file:
        assert memory.put_final("a", file).size == len(FILE)


# ---- memory that was lent to a source


def test_a_source_cannot_take_the_memory_away(memory):
    """It may let go of the view that it was given: what is below stays."""

    class Shrinking:
        tried = 0

        def readinto(self, view):
            view[:10] = b"0123456789"
            buffer = view.obj
            view.release()
            for shrink in (
                buffer.clear,
                lambda: buffer.extend(bytes(1 << 20)),
                lambda: buffer.__delitem__(slice(None)),
            ):
                with pytest.raises(BufferError):
                    shrink()
                Shrinking.tried += 1
            return 10

    with pytest.raises(ValueError, match="released"):
        memory.put_final("a", Shrinking())
    assert Shrinking.tried == 3


def test_a_bytearray_keeps_its_size_while_it_is_stored(memory):
    data = bytearray(FILE)
    refused = []

    def progress(*_):
        try:
            data.clear()
        except BufferError as error:
            refused.append(error)

    memory.put_final("a", [data], progress=progress)
    assert refused or not data
    memory.put_final("b", bytearray(FILE))


# ---- readers


def test_readers_are_not_copied(reader):
    for refused in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            refused(reader)


@pytest.mark.parametrize("size", [100, 300_000])
def test_what_is_expected_of_a_read(memory, size):
    final = memory.put_final("a", FILE)
    other = hashlib.sha256(b"").hexdigest()
    for wrong in ({"size": len(FILE) + 1}, {"size": 0}, {"sha256": other}):
        for ranged in ({}, {"start": 5, "length": 9}):
            for value in (final, (final.bucket, final.key)):
                named = value if isinstance(value, tuple) else (value,)
                with pytest.raises(ContentMismatch):
                    memory.get_final_stream(*named, **wrong, **ranged)
    with memory.get_final_stream(*final, size=len(FILE), sha256=final.sha256.upper(), start=3, length=size) as stream:
        assert stream.read() == FILE[3 : 3 + size]
