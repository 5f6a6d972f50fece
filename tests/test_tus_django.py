"""storage.tus in a Django project: URLs, users, proxies, other origins, hooks, settings, checks, the admin."""

import asyncio
import base64
import contextlib
import io
import logging
import re
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from unittest.mock import Mock
from unittest.mock import patch as patched
from urllib.parse import quote

import pytest
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import ImproperlyConfigured, PermissionDenied, ValidationError
from django.core.handlers.asgi import ASGIHandler
from django.core.management import call_command
from django.db import connection
from django.http import HttpResponse, StreamingHttpResponse, UnreadablePostError
from django.test import AsyncRequestFactory, Client, RequestFactory, override_settings
from django.urls import include, path, reverse

from storage import ContentRejected, FinalObject, StorageFull, StorageUnavailable, get_storage_adapter
from storage.tus import asgi, conf, core, front, views
from storage.tus.asgi import TusApplication
from storage.tus.checks import check_settings
from storage.tus.models import Upload
from storage.tus.signals import upload_finished

TYPE = "application/offset+octet-stream"
TUS = {"Tus-Resumable": "1.0.0"}
urlpatterns = [
    path("files/", include("storage.tus.urls")),
    path("again/", include("storage.tus.urls")),
    path("teams/<str:team>/files/", include("storage.tus.urls")),
    path("view/", login_required(views.uploads)),
    path("view/<str:name>", login_required(views.uploads)),
    path("<path:anything>/files/", include("storage.tus.urls")),
]


@pytest.fixture(autouse=True)
def project(database):
    memory = {"default": {"BACKEND": "storage.MemoryStorageAdapter"}}
    named = [f"{__name__}.named"]
    Upload.objects.all().delete()
    with override_settings(ROOT_URLCONF=__name__, STORAGE_ADAPTERS=memory, MIDDLEWARE=named):
        yield
        get_storage_adapter().close()


def named(get_response):
    def middleware(request):
        name = request.headers.get("X-User")
        request.user = User.objects.get_or_create(username=name)[0] if name else AnonymousUser()
        return get_response(request)

    return middleware


client = Client(enforce_csrf_checks=True)


def post(size=10, **headers):
    return client.post("/files/", headers={**TUS, "Upload-Length": str(size), **headers})


def patch(url, offset, data, **headers):
    headers = {**TUS, "Upload-Offset": str(offset), **headers}
    return client.patch(url, data, content_type=TYPE, headers=headers)


def head(url, **headers):
    return client.head(url, headers={**TUS, **headers})


def metadata(**values):
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in values.items())


# ---- URLs


def test_from_the_beginning_to_the_end():
    told = []
    upload_finished.connect(lambda upload, final, **_: told.append((upload, final)), weak=False, dispatch_uid="test")
    try:
        created = post(**{"Upload-Metadata": metadata(filename="ä.png")})
        assert (created.status_code, created.content) == (201, b"")
        url = created["Location"]
        assert url == f"http://testserver/files/{Upload.objects.get().id.hex}"
        assert patch(url, 0, b"01234").status_code == 204
        answer = patch(url, 5, b"56789")
        assert (answer.status_code, answer["Upload-Offset"], answer["Tus-Resumable"]) == (204, "10", "1.0.0")
        ((upload, final),) = told
        assert (upload.filename, upload.final, upload.sha256) == ("ä.png", final, final.sha256)
        known = head(url)
        assert known["Cache-Control"] == "no-store"
        assert known["Upload-Metadata"] == metadata(filename="ä.png")
        refused = patch(url, 0, b"x")
        assert (refused.status_code, refused["Content-Type"]) == (409, "text/plain; charset=utf-8")
        assert refused.content == b"the upload is at offset 10, not 0: ask by HEAD, and go on there\n"
        assert client.delete(url, headers=TUS).status_code == 204
        assert head(url).status_code == 404
    finally:
        upload_finished.disconnect(dispatch_uid="test")


def test_statuses_have_a_reason():
    url = post()["Location"]
    answer = patch(url, 0, b"x", **{"Upload-Checksum": "sha1 " + "A" * 27 + "="})
    assert (answer.status_code, answer.reason_phrase) == (460, "Checksum Mismatch")


