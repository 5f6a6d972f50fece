"""The contract: what every adapter promises, in one suite."""

import array
import dataclasses
import gzip
import io
import itertools
import json
import os
import random
import signal
import ssl
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest
from conftest import BYTES, CONTRACT, FULL, not_on
from django.core.exceptions import ImproperlyConfigured
from django.core.files.base import ContentFile, File
from django.core.files.uploadedfile import SimpleUploadedFile, TemporaryUploadedFile
from django.test import RequestFactory
from servers import Endpoint

from storage import (
    Assembled,
    ContentMismatch,
    FinalObject,
    InvalidKey,
    ObjectExists,
    ObjectNotFound,
    StorageCancelled,
    StorageError,
    TempPart,
    native,
)
from storage import adapter as storage_adapter

KiB, MiB = 1024, 1024 * 1024
DATA = BYTES[: 700 * KiB + 3]
# Many requests or bytes: moto takes seconds for them, and s3-bare is versitygw once more.
MANY = not_on("s3-moto", "s3-bare")
# What is done before bytes go to a store, or with those that came from it: the same with each store of a kind.
ON_ONE_OF_A_KIND = not_on(*(() if FULL else ("local-fast", "s3-minio", "s3-moto", "s3-bare")))


def digest(data):
    return sha256(data).hexdigest()


def listed(adapter, session, stored):
    """What is listed is what was stored, but for digests that a store need not know in a listing."""
    found = adapter.list_temp_parts(session)
    unknown = [None] * len(stored) if adapter.backend == "s3" else [part.sha256 for part in stored]
    assert [part.sha256 for part in found] == unknown
    return [(part.key, part.part_number, part.size) for part in found] == [
        (part.key, part.part_number, part.size) for part in stored
    ]


def read_final(adapter, final):
    with adapter.get_final_stream(final.bucket, final.key) as reader:
        return reader.read()


def read_part(adapter, part):
    with adapter.get_temp_part_stream(part) as reader:
        return reader.read()


class Reads:
    """Only read(n), at most `step` bytes a call. Everything else on it is forbidden."""

    def __init__(self, data, step=None):
        self.data, self.step, self.at = data, step or len(data) or 1, 0

    def read(self, n=-1):
        assert n > 0, "a source is never read whole"
        piece = self.data[self.at : self.at + min(n, self.step)]
        self.at += len(piece)
        return piece

    def forbidden(self, *args):
        raise AssertionError("the stream is the caller's")

    seek = tell = close = __iter__ = forbidden


class ReadsInto(Reads):
    def readinto(self, buffer):
        piece = Reads.read(self, len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def read(self, n=-1):
        raise AssertionError("readinto comes first")


class Wicked(Reads):
    """Good for 3 MiB, then does what it was given: raises or returns it."""

    def __init__(self, act):
        super().__init__(BYTES[: 3 * MiB])
        self.act = act

    def read(self, n=-1):
        if piece := super().read(n):
            return piece
        if isinstance(self.act, BaseException):
            raise self.act
        act, self.act = self.act, b""
        return act


def pieces(data):
    half = len(data) // 2
    yield b""
    yield data[:half]
    yield bytearray()
    yield bytearray(data[half : half + 10])
    yield memoryview(data)[half + 10 :]


def odd_views(data):
    """Views whose len() is not their number of bytes, or whose bytes do not lie side by side."""
    whole = len(data) // 8 * 4
    yield memoryview(array.array("I", data[:whole]))
    yield memoryview(bytes(b for byte in data[whole:] for b in (byte, 0)))[::2]


def on_disk(data, tmp_path, **options):
    (tmp_path / "source").write_bytes(data)
    return open(tmp_path / "source", "rb", **options)


def zipped(data, tmp_path):
    (tmp_path / "source.gz").write_bytes(gzip.compress(data, 1))
    return gzip.open(tmp_path / "source.gz")


def piped(data, tmp_path):
    reader, writer = os.pipe()

    def feed():
        with open(writer, "wb") as pipe:
            pipe.write(data)

    threading.Thread(target=feed).start()
    return open(reader, "rb")


def temporary(data, tmp_path):
    upload = TemporaryUploadedFile("a.bin", "text/plain", len(data), None)
    upload.write(data)
    upload.file.seek(0)
    return upload


def request(data, tmp_path):
    return RequestFactory().put("/", data, content_type="application/octet-stream")


GOOD = {
    "bytes": lambda data, _: data,
    "bytearray": lambda data, _: bytearray(data),
    "memoryview": lambda data, _: memoryview(data),
    "BytesIO": lambda data, _: io.BytesIO(data),
    "reads": lambda data, _: Reads(data),
    "reads by one": lambda data, _: Reads(data, 1),
    "reads by 4097": lambda data, _: Reads(data, 4097),
    "readinto by one": lambda data, _: ReadsInto(data, 1),
    "readinto by 65537": lambda data, _: ReadsInto(data, 65537),
    "generator": lambda data, _: pieces(data),
    "odd views": lambda data, _: odd_views(data),
    "list": lambda data, _: [data[:5], b"", data[5:]],
    "file": on_disk,
    "raw file": lambda data, tmp: on_disk(data, tmp, buffering=0),
    "gzip": zipped,
    "pipe": piped,
    "request": request,
    "uploaded": lambda data, _: SimpleUploadedFile("a.bin", data),
    "uploaded to disk": temporary,
    "ContentFile": lambda data, _: ContentFile(data),
    "Django file": lambda data, tmp: File(on_disk(data, tmp)),
}


def pieces_that_nobody_keeps():
    """So many blocks, each of new memory that is free, and full of something else, once the next is asked for."""
    for number in range(48):
        yield random.Random(number).randbytes(256 * KiB)
        for _ in range(4):
            bytearray(256 * KiB)[:] = b"\xff" * (256 * KiB)


class ReadsWhatNobodyKeeps:
    def __init__(self):
        self.pieces = pieces_that_nobody_keeps()

    def read(self, n=-1):
        return next(self.pieces, b"")


@ON_ONE_OF_A_KIND
@pytest.mark.parametrize("source", [pieces_that_nobody_keeps, ReadsWhatNobodyKeeps])
def test_bytes_that_nobody_keeps(adapter, source):
    """Whole blocks are used where they are, and have to stay there as long as that takes."""
    whole = sha256()
    for piece in pieces_that_nobody_keeps():
        whole.update(piece)
    final = adapter.put_final("a", source())
    assert final.sha256 == whole.hexdigest()
    with adapter.get_final_stream(final) as reader:
        assert sha256(reader.read()).hexdigest() == whole.hexdigest()


def test_large_bytes(adapter):
    """Bytes in one piece, with what is no whole block at their end, and before others."""
    data = BYTES[: 3 * MiB + 5]
    whole = adapter.put_final("a", data)
    assert whole.sha256 == digest(data) and read_final(adapter, whole) == data
    pieces = [data[:100], data[100 : 2 * MiB], data[2 * MiB :]]
    joined = adapter.put_final("b", iter(pieces))
    assert joined.sha256 == digest(data) and read_final(adapter, joined) == data


@pytest.mark.parametrize("size", CONTRACT["sizes"])
def test_sizes(adapter, size):
    data = BYTES[:size]
    final = adapter.put_final(f"sizes/{size}", io.BytesIO(data), size=size, sha256=digest(data))
    assert (final.key, final.size, final.sha256) == (f"{adapter.prefix}sizes/{size}", size, digest(data))
    assert adapter.stat_final(*final) == final
    assert read_final(adapter, final) == data
    part = adapter.put_temp_part("s", 1, Reads(data))
    assert (part.part_number, part.size, part.sha256) == (1, size, digest(data))
    assert read_part(adapter, part) == data


@ON_ONE_OF_A_KIND
@pytest.mark.parametrize("name", GOOD)
def test_good_sources(adapter, name, tmp_path):
    source = GOOD[name](DATA, tmp_path)
    final = adapter.put_final("a", source)
    assert (final.size, final.sha256) == (len(DATA), digest(DATA))
    assert read_final(adapter, final) == DATA
    assert not getattr(source, "closed", False)
    if hasattr(source, "close") and not isinstance(source, Reads):
        source.close()


@ON_ONE_OF_A_KIND
@pytest.mark.parametrize("name", ["BytesIO", "file", "raw file", "gzip", "uploaded", "request"])
def test_source_is_read_from_where_it_stands(adapter, name, tmp_path):
    source = GOOD[name](DATA, tmp_path)
    assert source.read(3) == DATA[:3]
    final = adapter.put_final("a", source, size=len(DATA) - 3)
    assert final.sha256 == digest(DATA[3:])
    assert source.read(1) == b""
    source.close()


def boom(kind):
    return lambda: (Wicked(error := kind("mine")), {}, error)


def raising_generator():
    error = LookupError("mine")

    def generate():
        yield BYTES[: 3 * MiB]
        raise error

    return generate(), {}, error


def raising_progress():
    error = LookupError("mine")

    def progress(done, total):
        raise error

    return Reads(BYTES), {"progress": progress}, error


class Liar(ReadsInto):
    def readinto(self, buffer):
        return super().readinto(buffer) and len(buffer) + 1


# What each gives: the source, arguments, and the very exception or the class that must arrive.
BAD = {
    "raises": boom(OSError),
    "raises KeyboardInterrupt": boom(KeyboardInterrupt),
    "raises SystemExit": boom(SystemExit),
    "raises StopIteration": boom(StopIteration),
    "generator raises": raising_generator,
    "progress raises": raising_progress,
    "None": lambda: (Wicked(None), {}, StorageError),
    "gives str": lambda: (Wicked("text"), {}, (TypeError, StorageError)),
    "gives int": lambda: (Wicked(5), {}, (TypeError, StorageError)),
    "text file": lambda: (io.StringIO("text"), {}, (TypeError, StorageError)),
    "yields str": lambda: (iter([b"a", "b"]), {}, (TypeError, StorageError)),
    "yields int": lambda: ([1, 2, 3], {}, (TypeError, StorageError)),
    "yields None": lambda: (iter([b"a", None]), {}, (TypeError, StorageError)),
    "readinto lies": lambda: (Liar(DATA), {}, (ValueError, StorageError)),
    "str": lambda: ("text", {}, TypeError),
    "no stream": lambda: (None, {}, TypeError),
    "int": lambda: (7, {}, TypeError),
    "shorter": lambda: (Reads(DATA), {"size": len(DATA) + 1}, ContentMismatch),
    "longer": lambda: (Reads(DATA), {"size": len(DATA) - 1}, ContentMismatch),
    "endless": lambda: (iter(lambda: DATA, 0), {"size": len(DATA)}, ContentMismatch),
    "empty": lambda: (Reads(b""), {"size": 1}, ContentMismatch),
    "not empty": lambda: (Reads(b"x"), {"size": 0}, ContentMismatch),
    "wrong digest": lambda: (Reads(DATA), {"sha256": digest(b"")}, ContentMismatch),
    "no digest": lambda: (Reads(DATA), {"sha256": "xyz"}, ValueError),
    "negative size": lambda: (Reads(DATA), {"size": -1}, ValueError),
}


@ON_ONE_OF_A_KIND
@pytest.mark.parametrize("method", ["put_final", "put_temp_part"])
@pytest.mark.parametrize("previous", [False, True], ids=["nothing there", "one there"])
@pytest.mark.parametrize("name", BAD)
def test_bad_sources_leave_all_as_it_was(adapter, name, previous, method):
    where = ("a/b",) if method == "put_final" else ("a", 1)
    old = getattr(adapter, method)(*where, b"old") if previous else None
    source, kwargs, expected = BAD[name]()
    if isinstance(expected, BaseException):
        with pytest.raises(type(expected)) as caught:
            getattr(adapter, method)(*where, source, **kwargs)
        assert caught.value is expected
    else:
        with pytest.raises(expected) as caught:
            getattr(adapter, method)(*where, source, **kwargs)
        if name == "None":
            assert caught.value.code == "source"
    if method == "put_temp_part":
        assert listed(adapter, "a", ([old] if previous else []))
        if previous:
            assert read_part(adapter, old) == b"old"
    elif previous:
        assert read_final(adapter, old) == b"old"
    else:
        with pytest.raises(ObjectNotFound):
            adapter.stat_final(adapter.put_final("bucket", b"").bucket, f"{adapter.prefix}a/b")


@MANY
@pytest.mark.parametrize("method", ["put_final", "put_temp_part", "assemble"])
@pytest.mark.parametrize("same", [False, True], ids=["different", "identical"])
def test_sixteen_racing_writers(adapter, method, same):
    contents = [BYTES[:MiB] if same else BYTES[i : i + MiB + i] for i in range(16)]
    barrier = threading.Barrier(16)
    parts = [adapter.put_temp_part("source", i + 1, data) for i, data in enumerate(contents)]

    def write(i):
        barrier.wait()
        try:
            if method == "put_final":
                return adapter.put_final("a/b", Reads(contents[i], 65536), overwrite=False)
            if method == "assemble":
                return adapter.assemble("a/b", [parts[i]], overwrite=False)
            return adapter.put_temp_part("a", 1, Reads(contents[i], 65536), overwrite=False)
        except ObjectExists as error:
            assert error.code == "exists"
            return None

    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(write, range(16)))
    won = [i for i, result in enumerate(results) if result]
    read = read_part if method == "put_temp_part" else read_final
    assert len(won) == (16 if same else 1)
    assert read(adapter, results[won[0]]) == contents[won[0]]
    assert results[won[0]].sha256 == digest(contents[won[0]])


