"""Whatever becomes of parts and of the digests that they carry: an assembled object is right, or there is an error.

A machine of Hypothesis puts, replaces, deletes, extends and assembles parts by several adapters and by another process,
and spoils what is kept with the parts: lost, damaged, foreign and older records. Its model is the bytes of each part.
"""

import contextlib
import json
import os
import shutil
import subprocess
import time
import uuid
from collections import Counter
from hashlib import sha256
from itertools import count

import pytest
from conftest import BYTES, FULL, make_s3, s3_options
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from storage import ContentMismatch, LocalStorageAdapter, ObjectNotFound, S3StorageAdapter, StorageError

MiB = 1024 * 1024
PROCESSES = 3
NAMES = st.tuples(st.sampled_from("ab"), st.integers(1, 5))
"""A session and the number of a part."""
WHO = st.integers(0, PROCESSES - 1)
POSITION = st.sampled_from(range(400))


def digest(data):
    return sha256(data).hexdigest()


class Local:
    """Parts on a disk: what is kept with them are attributes."""

    kind = LocalStorageAdapter
    attribute = "user.gostorage.record"
    sizes = st.one_of(st.integers(0, 3), st.integers(0, 5000), st.just(300 * 1024))

    def __init__(self, folder):
        self.folder = folder
        self.options = {"temp_dir": f"{folder}/temp", "final_dir": f"{folder}/final", "durable": False}

    def path(self, key):
        return os.path.join(self.folder, "temp", key)

    def kept(self, key):
        try:
            return os.getxattr(self.path(key), self.attribute)
        except OSError:
            return None

    def keep(self, key, value):
        with contextlib.suppress(FileNotFoundError):
            if value is not None:
                os.setxattr(self.path(key), self.attribute, value)
            elif self.kept(key) is not None:
                os.removexattr(self.path(key), self.attribute)

    def replace(self, key, data):
        """As another program does, by another file."""
        with open(f"{self.folder}/new", "wb") as file:
            file.write(data)
        os.replace(f"{self.folder}/new", self.path(key))

    def write(self, key, data):
        """As another program does, in place; the clock has ticked since."""
        before = os.stat(self.path(key)).st_mtime_ns
        while os.stat(self.path(key)).st_mtime_ns == before:
            with open(self.path(key), "r+b") as file:
                file.write(data)

    def close(self):
        shutil.rmtree(self.folder)


class Bucket:
    """Parts in a bucket: what is kept are objects beside them. A part of more than 5 MiB has nothing with itself."""

    kind = S3StorageAdapter
    sizes = st.one_of(st.integers(0, 3), st.integers(0, 5000), st.integers(0, 5000), st.just(5 * MiB + 7))
    write = None

    def __init__(self, endpoint):
        self.options = s3_options(endpoint, part_size=5 * MiB)
        # The temp area, as the final one of somebody who looks into it.
        area = {"temp_prefix": uuid.uuid4().hex, "final_prefix": self.options["temp_prefix"]}
        self.inside = make_s3(endpoint, **area)

    def _key(self, key):
        return f"{self.inside.prefix}{key}"

    def kept(self, key):
        try:
            with self.inside.get_final_stream(self.inside.bucket, self._key(f"{key}.digest")) as reader:
                return reader.read()
        except ObjectNotFound:
            return None

    def keep(self, key, value):
        if value is not None:
            self.inside.put_final(f"{key}.digest", value)
        else:
            self.inside.delete_final(self.inside.bucket, self._key(f"{key}.digest"))

    def replace(self, key, data):
        self.inside.put_final(key, data)

    def close(self):
        self.inside.close()


class Other:
    """The process of tests/faults/other.py, with an adapter like ours."""

    def __init__(self, process, store):
        self.process = process
        self.order = {"adapter": store.kind.__name__, "options": store.options}

    def __call__(self, method, *arguments, data=None):
        order = {**self.order, "method": method, "arguments": arguments, "data": None if data is None else data.hex()}
        print(json.dumps(order), file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())
        assert "ok" in answer, answer


