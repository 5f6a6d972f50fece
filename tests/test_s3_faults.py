"""Every fault on every kind of request and in every operation, once and always.

Once: what a retry or a resumed read can cure succeeds, with the right bytes. Always: a typed error in bounded time, and
what was there before is still there, whole. In both cases nothing is left on the server or in the process.
"""

import contextlib
import http.server
import itertools
import os
import select
import socket
import ssl
import threading
import time
import traceback
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import formatdate

import pytest
import trustme
from conftest import BYTES, FULL, knows_conditions, make_s3
from servers import FaultProxy
from servers.process import free_port
from test_contract import Reads, digest

from storage import (
    ContentMismatch,
    ObjectExists,
    ObjectNotFound,
    StorageError,
    StoragePermissionError,
    StorageTimeout,
    StorageUnavailable,
    SweepReport,
    native,
)

MiB = 1024 * 1024
PART = 5 * MiB
OLD, SMALL, LARGE = BYTES[7:50_007], BYTES[:100_000], BYTES[: PART + MiB]
PARTS = [LARGE[:PART], LARGE[PART:], b"end"]
SESSIONS = {
    "session": PARTS,  # one is copied by the store, two are read and sent as one
    "copies": [BYTES[: PART + 3], BYTES[PART : 2 * PART], BYTES[: PART + 1]],
    "one": [LARGE[:PART]],
    "small": PARTS[1:],
}
CONTENT = {"small": SMALL, "large": LARGE, "large, sha256": LARGE}

STALL = 0.5
"""The read_timeout, in seconds."""
DEADLINE = 12.0
"""For any operation under any fault, in seconds."""


class World:
    """An adapter behind the fault proxy, and one that nothing befalls; both see the same objects."""

    def __init__(self, server, client, proxy):
        self.folder = uuid.uuid4().hex
        self.server, self.client, self.proxy = server, client, proxy
        # It has one connection, so that those of the other are counted.
        self.sure = make_s3(server, folder=self.folder, part_size=PART, max_connections=1)
        self.finals = {
            "small": self.sure.put_final("small", SMALL),
            "large": self.sure.put_final("large", Reads(LARGE)),
            "large, sha256": self.sure.put_final("large+", LARGE, size=len(LARGE), sha256=digest(LARGE)),
        }
        self.parts = {
            session: [self.sure.put_temp_part(session, n + 1, data) for n, data in enumerate(parts)]
            for session, parts in SESSIONS.items()
        }
        self.uploads()  # its connection is open before anything is counted

    def adapter(self, **options):
        given = {"part_size": PART, "connect_timeout": 1, "read_timeout": STALL, "max_attempts": 2}
        return make_s3(self.proxy.endpoint, folder=self.folder, **given | options)

    def new(self, data=None):
        """A file id, of an object with these bytes if there are any."""
        file_id = uuid.uuid4().hex
        if data is not None:
            self.sure.put_final(file_id, data)
        return file_id

    def bytes_of(self, file_id):
        """What is stored under a file id, None if nothing is."""
        try:
            reader = self.sure.get_final_stream(self.sure.bucket, self.sure.prefix + file_id)
        except ObjectNotFound:
            return None
        with reader:
            return reader.read()

    def uploads(self):
        """The multipart uploads that are open on the server. MinIO tells them of a whole key only."""
        listed = (
            self.client.list_multipart_uploads(Bucket=self.server.bucket, Prefix=prefix)
            for prefix in (self.folder, *self._begun())
        )
        return list({upload["UploadId"]: upload for found in listed for upload in found.get("Uploads", ())}.values())

    def begun(self):
        """Those that were begun since the log of the proxy was cleared. A late part may bring an older one back."""
        keys = self._begun()
        return [upload for upload in self.uploads() if upload["Key"] in keys]

    def _begun(self):
        return {entry.key for entry in self.proxy.log("CreateMultipartUpload")}


# ---- the operations: each yields a call, gets its result, None if it failed, and checks what is there then


def put(data, old=None, **options):
    def operation(world, adapter):
        file_id = world.new(old)
        stored = yield lambda: adapter.put_final(file_id, Reads(data), **options)
        if stored:
            assert (stored.key, stored.size, stored.sha256) == (adapter.prefix + file_id, len(data), digest(data))
        assert world.bytes_of(file_id) == (data if stored else old)

    return operation


def put_part(world, adapter):
    session = uuid.uuid4().hex
    world.sure.put_temp_part(session, 1, OLD)
    stored = yield lambda: adapter.put_temp_part(session, 1, Reads(SMALL))
    with world.sure.get_temp_part_stream(f"{session}/00001") as reader:
        assert reader.read() == (SMALL if stored else OLD)
    world.sure.delete_temp_parts(session)


def assemble(session, old=None, *, known=False, **options):
    """known: the adapter has seen before that the store copies."""
    data = b"".join(SESSIONS[session])

    def operation(world, adapter):
        file_id, parts = world.new(old), world.parts[session]
        if known:
            adapter.assemble(world.new(), parts)
        stored = yield lambda: adapter.assemble(file_id, parts, **options)
        if stored:
            assert (stored.key, stored.size, stored.sha256) == (adapter.prefix + file_id, len(data), digest(data))
            assert world.sure.stat_final(*stored) == stored
        assert world.bytes_of(file_id) == (data if stored else old)

    return operation