PARTIAL = {"Upload-Length": "1", "Upload-Concat": "partial"}
PROXIED = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "files.example.com"}


def test_locations_behind_a_proxy():
    believed = {"SECURE_PROXY_SSL_HEADER": ("HTTP_X_FORWARDED_PROTO", "https"), "USE_X_FORWARDED_HOST": True}
    with override_settings(ALLOWED_HOSTS=["*"], **believed):
        assert post(**PROXIED)["Location"].startswith("https://files.example.com/files/")
    browser = {"Origin": "https://files.example.com"}
    for untrusted in (PROXIED, {"Forwarded": "proto=https"}):  # right, whatever the proxy is called
        assert post(**untrusted)["Location"] == Upload.objects.first().name
        assert post(**untrusted, **browser)["Location"] == f"/files/{Upload.objects.first().name}"
    below = client.post("/files/", headers={**TUS, "Upload-Length": "1"}, SCRIPT_NAME="/app")
    assert below["Location"].startswith("http://testserver/app/files/")
    for script, prefix, below in (
        ("", "/app", "/app/files/"),
        ("/app", "/app/", "/app/files/"),
        ("", "//evil.example.com", "/files/"),
        ("", "", "/files/"),
    ):
        prefixed = {**TUS, "Upload-Length": "1", "X-Forwarded-Prefix": prefix}
        assert len(client.post("/files/", headers=prefixed, SCRIPT_NAME=script)["Location"]) == 32
        told = client.post("/files/", headers={**prefixed, **browser}, SCRIPT_NAME=script)["Location"]
        assert told == below + Upload.objects.first().name
    with override_settings(FORCE_SCRIPT_NAME="/app"):  # whether or not a server has the prefix in its path
        for sent in ("/files/", "/app/files/"):
            request = AsyncRequestFactory().post(sent)
            assert front._url(request, "x") == "http://testserver/app/files/x"


def test_a_location_is_beside_the_url_of_the_request():
    for url in ("/files/", "/again/", "/teams/ä%3F/files/"):
        partials = [client.post(url, headers={**TUS, **PARTIAL})["Location"] for _ in range(2)]
        for partial in partials:
            assert partial.startswith(f"http://testserver{quote(url, safe='/%')}")
            assert patch(partial, 0, b"x").status_code == 204
        joined = client.post(url, headers={**TUS, "Upload-Concat": f"final;{' '.join(partials)}"})
        assert joined.status_code == 201
        assert head(joined["Location"])["Upload-Concat"] == f"final;{' '.join(partials)}"
    elsewhere = client.generic("POST", "/", PATH_INFO="//evil.example/files/", headers={**TUS, "Upload-Length": "1"})
    assert elsewhere["Location"].startswith("http://testserver/%2Fevil.example/files/")


def test_the_view_may_be_decorated():
    assert client.post("/view/", headers=TUS)["Location"] == "/accounts/login/?next=/view/"
    alice = {**TUS, "X-User": "alice", "Upload-Concat": "partial", "Upload-Length": "0"}
    part = client.post("/view/", headers=alice)["Location"]
    assert part.startswith("http://testserver/view/")
    url = client.post("/view/", headers={**TUS, "X-User": "alice", "Upload-Concat": f"final;{part}"})["Location"]
    assert head(url, **{"X-User": "alice"})["Upload-Concat"] == f"final;{part}"


def test_names_that_are_none():
    for name in ("x", "0" * 32, "0" * 33, "%00", "é", "a" * 5000):
        answer = head(f"/files/{name}")
        assert (answer.status_code, answer.content, answer["Content-Length"]) == (404, b"", "0")


def test_blanks_around_a_header():
    url = post(**{"Upload-Length": "10 "})["Location"]
    assert patch(url, "0\t", b"01234", **{"Tus-Resumable": "1.0.0 "}).status_code == 204


def test_the_url_has_a_name():
    assert reverse("storage_tus:uploads") == "/files/"


# ---- users and hooks