@MANY
def test_racing_overwrites_leave_one_whole(adapter):
    contents = [BYTES[i : i + MiB] for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        finals = list(pool.map(lambda data: adapter.put_final("a", data), contents))
    assert digest(read_final(adapter, finals[0])) in {final.sha256 for final in finals}
    assert adapter.stat_final(*finals[0]) in finals


@MANY
def test_racing_assemblies_leave_one_whole(adapter):
    parts = [adapter.put_temp_part("s", n + 1, BYTES[n : 6 * MiB + n]) for n in range(2)]
    orders = [parts, parts[::-1]] * 4
    with ThreadPoolExecutor(8) as pool:
        finals = list(pool.map(lambda order: adapter.assemble("a", order), orders))
    assert len(set(finals)) == 2 and finals[0] == finals[2]
    assert digest(read_final(adapter, finals[0])) in {final.sha256 for final in finals}
    assert adapter.stat_final(*finals[0]) in finals


def test_overwrite_false_after_the_fact(adapter):
    final = adapter.put_final("a", DATA, overwrite=False)
    assert adapter.put_final("a", Reads(DATA), overwrite=False) == final
    for other in (DATA[:-1], DATA + b"x", b"", DATA[::-1]):
        with pytest.raises(ObjectExists) as caught:
            adapter.put_final("a", other, overwrite=False)
        assert isinstance(caught.value, FileExistsError)
    assert read_final(adapter, final) == DATA
    assert adapter.put_final("a", b"new").sha256 == digest(b"new")
    assert read_final(adapter, final) == b"new"


@MANY
def test_one_adapter_in_many_threads(adapter):
    def work(i):
        data = BYTES[i : i + 300 * KiB + i]
        final = adapter.put_final(f"t/{i}", Reads(data, 100_000))
        part = adapter.put_temp_part("t", i + 1, data)
        return read_final(adapter, final) == data == read_part(adapter, part)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(64)))
    assert [part.part_number for part in adapter.list_temp_parts("t")] == list(range(1, 65))


