"""The protocol of storage.tus, step by step: what each header does, and clients whose requests stop anywhere."""

import base64
import contextlib
import hashlib
from collections import Counter
from datetime import timedelta
from types import SimpleNamespace
from unittest.mock import patch
from uuid import uuid4

import pytest
from conftest import FULL, s3_options
from django.test import override_settings
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from storage import ContentRejected, FinalObject, StorageUnavailable, get_storage_adapter
from storage.steps import run
from storage.sweep import sweep
from storage.tus import core, front, views
from storage.tus.checksums import ALGORITHMS, Checksum, Crc32c
from storage.tus.models import Upload
from storage.tus.rows import Rows
from storage.tus.signals import upload_finished

MEMORY = {"default": {"BACKEND": "storage.MemoryStorageAdapter"}}
TYPE = "application/offset+octet-stream"


class Body:
    """What has come of a body."""

    def __init__(self, data=b"", cut=False):
        self._data, self._cuts = data, cut
        self.cut = False

    def read(self, size):
        data, self._data = self._data[:size], self._data[size:]
        self.cut = self._cuts and not data
        return data


class Exchange:
    """A request that is carried out step by step, and may stop for ever after each."""

    def __init__(self, method, name="", body=None, *, user=None, max_size=None, **headers):
        headers = {"tus-resumable": "1.0.0"} | {key.replace("_", "-"): str(value) for key, value in headers.items()}
        self.method, self.body = method, body or Body()
        if body is not None:
            headers.setdefault("content-type", TYPE)
        self.rows = Rows(SimpleNamespace(user=user))
        self.steps = core.respond(core.Request(method, name, headers), max_size)
        self.answer = None
        self._go(lambda: next(self.steps))

    def _go(self, on):
        try:
            self.waits = on()
        except StopIteration as done:
            self.answer = done.value

    def step(self):
        try:
            value = views._take(self.waits, self.rows, get_storage_adapter(), self.body)
        except Exception as error:
            self._go(lambda error=error: self.steps.throw(error))
        else:
            self._go(lambda: self.steps.send(value))

    def run(self):
        while self.answer is None:
            self.step()
        return self.answer


def ask(*args, **headers):
    return Exchange(*args, **headers).run()


def put(name, offset, data, **headers):
    return ask("PATCH", name, Body(data), upload_offset=offset, content_length=len(data), **headers)


def offset_of(name):
    return int(ask("HEAD", name).headers["Upload-Offset"])


def create(size, **headers):
    answer = ask("POST", upload_length=size, **headers)
    assert answer.status == 201, answer.text
    return answer.location


pytestmark = pytest.mark.usefixtures("database")


@contextlib.contextmanager
def empty(adapters=MEMORY):
    """No uploads, an empty store, and the finished uploads that are told of."""
    told = []

    def receive(sender, upload, final, **_):
        told.append((upload.name, final))

    Upload.objects.all().delete()
    upload_finished.connect(receive)
    with override_settings(STORAGE_ADAPTERS=adapters), patch.object(core, "PART", 8):
        try:
            yield told
        finally:
            upload_finished.disconnect(receive)
            get_storage_adapter().close()


@pytest.fixture
def told():
    with empty() as told:
        yield told


def content(final):
    with get_storage_adapter().get_final_stream(final) as stream:
        return stream.read()


# ---- what each header does


def test_from_the_beginning_to_the_end(told):
    name = create(20, upload_metadata="filename " + base64.b64encode("ä.txt".encode()).decode())
    assert offset_of(name) == 0
    answer = put(name, 0, b"0123456789")
    assert (answer.status, answer.headers["Upload-Offset"]) == (204, "10")
    assert not told
    assert put(name, 10, b"0123456789").headers["Upload-Offset"] == "20"
    assert [(known, content(final)) for known, final in told] == [(name, b"01234567890123456789")]
    upload = Upload.objects.get()
    assert upload.final == told[0][1] == FinalObject("memory", f"tus/{upload.id}", 20, upload.sha256)
    assert (upload.filename, upload.content_type) == ("ä.txt", "text/plain")
    assert get_storage_adapter().stat_final(upload.final).content_type == "text/plain"
    assert get_storage_adapter().list_temp_parts(name) == []
    assert offset_of(name) == 20
    assert put(name, 0, b"0123456789").status == 409  # a replay
    assert put(name, 20, b"0").status == 413
    assert ask("PATCH", name, Body(b"0"), upload_offset=20, transfer_encoding="chunked").status == 413
    assert put(name, 20, b"").status == 204
    assert len(told) == 1
    assert ask("DELETE", name).status == 204
    assert ask("HEAD", name).status == ask("DELETE", name).status == 404
    assert content(upload.final) == b"01234567890123456789"  # forgotten, but there


def test_an_object_that_was_removed(told):
    """Clients keep the URL, and ask it when they are to send the same file again."""
    name = create(1)
    put(name, 0, b"x")
    Upload.objects.update(bucket="of-before")
    assert offset_of(name) == 1
    Upload.objects.update(bucket="memory")
    get_storage_adapter().delete_final(told[0][1])
    assert ask("HEAD", name).status == 410
    assert ask("DELETE", name).status == 204


def test_parts_are_cut_at_their_size(told):
    name = create(100)
    put(name, 0, b"x" * 20)
    assert [part.size for part in get_storage_adapter().list_temp_parts(name)] == [8, 8, 4]


def test_more_parts_than_a_session_has(told):
    with patch.object(core, "MAX_PART_NUMBER", 3):
        name = create(10)
        for offset in range(10):
            assert put(name, offset, bytes([offset])).status == 204
        assert offset_of(name) == 10
        assert content(told[0][1]) == bytes(range(10))
        assert not any(get_storage_adapter().list_temp_parts(f"{name}{more}") for more in ("", "-1", "-2", "-3"))