def test_only_the_owner_sees_an_upload():
    url = post(**{"X-User": "alice"})["Location"]
    assert Upload.objects.get().owner.username == "alice"
    assert head(url, **{"X-User": "alice"}).status_code == 200
    for stranger in ({}, {"X-User": "bob"}):
        assert head(url, **stranger).status_code == 404
        assert patch(url, 0, b"x", **stranger).status_code == 404
        assert client.delete(url, headers={**TUS, **stranger}).status_code == 404
    assert head(post()["Location"], **{"X-User": "bob"}).status_code == 404


def refusing(error):
    def authorize(request, upload):
        assert request.user.username == "alice" and upload.owner == request.user
        assert upload.metadata == {"filename": "a.exe"}
        if upload.size != 5:
            raise error
        return True

    return authorize


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (PermissionDenied("no programs"), 403, "no programs"),
        (PermissionDenied(), 403, "you may not upload this"),
        (ValidationError("not this type"), 400, "not this type"),
    ],
)
def test_authorize(error, status, text):
    alice = {"X-User": "alice", "Upload-Metadata": metadata(filename="a.exe")}
    with override_settings(STORAGE_TUS_AUTHORIZE=refusing(error)):
        answer = post(10, **alice)
        assert (answer.status_code, answer.content.decode().strip()) == (status, text)
        assert not Upload.objects.exists()
        assert post(5, **alice).status_code == 201
        # A length that comes later is asked for, too.
        deferred = client.post("/files/", headers={**TUS, "Upload-Defer-Length": "1", **alice})
        assert deferred.status_code == status


def test_authorize_is_asked_before_a_byte_is_read():
    stream = io.BytesIO(b"01234")
    with override_settings(STORAGE_TUS_AUTHORIZE=lambda request, upload: upload.size is None):
        body = {"CONTENT_TYPE": TYPE, "CONTENT_LENGTH": "5", "wsgi.input": stream}
        known = {**TUS, "Upload-Length": "5"}
        request = RequestFactory().generic("POST", "/files/", headers=known, **body)
        response = views.uploads(request)
        assert (response.status_code, stream.tell()) == (403, 0)
        response.close()
        assert stream.tell() == 5  # what lingers
        stream.seek(0)
        with override_settings(STORAGE_TUS_AUTHORIZE=Mock(side_effect=RuntimeError)), pytest.raises(RuntimeError):
            views.uploads(RequestFactory().generic("POST", "/files/", headers=known, **body))
        assert stream.tell() == 5
        deferred = client.post("/files/", headers={**TUS, "Upload-Defer-Length": "1"})["Location"]
        assert patch(deferred, 0, b"01", **{"Upload-Length": "2"}).status_code == 403
        assert head(deferred)["Upload-Offset"] == "0"


def test_who_is_refused_and_stalls_does_not_hold_a_thread_of_gunicorn(monkeypatch):
    monkeypatch.setattr(views, "LINGER_SECONDS", 0.1)
    ours, theirs = socket.socketpair()
    with ours, theirs, ours.makefile("rb") as stream:
        body = {"CONTENT_TYPE": TYPE, "CONTENT_LENGTH": "5", "wsgi.input": stream, "gunicorn.socket": ours}
        response = views.uploads(RequestFactory().generic("PATCH", "/files/", headers=TUS, **body))
        assert response.status_code == 405
        response.close()  # though nothing comes
        assert ours.gettimeout() is None


async def asynchronous(request, upload):
    raise PermissionDenied("not now")


def test_a_hook_may_be_a_coroutine():
    with override_settings(STORAGE_TUS_AUTHORIZE=f"{__name__}.asynchronous"):
        assert post().status_code == 403


async def only_ada(request, upload):
    if upload.owner is None or upload.owner.username != "ada":
        raise PermissionDenied("only Ada")


def test_hooks_that_are_coroutines_see_the_owner():
    heard = []

    async def receive(upload, **_):
        heard.append(upload.owner.username)

    upload_finished.connect(receive)
    ada = {**TUS, "X-User": "ada"}
    try:
        with override_settings(STORAGE_TUS_AUTHORIZE=only_ada):
            assert post().status_code == 403
            url = client.post("/files/", headers={**ada, "Upload-Defer-Length": "1"})["Location"]
            assert patch(url, 0, b"x", **ada, **{"Upload-Length": "1"}).status_code == 204
    finally:
        upload_finished.disconnect(receive)
    assert heard == ["ada"]


