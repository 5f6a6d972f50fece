"""What only a disk can do, and do wrong."""

import contextlib
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
import traceback
from datetime import timedelta
from hashlib import sha256

import pytest
from conftest import BYTES, STAGING, command, make_local, without_override
from django.core.exceptions import ImproperlyConfigured

from storage import (
    ContentMismatch,
    LocalStorageAdapter,
    ObjectExists,
    ObjectNotFound,
    StorageError,
)

DATA = BYTES[: 3 * 1024 * 1024 + 1]


def digest(data):
    return sha256(data).hexdigest()


def xattr(path, name):
    return os.getxattr(path, f"user.{name}")


@pytest.fixture
def umask():
    before = os.umask(0o077)
    yield
    os.umask(before)


def test_layout_modes_and_attributes(local, tmp_path, umask):
    final = local.put_final("x/y/a.pdf", DATA, content_type="application/pdf", metadata={"k": "v"})
    part = local.put_temp_part("s", 7, b"part")
    path = tmp_path / "final/x/y/a.pdf"
    assert path.read_bytes() == DATA
    assert part.key == "s/00007" and (tmp_path / "temp/s/00007").read_bytes() == b"part"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [stat.S_IMODE(p.stat().st_mode) for p in (path.parent, path.parent.parent)] == [0o750] * 2
    modified = path.stat().st_mtime_ns
    kept = b"\1" + bytes.fromhex(final.sha256) + final.size.to_bytes(8) + modified.to_bytes(8)
    assert xattr(path, "gostorage.sha256") == kept + sha256(kept).digest()[:7]
    assert xattr(path, "mime_type") == b"application/pdf"
    assert xattr(path, "gostorage.metadata") == b'{"k":"v"}'
    assert xattr(tmp_path / "temp/s/00007", "gostorage.sha256")[1:33].hex() == part.sha256


def test_modes_are_options(tmp_path, umask):
    adapter = make_local(tmp_path, file_mode=0o604, directory_mode=0o705)
    adapter.put_final("x/a", b"")
    assert stat.S_IMODE((tmp_path / "final/x/a").stat().st_mode) == 0o604
    assert stat.S_IMODE((tmp_path / "final/x").stat().st_mode) == 0o705
    adapter.close()


def test_an_overwrite_drops_the_old_attributes(local, tmp_path):
    local.put_final("a", b"x", content_type="text/plain", metadata={"k": "v"})
    local.put_final("a", b"y")
    assert os.listxattr(tmp_path / "final/a") == ["user.gostorage.sha256"]