def read(name):
    def operation(world, adapter):
        def call():
            with adapter.get_final_stream(*world.finals[name]) as reader:
                return reader.read()

        assert (yield call) in (None, CONTENT[name])

    return operation


def read_range(world, adapter):
    start, length = 100_000, 3 * MiB

    def call():
        with adapter.get_final_stream(*world.finals["large"], start=start, length=length) as reader:
            return reader.read()

    assert (yield call) in (None, LARGE[start : start + length])


def seek(world, adapter):
    place = 4 * MiB

    def call():
        with adapter.get_final_stream(*world.finals["large"]) as reader:
            reader.read(10)
            reader.seek(place)
            return reader.read()

    assert (yield call) in (None, LARGE[place:])


def stat(world, adapter):
    final = world.finals["large, sha256"]
    assert (yield lambda: adapter.stat_final(*final)) in (None, final)


def list_parts(world, adapter):
    found = yield lambda: adapter.list_temp_parts("session")
    assert found is None or [part.key for part in found] == [part.key for part in world.parts["session"]]


def delete(world, adapter):
    file_id = world.new(OLD)
    failed = object()
    done = yield lambda: adapter.delete_final(adapter.bucket, adapter.prefix + file_id) or failed
    assert world.bytes_of(file_id) in ([None] if done else [None, OLD])


def delete_parts(world, adapter):
    session = uuid.uuid4().hex
    for n in (1, 2, 3):
        world.sure.put_temp_part(session, n, b"x")
    assert (yield lambda: adapter.delete_temp_parts(session)) in (None, 3)
    assert world.sure.delete_temp_parts(session) in (0, 3)


def sweep(world, adapter):
    """Of the sessions one is not spared; an upload in a session, and one in the final area, go."""
    session = uuid.uuid4().hex
    for n in (1, 2, 3):
        world.sure.put_temp_part(session, n, b"x")
    for folder, name in (("temp", "00004"), ("final", "large")):
        key = f"{world.folder}/{folder}/{session}/{name}"
        upload = world.client.create_multipart_upload(Bucket=world.server.bucket, Key=key)["UploadId"]
        where = {"Bucket": world.server.bucket, "Key": key, "UploadId": upload}
        world.client.upload_part(**where, PartNumber=1, Body=b"123")

    def call(adapter):
        return adapter.sweep(timedelta(), keep=SESSIONS.__contains__)

    everything = SweepReport(1, 3, 2, 3 + 6, True)
    report = yield lambda: call(adapter)
    rest = call(world.sure)
    if report is None:
        assert rest.finished and rest.parts <= 3
    elif report.unseen:  # uploads, that is
        assert (report.sessions, report.parts, rest.parts) == (1, 3, 0) and report.uploads + rest.uploads == 2
    else:
        assert report == everything and rest.finished and rest.parts == rest.uploads == 0
    for spared, parts in world.parts.items():
        assert [part.key for part in world.sure.list_temp_parts(spared)] == [part.key for part in parts]
    assert world.bytes_of("small") == SMALL and world.sure.list_temp_parts(session) == []


def health(world, adapter):
    yield lambda: adapter.check_health(timeout=DEADLINE) or True


# ---- their requests, each with what its bodies are: up, down, both or none

COMMIT = {"CompleteMultipartUpload": "up down"}
MULTIPART = {"CreateMultipartUpload": "down", "UploadPart": "up", **COMMIT}
OPERATIONS = {
    "put small": (put(SMALL, OLD), {"PutObject": "up"}),
    "put small, once only": (put(SMALL, overwrite=False), {"PutObject": "up"}),
    "put part": (put_part, {"PutObject": "up"}),
    "put large": (put(LARGE, OLD), MULTIPART),
    "put large, known": (put(LARGE, OLD, size=len(LARGE), sha256=digest(LARGE)), COMMIT),  # the rest is the same
    "put large, once only": (put(LARGE, overwrite=False), COMMIT),
    "read small": (read("small"), {"GetObject": "down"}),
    "read large": (read("large"), {"GetObject": "down"}),
    "read large, sha256": (read("large, sha256"), {"GetObject": "down"}),
    "read range": (read_range, {"GetObject": "down"}),
    "seek": (seek, {"GetObject": "down"}),
    "stat": (stat, {"HeadObject": ""}),
    "list": (list_parts, {"ListObjectsV2": "down"}),
    "delete": (delete, {"DeleteObject": ""}),
    "delete parts": (delete_parts, {"ListObjectsV2": "down", "DeleteObjects": "up down"}),
    "assemble": (
        assemble("session", OLD),
        {"ListObjectsV2": "down", "HeadObject": "", "UploadPartCopy": "down", "GetObject": "down", **MULTIPART},
    ),
    "assemble copies": (assemble("copies", OLD, known=True), {"UploadPartCopy": "down"}),
    "assemble, once only": (assemble("copies", overwrite=False), COMMIT),
    "assemble one": (assemble("one", OLD, known=True), {"CopyObject": "down"}),
    "assemble small": (assemble("small", OLD), {"GetObject": "down", "PutObject": "up"}),
    "sweep": (
        sweep,
        {
            "ListMultipartUploads": "down",
            "ListObjectsV2": "down",
            "ListParts": "down",
            "AbortMultipartUpload": "",
            "DeleteObjects": "up down",
        },
    ),
    "health": (health, {"PutObject": "", "DeleteObject": ""}),
}