class Asynchronous:
    async def __call__(self, request, upload):
        return False


@pytest.mark.parametrize(
    ("authorize", "status"),
    [
        (Asynchronous(), 403),
        (lambda request, upload: asynchronous(request, upload), 500),
        (lambda request, upload: HttpResponse(status=403), 500),
        (lambda request, upload: 0, 500),
        (lambda request, upload: next(iter(())), 500),
        (lambda request, upload: None, 201),
    ],
)
def test_what_authorize_returns(authorize, status, caplog):
    """Only None and True let anybody create an upload."""
    with override_settings(STORAGE_TUS_AUTHORIZE=authorize):
        careless = Client(raise_request_exception=False)
        assert careless.post("/files/", headers={**TUS, "Upload-Length": "1"}).status_code == status
        assert Upload.objects.count() == (status == 201)


def test_what_is_no_file_id():
    no_id = override_settings(STORAGE_TUS_FILE_ID=lambda upload: None)
    with no_id, pytest.raises(ImproperlyConfigured, match="STORAGE_TUS_FILE_ID returned what is no id: an id is a str"):
        post()
    for error, status in [(PermissionDenied("not you"), 403), (ValidationError("no such folder"), 400)]:
        with override_settings(STORAGE_TUS_FILE_ID=Mock(side_effect=error)):
            answer = post()
            assert (answer.status_code, Upload.objects.count()) == (status, 0)


@pytest.mark.parametrize("name", ["http://[x.txt", "//[x.txt", "data:text/html,x.txt"])
def test_a_name_that_looks_like_a_url(name):
    url = post(1, **{"Upload-Metadata": metadata(filename=name)})["Location"]
    assert patch(url, 0, b"x").status_code == 204
    assert Upload.objects.get().final.content_type == "text/plain"


@pytest.mark.parametrize("times", [{"USE_TZ": False}, {"TIME_ZONE": "Europe/Berlin"}])
def test_times_of_any_project(times):
    with override_settings(USE_TZ=times.get("USE_TZ", True)), of_the_database(TIME_ZONE=times.get("TIME_ZONE")):
        created = post(2)
        known = head(created["Location"])
        assert known["Upload-Expires"] == created["Upload-Expires"]
        left = parsedate_to_datetime(known["Upload-Expires"]) - datetime.now(UTC)
        assert timedelta(days=6, hours=23) < left <= timedelta(days=7)
        assert patch(created["Location"], 0, b"xx").status_code == 204
        final = Upload.objects.get().final
        assert FinalObject.from_dict(final.as_dict()) == final


@contextlib.contextmanager
def of_the_database(**options):
    before = {name: connection.settings_dict[name] for name in options}
    try:
        connection.settings_dict.update(options)
        forget_zone()
        yield
    finally:
        connection.settings_dict.update(before)
        forget_zone()


def forget_zone():
    for name in ("timezone", "timezone_name"):
        connection.__dict__.pop(name, None)


class Replica:
    def db_for_read(self, model, **hints):
        return "replica" if model is Upload else None  # which is far behind: it is not even there


def test_rows_are_read_where_they_are_written():
    with override_settings(DATABASE_ROUTERS=[f"{__name__}.Replica"]):
        url = post(2)["Location"]
        assert patch(url, 0, b"x").status_code == 204
        assert head(url)["Upload-Offset"] == "1"
        assert patch(url, 1, b"x").status_code == 204
        call_command("storage_sweep", older_than="1d", stdout=io.StringIO())


def test_file_id():
    with override_settings(STORAGE_TUS_FILE_ID=lambda upload: f"users/{upload.owner}/{upload.filename}"):
        url = post(1, **{"X-User": "alice", "Upload-Metadata": metadata(filename="ä.txt")})["Location"]
        patch(url, 0, b"x", **{"X-User": "alice"})
        assert Upload.objects.get().final.key == "users/alice/ä.txt"
        wrong = post(1, **{"Upload-Metadata": metadata(filename="../x")})
        assert wrong.status_code == 400 and b"'..' segment" in wrong.content


def only_letters(reader):
    if not reader.read().isalpha():
        raise ContentRejected("Letters only.")


