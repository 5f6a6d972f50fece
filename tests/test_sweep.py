"""Sweeping: what is old goes, and nothing that is young, spared or foreign."""

import asyncio
import contextlib
import io
import itertools
import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from email.utils import formatdate

import pytest
from conftest import ADAPTERS, BYTES, FULL, STAGING, make_local, make_memory, make_s3, s3_options, without_override
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import override_settings
from servers import STORES
from servers.careless import Careless

from storage import (
    MemoryStorageAdapter,
    ObjectNotFound,
    StorageError,
    StoragePermissionError,
    SweepReport,
    get_storage_adapter,
    native,
)
from storage.sweep import PLACE, parse_age, sweep

MiB = 1024 * 1024
PART = 5 * MiB
EVERYTHING = timedelta()
NOTHING = timedelta(hours=1)
AGE = timedelta(seconds=2)


def grow_old():
    """What is there is older than AGE after this; S3 tells times to the second."""
    time.sleep(AGE.total_seconds() + 1.2)


class Bucket:
    """What an adapter's server has, seen by another client."""

    def __init__(self, adapter, endpoint, client):
        self.adapter, self.name, self.client = adapter, endpoint.bucket, client
        self.temp, self.final = adapter._prefixes

    def begin(self, key, *parts):
        """Begins a multipart upload."""
        begun = self.client.create_multipart_upload(Bucket=self.name, Key=key)
        for number, data in enumerate(parts, 1):
            self.client.upload_part(Bucket=self.name, Key=key, UploadId=begun["UploadId"], PartNumber=number, Body=data)
        return key, begun["UploadId"]

    def open(self, upload):
        """Whether an upload is still open."""
        key, number = upload
        try:
            self.client.list_parts(Bucket=self.name, Key=key, UploadId=number)
        except self.client.exceptions.NoSuchUpload:
            return False
        return True

    def put(self, key, data=b"x"):
        self.client.put_object(Bucket=self.name, Key=key, Body=data)

    def has(self, key):
        listed = self.client.list_objects_v2(Bucket=self.name, Prefix=key)
        return key in [one["Key"] for one in listed.get("Contents", ())]


@pytest.fixture(params=["local", "memory", *(f"s3-{server}" for server in STORES)])
def adapter(request):
    with contextlib.closing(ADAPTERS[request.param](request)) as adapter:
        yield adapter


# How a sweep goes on is the same on each server: they differ in their listings, which other tests of many parts see.
ON_ONE_SERVER = pytest.mark.parametrize(
    "adapter", ["local", "memory", *(f"s3-{server}" for server in STORES if FULL or server != "minio")], indirect=True
)


@pytest.fixture
def bucket(store):
    with contextlib.closing(make_s3(store, part_size=PART)) as adapter, store.client() as client:
        yield Bucket(adapter, store, client)


def put(adapter, session, *numbers, data=b"0123456789"):
    return [adapter.put_temp_part(session, number, data) for number in numbers]


def numbers(adapter, session):
    return [part.part_number for part in adapter.list_temp_parts(session)]


# ---- ages


def test_what_is_old_goes_and_what_is_young_stays(adapter):
    put(adapter, "old", 1, 2, 3)
    put(adapter, "old-2", 7)
    put(adapter, "resumed", 1, 2)
    final = adapter.put_final("a/b", b"final")
    grow_old()
    put(adapter, "resumed", 3)
    put(adapter, "young", 1)
    assert adapter.sweep(AGE) == SweepReport(2, 4, 0, 40, True)
    assert [numbers(adapter, s) for s in ("old", "old-2", "resumed", "young")] == [[], [], [1, 2, 3], [1]]
    with adapter.get_final_stream(final) as stream:
        assert stream.read() == b"final"
    assert adapter.sweep(AGE) == SweepReport(0, 0, 0, 0, True)