ASSEMBLES = [operation for operation in OPERATIONS if operation.startswith("assemble")]


@dataclass(frozen=True)
class Fault:
    rule: dict
    always: type | None  # the error when it befalls every attempt; None: none comes
    once: type | None = None  # and when it befalls one
    body: str = ""  # in which it happens: up, down, or any
    fields: dict = field(default_factory=dict)  # of the error


def status(number, always, once=None, *, retryable=False, **more):
    fields = {"status": number, "retryable": retryable}
    return Fault({"fault": "status", "status": number, **more}, always, once, fields=fields)


def at(place, fault, always, once=None, *, retryable=True, **more):
    """A fault in a body: at its beginning, or in the middle of it."""
    rule = {"fault": fault, "at": place, **more}
    return Fault(rule, always, once, "up" if fault.endswith("up") else "down", {"retryable": retryable})


MIDDLE = "middle"
FAULTS = {
    "500": status(500, StorageUnavailable, retryable=True),
    "500 after the body": status(500, StorageUnavailable, retryable=True, read_body=True),
    "503": status(503, StorageUnavailable, retryable=True),
    "429": status(429, StorageUnavailable, retryable=True, retry_after="0.3"),
    "403": status(403, StoragePermissionError, StoragePermissionError),
    "409": status(409, StorageError, StorageError, retryable=True),
    "412": status(412, ObjectExists, ObjectExists),
    "501": status(501, StorageError, StorageError),
    "error in 200": Fault({"fault": "error_in_200"}, StorageUnavailable, fields={"retryable": True}),
    "no checksums": Fault({"fault": "no_checksums"}, None),
    "delay": Fault({"fault": "delay", "seconds": 0.1}, None),
    "reset up": at(MIDDLE, "reset_up", StorageUnavailable),
    "flip up": at(MIDDLE, "flip_up", ContentMismatch),
    "stall up": at(MIDDLE, "stall_up", StorageTimeout, seconds=30),
    "lost response": Fault({"fault": "lost_response"}, StorageUnavailable, fields={"retryable": True}),
    "stall before the answer": Fault(
        {"fault": "stall_down", "at": -1, "seconds": 30}, StorageTimeout, fields={"retryable": True}
    ),
    "reset down": at(0, "reset_down", StorageUnavailable),
    "reset down, in the middle": at(MIDDLE, "reset_down", StorageUnavailable),
    "flip down": at(MIDDLE, "flip_down", StorageUnavailable),
    "stall down": at(0, "stall_down", StorageTimeout, seconds=30),
    "stall down, in the middle": at(MIDDLE, "stall_down", StorageTimeout, seconds=30),
    "short body": at(0, "short_body", StorageUnavailable),
    "short body, in the middle": at(MIDDLE, "short_body", StorageUnavailable),
}


def expected(fault, operation, request, mode):
    """The class of the error, or None."""
    about = FAULTS[fault]
    commits = request in ("PutObject", "CopyObject", "CompleteMultipartUpload") and operation != "health"
    copies = request in ("UploadPartCopy", "CopyObject")
    reads = request == "GetObject"
    match fault:
        case "lost response" | "stall before the answer" if commits:
            return None  # it was carried out, as a look shows
        case "lost response" if operation == "delete":
            return None  # likewise: the object is gone
        case _ if about.body == "down" and commits:
            return None
        case _ if fault.endswith("in the middle") and reads:
            return None  # each attempt gets further
        case "flip down" if reads:
            return ContentMismatch
        case "409" if mode == "once" and (request == "PutObject" or operation == "seek"):
            return None
        case "412" if operation == "seek" or copies or (reads and operation in ASSEMBLES):
            return ContentMismatch  # the object was replaced meanwhile
        case "501" if copies:
            return None  # the bytes are streamed
        case "403" | "501" if operation == "sweep" and request in ("ListMultipartUploads", "ListParts"):
            return None  # the report says what could not be looked at
        case "412" if mode == "once" and (operation, request) == ("put small, once only", "PutObject"):
            return None  # who was first is gone again
        case "501" if request == "DeleteObjects":
            return None  # objects are deleted one by one
        case "501" if mode == "once" and asks_for_checksums(operation, request):
            return None  # it does without
    return about.always if mode == "always" else about.once


def cases():
    """Every fault on every request of every operation. Which mode comes first changes from one to the next."""
    modes = itertools.cycle([("once", "always"), ("always", "once")])
    for fault, about in FAULTS.items():
        for operation, (_, requests) in OPERATIONS.items():
            for request, bodies in requests.items():
                if about.body not in bodies:
                    continue
                if fault == "flip down" and operation in ("read range", "seek"):
                    continue  # nobody has a digest of a part of an object
                if fault == "no checksums" and not asks_for_checksums(operation, request):
                    continue
                for mode in next(modes):
                    yield fault, operation, request, mode


