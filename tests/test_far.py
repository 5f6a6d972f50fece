"""A store that is far away: ranges of an object are fetched side by side, and one of them may fail."""

import contextlib
import time
import uuid

import pytest
from conftest import BYTES, make_s3
from servers import FaultProxy, farline
from test_contract import digest

from storage import ContentMismatch, StoragePermissionError, StorageUnavailable

MiB = 1024 * 1024
DATA = BYTES[: 24 * MiB]
RANGE = 4 * MiB
"""What is fetched side by side, in bytes."""
CONNECTIONS = 16
"""The default of max_connections."""

pytestmark = pytest.mark.newest


class Far:
    """An adapter on a line of 20 MB/s a connection and 10 ms; `sure` is near, and sees the same objects."""

    def __init__(self, server, proxy):
        self.proxy, folder = proxy, uuid.uuid4().hex
        self.adapter = make_s3(proxy.endpoint, folder=folder, read_timeout=30, max_attempts=2)
        self.sure = make_s3(server, folder=folder)
        self.final = self.sure.put_final("far", DATA, size=len(DATA), sha256=digest(DATA))

    def gets(self):
        """The requests for the object, each with the first byte that it asked for."""
        found = self.proxy.log("GetObject")
        first = [
            int(entry.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0]) for entry in found
        ]
        return list(zip(first, found, strict=True))

    def read(self, size=-1, **options):
        self.proxy.clear()
        with self.adapter.get_final_stream(*self.final, **options) as stream:
            return stream.read(size)

    def close(self):
        self.adapter.close()
        self.sure.close()


@pytest.fixture(scope="module")
def proxy(versitygw, tmp_path_factory):
    folder = tmp_path_factory.mktemp("far")
    with farline(versitygw, folder, bandwidth=20, delay=10) as line, FaultProxy(line, folder) as proxy:
        yield proxy


@pytest.fixture
def far(versitygw, proxy):
    proxy.clear()
    with contextlib.closing(Far(versitygw, proxy)) as far:
        yield far


def test_ranges_are_fetched_side_by_side(far):
    assert far.read() == DATA
    gets = far.gets()
    assert 3 < len({entry.connection for _, entry in gets}) <= CONNECTIONS
    etags = {entry.headers.get("if-match") for _, entry in gets[1:]}
    assert len(etags) == 1 and None not in etags
    # Nothing twice but what the first request was still sending when it was cut off, and one range before that.
    assert sum(entry.sent for _, entry in gets) < len(DATA) + 4 * RANGE
    far.proxy.clear()
    assert far.adapter.stat_final(*far.final) == far.final  # the connections are kept
    assert far.proxy.log()[0].connection in {entry.connection for _, entry in gets}


@pytest.mark.parametrize(
    ("start", "length"), [(0, 1), (1_234_567, 15 * MiB + 1), (5, None), (len(DATA) - 3 * MiB, None)]
)
def test_parts_of_it(far, start, length):
    end = len(DATA) if length is None else start + length
    assert far.read(start=start, length=length) == DATA[start:end]
    assert all(first < end for first, _ in far.gets())


def test_jumps_between_ranges(far):
    far.proxy.clear()
    with far.adapter.get_final_stream(*far.final) as stream:
        for offset, size in [(0, 12 * MiB), (13 * MiB, 9), (20 * MiB, 3 * MiB), (1, 9 * MiB), (23 * MiB, -1)]:
            stream.seek(offset)
            assert stream.read(size) == DATA[offset : len(DATA) if size < 0 else offset + size]


@pytest.mark.parametrize("read", [3 * MiB, 4 * MiB, 6 * MiB])
def test_little_is_fetched_in_vain(far, read):
    assert far.read(read) == DATA[:read]
    time.sleep(0.2)
    assert len(far.gets()) > 1
    reached = read + 512 * 1024  # with what the stream has in its buffer
    assert sum(entry.sent for _, entry in far.gets()) <= reached + max(8 * MiB, 2 * reached)
    assert max(first for first, _ in far.gets()) + RANGE <= reached + max(8 * MiB, 2 * reached)


