"""Greenlets of one thread, whose transfers wait in turn; then some that are killed in the middle."""

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402

import gevent  # noqa: E402
from adapters import make  # noqa: E402
from django.conf import settings  # noqa: E402

settings.configure()

from storage import native  # noqa: E402

adapter = make(sys.argv[1])
BLOCK = 256 * 1024


def work(number):
    key = f"a/{number}"
    for turn in range(12):
        data = os.urandom(1000 + number)
        final = adapter.put_final(key, data)
        with adapter.get_final_stream(final) as reader:
            assert reader.read() == data
        assert adapter.stat_final(final).size == len(data)
        if turn % 4 == 3:
            pieces = [os.urandom(BLOCK) for _ in range(3)]
            final = adapter.put_final(key, iter(pieces))
            with adapter.get_final_stream(final) as reader:
                assert reader.read() == b"".join(pieces)
        adapter.delete_final(final)


def endless():
    while True:
        adapter.put_final("b", os.urandom(2000))


gevent.joinall([gevent.spawn(work, number) for number in range(20)], raise_error=True)

beats = 0


def beat():
    global beats
    while True:
        beats += 1
        gevent.sleep(0.01)


running = [gevent.spawn(endless) for _ in range(8)] + [gevent.spawn(beat)]
gevent.sleep(0.5)
gevent.killall(running)
until = time.monotonic() + 5
while native.stats()["calls"] and time.monotonic() < until:
    gevent.sleep(0.01)
left = native.stats()
print(json.dumps({"beats": beats, "calls": left["calls"], "readers": left["readers"], "lent": len(native._lent)}))