def telling(cases):
    """The cases that show what none before them does, as parameters; `make test-full` runs the others, too.

    What a fault does to a request is told by the code of that request: each kind of request meets each fault that it
    can, once and always, and again where the operation makes another error of it. What an operation leaves behind is
    told by where it ended: each operation meets each fault, by turns once or always, and each of its requests has
    failed once and always.
    """
    seen = set()
    for fault, operation, request, mode in cases:
        shows = {
            (fault, request, mode, expected(fault, operation, request, mode)),
            (fault, operation),
            (operation, request, mode),
        }
        if FULL or not shows <= seen:
            seen |= shows
            case = fault, operation, request, mode
            yield pytest.param(*case, id=" | ".join(case), marks=pytest.mark.slow)


def asks_for_checksums(operation, request):
    return request == "CreateMultipartUpload" or (
        request == "GetObject" and operation != "seek" and operation not in ASSEMBLES
    )


def middle(operation, request):
    """A place inside the bodies of a request, in bytes: of the objects if it carries them, of XML else."""
    if request in ("PutObject", "UploadPart") or operation == "read small":
        return 60_000
    if request == "GetObject":
        return 500_000 if operation == "seek" or operation in ASSEMBLES else 2_000_000
    return 1


@pytest.fixture(scope="module")
def proxy(versitygw, tmp_path_factory):
    with FaultProxy(versitygw, tmp_path_factory.mktemp("proxy")) as proxy:
        yield proxy


@contextlib.contextmanager
def world_of(server, proxy):
    with server.client() as client:
        world = World(server, client, proxy)
        yield world
        world.sure.close()


@pytest.fixture(scope="module")
def world(versitygw, proxy):
    with world_of(versitygw, proxy) as world:
        yield world


@pytest.fixture
def adapter(world):
    with contextlib.closing(world.adapter()) as adapter:
        yield adapter


def attempt(call):
    """The result of a call and its error, one of which is None, and the seconds it took."""
    started = time.monotonic()
    try:
        return call(), None, time.monotonic() - started
    except StorageError as error:
        return None, error, time.monotonic() - started


@pytest.mark.parametrize(("fault", "operation", "request_", "mode"), list(telling(cases())))
def test_matrix(fault, operation, request_, mode, world, adapter):
    befall(fault, operation, request_, mode, world, adapter)


def befall(fault, operation, request, mode, world, adapter):
    about, (steps, _) = FAULTS[fault], OPERATIONS[operation]
    if operation.endswith("once only"):
        knows_conditions(adapter)
    rule = {key: middle(operation, request) if value is MIDDLE else value for key, value in about.rule.items()}
    steps = steps(world, adapter)
    call = next(steps)
    world.proxy.clear()
    times = 1 if mode == "once" else 0
    if request == "GetObject" and operation in ASSEMBLES:
        rule["key_contains"] = "/00002" if operation == "assemble" else "/00001"  # the large one of those that are read
    with world.proxy.rule(operation=request, skip=int(operation == "seek"), times=times, **rule):
        result, error, seconds = attempt(call)
    assert [entry for entry in world.proxy.log() if entry.fault], "the fault took no effect"
    assert seconds < DEADLINE
    with contextlib.suppress(StopIteration):
        steps.send(result)
    kind = expected(fault, operation, request, mode)
    if kind is None:
        assert error is None, repr(error)
    else:
        assert type(error) is kind, repr(error)
        if kind in (about.once, about.always):
            assert {name: getattr(error, name) for name in about.fields} == about.fields, vars(error)
        assert_well_told(error, world.server)
    assert not world.begun()


def assert_well_told(error, server):
    assert error.op and error.code and error.message
    assert not error.status or error.request_id
    told = "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
    assert server.secret_key not in told


# ---- what depends on the server: MinIO forgets an upload once it is joined, and a commit that is replayed fails

REPLAYED = [
    "500",
    "error in 200",
    "lost response",
    "stall before the answer",
    "reset down",
    "flip down",
    "flip up",
    "409",
]


@pytest.fixture(scope="module")
def minio_world(minio, tmp_path_factory):
    with FaultProxy(minio, tmp_path_factory.mktemp("proxy")) as proxy, world_of(minio, proxy) as world:
        yield world


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "operation", "request_", "mode"),
    list(telling(case for case in cases() if case[0] in REPLAYED and case[2] in COMMIT)),
)
def test_matrix_on_minio(fault, operation, request_, mode, minio_world):
    with contextlib.closing(minio_world.adapter()) as adapter:
        befall(fault, operation, request_, mode, minio_world, adapter)


# ---- single faults