def test_a_part_put_again_is_young(adapter):
    put(adapter, "session", 1, 2)
    grow_old()
    put(adapter, "session", 1)
    assert adapter.sweep(AGE) == SweepReport(0, 0, 0, 0, True)
    assert numbers(adapter, "session") == [1, 2]


def test_uploads_are_as_old_as_their_newest_part(bucket):
    adapter, temp, final = bucket.adapter, bucket.temp, bucket.final
    goes = [
        bucket.begin(f"{temp}alone/00001", b"12345"),
        bucket.begin(f"{temp}with-parts/00002"),
        bucket.begin(f"{temp}with-parts/00002", b"123"),
        bucket.begin(f"{temp}no-session", b"1"),
        bucket.begin(f"{final}a/b.pdf", b"1234567"),
        bucket.begin(f"{final}a/c.pdf"),
    ]
    slow = [bucket.begin(f"{temp}slow/00001", b"1"), bucket.begin(f"{final}slow", b"1")]
    beside = bucket.begin(f"{temp}live/00002", b"1")
    put(adapter, "with-parts", 1)
    put(adapter, "slow", 2)
    put(adapter, "live", 1)
    grow_old()
    for key, upload in slow:
        bucket.client.upload_part(Bucket=bucket.name, Key=key, UploadId=upload, PartNumber=2, Body=b"2")
    young = [bucket.begin(f"{temp}begun/00001"), bucket.begin(f"{final}a/b.pdf")]
    put(adapter, "live", 3)
    expected = SweepReport(1, 1, 6, 10 + 5 + 3 + 1 + 7, True)
    assert adapter.sweep(AGE, dry_run=True) == expected
    assert all(map(bucket.open, goes))
    assert adapter.sweep(AGE) == expected
    assert not any(map(bucket.open, goes))
    assert all(map(bucket.open, [*slow, beside, *young]))
    assert (numbers(adapter, "slow"), numbers(adapter, "live")) == ([2], [1, 3])
    assert adapter.sweep(EVERYTHING) == SweepReport(2, 3, 5, 30 + 2 + 2 + 1, True)


def test_a_wrong_clock_makes_nothing_seem_old(versitygw):
    def sweep_by(ahead, age):
        answers = {"Date": lambda: formatdate(time.time() + ahead, usegmt=True)}
        with Careless(versitygw, answers=answers) as server, contextlib.closing(make_s3(server.endpoint)) as adapter:
            put(adapter, "session", 1)
            return adapter.sweep(age).sessions

    assert sweep_by(7200, timedelta(hours=1)) == 0  # a server's that is ahead
    assert sweep_by(-7200, EVERYTHING) == 0  # one that is behind, or ours is ahead
    assert sweep_by(7200, EVERYTHING) == sweep_by(0, EVERYTHING) == 1


# ---- what is whose


def test_nothing_outside_the_prefixes_is_touched(bucket):
    temp, final, put, begin = bucket.temp, bucket.final, bucket.put, bucket.begin
    folder = temp.split("/")[0]
    objects = [
        f"{final}session/00001",
        f"{final}00001",
        f"{folder}/temp2/session/00001",
        f"{folder}/tem/session/00001",
        f"{folder}/session/00001",
        f"{folder}-other/temp/session/00001",
        f"{temp}notes.txt",
        f"{temp}session/notes.txt",
        f"{temp}session/1",
        f"{temp}session/00000",
        f"{temp}session/000001",
        f"{temp}session/00001.txt",
        f"{temp}session/deeper/00001",
        f"{temp}session/00001/deeper",
    ]
    if "ParentIsFile" in str(attempt(lambda: (put(f"{temp}s/00001"), put(f"{temp}s/00001/deeper")))):
        objects.pop()
    for key in objects:
        put(key)
    for n in (1, 2):
        put(f"{temp}session/0000{n + 1}")
        put(f"{temp}session/0000{n + 1}.digest")
        put(f"{temp}forgotten/0000{n}.digest")
    uploads = [
        begin(key)
        for key in (
            f"{folder}/temp2/session/00001",
            f"{folder}/tem/x",
            f"{folder}/x",
            f"{folder}-other/temp/x",
            f"{folder}/final2/x",
            "session/00001",
        )
    ]
    report = bucket.adapter.sweep(EVERYTHING)
    assert (report.parts, report.uploads, report.finished) == (2 + 1, 0, True)
    assert [key for key in objects if not bucket.has(key)] == []
    assert all(map(bucket.open, uploads))
    for key in (f"{temp}session/00002", f"{temp}session/00002.digest", f"{temp}forgotten/00001.digest"):
        assert not bucket.has(key)
    for key, upload in uploads:
        bucket.client.abort_multipart_upload(Bucket=bucket.name, Key=key, UploadId=upload)