@pytest.mark.parametrize("size", [None, 0, 1, 8 * 1024**2, 5 * 1024**4])
def test_the_parts_of_the_largest_upload_can_be_joined(size):
    offset = count = 0
    while offset < (5 * 1024**4 if size is None else size):
        offset += core.part_size(offset, size)
        count += 1
    assert count <= 10_000


def test_nothing(told):
    name = create(0)
    assert content(told[0][1]) == b"" and offset_of(name) == 0
    ask("POST", upload_length=0, upload_concat="partial")
    assert len(told) == 1


def test_creation_with_upload(told):
    answer = ask("POST", "", Body(b"01234"), upload_length=10, content_length=5)
    assert (answer.status, answer.headers["Upload-Offset"]) == (201, "5")
    assert put(answer.location, 5, b"56789").status == 204
    whole = ask("POST", "", Body(b"0123456789"), upload_length=10, content_length=10)
    assert whole.status == 201 and [content(final) for _, final in told] == [b"0123456789"] * 2
    assert ask("POST", "", Body(b"01"), upload_length=1, content_length=2).status == 413
    assert ask("POST", "", Body(b"01"), upload_length=1, transfer_encoding="chunked").status == 413
    wrong = "md5 " + "A" * 22 + "=="
    assert ask("POST", "", Body(b"01"), upload_length=2, content_length=2, upload_checksum=wrong).status == 460
    assert ask("POST", "", Body(), upload_length=2, content_length=0, upload_checksum=wrong).status == 460
    assert Upload.objects.count() == 2  # nobody could go on with the others
    form = ask("POST", "", Body(b"--"), upload_length=2, content_length=2, content_type="multipart/form-data")
    assert form.status == 201 and offset_of(form.location) == 0


def test_creation_with_upload_of_unknown_length(told):
    answer = ask("POST", "", Body(b"0123"), upload_length=4)  # as by HTTP/2
    assert (answer.status, answer.headers["Upload-Offset"]) == (201, "4")
    assert [content(final) for _, final in told] == [b"0123"]


def test_a_length_that_comes_later(told):
    answer = ask("POST", upload_defer_length=1)
    name = answer.location
    head = ask("HEAD", name)
    assert head.headers["Upload-Defer-Length"] == "1" and "Upload-Length" not in head.headers
    assert put(name, 0, b"01234").status == 204
    assert put(name, 5, b"", upload_length=4).status == 400
    assert put(name, 5, b"56", upload_length=6).status == 413
    assert put(name, 5, b"5", upload_length=7).status == 204
    assert put(name, 6, b"6", upload_length=8).status == 400
    assert not told
    assert put(name, 6, b"6", upload_length=7).status == 204
    assert content(told[0][1]) == b"0123456"


BAD = {
    "no length": {},
    "both": {"upload_length": 1, "upload_defer_length": 1},
    "defer": {"upload_defer_length": 2},
    **{
        repr(text): {"upload_length": text}
        for text in ("", "-1", "+1", "1_0", "1.0", "0x1", " 1", "1 ", "1,1", "\u0663", "1\n", "9" * 5000 + "x")
    },
    **{
        text: {"upload_length": 1, "upload_metadata": text}
        for text in ("a !", "a b c", ",", "a YQ==,", "a YQ==,a YQ==", "a YQ", "ä YQ==", "a /w==", "a AA==")
    },
    **{text: {"upload_length": 1, "upload_concat": text} for text in ("x", "partial;", "partial;a", "Final;a")},
    **{text: {"upload_concat": text} for text in ("final;", "final; ", "final;/files/x", "final;/files/" + "0" * 31)},
    "length of a final": {"upload_length": 1, "upload_concat": "final;/files/" + "0" * 32},
}


@pytest.mark.parametrize("headers", BAD.values(), ids=BAD)
def test_bad_creations(told, headers):
    answer = ask("POST", **headers)
    assert answer.status == 400 and answer.text
    assert not Upload.objects.exists()


def test_sizes_that_are_too_large(told):
    for size, most in [(11, 10), ("9" * 5000, 10), (5 * 1024**4 + 1, None), (10**19, None)]:
        answer = ask("POST", upload_length=size, max_size=most)
        assert (answer.status, answer.headers["Tus-Max-Size"]) == (413, str(most or 5 * 1024**4))
    name = ask("POST", upload_defer_length=1).location
    for size in (11, "9" * 5000):
        assert put(name, 0, b"", upload_length=size, max_size=10).status == 413
    assert put(name, 0, b"x" * 11, max_size=10).status == 413
    chunked = ask("PATCH", name, Body(b"x" * 11), upload_offset=0, transfer_encoding="chunked", max_size=10)
    assert chunked.status == 413 and offset_of(name) == 8


@pytest.mark.parametrize("text", [None, "", "-1", "+1", "1_0", "1.0", " 0", "0,0", "\u0660"])
def test_bad_offsets(told, text):
    name = create(10)
    headers = {} if text is None else {"upload_offset": text}
    answer = ask("PATCH", name, Body(b"x"), content_length=1, **headers)
    assert answer.status == 400 and offset_of(name) == 0


def test_wrong_offsets(told):
    name = create(10)
    put(name, 0, b"01234")
    for offset in (0, 4, 6, 10, 11, 2**63, 10**19, 10**30):
        assert put(name, offset, b"x").status == 409
    assert offset_of(name) == 5


def test_lying_lengths(told):
    name = create(10)
    assert put(name, 0, b"x" * 11).status == 413
    assert ask("PATCH", name, Body(b"x" * 11), upload_offset=0, transfer_encoding="chunked").status == 413
    assert offset_of(name) == 8  # of a body whose end nobody could know
    assert not told