@pytest.mark.parametrize(
    "rule",
    [
        {"fault": "status", "status": 500, "times": 1},
        {"fault": "lost_response", "times": 1},
        {"fault": "stall_down", "at": -1, "seconds": 30, "times": 1},
        {"fault": "status", "status": 503},
    ],
    ids=lambda rule: " ".join(map(str, rule.values())),
)
def test_an_abort_that_fails(rule, world, adapter):
    """It is tried again; if that does not help either, the caller gets no other error and does not wait long."""
    error = LookupError("mine")

    def source():
        yield LARGE
        raise error

    started = time.monotonic()
    with world.proxy.rule(operation="AbortMultipartUpload", **rule), pytest.raises(LookupError) as caught:
        adapter.put_final(world.new(), source())
    assert caught.value is error
    assert time.monotonic() - started < DEADLINE
    if "times" in rule:
        assert not world.uploads()
    for upload in world.uploads():
        world.client.abort_multipart_upload(Bucket=world.server.bucket, Key=upload["Key"], UploadId=upload["UploadId"])


@pytest.fixture
def patient(world):
    """An adapter for requests that take a busy server longer than STALL."""
    with contextlib.closing(world.adapter(read_timeout=30)) as adapter:
        yield adapter


def test_a_sweep_goes_on_where_an_error_ended_it(world, patient):
    sessions = [f"{n}-{uuid.uuid4().hex}" for n in range(3)]  # before "session" in order
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda part: world.sure.put_temp_part(*part, b"x"), itertools.product(sessions, range(1, 851))))

    def call(max_seconds):
        return patient.sweep(timedelta(), keep=lambda session: session not in sessions, max_seconds=max_seconds)

    with world.proxy.rule("status", "DeleteObjects", status=503, skip=1):
        _, error, _ = attempt(lambda: call(60))
    assert type(error) is StorageUnavailable and error.op == "sweep"
    world.proxy.clear()
    assert call(0).parts == 850
    after = [entry.query.get("start-after") for entry in world.proxy.log("ListObjectsV2")]
    assert after[0] == f"{world.folder}/temp/{sessions[0]}0"
    assert not any(world.sure.list_temp_parts(session) for session in sessions[:2])
    assert call(60) == SweepReport(1, 850, 0, 850, True)
    assert len(world.sure.list_temp_parts("session")) == len(PARTS)


def copies(world):
    """How many copies the server was asked for."""
    return sum(entry.operation in ("UploadPartCopy", "CopyObject") for entry in world.proxy.log())


def assembled(world, adapter, session):
    """Assembles, and gives how many copies that took."""
    before, file_id, data, told = copies(world), world.new(OLD), b"".join(SESSIONS[session]), []
    final = adapter.assemble(file_id, world.parts[session], progress=lambda *done: told.append(done))
    assert final.sha256 == digest(data) and world.bytes_of(file_id) == data
    assert told[-1] == (len(data), len(data))
    assert not world.uploads()
    return copies(world) - before


def test_a_server_that_does_not_copy(world, adapter):
    """It is asked once; the bytes are streamed, then and later."""
    with world.proxy.rule("no_copy"):
        assert [assembled(world, adapter, session) for session in ("copies", "copies", "one")] == [1, 0, 0]


def test_a_folder_that_is_removed_while_conditions_are_tried(world, adapter):
    """A gateway to files says so if another client deletes the last other object of the folder."""
    conflict = {"status": 409, "code": "ExistingObjectIsDirectory", "key_contains": ".gostorage-probe-"}
    with world.proxy.rule("status", "PutObject", times=1, **conflict):
        adapter.put_final(world.new(), SMALL, overwrite=False)
    assert [entry for entry in world.proxy.log() if entry.fault], "the fault took no effect"


def test_a_server_that_wants_parts_of_one_size(world, adapter):
    """It says so at the end. The bytes are streamed; later at once, but for parts that are of one size."""
    with world.proxy.rule("status", "CompleteMultipartUpload", status=400, code="InvalidPart", times=1):
        assert assembled(world, adapter, "copies") == 3
    assert [assembled(world, adapter, session) for session in ("copies", "one")] == [0, 1]


@pytest.mark.parametrize("skip", [0, 1], ids=["the first time", "the second time"])
def test_a_range_that_arrives_changed(skip, world, adapter):
    """What is missing to the least part is read from the next one. No digest covers that."""
    file_id, folder = world.new(OLD), uuid.uuid4().hex
    small, large = SMALL, BYTES[: 2 * PART + 1]
    parts = [world.sure.put_temp_part(folder, n, data) for n, data in ((1, small), (2, large))]
    world.proxy.clear()
    # The sidecar of the second part is read before.
    with world.proxy.rule("flip_down", "GetObject", key_contains="/00002", skip=1 + skip, times=1, at=3_000_000):
        _, error, _ = attempt(lambda: adapter.assemble(file_id, parts))
    assert type(error) is ContentMismatch and error.key == parts[1].key, error
    assert world.bytes_of(file_id) == OLD
    assert not world.uploads()
    assert adapter.assemble(file_id, parts).sha256 == digest(small + large)
    assert world.bytes_of(file_id) == small + large
    world.sure.delete_temp_parts(folder)