def test_values(adapter):
    part = adapter.put_temp_part(uuid.UUID(int=7), 3, b"abc")
    assert isinstance(part, TempPart) and str(part) == part.key and len(part.key) <= 500
    assert part == adapter.put_temp_part(str(uuid.UUID(int=7)), 3, b"abc")
    final = adapter.put_final(12, b"abc")
    assert isinstance(final, FinalObject) and final.key == f"{adapter.prefix}12"
    bucket, key = final
    assert (bucket, key) == (final.bucket, final.key)
    for value in (part, final):
        with pytest.raises(dataclasses.FrozenInstanceError):
            value.key = "x"
        with pytest.raises((AttributeError, TypeError)):
            value.more = 1
    assert adapter.stat_final(bucket, final) == final
    with adapter.get_final_stream(bucket, final) as reader:
        assert reader.read() == b"abc"
    adapter.delete_temp_part(part)
    adapter.delete_final(bucket, final)
    with pytest.raises(ObjectNotFound):
        adapter.stat_final(bucket, final)
    assert adapter.backend in {"local", "memory", "s3"}


def test_missing(adapter):
    bucket = adapter.put_final("there", b"").bucket
    for missing in (
        lambda: adapter.get_final_stream(bucket, f"{adapter.prefix}a"),
        lambda: adapter.get_final_stream(bucket, f"{adapter.prefix}there/below"),
        lambda: adapter.stat_final(bucket, f"{adapter.prefix}a/b/c"),
        lambda: adapter.get_temp_part_stream("s/00001"),
        lambda: adapter.assemble("x", ["s/00001"]),
    ):
        with pytest.raises(ObjectNotFound) as caught:
            missing()
        assert isinstance(caught.value, FileNotFoundError) and caught.value.code == "not_found"
    adapter.delete_final(bucket, f"{adapter.prefix}a")
    adapter.delete_final(bucket, f"{adapter.prefix}a/b/c")
    adapter.delete_temp_part("s/00001")
    assert adapter.delete_temp_parts("s") == 0
    assert adapter.list_temp_parts("s") == []


def test_areas_cannot_name_each_other(adapter):
    part = adapter.put_temp_part("s", 1, b"temp")
    final = adapter.put_final("f", b"final")
    for key in (part.key, f"../temp/{part.key}", f"temp/{part.key}"):
        with pytest.raises((ObjectNotFound, InvalidKey)):
            adapter.get_final_stream(final.bucket, key)
    for key in (final.key, f"../final/{final.key}"):
        with pytest.raises((ObjectNotFound, InvalidKey)):
            adapter.get_temp_part_stream(key)
    same = adapter.put_final(part.key, b"a final of that name")
    assert read_part(adapter, part) == b"temp"
    adapter.delete_temp_parts("s")
    assert read_final(adapter, same) == b"a final of that name"


def test_wrong_bucket(adapter):
    adapter.put_final("a", b"")
    for call in (adapter.get_final_stream, adapter.stat_final, adapter.delete_final):
        with pytest.raises(StorageError) as caught:
            call("another", "a")
        assert caught.value.code == "bucket"


def test_parts(adapter):
    parts = {n: adapter.put_temp_part("s", n, bytes([n % 251])) for n in (3, 1, 10_000, 2)}
    other = adapter.put_temp_part("s2", 1, b"other")
    assert listed(adapter, "s", [parts[n] for n in (1, 2, 3, 10_000)])
    adapter.delete_temp_part(parts[2].key)
    assert listed(adapter, "s", [parts[n] for n in (1, 3, 10_000)])
    again = adapter.put_temp_part("s", 3, b"again")
    assert again.key == parts[3].key
    assert listed(adapter, "s", [parts[1], again, parts[10_000]])
    assert adapter.delete_temp_parts("s") == 3
    assert adapter.list_temp_parts("s") == []
    assert listed(adapter, "s2", [other])
    for number in (0, -1, 10_001):
        with pytest.raises(ValueError):
            adapter.put_temp_part("s", number, b"")


@MANY
def test_more_than_a_thousand_parts(adapter):
    parts = [adapter.put_temp_part("s", n, b"%d" % n) for n in range(1, 1102)]
    assert listed(adapter, "s", parts)
    final = adapter.assemble("all", parts)
    assert read_final(adapter, final) == b"".join(b"%d" % n for n in range(1, 1102))
    assert adapter.delete_temp_parts("s") == 1101


def test_assemble(adapter):
    datas = [BYTES[:5_000_001], BYTES[7 : 2 * MiB], b"", b"x"]
    parts = [adapter.put_temp_part("s", n + 1, data) for n, data in enumerate(datas)]
    for order in ((0, 1, 2, 3), (3, 1, 0), (1, 1, 3, 1), (2,)):
        whole = b"".join(datas[i] for i in order)
        for keys in ([parts[i] for i in order], [parts[i].key for i in order]):
            final = adapter.assemble(
                "out/whole", keys, size=len(whole), sha256=digest(whole), content_type="text/plain"
            )
            assert (final.key, final.size, final.sha256) == (f"{adapter.prefix}out/whole", len(whole), digest(whole))
        assert read_final(adapter, final) == whole
    assert listed(adapter, "s", parts)
    assert adapter.assemble("out/whole", (part for part in parts[2:3]), overwrite=False) == final
    with pytest.raises(ObjectExists):
        adapter.assemble("out/whole", parts, overwrite=False)
    assert read_final(adapter, final) == b""
    with pytest.raises(ValueError):
        adapter.assemble("out/none", [])


def test_an_assembly_that_is_there_already_moves_nothing(adapter):
    datas, told = [BYTES[:3_000_000], BYTES[7:2_000_000]], []
    parts = [adapter.put_temp_part("s", n, data) for n, data in enumerate(datas, 1)]
    size = sum(map(len, datas))

    def again():
        return adapter.assemble("a", parts, overwrite=False, progress=lambda done, _: told.append(done))

    final = again()
    assert told[-1] == size and told[-1].copied + told[-1].read >= size
    assert again() == final
    assert (told[-1], told[-1].copied, told[-1].read) == (size, 0, 0)
    adapter.put_temp_part("s", 2, datas[1][::-1])
    with pytest.raises(ContentMismatch):
        again()
    with pytest.raises(ObjectExists):
        adapter.assemble("a", [part.key for part in parts], overwrite=False)
    assert read_final(adapter, final) == b"".join(datas)


def test_assemble_checks_what_is_expected(adapter):
    one, two = (adapter.put_temp_part("s", n, DATA) for n in (1, 2))
    old = adapter.put_final("a", b"old")
    changed = adapter.put_temp_part("s", 2, DATA[::-1])
    whole = DATA + DATA[::-1]

    def fails(error, parts, **expected):
        with pytest.raises(error) as caught:
            adapter.assemble("a", parts, **expected)
        assert read_final(adapter, old) == b"old"
        return caught.value

    assert fails(ContentMismatch, [one, two]).code == "mismatch"
    fails(ContentMismatch, [one, changed], size=len(whole) - 1)
    fails(ContentMismatch, [one, changed], size=len(whole) + 1)
    fails(ContentMismatch, [one, changed], sha256=digest(DATA))
    fails(ObjectNotFound, [one, "s/00009"])
    with pytest.raises(ContentMismatch):
        adapter.get_temp_part_stream(two)
    assert read_part(adapter, changed) == DATA[::-1]
    final = adapter.assemble("a", [one, two.key], size=len(whole), sha256=digest(whole))
    assert read_final(adapter, final) == whole


class Figures(list):
    """What `progress` is told; the last is an `Assembled`."""

    def __call__(self, done, total):
        self.append(done)

    @property
    def read(self):
        return self[-1].read

    def make_sense(self, size):
        last = self[-1]
        assert isinstance(last, Assembled) and [type(done) for done in self[:-1]] == [int] * (len(self) - 1)
        assert last == size and list(self) == sorted(self)
        assert 0 <= last.copied <= size and last.read >= size - last.copied
        return True


def assembled(adapter, parts, whole, **options):
    """Assembles, checks all that can be, and gives how many bytes were read for it."""
    figures = Figures()
    final = adapter.assemble("out/whole", parts, progress=figures, **options)
    assert (final.size, final.sha256) == (len(whole), digest(whole))
    assert adapter.stat_final(*final) == final
    assert read_final(adapter, final) == whole
    assert figures.make_sense(len(whole))
    return figures.read