def attempt(call):
    try:
        call()
    except Exception as error:
        return error


def test_on_a_disk_only_parts_go(local, tmp_path):
    temp, final = tmp_path / "temp", tmp_path / "final"
    put(local, "session", 1, 2)
    put(local, "live", 1)
    local.put_final("f", b"final")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "00001").write_bytes(b"theirs")
    (temp / "link").symlink_to(outside)
    (temp / "live" / "00002").symlink_to(outside / "00001")
    foreign = [
        temp / "notes.txt",
        temp / "deep" / "er" / "00001",
        temp / "back\\slash" / "00001",
        final / "x" / "00001",
    ]
    for path in foreign:
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(b"theirs")
    (temp / "empty").mkdir()
    staged = {name: temp / STAGING / name for name in ("0" * 32, "notes.txt", "f" * 32)}
    for path in (*staged.values(), final / STAGING / ("a" * 32)):
        path.write_bytes(b"123")
    hour = time.time() - 3600
    for where, _, files in os.walk(tmp_path):
        for name in files:
            if not where.endswith("live") and name != "f" * 32:
                os.utime(os.path.join(where, name), (hour, hour), follow_symlinks=False)
    assert local.sweep(timedelta(minutes=30)) == SweepReport(1, 2, 2, 20 + 6, True)
    assert not (temp / "session").exists()
    assert all(path.exists() for path in foreign)
    assert sorted(os.listdir(temp / "live")) == ["00001", "00002"]
    assert (outside / "00001").read_bytes() == b"theirs"
    assert sorted(os.listdir(temp / STAGING)) == ["f" * 32, "notes.txt"]
    assert os.listdir(final / STAGING) == []
    for path in staged.values():
        path.unlink(missing_ok=True)


def test_a_name_that_was_just_given_is_young(local, tmp_path):
    """A join may publish the file of an old part, which is then in staging for a moment."""
    put(local, "session", 1, 2)
    part = tmp_path / "temp" / "session" / "00001"
    hour = time.time() - 3600
    os.utime(part, (hour, hour))
    local.put_final("f", b"final")
    staged = tmp_path / "final" / STAGING / ("0" * 32)
    os.link(part, staged)
    assert local.sweep(timedelta(minutes=30)) == SweepReport(0, 0, 0, 0, True)
    assert staged.exists()
    local.delete_temp_part("session/00001")
    assert local.sweep(timedelta(minutes=30)).uploads == 1  # it has no other name any more


def test_what_is_kept_beside_parts_goes_with_them(bucket):
    """Of large parts the digests lie beside them: no parts, and not counted."""
    for number in (1, 2):
        bucket.adapter.put_temp_part("session", number, io.BytesIO(BYTES[: PART + MiB]))
    listed = bucket.client.list_objects_v2(Bucket=bucket.name, Prefix=bucket.temp)["Contents"]
    assert len(listed) == 4
    assert bucket.adapter.sweep(EVERYTHING) == SweepReport(1, 2, 0, 2 * (PART + MiB), True)
    assert "Contents" not in bucket.client.list_objects_v2(Bucket=bucket.name, Prefix=bucket.temp)