@pytest.mark.parametrize(
    ("session", "late"),
    [
        ("copies", {"operation": "CreateMultipartUpload"}),
        ("small", {"operation": "GetObject", "key_contains": "/00002"}),
    ],
    ids=["copied", "read"],
)
@pytest.mark.parametrize(("change", "kind"), [("put", ContentMismatch), ("delete", ObjectNotFound)])
def test_a_part_that_changes_while_it_is_assembled(change, kind, session, late, world):
    """After it was described, and before its bytes were seen."""
    file_id, folder, content = world.new(OLD), uuid.uuid4().hex, SESSIONS[session]
    parts = [world.sure.put_temp_part(folder, n + 1, data) for n, data in enumerate(content)]
    outcome = []
    world.proxy.clear()
    with contextlib.closing(world.adapter(read_timeout=10)) as adapter, world.proxy.rule("delay", seconds=3, **late):
        thread = threading.Thread(target=lambda: outcome.extend(attempt(lambda: adapter.assemble(file_id, parts))))
        thread.start()
        while not world.proxy.log(late["operation"]):  # which waits a second for those under way
            time.sleep(0.01)
        if change == "put":
            world.sure.put_temp_part(folder, 2, content[1][::-1])
        else:
            world.sure.delete_temp_part(parts[1])
        thread.join()
    _, error, _ = outcome
    assert type(error) is kind and error.key == parts[1].key, error
    assert world.bytes_of(file_id) == OLD
    assert not world.uploads()
    world.sure.delete_temp_parts(folder)


def test_the_server_says_when_to_try_again(world, adapter):
    file_id = world.new()
    with world.proxy.rule("status", "PutObject", status=429, retry_after="2", times=1):
        _, error, seconds = attempt(lambda: adapter.put_final(file_id, SMALL))
    assert error is None and 2 <= seconds < 10


class Refuses(http.server.BaseHTTPRequestHandler):
    """A store that lists two parts and deletes one of them."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        keys = "".join(f"<Contents><Key>f/temp/s/0000{n}</Key><Size>1</Size></Contents>" for n in (1, 2))
        self.answer(f"<ListBucketResult><Name>b</Name>{keys}<IsTruncated>false</IsTruncated></ListBucketResult>")

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(
            "<DeleteResult><Error><Key>f/temp/s/00002</Key><Code>AccessDenied</Code>"
            "<Message>no</Message></Error></DeleteResult>"
        )

    def answer(self, text):
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


def test_a_batch_that_is_deleted_in_part(versitygw):
    with serving(Refuses) as url, quickly(replace(versitygw, url=url), folder="f") as adapter:
        _, error, _ = attempt(lambda: adapter.delete_temp_parts("s"))
    assert type(error) is StoragePermissionError and not error.retryable
    assert (error.op, error.key) == ("delete_all", "s/00002")


@contextlib.contextmanager
def serving(handler, secure=None):
    """The URL of a server of this process."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        if secure is not None:
            server.socket = secure.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever).start()
        try:
            yield "{}://127.0.0.1:{}".format("http" if secure is None else "https", server.server_address[1])
        finally:
            server.shutdown()


# ---- endpoints that are wrong, or not there


def quickly(server, **options):
    """An adapter that gives up soon."""
    given = {"connect_timeout": 1, "read_timeout": 1, "max_attempts": 2}
    return contextlib.closing(make_s3(server, **given | options))


def everything(adapter):
    """An operation of each kind: those that write, read, list and delete."""
    bucket, key = adapter.bucket, adapter.prefix + "a"
    return {
        "put": lambda: adapter.put_final("a", SMALL),
        "put large": lambda: adapter.put_final("a", Reads(LARGE)),
        "get": lambda: adapter.get_final_stream(bucket, key),
        "stat": lambda: adapter.stat_final(bucket, key),
        "list": lambda: adapter.list_temp_parts("s"),
        "delete": lambda: adapter.delete_final(bucket, key),
        "delete parts": lambda: adapter.delete_temp_parts("s"),
        "sweep": lambda: adapter.sweep(timedelta(hours=1)),
        "health": lambda: adapter.check_health(timeout=DEADLINE),
    }


def all_fail(server, kind, *words, but=(), **options):
    """Each operation fails with this error, soon, and its message says what to do."""
    with quickly(server, **options) as adapter:
        for name, call in everything(adapter).items():
            if name in but:
                continue
            _, error, seconds = attempt(call)
            assert type(error) is kind, (name, error)
            assert seconds < DEADLINE, name
            assert all(word in str(error) for word in words), (name, str(error))
            assert_well_told(error, server)


def test_nothing_listens(versitygw):
    here = replace(versitygw, url=f"http://127.0.0.1:{free_port()}")
    all_fail(here, StorageUnavailable, "connection refused")


def test_a_name_that_nobody_knows(versitygw):
    here = replace(versitygw, url="http://store.invalid:9000")
    all_fail(here, StorageUnavailable, "store.invalid")