def test_other_refusals(told):
    name = create(10)
    assert ask("PATCH", name, Body(b"x"), upload_offset=0, content_type="text/plain").status == 415
    assert ask("HEAD", name, tus_resumable="0.2.2").status == 412
    assert ask("HEAD", name, tus_resumable="0.2.2").headers["Tus-Version"] == "1.0.0"
    assert ask("GET", name).status == ask("PATCH", "").status == ask("POST", name).status == 405
    assert ask("PUT", name).headers["Allow"] == "HEAD, PATCH, DELETE, OPTIONS"
    for method in ("HEAD", "DELETE"):
        assert ask(method, "0" * 32).status == 404
    assert put("0" * 32, 0, b"x").status == 404
    assert ask("POST", upload_length=1, upload_metadata="a" * 9000).status == 431
    assert offset_of(name) == 0


def test_options_need_no_version():
    answer = ask("OPTIONS", tus_resumable="", max_size=10)
    assert answer.status == 204
    assert answer.headers["Tus-Max-Size"] == "10" and answer.headers["Tus-Version"] == "1.0.0"
    assert answer.headers["Tus-Checksum-Algorithm"] == "sha1,sha256,md5,crc32c"
    assert "concatenation" in answer.headers["Tus-Extension"]


def test_methods_in_a_header(told):
    name = create(4)
    assert ask("POST", name, Body(b"0123"), upload_offset=0, x_http_method_override="PATCH").status == 204
    assert ask("GET", name, x_http_method_override="HEAD").headers["Upload-Offset"] == "4"
    assert ask("POST", name, x_http_method_override="DELETE").status == 204


NAMES = [
    *("tus-resumable", "content-type", "content-length", "transfer-encoding", "x-http-method-override"),
    *("upload-length", "upload-defer-length", "upload-metadata", "upload-concat", "upload-offset", "upload-checksum"),
]
VALUES = st.one_of(
    st.text(st.characters(max_codepoint=255), max_size=20),
    st.integers(-2, 2**70).map(str),
    st.sampled_from(["1.0.0", TYPE, "partial", "final;/a", "chunked", "PATCH", "HEAD", "DELETE", "sha1 YQ==", "1"]),
)


@given(
    method=st.sampled_from(["POST", "PATCH", "HEAD", "DELETE", "OPTIONS", "GET", "\u0130"]),
    known=st.booleans(),
    sane=st.booleans(),
    headers=st.dictionaries(st.sampled_from(NAMES), VALUES),
    body=st.binary(max_size=20),
)
@settings(deadline=None, max_examples=2000 if FULL else 150)
def test_any_request_has_an_answer(method, known, sane, headers, body):
    with empty():
        name = create(10) if known else ""
        headers = {"tus-resumable": "1.0.0", "content-type": TYPE} | headers if sane else headers
        rows, body = Rows(SimpleNamespace(user=None)), Body(body)
        request = core.Request(method, name, headers)
        answer = run(front.answered(request, lambda step: views._take(step, rows, get_storage_adapter(), body)))
        assert answer.status in {200, 201, 204} or (answer.status in range(400, 500) and answer.text)


# ---- checksums


def test_crc32c_is_that_of_rfc_3720():
    for data, digest in [(b"\0" * 32, "8a9136aa"), (b"\xff" * 32, "62a8ab43"), (b"123456789", "e3069283")]:
        crc = Crc32c()
        crc.update(data[:5])
        crc.update(memoryview(data)[5:7])
        crc.update(bytearray(data[7:]))
        crc.update(b"")
        assert crc.digest().hex() == digest


def checksum(algorithm, data):
    known = ALGORITHMS[algorithm]()
    known.update(data)
    return f"{algorithm} {base64.b64encode(known.digest()).decode()}"


@given(st.lists(st.binary(max_size=9)))
@settings(deadline=None)
def test_crc32c_of_any_pieces(pieces):
    state = 0xFFFFFFFF
    for bit in (byte >> n & 1 for byte in b"".join(pieces) for n in range(8)):
        state = state >> 1 ^ (0x82F63B78 if (state ^ bit) & 1 else 0)
    crc = Crc32c()
    for piece in pieces:
        crc.update(piece)
    assert crc.digest() == (state ^ 0xFFFFFFFF).to_bytes(4, "big")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_checksums(told, algorithm):
    name, data = create(40), b"0123456789" * 2
    wrong = put(name, 0, data, upload_checksum=checksum(algorithm, b"x"))
    assert wrong.status == 460 and offset_of(name) == 0
    assert put(name, 0, data, upload_checksum=checksum(algorithm, data)).status == 204
    assert [part.size for part in get_storage_adapter().list_temp_parts(name)] == [20]
    assert put(name, 20, data, upload_checksum=checksum(algorithm, data)).status == 204
    assert content(told[0][1]) == data * 2


def test_a_cut_counts_without_a_checksum_only(told):
    name, data = create(40), b"0123456789" * 2
    ask("PATCH", name, Body(data[:13], cut=True), upload_offset=0, upload_checksum=checksum("sha1", data))
    assert offset_of(name) == 0
    ask("PATCH", name, Body(data[:13], cut=True), upload_offset=0, upload_checksum=checksum("sha1", data[:13]))
    assert offset_of(name) == 0
    ask("PATCH", name, Body(data[:13], cut=True), upload_offset=0)
    assert offset_of(name) == 13


@pytest.mark.parametrize(
    "header",
    ["", "sha1", "sha1 ", "sha1 !", "sha1 YQ==", "SHA1 " + "A" * 27 + "=", "sha512 YQ==", "sha1  YQ==", "sha1 é"],
)
def test_bad_checksums(told, header):
    name = create(1)
    assert put(name, 0, b"x", upload_checksum=header).status == 400
    assert offset_of(name) == 0


