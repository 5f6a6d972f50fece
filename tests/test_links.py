"""storage.urls: signed URLs of objects on a disk and in memory, wherever a project includes them."""

import time
from urllib.parse import quote, unquote, urlsplit

import pytest
from conftest import configured, make_memory
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse
from django.test import Client, RequestFactory, override_settings
from django.urls import include, path, set_script_prefix
from hypothesis import given
from hypothesis import strategies as st

from storage import InvalidArgument, StorageUnavailable, get_storage_adapter, links
from storage.checks import check_settings
from storage.files import AdapterStorage
from storage.http import object_response

DATA = bytes(range(100))
MEMORY = "storage.MemoryStorageAdapter"


class Included:
    """A URLconf."""

    def __init__(self, *patterns):
        self.urlpatterns = list(patterns)


INCLUDES = {
    "": Included(path("", include("storage.urls"))),
    "/files": Included(path("other/", HttpResponse), path("files/", include("storage.urls"))),
    "/named": Included(path("named/", include("storage.urls", namespace="private"))),
    "/a/b": Included(path("a/", include(([path("b/", include("storage.urls"))], "app"), namespace="inner"))),
    "/first": Included(path("first/", include("storage.urls")), path("second/", include("storage.urls", "again"))),
}


@pytest.fixture(autouse=True)
def included():
    with override_settings(ROOT_URLCONF=INCLUDES["/files"]):
        yield


@pytest.fixture
def adapter(uploads):
    return uploads


@pytest.fixture
def final(adapter):
    return adapter.put_final("a/b.png", DATA, content_type="image/png")


def fetched(url, method="get", **headers):
    """The answer to a URL, its body read, and its stream closed."""
    response = getattr(Client(raise_request_exception=False), method)(url, headers=headers)
    response.body = b"".join(response) if response.streaming else response.content
    response.close()
    return response


def test_what_a_url_gives(final):
    url = get_storage_adapter("uploads").url_final(final)
    assert url.startswith("/files/") and url.endswith("/b.png")
    response = fetched(url)
    assert (response.status_code, response.body, response["Content-Type"]) == (200, DATA, "image/png")
    assert (
        response["Content-Disposition"] == 'inline; filename="b.png"'
        and "sandbox" in response["Content-Security-Policy"]
    )
    ranged = fetched(url, Range="bytes=5-9")
    assert (ranged.status_code, ranged.body) == (206, DATA[5:10])
    assert fetched(url, **{"If-None-Match": response["ETag"]}).status_code == 304
    head = fetched(url, "head")
    assert (head.status_code, head.body, head["Content-Length"]) == (200, b"", "100")
    for method in ("post", "put", "delete", "patch", "options"):
        assert fetched(url, method).status_code == 405


def test_what_is_signed_with_it(adapter, final):
    url = adapter.url_final(*final, filename='Zoë "1" <b>.txt', content_type="text/plain; charset=utf-8")
    response = fetched(url)
    assert response["Content-Disposition"] == "attachment; filename*=utf-8''Zo%C3%AB%20%221%22%20%3Cb%3E.txt"
    assert response["Content-Type"] == "text/plain; charset=utf-8" and response.body == DATA
    only = adapter.url_final(final, method="HEAD")
    assert fetched(only, "head")["Content-Length"] == "100"
    refused = fetched(only)
    assert (refused.status_code, refused["Allow"], refused.body) == (405, "HEAD", b"")


@pytest.mark.parametrize(
    "name", ["a", "Zoë + 100% & #1?.txt", "x/%2e%2e", "a:b;c=d@e", "a~'()*!$,", "a b /c ", "報告/…/" + "é" * 120]
)
def test_names(adapter, name):
    url = adapter.url_final(adapter.put_final(name, DATA))
    assert url.isascii() and unquote(url).endswith(name.rpartition("/")[2]) and len(url) < 2000
    assert fetched(url).body == DATA


