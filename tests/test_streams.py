"""Sources and readers at their edges; what every adapter shares is in test_contract."""

import gc
import gzip
import hashlib
import io
import mmap
import os
import random
import shutil
import tempfile

import pytest
from conftest import BYTES
from django.core.files.base import File
from django.core.files.uploadedfile import TemporaryUploadedFile
from django.http import FileResponse

from storage import ContentMismatch, MemoryStorageAdapter, ObjectReader, StorageError
from storage.streams import CHUNK, Meter, check_source

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
        assert reader.size == 5 and reader.readlines() == [b"two\nt"]
        assert reader.sha256 == final.sha256


def test_chunks_not_lines(memory):
    with memory.get_final_stream(memory.put_final("a", b"\n" * (CHUNK + 1))) as reader:
        assert [len(chunk) for chunk in reader] == [CHUNK, 1]


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
