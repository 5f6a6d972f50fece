"""Transfers in an event loop. Usage: looping.py ROOT many NUMBER|fork|interrupt; prints JSON, memory in bytes."""

import asyncio
import gc
import json
import os
import signal
import sys
from pathlib import Path

from django.conf import settings

settings.configure(INSTALLED_APPS=["storage"])

import adapters  # noqa: E402

from storage import ObjectNotFound, native  # noqa: E402

ROOT, SCENARIO = sys.argv[1:3]
adapter = adapters.make(ROOT)
PIECE = os.urandom(256 * 1024)
PIECES = 2


def memory(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))


async def source(pieces):
    for _ in range(pieces):
        await asyncio.sleep(0.1)  # so all are under way at once
        yield PIECE


async def transfer(key):
    final = await adapter.aput_final(key, source(PIECES))
    got = 0
    async with await adapter.aget_final_stream(final) as reader:
        async for piece in reader:
            got += len(piece)
    assert got == final.size == PIECES * len(PIECE)
    await adapter.adelete_final(final)


async def many(number):
    await asyncio.gather(*(transfer(f"warm/{n}") for n in range(3)))
    gc.collect()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before, threads = memory("VmRSS"), 0
    under_way = [asyncio.create_task(transfer(f"a/{n}")) for n in range(number)]
    while not all(task.done() for task in under_way):
        threads = max(threads, len(os.listdir("/proc/self/task")))
        await asyncio.sleep(0.01)
    await asyncio.gather(*under_way)
    return {"threads": threads, "grown": memory("VmHWM") - before, "size": PIECES * len(PIECE)}


def fork():
    """A child has loops and threads of its own, and none of its parent's."""
    Path(ROOT, "file").write_bytes(PIECE)

    async def work():
        with open(Path(ROOT, "file"), "rb") as file:  # which takes a thread
            await adapter.aput_final("file", file)
        await transfer("a")

    async def inside():
        task = asyncio.create_task(adapter.aput_final("parents", source(20)))
        await asyncio.sleep(0.3)
        if os.fork() == 0:
            os._exit(0 if native._owned == {} else 1)
        assert os.wait()[1] == 0
        await task

    asyncio.run(work())
    if os.fork() == 0:
        code = 1
        try:
            asyncio.run(work())
            code = 0
        finally:
            os._exit(code)
    assert os.wait()[1] == 0
    asyncio.run(inside())


def interrupt():
    """Ctrl-C ends the task that asyncio.run waits for, after its undo."""

    async def work():
        asyncio.get_running_loop().call_later(0.2, os.kill, os.getpid(), signal.SIGINT)
        await adapter.aput_final("undone", source(1000))

    try:
        asyncio.run(work())
    except KeyboardInterrupt:
        assert native.stats()["calls"] == 0
    else:
        raise AssertionError("no KeyboardInterrupt")
    try:
        adapter.stat_final("local", "undone")
    except ObjectNotFound:
        return
    raise AssertionError("it was stored")


found = {}
if SCENARIO == "many":
    found = asyncio.run(many(int(sys.argv[3])))
else:
    {"fork": fork, "interrupt": interrupt}[SCENARIO]()
adapter.close()
print(json.dumps(found))