@given(st.text(max_size=40))
@settings(deadline=None)
def test_any_checksum_is_one_or_none(header):
    with contextlib.suppress(ValueError):
        Checksum.parse(header)


# ---- metadata


@given(st.dictionaries(st.from_regex("[!-+\\--~]+", fullmatch=True), st.text().filter(lambda text: "\0" not in text)))
@settings(deadline=None)
def test_metadata_is_told_as_it_came(metadata):
    assert core.parse_metadata(core.tell_metadata(metadata)) == metadata or len(core.tell_metadata(metadata)) > 8190


@given(st.text(alphabet=st.characters(max_codepoint=300), max_size=60))
@settings(deadline=None)
def test_any_metadata_is_read_or_refused(header):
    with contextlib.suppress(core.Refused):
        core.parse_metadata(header)


# ---- concatenation


def joined(*names, **headers):
    return ask("POST", upload_concat="final;" + " ".join(f"https://x/files/{name}" for name in names), **headers)


def test_concatenation(told):
    names = [create(size, upload_concat="partial") for size in (10, 0, 5)]
    assert ask("HEAD", names[0]).headers["Upload-Concat"] == "partial"
    put(names[0], 0, b"0123456789")
    assert joined(*names).status == 400  # the last is not complete
    put(names[2], 0, b"abcde")
    answer = joined(*names)
    assert answer.status == 201
    assert [(name, content(final)) for name, final in told] == [(answer.location, b"0123456789abcde")]
    head = ask("HEAD", answer.location)
    assert (head.headers["Upload-Length"], head.headers["Upload-Offset"], head.concat) == ("15", "15", names)
    assert put(answer.location, 15, b"").status == 403
    assert joined(*names).location == answer.location and len(told) == 1  # the answer was lost
    assert joined(names[0]).status == 410
    assert offset_of(names[0]) == 10
    assert not any(get_storage_adapter().list_temp_parts(name) for name in names)


def test_concatenations_that_are_refused(told):
    whole, partial = create(1), create(1, upload_concat="partial")
    put(whole, 0, b"x")
    put(partial, 0, b"x")
    assert joined(whole).status == joined(partial, whole).status == 400
    assert joined(partial, "0" * 32).status == 404
    assert ask("POST", "", Body(b"x"), upload_concat=f"final;{partial}", content_length=1).status == 400
    assert joined(partial, max_size=0).status == 413
    Upload.objects.filter(pk=partial).update(expires=timezone.now())
    assert joined(partial).status == 410
    assert len(told) == 1


def test_a_concatenation_that_is_killed_is_finished_by_head(told):
    names = [create(4, upload_concat="partial") for _ in range(2)]
    for name in names:
        put(name, 0, b"0123")
    exchange = Exchange("POST", upload_concat=f"final;{names[0]} {names[1]}")
    while not (isinstance(exchange.waits, core.Ask) and exchange.waits.method == "finish"):
        exchange.step()
    exchange.steps.close()
    assert not told
    final = Upload.objects.exclude(concat=[]).get()
    assert offset_of(final.name) == 8 and content(told[0][1]) == b"01230123"


def test_what_is_being_joined_does_not_expire(told):
    names = [create(4, upload_concat="partial") for _ in range(2)]
    for name in names:
        put(name, 0, b"0123")
    Upload.objects.update(expires=timezone.now() + timedelta(minutes=1))
    joins = Exchange("POST", upload_concat=f"final;{names[0]} {names[1]}")
    until(joins, "join")
    assert not Upload.objects.filter(expires__lt=timezone.now() + timedelta(days=6)).exists()
    assert joins.run().status == 201


# ---- several requests


def until(exchange, method):
    """Carry out the steps before the first of a name."""
    while getattr(exchange.waits, "method", "receive") != method:
        exchange.step()


def patching(name, offset, data, **headers):
    return Exchange("PATCH", name, Body(data), upload_offset=offset, content_length=len(data), **headers)


def after_a_part(name, offset, data):
    """A PATCH that has stored its first part, and goes on when its steps do."""
    exchange = patching(name, offset, data)
    until(exchange, "receive")
    exchange.step()
    return exchange


@pytest.mark.parametrize("size", [10, 20])  # complete with that, or not
@pytest.mark.parametrize("point", ["list_temp_parts", "look", "receive"])
def test_of_two_patches_at_once_one_wins(told, point, size):
    name = create(size)
    first, second = patching(name, 0, b"0123456789"), patching(name, 0, b"0123456789")
    until(second, point)
    until(first, point)
    first.step()
    second.step()
    assert sorted([first.run().status, second.run().status]) == [204, 409]
    assert offset_of(name) == 10


def test_a_patch_that_began_before_another_finished(told):
    name = create(10)
    late = patching(name, 0, b"abcdefghij")
    until(late, "receive")
    Upload.objects.update(turn=0)  # as if it were the first one's turn
    assert put(name, 0, b"0123456789").status == 204
    assert late.run().status == 409
    assert get_storage_adapter().list_temp_parts(name) == [] and content(told[0][1]) == b"0123456789"


def test_a_retry_takes_over_from_a_request_that_hangs(told):
    name = create(30)
    hangs = after_a_part(name, 0, b"0123456789" * 2)
    assert offset_of(name) == 8
    assert put(name, 8, b"x" * 22).status == 204
    assert hangs.run().status == 409
    assert content(told[0][1]) == b"01234567" + b"x" * 22


def test_a_request_that_hangs_replaces_nothing(told):
    name = create(30)
    hangs = patching(name, 0, b"0123456789")
    until(hangs, "receive")
    assert put(name, 0, b"abcdefghij").status == 204
    assert hangs.run().status == 409
    assert put(name, 10, b"x" * 20).status == 204
    assert content(told[0][1]) == b"abcdefghij" + b"x" * 20


