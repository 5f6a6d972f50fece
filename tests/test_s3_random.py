"""A store that lies at random: seeded exchanges of a few habits and a few operations, compared with what is there.

Each exchange must end in the right bytes or a typed error, in time, with nothing half-published. Left out is what no
client can see through: a condition that is ignored now and then, a delete that is acknowledged and not done, a listing
that says it is whole, other bytes under the right label where nobody has a digest, a length that is wrong and could be
right. A failure names its seed: `pytest test_s3_random.py --seed N` runs that alone, and `make lying SECONDS=3600` goes
on with new ones for an hour.
"""

import contextlib
import os
import random
import time
from datetime import timedelta

import pytest
from conftest import BYTES, make_s3
from servers import lying
from servers.lying import Lying

from storage import ContentMismatch, StorageError

EXCHANGES = 5_000
CHUNK = 250
SECONDS = float(os.environ.get("STORAGE_TEST_LYING_SECONDS", 0))
DEADLINE = 20.0
"""For any call, in seconds: the timeouts of the adapters are below two."""
PART = 5 * 1024 * 1024
FINAL, TEMP = "f/final/", "f/temp/"
FOREIGN = {"a": b"before", "f/temp": b"beside", "f/tempest/s/00001": b"alike", "z": b"behind"}
"""What lies in the bucket beside our prefixes."""

ABSURD = [str(4 << 60), str(6 << 40), "9" * 400, "-5", "1e9", "+5"]
STATUSES = [203, 206, 302, 400, 403, 500, 501]
WHERE = [lying.keys_backwards, lying.unordered, lying.twice_at_the_seam, lying.ignores_prefix, lying.no_token]
"""Each alone: where a listing goes on means something else by another, and keys between are left out."""
SOME = [
    *(lambda rng, kind=kind: lying.page(kind, carried_out=rng.random() < 0.5) for kind in lying.PAGES),
    lambda rng: lying.no_etag(),
    lambda rng: lying.no_etag_in_result(),
    lambda rng: lying.no_upload_id(empty=rng.random() < 0.5),
    lambda rng: lying.wrong_element(),
    lambda rng: lying.says_status(rng.choice(STATUSES), carried_out=rng.random() < 0.5),
    lambda rng: lying.echoes_token(),
    lambda rng: lying.chunked(),
    lambda rng: lying.until_close(),
    lambda rng: lying.no_length(),
    lambda rng: lying.gzipped(),
    lambda rng: lying.length_says(rng.choice(ABSURD)),
    lambda rng: lying.cut_short(rng.choice([0, 50_000, 200_000])),
    lambda rng: lying.range_aligned(),
    lambda rng: lying.range_from_start(),
    lambda rng: lying.range_shorter(),
    lambda rng: lying.range_longer(),
    lambda rng: lying.range_total(rng.choice(["*", "-5", "9" * 400, "0"])),
    lambda rng: lying.range_unlabelled(),
    lambda rng: lying.range_ignored(),
    lambda rng: lying.range_says_200(),
    lambda rng: lying.whole_as_206(),
    lambda rng: lying.weak_etags(),
    lambda rng: lying.fresh_tokens(),
    lambda rng: lying.two_pages_in_turn(),
    lambda rng: lying.pages_without_keys(),
    lambda rng: lying.same_token(),
    lambda rng: rng.choice(WHERE)(),
    lambda rng: lying.without_dates(rng.choice(["", "yesterday"])),
    lambda rng: lying.sizes_say(rng.choice(ABSURD[:-1])),
    lambda rng: lying.expectation_failed(),
    lambda rng: lying.interim(rng.choice([100, 102, 103]), times=rng.randint(1, 3)),
    lambda rng: lying.checksum_says(rng.choice(["", "AAAA", "AAAAAAAAAAA=", "no checksum"])),
    lambda rng: lying.refuses_checksums(rng.choice(["create", "part", "complete"]), rng.choice([400, 500, 501])),
]

ALONE = [lying.more_behind, lying.more_in_another_record, lying.huge_head]
"""With others nobody can see through them: what comes behind a body that was cut is its end."""