def test_inspect():
    with override_settings(STORAGE_TUS_INSPECT=[f"{__name__}.only_letters", lambda reader: reader.read(1)]):
        assert patch(post(2)["Location"], 0, b"xx").status_code == 204
        url = post(2)["Location"]
        answer = patch(url, 0, b"x1")
        assert (answer.status_code, answer.content.decode()) == (422, "Letters only.\n")
        assert head(url).status_code == 404
    assert [final.size for final in get_storage_adapter().list_final()] == [2]
    with override_settings(STORAGE_TUS_INSPECT="nowhere.inspect"), pytest.raises(ImproperlyConfigured, match="nowhere"):
        post()


def test_a_client_that_asks_while_a_scanner_is_away_keeps_its_upload(caplog):
    def away(reader):
        raise ConnectionRefusedError("no scanner here")

    url = post(2)["Location"]
    with override_settings(STORAGE_TUS_INSPECT=away):
        with pytest.raises(ConnectionRefusedError):
            patch(url, 0, b"xx")
        assert head(url).status_code == 423
    assert "no scanner here" in caplog.text and "in away" in caplog.text
    assert head(url)["Upload-Offset"] == "2" and Upload.objects.get().state == "finished"


@contextlib.contextmanager
def answering(**response):
    """A receiver that answers the client."""
    upload_finished.connect(lambda **_: HttpResponse(**response), weak=False, dispatch_uid="answer")
    try:
        yield
    finally:
        upload_finished.disconnect(dispatch_uid="answer")


def test_a_receiver_answers():
    with answering(headers={"X-File": "7"}):
        answer = patch(post(1)["Location"], 0, b"x")
        assert (answer.status_code, answer["X-File"], answer["Upload-Offset"]) == (204, "7", "1")
        assert "Content-Length" not in answer and "Content-Type" not in answer
        created = post(0)
        assert (created.status_code, created["X-File"], created["Content-Length"]) == (201, "7", "0")
    with answering(content="ä", content_type="text/x-own"):
        answer = patch(post(1)["Location"], 0, b"x")
        assert (answer.status_code, answer.content.decode(), answer["Content-Length"]) == (200, "ä", "2")
        assert (answer["Content-Type"], answer["Upload-Offset"]) == ("text/x-own", "1")


def test_a_receiver_answers_with_an_error(caplog):
    url = post(1)["Location"]
    with answering(content="a virus\n", status=422):
        answer = patch(url, 0, b"x")
    assert (answer.status_code, answer.content, answer["Tus-Resumable"]) == (422, b"a virus\n", "1.0.0")
    assert url.removeprefix("http://testserver") in caplog.text
    assert head(url).status_code == 200 and Upload.objects.get().state == "finished"


def test_a_receiver_answers_a_late_look():
    url = post(1)["Location"]
    patch(url, 0, b"x")
    Upload.objects.update(telling="2000-01-01T00:00Z")
    with answering(content="seen", headers={"X-File": "7"}):
        answer = head(url)
    assert (answer.status_code, answer.content, answer["X-File"], answer["Upload-Offset"]) == (200, b"", "7", "1")
    assert "X-File" not in head(url)


def test_a_receiver_that_fails_changes_nothing():
    def receive(**_):
        raise RuntimeError("mine")

    upload_finished.connect(receive)
    try:
        assert patch(post(1)["Location"], 0, b"x").status_code == 204
    finally:
        upload_finished.disconnect(receive)


def test_atomic_requests_do_not_hold_the_row():
    with of_the_database(ATOMIC_REQUESTS=True):
        try:
            url = post(2)["Location"]
            seen = []
            upload_finished.connect(lambda **_: seen.append(connection.in_atomic_block), weak=False, dispatch_uid="t")
            assert patch(url, 0, b"xx").status_code == 204
            assert seen == [False]
        finally:
            upload_finished.disconnect(dispatch_uid="t")


# ---- what fails


@pytest.mark.parametrize(
    ("error", "status"),
    [(StorageUnavailable("the store is away"), 503), (StorageFull("no space on /srv"), 507)],
)
def test_a_store_that_fails(error, status, monkeypatch):
    url = post()["Location"]

    def fails(*_, **__):
        raise error

    monkeypatch.setattr(get_storage_adapter(), "put_temp_part", fails)
    answer = patch(url, 0, b"x")
    assert answer.status_code == status and b"/srv" not in answer.content
    monkeypatch.undo()
    assert patch(url, 0, b"0123456789").status_code == 204