def test_who_looks_at_the_beginning_costs_one_request(far):
    for _ in range(2):  # also when the line is known
        assert far.read(100_000) == DATA[:100_000]
        assert len(far.gets()) == 1
        assert far.read() == DATA


def test_a_slow_reader_has_few_connections(far):
    far.proxy.clear()
    with far.adapter.get_final_stream(*far.final) as stream:
        for piece in iter(lambda: stream.read(256 * 1024), b""):
            time.sleep(0.05)
            assert piece
            assert far.proxy.connections() <= 2


@pytest.mark.parametrize("place", [0, MiB], ids=["at once", "in the middle"])
@pytest.mark.parametrize("fault", ["reset_down", "short_body"])
@pytest.mark.parametrize("skip", [1, 2, 4])
def test_a_range_that_is_cut_is_resumed(far, fault, place, skip):
    far.proxy.clear()
    with (
        far.proxy.rule(fault, "GetObject", skip=skip, times=1, at=place),
        far.adapter.get_final_stream(*far.final) as stream,
    ):
        assert stream.read() == DATA
    assert [entry for entry in far.proxy.log() if entry.fault]


@pytest.mark.parametrize("skip", [1, 2, 4])
def test_a_range_that_fails_once_is_asked_for_again(far, skip):
    far.proxy.clear()
    with (
        far.proxy.rule("status", "GetObject", status=503, skip=skip, times=1),
        far.adapter.get_final_stream(*far.final) as stream,
    ):
        assert stream.read() == DATA
    assert [entry for entry in far.proxy.log() if entry.fault]


@pytest.mark.parametrize(
    ("status", "kind"), [(403, StoragePermissionError), (412, ContentMismatch), (500, StorageUnavailable)]
)
def test_a_range_that_is_refused_ends_the_read_where_it_begins(far, status, kind):
    far.proxy.clear()
    got = bytearray()
    with (
        far.proxy.rule("status", "GetObject", status=status, skip=3),
        far.adapter.get_final_stream(*far.final) as stream,
        pytest.raises(kind),
    ):
        while piece := stream.read(MiB):
            got += piece
    assert DATA.startswith(got) and 2 * MiB < len(got) < len(DATA)


def test_a_server_that_gives_no_second_range_gives_all_by_the_first_request(far):
    far.proxy.clear()
    with (
        far.proxy.rule("status", "GetObject", status=403, skip=1),
        far.adapter.get_final_stream(*far.final) as stream,
    ):
        assert stream.read() == DATA
    assert len(far.gets()) == 2


def test_a_byte_that_changes_on_the_way(far):
    far.proxy.clear()
    with (
        far.proxy.rule("flip_down", "GetObject", skip=4, times=1, at=1000),
        far.adapter.get_final_stream(*far.final) as stream,
        pytest.raises(ContentMismatch),
    ):
        stream.read()


@pytest.mark.parametrize("skip", [1, 2])
def test_a_range_that_stalls_while_others_come_is_asked_for_elsewhere_once(far, skip):
    far.proxy.clear()
    with (
        far.proxy.rule("stall_down", "GetObject", skip=skip, times=1, at=MiB, seconds=60),
        far.adapter.get_final_stream(*far.final) as stream,
    ):
        assert stream.read() == DATA
    gets = far.gets()
    (stalled,) = [(first, entry.connection) for first, entry in gets if entry.fault]
    again = [entry for first, entry in gets if stalled[0] < first < stalled[0] + RANGE]
    assert len(again) == 1 and again[0].connection != stalled[1]


def test_an_object_that_is_replaced_meanwhile(far):
    with far.adapter.get_final_stream(*far.final) as stream:
        assert stream.read(6 * MiB) == DATA[: 6 * MiB]
        far.sure.put_final("far", DATA[::-1])
        with pytest.raises(ContentMismatch):
            stream.read()


def test_no_request_after_close(far):
    far.proxy.clear()
    stream = far.adapter.get_final_stream(*far.final)
    assert stream.read(8 * MiB) == DATA[: 8 * MiB]
    stream.close()
    known = len(far.gets())
    time.sleep(0.3)
    assert len(far.gets()) == known