@pytest.fixture(params=[0, 1], ids=["connects", "does not connect"])
def black_hole(request):
    """The address of a server that never answers, or whose system does not even connect."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0 if request.param else 100)
        for _ in range(2 * request.param):  # fills the queue
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield "{}:{}".format(*listening.getsockname())


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_black_hole(scheme, black_hole, versitygw):
    here = replace(versitygw, url=f"{scheme}://{black_hole}")
    fewer = ("get", "list", "delete", "delete parts")
    all_fail(here, StorageTimeout, "did not answer in time", but=fewer, connect_timeout=0.5, read_timeout=0.5)


def test_a_wrong_secret(store):
    all_fail(store, StoragePermissionError, "secret_key", secret_key="x" * 20, but=("stat",))


def test_an_unknown_user(store):
    all_fail(store, StoragePermissionError, "access_key", access_key="nobody", but=("stat",))


def test_a_wrong_bucket(store):
    with quickly(store, bucket_name="no-such-bucket") as adapter:
        for name, call in everything(adapter).items():
            _, error, _ = attempt(call)
            if name in ("stat", "delete"):  # the answer to HEAD has no body that could tell
                assert error is None or error.code in ("bucket", "not_found"), (name, error)
            else:
                assert error.code == "bucket" and "bucket_name" in str(error), (name, error)


def test_a_wrong_region(versitygw):
    all_fail(versitygw, StorageError, "region_name", "us-east-1", region_name="eu-south-7", but=("stat",))


def test_http_where_https_is_spoken(minio):
    with quickly(replace(minio, url=minio.url.replace("https", "http"))) as adapter:
        errors = [attempt(call)[1] for call in everything(adapter).values()]
    assert all(isinstance(error, StorageError) for error in errors)
    assert any("(http or https)" in str(error) for error in errors)  # what answers in plain text closes at once


def test_https_where_http_is_spoken(versitygw):
    all_fail(replace(versitygw, url=versitygw.url.replace("http", "https")), StorageError, "http://")


def test_an_authority_that_is_not_trusted(minio):
    started = time.monotonic()
    all_fail(minio, StorageError, "ca_bundle", ca_bundle=None, max_attempts=8)
    assert time.monotonic() - started < 2  # no other attempt can cure it


def test_no_verification(minio):
    with quickly(minio, ca_bundle=None, verify=False) as adapter:
        assert adapter.put_final("a", SMALL).sha256 == digest(SMALL)


def test_a_clock_that_is_wrong(world, adapter):
    """The error says what to do; there is no way to see by how much it is wrong if the server does not tell."""
    with world.proxy.rule("status", status=403, code="RequestTimeTooSkewed"):
        for call in everything(adapter).values():
            _, error, _ = attempt(call)
            assert type(error) is StoragePermissionError
            assert error.op == "stat" or "clock" in str(error)


class Ahead(http.server.BaseHTTPRequestHandler):
    """A store whose clock is an hour ahead, and that minds."""

    protocol_version = "HTTP/1.1"
    requests = 0

    def do_PUT(self):
        type(self).requests += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        signed = datetime.strptime(self.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        skewed = abs(signed.timestamp() - self.now()) > 15 * 60
        answer = b"<Error><Code>RequestTimeTooSkewed</Code></Error>" if skewed else b""
        self.send_response(403 if skewed else 200)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def now(self):
        return time.time() + 3600

    def date_time_string(self, timestamp=None):
        return formatdate(self.now(), usegmt=True)

    def log_message(self, *_):
        pass


def test_a_clock_that_can_be_corrected(versitygw):
    """The server's answer has its time: the request is signed again by that, and the next ones at once."""
    with serving(Ahead) as url, quickly(replace(versitygw, url=url)) as adapter:
        adapter.put_final("a", SMALL)
        assert Ahead.requests == 2
        adapter.put_final("b", SMALL)
        assert Ahead.requests == 3


