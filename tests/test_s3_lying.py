"""What a store says is checked: a server with one habit at a time, on each operation that it concerns.

Each test asserts right bytes or a typed error in time, nothing half-published and nothing left.
"""

import contextlib
import time
from datetime import UTC, datetime, timedelta

import pytest
from conftest import BYTES, make_s3
from servers import lying
from servers.lying import Lying, Object, Upload, etag_of
from test_contract import digest

from storage import ContentMismatch, ObjectExists, StorageError, StorageUnavailable

MiB = 1024 * 1024
PART = 5 * MiB
OLD, SMALL, LARGE = BYTES[7:50_007], BYTES[:100_000], BYTES[: PART + 100_000]
FINAL, TEMP = "f/final/", "f/temp/"
DEADLINE = 9.0
"""For any call, in seconds."""


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    return lying.secure(tmp_path_factory.mktemp("lying"))


@pytest.fixture(params=["http", "https"])
def secure(request, authority):
    return authority if request.param == "https" else None


class World:
    """A lying server, what was put there past its habits, and an adapter."""

    def __init__(self, server, adapter):
        self.server, self.adapter = server, adapter

    def final(self, name="x"):
        """The bytes of a final object, None if there is none."""
        found = self.server.objects.get(FINAL + name)
        return found and found.data

    def begin(self, name="x", parts=(SMALL,)):
        """An upload that somebody left, of an hour ago."""
        then = datetime.now(UTC) - timedelta(hours=1)
        upload = self.server.uploads[f"left/{name}"] = Upload(FINAL + name, {}, False, then)
        upload.parts |= {number: Object(data, etag_of(data), {}, None, then) for number, data in enumerate(parts, 1)}

    def read(self, name="x", **span):
        with self.adapter.get_final_stream(self.adapter.bucket, FINAL + name, **span) as reader:
            return reader.read()


@contextlib.contextmanager
def world(*habits, secure=None, page=1000, window=0, **options):
    options = {"part_size": PART, "connect_timeout": 2, "read_timeout": 2, "max_attempts": 1} | options
    with (
        Lying(*habits, secure=secure, page=page, window=window) as server,
        contextlib.closing(make_s3(server.endpoint, folder="f", **options)) as adapter,
    ):
        yield World(server, adapter)


def outcome(call, *args, **kwargs):
    """What a call gives, or the StorageError that it raises; in time, and never a defect of ours."""
    began = time.monotonic()
    try:
        return call(*args, **kwargs)
    except StorageError as error:
        assert error.code != "internal" and "defect" not in str(error), repr(error)
        return error
    finally:
        assert time.monotonic() - began < DEADLINE


def fails(call, *args, **kwargs):
    got = outcome(call, *args, **kwargs)
    assert isinstance(got, StorageError), f"no error: {got!r:.200}"
    return got


def right_or_error(expected, call, *args, **kwargs):
    got = outcome(call, *args, **kwargs)
    assert isinstance(got, StorageError) or got == expected, "wrong bytes"
    return got


# ---- the operations: what makes each, and what has to be there before


def put_large(w):
    return w.adapter.put_final("x", LARGE)


def copy_parts(w):
    w.server.put(f"{TEMP}s/00001", LARGE)
    w.server.put(f"{TEMP}s/00002", LARGE)
    return lambda: w.adapter.assemble("x", ["s/00001", "s/00002"], sha256=digest(LARGE * 2))


def copy_object(w):
    w.server.put(f"{TEMP}s/00001", SMALL)
    w.adapter.assemble("y", ["s/00001"])  # it shows that the server copies
    return lambda: w.adapter.assemble("x", ["s/00001"])


def with_object(call):
    def prepare(w):
        w.server.put(f"{FINAL}x", SMALL)
        return lambda: call(w)

    return prepare


def with_parts(call):
    def prepare(w):
        for number in (1, 2, 3):
            w.server.put(f"{TEMP}s/0000{number}", SMALL)
        return lambda: call(w)

    return prepare


def with_upload(w):
    w.begin()
    return lambda: w.adapter.sweep(timedelta())