class Exchange:
    """One seed on a server and an adapter of it."""

    def __init__(self, seed, server, adapter):
        self.rng = random.Random(seed)
        self.server, self.adapter = server, adapter
        server.become()
        server.objects.clear()
        server.uploads.clear()
        for key, data in FOREIGN.items():
            server.put(key, data)
        for name in "xyz":
            server.put(FINAL + name, self.data())
        for number in range(1, self.rng.randint(2, 6)):
            server.put(f"{TEMP}s/{number:05d}", self.data())
        habits = [make(self.rng) for make in self.rng.sample(SOME, self.rng.randint(1, 3))]
        if self.rng.random() < 0.03:
            habits = [self.rng.choice(ALONE)()]
        server.become(*(habit.sometimes(self.rng.choice([0.3, 0.7, 1.0])) for habit in habits), seed=seed)
        self.told = " + ".join(habit.name for habit in habits)

    def data(self):
        start = self.rng.randrange(100_000)
        return BYTES[start : start + self.rng.choice([0, 1, 100, 5_000, 70_000, 300_000])]

    def there(self, key):
        found = self.server.objects.get(key)
        return found and found.data

    def parts(self):
        return sorted(key for key in self.server.objects if key.startswith(f"{TEMP}s/") and not key.endswith(".digest"))

    def tried(self, call, *args, **kwargs):
        began = time.monotonic()
        try:
            return call(*args, **kwargs), None
        except StorageError as error:
            assert error.code != "internal" and "defect" not in str(error), repr(error)
            return None, error
        finally:
            assert time.monotonic() - began < DEADLINE, "it took too long"

    def run(self):
        operations = [
            self.put,
            self.put,
            self.read,
            self.read,
            self.stat,
            self.list,
            self.delete,
            self.empty,
            self.join,
            self.sweep,
        ]
        for _ in range(self.rng.randint(1, 3)):
            self.rng.choice(operations)()
        if self.rng.random() < 0.01:
            self.put(BYTES[: PART + 5_000])
        assert {key: self.there(key) for key in FOREIGN} == FOREIGN, "something foreign was touched"

    def stored(self, key, data, before, overwrite, error):
        now = self.there(key)
        if error is None:
            assert now == data, "acknowledged, and not there"
        else:
            assert now in (before, data), "half-published"
        if not overwrite and before is not None:
            assert now == before, "overwritten"

    def put(self, data=None):
        data, overwrite = self.data() if data is None else data, self.rng.random() < 0.7
        key = FINAL + self.rng.choice("xyzuvw")
        before = self.there(key)
        _, error = self.tried(self.adapter.put_final, key.removeprefix(FINAL), data, overwrite=overwrite)
        self.stored(key, data, before, overwrite, error)

    def join(self):
        key, parts = FINAL + self.rng.choice("xyzuvw"), self.parts()
        if not parts:
            return
        data, before = b"".join(self.there(part) for part in parts), self.there(key)
        given = [part.removeprefix(TEMP) for part in parts]
        _, error = self.tried(self.adapter.assemble, key.removeprefix(FINAL), given)
        self.stored(key, data, before, True, error)

    def read(self):
        key = FINAL + self.rng.choice("xyzu")
        there, start = self.there(key), self.rng.choice([0, 0, 1, 50_000])
        length = self.rng.choice([None, None, 1, 70_000])
        got, error = self.tried(self._read, key, start, length)
        if error is None:
            assert there is not None and got == there[start:][:length], "wrong bytes"

    def _read(self, key, start, length):
        with self.adapter.get_final_stream(self.adapter.bucket, key, start=start, length=length) as reader:
            return b"".join(iter(lambda: reader.read(self.rng.choice([1000, 100_000, 300_000])), b""))

    def stat(self):
        key = FINAL + self.rng.choice("xyzu")
        found, error = self.tried(self.adapter.stat_final, self.adapter.bucket, key)
        if error is None:
            assert found.size == len(self.there(key))

    def list(self):
        found, error = self.tried(self.adapter.list_temp_parts, "s")
        if error is None:
            assert [TEMP + part.key for part in found] == self.parts()
            assert [part.size for part in found] == [len(self.there(TEMP + part.key)) for part in found]

    def delete(self):
        key = FINAL + self.rng.choice("xyzu")
        _, error = self.tried(self.adapter.delete_final, self.adapter.bucket, key)
        assert error is not None or self.there(key) is None, "still there"

    def empty(self):
        _, error = self.tried(self.adapter.delete_temp_parts, "s")
        assert error is not None or not self.parts(), "still there"

    def sweep(self):
        """All is of today, whatever the server says or leaves out."""
        before = self.parts()
        self.tried(self.adapter.sweep, timedelta(days=1))
        assert self.parts() == before, "swept too early"


@contextlib.contextmanager
def lair(secure):
    with Lying(page=3, secure=secure) as server:
        yield server


def exchange(seeds, secure):
    """Runs these seeds, on adapters that see some tens of them each."""
    with lair(secure) as server:
        for first in range(0, len(seeds), 50):
            options = {"part_size": PART, "connect_timeout": 1.5, "read_timeout": 1.5, "max_attempts": 1}
            with contextlib.closing(make_s3(server.endpoint, folder="f", **options)) as adapter:
                for seed in seeds[first : first + 50]:
                    one = Exchange(seed, server, adapter)
                    try:
                        one.run()
                    except (AssertionError, ContentMismatch, TypeError, ValueError) as error:
                        raise AssertionError(f"seed {seed} ({one.told}): {error!r}") from error


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    return lying.secure(tmp_path_factory.mktemp("random"))


@pytest.mark.parametrize("chunk", range(EXCHANGES // CHUNK))
def test_right_bytes_or_a_typed_error(chunk, authority, request):
    if (seed := request.config.getoption("--seed")) is not None:
        return exchange([seed], None) if chunk == 0 else None
    seeds = range(chunk * CHUNK, (chunk + 1) * CHUNK)
    exchange(seeds, authority if chunk % 5 == 4 else None)


@pytest.mark.skipif(not SECONDS, reason="by hand: make lying SECONDS=3600")
@pytest.mark.timeout(0)
def test_for_a_while(authority):
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        first = random.randrange(1 << 40)
        exchange(range(first, first + CHUNK), random.choice([None, authority]))