def test_a_client_that_asks_while_the_store_fails_keeps_its_upload(monkeypatch, caplog):
    url = post()["Location"]

    def fails(*_, **__):
        raise StorageUnavailable("the store is away")

    monkeypatch.setattr(get_storage_adapter(), "list_temp_parts", fails)
    assert head(url).status_code == 423
    assert client.get(url, headers={**TUS, "X-HTTP-Method-Override": "HEAD"}).status_code == 423
    assert [record.levelname for record in caplog.records if "the store is away" in record.message] == ["ERROR"] * 2
    monkeypatch.undo()
    assert head(url)["Upload-Offset"] == "0"


class Broken(io.BytesIO):
    def read(self, size=-1):
        if not (data := super().read(size)):
            raise UnreadablePostError("reset by peer")
        return data


@pytest.mark.parametrize(("checksum", "offset"), [({}, "3"), ({"Upload-Checksum": "sha1 " + "A" * 27 + "="}, "0")])
def test_a_body_that_breaks_off(checksum, offset):
    url = post()["Location"]
    client.generic(
        "PATCH",
        url,
        headers={**TUS, "Upload-Offset": "0", **checksum},
        **{"CONTENT_TYPE": TYPE, "CONTENT_LENGTH": "10", "wsgi.input": Broken(b"012")},
    )
    assert head(url)["Upload-Offset"] == offset


def test_a_chunked_body_that_the_server_cannot_read():
    url = post()["Location"]
    chunked = {"CONTENT_TYPE": TYPE, "CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked"}
    answer = client.generic("PATCH", url, headers={**TUS, "Upload-Offset": "0"}, **chunked)
    assert answer.status_code == 411 and head(url)["Upload-Offset"] == "0"


# ---- ASGI


