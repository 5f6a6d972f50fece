"""Does what it is told, a line of JSON at a time: a test can attach to it before what counts.

Usage: agent.py ROOT [OPTIONS]. It says "ready" once everything lazy is open; then each line
{"op": ..., ...} is answered by {"ok": ...} or {"error": class, "code": ...}.
"""

import ctypes
import gc
import json
import os
import random
import struct
import sys
import time

import django
from django.conf import settings

AUDIT_ARCH, SYS_WRITE, SYS_SECCOMP = {
    "x86_64": (0xC000003E, 1, 317),
    "aarch64": (0xC00000B7, 64, 277),
}[os.uname().machine]
PR_SET_NO_NEW_PRIVS, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC = 38, 1, 1
LOAD, IF_EQUAL, IF_GREATER, IF_GREATER_OR_EQUAL, RETURN = 0x20, 0x15, 0x25, 0x35, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000


def content(seed, size):
    return random.Random(seed).randbytes(size)


class Operations:
    def __init__(self, root, options):
        from storage import LocalStorageAdapter

        self.root, self.held = root, []
        self.adapter = LocalStorageAdapter(temp_dir=f"{root}/temp", final_dir=f"{root}/final", **options)

    def warm(self):
        self.adapter.put_final("warm", b"x")
        self.adapter.delete_final("local", "warm")
        self.adapter.put_temp_part("warm", 1, b"x")
        self.adapter.delete_temp_parts("warm")

    def put(self, key, seed=0, size=1_000_000, **kwargs):
        return self.adapter.put_final(key, content(seed, size), **kwargs).sha256

    def part(self, number, seed=0, size=1_000_000):
        return self.adapter.put_temp_part("s", number, content(seed, size)).sha256

    def assemble(self, key):
        return self.adapter.assemble(key, self.adapter.list_temp_parts("s")).sha256

    def read(self, key):
        with self.adapter.get_final_stream("local", key) as reader:
            return len(reader.read())

    def delete(self, key):
        self.adapter.delete_final("local", key)

    def health(self):
        self.adapter.check_health()

    def django(self, key, seed=0, size=1_000_000):
        from django.core.files.base import ContentFile
        from django.core.files.storage import FileSystemStorage

        file = ContentFile(content(seed, size))
        file.DEFAULT_CHUNK_SIZE = 256 * 1024
        FileSystemStorage(f"{self.root}/final").save(key, file)

    def many(self, size):
        """Stores objects until something fails, and says after each that it is there."""
        for seed in range(1_000_000):
            if seed % 3 == 0:
                self.put(f"many/{seed % 30}/{seed}", seed, size)
            elif seed % 3 == 1:
                self.part(seed % 10_000 + 1, seed, size)
            else:
                self.put("many/same", seed, size)
            say({"stored": seed})

    def exhaust(self, spare=0):
        try:
            while True:
                self.held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            for _ in range(spare):
                os.close(self.held.pop())

    def fail_writes(self, error, least, most):
        """From now on every write of so many bytes to a file of ours fails. Not of 8: the Go runtime's wake-ups."""
        program = [
            (LOAD, 0, 0, 4),  # seccomp_data.arch
            (IF_EQUAL, 0, 8, AUDIT_ARCH),
            (LOAD, 0, 0, 0),  # .nr
            (IF_EQUAL, 0, 6, SYS_WRITE),
            (LOAD, 0, 0, 16),  # .args[0], the descriptor
            (IF_GREATER, 0, 4, 2),
            (LOAD, 0, 0, 32),  # .args[2], the size
            (IF_GREATER_OR_EQUAL, 0, 2, least),
            (IF_GREATER, 1, 0, most),
            (RETURN, 0, 0, ERRNO | error),
            (RETURN, 0, 0, ALLOW),
        ]
        filters = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
        known = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(filters)))
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if libc.syscall(SYS_SECCOMP, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, known):
            raise OSError(ctypes.get_errno(), "seccomp")

    def usage(self):
        from storage import native

        gc.collect()
        counts = native.stats()
        return [counts["calls"], counts["readers"], counts["buffers"], len(os.listdir("/proc/self/fd"))]

    def relax(self):
        while self.held:
            os.close(self.held.pop())


def say(value):
    os.write(1, json.dumps(value).encode() + b"\n")


def main():
    settings.configure(INSTALLED_APPS=["storage"], USE_TZ=True)
    django.setup()
    operations = Operations(sys.argv[1], json.loads(sys.argv[2]) if sys.argv[2:] else {})
    operations.warm()
    time.sleep(0.05)
    say("ready")
    for line in sys.stdin:
        order = json.loads(line)
        try:
            say({"ok": getattr(operations, order.pop("op"))(**order)})
        except Exception as error:
            say({"error": type(error).__name__, "code": getattr(error, "code", str(error))})


if __name__ == "__main__":
    main()