# ---- keep and dry runs


def test_keep_spares_sessions(adapter):
    for session in ("a", "b", "c"):
        put(adapter, session, 1, 2)
    grow_old()
    put(adapter, "young", 1)
    asked = []

    def keep(session):
        asked.append(session)
        return session == "b"

    assert adapter.sweep(AGE, keep=keep, dry_run=True) == SweepReport(2, 4, 0, 40, True)
    assert adapter.sweep(AGE, keep=keep) == SweepReport(2, 4, 0, 40, True)
    assert asked == ["a", "b", "c"] * 2
    assert [numbers(adapter, session) for session in ("a", "b", "c", "young")] == [[], [1, 2], [], [1]]


def test_keep_spares_the_uploads_of_a_session(bucket):
    kept, gone = bucket.begin(f"{bucket.temp}kept/00001", b"1"), bucket.begin(f"{bucket.temp}gone/00001", b"1")
    other, final = bucket.begin(f"{bucket.temp}other"), bucket.begin(f"{bucket.final}kept/00001")
    asked = []
    report = bucket.adapter.sweep(EVERYTHING, keep=lambda session: asked.append(session) or session == "kept")
    assert report == SweepReport(0, 0, 3, 1, True)
    assert sorted(asked) == ["gone", "kept"]
    assert [bucket.open(upload) for upload in (kept, gone, other, final)] == [True, False, False, False]
    assert bucket.adapter.sweep(EVERYTHING).uploads == 1


def test_an_error_of_keep_is_the_callers(adapter):
    put(adapter, "session", 1)
    error = LookupError("mine")

    def keep(session):
        raise error

    with pytest.raises(LookupError) as caught:
        adapter.sweep(EVERYTHING, keep=keep)
    assert caught.value is error
    assert numbers(adapter, "session") == [1]


def test_keep_is_awaited_only_by_asweep(tmp_path):
    async def keep(session):
        return session == "kept"

    class Keep:
        async def __call__(self, session):
            return await keep(session)

    class Replaced(MemoryStorageAdapter):  # its twin calls this in a thread
        def sweep(self, *args, **kwargs):
            return super().sweep(*args, **kwargs)

    for adapter, how in itertools.product((make_memory(tmp_path), Replaced()), (keep, Keep())):
        put(adapter, "kept", 1)
        put(adapter, "gone", 1)
        with pytest.raises(TypeError, match="asweep"):
            adapter.sweep(EVERYTHING, keep=how)
        assert asyncio.run(adapter.asweep(EVERYTHING, keep=how)).sessions == 1
        assert [numbers(adapter, session) for session in ("kept", "gone")] == [[1], []]


def test_a_dry_run_writes_nothing(adapter):
    put(adapter, "session", 1, 2)
    for options in ({}, {"max_seconds": 0}, {"keep": lambda session: False}):
        report = adapter.sweep(EVERYTHING, dry_run=True, **options)
        assert report == SweepReport(1, 2, 0, 20, "max_seconds" not in options)
    assert numbers(adapter, "session") == [1, 2]
    with pytest.raises(ObjectNotFound):
        adapter.get_temp_part_stream(PLACE)


# ---- many

# The order of keys is not that of names: "a-b/1" comes before "a/1".
NAMES = ["a", "a-b", "a.b", "a b", "a0", "a!", "A", "z", "é", "\U0001f600"]


def fill(adapter, sessions, count):
    with ThreadPoolExecutor(4) as pool:
        list(
            pool.map(lambda args: adapter.put_temp_part(*args, b"x"), itertools.product(sessions, range(1, count + 1)))
        )