def by_asgi(method, path):
    """What TusApplication sends."""
    sent = []
    scope = {"type": "http", "method": method, "path": path, "headers": [], "query_string": b""}

    async def receive():
        return {"type": "http.request", "body": b""}

    async def send(message):
        sent.append(message)

    asyncio.run(TusApplication(ASGIHandler())(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


class Loops(logging.Handler):
    def __init__(self):
        super().__init__()
        self.seen = []

    def emit(self, record):
        self.seen.append((record.status_code, asyncio._get_running_loop()))


def test_a_log_that_takes_long_holds_nobody_up():
    handler, logger = Loops(), logging.getLogger("django.request")
    logger.addHandler(handler)
    try:
        assert by_asgi("HEAD", "/files/x")[0] == 412
        with patched.object(asgi, "carried_out", side_effect=StorageFull("no space")):
            assert by_asgi("HEAD", "/files/x")[0] == 423
        assert handler.seen == [(412, None), (423, None)]
    finally:
        logger.removeHandler(handler)


class Whole(bytes):
    def __getitem__(self, index):
        raise AssertionError("each block that is read copies the rest")


def test_one_message_may_have_the_whole_body():
    async def receive():
        return {"type": "http.request", "body": Whole(300_000)}

    async def blocks():
        body = asgi._Body(receive)
        return [len(await body.read(front.BLOCK)) for _ in range(6)]

    assert asyncio.run(blocks()) == [65536] * 4 + [300_000 - 4 * 65536, 0]


def streaming(get_response):
    def pieces():
        yield b"come back "
        yield b"later"

    return lambda request: StreamingHttpResponse(pieces(), status=503)


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume synchronous iterators")
def test_middleware_may_answer_with_a_stream():
    with override_settings(MIDDLEWARE=[f"{__name__}.streaming"]):
        assert by_asgi("HEAD", "/files/x") == (503, b"come back later")


# ---- other origins

ORIGIN = "https://app.example.com"


def test_no_other_origin_unless_it_is_named():
    assert "Access-Control-Allow-Origin" not in post(Origin=ORIGIN)
    with override_settings(STORAGE_TUS_CORS_ORIGINS=[ORIGIN]):
        answer = post(Origin=ORIGIN)
        assert answer["Access-Control-Allow-Origin"] == ORIGIN
        assert answer["Access-Control-Allow-Credentials"] == "true"
        assert "Location" in answer["Access-Control-Expose-Headers"] and answer["Vary"] == "Origin"
        other = post(Origin="https://evil.example.com")
        assert "Access-Control-Allow-Origin" not in other and other["Vary"] == "Origin"
        asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "PATCH"}
        preflight = client.options("/files/", headers=asked)
        assert preflight.status_code == 204
        assert "PATCH" in preflight["Access-Control-Allow-Methods"]
        assert "Upload-Offset" in preflight["Access-Control-Allow-Headers"]
        known = client.options("/files/", headers={**asked, "Access-Control-Request-Headers": "x-tenant"})
        assert known["Access-Control-Allow-Headers"] == preflight["Access-Control-Allow-Headers"] + ", x-tenant"
        assert head("/files/x", Origin=ORIGIN)["Access-Control-Allow-Origin"] == ORIGIN
    with override_settings(STORAGE_TUS_CORS_ORIGINS=["*"]):
        answer = post(Origin=ORIGIN)
        assert answer["Access-Control-Allow-Origin"] == "*" and "Access-Control-Allow-Credentials" not in answer


# ---- settings

WRONG = {
    "STORAGE_TUS_MAX_SIZE": ["20GB", 1.5, -1, True],
    "STORAGE_TUS_EXPIRES": [3600, timedelta(), "1d", timedelta.max],
    "STORAGE_TUS_AUTHORIZE": ["nowhere.authorize", 5, f"{__name__}.TYPE", f"{__name__}.head", lambda request: None],
    "STORAGE_TUS_FILE_ID": ["nowhere.name", f"{__name__}.test_checks", lambda: "x", lambda *, upload: "x"],
    "STORAGE_TUS_INSPECT": [
        "nowhere.inspect",
        5,
        f"{__name__}.TYPE",
        f"{__name__}.asynchronous",
        [None],
        {len},
        lambda: None,
    ],
    "STORAGE_TUS_CORS_ORIGINS": [ORIGIN, [ORIGIN + "/"], ["app.example.com"], [None]],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_wrong_settings(name, value):
    with override_settings(**{name: value}):
        (found,) = [message for message in check_settings() if message.id == "storage.tus.E001"]
        assert name in found.msg
        with pytest.raises(ImproperlyConfigured, match=name):
            getattr(conf, name.removeprefix("STORAGE_TUS_").lower())()
    key = name.removeprefix("STORAGE_TUS_")
    with override_settings(STORAGE_TUS={key: value}), pytest.raises(ImproperlyConfigured) as caught:
        getattr(conf, key.lower())()
    assert f'STORAGE_TUS["{key}"]' in str(caught.value)


def test_checks():
    def found(**settings):
        users = {"MIDDLEWARE": ["django.contrib.auth.middleware.AuthenticationMiddleware"]}
        with override_settings(**users | settings):
            return [message.id.rpartition(".")[2] for message in check_settings()]

    safe = {"STORAGE_TUS_AUTHORIZE": f"{__name__}.asynchronous"}
    assert found(**safe) == found(DEBUG=True) == []
    assert found() == ["W001"]
    assert found(STORAGE_TUS={"AUTHORIZE": f"{__name__}.asynchronous", "MAX_SIZE": 5}) == []
    assert found(STORAGE_TUS={"MAX_SIZE": 5}) == ["W001"]
    assert found(STORAGE_TUS_MAXSIZE=5, **safe) == ["W002"]
    apps = ["django.contrib.auth", "django.contrib.contenttypes", "storage.tus"]
    assert found(INSTALLED_APPS=apps, **safe) == ["W003"]
    assert found(STORAGE_ADAPTERS={"other": {"BACKEND": "storage.MemoryStorageAdapter"}}, **safe) == ["E003"]
    assert found(DATABASE_ROUTERS=[Elsewhere()], **safe) == ["E004"]
    assert found(MIDDLEWARE=[f"{__name__}.named"], **safe) == ["W005"]
    assert found(ROOT_URLCONF="storage.urls", **safe) == ["W004"]
    assert found(ROOT_URLCONF=(path("files", include("storage.tus.urls")),), **safe) == ["W004"]


class Elsewhere:
    """A router that gives uploads another database than their owners."""

    def db_for_write(self, model, **hints):
        return "other" if model is Upload else None


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"max_size": 5}, "'max_size', which is no option: there are MAX_SIZE, "),
        ({5: 5}, "5, which is no option"),
        ([("MAX_SIZE", 5)], "STORAGE_TUS is a dict"),
        ({"FILE_ID": None}, 'STORAGE_TUS_FILE_ID and STORAGE_TUS["FILE_ID"] are the same option'),
    ],
)
def test_a_wrong_dictionary_allows_nothing(given, told):
    with override_settings(STORAGE_TUS=given, STORAGE_TUS_FILE_ID=None):
        (found,) = check_settings()
        assert found.id == "storage.tus.E002" and told in found.msg
        with pytest.raises(ImproperlyConfigured, match=re.escape(told)):
            post(5)


