"""Parts and objects on disks that cannot do all: without extended attributes, or not on the same one. Needs root."""

import os
import shutil
import time
from hashlib import sha256

import pytest
from conftest import BYTES, STAGING, command, make_local

from storage import ContentMismatch, LocalStorageAdapter, ObjectNotFound, StoragePermissionError

ONE, TWO, THREE = BYTES[: 300 * 1024 + 1], BYTES[7:100_000], b"three"
SETTLED = 2.1
"""Seconds after which the time of a file tells whether it was written to since."""


def digest(data):
    return sha256(data).hexdigest()


def assemble(adapter, parts, **options):
    """The digest, and how many bytes were copied and read."""
    seen = []
    final = adapter.assemble("whole", parts, progress=lambda done, _: seen.append(done), **options)
    with adapter.get_final_stream(*final) as reader:
        assert digest(reader.read()) == final.sha256
    assert seen[-1] == final.size
    return final.sha256, seen[-1].copied, seen[-1].read


@pytest.fixture
def plain(mount):
    """A file system without extended attributes."""
    root = mount("-t", "ramfs", "none")
    (root / "file").touch()
    with pytest.raises(OSError):
        os.setxattr(root / "file", "user.gostorage.sha256", b"x")
    return root


@pytest.fixture
def adapter(plain):
    adapter = make_local(plain)
    yield adapter
    adapter.close()


def test_digests_lie_beside_the_parts(adapter, plain):
    parts = [adapter.put_temp_part("s", n, data) for n, data in enumerate((ONE, TWO, THREE), 1)]
    assert [(part.size, part.sha256) for part in adapter.list_temp_parts("s")] == [
        (len(data), None) for data in (ONE, TWO, THREE)
    ]
    assert sorted(os.listdir(plain / "temp/s")) == [f"0000{n}{name}" for n in (1, 2, 3) for name in ("", ".digest")]
    whole, size = digest(ONE + TWO + THREE), len(ONE + TWO + THREE)
    assert assemble(adapter, parts) == (whole, size, size), "the files are too young to be believed"
    time.sleep(SETTLED)
    assert assemble(adapter, parts) == (whole, size, 0)
    other = make_local(plain)
    assert assemble(other, [part.key for part in parts]) == (whole, size, 0)
    assert other.extend_digest("s") == 3
    other.close()
    assert adapter.delete_temp_parts("s") == 3
    assert not (plain / "temp/s").exists()


def test_files_are_told_apart_by_their_times(adapter, plain):
    """Which are not those of the clock: two within one tick of it would be the same."""
    started = time.time()
    keys = [adapter.put_temp_part("s", n, b"x").key for n in range(1, 21)]
    times = sorted(os.stat(plain / "temp" / key).st_mtime for key in keys)
    assert len(set(times)) == 20 and started - 1.1 < times[0] < started - 0.2 and times[-1] <= time.time()


def test_extend_digest(adapter, plain):
    parts = {n: adapter.put_temp_part("s", n, data) for n, data in ((3, THREE), (2, TWO), (1, ONE))}
    ordered, whole = [parts[n] for n in (1, 2, 3)], ONE + TWO + THREE
    time.sleep(SETTLED)
    assert assemble(adapter, ordered) == (digest(whole), len(whole), len(TWO + THREE))
    assert adapter.extend_digest("s", max_seconds=0) == 2
    assert assemble(adapter, ordered) == (digest(whole), len(whole), len(THREE))
    assert adapter.extend_digest("s") == 3
    assert assemble(adapter, ordered) == (digest(whole), len(whole), 0)
    adapter.delete_temp_part(parts[2])
    assert sorted(os.listdir(plain / "temp/s")) == ["00001", "00001.digest", "00003", "00003.digest"]
    assert adapter.extend_digest("s") == 1


@pytest.mark.parametrize("how", ["in place", "replaced"])
def test_a_file_of_somebody_else_is_not_believed(adapter, plain, how):
    one, two = adapter.put_temp_part("s", 1, ONE), adapter.put_temp_part("s", 2, TWO)
    time.sleep(SETTLED)
    assert assemble(adapter, [one, two])[2] == 0
    path, other = plain / "temp" / two.key, TWO[::-1]
    if how == "in place":
        with open(path, "r+b") as file:
            file.write(other)
    else:
        (plain / "other").write_bytes(other)
        os.replace(plain / "other", path)
    for _ in range(2):
        with pytest.raises(ContentMismatch) as caught:
            adapter.assemble("a", [one, two])
        assert caught.value.key == two.key
        with pytest.raises(ObjectNotFound):
            adapter.stat_final("local", "a")
        assert assemble(adapter, [one, two.key]) == (digest(ONE + other), len(ONE + other), len(other))
        time.sleep(SETTLED)
    assert adapter.extend_digest("s") == 2
    assert assemble(adapter, [one, two.key]) == (digest(ONE + other), len(ONE + other), 0)