@pytest.mark.slow
def test_thousands_of_parts(adapter):
    fill(adapter, ["large"], 1100)
    fill(adapter, NAMES, 30)
    everything = SweepReport(11, 1400, 0, 1400, True)
    assert adapter.sweep(NOTHING) == SweepReport(0, 0, 0, 0, True)
    assert adapter.sweep(EVERYTHING, dry_run=True) == everything
    asked = []
    report = adapter.sweep(EVERYTHING, keep=lambda session: asked.append(session) or session in ("a", "é"))
    assert report == SweepReport(9, 1340, 0, 1340, True)
    assert sorted(asked) == sorted([*NAMES, "large"])
    assert [len(numbers(adapter, session)) for session in ("a", "é", "large", "z")] == [30, 30, 0, 0]
    assert adapter.sweep(EVERYTHING) == SweepReport(2, 60, 0, 60, True)


@pytest.mark.slow
def test_a_thousand_uploads(bucket):
    with ThreadPoolExecutor(4) as pool:
        keys = [f"{bucket.temp}s{n:03}/{number:05}" for n in range(100) for number in (1, 2, 3)]
        keys += [f"{bucket.final}f{n % 50}" for n in range(800)]
        uploads = list(pool.map(bucket.begin, keys))
    foreign = bucket.begin(f"{bucket.final[:-1]}ly")
    assert bucket.adapter.sweep(NOTHING).uploads == 0
    assert bucket.adapter.sweep(EVERYTHING) == SweepReport(0, 0, 1100, 0, True)
    assert not any(map(bucket.open, uploads[::97]))
    assert bucket.adapter.sweep(EVERYTHING) == SweepReport(0, 0, 0, 0, True)
    assert bucket.open(foreign)
    bucket.client.abort_multipart_upload(Bucket=bucket.name, Key=foreign[0], UploadId=foreign[1])


# ---- time


def until_finished(call):
    reports = []
    while not reports or not reports[-1].finished:
        reports.append(call())
        assert len(reports) < 50
    return reports


@pytest.mark.slow
@ON_ONE_SERVER
def test_a_call_without_time_gets_on(adapter):
    fill(adapter, [f"s{n}" for n in range(10)], 200)
    put(adapter, "kept", 1)
    reports = until_finished(lambda: adapter.sweep(EVERYTHING, max_seconds=0, keep=lambda session: session == "kept"))
    assert len(reports) > 2
    assert all(report.parts for report in reports[:-1])
    assert sum(report.sessions for report in reports) == 10 and sum(report.parts for report in reports) == 2000
    assert numbers(adapter, "kept") == [1]
    with pytest.raises(ObjectNotFound):
        adapter.get_temp_part_stream(PLACE)


@ON_ONE_SERVER
def test_what_keep_takes_time_for_is_not_done_again(adapter):
    for n in range(6):
        put(adapter, f"s{n}", 1)
    asked = []

    def keep(session):
        asked.append(session)
        time.sleep(0.6)
        return True

    reports = until_finished(lambda: adapter.sweep(EVERYTHING, max_seconds=0, keep=keep))
    assert asked == [f"s{n}" for n in range(6)]
    assert len(reports) == 4  # two sessions each, and the final area


@pytest.mark.slow
@ON_ONE_SERVER
def test_a_sweep_for_younger_things_begins_anew(adapter):
    fill(adapter, ["a", "b"], 900)
    grow_old()
    put(adapter, "0", 1)
    assert adapter.sweep(AGE, max_seconds=0) == SweepReport(1, 900, 0, 900, False)
    reports = until_finished(lambda: adapter.sweep(EVERYTHING, max_seconds=0))
    assert sum(report.sessions for report in reports) == 2


def test_a_place_that_makes_no_sense(adapter):
    put(adapter, "session", 1)
    for place in (b"", b"[]", b'{"area": "x", "after": "", "older_than": 0}', b'{"older_than": "x"}', b"\xff"):
        write_place(adapter, place)
        assert adapter.sweep(EVERYTHING, max_seconds=60, dry_run=True).parts == 1
    assert adapter.sweep(EVERYTHING, max_seconds=60).parts == 1
    with pytest.raises(ObjectNotFound):
        adapter.get_temp_part_stream(PLACE)