class Parts(RuleBasedStateMachine):
    """`store`, `adapters` and `other` are of all runs; each run has sessions of its own."""

    store = adapters = other = None
    numbers = None  # of the runs
    came = None  # how often what has happened, in all of them

    def __init__(self):
        super().__init__()
        self.run = f"{next(self.numbers)}-"
        self.parts = {}  # the bytes that each key has now
        self.written = set()  # keys of files that were written to in place: they do not fit what lies with them
        self.unknown = set()  # keys of those, and of files that are too young for it to be said what they are
        self.handles = []  # every TempPart that was given, with its bytes
        self.seen = []  # every record that was seen

    def session(self, name):
        return f"{self.run}{name[0]}"

    def key(self, name):
        return f"{self.session(name)}/{name[1]:05d}"

    def content(self, size, at):
        return BYTES[at : at + size]

    def stored(self, name, data):
        self.parts[self.key(name)] = data
        self.known(name)
        self.see(name)

    def known(self, name):
        self.written.discard(self.key(name))
        self.unknown.discard(self.key(name))

    def see(self, name):
        kept = self.store.kept(self.key(name))
        if kept is not None and kept not in self.seen:
            self.seen.append(kept)

    @rule(name=NAMES, who=WHO, size=st.data(), at=st.sampled_from([0, 1, 77]))
    def put(self, name, who, size, at):
        self._put(name, who, self.content(size.draw(self.store.sizes), at))

    def _put(self, name, who, data):
        part = self.adapters[who].put_temp_part(self.session(name), name[1], data)
        assert (part.key, part.size, part.sha256) == (self.key(name), len(data), digest(data))
        self.handles.append((part, data))
        self.stored(name, data)

    @initialize(who=WHO, numbers=st.permutations(range(1, 6)), large=st.integers(0, 40))
    def begin(self, who, numbers, large):
        for number in numbers[:4]:
            size = 5 * MiB + 1 if number == large else 1000 * number
            self._put(("a", number), who, self.content(size, number))

    @rule(session=st.sampled_from("ab"), who=WHO, numbers=st.permutations(range(1, 6)), most=st.integers(2, 5))
    def put_many(self, session, who, numbers, most):
        for number in [number for number in numbers if number <= most]:
            self._put((session, number), who, self.content(100 * number, 7))

    @rule(name=NAMES, size=st.integers(0, 5000), at=st.sampled_from([0, 1, 77]))
    def put_by_another_process(self, name, size, at):
        data = self.content(size, at)
        self.other("put_temp_part", self.session(name), name[1], data=data)
        self.stored(name, data)

    @precondition(lambda self: self.parts)
    @rule(data=st.data(), who=WHO)
    def put_again(self, data, who):
        key = data.draw(st.sampled_from(sorted(self.parts)))
        session, number = key.removeprefix(self.run).split("/")
        self._put((session, int(number)), who, self.parts[key])

    @rule(name=NAMES, who=WHO)
    def delete(self, name, who):
        self.see(name)
        self.adapters[who].delete_temp_part(self.key(name))
        self.parts.pop(self.key(name), None)
        self.known(name)

    @rule(session=st.sampled_from("ab"), who=WHO)
    def list(self, session, who):
        """What is said of the parts is true."""
        listed = self.adapters[who].list_temp_parts(self.session(session))
        assert [part.key for part in listed] == sorted(key for key in self.parts if self.session(session) in key)
        for part in listed:
            assert part.size == len(self.parts[part.key]) and part.sha256 in {None, digest(self.parts[part.key])}

    @rule(session=st.sampled_from("ab"), who=WHO, seconds=st.sampled_from([0, None]))
    def extend(self, session, who, seconds):
        run = 0
        while f"{self.session(session)}/{run + 1:05d}" in self.parts:
            run += 1
        try:
            covered = self.adapters[who].extend_digest(self.session(session), max_seconds=seconds)
        except ContentMismatch as error:
            assert error.key in self.written, error
            return
        self.came["extended"] += covered > 1
        assert covered <= run
        if not self.unknown:
            assert covered >= min(run, 1) and (seconds is not None or covered == run)
        for number in range(run):
            self.see((session, number + 1))

    @rule(who=WHO)
    def restart(self, who):
        """A process that remembers nothing comes in place of one."""
        self.adapters[who].close()
        self.adapters[who] = self.store.kind(**self.store.options)

    @rule(data=st.data(), who=WHO, ordered=st.booleans(), expect=st.sampled_from(["nothing", "size", "all", "other"]))
    def assemble(self, data, who, ordered, expect):
        keys = [*sorted(self.parts), self.key(("a", 1))]
        given = st.sampled_from([*keys, *range(len(self.handles))])
        if ordered:  # as a portal does
            session = self.session(data.draw(st.sampled_from("ab")))
            chosen = [key for key in sorted(self.parts) if key.startswith(session)] or keys[-1:]
        else:
            chosen = data.draw(st.lists(given, min_size=1, max_size=6))
        wanted = [self.handles[one] if isinstance(one, int) else (one, None) for one in chosen]
        self.check([part for part, _ in wanted], [data for _, data in wanted], who, expect)

    def check(self, wanted, datas, who, expect):
        keys = [str(part) for part in wanted]
        whole = b"".join(self.parts.get(key, b"") for key in keys)
        expected = {
            "nothing": {}, "size": {"size": len(whole)}, "other": {"sha256": digest(whole + b"x")},
            "all": {"size": len(whole), "sha256": digest(whole)},
        }[expect]  # fmt: skip
        missing = any(key not in self.parts for key in keys)
        changed = expect == "other" or any(
            data is not None and data != self.parts.get(key) for key, data in zip(keys, datas, strict=True)
        )
        adapter, name = self.adapters[who], f"{self.run}whole"
        figures = []
        try:
            final = adapter.assemble(name, wanted, progress=lambda done, _: figures.append(done), **expected)
        except StorageError as error:
            assert (isinstance(error, ObjectNotFound) and missing) or (
                isinstance(error, ContentMismatch) and (changed or not self.written.isdisjoint(keys))
            ), error
            self.came[type(error).__name__] += 1
            return
        assert not missing and not changed
        assert (final.size, final.sha256) == (len(whole), digest(whole))
        with adapter.get_final_stream(*final) as reader:
            assert reader.read() == whole
        assert figures[-1] == len(whole)
        read = figures[-1].read
        if len({len(self.parts[key]) for key in keys} - {0}) > 1:
            self.came["nothing read" if read == 0 else "some read" if read < len(whole) else "all read"] += 1
        stat = adapter.stat_final(*final)
        assert (stat.size, stat.sha256) == (len(whole), digest(whole))

    # What goes wrong.

    @rule(name=NAMES)
    def lose(self, name):
        """A crash between a part and what is kept of it."""
        self.see(name)
        self.store.keep(self.key(name), None)

    @precondition(lambda self: self.seen)
    @rule(name=NAMES, data=st.data())
    def foreign(self, name, data):
        """Of another part, of another session, or of before."""
        if self.key(name) in self.parts:
            self.store.keep(self.key(name), data.draw(st.sampled_from(self.seen)))

    @rule(name=NAMES, at=POSITION, bit=st.integers(0, 7), cut=st.booleans())
    def damage(self, name, at, bit, cut):
        kept = self.store.kept(self.key(name))
        if kept:
            self.see(name)
            at %= len(kept)
            damaged = kept[:at] if cut else kept[:at] + bytes([kept[at] ^ 1 << bit]) + kept[at + 1 :]
            self.store.keep(self.key(name), damaged)

    @rule(session=st.sampled_from("ab"), who=WHO, at=POSITION, bit=st.integers(0, 7), extended=st.booleans())
    def damage_what_is_used(self, session, who, at, bit, extended):
        """The record of the last part of all, and the object is made at once."""
        keys = [key for key in sorted(self.parts) if key.startswith(self.session(session))]
        if keys:
            if extended:
                self.extend(session, who, None)
            self.damage((session, int(keys[-1][-5:])), at, bit, False)
            self.check(keys, [None] * len(keys), who, "nothing")

    @rule(session=st.sampled_from("ab"), who=WHO, extended=st.booleans(), large=st.integers(0, 3))
    def older_with_a_new_part(self, session, who, extended, large):
        """A part that is put again has other bytes, and what was kept with it before comes back."""
        keys = [key for key in sorted(self.parts) if key.startswith(self.session(session))]
        if keys:
            name = (session, int(keys[-1][-5:]))
            for at in range(2):
                self._put(name, who, self.content(5 * MiB + 9 if large == 3 else 700, at))
                if extended and not at:
                    self.extend(session, who, None)
                if not at:
                    kept = self.store.kept(keys[-1])
            self.store.keep(keys[-1], kept)
            self.check(keys, [None] * len(keys), who, "nothing")

    @rule(name=NAMES, size=st.integers(0, 5000), same=st.booleans())
    def replaced_by_somebody(self, name, size, same):
        """Who knows nothing of records."""
        if self.key(name) in self.parts:
            data = self.parts[self.key(name)] if same else self.content(size, 5)
            self.store.replace(self.key(name), data)
            self.parts[self.key(name)] = data
            self.known(name)
            if self.store.kind is LocalStorageAdapter:
                self.unknown.add(self.key(name))

    @precondition(lambda self: self.store.write)
    @rule(name=NAMES)
    def written_to_by_somebody(self, name):
        """As many bytes as before, in place."""
        key = self.key(name)
        if self.parts.get(key):
            data = bytes(byte ^ 1 for byte in self.parts[key][:10]) + self.parts[key][10:]
            self.store.write(key, data)
            self.parts[key] = data
            self.written.add(key)
            self.unknown.add(key)

    def teardown(self):
        for session in "ab":
            if keys := [key for key in sorted(self.parts) if key.startswith(self.session(session))]:
                self.check(keys, [None] * len(keys), 0, "nothing")
            self.adapters[0].delete_temp_parts(self.session(session))
            assert self.adapters[0].list_temp_parts(self.session(session)) == []


