"""Does what it is told, a line of JSON at a time: a test can attach to it before what counts.

Usage: agent.py ROOT [OPTIONS]. It says "ready" once everything lazy is open; then each line
{"op": ..., ...} is answered by {"ok": ...} or {"error": class, "code": ...}.
"""

import json
import os
import random
import sys
import time

import django
from django.conf import settings


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