@pytest.mark.parametrize("stops", ["look", "begin_finish", "assemble", "finish", "delete_temp_parts"])
def test_head_finishes_what_was_killed(told, stops):
    name = create(4)
    killed = after_a_part(name, 0, b"0123")
    until(killed, stops)
    killed.steps.close()
    assert offset_of(name) == 4
    assert [content(final) for _, final in told] == [b"0123"]
    assert offset_of(name) == 4 and len(told) == 1


@pytest.mark.parametrize("at", ["begin_finish", "list_temp_parts", "assemble", "finish", "delete_temp_parts"])
def test_two_finish_at_once(told, at):
    name = create(4)
    first = after_a_part(name, 0, b"0123")
    until(first, at)
    assert offset_of(name) == 4
    assert first.run().status == 204
    assert len(told) == 1


def test_a_head_beside_the_end(told):
    name = create(10)
    put(name, 0, b"01234")
    end, gone = Exchange("HEAD", name), Exchange("HEAD", name)
    for late in (end, gone):
        until(late, "list_temp_parts")
    put(name, 5, b"56789")
    assert end.run().headers["Upload-Offset"] == "10"
    ask("DELETE", name)
    assert gone.run().status == 404


@pytest.mark.parametrize("at", ["joined", "find", "list_temp_parts", "join", "assemble", "finish"])
def test_a_concatenation_that_is_sent_twice_at_once(told, at):
    names = [create(4, upload_concat="partial") for _ in range(2)]
    for name in names:
        put(name, 0, b"0123")
    late = Exchange("POST", upload_concat=f"final;{names[0]} {names[1]}")
    until(late, at)
    first = joined(*names)
    assert late.run().location == first.location != ""
    assert [content(final) for _, final in told] == [b"01230123"]


def test_a_delete_beside_a_patch(told):
    name = create(20)
    patch_ = after_a_part(name, 0, b"0123456789")
    assert ask("DELETE", name).status == 204
    assert patch_.run().status == 404
    assert get_storage_adapter().list_temp_parts(name) == []


def test_a_delete_beside_the_finish(told):
    name = create(4)
    first = patching(name, 0, b"0123")
    until(first, "assemble")
    assert ask("DELETE", name).status == 204
    assert len(told) == 1 and content(told[0][1]) == b"0123"
    assert first.run().status == 404


def test_the_store_fails_while_it_is_finished(told):
    name = create(4)
    first = patching(name, 0, b"0123")
    until(first, "assemble")
    with pytest.raises(StorageUnavailable):
        first.steps.throw(StorageUnavailable("not now", retryable=True))
    assert offset_of(name) == 4 and len(told) == 1


def test_a_name_that_is_taken(told):
    with override_settings(STORAGE_TUS_FILE_ID=lambda upload: upload.metadata["name"]):
        for data, status in [(b"0123", 204), (b"0123", 204), (b"4567", 409)]:
            name = create(4, upload_metadata="name YQ==")
            answer = put(name, 0, data)
            assert answer.status == status
        assert ask("HEAD", name).status == 423 and content(told[0][1]) == b"0123"
        assert ask("DELETE", name).status == 204
        for data in (b"4567", b""):  # nobody is told where that is, so nothing of it is left
            answer = ask("POST", "", Body(data), upload_length=len(data), upload_metadata="name YQ==")
            assert answer.status == 409 and len(told) == Upload.objects.count() == 2
        assert sweep(older_than="0s")["sessions"] == 0
        assert ask("POST", upload_length=4, upload_metadata="name Li4veA==").status == 400  # ../x


# ---- what is not wanted


def unwanted(reader):
    if reader.read(1) == b"!":
        raise ContentRejected("no exclamations")


@pytest.fixture
def inspected(told):
    with override_settings(STORAGE_TUS_INSPECT=unwanted):
        yield told


def nothing_is_left(*names):
    adapter = get_storage_adapter()
    assert not any(adapter.list_temp_parts(name) for name in names) and not list(adapter.list_final())
    assert not Upload.objects.filter(pk__in=names).exists()


def test_what_is_not_wanted(inspected):
    name = create(20)
    put(name, 0, b"!123456789")
    answer = put(name, 10, b"0123456789")
    assert (answer.status, answer.text) == (422, "no exclamations")
    assert ask("HEAD", name).status == put(name, 20, b"").status == ask("DELETE", name).status == 404
    nothing_is_left(name)
    whole = ask("POST", "", Body(b"!x"), upload_length=2, content_length=2)
    assert whole.status == 422 and not Upload.objects.exists()
    put(create(2), 0, b"x!")
    assert [content(final) for _, final in inspected] == [b"x!"]


def test_several_look_at_an_empty_one_too(told):
    seen = []

    def refuses(reader):
        seen.append(reader.read())
        raise ContentRejected("")

    with override_settings(STORAGE_TUS_INSPECT=[lambda reader: seen.append(reader.name), refuses]):
        answer = ask("POST", upload_length=0)
    assert (answer.status, answer.text) == (422, "this file is not wanted here")
    assert seen[0].startswith("tus/") and seen[1] == b"" and not told
    nothing_is_left()


def test_a_concatenation_that_is_not_wanted(inspected):
    names = [create(4, upload_concat="partial") for _ in range(2)]
    for name in names:
        put(name, 0, b"!123")  # nobody looks at a piece of a file
    assert joined(*names).status == 422
    assert joined(*names).status == ask("HEAD", names[0]).status == 404
    nothing_is_left(*names)