def test_parts_in_order_are_not_read_again(adapter, caplog):
    datas = [BYTES[: 5 * MiB], BYTES[7 : 6 * MiB], BYTES[MiB : MiB + 1000]]
    parts = [adapter.put_temp_part("s", n, data) for n, data in enumerate(datas, 1)]
    whole = b"".join(datas)
    with caplog.at_level("INFO", logger="storage"):
        read = assembled(adapter, parts, whole, size=len(whole))
    assert read < MiB and (read == 0 or adapter.backend == "s3")
    record = next(record for record in caplog.records if record.name == "storage" and hasattr(record, "copied"))
    assert (record.copied + record.read, record.read) == (len(whole), read)
    assert f"{len(whole)} bytes, {record.copied} copied by the store, {read} read here" in record.getMessage()
    assert "'out/whole' of 3 parts" in record.getMessage()


def test_extend_digest(adapter):
    datas = {n: BYTES[n : 6 * MiB + n] if n == 4 else BYTES[n : 1000 * n] for n in range(1, 6)}
    parts = {n: adapter.put_temp_part("s", n, datas[n]) for n in (3, 5, 1, 4, 2)}
    whole = b"".join(datas[n] for n in sorted(datas))
    ordered = [parts[n] for n in sorted(parts)]
    for covered in range(3, 6):  # the first two came in order
        assert adapter.extend_digest("s", max_seconds=0) == covered
    assert adapter.extend_digest("s", max_seconds=0) == adapter.extend_digest("s") == 5
    read = assembled(adapter, ordered, whole)
    assert read <= (len(whole) if adapter.backend == "s3" else 0)  # a small part costs what it wants beside it
    changed = adapter.put_temp_part("s", 3, datas[3][::-1])
    datas[3] = datas[3][::-1]
    with pytest.raises(ContentMismatch):
        adapter.assemble("out/whole", ordered)
    ordered[2] = changed
    assembled(adapter, ordered, b"".join(datas[n] for n in sorted(datas)))
    assert adapter.extend_digest("s", 60) == 5
    adapter.delete_temp_part(parts[4])
    assert adapter.extend_digest("s") == 3
    del ordered[3], datas[4]
    assembled(adapter, ordered, b"".join(datas[n] for n in sorted(datas)))
    assembled(adapter, ordered[::-1], b"".join(datas[n] for n in sorted(datas, reverse=True)))


def test_extend_digest_of_what_is_not_there(adapter):
    assert adapter.extend_digest("s") == 0
    adapter.put_temp_part("s", 2, b"two")
    assert adapter.extend_digest("s", max_seconds=0) == 0
    for session in ("", "a/b", "..", "a\\b"):
        with pytest.raises(InvalidKey):
            adapter.extend_digest(session)
    adapter.put_temp_part("s", 1, b"one")
    assert adapter.extend_digest("s") == 2
    assert [part.part_number for part in adapter.list_temp_parts("s")] == [1, 2]
    assert adapter.delete_temp_parts("s") == 2
    assert adapter.extend_digest("s") == 0


def test_without_a_carried_digest(adapter):
    adapter.carry_digest = False
    datas = [BYTES[: 5 * MiB], BYTES[3 : 5 * MiB + 9]]
    parts = [adapter.put_temp_part("s", n, data) for n, data in enumerate(datas, 1)]
    whole = b"".join(datas)
    assert assembled(adapter, parts, whole, sha256=digest(whole)) >= len(whole)
    assert adapter.extend_digest("s") == 2, "it is made up for"
    assert assembled(adapter, parts, whole) < MiB


@pytest.mark.parametrize("number", [1, 9])
def test_one_part(adapter, number):
    data = BYTES[: 6 * MiB + 1]
    part = adapter.put_temp_part("s", number, data)
    for options in ({}, {"content_type": "text/plain"}, {"overwrite": False}, {"metadata": {"k": "v"}}):
        assert assembled(adapter, [part], data, **options) == 0
        adapter.delete_final(adapter.bucket, f"{adapter.prefix}out/whole")
    assert assembled(adapter, [part.key], data, size=len(data), sha256=digest(data)) == 0
    for empty in (b"", b"x"):
        assembled(adapter, [adapter.put_temp_part("t", 1, empty)], empty)
    with pytest.raises(ObjectExists):
        adapter.assemble("out/whole", [part], overwrite=False)
    assert adapter.delete_temp_parts("s") == 1
    assert adapter.delete_temp_parts("t") == 1


def test_no_parts(adapter):
    for none in ([], (), iter(())):
        with pytest.raises(ValueError):
            adapter.assemble("out/whole", none)
    for wrong in ("s/00001", TempPart("s/00001", 1, 1, None)):
        with pytest.raises(TypeError):
            adapter.assemble("out/whole", wrong)


@MANY
def test_parts_of_one_byte(adapter):
    whole = BYTES[:120]
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda n: adapter.put_temp_part("s", n + 1, whole[n : n + 1]), range(120)))
    assembled(adapter, parts, whole)
    assert adapter.extend_digest("s") == 120
    read = assembled(adapter, [part.key for part in parts], whole)
    assert read == (120 if adapter.backend == "s3" else 0)
    assembled(adapter, parts[::-1], whole[::-1])
    assembled(adapter, parts + parts, whole + whole)


TEN_THOUSAND = 10_000


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["local", "s3-versitygw"], indirect=True)
def test_ten_thousand_parts(adapter):
    """In a bucket two pages of a listing, else: each part is a request of its own."""
    number = TEN_THOUSAND if FULL or adapter.backend == "local" else 1_100
    whole = BYTES[: 7 * number]

    def put(n):
        return adapter.put_temp_part("s", n + 1, whole[7 * n : 7 * n + 7])

    with ThreadPoolExecutor(16) as pool:
        parts = list(pool.map(put, range(number)))
    assert assembled(adapter, parts, whole) <= 2 * len(whole)
    if adapter.backend == "local":
        assert adapter.extend_digest("s") == number
        assert assembled(adapter, parts, whole) == 0
    assert adapter.delete_temp_parts("s") == number


@pytest.mark.slow
@MANY
def test_large_and_small_parts(adapter):
    """1 KiB and 64 MiB by turns, put in no order."""
    large = BYTES * 3
    datas = {n: large[n : n + 64 * MiB] if n % 2 else BYTES[n : n + KiB] for n in range(4)}
    parts = {n: adapter.put_temp_part("s", n + 1, Reads(datas[n], MiB)) for n in (2, 0, 3, 1)}
    size, whole = sum(map(len, datas.values())), sha256()
    for n in range(4):
        whole.update(datas[n])
    for again in range(2):
        figures = Figures()
        final = adapter.assemble("out/whole", [parts[n] for n in range(4)], size=size, progress=figures)
        assert (final.size, final.sha256) == (size, whole.hexdigest())
        assert figures.make_sense(size)
        # Of a large part as much as S3 wants beside a small one.
        assert again == 0 or figures.read <= (11 * MiB if adapter.backend == "s3" else 0)
        assert adapter.extend_digest("s") == 4
    with adapter.get_final_stream(*final) as reader:
        for n in range(4):
            assert reader.read(len(datas[n])) == datas[n]
        assert reader.read() == b""


def put_behind(adapter, key, data, **told):
    """Replaces an object as others would, who keep no digest with it, or the metadata that is told."""
    if adapter.backend == "local":
        path = Path(adapter.directories[1], key)
        path.unlink()
        path.write_bytes(data)
    else:
        options = adapter._options
        endpoint = Endpoint(
            *(options[name] for name in ("endpoint_url", "access_key", "secret_key", "bucket_name", "region_name")),
            adapter._ca_bundle or None,
        )
        with endpoint.client() as client:
            client.put_object(Bucket=adapter.bucket, Key=key, Body=data, Metadata=told)