CALLS = {
    "PutObject": lambda w: lambda: w.adapter.put_final("x", SMALL),
    "CreateMultipartUpload": lambda w: lambda: put_large(w),
    "UploadPart": lambda w: lambda: put_large(w),
    "CompleteMultipartUpload": lambda w: lambda: put_large(w),
    "UploadPartCopy": copy_parts,
    "CopyObject": copy_object,
    "HeadObject": with_object(lambda w: w.adapter.stat_final(w.adapter.bucket, f"{FINAL}x")),
    "GetObject": with_object(lambda w: w.read()),
    "ListObjectsV2": with_parts(lambda w: w.adapter.list_temp_parts("s")),
    "DeleteObject": with_object(lambda w: w.adapter.delete_final(w.adapter.bucket, f"{FINAL}x")),
    "DeleteObjects": with_parts(lambda w: w.adapter.delete_temp_parts("s")),
    "ListMultipartUploads": with_upload,
    "ListParts": with_upload,
}
WRITES = ("PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "UploadPartCopy", "CopyObject")
CONTENT = {"PutObject": SMALL, "CopyObject": SMALL, "UploadPartCopy": LARGE * 2}


def meet(w, operation, *habits, old=OLD):
    """The call that makes an operation, with what is there before, and the habits from then on."""
    call = CALLS[operation](w)
    if operation in WRITES and old is not None:
        w.server.put(f"{FINAL}x", old)
    w.server.become(*habits)
    w.server.log.clear()
    return call


def is_as_it_was(w, operation):
    if operation in WRITES:
        assert w.final() == OLD
        assert not w.server.uploads
    assert all("uploadId" not in request.query or request.query["uploadId"] for request in w.server.log)


# ---- success has what success must have


@pytest.mark.parametrize("operation", CALLS)
@pytest.mark.parametrize("kind", lying.PAGES)
def test_a_page_is_no_success(kind, operation):
    if operation == "DeleteObject" and kind in ("nothing", "blanks"):
        pytest.skip("some stores answer so")
    with world() as w:
        error = fails(meet(w, operation, lying.page(kind, on=(operation,))))
        assert isinstance(error, StorageUnavailable)
        is_as_it_was(w, operation)


@pytest.mark.parametrize("kind", lying.PAGES)
def test_an_endpoint_that_gives_pages_is_not_healthy(kind):
    with world(lying.page(kind)) as w:
        assert isinstance(fails(w.adapter.check_health), StorageUnavailable)
        assert isinstance(fails(w.adapter.put_final, "x", SMALL), StorageUnavailable)
        assert isinstance(fails(w.adapter.put_final, "x", LARGE), StorageUnavailable)


@pytest.mark.parametrize("operation", ["PutObject", "CompleteMultipartUpload", "CopyObject"])
def test_a_page_after_the_deed_is_settled_by_looking(operation):
    with world() as w:
        got = outcome(meet(w, operation, lying.page("html", on=(operation,), carried_out=True)))
        assert not isinstance(got, StorageError), got
        assert w.final() == CONTENT.get(operation, LARGE) and not w.server.uploads


HABITS_OF_SUCCESS = [
    *[
        (operation, lying.no_etag(on=(operation,)))
        for operation in ("PutObject", "UploadPart", "HeadObject", "GetObject")
    ],
    ("CreateMultipartUpload", lying.no_upload_id()),
    ("CreateMultipartUpload", lying.no_upload_id(empty=True)),
    *[(operation, lying.no_etag_in_result(on=(operation,))) for operation in lying.RESULTS],
    *[(operation, lying.wrong_element(on=(operation,))) for operation in lying.RESULTS],
    *[(operation, lying.wrong_element(on=(operation,))) for operation in ("CreateMultipartUpload", *lying.LISTS)],
]


@pytest.mark.parametrize(
    ("operation", "habit"), HABITS_OF_SUCCESS, ids=lambda value: value if isinstance(value, str) else value.name
)
def test_a_success_that_lacks_something(operation, habit):
    """What is a commit was carried out, so that a look settles it."""
    with world() as w:
        got = outcome(meet(w, operation, habit))
        if operation in ("PutObject", "CompleteMultipartUpload", "CopyObject"):
            assert not isinstance(got, StorageError) and w.final() == CONTENT.get(operation, LARGE)
        elif operation in lying.READS:
            assert isinstance(got, StorageUnavailable) or got == SMALL or got.size == len(SMALL)
        else:
            assert isinstance(got, StorageUnavailable), got
            if operation != "CreateMultipartUpload":
                is_as_it_was(w, operation)
            assert operation not in WRITES or w.final() == OLD
        assert all(request.query.get("uploadId", "x") for request in w.server.log)


@pytest.mark.parametrize("operation", [*WRITES, "GetObject", "HeadObject", "ListObjectsV2", "DeleteObjects"])
@pytest.mark.parametrize("status", [203, 204, 206])
def test_another_status_is_no_success(status, operation):
    with world() as w:
        habit = lying.says_status(status, on=(operation,), carried_out=False)
        error = fails(meet(w, operation, habit))
        assert not isinstance(error, ContentMismatch)
        is_as_it_was(w, operation)


@pytest.mark.parametrize("operation", ["PutObject", "UploadPart"])
def test_a_success_before_the_body_was_read(operation, secure):
    with world(secure=secure, window=65536, part_size=8 * MiB) as w:
        data = BYTES[: 7 * MiB] if operation == "PutObject" else BYTES[: 15 * MiB]
        w.server.put(f"{FINAL}x", OLD)
        w.server.become(lying.early_success(on=(operation,)))
        fails(w.adapter.put_final, "x", data)
        assert w.final() == OLD and not w.server.uploads


@pytest.mark.parametrize("kind", ["nothing", "html", "blanks"])
def test_nothing_counts_as_deleted_that_is_still_there(kind):
    with world() as w:
        fails(meet(w, "DeleteObjects", lying.page(kind, on=("DeleteObjects",))))
        assert len(w.server.objects) == 3


@pytest.mark.parametrize("operation", CALLS)
def test_our_token_is_not_repeated(operation):
    token = "FwoGZXIvYXdzEBYaDOurToken"
    with world(security_token=token) as w:
        error = outcome(meet(w, operation, lying.echoes_token(on=(operation,))))
        assert not isinstance(error, StorageError) or "****" in str(error) or operation == "HeadObject"
        assert token not in str(error) and token not in repr(error)


# ---- lengths and encodings


@pytest.mark.parametrize("size", [0, 10, 700_000])
@pytest.mark.parametrize("habit", [lying.chunked(), lying.until_close()], ids=lambda habit: habit.name)
def test_answers_without_a_length(habit, size, secure):
    with world(habit, secure=secure, max_attempts=2) as w:
        w.server.put(f"{FINAL}x", BYTES[:size])
        assert outcome(w.read) == BYTES[:size]
        assert outcome(w.read, start=5, length=4) == BYTES[:size][5:9]
        assert outcome(w.adapter.stat_final, w.adapter.bucket, f"{FINAL}x").size == size


@pytest.mark.parametrize("ranges", [None, lying.range_says_200(), lying.range_ignored()])
@pytest.mark.parametrize("size", [0, 1, 2, len(SMALL)])
def test_a_head_without_a_length(size, ranges):
    with world(lying.no_length(), *([ranges] if ranges else [])) as w:
        w.server.put(f"{FINAL}x", SMALL[:size])
        assert outcome(w.adapter.stat_final, w.adapter.bucket, f"{FINAL}x").size == size
        right_or_error(SMALL[:size][1:2], w.read, start=1, length=1)
        assert outcome(w.read, start=5, length=0) == b""
        assert outcome(w.read, start=10**6, length=5) == b""


@pytest.mark.parametrize("sent", [lying.chunked(), lying.until_close()], ids=lambda habit: habit.name)
@pytest.mark.parametrize("seed", range(12))
def test_a_part_without_a_length_that_says_it_is_all(sent, seed):
    """Now and then: what follows may be asked for by a range that is answered rightly."""
    with world() as w:
        w.server.put(f"{FINAL}x", SMALL)
        w.server.become(sent, lying.range_says_200().sometimes(0.5), seed=seed)
        right_or_error(SMALL[1:], w.read, start=1)
        right_or_error(SMALL[1:2], w.read, start=1, length=1)
        right_or_error(SMALL[:1], w.read, length=1)


@pytest.mark.parametrize("labelled", [True, False])
def test_what_a_proxy_has_compressed_is_not_the_object(labelled):
    """Where it does not say so, the SHA-256 tells."""
    with world() as w:
        final = w.adapter.put_final("x", b"compressible " * 10_000)
        w.server.become(lying.gzipped(labelled=labelled))
        right_or_error(b"compressible " * 10_000, w.read)
        with contextlib.suppress(StorageError), w.adapter.get_final_stream(final) as reader:
            assert reader.read(13) == b"compressible " or not labelled


def test_an_object_does_not_come_byte_by_byte():
    with world(lying.cut_short(1)) as w:
        w.server.put(f"{FINAL}x", SMALL)
        fails(w.read)
        assert len(w.server.log) < 40


ABSURD = [str(4 << 60), str(6 << 40), "9" * 400, "-5", "1e9", "+5", "0x10", "1 2", ""]


@pytest.mark.parametrize("value", ABSURD, ids=lambda value: f"{value:.20}")
@pytest.mark.parametrize("operation", ["HeadObject", "GetObject"])
def test_absurd_lengths(operation, value):
    with world() as w:
        error = fails(meet(w, operation, lying.length_says(value, on=(operation,))))
        assert not isinstance(error, FileNotFoundError)


@pytest.mark.parametrize("value", [str(4 << 60), "9" * 400, "-5", "1e9"], ids=lambda value: f"{value:.20}")
def test_absurd_sizes_of_parts(value):
    """Nothing is joined from a part of which the server tells such a size."""
    with world() as w:
        w.server.put(f"{TEMP}s/00001", SMALL)
        w.server.become(lying.length_says(value))
        fails(w.adapter.assemble, "x", ["s/00001"])
        assert w.final() is None and not w.server.uploads
        w.server.become(lying.sizes_say(value))
        fails(w.adapter.list_temp_parts, "s")


# ---- ranges


RANGES = [
    lying.range_aligned(),
    lying.range_from_start(),
    lying.range_shorter(),
    lying.range_longer(),
    *[lying.range_total(total) for total in ("/*", "", "/-5", "/1", "/" + "9" * 400, "/x")],
    lying.range_unlabelled(),
    lying.range_ignored(),
    lying.range_says_200(),
    lying.range_body(10),
    lying.range_body(-10),
    lying.whole_as_206(),
]


@pytest.mark.parametrize("habit", RANGES, ids=lambda habit: habit.name)
def test_a_range_is_the_range_that_was_asked_for(habit):
    with world(habit, max_attempts=2) as w:
        data = BYTES[: 4 * MiB]
        w.server.put(f"{FINAL}x", data)
        for start, length in ((5000, 100), (3 * MiB, None), (0, 10), (4 * MiB - 5, 5), (1, 2 * MiB)):
            end = None if length is None else start + length
            right_or_error(data[start:end], w.read, start=start, length=length)
        right_or_error(data, w.read)


@pytest.mark.parametrize("habit", RANGES, ids=lambda habit: habit.name)
def test_a_seek_reads_what_is_there(habit):
    with world(habit, max_attempts=2) as w:
        data = BYTES[: 4 * MiB]
        w.server.put(f"{FINAL}x", data)

        def seek():
            with w.adapter.get_final_stream(w.adapter.bucket, f"{FINAL}x") as reader:
                reader.seek(3 * MiB + 7)
                return reader.read(100)

        right_or_error(data[3 * MiB + 7 :][:100], seek)


@pytest.mark.parametrize("habit", RANGES, ids=lambda habit: habit.name)
def test_a_download_that_was_cut_goes_on_with_the_right_bytes(habit):
    with world(lying.cut_short(MiB).first(1), habit, max_attempts=2) as w:
        data = BYTES[: 4 * MiB]
        w.server.put(f"{FINAL}x", data)
        right_or_error(data, w.read)


# ---- which object


@pytest.mark.parametrize("how", ["cut", "seek"])
@pytest.mark.parametrize("deaf", [True, False], ids=["If-Match ignored", "If-Match honoured"])
def test_two_objects_are_never_stitched(how, deaf):
    one, two = b"1" * (4 * MiB), b"2" * (4 * MiB)
    habits = [lying.ignores("if-match")] if deaf else []
    cuts = [lying.cut_short(MiB).first(1)] if how == "cut" else []
    with world(*habits, *cuts, lying.replaced_by(two), max_attempts=2) as w:
        w.server.put(f"{FINAL}x", one)

        def read():
            with w.adapter.get_final_stream(w.adapter.bucket, f"{FINAL}x") as reader:
                if how == "cut":
                    return reader.read()
                first = reader.read(100)
                reader.seek(3 * MiB)
                return first + reader.read(100)

        assert isinstance(fails(read), ContentMismatch)


def test_weak_etags():
    with world(lying.weak_etags(), max_attempts=2) as w:
        data = BYTES[: 4 * MiB]
        w.server.put(f"{FINAL}x", data)
        w.server.become(lying.weak_etags(), lying.cut_short(MiB).first(1))
        assert outcome(w.read) == data
        with w.adapter.get_final_stream(w.adapter.bucket, f"{FINAL}x") as reader:
            reader.seek(3 * MiB)
            assert reader.read(10) == data[3 * MiB :][:10]
        call = meet(w, "UploadPartCopy", lying.weak_etags())
        assert not isinstance(outcome(call), StorageError)
        assert w.final() == LARGE * 2
        assert all(not request.headers.get("if-match", "").startswith("W/") for request in w.server.log)


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_a_store_that_ignores_if_none_match_is_refused(data):
    """Never a silent overwrite: the store is found out beside the first such put."""
    with world(lying.ignores("if-none-match")) as w:
        w.server.put(f"{FINAL}x", OLD)
        fails(w.adapter.put_final, "x", data, overwrite=False)
        assert w.final() == OLD and not w.server.uploads
        fails(w.adapter.put_final, "y", data, overwrite=False)
        assert w.adapter.put_final("x", data).size == len(data)


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_who_accepts_it_looks_first(data):
    with world(lying.ignores("if-none-match"), conditional_writes="look") as w:
        w.server.put(f"{FINAL}x", OLD)
        assert isinstance(fails(w.adapter.put_final, "x", data, overwrite=False), ObjectExists)
        assert w.final() == OLD
        for _ in range(2):  # the same once more is a success
            assert w.adapter.put_final("y", data, overwrite=False).size == len(data)
        assert w.final("y") == data and not w.server.uploads
        assert not any("if-none-match" in request.headers for request in w.server.log)


@pytest.mark.parametrize("checksum", ["auto", "off", "sha256", "crc32"])
def test_a_bucket_that_locks_objects_gets_what_it_asks_for(checksum):
    with world(lying.locks_objects(), checksum=checksum) as w:
        w.adapter.check_health()
        w.adapter.put_temp_part("s", 1, SMALL)
        for data in (SMALL, LARGE, b""):
            w.adapter.put_final("x", data)
            assert w.final() == data
        w.adapter.put_final("y", LARGE, overwrite=False)
        refused = [request for request in w.server.log if request.operation in lying.PUTS][1:]
        assert refused, "nothing was put"


def test_a_store_that_honours_if_none_match():
    with world() as w:
        w.server.put(f"{FINAL}x", OLD)
        assert isinstance(fails(w.adapter.put_final, "x", SMALL, overwrite=False), ObjectExists)
        assert w.adapter.put_final("y", SMALL, overwrite=False).size == len(SMALL)
        assert set(w.server.objects) == {f"{FINAL}x", f"{FINAL}y"}


# ---- listings


ENDLESS = [
    lying.fresh_tokens(),
    lying.two_pages_in_turn(),
    lying.keys_backwards(),
    lying.pages_without_keys(),
    lying.same_token(),
]


def put_parts(w, numbers=range(1, 8)):
    for number in numbers:
        w.server.put(f"{TEMP}s/{number:05}", b"%05d" % number)


def put_finals(w, names="abcdefg"):
    for name in names:
        w.server.put(f"{FINAL}s/{name}", name.encode())


@pytest.mark.parametrize("habit", ENDLESS, ids=lambda habit: habit.name)
@pytest.mark.parametrize("objects", ["a", "abcdefg"])
@pytest.mark.parametrize("prefix", ["", f"{FINAL}s/"], ids=["all", "some"])
def test_a_listing_of_finals_that_does_not_advance_is_an_error(habit, objects, prefix):
    with world(habit, page=3) as w:
        put_finals(w, objects)
        fails(lambda: list(w.adapter.list_final(prefix)))
        assert len(w.server.log) < 2000


@pytest.mark.parametrize("habit", ENDLESS, ids=lambda habit: habit.name)
@pytest.mark.parametrize("parts", [1, 7])
@pytest.mark.parametrize("method", ["list_temp_parts", "delete_temp_parts", "sweep"])
def test_a_listing_that_does_not_advance_is_an_error(habit, method, parts):
    with world(habit, page=3) as w:
        put_parts(w, range(1, parts + 1))
        argument = timedelta() if method == "sweep" else "s"
        fails(getattr(w.adapter, method), argument)
        assert len(w.server.log) < 2000


ODD = [
    (lying.no_token(), 3),
    (lying.twice_at_the_seam(), 3),
    (lying.unordered(), 3),
    (lying.unordered(), 1000),
    (lying.ignores_prefix(), 1000),
]


@pytest.mark.parametrize(("habit", "page"), ODD, ids=lambda value: getattr(value, "name", value))
def test_odd_listings(habit, page):
    """Each part once, in order, or an error; and nothing beside them is touched."""
    with world(habit, page=page) as w:
        put_parts(w)
        w.server.put(f"{TEMP}other/00001", b"other")
        w.server.put("elsewhere", b"not ours")
        w.server.put("f/tempest/s/00001", b"not ours")
        parts = outcome(w.adapter.list_temp_parts, "s")
        if not isinstance(parts, StorageError):
            assert [part.part_number for part in parts] == list(range(1, 8))
            assert w.adapter.assemble("x", parts).size == 35
            assert w.final() == b"".join(b"%05d" % number for number in range(1, 8))
        deleted = outcome(w.adapter.delete_temp_parts, "s")
        left = {key for key in w.server.objects if not key.startswith(FINAL)}
        assert {f"{TEMP}other/00001", "elsewhere", "f/tempest/s/00001"} <= left
        if not isinstance(deleted, StorageError):
            assert deleted == 7 and len(left) == 3


@pytest.mark.parametrize(("habit", "page"), ODD, ids=lambda value: getattr(value, "name", value))
def test_odd_listings_of_finals(habit, page):
    """Each object once, in order and below the prefix, or an error."""
    with world(habit, page=page) as w:
        put_finals(w)
        for key in (f"{TEMP}s/00001", "elsewhere", f"{FINAL}t/a", f"{FINAL}s//b", f"{FINAL}s/../b", "f/finals/s/x"):
            w.server.put(key, b"other")
        for after in ("", f"{FINAL}s/c"):
            found = outcome(lambda after=after: list(w.adapter.list_final(f"{FINAL}s/", start_after=after)))
            if not isinstance(found, StorageError):
                wanted = [f"{FINAL}s/{name}" for name in "abcdefg"]
                assert [final.key for final in found] == [key for key in wanted if key > after]


def test_a_page_without_a_token_goes_on():
    with world(lying.no_token(), page=3) as w:
        put_parts(w)
        assert [part.part_number for part in w.adapter.list_temp_parts("s")] == list(range(1, 8))
        assert any("start-after" in request.query for request in w.server.log)
        assert w.adapter.delete_temp_parts("s") == 7 and not w.server.objects


def test_numbers_above_the_limit_are_no_parts():
    with world() as w:
        put_parts(w, [1, 9_999, 10_000, 10_001, 99_999])
        assert [part.part_number for part in w.adapter.list_temp_parts("s")] == [1, 9_999, 10_000]


@pytest.mark.parametrize("value", ["", "yesterday", "0001-01-01T00:00:00Z"], ids=["none", "nonsense", "year one"])
def test_what_has_no_date_is_never_old(value):
    with world(lying.without_dates(value)) as w:
        put_parts(w, [1])
        outcome(w.adapter.sweep, timedelta(hours=1))
        assert w.server.objects


def test_a_session_is_as_old_as_its_newest_part_in_any_order():
    with world(lying.unordered(1)) as w:
        for session in "abcd":
            for number in range(1, 5):
                w.server.put(f"{TEMP}{session}/{number:05}", b"part")
                w.server.objects[f"{TEMP}{session}/{number:05}"].modified -= timedelta(days=number - 1)
        outcome(w.adapter.sweep, timedelta(hours=1))
        assert len(w.server.objects) == 16


def test_a_sweep_outside_of_our_prefixes_deletes_nothing():
    with world(lying.ignores_prefix()) as w:
        put_parts(w, [1])
        w.server.put("elsewhere/s/00001", b"not ours")
        w.begin()
        w.server.uploads["theirs"] = Upload("elsewhere/x", {}, False, datetime.now(UTC) - timedelta(days=2))
        outcome(w.adapter.sweep, timedelta())
        assert "elsewhere/s/00001" in w.server.objects and "theirs" in w.server.uploads


def test_parts_whose_markers_circle():
    with world(lying.circling_markers()) as w:
        w.begin()
        outcome(w.adapter.sweep, timedelta())
        assert w.server.operations().count("ListParts") < 50


@pytest.mark.parametrize("status", [501, 405, 403])
@pytest.mark.parametrize("operation", ["ListMultipartUploads", "ListParts"])
def test_a_sweep_where_uploads_cannot_be_listed(operation, status):
    code = {501: "NotImplemented", 405: "MethodNotAllowed", 403: "AccessDenied"}[status]
    with world(lying.fails(status, code, on=(operation,))) as w:
        put_parts(w)
        w.begin()
        outcome(w.adapter.sweep, timedelta())
        assert not any(key.startswith(TEMP) for key in w.server.objects)


# ---- checksums


@pytest.mark.parametrize("status", [400, 500, 501])
@pytest.mark.parametrize("at", ["CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"])
def test_a_store_that_stumbles_over_checksums(at, status):
    codes = {400: "InvalidArgument", 500: "InternalError", 501: "NotImplemented"}
    with world(lying.refuses_checksums(at, status, codes[status])) as w:
        assert not isinstance(outcome(w.adapter.put_final, "x", LARGE), StorageError)
        assert w.final() == LARGE and not w.server.uploads
        w.server.log.clear()
        w.adapter.put_final("y", LARGE)
        assert w.server.operations()[0] == "CreateMultipartUpload" and len(w.server.log) == 4, "it is remembered"


@pytest.mark.parametrize("value", ["AAAAAA==", "nonsense", ""], ids=["four bytes", "nonsense", "empty"])
@pytest.mark.parametrize("where", ["reads", "result"])
def test_a_checksum_that_is_none_is_not_an_expectation(where, value):
    habit = lying.checksum_says(value) if where == "reads" else lying.result_checksum_says(value)
    with world(habit) as w:
        w.adapter.put_final("x", iter([LARGE]))
        assert outcome(w.read) == LARGE


def test_a_differing_checksum_is_settled_at_the_commit():
    """Never by the reader: what was acknowledged can be read."""
    with world(lying.result_checksum_says("AAAAAAAAAAA=")) as w:
        got = outcome(w.adapter.put_final, "x", iter([LARGE]))
        if isinstance(got, StorageError):
            assert isinstance(got, ContentMismatch | StorageUnavailable)
        else:
            assert outcome(w.read) == LARGE


# ---- the wire


SOME = (
    "PutObject",
    "UploadPart",
    "CompleteMultipartUpload",
    "GetObject",
    "HeadObject",
    "ListObjectsV2",
    "DeleteObject",
)


@pytest.mark.parametrize("operation", SOME)
@pytest.mark.parametrize("status", lying.INTERIM)
def test_interim_answers(status, operation, secure):
    with world(secure=secure) as w:
        got = outcome(meet(w, operation, lying.interim(status, times=3, on=(operation,))))
        assert not isinstance(got, StorageError), got
        if operation in WRITES:
            assert w.final() == CONTENT.get(operation, LARGE)


@pytest.mark.parametrize("at", [0, 3 * MiB])
@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("status", [100, 103])
def test_interim_answers_while_a_body_is_sent(status, overwrite, at, secure):
    """Sending goes on."""
    with world(lying.interim_while_reading(status, at), secure=secure, window=65536, part_size=8 * MiB) as w:
        got = outcome(w.adapter.put_final, "x", BYTES[: 7 * MiB], overwrite=overwrite)
        assert not isinstance(got, StorageError), got
        assert w.final() == BYTES[: 7 * MiB]


@pytest.mark.parametrize("operation", ["UploadPart", "GetObject", "ListObjectsV2"])  # a lost PutObject is looked for
def test_interim_answers_have_a_bound(operation, secure):
    with world(secure=secure) as w:
        fails(meet(w, operation, lying.endless_interim(on=(operation,))))


def test_an_expectation_that_fails_is_not_repeated(secure):
    with world(lying.expectation_failed(), secure=secure, part_size=8 * MiB) as w:
        got = outcome(w.adapter.put_final, "x", BYTES[: 3 * MiB], overwrite=False)
        assert not isinstance(got, StorageError), got
        assert w.final() == BYTES[: 3 * MiB]


BEHIND = [lying.more_behind(), lying.more_in_another_record(), lying.more_later(), lying.more_behind(b"\r\n")]


@pytest.mark.parametrize("habit", BEHIND, ids=["same write", "another record", "later", "an empty line"])
def test_nothing_behind_an_answer_is_taken_for_the_next(habit, secure):
    with world(habit, secure=secure, max_attempts=2) as w:
        for name in "xy":
            w.server.put(FINAL + name, name.encode() * 1000)
        for name in "xyxy":
            assert outcome(w.read, name) == name.encode() * 1000
            time.sleep(0.1)  # what comes later is there when the next request is made
        assert not isinstance(outcome(w.adapter.put_final, "z", SMALL), StorageError)
        assert w.final("z") == SMALL


@pytest.mark.parametrize("operation", ["UploadPart", "GetObject", "ListObjectsV2"])  # a lost PutObject is looked for
@pytest.mark.parametrize(
    "habit", [lying.huge_head(), lying.endless_headers(), lying.dripping_head(0.3)], ids=lambda habit: habit.name
)
def test_heads_have_a_bound(habit, operation, secure):
    with world(secure=secure) as w:
        fails(meet(w, operation, habit.only(operation)))


def test_trailers_have_a_bound(secure):
    with world(lying.endless_trailers(), secure=secure) as w:
        w.server.put(f"{FINAL}x", SMALL)
        right_or_error(SMALL, w.read)


@pytest.mark.parametrize("named", [True, False], ids=["with a length", "without"])
@pytest.mark.parametrize("status", [200, 400, 500])
@pytest.mark.parametrize("operation", ["PutObject", "GetObject", "CompleteMultipartUpload", "ListObjectsV2"])
def test_bodies_that_are_no_objects_have_a_bound(operation, status, named):
    with world() as w:
        fails(meet(w, operation, lying.endless_body(status, on=(operation,), named=named)))
        is_as_it_was(w, operation)


@pytest.mark.parametrize("operation", ["PutObject", "GetObject", "ListObjectsV2", "CompleteMultipartUpload"])
def test_text_of_a_server_is_escaped_and_cut(operation):
    message = "\x1b[31mred\x07 line\nanother&#13;&#27;[0m\x85\u2028\u202e" + "long " * 10_000
    with world() as w:
        habit = lying.fails(400, "Told\x1bSo", (operation,), message.replace("\x1b", "&#155;").replace("\x07", ""))
        error = fails(meet(w, operation, habit))
        assert len(str(error)) < 1000
        assert str(error).isprintable(), ascii(str(error))


@pytest.mark.parametrize("operation", ["PutObject", "CompleteMultipartUpload", "CopyObject"])
@pytest.mark.parametrize("carried_out", [True, False])
def test_a_lost_answer_is_settled_by_looking(carried_out, operation, secure):
    with world(secure=secure) as w:
        got = outcome(meet(w, operation, lying.hangs_up((operation,), carried_out)))
        if carried_out:
            assert not isinstance(got, StorageError) and w.final() == CONTENT.get(operation, LARGE)
        else:
            assert isinstance(got, StorageError)
            is_as_it_was(w, operation)


# ---- copies, descriptions, conditions and deletes that are not what they seem


def test_a_store_that_copies_all_where_a_range_is_asked_for():
    """It shows before anything is published, and the bytes are sent instead."""
    with world(lying.copies_all()) as w:
        pieces = [BYTES[: 2 * PART], BYTES[:100], BYTES[100 : 2 * PART]]
        parts = [w.adapter.put_temp_part("s", number, piece) for number, piece in enumerate(pieces, 1)]
        for name in "xy":
            assert outcome(w.adapter.assemble, name, parts).size == 4 * PART
            assert w.final(name) == b"".join(pieces)
        assert w.server.operations().count("UploadPartCopy") <= 4  # of the first join: the second knows
        assert not w.server.uploads


@pytest.mark.parametrize("instead", ["", "<Key></Key>", "<Key>f/temp/s/0000%zz</Key>"])
@pytest.mark.parametrize("method", ["list_temp_parts", "delete_temp_parts"])
def test_an_entry_without_a_key_is_an_error(instead, method):
    with world(lying.keys_say("00002", instead)) as w:
        put_parts(w, [1, 2, 3])
        assert isinstance(fails(getattr(w.adapter, method), "s"), StorageUnavailable)
        assert len(w.server.objects) == 3


TIMES = ["2020-01-01T00:00:00Z", "2038-01-01T00:00:00Z", "0000-01-01T00:00:00Z", None]


@pytest.mark.parametrize("before", TIMES)
@pytest.mark.parametrize("after", TIMES)
def test_of_a_key_that_is_listed_twice_the_younger_counts(before, after):
    with world(lying.told_twice(before, after)) as w:
        put_parts(w, [1])
        assert len(outcome(w.adapter.list_temp_parts, "s")) == 1
        swept = outcome(w.adapter.sweep, timedelta(days=1))
        old = before == after == TIMES[0]
        assert (swept.parts, len(w.server.objects)) == ((1, 0) if old else (0, 1))


def test_sizes_of_parts_have_bounds():
    with world(lying.parts_of_bytes(5 << 30)) as w:
        w.begin()
        swept = outcome(w.adapter.sweep, timedelta(minutes=5), dry_run=True)
        assert isinstance(swept, StorageError) or swept.size == 1000 * (5 << 30)
        w.server.become(lying.parts_of_bytes(5 << 40))
        fails(w.adapter.sweep, timedelta(minutes=5), dry_run=True)


def test_a_condition_is_not_believed_where_it_was_tried_on_nothing():
    with world(lying.ignores("if-none-match"), lying.page_404(("HeadObject",)).first(1)) as w:
        for name in "xyz":
            w.server.put(FINAL + name, OLD)
            fails(w.adapter.put_final, name, SMALL, overwrite=False)
            assert w.final(name) == OLD


def test_a_page_that_says_404_to_a_delete_is_none():
    with world(lying.page_404()) as w:
        w.server.put(f"{FINAL}x", OLD)
        fails(w.adapter.delete_final, w.adapter.bucket, f"{FINAL}x")
        assert w.final() == OLD


@pytest.mark.parametrize("size", [100_000, PART + 1])
def test_the_same_bytes_of_before_are_no_success(size):
    """A put that fails has not given them the description that it was to give."""
    data = BYTES[:size]
    with world() as w:
        w.adapter.put_final("x", data, content_type="text/plain", metadata={"a": "1"})
        w.server.become(lying.says_status(500, on=("PutObject", "CompleteMultipartUpload"), carried_out=False))
        for changed in ({"content_type": "text/html", "metadata": {"a": "1"}}, {"metadata": {"a": "2"}}):
            fails(w.adapter.put_final, "x", data, **changed)
        w.server.become(lying.says_status(500, on=("PutObject", "CompleteMultipartUpload"), carried_out=True))
        assert (
            outcome(w.adapter.put_final, "x", data, content_type="text/html", metadata={"B": "é", "c": " d"}).size
            == size
        )


def test_an_encoding_of_the_way_tells_no_size():
    with world(lying.no_length(), lying.range_says_200(), lying.gzipped()) as w:
        w.server.put(f"{FINAL}x", BYTES[:1] * 5_000)
        fails(w.adapter.stat_final, w.adapter.bucket, f"{FINAL}x")