@pytest.mark.parametrize("stops", ["begin_finish", "inspect", "assemble", "reject", "delete_temp_parts"])
@pytest.mark.parametrize("pieces", [1, 2])
def test_who_is_killed_while_rejecting(inspected, stops, pieces):
    if pieces == 1:
        names = [create(4)]
        killed = after_a_part(names[0], 0, b"!123")
    else:
        names = [create(4, upload_concat="partial") for _ in range(pieces)]
        for name in names:
            put(name, 0, b"!123")
        killed = Exchange("POST", upload_concat="final;" + " ".join(names))
    until(killed, stops)
    killed.steps.close()
    last = Upload.objects.order_by("created").last()
    if last is not None:
        assert ask("HEAD", last.name).status == 422 and ask("HEAD", last.name).status == 404
    assert ask("HEAD", names[0]).status == 404
    sweep(older_than="0s")
    nothing_is_left(*names)
    assert not Upload.objects.exists()


@pytest.mark.parametrize("at", ["begin_finish", "list_temp_parts", "inspect", "assemble", "reject"])
def test_two_reject_at_once(inspected, at):
    name = create(4)
    first = after_a_part(name, 0, b"!123")
    until(first, at)
    assert ask("HEAD", name).status == 422
    assert first.run().status == 404
    nothing_is_left(name)


def test_one_rejects_what_another_has_finished(inspected):
    name = create(4)
    first = patching(name, 0, b"!123")
    until(first, "reject")
    with override_settings(STORAGE_TUS_INSPECT=None):
        assert offset_of(name) == 4
    assert first.run().status == 204
    assert [content(final) for _, final in inspected] == [b"!123"] and offset_of(name) == 4


def test_a_delete_of_what_is_not_wanted(inspected):
    name = create(4)
    killed = after_a_part(name, 0, b"!123")
    until(killed, "assemble")
    assert ask("DELETE", name).status == 204
    nothing_is_left(name)


@pytest.mark.parametrize("fault", [StorageUnavailable("the scanner is away"), RuntimeError("a mistake")])
def test_an_inspector_that_fails_is_asked_again(told, fault):
    def fails(reader):
        raise fault

    name = create(4)
    with override_settings(STORAGE_TUS_INSPECT=fails), pytest.raises(type(fault)):
        put(name, 0, b"!123")
    with override_settings(STORAGE_TUS_INSPECT=unwanted):
        assert ask("HEAD", name).status == 422
    assert not told
    nothing_is_left(name)


def test_a_delete_while_an_inspector_fails(told):
    name = create(4)
    with override_settings(STORAGE_TUS_INSPECT=lambda reader: 1 / 0):
        with pytest.raises(ZeroDivisionError):
            put(name, 0, b"0123")
        assert ask("DELETE", name).status == 204
    assert not told
    nothing_is_left(name)


# ---- telling