@not_on("memory", "s3-bare")
@pytest.mark.parametrize("size", [1, 10 * KiB, 700 * KiB], ids=["a byte", "small", "large"])
def test_what_a_final_object_states_is_expected_of_a_read(adapter, size):
    """Also where the store keeps no digest, and where it tells one that is not that of the bytes."""
    data = BYTES[:size]
    changed = bytes([data[0] ^ 1]) + data[1:]
    final = adapter.put_final("a", data)

    def read(*named, **wanted):
        with adapter.get_final_stream(*named, **wanted) as reader:
            return reader.read()

    assert read(final) == read(adapter.bucket, final) == read(*final, size=size, sha256=final.sha256) == data
    put_behind(adapter, final.key, changed)
    assert read(*final) == read(*final, sha256=digest(changed)) == changed
    tellings = [{}]
    if adapter.backend == "s3":
        tellings += [{"gostorage-sha256": final.sha256}, {"gostorage-sha256": digest(changed)}]
    for told in tellings:
        put_behind(adapter, final.key, changed, **told)
        for named, wanted in [
            ((final,), {}),
            ((adapter.bucket, final), {}),
            (tuple(final), {"sha256": final.sha256}),
            ((dataclasses.replace(final, sha256=digest(changed)),), {"sha256": final.sha256}),
        ]:
            with pytest.raises(ContentMismatch):
                read(*named, **wanted)
    put_behind(adapter, final.key, changed + b"x")
    for named, wanted in [((final,), {}), (tuple(final), {"size": size}), ((final,), {"start": 1, "length": 0})]:
        with pytest.raises(ContentMismatch) as caught:
            adapter.get_final_stream(*named, **wanted)
        assert caught.value.op == "get"
    assert read(dataclasses.replace(final, size=None, sha256=None)) == changed + b"x"
    assert read(final, size=size + 1, sha256=digest(changed + b"x")) == changed + b"x"
    assert adapter.stat_final(final).size == size + 1, "of the value only the name counts"
    adapter.delete_final(final)


