"""Sources and readers at their edges; what every adapter shares is in test_contract."""

import gc
import hashlib
import io
import mmap
import shutil
import tempfile

import pytest
from conftest import BYTES
from django.core.files.base import File
from django.http import FileResponse

from storage import MemoryStorageAdapter, ObjectReader, StorageError
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