class Taciturn(http.server.BaseHTTPRequestHandler):
    """A store that never says that it wants a body, begins to read late, and may refuse it before it has."""

    protocol_version = "HTTP/1.1"
    requests = 0
    refuses = False
    there: set = frozenset()

    def handle_expect_100(self):
        return True

    def do_HEAD(self):
        self.send_response(404)
        self.end_headers()

    def do_DELETE(self):
        self.send_response(204)
        self.end_headers()

    def do_PUT(self):
        type(self).requests += 1
        refuses = self.refuses  # as it is now: the test changes it as soon as it has the answer
        time.sleep(0.3)
        if not refuses:
            self.rfile.read(int(self.headers["Content-Length"]))
        status, key = 403 if refuses else 200, self.path.partition("?")[0]
        if "If-None-Match" in self.headers and key in self.there:
            status = 412
        elif status == 200:
            self.there.add(key)
        answer = {200: b"", 403: b"<Code>AccessDenied</Code>", 412: b"<Code>PreconditionFailed</Code>"}[status]
        answer = answer and b"<Error>%s</Error>" % answer
        self.send_response(status)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        if refuses:
            self.close_connection = True
            ended = select.poll()  # nothing more is read, and the connection stays as long as the other side lets it
            ended.register(self.connection, select.POLLRDHUP)
            ended.poll(3000)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def openssl(tmp_path_factory):
    """TLS of another kind than that of the stores: this one speaks first, of tickets that nobody has asked for."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    bundle = tmp_path_factory.mktemp("openssl") / "ca.pem"
    authority.cert_pem.write_to_path(bundle)
    return context, bundle


@pytest.mark.alone
@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("tls", [False, True])
def test_what_a_server_says_first_is_no_answer(versitygw, openssl, tls, overwrite, monkeypatch):
    context, bundle = openssl
    monkeypatch.setattr(Taciturn, "requests", 0)
    monkeypatch.setattr(Taciturn, "refuses", False)
    monkeypatch.setattr(Taciturn, "there", set())
    secure = {"secure": context} if tls else {}
    options = {"ca_bundle": str(bundle)} if tls else {}
    with (
        serving(Taciturn, **secure) as url,
        quickly(replace(versitygw, url=url), read_timeout=5, part_size=8 * MiB, **options) as adapter,
    ):
        data = BYTES[: 7 * MiB]  # more than lies in the buffers of two systems
        if not overwrite:
            adapter.put_final("conditions", b"", overwrite=overwrite)
        before = Taciturn.requests
        final = adapter.put_final("a", data, overwrite=overwrite)
        assert (final.sha256, Taciturn.requests - before) == (digest(data), 1)
        monkeypatch.setattr(Taciturn, "refuses", True)
        began = time.monotonic()
        with pytest.raises(StoragePermissionError):
            adapter.put_final("b", data, overwrite=overwrite)
        assert time.monotonic() - began < 2.5, "the refusal was not heard before the end of the connection"


# ---- bad connections

# What is wrong with a connection, and how a large upload and a large download end.
TOXICS = {
    "slow": ({"type": "bandwidth", "rate": 4000}, None, None),  # KB/s: longer than the stall timer, but it moves
    "latency": ({"type": "latency", "latency": 100, "jitter": 50}, None, None),
    "in slices": ({"type": "slicer", "average_size": 1500, "size_variation": 500, "delay": 5}, None, None),
    "closes slowly": ({"type": "slow_close", "delay": 300}, None, None),
    "cut after 3 MB": ({"type": "limit_data", "bytes": 3_000_000}, StorageUnavailable, None),
    "reset": ({"type": "reset_peer", "timeout": 20}, StorageUnavailable, StorageUnavailable),
    "swallows all": ({"type": "timeout", "timeout": 0}, StorageTimeout, StorageUnavailable),  # versitygw closes
}


@pytest.mark.parametrize("name", TOXICS)
def test_bad_connections(name, world, toxiproxy):
    toxic, up, down = TOXICS[name]
    for stream, kind, operation in (("upstream", up, put(LARGE, OLD)), ("downstream", down, read("large"))):
        with (
            toxiproxy.link(world.server) as link,
            quickly(link.endpoint, folder=world.folder, part_size=PART) as adapter,
        ):
            steps = operation(world, adapter)
            call = next(steps)
            with link.toxic(stream=stream, **toxic):
                result, error, seconds = attempt(call)
            with contextlib.suppress(StopIteration):
                steps.send(result)
        assert seconds < DEADLINE
        assert type(error) is (kind or type(None)), (stream, error)
        assert not world.uploads()


def test_a_server_that_restarts(world, toxiproxy):
    """A moment without a server in the middle of an upload and of a download."""
    with toxiproxy.link(world.server) as link, quickly(link.endpoint, folder=world.folder, max_attempts=6) as adapter:

        def gone():
            with link.down():
                time.sleep(0.2)

        def restart():
            restarts.append(threading.Thread(target=gone))
            restarts[-1].start()

        restarts = []

        def source():
            for start in range(0, len(LARGE), MiB):
                yield LARGE[start : start + MiB]
                if start == 2 * MiB:
                    restart()

        assert adapter.put_final(world.new(), source()).sha256 == digest(LARGE)
        with adapter.get_final_stream(*world.finals["large"]) as reader:
            first = reader.read(MiB)
            restart()
            time.sleep(0.1)
            assert first + reader.read() == LARGE
        for thread in restarts:
            thread.join()  # before the link goes
    assert not world.uploads()


# ---- many failures


@pytest.mark.slow
def test_many_failures_leave_nothing(world):
    """Counted while the adapter is open: what one failure leaves, many of them would show."""
    with contextlib.closing(world.adapter(read_timeout=0.1)) as adapter:
        calls = list(everything(adapter).values())
        calls += [lambda session=session: adapter.assemble("a", world.parts[session]) for session in SESSIONS]
        rules = [
            {"fault": "status", "status": 500},
            {"fault": "reset_up", "at": 1},
            {"fault": "reset_down", "at": 0},
            {"fault": "stall_down", "at": -1, "seconds": 30},
            {"fault": "status", "status": 403},
        ]

        def fail(times):
            for n in range(times):
                with world.proxy.rule(**rules[n % len(rules)]):
                    attempt(calls[n % len(calls)])
            time.sleep(0.2)
            stats = native.stats()
            assert stats.pop("buffer_bytes") <= 4 * MiB  # as much stays for the next transfer
            return {**stats, "fds": len(os.listdir("/proc/self/fd"))}

        before, after = fail(40), fail(200 if FULL else 100)
    grown = {name: (before[name], after[name]) for name in after if after[name] > before[name]}
    assert not {name: pair for name, pair in grown.items() if pair[1] > pair[0] + 4}, grown
