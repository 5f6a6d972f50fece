"""`storage.files`: an adapter as Django's file storage, on memory, a disk and a bucket."""

import array
import contextlib
import csv
import gc
import hashlib
import io
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from unittest import mock
from urllib.request import urlopen

import openpyxl
import pytest
from conftest import BYTES, place_on, s3_options
from django.apps.registry import Apps
from django.core.exceptions import ImproperlyConfigured, SuspiciousFileOperation
from django.core.files import File
from django.core.files.base import ContentFile
from django.core.files.images import get_image_dimensions
from django.core.files.storage import Storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import call_command
from django.db import models
from django.db.migrations.writer import MigrationWriter
from django.http import FileResponse
from django.test import override_settings
from PIL import Image
from servers.lying import Lying

from storage import ContentMismatch, ObjectExists, ObjectNotFound, StorageError, get_storage_adapter
from storage.checks import check_settings
from storage.files import AdapterStorage, StoredFile

STORAGE = "storage.files.AdapterStorage"


@contextlib.contextmanager
def adapters(backend, **options):
    """The default adapter, set by the settings; closed at the end."""
    with override_settings(STORAGE_ADAPTERS={"default": {"BACKEND": f"storage.{backend}", "OPTIONS": options}}):
        adapter = get_storage_adapter()
        yield adapter
        adapter.close()


def adapters_of(name, request):
    if name == "memory":
        return adapters("MemoryStorageAdapter")
    if name == "local":
        tmp_path = request.getfixturevalue("tmp_path")
        return adapters("LocalStorageAdapter", temp_dir=tmp_path / "temp", final_dir=tmp_path / "final")
    return adapters("S3StorageAdapter", **s3_options(request.getfixturevalue(name)))


@pytest.fixture(params=["memory", "local", "versitygw"])
def storage(request):
    with adapters_of(request.param, request):
        yield AdapterStorage(location="media")


@pytest.fixture
def in_memory():
    with adapters("MemoryStorageAdapter"):
        yield AdapterStorage()


def content(storage, name):
    with storage.open(name) as file:
        return file.read()


class Stream(File):
    """Content that can be read once, and says nothing of itself."""

    def __init__(self, pieces):
        self.pieces, self.times = pieces, 0

    seek = property()  # there is none

    def seekable(self):
        return False

    def chunks(self, chunk_size=None):
        self.times += 1
        yield from self.pieces


# ---- saving


def test_a_file(storage):
    before = datetime.now(UTC) - timedelta(minutes=1)
    name = storage.save("a/ä b.txt", ContentFile(b"some bytes"))
    assert name == "a/ä b.txt" and content(storage, name) == b"some bytes"
    assert storage.exists(name) and storage.exists("a") and not storage.exists("a/b") and storage.exists("")
    assert storage.size(name) == 10
    assert before < storage.get_modified_time(name) < before + timedelta(minutes=2)
    with override_settings(USE_TZ=False):
        assert storage.get_modified_time(name).tzinfo is None
    for method in (storage.get_created_time, storage.get_accessed_time):
        with pytest.raises(NotImplementedError):
            method(name)
    adapter = storage.adapter
    assert adapter.stat_final(adapter.bucket, f"{adapter.prefix}media/{name}").content_type == "text/plain"
    storage.delete(name)
    storage.delete(name)
    assert not storage.exists(name) and not storage.exists("a")


TYPES = {
    "by its name": ("a.png", ContentFile(b""), "image/png"),
    "compressed": ("a.tar.gz", ContentFile(b""), "application/gzip"),
    "unknown": ("a", ContentFile(b""), "application/octet-stream"),
    "stated": ("a.png", SimpleUploadedFile("a", b"", "image/webp"), "image/webp"),
    "impossible": ("a.png", SimpleUploadedFile("a", b"", "ü\n"), "image/png"),
}


@pytest.mark.parametrize("kind", TYPES)
def test_content_types(in_memory, kind):
    name, given, expected = TYPES[kind]
    assert in_memory._stat(in_memory.save(name, given)).content_type == expected


def test_the_same_bytes_twice_are_two_files(storage):
    names = [storage.save("a/b.tar.gz", ContentFile(b"same")) for _ in range(3)]
    assert names[0] == "a/b.tar.gz" and len(set(names)) == 3
    assert all(name.startswith("a/b_") and name.endswith(".tar.gz") for name in names[1:])
    storage.delete(names[0])
    assert content(storage, names[1]) == content(storage, names[2]) == b"same"