def write_place(adapter, data):
    with native.Call(adapter.stores()["temp"], "put", key=PLACE, overwrite=True) as call:
        if data:
            call.write(native.address_of_bytes(data), len(data))
        call.finish()
        call.wait()


# ---- beside others


@pytest.mark.slow
@ON_ONE_SERVER
def test_two_sweeps_at_once(adapter):
    fill(adapter, [f"s{n}" for n in range(8)], 150)
    put(adapter, "kept", 1)
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(adapter.sweep, EVERYTHING, keep=lambda session: session == "kept") for _ in range(2)]
        reports = [call.result() for call in calls]
    assert all(report.finished for report in reports)
    assert sum(report.parts for report in reports) >= 1200
    assert adapter.sweep(EVERYTHING) == SweepReport(1, 1, 0, 10, True)


@pytest.mark.slow
def test_beside_uploads(adapter):
    """What is being put is young: sweeps that never stop change nothing for it."""
    put(adapter, "old", *range(1, 50))
    grow_old()
    stop = threading.Event()

    def upload(session):
        stored = []
        while not stop.is_set() and len(stored) < 60:
            stored += put(adapter, session, len(stored) + 1, data=BYTES[: 40_000 + len(stored)])
        return stored

    with ThreadPoolExecutor(4) as pool:
        uploads = [pool.submit(upload, f"s{n}") for n in range(3)]
        large = pool.submit(adapter.put_final, "large", io.BytesIO(BYTES))
        reports = [adapter.sweep(AGE) for _ in range(5)]
        final = large.result()
        stop.set()
        stored = [upload.result() for upload in uploads]
    assert [report.parts for report in reports] == [49, 0, 0, 0, 0]
    for parts in stored:
        assert [part.key for part in parts] == [
            part.key for part in adapter.list_temp_parts(parts[0].key.split("/")[0])
        ]
    with adapter.get_final_stream(final) as stream:
        assert stream.read() == BYTES


def test_what_a_killed_process_has_left(store, script, tmp_path):
    """Its multipart upload stays on the server until it is swept."""
    options = s3_options(store, part_size=PART)
    environment = {**os.environ, "STORAGE_OPTIONS": json.dumps(options)}
    process = script("uploading", env=environment)
    assert process.stdout.readline() == "three parts\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    with contextlib.closing(
        make_s3(store, **{name: options[name] for name in ("temp_prefix", "final_prefix")})
    ) as adapter:
        report = adapter.sweep(EVERYTHING)
        assert (report.sessions, report.parts, report.uploads, report.finished) == (0, 0, 1, True)
        assert report.size >= 2 * PART
        assert adapter.sweep(EVERYTHING).uploads == 0


# ---- what cannot be removed


def test_what_cannot_be_removed_keeps_nothing_else(local, tmp_path):
    """Another file system where a session's folder was cannot be written: others go, and the error comes at the end."""
    for session in ("a", "b", "c"):
        put(local, session, 1)
    immovable = tmp_path / "temp" / "b" / "00001"
    with immutable(immovable):
        with pytest.raises(StoragePermissionError) as caught:
            local.sweep(EVERYTHING)
        assert (caught.value.op, caught.value.retryable) == ("sweep", False)
        assert [numbers(local, session) for session in ("a", "b", "c")] == [[], [1], []]
        with pytest.raises(StoragePermissionError):
            local.sweep(EVERYTHING, max_seconds=60, keep=lambda session: False)
    assert local.sweep(EVERYTHING) == SweepReport(1, 1, 0, 10, True)