def test_ranges(adapter):
    bucket, key = adapter.put_final("a", DATA)
    n = len(DATA)
    for start, length in [
        (0, None), (0, 0), (0, 1), (1, None), (n - 1, None), (n, None), (n + 5, None), (n + 5, 3),
        (5, n), (256 * KiB - 1, 2), (256 * KiB, 256 * KiB), (0, n), (0, n + 1), (3, 10**12),
    ]:  # fmt: skip
        expected = DATA[start:] if length is None else DATA[start : start + length]
        with adapter.get_final_stream(bucket, key, start=start, length=length) as reader:
            assert reader.tell() == 0
            assert reader.read() == expected
            assert reader.tell() == len(expected)
            assert reader.seek(0, io.SEEK_END) == len(expected)
            assert reader.seek(len(expected) // 2) == len(expected) // 2
            assert reader.read() == expected[len(expected) // 2 :]
    for bad in ({"start": -1}, {"length": -1}, {"start": -5, "length": 3}):
        with pytest.raises(ValueError):
            adapter.get_final_stream(bucket, key, **bad)


def test_reader(adapter):
    final = adapter.put_final("a/b", DATA)
    with adapter.get_final_stream(*final) as reader:
        assert (reader.size, reader.sha256) == (final.size, final.sha256)
        assert (reader.readable(), reader.seekable(), reader.writable()) == (True, True, False)
        assert reader.read(0) == b"" and reader.read(10) == DATA[:10] and reader.tell() == 10
        assert reader.seek(-5, io.SEEK_CUR) == 5 and reader.read(3) == DATA[5:8]
        assert reader.seek(-7, io.SEEK_END) == len(DATA) - 7 and reader.read() == DATA[-7:]
        assert reader.seek(len(DATA) + 9) and reader.read() == b""
        reader.seek(0)
        buffer = bytearray(100_000)
        assert reader.readinto(buffer) and buffer.startswith(DATA[:10])
        reader.seek(0)
        chunks = list(reader.chunks())
        assert b"".join(chunks) == DATA and {len(chunk) for chunk in chunks[:-1]} == {256 * KiB}
        reader.seek(0)
        assert list(reader) == io.BytesIO(DATA).readlines()
        with pytest.raises(ValueError):
            reader.seek(-1)
        with pytest.raises((io.UnsupportedOperation, AttributeError)):
            reader.write(b"x")
    assert reader.closed
    with pytest.raises(ValueError):
        reader.read(1)
    reader.close()
    dropped = adapter.get_final_stream(*final)
    assert dropped.read(1) == DATA[:1]
    del dropped


@ON_ONE_OF_A_KIND
@pytest.mark.parametrize("seed", range(3))
def test_a_reader_is_like_a_file(adapter, seed):
    """Reads of all sizes and seeks, in any order, give what a file would."""
    chance, data = random.Random(seed), BYTES[: 5 * MiB + seed]
    final = adapter.put_final("a", data)
    file, kept = io.BufferedReader(io.BytesIO(data)), []
    sizes = *[0, 1, 7, 9] * 3, 100 * KiB, *[256 * KiB, 256 * KiB + 1, MiB, 2 * MiB] * 2, 4 * MiB, 4 * MiB + 1
    with adapter.get_final_stream(*final) as reader:
        for step in range(500):
            method = chance.choice(["read"] * 10 + ["seek"] * 8 + ["readinto", "peek", "readline", "pause"])
            size = chance.choice(sizes)
            if method == "seek":
                back = -min(size, file.tell())
                to = chance.choice([(size, 0), (-size, 2), (size, 1), (back, 1), (0, 1), (file.tell(), 0)])
                assert reader.seek(*to) == file.seek(*to), (step, to)
            elif method == "readinto":
                buffers = bytearray(size), bytearray(size)
                assert reader.readinto(buffers[0]) == file.readinto(buffers[1]), step
                assert buffers[0] == buffers[1], step
            elif method == "peek":
                assert reader.peek(1)[:1] == file.peek(1)[:1], step
            elif method == "pause":
                time.sleep(chance.choice([0, 0, 0, 0, 0.3]))
            elif method == "readline":
                assert reader.readline(size) == file.readline(size), step
            else:
                for _ in range(chance.choice([1, 1, 3])):
                    kept.append((reader.read(size), file.read(size)))
                    assert kept[-1][0] == kept[-1][1], (step, size)
            assert chance.random() < 0.8 or reader.tell() == file.tell(), (step, method)
    assert all(one == other for one, other in kept)  # nothing is written to what was given away


@ON_ONE_OF_A_KIND
@pytest.mark.parametrize("size", [64 * KiB - 1, 64 * KiB, 64 * KiB + 1])
def test_readers_of_small_objects_keep_their_bytes(adapter, size):
    """64 KiB is the most that comes with the answer to a get."""
    finals = [adapter.put_final(f"a{number}", BYTES[number : number + size]) for number in range(3)]
    readers = [adapter.get_final_stream(*final) for final in finals]
    kept = [reader.read() for reader in readers]
    for number, reader in enumerate(readers):
        assert kept[number] == BYTES[number : number + size]
        assert reader.seek(0) == 0 and reader.read() == kept[number]
        reader.close()


@ON_ONE_OF_A_KIND
def test_threads_share_a_reader(adapter):
    """Each byte is given once, and what one read gives is of one piece."""
    data = b"".join(number.to_bytes(4) for number in range(2 * MiB))
    final = adapter.put_final("a", data)
    with adapter.get_final_stream(*final) as reader:

        def reads(sizes):
            return [piece for size in sizes if (piece := reader.read(size))]

        with ThreadPoolExecutor(3) as pool:
            sizes = [MiB] * 20, [256 * KiB, 12, 2 * MiB] * 9, [100 * KiB] * 90
            pieces = sorted(piece for some in pool.map(reads, sizes) for piece in some)
        rest = reader.read()
    assert b"".join([*pieces, rest]) == data


@ON_ONE_OF_A_KIND
@pytest.mark.parametrize("size", [1000, 256 * KiB, MiB])
def test_a_signal_handler_that_reads_the_stream_it_interrupts(adapter, monkeypatch, size):
    """It gets an error, no deadlock, and the read that it interrupted goes on."""
    final = adapter.put_final("a", BYTES[: 3 * MiB])
    read, found = native.read, []

    def interrupted(*args):
        signal.raise_signal(signal.SIGUSR1)
        return read(*args)

    def handler(*_):
        for call in (stream.read, stream.read1, stream.readline, stream.peek, lambda _: stream.close()):
            with pytest.raises(StorageError) as caught:
                call(size)
            found.append(caught.value.code)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        monkeypatch.setattr(native, "read", interrupted)
        with adapter.get_final_stream(final) as stream:
            assert b"".join(iter(lambda: stream.read(size), b"")) == BYTES[: 3 * MiB]
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(found) >= 4 and set(found) == {"reentrant"}


def test_reader_survives_overwrite_and_delete(adapter):
    final = adapter.put_final("a", BYTES[: 5 * MiB])
    part = adapter.put_temp_part("s", 1, DATA)
    with adapter.get_final_stream(*final) as reader, adapter.get_temp_part_stream(part) as other:
        assert reader.read(10) == BYTES[:10]
        adapter.put_final("a", b"new")
        assert reader.read(MiB) == BYTES[10 : MiB + 10]
        adapter.delete_final(*final)
        adapter.delete_temp_parts("s")
        assert reader.read() == BYTES[MiB + 10 : 5 * MiB]
        assert other.read() == DATA
    with pytest.raises(ObjectNotFound):
        adapter.get_final_stream(*final)


def test_a_reader_is_a_source(adapter):
    final = adapter.put_final("a", BYTES[: 5 * MiB])
    with adapter.get_final_stream(*final) as reader:
        assert reader.read(3) == BYTES[:3]
        copy = adapter.put_final("b", reader)
    assert copy.sha256 == digest(BYTES[3 : 5 * MiB])


def test_nothing_is_visible_before_the_end(adapter):
    old = adapter.put_final("a", b"old")
    seen = []

    def source():
        for _ in range(5):
            yield BYTES[:MiB]
            seen.append(read_final(adapter, old))
            with pytest.raises(ObjectNotFound):
                adapter.stat_final(old.bucket, f"{adapter.prefix}b")
            seen.append(len(adapter.list_temp_parts("s")))

    adapter.put_final("a", source())
    assert seen == [b"old", 0] * 5


@pytest.mark.parametrize("known", [True, False], ids=["size", "no size"])
def test_progress(adapter, known):
    size = 20 * MiB
    calls, started = [], time.monotonic()

    def progress(done, total):
        calls.append((done, total))
        with pytest.raises(ObjectNotFound):
            adapter.get_final_stream(bucket, f"{adapter.prefix}a")

    bucket = adapter.put_final("x", b"").bucket
    source = Reads(BYTES[:size], MiB)
    adapter.put_final("a", source, size=size if known else None, progress=progress)
    seconds = time.monotonic() - started
    dones = [done for done, _ in calls]
    assert dones == sorted(dones) and dones[-1] == size and dones.count(size) == 1
    assert len(calls) <= 10 * seconds + 2
    assert all(total == size or (total is None and not known) for _, total in calls)

    parts = [adapter.put_temp_part("s", n, BYTES[: 5 * MiB]) for n in (1, 2, 3)]
    adapter.delete_final(bucket, f"{adapter.prefix}a")
    calls.clear()
    adapter.assemble("a", parts, progress=progress)
    dones = [done for done, _ in calls]
    assert dones == sorted(dones) and dones[-1] == 15 * MiB
    with pytest.raises(ZeroDivisionError):
        adapter.assemble("b", parts, progress=lambda done, total: 1 / 0)
    with pytest.raises(ObjectNotFound):
        adapter.stat_final(bucket, f"{adapter.prefix}b")


def test_an_empty_put_reports_progress(adapter):
    calls = []
    adapter.put_final("a", b"", progress=lambda *args: calls.append(args))
    assert [done for done, _ in calls] == [0]


def test_an_object_and_one_below_it(adapter):
    """A disk cannot hold both; then the second is refused and nothing is lost."""
    final = adapter.put_final("a", DATA)
    try:
        below = adapter.put_final("a/b/c", b"below")
    except StorageError as error:
        assert error.code == "conflict"
    else:
        assert read_final(adapter, below) == b"below"
        adapter.delete_final(*below)
    assert read_final(adapter, final) == DATA
    adapter.delete_final(*final)
    below = adapter.put_final("a/b/c", b"below")
    for overwrite in (True, False):
        try:
            adapter.put_final("a", b"above", overwrite=overwrite)
        except StorageError as error:
            assert error.code == "conflict"
    assert read_final(adapter, below) == b"below"
    adapter.delete_final(*below)
    assert read_final(adapter, adapter.put_final("a", b"again")) == b"again"


@pytest.mark.parametrize("slow", [True, False], ids=["slow source", "fast source"])
def test_close_cancels(adapter, slow):
    running = threading.Event()

    def source():
        while True:
            yield BYTES[:MiB]
            running.set()
            time.sleep(0.02 if slow else 0)

    with ThreadPoolExecutor(1) as pool:
        put = pool.submit(adapter.put_final, "a", source())
        assert running.wait(5)
        adapter.close()
        with pytest.raises(StorageCancelled) as caught:
            put.result(timeout=5)
    assert caught.value.code == "cancelled"
    adapter.close()


def test_keys_that_are_refused(adapter):
    bucket, _ = adapter.put_final("a", b"")
    part = adapter.put_temp_part("s", 1, b"x")
    surrogates = ["\ud800", "a\udcffb", "a/\udfff"]
    for key in [*CONTRACT["illegal_keys"], *surrogates]:
        for call in (
            lambda key: adapter.put_final(key, b""),
            lambda key: adapter.assemble(key, [part]),
            lambda key: adapter.assemble("b", [key]),
            lambda key: adapter.get_final_stream(bucket, key),
            lambda key: adapter.stat_final(bucket, key),
            lambda key: adapter.delete_final(bucket, key),
            adapter.get_temp_part_stream,
            adapter.delete_temp_part,
            lambda key: adapter.put_temp_part(key, 1, b""),
            adapter.list_temp_parts,
            adapter.delete_temp_parts,
        ):
            with pytest.raises(InvalidKey) as caught:
                call(key)
            assert caught.value.code == "invalid_key", ascii(key)
            assert isinstance(caught.value, ValueError)
    for session in ("a/b", "x/"):
        with pytest.raises(InvalidKey):
            adapter.put_temp_part(session, 1, b"")


def test_keys_that_are_taken(adapter):
    for key in CONTRACT["legal_keys"]:
        final = adapter.put_final(key, key.encode())
        assert final.key == adapter.prefix + key
        assert adapter.stat_final(final.bucket, final.key) == final
        assert read_final(adapter, final) == key.encode()
        adapter.delete_final(*final)
        with pytest.raises(ObjectNotFound):
            adapter.stat_final(final.bucket, final.key)
        if "/" not in key and len(key.encode()) <= 249:
            part = adapter.put_temp_part(key, 1, b"x")
            assert listed(adapter, key, [part])
            assert adapter.delete_temp_parts(key) == 1


def test_names_that_look_alike_differ(adapter):
    names = ["\u00e9", "e\u0301", "a", "A", "a ", "a.", "\uff41", "a\u200b"]
    finals = [adapter.put_final(name, name.encode()) for name in names]
    assert [read_final(adapter, final).decode() for final in finals] == names


def test_content_type_and_metadata(adapter):
    final = adapter.put_final("a", b"x", content_type="text/plain", metadata={"by": "Zoë\n|%"})
    assert read_final(adapter, final) == b"x"
    adapter.put_final("a", b"x", metadata={"k": "v" * 1900})
    for metadata in ({"k": "v" * 1950}, {"k": 1}, {1: "v"}, ["k"]):
        with pytest.raises((ValueError, TypeError)):
            adapter.put_final("b", b"x", metadata=metadata)
    with pytest.raises(ObjectNotFound):
        adapter.stat_final(final.bucket, f"{adapter.prefix}b")


def test_description(adapter):
    """What `stat_final` and readers tell beside the size and the digest, in one form on all adapters."""
    metadata = {"by": "Zoë\n|%", "Long-Name": "a" * 100 + "é" * 100, "odd": " =?utf-8?b?eA==?= \u2028<", "empty": ""}
    told = {name.lower(): value for name, value in metadata.items()}
    before = datetime.now(UTC) - timedelta(seconds=2)  # S3 tells whole seconds
    put = adapter.put_final("a", DATA, content_type="text/plain; charset=utf-8", metadata=metadata)
    assert (put.content_type, put.modified, put.metadata) == (None, None, None)
    stated = adapter.stat_final(put)
    assert stated == put and hash(stated) == hash(put)
    assert (stated.content_type, stated.metadata) == ("text/plain; charset=utf-8", told)
    assert before <= stated.modified <= datetime.now(UTC) + timedelta(seconds=2)
    assert stated.modified.utcoffset() == timedelta()
    for part in ({}, {"start": 5, "length": 10}, {"start": len(DATA) + 1}):
        with adapter.get_final_stream(put, **part) as reader:
            assert (reader.content_type, reader.metadata) == (stated.content_type, stated.metadata)
            assert abs(reader.modified - stated.modified) < timedelta(seconds=1)
    parts = [adapter.put_temp_part("s", n + 1, data) for n, data in enumerate((BYTES[: 6 * MiB], b"end"))]
    for number, joined in enumerate((parts, parts[:1], parts[1:])):
        final = adapter.assemble(f"joined/{number}", joined, content_type="image/png", metadata=metadata)
        found = adapter.stat_final(final)
        assert (found.content_type, found.metadata) == ("image/png", told)
    plain = adapter.stat_final(adapter.put_final("a", b"small"))
    assert (plain.content_type, plain.metadata) == ("application/octet-stream", {})
    with adapter.get_final_stream(plain) as reader:
        assert (reader.content_type, reader.metadata, reader.read()) == (plain.content_type, {}, b"small")
    with adapter.get_temp_part_stream(parts[1]) as reader:
        assert (reader.content_type, reader.metadata) == ("application/octet-stream", {})


def listing(adapter, *args, **kwargs):
    """The names that a listing gives, without the adapter's prefix."""
    found = list(adapter.list_final(*args, **kwargs))
    assert all(final.bucket == adapter.bucket and final.key.startswith(adapter.prefix) for final in found)
    return [final.key.removeprefix(adapter.prefix) for final in found]


def test_list_final(adapter):
    """The order of keys is neither that of names in a folder nor that of the alphabet."""
    names = ["A", "a b/1", "a!/1", "a-b/1", "a/1", "a/2", "a/3/x", "a0", "aa", "b", "b\u00e9/1", "b\U0001f600/1"]
    puts = {}
    for i, name in enumerate(random.Random(3).sample(names, len(names))):
        puts[name] = adapter.put_final(name, BYTES[:i], content_type="text/plain")
    adapter.put_temp_part("a", 1, b"no final object")
    before = datetime.now(UTC)
    found = list(adapter.list_final())
    assert [final.key for final in found] == [puts[name].key for name in names]
    for name, final in zip(names, found, strict=True):
        assert (final.bucket, final.size) == (adapter.bucket, puts[name].size)
        assert final.sha256 == (None if adapter.backend == "s3" else puts[name].sha256)
        assert abs(final.modified - before) < timedelta(minutes=1)
        assert (final.content_type, final.metadata) == (None, None)
    prefix = adapter.prefix
    assert listing(adapter, prefix) == listing(adapter, prefix[:2]) == names
    for beginning in (
        "a",
        "a/",
        "a/3",
        "a/3/x",
        "a-",
        "b\u00e9",
        "A",
        "z",
        "a/3/x/",
        "..",
        "a/.",
        ".gostorage-staging",
    ):
        wanted = [name for name in names if name.startswith(beginning)]
        assert listing(adapter, prefix + beginning) == wanted
        for i, name in enumerate(wanted):
            assert listing(adapter, prefix + beginning, start_after=prefix + name) == wanted[i + 1 :]
    assert listing(adapter, start_after=puts["a/2"]) == listing(adapter, start_after=prefix + "a/2") == names[6:]
    assert listing(adapter, start_after=prefix + "a/2\u00e9") == names[6:]
    assert listing(adapter, start_after=prefix + "\U0010ffff") == []
    assert listing(adapter, prefix + "a/", start_after=prefix + "b") == []
    assert listing(adapter, prefix + "a/", start_after=prefix + "a") == ["a/1", "a/2", "a/3/x"]
    assert listing(adapter, prefix + "a/", start_after=prefix + "a-b/1") == ["a/1", "a/2", "a/3/x"]
    assert next(adapter.list_final(prefix + "b")).key == puts["b"].key
    for final in found:
        assert adapter.stat_final(final) == dataclasses.replace(final, sha256=puts[final.key[len(prefix) :]].sha256)
        adapter.delete_final(final)
    assert listing(adapter) == []


def test_a_prefix_of_no_final_object(adapter):
    if adapter.prefix:
        with pytest.raises(InvalidKey, match=adapter.prefix):
            adapter.list_final("elsewhere/")


@MANY
def test_list_final_in_pages(adapter, monkeypatch):
    monkeypatch.setattr(storage_adapter, "FIRST_PAGE", 2)
    monkeypatch.setattr(storage_adapter, "PAGE", 3)
    names = [f"{number % 4}/{number:03}" for number in range(30)]
    for name in names:
        adapter.put_final(name, b"x")
    names.sort()
    assert listing(adapter) == names
    assert listing(adapter, f"{adapter.prefix}2/0") == [name for name in names if name.startswith("2/")]
    seen = []
    for final in adapter.list_final():  # what is listed may be deleted at once
        seen.append(final.key.removeprefix(adapter.prefix))
        adapter.delete_final(final)
    assert seen == names


@pytest.mark.parametrize("size", [0, 1, 700 * KiB, 11 * MiB + 1])
def test_copy_final(adapter, size):
    data, metadata = BYTES[:size], {"by": "Zoë\n|%", "long": "v" * 700}
    final = adapter.put_final("a/b", data, content_type="text/x-own", metadata=metadata)
    copies = [
        adapter.copy_final(final, "copies/1"),
        adapter.copy_final(final.bucket, final.key, "copies/2"),
        adapter.copy_final(*final, "copies/1"),
        adapter.copy_final(final, file_id=uuid.UUID(int=5), overwrite=False),
        adapter.copy_final(final, file_id=uuid.UUID(int=5), overwrite=False),
    ]
    copies.append(adapter.copy_final(copies[0], "copies/3"))
    names = ["copies/1", "copies/2", "copies/1", *[str(uuid.UUID(int=5))] * 2, "copies/3"]
    for name, copy in zip(names, copies, strict=True):
        assert copy == dataclasses.replace(final, key=adapter.prefix + name)
        stated = adapter.stat_final(copy)
        assert (stated, stated.content_type, stated.metadata) == (copy, "text/x-own", metadata)
        assert read_final(adapter, copy) == data
    adapter.put_final("copies/1", b"other")  # a copy is an object of its own
    adapter.delete_final(copies[1])
    for one in (final, copies[3], copies[5]):
        assert read_final(adapter, one) == data


def test_copies_that_fail_leave_all_as_it_was(adapter):
    final, other = adapter.put_final("a", DATA), adapter.put_final("b", b"other")
    with pytest.raises(ObjectExists):
        adapter.copy_final(final, "b", overwrite=False)
    with pytest.raises(ObjectNotFound) as caught:
        adapter.copy_final(final.bucket, f"{adapter.prefix}missing", "b")
    assert caught.value.op == "copy" and caught.value.key == "missing"
    for changed in ({"size": 5}, {"sha256": digest(b"")}):
        with pytest.raises(ContentMismatch):
            adapter.copy_final(dataclasses.replace(final, **changed), "b")
        with pytest.raises(ContentMismatch):
            adapter.copy_final(dataclasses.replace(final, **changed), "a")
    with pytest.raises(StorageError):
        adapter.copy_final("another", final.key, "b")
    assert read_final(adapter, final) == DATA and read_final(adapter, other) == b"other"


def test_a_copy_to_itself_changes_nothing(adapter):
    final = adapter.put_final("a", DATA, content_type="text/plain", metadata={"k": "v"})
    before = adapter.stat_final(final).as_dict()
    assert adapter.copy_final(final, "a") == adapter.copy_final(final, "a", overwrite=False) == final
    assert adapter.stat_final(final).as_dict() == before
    assert read_final(adapter, final) == DATA


@pytest.mark.parametrize("size", [0, 1, 700 * KiB, 11 * MiB + 1])
def test_adopt_final(adapter, size):
    """An object of ours is read and verified, and stays as it is."""
    data = BYTES[:size]
    final = adapter.put_final("a/b", data, content_type="text/plain", metadata={"k": "v"})
    for key in (final, final.key):
        assert adapter.adopt_final(key) == final
    stated = adapter.stat_final(final)
    assert (stated, stated.content_type, stated.metadata) == (final, "text/plain", {"k": "v"})
    for changed in ({"size": 5}, {"sha256": digest(b"other")}):
        with pytest.raises(ContentMismatch):
            adapter.adopt_final(dataclasses.replace(final, **changed))
    with pytest.raises(ObjectNotFound):
        adapter.adopt_final(f"{adapter.prefix}a/missing")
    assert read_final(adapter, final) == data


@not_on("memory", "s3-moto", "s3-bare")
@pytest.mark.parametrize("size", [0, 700 * KiB, 11 * MiB + 1])
def test_adopted_objects_are_like_all_others(adapter, size):
    """Of objects that somebody else has put there, the SHA-256 is known from then on."""
    data = BYTES[:size]
    final = dataclasses.replace(adapter.put_final("up/a", b"before"), size=size, sha256=None)
    put_behind(adapter, final.key, data, their="own")
    before = adapter.stat_final(final)
    assert (before.size, before.sha256) == (size, None)
    for changed in ({"size": size + 1}, {"sha256": digest(b"other")}):
        with pytest.raises(ContentMismatch):
            adapter.adopt_final(dataclasses.replace(final, **changed))
    assert adapter.stat_final(final).sha256 is None
    copy = adapter.copy_final(final, "copy")
    adopted = adapter.adopt_final(final.key)
    for one, name in ((copy, "copy"), (adopted, "up/a")):
        stated = adapter.stat_final(one)
        assert stated == one == FinalObject(adapter.bucket, adapter.prefix + name, size, digest(data))
        assert (stated.content_type, stated.metadata) == (before.content_type, before.metadata)
        assert read_final(adapter, one) == data
    assert adapter.adopt_final(adopted) == adopted
    if adapter.backend == "s3":
        assert stated.metadata == {"their": "own"}
        put_behind(adapter, final.key, data, **{"gostorage-sha256": digest(b"a digest of other bytes")})
        with pytest.raises(ContentMismatch):
            adapter.adopt_final(final.key)


def fetched(adapter, url, **request):
    """The status, the headers and the body of the answer to a URL."""
    context = ssl.create_default_context(cafile=adapter._ca_bundle) if adapter._ca_bundle else None
    for attempt in itertools.count():
        try:
            with urlopen(Request(url, **request), context=context, timeout=30) as answer:
                return answer.status, answer.headers, answer.read()
        except HTTPError as error:
            with error:
                return error.code, error.headers, error.read()
        except URLError as error:  # a server that refuses a body may leave before it was sent
            if not isinstance(error.reason, ConnectionResetError | BrokenPipeError) or attempt == 9:
                raise


def test_url_final(adapter):
    name = "a/Zoë + 100% & #1?.txt"
    final = adapter.put_final(name, DATA, content_type="text/plain")
    if adapter.backend != "s3":
        for method, error in (("GET", ImproperlyConfigured), ("HEAD", ImproperlyConfigured), ("PUT", ValueError)):
            with pytest.raises(error, match="url_final" if method != "PUT" else "S3"):
                adapter.url_final(final, method=method)  # test_links.py has those of adapters of the settings
        return
    for url in (adapter.url_final(final), adapter.url_final(*final, expires=1000, method="GET")):
        status, headers, body = fetched(adapter, url)
        assert (status, headers["Content-Type"], body) == (200, "text/plain", DATA)
    told = {"filename": 'Zoë "1".txt', "content_type": "application/pdf"}
    status, headers, body = fetched(adapter, adapter.url_final(final, **told))
    assert (status, headers["Content-Type"], body) == (200, "application/pdf", DATA)
    assert headers["Content-Disposition"] == "attachment; filename*=utf-8''Zo%C3%AB%20%221%22.txt"
    status, headers, body = fetched(adapter, adapter.url_final(final, method="HEAD"), method="HEAD")
    assert (status, headers["Content-Length"], body) == (200, str(len(DATA)), b"")


@not_on("s3-moto", "s3-bare", "local", "local-fast", "memory")
def test_what_a_url_allows(adapter):
    """One object, one method, for a time."""
    final, other = adapter.put_final("a", DATA), adapter.put_final("b", b"other")
    url = adapter.url_final(final)
    assert fetched(adapter, url.replace(final.key, other.key))[0] == 403
    assert fetched(adapter, url, method="PUT", data=b"new")[0] == 403
    assert fetched(adapter, url.replace("Expires=3600", "Expires=36000"))[0] == 403
    assert fetched(adapter, url + "&response-content-type=text%2Fhtml")[0] in (400, 403)
    brief = adapter.url_final(final, expires=1)
    time.sleep(2.5)
    assert fetched(adapter, brief)[0] == 403 and fetched(adapter, url)[0] == 200
    assert read_final(adapter, final) == DATA


@not_on("s3-moto", "s3-bare", "local", "local-fast", "memory")
def test_a_direct_upload_is_adopted(adapter):
    key = f"{adapter.prefix}up/direct"
    url = adapter.url_final(adapter.bucket, key, method="PUT", content_type="image/png")
    assert fetched(adapter, url, method="PUT", data=DATA, headers={"Content-Type": "text/html"})[0] == 403
    with pytest.raises(ObjectNotFound):
        adapter.adopt_final(key)
    assert fetched(adapter, url, method="PUT", data=DATA, headers={"Content-Type": "image/png"})[0] == 200
    assert adapter.stat_final(adapter.bucket, key).sha256 is None
    final = adapter.adopt_final(key)
    assert final == FinalObject(adapter.bucket, key, len(DATA), digest(DATA)) == adapter.stat_final(final)
    assert adapter.stat_final(final).content_type == "image/png"
    any_type = adapter.url_final(final, method="PUT")
    assert fetched(adapter, any_type, method="PUT", data=b"x", headers={"Content-Type": "text/x"})[0] == 200


def test_values_as_dicts(adapter):
    part = adapter.put_temp_part("s", 1, b"abc")
    final = adapter.put_final("a", b"abc", metadata={"k": "v"})
    stated = adapter.stat_final(final)
    for value in (part, final, stated):
        made = json.loads(json.dumps(value.as_dict()))
        back = type(value).from_dict(made)
        assert back == value and back.as_dict() == value.as_dict() == made
    assert (back.modified, back.metadata, back.content_type) == (stated.modified, {"k": "v"}, stated.content_type)
    plain = {"bucket": final.bucket, "key": final.key, "size": 3, "sha256": final.sha256}
    assert FinalObject.from_dict(plain) == final
    for bad, error in (
        (None, TypeError),
        ([], TypeError),
        ({}, ValueError),
        (plain | {"key": 5}, TypeError),
        (plain | {"size": "3"}, TypeError),
        (plain | {"size": True}, TypeError),
        (plain | {"size": -1}, ValueError),
        (plain | {"sha256": "zz"}, ValueError),
        (plain | {"metadata": {"a": 1}}, TypeError),
        (plain | {"other": 1}, ValueError),
        (plain | {"modified": 5}, TypeError),
        (plain | {"modified": "yesterday"}, ValueError),
        (plain | {"modified": "2026-11-29T12:00:00"}, ValueError),
        (part.as_dict(), ValueError),
    ):
        with pytest.raises(error):
            FinalObject.from_dict(bad)


def test_health(adapter):
    adapter.check_health()
    adapter.check_health(timeout=1.0)