@pytest.mark.parametrize("older", [False, True], ids=["of another part", "of before"])
def test_foreign_sidecars_are_not_believed(adapter, plain, older):
    folder = plain / "temp/s"
    adapter.put_temp_part("s", 1, ONE)
    if older:
        adapter.put_temp_part("s", 2, TWO)
        shutil.copy(folder / "00002.digest", plain / "kept")
    else:
        adapter.put_temp_part("r", 1, ONE)
        adapter.put_temp_part("r", 2, TWO)
        shutil.copy(plain / "temp/r/00002.digest", plain / "kept")
    adapter.put_temp_part("s", 2, TWO[::-1])
    shutil.copy(plain / "kept", folder / "00002.digest")
    time.sleep(SETTLED)
    whole = ONE + TWO[::-1]
    assert assemble(adapter, ["s/00001", "s/00002"]) == (digest(whole), len(whole), len(TWO))


def test_a_damaged_sidecar_is_ignored(adapter, plain):
    keys = [adapter.put_temp_part("s", n, data).key for n, data in ((1, ONE), (2, TWO))]
    time.sleep(SETTLED)
    path = plain / "temp/s/00002.digest"
    text = path.read_bytes()
    for damaged in (b"", text[:-1], text[1:], text.replace(b"v1", b"v2"), text[:40] + b"x" + text[41:], bytes(9999)):
        path.write_bytes(damaged)
        assert assemble(adapter, keys) == (digest(ONE + TWO), len(ONE + TWO), len(TWO))
    path.write_bytes(text)
    assert assemble(adapter, keys)[2] == 0
    path.unlink()
    path.mkdir()  # whatever it is, the parts can be had
    assert assemble(adapter, keys)[2] == len(TWO)
    assert adapter.put_temp_part("s", 2, TWO).sha256 == digest(TWO)
    path.rmdir()


def test_one_part(adapter):
    part = adapter.put_temp_part("s", 4, ONE)
    time.sleep(SETTLED)
    for _ in range(2):
        assert assemble(adapter, [part])[:2] == (digest(ONE), len(ONE))
    adapter.delete_temp_parts("s")
    with adapter.get_final_stream("local", "whole") as reader:
        assert reader.read() == ONE


@pytest.mark.parametrize(
    ("temp", "final"), [("ramfs", "ramfs"), ("ramfs", "tmpfs"), ("tmpfs", None), (None, "tmpfs"), (None, "ramfs")]
)
def test_areas_on_different_file_systems(mount, tmp_path, temp, final):
    areas = {
        "temp_dir": mount("-t", temp, "none") / "temp" if temp else tmp_path / "temp",
        "final_dir": mount("-t", final, "none") / "final" if final else tmp_path / "final",
    }
    adapter = LocalStorageAdapter(**areas)
    parts = [adapter.put_temp_part("s", n, data) for n, data in enumerate((b"", ONE, TWO, b"", THREE), 1)]
    size = len(ONE + TWO + THREE)
    for keys, whole in (
        (parts, ONE + TWO + THREE),
        ([parts[2]], TWO),
        ([parts[0]], b""),
        ([parts[4].key, parts[4].key, parts[1].key], THREE + THREE + ONE),
    ):
        sum, copied, read = assemble(adapter, keys, size=len(whole), sha256=digest(whole))
        assert (sum, copied) == (digest(whole), 0)
        assert len(whole) <= read <= len(whole) + size
        assert (areas["final_dir"] / "whole").read_bytes() == whole
    with pytest.raises(ContentMismatch):
        adapter.assemble("whole", parts, sha256=digest(b"x"))
    assert (areas["final_dir"] / "whole").read_bytes() == THREE + THREE + ONE
    assert os.listdir(areas["final_dir"] / STAGING) == []
    adapter.close()


def test_reading_from_an_area_that_is_read_only(mount):
    """One without a staging folder too: only writes need it, and have it when they can."""
    root = mount("-t", "tmpfs", "none")
    before = make_local(root)
    before.put_temp_part("s", 1, b"part")
    before.put_final("k", b"whole")
    before.close()
    for area in ("temp", "final"):
        (root / area / STAGING).rmdir()
    command("mount", "-o", "remount,ro", root)
    adapter = make_local(root)
    for _ in range(2):
        with adapter.get_final_stream("local", "k") as reader:
            assert reader.read() == b"whole"
        assert adapter.stat_final("local", "k").size == 5
        assert [part.size for part in adapter.list_temp_parts("s")] == [4]
        for call in (adapter.check_health, lambda: adapter.put_temp_part("s", 2, b"x")):
            with pytest.raises(StoragePermissionError, match=r"temp_dir \(STORAGE_TEMP_DIR\) is on a .* read-only"):
                call()
    command("mount", "-o", "remount,rw", root)
    adapter.check_health()
    adapter.put_final("k", b"x")
    adapter.close()


def test_only_the_staging_folder_can_be_written(mount):
    """An area that is mounted read-only, but for that."""
    root = mount("-t", "tmpfs", "none")
    adapter = make_local(root)
    adapter.check_health()
    command("mount", "--bind", root / "final", root / "final")
    command("mount", "-o", "remount,bind,ro", root / "final")
    command("mount", "-t", "tmpfs", "none", root / "final" / STAGING)
    try:
        again = make_local(root)
        with pytest.raises(StoragePermissionError, match=r"final_dir \(STORAGE_FINAL_DIR\) is on a .* read-only"):
            again.check_health()
        again.close()
    finally:
        command("umount", "-R", root / "final")
    adapter.close()