@contextlib.contextmanager
def immutable(path):
    import fcntl
    import struct

    get, put, flag = 0x80086601, 0x40086602, 0x10  # FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IMMUTABLE_FL

    def change(flags):
        with open(path, "rb") as file:
            now = struct.unpack("l", fcntl.ioctl(file, get, struct.pack("l", 0)))[0]
            fcntl.ioctl(file, put, struct.pack("l", flags(now)))

    try:
        change(lambda now: now | flag)
    except OSError as error:
        pytest.skip(f"no file can be made immutable here: {error}")
    try:
        yield
    finally:
        change(lambda now: now & ~flag)


def test_what_cannot_be_read_keeps_nothing_else(local, tmp_path):
    """It is neither empty nor old: the error comes at the end, and what lies there stays."""
    sessions = ("a", "b", "c", "d", "e")
    for session in sessions:
        put(local, session, 1)
    local.put_final("k", b"x")
    temp, final = tmp_path / "temp", tmp_path / "final"
    (temp / "c/below").mkdir()
    for area in (temp, final):
        (area / STAGING / ("0" * 32)).write_bytes(b"half")
    hidden = {temp / "b": 0, temp / "c/below": 0, temp / "d": 0o600, temp / STAGING: 0}
    for path, mode in hidden.items():
        path.chmod(mode)
    code = f"""
import sys
from datetime import timedelta
from django.conf import settings
settings.configure(SECRET_KEY="k")
from storage import LocalStorageAdapter, StoragePermissionError
adapter = LocalStorageAdapter(temp_dir="{temp}", final_dir="{final}")
asked = []
for options in ({{"dry_run": True}}, {{}}, {{"max_seconds": None}}, {{"keep": asked.append, "max_seconds": None}}):
    try:
        adapter.sweep(timedelta(), **options)
        sys.exit("no error")
    except StoragePermissionError as error:
        assert error.op == "sweep" and "{tmp_path}" not in str(error), error
assert asked == [], asked
"""
    without_override(code)
    for path in hidden:
        path.chmod(0o700)
    assert [numbers(local, session) for session in sessions] == [[], [1], [1], [1], []]
    assert (os.listdir(temp / STAGING), os.listdir(final / STAGING)) == (["0" * 32], [])
    report = local.sweep(EVERYTHING)
    assert (report.parts, report.uploads) == (3, 1)


# ---- arguments, command, function


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        ((3600,), {}, TypeError),
        ((None,), {}, TypeError),
        ((timedelta(seconds=-1),), {}, ValueError),
        ((NOTHING,), {"max_seconds": -1}, ValueError),
        ((NOTHING,), {"max_seconds": float("nan")}, ValueError),
        ((NOTHING,), {"max_seconds": "60"}, TypeError),
        ((NOTHING,), {"max_seconds": True}, TypeError),
        ((NOTHING,), {"keep": "path.to.keep"}, TypeError),
        ((NOTHING, lambda session: True), {}, TypeError),
    ],
)
def test_arguments(arguments, options, error, tmp_path):
    with contextlib.closing(make_memory(tmp_path)) as adapter:
        put(adapter, "session", 1)
        with pytest.raises(error):
            adapter.sweep(*arguments, **options)
        assert numbers(adapter, "session") == [1]


def test_endless_times(tmp_path):
    with contextlib.closing(make_memory(tmp_path)) as adapter:
        put(adapter, "session", 1)
        assert adapter.sweep(timedelta.max, max_seconds=float("inf")) == SweepReport(0, 0, 0, 0, True)


def test_a_closed_adapter(tmp_path):
    adapter = make_local(tmp_path)
    adapter.close()
    with pytest.raises(StorageError) as caught:
        adapter.sweep(NOTHING)
    assert caught.value.code == "closed"


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("24h", timedelta(hours=24)),
        ("1.5h", timedelta(minutes=90)),
        ("90m", timedelta(minutes=90)),
        ("0s", timedelta()),
        ("7d", timedelta(days=7)),
        ("2w", timedelta(weeks=2)),
        ("999999999w", timedelta.max),
    ],
)
def test_ages(text, age):
    assert parse_age(text) == age