def test_the_longest_url_fits_into_a_request_line(adapter):
    """gunicorn takes 4,094 characters."""
    key = "/".join("é" * n for n in (127, 127, 127, 66))
    url = adapter.url_final(adapter.put_final(key, DATA), filename="é" * 255, content_type="a/" + "b" * 253)
    assert len(f"GET {url} HTTP/1.1") < 4094
    assert fetched(url).body == DATA


def test_forged_urls(adapter, final):
    other = adapter.put_final("other.png", b"secret")
    url, its = adapter.url_final(final), adapter.url_final(other)
    token, name = urlsplit(url).path.split("/")[2:]
    payload, _, signature = token.rpartition(":")
    answers = {
        fetched(forged).status_code
        for forged in (
            f"/files/{token}/other.png",
            f"/files/{its.split('/')[2]}/{name}",
            f"/files/{its.split('/')[2].rpartition(':')[0]}:{signature}/other.png",
            f"/files/{payload}/{name}",
            f"/files/{payload}:/{name}",
            f"/files/.{token}/{name}",
            f"/files/{token}a/{name}",
            f"/files/{token[1:]}/{name}",
            f"/files/{token}/{name}%00",
            "/files/:/b.png",
            "/files/%FF%ED%B2%80/b.png",
            f"/files/{'a' * 5000}:{'b' * 5000}/b.png",
        )
    }
    assert answers == {403}
    with override_settings(SECRET_KEY="another"):
        forged = adapter.url_final(final)
    refused = fetched(forged)
    assert refused.status_code == 403 and b"sign" not in refused.body.lower()
    with override_settings(SECRET_KEY="another", SECRET_KEY_FALLBACKS=["tests"]):
        assert fetched(url).status_code == 200


@given(st.one_of(st.binary(max_size=50), st.text(":._-=aA0", max_size=50).map(str.encode)))
def test_any_token_is_refused(token):
    with override_settings(ROOT_URLCONF=INCLUDES["/files"]):
        assert fetched(f"/files/{quote(token, safe=':')}/a").status_code in (403, 404)


def test_expired_urls(adapter, final):
    brief, long = adapter.url_final(final, expires=1), adapter.url_final(final, expires=604_800)
    assert fetched(brief).status_code == 200
    time.sleep(2.1)
    expired = fetched(brief)
    assert expired.status_code == 403 and b"expire" not in expired.body.lower()
    assert fetched(long).status_code == 200


def test_what_is_gone(adapter, final):
    url = adapter.url_final(final)
    adapter.delete_final(final)
    assert fetched(url).status_code == 404
    with configured(default={"BACKEND": MEMORY}):
        assert fetched(url).status_code == 404  # no adapter has the bucket
    adapter.close()


def test_a_store_that_fails(adapter, final, monkeypatch):
    url = adapter.url_final(final)

    def unavailable(*args, **options):
        raise StorageUnavailable("/srv/secret")

    monkeypatch.setattr(type(adapter), "get_final_stream", unavailable)
    response = fetched(url)
    assert response.status_code == 503 and b"secret" not in response.body


@pytest.mark.parametrize("begins", INCLUDES)
def test_where_it_is_included(begins):
    with override_settings(ROOT_URLCONF=INCLUDES[begins]), configured(default={"BACKEND": MEMORY}):
        url = get_storage_adapter().url_final(get_storage_adapter().put_final("a", DATA))
        assert url.startswith(begins + "/") and url.count("/") == begins.count("/") + 2
        assert fetched(url).body == DATA


def test_below_a_script_name(adapter, final):
    def view(request):
        return HttpResponse(adapter.url_final(final))

    with override_settings(ROOT_URLCONF=Included(path("x/", view), path("files/", include("storage.urls")))):
        handler = WSGIHandler()
        try:
            (url,) = handler(RequestFactory().get("/x/", SCRIPT_NAME="/portal").environ, lambda *told: None)
            assert url.startswith(b"/portal/files/")
            below = RequestFactory().get(url.decode().removeprefix("/portal"), SCRIPT_NAME="/portal")
            response = handler(below.environ, lambda *told: None)
            assert b"".join(response) == DATA
            response.close()
        finally:
            set_script_prefix("/")
        assert adapter.url_final(final).startswith("/files/")  # and it follows the settings at once


