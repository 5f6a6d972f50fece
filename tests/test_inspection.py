"""`inspect=`: what is looked at before it is visible, on every store."""

import asyncio
import hashlib
import io
import subprocess
import sys
from datetime import timedelta
from inspect import signature
from unittest import mock

import pytest
from conftest import BYTES, make_local, make_s3, not_on
from hypothesis import given, settings
from hypothesis import strategies as st
from servers.lying import Lying

from storage import (
    ContentMismatch,
    ContentRejected,
    InvalidKey,
    ObjectExists,
    ObjectNotFound,
    ObjectReader,
    StorageTimeout,
    TempPart,
    native,
)
from storage.inspection import PartsReader

MIB = 1024 * 1024
SIZES = [0, 11 * MIB]
few = not_on("local-fast", "s3-bare", "s3-moto")


def digest(data):
    return hashlib.sha256(data).hexdigest()


class Look:
    """An inspector that keeps what it has read, and whether the object was visible then."""

    def __init__(self, adapter, error=None):
        self.adapter, self.error, self.seen = adapter, error, []

    def __call__(self, reader):
        visible = [final.key for final in self.adapter.list_final()]
        self.seen.append((reader.name, reader.size, digest(reader.read()), visible))
        if self.error:
            raise self.error


def keys(adapter):
    return [final.key for final in adapter.list_final()]


def nothing_but(adapter, *names):
    """Whether those objects are there, nothing else is, and no part."""
    assert keys(adapter) == [adapter.prefix + name for name in names]
    left = adapter.sweep(timedelta(), dry_run=True)
    return (left.parts, left.uploads) == (0, 0)


# ---- put_final