@pytest.fixture
def machine(script):
    """Makes a machine on a store."""
    made = []

    def make(store):
        process = script("other", stdin=subprocess.PIPE)
        adapters = [store.kind(**store.options) for _ in range(PROCESSES)]
        made.append((store, adapters))
        own = {"store": store, "adapters": adapters, "other": Other(process, store)}
        own |= {"came": Counter(), "numbers": count()}
        return type("Parts", (Parts,), own)

    yield make
    for store, adapters in made:
        for adapter in adapters:
            adapter.close()
        store.close()


ON_DISK = ["nothing read", "some read", "all read", "extended", "ContentMismatch", "ObjectNotFound"]
IN_A_BUCKET = ["all read", "extended", "ContentMismatch"]


def run(machine, runs, steps, expected=()):
    started = time.monotonic()
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=runs, stateful_step_count=steps, deadline=None, database=None, print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
    print(f"{next(machine.numbers)} runs in {time.monotonic() - started:.1f} s: {dict(machine.came)}")
    for what in expected:
        assert machine.came[what] >= runs // 100, f"it hardly ever came to that: {what}"


@pytest.mark.timeout(600)
def test_on_a_disk(machine, tmp_path, pytestconfig):
    if pytestconfig.getoption("--quick"):
        run(machine(Local(tmp_path / "disk")), 60, 15)
    else:
        run(machine(Local(tmp_path / "disk")), 2000 if FULL else 250, 15, ON_DISK)


@pytest.mark.timeout(600)
def test_in_a_bucket(machine, versitygw):
    run(machine(Bucket(versitygw)), 200 if FULL else 50, 15, IN_A_BUCKET)