def test_what_lacks(adapter, final, tmp_path):
    elsewhere = Included(path("x/", HttpResponse))
    with override_settings(ROOT_URLCONF=elsewhere):
        with pytest.raises(ImproperlyConfigured, match=r"include\('storage.urls'\)"):
            adapter.url_final(final)
        with pytest.raises(ImproperlyConfigured, match=r"include\('storage.urls'\)"):
            object_response(RequestFactory().get("/"), final, mode="redirect")
    below = Included(path("<int:pk>/", include("storage.urls")))
    with override_settings(ROOT_URLCONF=below), pytest.raises(ImproperlyConfigured, match="parameters"):
        adapter.url_final(final)
    by_hand = make_memory(tmp_path)
    with pytest.raises(ImproperlyConfigured, match="by hand"):
        by_hand.url_final(by_hand.put_final("a", DATA))
    by_hand.close()
    with pytest.raises(ValueError, match="PUT"):
        adapter.url_final(final, method="PUT")
    with pytest.raises(InvalidArgument):
        adapter.url_final(final, filename="a\nb")
    another = {"BACKEND": MEMORY, "OPTIONS": {"bucket": "uploads"}}
    with configured(default=another), pytest.raises(ImproperlyConfigured, match="'uploads' is now that of another"):
        adapter.url_final(final)
    adapter.close()


def test_a_redirect_leads_to_it(final):
    response = object_response(RequestFactory().get("/"), final, mode="redirect", filename="Ö.png", as_attachment=True)
    assert response.status_code == 302
    answer = fetched(response["Location"])
    assert answer.body == DATA and answer["Content-Disposition"].startswith("attachment; filename*=")


def test_no_login_is_needed():
    """This is what LoginRequiredMiddleware looks at."""
    assert links.serve.login_required is False


def test_a_file_storage(adapter):
    from django.core.files.base import ContentFile

    storage = AdapterStorage("uploads", "media", querystring_expire=1)
    name = storage.save("Zoë 1.txt", ContentFile(DATA))
    url = storage.url(name)
    response = fetched(url)
    assert (response.body, response["Content-Type"]) == (DATA, "text/plain; charset=utf-8")
    time.sleep(2.1)
    assert fetched(url).status_code == 403
    assert AdapterStorage("uploads", "media", base_url="/m/").url(name) == "/m/Zo%C3%AB%201.txt"


FILES = "storage.files.AdapterStorage"


class Elsewhere(AdapterStorage):
    def url(self, name):
        return f"https://cdn.example.com/{name}"


@pytest.mark.parametrize(
    ("storages", "warned"),
    [
        ({"default": {"BACKEND": FILES}}, True),
        ({"default": {"BACKEND": FILES, "OPTIONS": {"alias": "default", "base_url": None}}}, True),
        ({"default": {"BACKEND": FILES, "OPTIONS": {"base_url": "/media/"}}}, False),
        ({"default": {"BACKEND": FILES, "OPTIONS": {"alias": "bucket"}}}, False),
        ({"default": {"BACKEND": FILES, "OPTIONS": {"alias": "nowhere"}}}, False),
        ({"default": {"BACKEND": f"{__name__}.Elsewhere"}}, False),
        ({"default": {"BACKEND": "no.such.Storage"}, "other": {}, "none": None}, False),
        ({"default": {"BACKEND": "django.core.files.storage.FileSystemStorage"}}, False),
    ],
)
def test_files_without_a_url_are_warned_of(storages, warned):
    adapters = {
        "default": {"BACKEND": MEMORY},
        "bucket": {"BACKEND": "storage.S3StorageAdapter", "OPTIONS": {"bucket_name": "b"}},
    }
    for urlconf in (Included(path("x/", HttpResponse)), INCLUDES["/a/b"], None):
        settings = {"STORAGES": storages, "STORAGE_ADAPTERS": adapters, "ROOT_URLCONF": urlconf, "DEBUG": True}
        with override_settings(**settings):
            found = [message.id for message in check_settings()]
            assert found == ["storage.W013"] * (warned and urlconf is not INCLUDES["/a/b"]), urlconf