@pytest.mark.parametrize("text", ["", "24", "h", "-1h", "1 h", "1H", "1h ", "1h30m", "٣h", "1e3h", "inf"])
def test_what_is_no_age(text):
    with pytest.raises(ValueError, match="such as 24h"):
        parse_age(text)


def spare_b(session_id):
    return session_id == "b"


@pytest.fixture
def configured(tmp_path):
    """An adapter by settings, with the sessions a and b."""
    options = {"temp_dir": tmp_path / "temp", "final_dir": tmp_path / "final"}
    with (
        override_settings(STORAGE_ADAPTERS={"uploads": {"BACKEND": "local", "OPTIONS": options}}),
        contextlib.closing(get_storage_adapter("uploads")) as adapter,
    ):
        put(adapter, "a", 1, 2)
        put(adapter, "b", 1)
        yield adapter


def command(*arguments):
    out = io.StringIO()
    call_command("storage_sweep", "uploads", *arguments, stdout=out, no_color=True)
    return out.getvalue()


def test_the_command(configured):
    keep = ("--keep-from", f"{__name__}.spare_b")
    assert command("--older-than", "1h") == "uploads: removed 0 parts of 0 sessions and 0 unfinished writes, 0 bytes\n"
    assert command("--older-than", "0s", "--dry-run", *keep) == (
        "uploads: would remove 2 parts of 1 sessions and 0 unfinished writes, 20 bytes\n"
    )
    told = json.loads(command("--older-than", "0s", "--max-seconds", "200", "--json", *keep))
    assert told == {
        "version": 1, "alias": "uploads", "dry_run": False,
        "sessions": 1, "parts": 2, "uploads": 0, "size": 20, "finished": True,
    }  # fmt: skip
    assert (numbers(configured, "a"), numbers(configured, "b")) == ([], [1])


def test_the_command_says_that_time_ran_out(configured):
    fill(configured, ["c", "d"], 900)
    assert command("--older-than", "0s", "--max-seconds", "0").endswith("time ran out: call it again to go on\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--older-than"),
        (("--older-than", "24"), "such as 24h"),
        (("--older-than", "1h", "--max-seconds", "-1"), "number of seconds"),
        (("--older-than", "1h", "--max-seconds", "soon"), "number of seconds"),
        (("--older-than", "1h", "--keep-from", "no.such.thing"), "cannot be imported"),
        (("--older-than", "1h", "--keep-from", f"{__name__}.MiB"), "not a function"),
    ],
)
def test_the_command_with_wrong_arguments(configured, arguments, said):
    with pytest.raises(CommandError, match=said):
        command(*arguments)


def test_the_command_tells_errors(versitygw):
    options = s3_options(versitygw, secret_key="wrong" * 4, max_attempts=1)
    with override_settings(STORAGE_ADAPTERS={"uploads": {"BACKEND": "s3", "OPTIONS": options}}):
        with pytest.raises(CommandError, match="secret_key") as caught:
            command("--older-than", "1h")
        assert "wrong" not in str(caught.value)
    with override_settings(STORAGE_ADAPTERS={}), pytest.raises(CommandError, match="uploads"):
        command("--older-than", "1h")


def test_the_function(configured):
    found = sweep("uploads", older_than="0s", keep=f"{__name__}.spare_b")
    assert found == {"sessions": 1, "parts": 2, "uploads": 0, "size": 20, "finished": True}
    assert sweep("uploads", older_than=EVERYTHING, keep=None, dry_run=True, max_seconds=None)["parts"] == 1
    for wrong in ("no.such.thing", f"{__name__}.MiB"):
        with pytest.raises(ImproperlyConfigured, match="keep is"):
            sweep("uploads", older_than="1h", keep=wrong)
    with pytest.raises(ValueError, match="such as 24h"):
        sweep("uploads", older_than="a day")