@pytest.mark.parametrize("at", [0, len(DATA) // 2, len(DATA) - 1], ids=["first", "mid", "last"])
def test_a_flipped_bit_is_found_before_the_last_byte(local, tmp_path, at):
    final = local.put_final("a", DATA)
    part = local.put_temp_part("s", 1, DATA)
    for path in (tmp_path / "final/a", tmp_path / "temp/s/00001"):
        with open(path, "r+b") as file:
            file.seek(at)
            file.write(bytes([DATA[at] ^ 1]))
    for reader in (local.get_final_stream(*final), local.get_temp_part_stream(part.key)):
        got = 0
        with reader, pytest.raises(ContentMismatch):
            while piece := reader.read(100_000):
                got += len(piece)
        assert got < len(DATA)
    with pytest.raises(ContentMismatch), local.get_final_stream(*final) as reader:
        reader.read()
    with pytest.raises(ContentMismatch), local.get_final_stream(*final) as reader:
        reader.read(10), reader.seek(0), reader.read()
    with pytest.raises(ContentMismatch):
        local.assemble("b", [part])
    with pytest.raises(ObjectNotFound):
        local.stat_final("local", "b")


def test_a_part_that_shrank_or_grew(local, tmp_path):
    for length in (0, len(DATA) - 1, len(DATA) + 1):
        part = local.put_temp_part("s", 1, DATA)
        os.truncate(tmp_path / "temp/s/00001", length)
        with pytest.raises(ContentMismatch):
            local.get_temp_part_stream(part)
        with pytest.raises(ContentMismatch):
            local.assemble("b", [part])


def test_a_file_cut_while_it_is_read(local, tmp_path):
    final = local.put_final("a", DATA)
    with local.get_final_stream(*final) as reader:
        reader.read(10)
        os.truncate(tmp_path / "final/a", 1_000_000)
        with pytest.raises((ContentMismatch, StorageError)):
            reader.read()


def test_foreign_files_are_served_with_what_is_known(local, tmp_path):
    local.put_final("a", b"")
    (tmp_path / "final/b").write_bytes(b"foreign")
    final = local.stat_final("local", "b")
    assert (final.size, final.sha256) == (7, None)
    with local.get_final_stream(*final) as reader:
        assert reader.read() == b"foreign" and reader.sha256 is None
    for value in (b"nonsense", b"v1 " + b"0" * 64, b"v1 xyz 7", b"v2 " + b"0" * 64 + b" 7", b""):
        os.setxattr(tmp_path / "final/b", "user.gostorage.sha256", value)
        assert local.stat_final("local", "b") == final
    assert local.put_final("b", b"new").sha256 == digest(b"new")


def test_an_edited_file_does_not_keep_its_digest(local, tmp_path):
    final = local.put_final("a", DATA)
    with open(tmp_path / "final/a", "ab") as file:
        file.write(b"more")
    assert local.stat_final(*final).sha256 is None


@pytest.mark.parametrize("what", ["fifo", "directory", "link", "dangling", "socketless device"])
def test_what_is_not_a_file_is_no_object(local, tmp_path, what):
    local.put_final("warm", b"")
    outside = tmp_path / "outside"
    outside.write_bytes(b"secret")
    target = tmp_path / "final/a"
    if what == "fifo":
        os.mkfifo(target)
    elif what == "directory":
        target.mkdir()
    elif what == "link":
        target.symlink_to(outside)
    elif what == "dangling":
        target.symlink_to(tmp_path / "nowhere")
    else:
        os.mknod(target, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    started = time.monotonic()
    with pytest.raises(StorageError):
        local.get_final_stream("local", "a")
    with pytest.raises(StorageError):
        local.stat_final("local", "a")
    try:
        local.put_final("a", b"new")
    except StorageError:
        pass
    else:
        with local.get_final_stream("local", "a") as reader:
            assert reader.read() == b"new"
    assert time.monotonic() - started < 2
    assert outside.read_bytes() == b"secret" and not (tmp_path / "nowhere").exists()


def test_a_link_in_the_path_leads_nowhere(local, tmp_path):
    local.put_final("warm", b"")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a").write_bytes(b"secret")
    for name, to in (("abs", outside), ("rel", "../outside"), ("up", "..")):
        (tmp_path / "final" / name).symlink_to(to)
        for key in (f"{name}/a", f"{name}/outside/a", f"{name}/new"):
            for call in (
                lambda key=key: local.get_final_stream("local", key),
                lambda key=key: local.stat_final("local", key),
                lambda key=key: local.put_final(key, b"x"),
            ):
                with pytest.raises(StorageError):
                    call()
            with contextlib.suppress(StorageError):
                local.delete_final("local", key)
    assert sorted(os.listdir(outside)) == ["a"] and (outside / "a").read_bytes() == b"secret"


def test_a_link_swapped_in_while_writing(local, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    local.put_final("d/a", b"old")
    stop = threading.Event()

    here, kept = tmp_path / "final/d", tmp_path / "final/kept"
    steps = [(os.rename, here, kept), (os.symlink, outside, here), (os.unlink, here)]
    steps += [(os.rename, kept, here)]

    def swap():
        while not stop.is_set():
            for step, *names in steps:
                with contextlib.suppress(OSError):  # a put may have made the folder anew
                    step(*names)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for _ in range(200):
            for call in (
                lambda: local.put_final("d/a", b"new"),
                lambda: local.put_final("d/b/c", b"new"),
                lambda: local.delete_final("local", "d/a"),
            ):
                with contextlib.suppress(StorageError):
                    call()
    finally:
        stop.set()
        swapper.join()
    assert os.listdir(outside) == []


def test_overlapping_areas_are_refused(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for temp, final in [
        ("a", "a"), ("a", "a/"), ("a", "a/b"), ("a/b", "a"), ("a", "./a"), ("a/../b", "b"),
        ("real", "link"), ("link/x", "real"), ("link", "real/x"),
    ]:  # fmt: skip
        with pytest.raises(ImproperlyConfigured):
            adapter = LocalStorageAdapter(temp_dir=tmp_path / temp, final_dir=f"{tmp_path}/{final}")
            try:
                adapter.check_health()
            finally:
                adapter.close()


def test_areas_side_by_side_and_through_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    adapter = LocalStorageAdapter(temp_dir=str(tmp_path / "ab"), final_dir=tmp_path / "link/a")
    adapter.check_health()
    final = adapter.assemble("x", [adapter.put_temp_part("s", 1, DATA)])
    assert (tmp_path / "real/a/x").read_bytes() == DATA and final.bucket == "local"
    adapter.close()


def test_staging_is_no_object(local, tmp_path):
    local.put_final("a", b"")
    local.put_temp_part("s", 1, b"")
    for area in ("temp", "final"):
        directory = tmp_path / area / STAGING
        directory.mkdir(exist_ok=True)
        (directory / "litter").write_bytes(b"")
    assert len(local.list_temp_parts("s")) == 1
    assert local.put_final(".gostorage/staging/litter", b"").key == ".gostorage/staging/litter"
    for area in ("temp", "final"):
        os.unlink(tmp_path / area / STAGING / "litter")


def test_no_path_is_told(local, tmp_path):
    local.put_final("d/a", DATA)
    (tmp_path / "final/fifo").mkdir()
    (tmp_path / "final/link").symlink_to("/etc")
    calls = [
        lambda: local.get_final_stream("local", "none"),
        lambda: local.put_final("d/a/b", b""),
        lambda: local.put_final("d", b""),
        lambda: local.put_final("fifo", b"", overwrite=False),
        lambda: local.get_final_stream("local", "link/passwd"),
        lambda: local.put_final("link/x", b""),
        lambda: local.put_final("../x", b""),
        lambda: local.put_final("x", b"", size=3),
        lambda: local.get_final_stream("other", "x"),
    ]
    for call in calls:
        with pytest.raises(StorageError) as caught:
            call()
        text = "".join(traceback.format_exception_only(caught.value)) + repr(caught.value)
        assert str(tmp_path) not in text and STAGING not in text and "/etc" not in text
        assert str(tmp_path) not in str(vars(caught.value))


def test_directories_come_and_go(local, tmp_path):
    """Areas are made when they are needed, and again if someone removed them."""
    local.put_final("x/a", DATA)
    shutil.rmtree(tmp_path / "final/x")
    final = local.put_final("x/a", DATA)
    local.delete_final(*final)
    part = local.put_temp_part("s", 1, b"")
    local.delete_temp_part(part)
    local.delete_temp_parts("s")
    left = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert left == []
    assert not (tmp_path / "temp/s").exists()


def test_area_removed_while_writing(local, tmp_path):
    local.put_final("a", b"")

    def source():
        yield DATA
        shutil.rmtree(tmp_path / "final")
        yield DATA

    with pytest.raises(StorageError):
        local.put_final("b", source())


def test_deleting_races_with_putting(local, tmp_path):
    """Removing an empty directory never loses an object that is on its way into it."""
    done = threading.Event()
    errors = []

    def churn():
        while not done.is_set():
            try:
                local.delete_final("local", local.put_final("d/e/one", b"1"))
            except Exception as error:
                errors.append(error)
                return

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for n in range(150):
            final = local.put_final("d/e/two", b"%d" % n)
            with local.get_final_stream(*final) as reader:
                assert reader.read() == b"%d" % n
            local.delete_final(*final)
    finally:
        done.set()
        thread.join()
    assert errors == []


def test_two_adapters_on_one_area(local, tmp_path):
    other = make_local(tmp_path)
    final = local.put_final("a", DATA)
    with other.get_final_stream(*final) as reader:
        assert reader.read() == DATA
    assert other.put_final("a", DATA, overwrite=False) == final
    other.close()
    assert local.stat_final(*final) == final


@pytest.mark.parametrize("read", ["key", "part", "assembled", "extended"])
def test_a_part_that_somebody_else_has_written_to_is_not_believed(local, tmp_path, read):
    one, two = local.put_temp_part("s", 1, DATA), local.put_temp_part("s", 2, b"two")
    wait_for_the_clock(tmp_path)
    with open(tmp_path / "temp" / two.key, "r+b") as file:
        file.write(b"TWO")
    assert [part.sha256 for part in local.list_temp_parts("s")] == [one.sha256, None]
    with pytest.raises(ContentMismatch):
        if read == "part":
            with local.get_temp_part_stream(two) as reader:
                reader.read()
        elif read == "key":
            with local.get_temp_part_stream(two.key) as reader:
                reader.read()
        elif read == "assembled":
            local.assemble("a", [one, two.key])
        else:
            os.removexattr(tmp_path / "temp" / one.key, "user.gostorage.record")
            assert local.extend_digest("s") == 1
            local.assemble("a", [one, two])
    with pytest.raises(ObjectNotFound):
        local.stat_final("local", "a")


def wait_for_the_clock(tmp_path):
    """Until the time of a file that is written to now is another one than before."""
    (tmp_path / "tick").touch()
    before = os.stat(tmp_path / "tick").st_mtime_ns
    while os.stat(tmp_path / "tick").st_mtime_ns == before:
        (tmp_path / "tick").touch()


def test_a_damaged_attribute_is_not_believed(local, tmp_path):
    """Least of all where the digest of the only part would be that of the whole."""
    part = local.put_temp_part("s", 2, DATA)
    path, name = tmp_path / "temp" / part.key, "user.gostorage.sha256"
    value = os.getxattr(path, name)
    for at in range(len(value)):
        os.setxattr(path, name, value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :])
        assert local.list_temp_parts("s")[0].sha256 is None, at
    assert local.assemble("a", [part]).sha256 == digest(DATA) == local.stat_final("local", "a").sha256
    os.setxattr(path, name, value)
    assert local.list_temp_parts("s") == [part]


@pytest.mark.parametrize("same_bytes", [True, False])
def test_a_replaced_part_file_is_what_it_is(local, tmp_path, same_bytes):
    """By a program that knows nothing of us: no attributes, so it is read."""
    one, two = local.put_temp_part("s", 1, DATA), local.put_temp_part("s", 2, DATA)
    data = DATA if same_bytes else DATA[::-1]
    (tmp_path / "new").write_bytes(data)
    os.replace(tmp_path / "new", tmp_path / "temp" / two.key)
    seen = []
    final = local.assemble("a", [one, two.key], progress=lambda done, _: seen.append(done))
    assert final.sha256 == digest(DATA + data) == digest((tmp_path / "final/a").read_bytes())
    assert seen[-1].read == len(DATA)
    if not same_bytes:
        with pytest.raises(ContentMismatch):
            local.assemble("a", [one, two])


def test_one_part_is_linked(local, tmp_path):
    part = local.put_temp_part("s", 7, DATA)
    path = tmp_path / "temp" / part.key
    for attempt in range(2):  # over a name of the same file, too
        seen = []
        final = local.assemble("x/a", [part], overwrite=True, progress=lambda done, _, seen=seen: seen.append(done))
        assert os.path.samefile(path, tmp_path / "final/x/a"), attempt
        assert (seen[-1], seen[-1].copied, seen[-1].read) == (len(DATA), len(DATA), 0)
        assert path.stat().st_nlink == 2
        assert os.listdir(tmp_path / "final" / STAGING) == []
    assert local.assemble("x/a", [part], overwrite=False) == final
    local.put_final("x/b", b"other")
    with pytest.raises(ObjectExists):
        local.assemble("x/b", [part], overwrite=False)
    assert os.listdir(tmp_path / "final" / STAGING) == []
    local.delete_temp_parts("s")
    assert (tmp_path / "final/x/a").read_bytes() == DATA
    assert local.stat_final(*final) == final
    local.put_temp_part("s", 7, b"another")
    assert (tmp_path / "final/x/a").read_bytes() == DATA


@pytest.mark.parametrize(
    "told", [{"content_type": "text/plain"}, {"metadata": {"k": "v"}}], ids=["content type", "metadata"]
)
def test_what_is_told_of_an_object_is_not_told_of_its_part(local, tmp_path, told):
    part = local.put_temp_part("s", 1, DATA)
    final = local.assemble("a", [part], **told)
    assert not os.path.samefile(tmp_path / "temp" / part.key, tmp_path / "final/a")
    assert sorted(os.listxattr(tmp_path / "temp" / part.key)) == ["user.gostorage.record", "user.gostorage.sha256"]
    assert final.sha256 == digest(DATA)


def test_parts_with_another_mode_are_copied(tmp_path):
    adapter = make_local(tmp_path)
    part = adapter.put_temp_part("s", 1, DATA)
    other = LocalStorageAdapter(temp_dir=tmp_path / "temp", final_dir=tmp_path / "final", file_mode=0o600)
    assert stat.S_IMODE((tmp_path / "temp" / part.key).stat().st_mode) == 0o640
    final = other.assemble("a", [part])
    assert stat.S_IMODE((tmp_path / "final/a").stat().st_mode) == 0o600
    assert final.sha256 == digest(DATA)
    adapter.close(), other.close()


# ---- disks as they are


def test_areas_have_their_modes(tmp_path):
    old = os.umask(0o777)
    try:
        adapter = make_local(tmp_path / "a" / "b", directory_mode=0o2750, file_mode=0o2640)
        adapter.put_temp_part("s", 1, b"x")
        final = adapter.put_final("c/d", b"x")
    finally:
        os.umask(old)
    modes = {
        path: os.stat(tmp_path / "a" / path).st_mode & 0o7777 for path in ("", "b", "b/temp", "b/final", "b/final/c")
    }
    assert set(modes.values()) == {0o2750} and len(modes) == 5, modes
    assert os.stat(tmp_path / "a/b/final" / STAGING).st_mode & 0o7777 == 0o700
    assert os.stat(tmp_path / "a/b/final/c/d").st_mode & 0o7777 == 0o2640
    assert adapter.stat_final(final).size == 1
    adapter.close()


@pytest.mark.parametrize(
    ("area", "says"),
    [("file", "is a file"), ("file/below", "is a file"), ("/proc/nowhere", "cannot be made"), ("/sys", "temp_dir")],
)
def test_an_area_that_cannot_be_is_named(tmp_path, area, says):
    (tmp_path / "file").write_bytes(b"kept")
    adapter = LocalStorageAdapter(temp_dir=tmp_path / area, final_dir=tmp_path / "final")
    for call in (adapter.check_health, lambda: adapter.put_temp_part("s", 1, b"x")):
        with pytest.raises(StorageError) as caught:
            call()
        assert says in str(caught.value) and "temp_dir (STORAGE_TEMP_DIR)" in str(caught.value)
        assert str(tmp_path) not in str(caught.value)
    assert (tmp_path / "file").read_bytes() == b"kept"
    adapter.close()


def fifo(path):
    os.mkfifo(path)


def file(path):
    path.write_bytes(b"kept")


def link(path):
    path.symlink_to("/etc")


def listening(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))


def dangling(path):
    path.symlink_to("nowhere")


REFUSED = """
import pathlib, sys
from django.conf import settings
settings.configure(SECRET_KEY="k")
from storage import LocalStorageAdapter, StorageError
root = pathlib.Path(sys.argv[1])
adapter = LocalStorageAdapter(temp_dir=root / "temp", final_dir=root / "final")
for call in (lambda: adapter.check_health(timeout=3), lambda: adapter.put_final("k", b"x")):
    try:
        call()
        sys.exit("it works")
    except StorageError as error:
        print(error)
adapter.close()
"""


def refused(root):
    """What check_health and put_final say, of an interpreter that could hang."""
    done = subprocess.run([sys.executable, "-c", REFUSED, root], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    assert str(root) not in done.stdout
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("put_there", "what"),
    [
        (fifo, "a FIFO"),
        (listening, "a socket"),
        (file, "a file"),
        (link, "a symbolic link"),
        (dangling, "a symbolic link"),
    ],
)
def test_what_is_no_folder_is_named(tmp_path, put_there, what, monkeypatch):
    """And nothing waits for it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "final").mkdir()
    put_there(tmp_path / "final" / STAGING)
    for said in refused(tmp_path):
        assert f"the folder {STAGING} of final_dir (STORAGE_FINAL_DIR) is {what}, and no directory" in said
    if put_there is link:
        return  # an area may lie behind one
    shutil.rmtree(tmp_path / "final")
    put_there(tmp_path / "final")
    for said in refused(tmp_path):
        assert f"final_dir (STORAGE_FINAL_DIR) is {what}" in said and "and no directory" in said


@pytest.mark.parametrize("name", [STAGING, ".gostorage\\staging"])
@pytest.mark.parametrize("put_there", [fifo, listening, file, link, dangling])
def test_what_is_no_folder_holds_no_unfinished_writes(tmp_path, put_there, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for area in ("temp", "final"):
        (tmp_path / area).mkdir()
        put_there(tmp_path / area / name)
    code = f"""
from datetime import timedelta
from django.conf import settings
settings.configure(SECRET_KEY="k")
from storage import LocalStorageAdapter, SweepReport
adapter = LocalStorageAdapter(temp_dir="{tmp_path}/temp", final_dir="{tmp_path}/final")
assert adapter.sweep(timedelta()) == SweepReport(0, 0, 0, 0, True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr


def test_closing_does_not_wait_for_an_area_that_is_being_opened(tmp_path):
    code = f"""
import os, time
from django.conf import settings
settings.configure(SECRET_KEY="k")
from storage import LocalStorageAdapter, StorageError
adapter = LocalStorageAdapter(temp_dir="{tmp_path}/t", final_dir="{tmp_path}/f")
try:
    adapter.check_health(timeout=0.5)
    os._exit(2)
except StorageError as error:
    assert error.code == "timeout", error
started = time.monotonic()
adapter.close()
os._exit(3 if time.monotonic() - started > 2 else 0)
"""
    slow = ["-e", "trace=mkdirat", "-e", "inject=mkdirat:delay_enter=6000000"]
    command = ["strace", "-f", "-qq", "-o", tmp_path / "log", *slow, sys.executable, "-c", code]
    assert subprocess.run(command, timeout=60).returncode == 0


def test_an_area_that_cannot_be_written_is_refused(tmp_path):
    """Though its staging folder can."""
    make_local(tmp_path).put_final("k", b"x")
    (tmp_path / "final").chmod(0o500)
    without_override(f"""
import sys
from django.conf import settings
settings.configure(SECRET_KEY="k")
from storage import LocalStorageAdapter, StoragePermissionError
adapter = LocalStorageAdapter(temp_dir="{tmp_path}/temp", final_dir="{tmp_path}/final")
try:
    adapter.check_health()
    sys.exit("healthy")
except StoragePermissionError as error:
    assert "final_dir (STORAGE_FINAL_DIR) cannot be entered or written to" in str(error), error
assert adapter.stat_final("local", "k").size == 1
""")


@pytest.mark.parametrize("put_there", [fifo, listening, dangling])
def test_what_is_no_file_is_in_the_way(local, tmp_path, put_there, monkeypatch):
    local.put_final("warm", b"x")
    monkeypatch.chdir(tmp_path)
    put_there(tmp_path / "final" / "k")
    with pytest.raises(ObjectNotFound):
        local.get_final_stream("local", "k")
    with pytest.raises(StorageError) as caught:
        local.put_final("k", b"y", overwrite=False)
    assert caught.value.code == "conflict"
    assert os.path.lexists(tmp_path / "final" / "k")
    local.delete_final("local", "warm")


def test_the_staging_folder_of_before_is_swept(local, tmp_path):
    local.put_final("a", b"x")
    old = tmp_path / "final" / ".gostorage\\staging"
    old.mkdir()
    (old / ("0" * 32)).write_bytes(b"half")
    assert local.sweep(timedelta()).uploads == 1
    assert os.listdir(old) == []
    local.close()
    again = make_local(tmp_path)
    assert again.stat_final("local", "a").size == 1
    assert not old.exists()
    again.close()


def test_listings_show_what_is_ours_and_follow_nothing(local, tmp_path):
    outside, final = tmp_path / "outside", tmp_path / "final"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    puts, writes = [local.put_final(name, b"x") for name in ("a", "folder/b", "z")], []
    (final / "link").symlink_to(outside)
    (final / "folder/secret").symlink_to(outside / "secret")
    (final / "inside").symlink_to("folder")
    (final / "nowhere").symlink_to("gone")
    os.mkfifo(final / "fifo")
    (final / "empty").mkdir()
    for staging in (".gostorage-staging", "folder/.gostorage-staging", ".GOSTORAGE-staging. "):
        (final / staging).mkdir(exist_ok=True)
        (final / staging / "write").write_bytes(b"unfinished")
        writes.append(final / staging / "write")
    for illegal in (b"\xff", b"new\nline", b"back\\slash"):
        (final / os.fsdecode(illegal)).write_bytes(b"no key")
    assert list(local.list_final()) == puts
    for prefix in ("link/", "inside/", "folder/s", "fi", ".g", ".G", "..", "FOLDER/", "folder/.g"):
        assert list(local.list_final(prefix)) == []
    assert list(local.list_final("folder")) == list(local.list_final("folder/")) == puts[1:2]
    for write in writes:
        write.unlink()


def test_a_listing_tells_no_digest_that_may_be_wrong(local, tmp_path):
    final = local.put_final("a", b"before")
    (tmp_path / "final/a").write_bytes(b"after!")
    (tmp_path / "final/b").write_bytes(b"of somebody else")
    assert [(found.key, found.size, found.sha256) for found in local.list_final()] == [("a", 6, None), ("b", 16, None)]
    assert final.sha256


def test_a_folder_that_cannot_be_read_ends_a_listing(tmp_path):
    for name in "abc":
        make_local(tmp_path).put_final(f"{name}/x", b"x")
    (tmp_path / "final/b").chmod(0)
    without_override(
        f"""
from django.conf import settings
settings.configure()
import storage
adapter = storage.LocalStorageAdapter(temp_dir={str(tmp_path / "temp")!r}, final_dir={str(tmp_path / "final")!r})
found = []
try:
    for final in adapter.list_final():
        found.append(final.key)
except storage.StoragePermissionError as error:
    assert error.key == "b/", error.key
else:
    raise AssertionError("b was left out")
assert found == ["a/x"], found
"""
    )


def test_metadata_that_does_not_fit_says_so(mount, tmp_path):
    """ext4 keeps all attributes of a file in a block, here of 1 KiB."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(8 << 20)
    command("mkfs.ext4", "-q", "-b", "1024", image)
    adapter = make_local(mount("-o", "loop", image))
    for options in ({"metadata": {"k": "v" * 1500}}, {"metadata": {"a": "é" * 100, "b": "v" * 900}}):
        with pytest.raises(StorageError) as caught:
            adapter.put_final("k", b"x", **options)
        assert type(caught.value) is StorageError and "does not fit" in str(caught.value)
    assert adapter.put_final("k", b"x", metadata={"k": "v"}).size == 1
    adapter.close()


@pytest.mark.parametrize(
    ("injected", "works"),
    [
        (("fchmod,fchmodat:error=EPERM",), True),
        (("linkat:error=EPERM",), True),
        (("linkat:error=EPERM", "renameat2:error=EINVAL"), False),
        (("fsetxattr:error=ENOSYS",), True),
        (("copy_file_range:error=EPERM",), True),
    ],
    ids=lambda value: value[-1] if isinstance(value, tuple) else "",
)
def test_file_systems_that_lack_something(tmp_path, injected, works):
    """What can be kept in another way is kept; else check_health refuses, and overwrite=False does."""
    code = f"""
import sys
from django.conf import settings
settings.configure(SECRET_KEY="k")
from storage import LocalStorageAdapter, StorageError
a = LocalStorageAdapter(temp_dir="{tmp_path}/t", final_dir="{tmp_path}/f")
works = {works}
def refused(call):
    try:
        call()
    except StorageError as error:
        return type(error) is StorageError and "overwrite=False" in str(error)
    return False
assert refused(a.check_health) != works, "health"
part = a.put_temp_part("s", 1, b"a" * 300_000)
other = a.put_temp_part("s", 2, b"b" * 300_000)
assert a.put_final("k", b"one").size == 3 and a.put_final("k", b"other").size == 5
assert refused(lambda: a.put_final("n", b"x", overwrite=False)) != works, "create"
if works:
    assert a.put_final("n", b"x", overwrite=False).size == 1
    try:
        a.put_final("n", b"y", overwrite=False)
    except FileExistsError:
        pass
    else:
        sys.exit("overwritten")
assert a.assemble("joined", [part, other]).size == 600_000
assert a.get_final_stream("local", "joined").read() == b"a" * 300_000 + b"b" * 300_000
a.close()
"""
    inject = [option for one in injected for option in ("-e", f"inject={one}")]
    calls = ",".join(one.partition(":")[0] for one in injected)
    done = subprocess.run(
        ["strace", "-f", "-qq", "-o", tmp_path / "log", "-e", f"trace={calls}", *inject, sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "(INJECTED)" in (tmp_path / "log").read_text()
    for area in "tf":
        assert os.listdir(tmp_path / area / STAGING) == []