def believes_all_names_are_free(storage):
    """As for a writer that looked before another one was ready."""
    return mock.patch.object(AdapterStorage, "is_name_available", lambda *_, max_length=None: True)


@pytest.mark.parametrize("size", [10, 9_000_000])
@pytest.mark.parametrize("again", [True, False], ids=["can seek", "cannot seek"])
def test_the_store_decides_on_names(storage, again, size):
    make = (
        (lambda: ContentFile(BYTES[:size]))
        if again
        else (lambda: Stream([BYTES[: size // 2], BYTES[size // 2 : size]]))
    )
    given = [make() for _ in range(2)]
    with believes_all_names_are_free(storage):
        names = [storage.save("a.bin", one) for one in given]
    assert len(set(names)) == 2 and sorted(storage.listdir("")[1]) == sorted(names)
    for name in names:
        assert content(storage, name) == BYTES[:size]
    assert again or [one.times for one in given] == [1, 1]
    assert list(storage.adapter.list_final(storage._prefix("."))) and not storage.adapter.sweep(timedelta()).parts


def test_racing_saves(storage):
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda _: storage.save("a.txt", ContentFile(b"same")), range(8)))
    assert len(set(names)) == 8 and "a.txt" in names
    assert sorted(storage.listdir("")[1]) == sorted(names)


def test_the_longest_name_holds_when_another_is_taken(in_memory):
    in_memory.save("abcdefghij.txt", ContentFile(b""))
    real = AdapterStorage.is_name_available

    def first_free(self, name, max_length=None):
        return name == "abcdefghij.txt" or real(self, name, max_length)

    with mock.patch.object(AdapterStorage, "is_name_available", first_free):
        name = in_memory.save("abcdefghij.txt", ContentFile(b"x"), max_length=14)
        assert len(name) == 14 and content(in_memory, name) == b"x"
        with pytest.raises(SuspiciousFileOperation):
            in_memory.save("abcdefghij.txt", ContentFile(b""), max_length=5)


def test_content_that_reads_differently_the_second_time(in_memory):
    class Spent(ContentFile):
        def chunks(self, chunk_size=None):
            yield self.file.read()

    in_memory.save("a", ContentFile(b""))
    with believes_all_names_are_free(in_memory), pytest.raises(ContentMismatch):
        in_memory.save("a", Spent(b"spent"))
    assert in_memory.listdir("") == ([], ["a"])


def test_names_end(in_memory):
    taken = mock.patch("storage.adapter.NativeAdapter.create_final", side_effect=ObjectExists("taken"))
    with taken as create, pytest.raises(FileExistsError):
        in_memory.save("a", ContentFile(b""))
    assert 2 < len({call.args[0] for call in create.call_args_list}) == create.call_count


def test_a_save_that_fails_leaves_nothing(storage):
    def broken():
        yield b"half"
        raise LookupError("of the source")

    with pytest.raises(LookupError, match="of the source"):
        storage.save("a", Stream(broken()))
    assert not storage.exists("a") and not storage.adapter.sweep(timedelta()).parts


def test_content_of_every_kind(storage, tmp_path):
    (tmp_path / "a").write_bytes(b"from a disk")
    with open(tmp_path / "a", "rb") as plain:
        plain.read(4)
        assert content(storage, storage.save("plain", plain)) == b"from a disk"
        assert not plain.closed
    assert content(storage, storage.save("text", ContentFile("süß"))) == "süß".encode()
    upload = SimpleUploadedFile("c.txt", b"uploaded")
    name = storage.save(None, upload)
    assert name == "c.txt" and content(storage, name) == b"uploaded" and not upload.closed
    with storage.open(name) as stored:
        assert content(storage, storage.save("copy", stored)) == b"uploaded"


# ---- reading


def test_reading(storage):
    storage.save("a.bin", ContentFile(BYTES[:3_000_000]))
    with storage.open("a.bin") as file:
        assert (file.name, file.mode, file.size, len(file)) == ("a.bin", "rb", 3_000_000, 3_000_000)
        assert file.seek(0, io.SEEK_END) == file.tell() == 3_000_000
        assert file.seek(2_000_000) and file.read(5) == BYTES[2_000_000:2_000_005]
        assert b"".join(file.chunks()) == BYTES[:3_000_000]
        assert not file.closed and file.open().tell() == 0
    assert file.closed
    with file.open("rb"):
        assert file.read(3) == BYTES[:3]
    assert b"".join(storage.open("a.bin")) == BYTES[:3_000_000]
    gc.collect()


def test_text(storage):
    with storage.open("a.csv", "w") as file:
        csv.writer(file).writerows([["ä", "b"], ["c", "d\ne"]])
    with storage.open("a.csv", "r") as file:
        assert list(csv.reader(file)) == [["ä", "b"], ["c", "d\ne"]] and file.size == 15
    with storage.open("a.csv", "rt") as file:
        assert file.readline() == "ä,b\n"
    assert content(storage, "a.csv").startswith("ä,b\r\n".encode())


@pytest.mark.parametrize("mode", ["a", "ab", "r+", "r+b", "rb+", "w+", "wb+", "x", "", "br"])
def test_other_modes_are_refused(in_memory, mode):
    with pytest.raises(ValueError, match="the mode of a stored file"):
        in_memory.open("a", mode)


# ---- writing


@pytest.mark.parametrize("size", [0, 10, 20_000_000])
def test_writing(storage, size):
    with storage.open("a.png", "wb") as file:
        assert file.writable() and not file.seekable() and not file.readable()
        for start in range(0, size, 7_000_001):
            file.write(BYTES[start : min(start + 7_000_001, size)])
        assert file.tell() == file.size == size
        assert not storage.exists("a.png")
    assert content(storage, "a.png") == BYTES[:size] and storage._stat("a.png").content_type == "image/png"
    with pytest.raises(ValueError, match="closed"):
        file.write(b"x")
    file.close()
    with storage.open("a.png", "wb") as file:
        file.write(memoryview(b"replaced"))
    assert content(storage, "a.png") == b"replaced"


@pytest.mark.parametrize("size", [4_000, 400_000])
def test_whatever_has_bytes_is_written(in_memory, size):
    numbers = array.array("i", BYTES[:size])
    with in_memory.open("a", "wb") as file:
        assert file.write(numbers) == size
        assert file.write(memoryview(numbers).toreadonly()) == size
    assert content(in_memory, "a") == 2 * BYTES[:size]


def test_many_small_writes(storage):
    with storage.open("a.zip", "wb") as file, zipfile.ZipFile(file, "w") as archive:
        for number in range(2000):
            archive.writestr(f"{number}.txt", f"{number}")
    with storage.open("a.zip") as file, zipfile.ZipFile(file) as archive:
        assert archive.read("1234.txt") == b"1234" and archive.testzip() is None


@pytest.mark.parametrize("mode", ["w", "wb"])
@pytest.mark.parametrize("size", [10, 6_000_000])
def test_a_write_that_is_not_closed_publishes_nothing(storage, mode, size):
    data = "x" * size if mode == "w" else b"x" * size
    with pytest.raises(LookupError), storage.open("a", mode) as file:
        file.write(data)
        raise LookupError
    assert file.closed and not storage.exists("a")
    storage.open("a", mode).write(data)
    gc.collect()
    assert not storage.exists("a")
    with contextlib.suppress(TypeError), storage.open("a", mode) as file:
        file.write(data)
        file.write(5)
    assert not storage.exists("a")


@pytest.mark.parametrize("mode", ["w", "wb"])
@pytest.mark.parametrize("wrap", [File, lambda file: File(File(file))], ids=["one", "two"])
def test_a_write_through_another_file(in_memory, mode, wrap):
    """Django's ``with`` closes a file also after an exception, and does not say so."""
    data = "whole" if mode == "w" else b"whole"
    with wrap(in_memory.open("a", mode)) as file:
        file.write(data)
    with pytest.raises(LookupError), wrap(in_memory.open("a", mode)) as file:
        file.write(data[:2])
        raise LookupError
    assert file.closed and in_memory.open("a").read() == b"whole"
    with wrap(in_memory.open("b", mode)) as file:
        file.write(data[:1])
        try:
            raise LookupError
        except LookupError:
            file.write(data[1:])
            file.close()  # all is well
    assert in_memory.open("b").read() == b"whole"


def test_a_write_whose_store_fails(storage):
    file = storage.open("a", "wb")
    file.write(b"x" * 1_000_000)
    storage.adapter.close()
    with pytest.raises(StorageError):
        file.close()
    assert file.closed
    file.close()


# ---- folders, names and URLs


def test_listdir(storage):
    assert storage.listdir("") == storage.listdir("nothing") == ([], [])
    for name in ("a/b/c", "a/b/d", "a/e", "a-b", "a0", "f", "é/ü"):
        storage.save(name, ContentFile(b""))
    assert storage.listdir("") == storage.listdir(".") == (["a", "é"], ["a-b", "a0", "f"])
    assert storage.listdir("a") == storage.listdir("a/") == (["b"], ["e"])
    assert storage.listdir("é") == ([], ["ü"])


@pytest.mark.parametrize("name", ["memory", "local"])
def test_listdir_passes_over_large_folders(name, request):
    with (
        adapters_of(name, request) as adapter,
        mock.patch("storage.adapter.FIRST_PAGE", 10),
        mock.patch("storage.files.FIRST_PAGE", 10),
    ):
        storage = AdapterStorage()
        for number in range(40):
            adapter.put_final(f"a/{number}", b"")
        adapter.put_final("b", b"")
        with mock.patch.object(
            type(adapter), "list_final", autospec=True, side_effect=type(adapter).list_final
        ) as listed:
            assert storage.listdir("") == (["a"], ["b"])
        assert listed.call_count == 2


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/a", "..", "\\a"])
def test_names_that_leave_the_location(storage, name):
    for use in (storage.open, storage.exists, storage.size, storage.delete, storage.url, storage.listdir):
        with pytest.raises(SuspiciousFileOperation):
            use(name)
    with pytest.raises(SuspiciousFileOperation):
        storage.save(name, ContentFile(b""))


def test_names_are_normalised(in_memory):
    assert in_memory.save("a/./b//c\\d", ContentFile(b"")) == "a/b/c/d"
    assert in_memory.exists("a/x/../b/c/d")


def test_errors(storage):
    for use in (storage.open, storage.size, storage.get_modified_time):
        with pytest.raises(FileNotFoundError) as caught:
            use("missing")
        assert type(caught.value) is ObjectNotFound
    for name in ("a\0b", "x" * 300):
        with pytest.raises(ValueError, match="not a legal key"):
            storage.open(name)
    with pytest.raises(ValueError, match="must be given"):
        storage.delete("")
    for name in ("", "."):
        with pytest.raises(SuspiciousFileOperation):
            storage.open(name)


def test_urls_below_a_base():
    storage = AdapterStorage("nowhere", base_url="/media")
    assert storage.url("a/ö b.txt") == "/media/a/%C3%B6%20b.txt"
    assert storage.url(".hidden") == "/media/.hidden"
    assert AdapterStorage("nowhere", base_url="https://cdn/x/").url("css/") == "https://cdn/x/css/"


def test_presigned_urls(versitygw, request):
    with adapters_of("versitygw", request):
        storage = AdapterStorage(location="/media/", querystring_expire=60)
        url = storage.url(storage.save("ä.txt", ContentFile(b"signed")))
        assert "X-Amz-Expires=60" in url
        if not versitygw.ca_bundle:
            with urlopen(url) as answer:
                assert answer.read() == b"signed"


def test_no_url_and_no_path(in_memory):
    with pytest.raises(ImproperlyConfigured):
        in_memory.url("a")
    with pytest.raises(NotImplementedError):
        in_memory.path("a")


def test_the_path_of_a_local_file(request):
    with adapters_of("local", request):
        storage = AdapterStorage(location="media")
        with open(storage.path(storage.save("a/b", ContentFile(b"there"))), "rb") as file:
            assert file.read() == b"there"
        with pytest.raises(SuspiciousFileOperation):
            storage.path("../a")


# ---- the object itself


def test_arguments_make_the_storage():
    storage = AdapterStorage("x", location="a", base_url="/m/")
    assert storage == AdapterStorage("x", location="a", base_url="/m/") == pickle.loads(pickle.dumps(storage))
    assert hash(storage) == hash(AdapterStorage("x", location="a", base_url="/m/"))
    assert storage != AdapterStorage("x", location="b", base_url="/m/") and storage != AdapterStorage()
    assert storage.deconstruct() == (STORAGE, ("x",), {"location": "a", "base_url": "/m/"})
    text, imports = MigrationWriter.serialize(storage)
    assert text == "storage.files.AdapterStorage('x', base_url='/m/', location='a')"
    assert imports == {"import storage.files"}

    class Other(AdapterStorage):
        pass

    assert Other() != AdapterStorage() and isinstance(storage, Storage)


@pytest.mark.parametrize("options", [{"location": "../a"}, {"location": "a//b"}, {"location": None}])
def test_a_wrong_location(options):
    with pytest.raises(ImproperlyConfigured, match="location"):
        AdapterStorage(**options)


@pytest.mark.parametrize("expire", [0, 604_801, "1"])
def test_a_wrong_expiry(expire):
    with pytest.raises((TypeError, ValueError), match="expires"):
        AdapterStorage(querystring_expire=expire)


def test_settings_are_read_at_use():
    storage = AdapterStorage()
    with adapters("MemoryStorageAdapter"):
        storage.save("a", ContentFile(b""))
        with adapters("MemoryStorageAdapter"):
            assert not storage.exists("a")
    with override_settings(STORAGE_ADAPTERS={}), pytest.raises(ImproperlyConfigured, match="default"):
        storage.exists("a")


def test_a_file_field(storage):
    class Document(models.Model):
        file = models.FileField(upload_to="docs", storage=storage, max_length=20)

        class Meta:
            app_label = "gostorage"
            apps = Apps()

        def __str__(self):
            return self.file.name

    document = Document()
    document.file.save("a.txt", ContentFile(b"of a row"), save=False)
    assert document.file.name == "docs/a.txt" and document.file.size == 8
    assert document.file.read() == b"of a row"
    document.file.close()
    with document.file.open("rb") as file:
        assert file.read() == b"of a row"
    with pytest.raises(LookupError), Document(file=document.file.name).file.open("wb") as file:
        file.write(b"half")
        raise LookupError
    with Document(file=document.file.name).file.open("rb") as file:
        assert file.read() == b"of a row"
    again = pickle.loads(pickle.dumps(storage)).open(document.file.name)
    assert isinstance(again, StoredFile) and again.read() == b"of a row"
    again.close()
    document.file.delete(save=False)
    assert not storage.exists("docs/a.txt")


# ---- as others use it


@pytest.fixture
def static(tmp_path):
    """Two static files in a folder, and a function that collects them into a storage with some options."""
    source = tmp_path / "static"
    (source / "css").mkdir(parents=True)
    (source / "css" / "a.css").write_text("a {}")
    (source / "b.js").write_text("b()")

    def collect(backend=STORAGE, options=None, **arguments):
        out = io.StringIO()
        names = {
            "default": {"BACKEND": STORAGE},
            "staticfiles": {"BACKEND": backend, "OPTIONS": {"location": "static"} | (options or {})},
        }
        with override_settings(STORAGES=names):
            call_command("collectstatic", interactive=False, stdout=out, **arguments)
        return out.getvalue().strip()

    with override_settings(
        INSTALLED_APPS=["django.contrib.staticfiles", "storage"],
        STATIC_URL="/s/",
        STATICFILES_DIRS=[source],
    ):
        yield source, collect


def touch(*files):
    """As a fresh checkout does: the times are later than what is stored."""
    for file in files:
        os.utime(file, (time.time() + 3600,) * 2)


def test_collectstatic(storage, static):
    _, collect = static
    assert collect().startswith("2 static files copied")
    with mock.patch("storage.adapter.NativeAdapter.create_final") as create:
        assert collect() == "0 static files copied, 2 unmodified." and not create.called
    assert collect(clear=True) == "2 static files deleted, 2 static files copied."
    assert AdapterStorage(location="static").listdir("") == (["css"], ["b.js"])


@pytest.mark.parametrize("use_tz", [True, False])
def test_collectstatic_of_a_fresh_checkout(storage, static, use_tz):
    source, collect = static
    skips = {"skip_unchanged": True}
    with override_settings(USE_TZ=use_tz):
        assert collect(options=skips).startswith("2 static files copied")
        touch(source / "b.js", source / "css" / "a.css")
        with mock.patch("storage.adapter.NativeAdapter.put_final") as put:
            assert collect(options=skips) == "0 static files copied, 2 unmodified." and not put.called
        assert collect() == "2 static files copied."  # as it is without the option
        (source / "b.js").write_text("c()")  # as long as before
        touch(source / "b.js", source / "css" / "a.css")
        assert collect(options=skips) == "1 static file copied, 1 unmodified."
    collected = AdapterStorage(location="static")
    assert collected.listdir("") == (["css"], ["b.js"]) and content(collected, "b.js") == b"c()"


def test_a_save_of_what_is_there(storage):
    storage = AdapterStorage(location="media", skip_unchanged=True)
    assert storage.save("a.txt", ContentFile(b"first")) == "a.txt"
    with mock.patch("storage.adapter.NativeAdapter.put_final") as put:
        assert storage.save("a.txt", ContentFile(b"first")) == "a.txt" and not put.called
    others = {
        b"other": ContentFile(b"other"),
        b"once": Stream([b"once"]),
        "süß".encode(): ContentFile("süß"),
        b"typed": SimpleUploadedFile("a", b"typed", "text/csv"),
    }
    for expected, given in others.items():
        assert storage.save("a.txt", given) == "a.txt"
        assert storage.listdir("") == ([], ["a.txt"]) and content(storage, "a.txt") == expected
    storage.save("a.txt", ContentFile(b"typed"))
    assert storage._stat("a.txt").content_type == "text/plain"  # the same bytes of another type are not the same
    assert storage.save("abcdef.txt", ContentFile(b""), max_length=8) == "abcd.txt"  # as a FileSystemStorage does
    with pytest.raises(SuspiciousFileOperation):
        storage.save("abcdef.txt", ContentFile(b""), max_length=4)


def test_manifests(in_memory, tmp_path):
    from django.contrib.staticfiles.storage import ManifestFilesMixin

    class Manifest(ManifestFilesMixin, AdapterStorage):
        pass

    with override_settings(DEBUG=False, STATIC_URL="/s/"):
        static = Manifest(base_url="/s/")
        for name, text in (("a.png", ""), ("a.css", "b { background: url(a.png) }")):
            static.save(name, ContentFile(text))
        paths = {name: (static, name) for name in ("a.png", "a.css")}
        for _ in range(2):
            assert not [one for *_, one in static.post_process(paths) if isinstance(one, Exception)]
        url = Manifest(base_url="/s/").url("a.css")
        assert url != "/s/a.css" and static.exists(url.removeprefix("/s/"))
        assert len(static.listdir("")[1]) == 5  # two files, each with its hash in the name, and the manifest


def test_pictures_in_the_admin(versitygw, run):
    place = place_on(versitygw)
    said = run("gallery", env=place.environment)
    assert said["added"] == ["media/pictures/ä_picture.jpeg"] and said["linked"] and said["listed"]
    assert said["measured"] == said["served"] == [1200, 900] and said["small"] == [100, 100]
    assert len(said["with a thumbnail"]) == 2 and said["with a thumbnail"][0] == said["added"][0]
    assert said["changed"] == ["media/pictures/ä_picture.png"] and said["measured again"] == [300, 200]
    assert len(said["with another thumbnail"]) == 2
    assert (said["rows"], said["left"], said["swept"]) == (0, [], [0, 0])


# ---- requests


@pytest.fixture
def counted():
    """A storage on a server that counts, and a function that tells what a piece of work asked it for."""
    with Lying() as server, adapters("S3StorageAdapter", **s3_options(server.endpoint, folder="f")):

        def asked(work):
            server.log.clear()
            work()
            return dict(Counter(request.operation for request in server.log))

        storage = AdapterStorage()
        storage.save("warm", ContentFile(b""))  # from now on it is known what the server can do
        yield storage, asked


def test_requests_of_a_save(counted):
    storage, asked = counted
    assert asked(lambda: storage.save("a", ContentFile(b"x"))) == {"HeadObject": 1, "PutObject": 1}
    assert asked(lambda: storage.save("a", ContentFile(b"x"))) == {"HeadObject": 2, "PutObject": 1}
    assert asked(lambda: storage.url("a")) == {}


@pytest.fixture
def proxied(faults):
    with adapters("S3StorageAdapter", max_attempts=1, **s3_options(faults.endpoint)):
        AdapterStorage().save("warm", ContentFile(b""))
        faults.clear()
        yield faults


def test_requests_of_collectstatic(proxied, static):
    source, collect = static

    def requests(**arguments):
        proxied.clear()
        collect(**arguments)
        return dict(Counter(entry.operation for entry in proxied.log()))

    skips = {"skip_unchanged": True}
    assert requests(options=skips) == {"HeadObject": 4, "ListObjectsV2": 2, "PutObject": 2}
    assert requests() == requests(options=skips) == {"HeadObject": 4}
    touch(source / "b.js", source / "css" / "a.css")
    assert requests(options=skips) == {"HeadObject": 4}
    (source / "b.js").write_text("c()")
    touch(source / "b.js")
    assert requests(options=skips) == {"HeadObject": 5, "DeleteObject": 1, "PutObject": 1}
    touch(source / "b.js", source / "css" / "a.css")
    assert requests() == {"HeadObject": 6, "DeleteObject": 2, "PutObject": 2}


@pytest.mark.parametrize(("status", "code"), [(403, "permission"), (503, "unavailable")])
def test_an_outage_is_no_change(proxied, static, status, code):
    _, collect = static
    collect()
    proxied.clear()
    fault = {"operation": "HeadObject", "status": status, "skip": 1}  # the first one is that of exists()
    with proxied.rule("status", **fault), pytest.raises(StorageError) as caught:
        collect()
    assert caught.value.code == code and caught.value.status == status and not isinstance(caught.value, OSError)
    assert isinstance(caught.value.__cause__, OSError)
    assert {entry.operation for entry in proxied.log()} == {"HeadObject"}
    assert collect() == "0 static files copied, 2 unmodified."


def test_requests_of_a_reader(counted):
    storage, asked = counted
    storage.save("large", ContentFile(BYTES[:3_000_000]))

    def measures():
        with storage.open("large") as file:
            assert file.seek(0, io.SEEK_END) == file.tell() == file.size

    assert asked(measures) == {"GetObject": 1}


def archive(kind):
    made = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(made, "w") as archive:
            for number in range(50):
                archive.writestr(f"{number}", BYTES[number * 60_000 : (number + 1) * 60_000])
    elif kind == "tar":
        with tarfile.open(fileobj=made, mode="w") as archive:
            for number in range(50):
                member = tarfile.TarInfo(f"{number}")
                member.size = 60_000
                archive.addfile(member, io.BytesIO(BYTES[number * 60_000 : (number + 1) * 60_000]))
    elif kind == "xlsx":
        book = openpyxl.Workbook()
        for number in range(5000):
            book.active.append([number, BYTES[number * 50 : (number + 1) * 50].hex()])
        book.save(made)
    else:
        text = io.TextIOWrapper(made, encoding="utf-8", newline="", write_through=True)
        csv.writer(text).writerows([[str(number), "x" * 50] for number in range(50_000)])
        text.detach()
    return made.getvalue()


def read_zip(file):
    with zipfile.ZipFile(file) as opened:
        assert len(opened.namelist()) == 50


def read_member(file):
    with zipfile.ZipFile(file) as opened:
        assert opened.read("25") == BYTES[25 * 60_000 : 26 * 60_000]


def read_xlsx(file):
    with contextlib.closing(openpyxl.load_workbook(file, read_only=True)) as book:
        assert book.active.max_row == 5000


def read_tar(file):
    with tarfile.open(fileobj=file, mode="r:") as opened:
        assert len(opened.getnames()) == 50


def read_tar_as_a_stream(file):
    with tarfile.open(fileobj=file, mode="r|") as opened:
        assert sum(len(opened.extractfile(member).read()) for member in opened) == 50 * 60_000


def read_csv(file):
    assert sum(1 for _ in csv.reader(file)) == 50_000


def read_lines(file):
    assert sum(1 for _ in file) == 50_000


def read_digest(file):
    assert hashlib.file_digest(file, "sha256").hexdigest() == hashlib.sha256(archive("csv")).hexdigest()


def read_copy(file):
    copy = io.BytesIO()
    shutil.copyfileobj(file, copy)
    assert copy.getvalue() == archive("csv")


def read_response(file):
    assert b"".join(FileResponse(file)) == archive("csv")


def read_at_once(file):
    assert zipfile.ZipFile(io.BytesIO(file.read())).testzip() is None


READERS = {
    "zip": (read_zip, 4),
    "zip member": (read_member, 5),
    "zip at once": (read_at_once, 1),
    "xlsx": (read_xlsx, 7),
    "tar": (read_tar, 1),
    "tar stream": (read_tar_as_a_stream, 1),
    "csv": (read_csv, 1),
    "csv lines": (read_lines, 1),
    "csv digest": (read_digest, 1),
    "csv copy": (read_copy, 1),
    "csv response": (read_response, 1),
}
"""The most requests for what each reads. A reader that asked anew after each jump would make as many, or up to 51."""


@pytest.mark.parametrize("kind", READERS)
def test_requests_of_readers(counted, kind):
    storage, asked = counted
    read, most = READERS[kind]
    storage.save("a", ContentFile(archive(kind.partition(" ")[0])))

    def opened():
        with storage.open("a", "r" if read is read_csv else "rb") as file:
            read(file)

    requests = asked(opened)
    assert set(requests) == {"GetObject"} and requests["GetObject"] <= most, requests


IMAGES = {"JPEG": (1, 1, 1), "PNG": (1, 1, 1), "TIFF": (3, 3, 5), "WEBP": (1, 1, 1)}
"""The most requests for the size of an image, for what a form verifies, and for all of it."""


@pytest.mark.parametrize("kind", IMAGES)
def test_requests_of_pillow(counted, kind):
    storage, asked = counted
    made = io.BytesIO()
    Image.frombytes("RGB", (1200, 900), BYTES[: 1200 * 900 * 3]).save(made, kind)
    storage.save("a", ContentFile(made.getvalue()))

    def opened(work):
        with storage.open("a") as file:
            work(file)

    size, verified, whole = IMAGES[kind]
    assert asked(lambda: opened(lambda file: Image.open(file).size))["GetObject"] <= size
    assert asked(lambda: opened(lambda file: Image.open(file).verify()))["GetObject"] <= verified
    assert asked(lambda: opened(lambda file: Image.open(file).load()))["GetObject"] <= whole
    assert asked(lambda: opened(get_image_dimensions)) == {"GetObject": 1}


@pytest.mark.parametrize(("operation", "size"), [("PutObject", 1), ("CompleteMultipartUpload", 9_000_000)])
def test_a_lost_answer_is_no_clash(faults, operation, size):
    with adapters("S3StorageAdapter", **s3_options(faults.endpoint)):
        storage = AdapterStorage()
        storage.save("warm", ContentFile(b""))
        with faults.rule(operation=operation, fault="lost_response", times=1):
            assert storage.save("a", Stream([BYTES[:size]])) == "a"
        assert storage.listdir("") == ([], ["a", "warm"])


def test_a_part_that_cannot_be_deleted_is_left_for_a_sweep(faults, caplog):
    with adapters("S3StorageAdapter", **s3_options(faults.endpoint)) as adapter:
        storage = AdapterStorage()
        with faults.rule(operation="DeleteObjects", fault="status", status=403):
            assert storage.save("a", Stream([b"some bytes"])) == "a"
        assert content(storage, "a") == b"some bytes" and "left for a sweep" in caplog.text
        assert adapter.sweep(timedelta()).parts == 1


# ---- the check, and the import


@pytest.mark.parametrize("debug", [True, False])
def test_an_adapter_among_the_storages(debug, tmp_path):
    entries = {
        "default": {"BACKEND": "storage.LocalStorageAdapter"},
        "right": {"BACKEND": STORAGE, "OPTIONS": {"base_url": "/media/"}},
        "unknown": {"BACKEND": "no.such.Storage"},
        "wrong": 1,
    }
    with override_settings(
        DEBUG=debug, STORAGES=entries, STORAGE_TEMP_DIR=tmp_path / "a", STORAGE_FINAL_DIR=tmp_path / "b"
    ):
        (message,) = check_settings()
    assert message.id == "storage.W006" and "'default'" in message.msg and STORAGE in message.hint


def test_the_package_does_not_import_it():
    code = "import sys, storage; sys.exit('storage.files' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