@pytest.mark.parametrize("again", [lambda name: ask("HEAD", name), lambda name: sweep(older_than="1d")])
def test_who_is_killed_while_telling_is_made_good(told, again):
    name = create(4)
    with patch.object(upload_finished, "send_robust", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        put(name, 0, b"0123")
    again(name)
    assert not told  # somebody may be at it
    Upload.objects.update(telling=timezone.now() - timedelta(minutes=6))
    again(name)
    again(name)
    assert [content(final) for _, final in told] == [b"0123"]
    assert not Upload.objects.exclude(telling=None).exists()


# ---- expiry and sweeping


def expire(name):
    Upload.objects.filter(pk=name).update(expires=timezone.now() - timedelta(seconds=1))


def test_what_has_expired_is_gone_and_swept(told):
    gone, live, done = create(10), create(10), create(4)
    for name in (gone, live, done):
        put(name, 0, b"0123")
    for name in (gone, done):
        expire(name)
    assert ask("HEAD", gone).status == put(gone, 4, b"x").status == 410
    assert "Upload-Expires" in ask("HEAD", live).headers and "Upload-Expires" not in ask("HEAD", done).headers
    would = sweep(older_than="999d", dry_run=True)
    assert would == {"sessions": 1, "parts": 1, "uploads": 0, "size": 4, "finished": True}
    assert sweep(older_than="0s", dry_run=True) == would
    assert sweep(older_than="999d") == would
    assert get_storage_adapter().list_temp_parts(gone) == []
    assert ask("HEAD", gone).status == 410 and offset_of(done) == 4
    assert sweep(older_than="0s")["parts"] == 0  # the live one is spared, however old
    assert offset_of(live) == 4
    Upload.objects.filter(pk=gone).update(expires=timezone.now() - timedelta(days=8))
    sweep(older_than="0s")
    assert ask("HEAD", gone).status == 404


def test_all_parts_of_what_has_expired_are_swept(told):
    with patch.object(core, "MAX_PART_NUMBER", 3), patch("storage.sweep.MAX_PART_NUMBER", 3):
        name = create(10)
        for offset in range(7):
            put(name, offset, b"x")
        expire(name)
        swept = {"sessions": 3, "parts": 7, "uploads": 0, "size": 7, "finished": True}
        assert sweep(older_than="999d", dry_run=True) == sweep(older_than="999d") == swept
        assert not any(get_storage_adapter().list_temp_parts(f"{name}{more}") for more in ("", "-1", "-2"))


def test_what_has_expired_can_be_deleted(told):
    name = create(10)
    expire(name)
    assert ask("DELETE", name).status == 204 and ask("HEAD", name).status == 404


def test_a_sweep_beside_a_patch(told):
    name = create(20)
    slow = after_a_part(name, 0, b"0123456789")
    expire(name)
    sweep(older_than="999d")
    assert slow.run().status == 410
    assert get_storage_adapter().list_temp_parts(name) == []


def test_a_sweep_beside_the_finish(told):
    name = create(4)
    slow = patching(name, 0, b"0123")
    until(slow, "finish")
    expire(name)
    sweep(older_than="999d")
    assert slow.run().status == 204 and content(told[0][1]) == b"0123"
    assert offset_of(name) == 4


# ---- any clients, any order


class Clients(RuleBasedStateMachine):
    """What was acknowledged is there, and each upload is finished once, with its bytes."""

    place = came = None
    """A function that gives the settings of an empty store, and a counter of the answers that came."""

    @initialize()
    def begin(self):
        self.world = contextlib.ExitStack()
        self.told = self.world.enter_context(empty(self.place()))
        self.world.enter_context(override_settings(STORAGE_TUS_INSPECT=unwanted))
        self.uploads = {}  # name: its acknowledged pieces, by offset
        self.sizes = {}  # None while deferred
        self.partial, self.joined, self.gone, self.running = [], set(), set(), []
        self.unwanted = set()  # may go at any time
        self.seen = {}  # the highest offset that was told
        self.killed = False

    def teardown(self):
        if not hasattr(self, "world"):
            return
        try:
            for exchange, done in self.running:
                exchange.run()
                self.ended(exchange, done)
            for name in self.uploads:
                self.check(name)
            waiting = {upload.name for upload in Upload.objects.exclude(state="finished")}
            if not self.killed:
                self.check_rid(self.uploads.keys() - waiting)
            sweep(older_than="0s")
            self.check_rid(self.uploads.keys() - {upload.name for upload in Upload.objects.filter(state="uploading")})
            names = [name for name, _ in self.told]
            assert len(set(names)) == len(names)
            assert not any(content(final).startswith(b"!") for _, final in self.told)
        finally:
            self.world.close()

    def check_rid(self, names):
        for name in names:
            assert get_storage_adapter().list_temp_parts(name) == []

    def begun(self, data, exchange, done):
        """Some requests go through at once; the others go on step by step, or never."""
        if data.draw(st.booleans()):
            exchange.run()
            self.ended(exchange, done)
        else:
            self.running.append((exchange, done))

    def ended(self, exchange, done):
        self.came[f"{exchange.method} {exchange.answer.status}"] += 1
        done(exchange.answer)

    def of(self, data):
        """Mostly one of the last two, so that requests meet."""
        names = list(self.uploads)
        return data.draw(st.sampled_from(names[-2:] * 3 + names))

    @rule(size=st.integers(0, 30), partial=st.booleans(), deferred=st.sampled_from([True, False, False]))
    def create(self, size, partial, deferred):
        headers = {"upload_concat": "partial"} if partial else {}
        answer = ask("POST", **({"upload_defer_length": 1} if deferred else {"upload_length": size}), **headers)
        assert answer.status == 201
        self.created(answer.location, partial, None if deferred else size)

    @rule(body=st.binary(max_size=25) | st.just(b"!"), more=st.sampled_from([0, 0, 1, 9]), partial=st.booleans())
    def create_with_upload(self, body, more, partial):
        headers = {"upload_concat": "partial"} if partial else {}
        size, refused = len(body) + more, body.startswith(b"!") and not more and not partial
        answer = ask("POST", "", Body(body), upload_length=size, content_length=len(body), **headers)
        assert answer.status == (422 if refused else 201)
        if not refused:
            assert answer.headers.get("Upload-Offset", "0") == str(len(body))
            self.created(answer.location, partial, size)
            self.sent(answer.location, 0, body)
            self.acknowledged(answer.location, 0, body)

    def created(self, name, partial, size):
        self.uploads[name], self.sizes[name] = [], size
        if partial:
            self.partial.append(name)

    def sent(self, name, offset, body):
        if offset == 0 and body.startswith(b"!"):
            self.spoiled(name)

    def spoiled(self, *names):
        self.unwanted.update(names)
        self.gone.update(names)

    def acknowledged(self, name, offset, piece):
        self.uploads[name].append((offset, piece))
        self.seen[name] = max(self.seen.get(name, 0), offset + len(piece))

    @precondition(lambda self: self.uploads)
    @rule(
        data=st.data(),
        cut=st.sampled_from([True, False, False]),
        summed=st.sampled_from([None, None, None, True, False]),
        right=st.sampled_from([True, True, True, False]),
        rest=st.booleans(),
    )
    def patch(self, data, **how):
        self.patch_at(data, self.of(data), **how)

    @precondition(lambda self: self.uploads)
    @rule(data=st.data(), rest=st.booleans())
    def patch_twice(self, data, rest):
        """Two requests meet, with different bytes."""
        name = self.of(data)
        for _ in range(2):
            self.patch_at(data, name, cut=False, summed=None, right=True, rest=rest)
        self.go_on(data, 20)

    def patch_at(self, data, name, cut, summed, right, rest):
        size, offset = self.sizes[name], self.seen.get(name, 0) if right else data.draw(st.integers(0, 30))
        left = size - offset if size is not None and rest and offset <= size else None
        body = data.draw(st.binary(max_size=25) if left is None else st.binary(min_size=left, max_size=left))
        if data.draw(st.sampled_from([False] * 7 + [True])):
            body = b"!"[: len(body)] + body[1:]
        self.sent(name, offset, body)
        headers = {}
        if data.draw(st.sampled_from([size is None, False])):
            headers["upload_length"] = length = data.draw(st.integers(0, 30))
        if summed is not None:
            headers["upload_checksum"] = checksum("sha256", body if summed else body + b"x")
        exchange = Exchange("PATCH", name, Body(body, cut), upload_offset=offset, **headers)

        def done(answer):
            assert answer.status in (204, 400, 404, 403, 409, 410, 413, 422, 460)
            if answer.status == 204:
                reached = int(answer.headers["Upload-Offset"])
                if summed is not None:
                    assert (summed and not cut) or reached == offset + len(body) == offset
                assert reached == offset + len(body)
                self.acknowledged(name, offset, body)
                if headers.get("upload_length") is not None:
                    self.sizes[name] = length

        self.begun(data, exchange, done)

    @precondition(lambda self: self.uploads)
    @rule(data=st.data())
    def head(self, data):
        name = self.of(data)
        acknowledged = self.seen.get(name, 0)
        self.begun(data, Exchange("HEAD", name), lambda answer: self.headed(name, acknowledged, answer))

    def headed(self, name, acknowledged, answer):
        assert answer.status == 200 or name in self.gone or (name in self.joined and answer.status == 409)
        if answer.status == 200:
            offset = answer.headers["Upload-Offset"]
            assert int(offset) >= acknowledged or name in self.gone
            assert offset != answer.headers.get("Upload-Length") or name in self.partial or name in dict(self.told)
            self.seen[name] = max(self.seen.get(name, 0), int(offset))

    @precondition(lambda self: self.partial)
    @rule(data=st.data())
    def concat(self, data):
        whole = [name for name in self.partial if self.seen.get(name) == self.sizes[name] and name not in self.gone]
        names = data.draw(st.lists(st.sampled_from(whole * 3 + self.partial), min_size=1, max_size=3))
        if self.unwanted.intersection(names):
            self.spoiled(*names)

        def done(answer):
            assert answer.status in (201, 400, 404, 409, 410, 422)
            if answer.status == 201:
                self.uploads.setdefault(answer.location, [])
                self.sizes[answer.location] = None
                self.joined.add(answer.location)
                finals = dict(self.told)
                offset = 0
                for name in names:
                    for start, piece in self.uploads[name]:
                        whole = content(finals[answer.location])
                        assert whole[offset + start : offset + start + len(piece)] == piece
                    offset += max((start + len(piece) for start, piece in self.uploads[name]), default=0)

        self.begun(data, Exchange("POST", upload_concat="final;" + " ".join(names)), done)

    @precondition(lambda self: len(self.uploads) > 2)
    @rule(data=st.data())
    def terminate(self, data):
        name = self.of(data)

        def done(answer):
            assert answer.status in (204, 404)

        self.gone.add(name)
        self.begun(data, Exchange("DELETE", name), done)

    @precondition(lambda self: len(self.uploads) > 2)
    @rule(data=st.data())
    def expire(self, data):
        name = self.of(data)
        if Upload.objects.filter(pk=name, state="uploading").update(expires=timezone.now() - timedelta(days=1)):
            self.gone.add(name)

    @rule(age=st.sampled_from(["0s", "9d"]))
    def sweep(self, age):
        sweep(older_than=age)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), turns=st.integers(1, 9))
    def continue_(self, data, turns):
        self.go_on(data, turns)

    def go_on(self, data, turns):
        """Requests go on in turn, each some steps."""
        for _ in range(turns):
            if not self.running:
                return
            exchange, done = one = data.draw(st.sampled_from(self.running))
            for _ in range(data.draw(st.integers(1, 4))):
                if exchange.answer is None:
                    exchange.step()
            if exchange.answer is not None:
                self.running.remove(one)
                self.ended(exchange, done)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def kill(self, data):
        one = data.draw(st.sampled_from(self.running))
        self.running.remove(one)
        one[0].steps.close()
        self.killed = True

    @precondition(lambda self: self.uploads)
    @rule(data=st.data())
    def look(self, data):
        self.check(self.of(data))

    def check(self, name):
        """The bytes that are there are those that were acknowledged."""
        if name in self.gone:
            return
        upload = Upload.objects.get(pk=name)
        if upload.final is not None:
            bytes_ = content(upload.final)
            assert len(bytes_) == upload.size
        elif upload.state == "finished":
            return  # it was joined
        else:
            parts = get_storage_adapter().list_temp_parts(name)
            bytes_ = b"".join(self.part(part) for part in parts)
        if not upload.concat:
            assert len(bytes_) >= self.seen.get(name, 0)
            for offset, piece in self.uploads[name]:
                assert bytes_[offset : offset + len(piece)] == piece
        assert hashlib.sha256(bytes_).hexdigest() == upload.sha256 or upload.final is None

    @staticmethod
    def part(part):
        with get_storage_adapter().get_temp_part_stream(part) as stream:
            return stream.read()