@pytest.mark.parametrize("size", SIZES)
@few
def test_a_put_is_inspected(adapter, size):
    data, looks = BYTES[:size], [Look(adapter), Look(adapter)]
    figures = []
    final = adapter.put_final(
        "a/b",
        iter([data[: size // 2], data[size // 2 :]]),
        size=size,
        sha256=digest(data),
        content_type="image/png",
        metadata={"by": "Zoë"},
        progress=lambda *now: figures.append(now),
        inspect=looks,
    )
    assert (final.key, final.size, final.sha256) == (f"{adapter.prefix}a/b", size, digest(data))
    for look in looks:
        assert look.seen == [(f"{adapter.prefix}a/b", size, digest(data), [])]
    stated = adapter.stat_final(final)
    assert stated == final and (stated.content_type, stated.metadata) == ("image/png", {"by": "Zoë"})
    with adapter.get_final_stream(final) as reader:
        assert reader.read() == data
    assert figures[-1] == (size, size)
    assert nothing_but(adapter, "a/b")


@pytest.mark.parametrize("size", SIZES)
@few
def test_what_is_rejected_leaves_nothing(adapter, size):
    adapter.put_final("old", b"old")
    second = Look(adapter)
    for name in ("new", "old"):
        with pytest.raises(ContentRejected, match="a virus") as caught:
            adapter.put_final(
                name, io.BytesIO(BYTES[:size]), inspect=[Look(adapter, ContentRejected("a virus")), second]
            )
        assert (caught.value.code, caught.value.retryable, str(caught.value)) == ("rejected", False, "a virus")
    assert not second.seen and nothing_but(adapter, "old")
    with adapter.get_final_stream(adapter.bucket, f"{adapter.prefix}old") as reader:
        assert reader.read() == b"old"


@pytest.mark.parametrize(
    "error",
    [
        LookupError("x"),
        KeyboardInterrupt("x"),
        StorageTimeout("x", key="k", retryable=True),
        OSError(5, "x"),
        StopIteration(),
    ],
    ids=lambda error: type(error).__name__,
)
@few
def test_other_errors_arrive_unchanged(adapter, error):
    part = adapter.put_temp_part("s", 1, b"x")
    for put in (
        lambda look: adapter.put_final("a", b"some bytes", inspect=look),
        lambda look: adapter.assemble("a", [part], inspect=look),
    ):
        with pytest.raises(type(error)) as caught:
            put(Look(adapter, error))
        assert caught.value is error and keys(adapter) == []
    assert [left.key for left in adapter.list_temp_parts("s")] == [part.key]
    assert adapter.sweep(timedelta()).parts == 1


@few
def test_overwrite(adapter):
    look = Look(adapter)
    first = adapter.put_final("a", b"one", overwrite=False, inspect=look)
    assert adapter.put_final("a", b"one", overwrite=False, inspect=look) == first
    with pytest.raises(ObjectExists):
        adapter.put_final("a", b"two", overwrite=False, inspect=look)
    assert adapter.stat_final(first) == first
    assert adapter.put_final("a", b"two", inspect=look).sha256 == digest(b"two")
    assert [seen[2] for seen in look.seen] == [digest(data) for data in (b"one", b"one", b"two", b"two")]
    assert nothing_but(adapter, "a")


@pytest.mark.parametrize("expected", [{"size": 5}, {"sha256": "0" * 64}])
@few
def test_what_is_not_expected_is_not_inspected(adapter, expected):
    look = Look(adapter)
    with pytest.raises(ContentMismatch) as caught:
        adapter.put_final("a", iter([b"some", b"bytes"]), inspect=look, **expected)
    assert caught.value.key in ("", "a")
    assert not look.seen and nothing_but(adapter)


def test_a_stream_that_fails(local):
    look = Look(local)

    def broken():
        yield BYTES[:MIB]
        raise LookupError("of the source")

    with pytest.raises(LookupError, match="of the source"):
        local.put_final("a", broken(), inspect=look)
    assert not look.seen and nothing_but(local)


def test_what_is_no_inspector(local):
    async def scan(reader):
        raise AssertionError

    class Scanner:
        async def __call__(self, reader):
            raise AssertionError

    part = local.put_temp_part("s", 1, b"x")
    for wrong in (scan, [scan], Scanner()):
        with pytest.raises(TypeError, match="inspect is a"):
            asyncio.run(local.aput_final("a", b"x", inspect=wrong))
    for wrong in (5, "scan", [len, None], b"x", scan, [scan], Look):
        source = io.BytesIO(b"some bytes")
        with pytest.raises(TypeError, match="inspect is a"):
            local.put_final("a", source, inspect=wrong)
        assert source.tell() == 0
        with pytest.raises(TypeError, match="inspect is a"):
            local.assemble("a", [part], inspect=wrong)
    for verdict in (lambda reader: True, lambda reader: False, lambda reader: scan(reader)):
        with pytest.raises(TypeError, match="raises ContentRejected"):
            local.put_final("a", b"x", inspect=verdict)
    with pytest.raises(InvalidKey):
        local.put_final("../a", b"x", inspect=len)
    with pytest.raises(ContentRejected):
        local.put_final("a", b"x", inspect=mock.MagicMock(side_effect=ContentRejected("no")))  # it can be iterated, too
    for nothing in (None, [], ()):
        local.put_final("b", b"x", inspect=nothing)
    assert keys(local) == ["b"] and len(local.list_temp_parts("s")) == local.sweep(timedelta()).parts == 1


def test_what_an_inspector_returns_or_closes_does_not_matter(local):
    local.put_final(
        "a", b"abc", inspect=[lambda reader: reader.close(), lambda reader: reader.read(1), ObjectReader.close]
    )
    assert keys(local) == ["a"]


def test_both_methods_have_it():
    from storage import LocalStorageAdapter, StorageAdapter

    for kind in (StorageAdapter, LocalStorageAdapter):
        for method in (kind.put_final, kind.assemble):
            assert signature(method).parameters["inspect"].default is None


@pytest.mark.parametrize("size", [10, 11 * MIB])
def test_a_put_moves_its_bytes_once(size):
    with Lying() as server:
        adapter = make_s3(server.endpoint)
        adapter.put_final("warm", BYTES[:size], inspect=len_of)
        server.log.clear()
        adapter.put_final("a", io.BytesIO(BYTES[:size]), inspect=lambda reader: reader.read(1))
        sent = sum(len(request.body) for request in server.log if request.operation in ("PutObject", "UploadPart"))
        assert size <= sent < size + 10_000
        assert any("Copy" in request.operation for request in server.log)
        reads = [request for request in server.log if request.operation == "GetObject"]
        assert len([request for request in reads if ".digest" not in request.target]) == 1  # by the inspector
        assert [name for name in server.objects if "/temp" in name] == []
        adapter.close()


def len_of(reader):
    assert len(reader.read()) == reader.size


def test_a_local_put_is_a_second_name(local, tmp_path):
    inodes = []

    def look(reader):
        inodes.extend(path.stat().st_ino for path in (tmp_path / "temp").rglob("*/00001"))

    local.put_final("a", BYTES[:MIB], content_type="text/plain", inspect=look)
    assert inodes == [(tmp_path / "final" / "a").stat().st_ino]


# ---- assemble


def put_parts(adapter, datas, session="s"):
    return [adapter.put_temp_part(session, number, data) for number, data in enumerate(datas, 1)]


@pytest.mark.parametrize("stated", ["parts", "keys", "listed"])
@few
def test_an_assembly_is_inspected(adapter, stated):
    datas = [b"", BYTES[: 6 * MIB], b"", BYTES[:7], BYTES[5:100], b""]
    parts = put_parts(adapter, datas)
    given = {"parts": parts, "keys": [part.key for part in parts], "listed": adapter.list_temp_parts("s")}[stated]
    whole, looks = b"".join(datas), [Look(adapter), Look(adapter)]
    final = adapter.assemble("a", given, size=len(whole), sha256=digest(whole), inspect=looks)
    assert final.sha256 == digest(whole)
    for look in looks:
        assert look.seen == [(f"{adapter.prefix}a", len(whole), digest(whole), [])]
    with pytest.raises(ContentRejected):
        adapter.assemble("b", given, inspect=Look(adapter, ContentRejected("no")))
    assert keys(adapter) == [final.key] and len(adapter.list_temp_parts("s")) == len(datas)


@few
def test_the_same_part_twice_and_out_of_order(adapter):
    one, two = put_parts(adapter, [b"one", b"two"])
    look = Look(adapter)
    adapter.assemble("a", [two, one.key, two], inspect=look)
    assert look.seen[0][2] == digest(b"twoonetwo")


@pytest.mark.parametrize("stated", ["parts", "keys"])
@pytest.mark.parametrize("size", [10, 6 * MIB])
@few
def test_a_part_that_is_replaced_meanwhile(adapter, stated, size):
    parts = put_parts(adapter, [BYTES[:size], b"harmless"])

    def replace(reader):
        reader.read()
        adapter.put_temp_part("s", 2, b"a virus!")

    with pytest.raises(ContentMismatch):
        adapter.assemble("a", [str(part) if stated == "keys" else part for part in parts], inspect=replace)
    assert keys(adapter) == []

    def replace_before(reader):
        adapter.put_temp_part("s", 1, BYTES[1 : size + 1])
        reader.read()

    with pytest.raises(ContentMismatch):
        adapter.assemble("a", ["s/00001", "s/00002"], inspect=replace_before)
    assert keys(adapter) == []


@few
def test_parts_that_are_not_there(adapter):
    look = Look(adapter)
    (part,) = put_parts(adapter, [b"x"])
    with pytest.raises(ObjectNotFound):
        adapter.assemble("a", [part.key, "s/00002"], inspect=look)
    with pytest.raises(ContentMismatch):
        adapter.assemble("a", [TempPart(part.key, 1, 2, None)], inspect=look)
    with pytest.raises(ValueError, match="at least one"):
        adapter.assemble("a", [], inspect=look)
    assert not look.seen

    def delete(reader):
        adapter.delete_temp_part(part)

    with pytest.raises(ObjectNotFound):
        adapter.assemble("a", [part], inspect=delete)
    assert keys(adapter) == []


@pytest.mark.parametrize("server", ["versitygw", "minio"])
def test_parts_whose_digest_nobody_knows(server, request):
    adapter = make_s3(request.getfixturevalue(server), carry_digest=False)
    part = adapter.put_temp_part("s", 1, iter([BYTES[: 11 * MIB]]))
    assert adapter.stat_final(adapter.put_final("x", iter([BYTES[: 11 * MIB]]))).sha256 is None
    look = Look(adapter)
    final = adapter.assemble("a", [part.key], inspect=look)
    assert look.seen[0][2] == digest(BYTES[: 11 * MIB]) == final.sha256

    def replace(reader):
        adapter.put_temp_part("s", 1, iter([BYTES[1 : 11 * MIB + 1]]))

    with pytest.raises(ContentMismatch):
        adapter.assemble("b", [part.key], inspect=replace)
    adapter.close()


# ---- the reader


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=20), min_size=1, max_size=5), st.data())
def test_the_reader_is_a_binary_file(pieces, data):
    opened = []

    def open_part(number):
        opened.append(io.BytesIO(pieces[number]))
        return opened[-1]

    whole = b"".join(pieces)
    ours, plain = PartsReader("a", list(map(len, pieces)), None, open_part), io.BytesIO(whole)
    assert (ours.size, ours.name, ours.readable(), ours.seekable()) == (len(whole), "a", True, True)
    assert (ours.content_type, ours.modified, ours.metadata) == ("application/octet-stream", None, {})
    for _ in range(data.draw(st.integers(0, 10))):
        name = data.draw(st.sampled_from(["read", "seek", "tell", "readline", "end", "readinto"]))
        if name == "seek":
            at = data.draw(st.integers(0, len(whole) + 3))
            assert ours.seek(at) == plain.seek(at)
        elif name == "end":
            assert ours.seek(-min(2, len(whole)), 2) == plain.seek(-min(2, len(whole)), 2)
        elif name == "readinto":
            rooms = bytearray(7), bytearray(7)
            assert ours.readinto(rooms[0]) == plain.readinto(rooms[1]) and rooms[0] == rooms[1]
        else:
            arguments = [data.draw(st.integers(-1, 30))] if name == "read" else []
            assert getattr(ours, name)(*arguments) == getattr(plain, name)(*arguments)
    ours.seek(0)
    assert b"".join(ours.chunks(3)) == whole
    ours.close()
    assert all(one.closed for one in opened)
    with pytest.raises(ValueError, match="closed"):
        ours.read(1)


# ---- interrupts and crashes


def test_an_interrupt_does_not_wait_for_a_slow_store(faults, caplog):
    adapter = make_s3(faults.endpoint)
    with faults.rule(operation="DeleteObjects", fault="delay", seconds=5), pytest.raises(KeyboardInterrupt):
        adapter.put_final("a", b"some bytes", inspect=Look(adapter, KeyboardInterrupt()))
    assert "left for a sweep" in caplog.text
    native.settle(10)
    assert adapter.sweep(timedelta()).parts == 1 and nothing_but(adapter)
    adapter.close()


def test_a_crash_leaves_what_a_sweep_removes(tmp_path):
    code = f"""
import os
from django.conf import settings
settings.configure()
from storage import LocalStorageAdapter
adapter = LocalStorageAdapter(temp_dir={str(tmp_path / "temp")!r}, final_dir={str(tmp_path / "final")!r})
adapter.put_final("a", b"x" * 1_000_000, inspect=lambda reader: os._exit(9))
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 9
    adapter = make_local(tmp_path)
    assert keys(adapter) == []
    assert adapter.sweep(timedelta()).parts == 1 and nothing_but(adapter)
    adapter.close()