def test_options_in_a_dictionary():
    with override_settings(STORAGE_TUS={"MAX_SIZE": 5, "AUTHORIZE": lambda request, upload: False}):
        assert (post(6).status_code, post(5).status_code) == (413, 403)


def test_an_app_that_is_not_installed():
    code = """
import django
from django.conf import settings

settings.configure(INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "storage"])
django.setup()
import storage.tus.urls
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 'ImproperlyConfigured: storage.tus is used, and is not installed: add "storage.tus" to' in done.stderr


def test_servers_that_are_wrong_are_told_once(caplog):
    views._warn.cache_clear()
    views.uploads(AsyncRequestFactory().options("/files/"))
    views.uploads(AsyncRequestFactory().options("/files/"))
    gunicorn = {"SERVER_SOFTWARE": "gunicorn/27.0.1"}
    client.options("/files/", **gunicorn, **{"wsgi.multithread": True})
    assert [record.message for record in caplog.records if "gthread" in record.message] == []
    client.options("/files/", **gunicorn, **{"wsgi.multithread": False})
    asgi, sync = (record.message for record in caplog.records)
    assert "TusApplication(get_asgi_application())" in asgi and "-k gthread" in sync


def test_a_changed_setting_makes_no_adapter_anew():
    adapter = get_storage_adapter()
    with override_settings(STORAGE_TUS_MAX_SIZE=5):
        assert get_storage_adapter() is adapter
        assert post(6).status_code == 413
        assert client.options("/files/")["Tus-Max-Size"] == "5"


def test_uploads_that_never_expire():
    with override_settings(STORAGE_TUS_EXPIRES=None):
        answer = post()
        assert answer.status_code == 201 and "Upload-Expires" not in answer
        assert Upload.objects.get().expires is None


# ---- the command and the admin


def test_storage_sweep_asks_the_rows():
    live, gone = (post()["Location"] for _ in range(2))
    for url in (live, gone):
        patch(url, 0, b"01234")
    Upload.objects.filter(pk=gone[-32:]).update(expires="2000-01-01T00:00Z")
    get_storage_adapter().put_temp_part("not-ours", 1, b"x")
    out = io.StringIO()
    call_command("storage_sweep", older_than="1d", stdout=out)
    assert out.getvalue().startswith("default: removed 1 parts of 1 sessions")
    call_command("storage_sweep", older_than="0s", stdout=out)
    assert head(live)["Upload-Offset"] == "5"
    assert get_storage_adapter().list_temp_parts("not-ours") == []
    assert get_storage_adapter().list_temp_parts(gone[-32:]) == []


def test_the_admin(run):
    assert run("uploads_admin") == {
        "owned": 3,
        "states": ["Finished", "Uploading", "Uploading"],
        "escaped": True,
        "parts": True,
        "searched": [3, 3, 0],
        "saves": False,
        "add": 403,
        "one": [404, 0],
        "finishing": ["finishing", 1],
        "expired": [410, 200],
        "left": 0,
        "deleted": [404, 404],
        "objects": 1,
    }


def test_no_upload_is_named_like_nobodys():
    assert core.as_name(front.NOBODYS) and not Upload.objects.filter(pk=front.NOBODYS).exists()