# The long tests take more places, more runs and more steps.
RUNS = {"memory": (600, 80), "local": (200, 60), "versitygw": (100, 60)} if FULL else {"memory": (60, 40)}


def places(name, request, tmp_path):
    """A function that gives the settings of an empty store, of another one each time."""
    if name == "memory":
        return lambda: MEMORY
    if name == "local":

        def options():
            folder = tmp_path / uuid4().hex
            return {"temp_dir": folder / "temp", "final_dir": folder / "final"}

        return lambda: {"default": {"BACKEND": "storage.LocalStorageAdapter", "OPTIONS": options()}}
    endpoint = request.getfixturevalue(name)
    return lambda: {"default": {"BACKEND": "storage.S3StorageAdapter", "OPTIONS": s3_options(endpoint)}}


@pytest.mark.timeout(580)
@pytest.mark.parametrize("place", RUNS)
def test_clients_in_any_order(place, request, tmp_path):
    came = Counter()
    machine = type("OnOne", (Clients,), {"place": staticmethod(places(place, request, tmp_path)), "came": came})
    runs, steps = RUNS[place]
    checks = list(HealthCheck)
    given = settings(max_examples=runs, stateful_step_count=steps, deadline=None, suppress_health_check=checks)
    run_state_machine_as_test(machine, settings=given)
    print(came)
    for answer in ("PATCH 204", "PATCH 409", "POST 201", "HEAD 200", "DELETE 204"):
        assert came[answer], f"it never came to that: {answer}"
