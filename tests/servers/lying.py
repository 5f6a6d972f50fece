"""An S3 server in memory that lies by rule: a correct one, with habits that change what it hears and says.

It believes every signature, and keeps the CRC64NVME that it is told; everything else it does as S3 does. A habit has a
name, and says which operations it concerns, how often it shows, and what it changes. Habits can be combined freely:

    with Lying(page("html", on="PutObject"), weak_etags()) as lying:
        adapter = make_s3(lying.endpoint)

What the habits do not touch stays true: `lying.objects` and `lying.uploads` are what the server really has.
"""

import contextlib
import gzip
import hashlib
import random
import re
import secrets
import socket
import ssl
import threading
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import parse_qsl, quote_plus, unquote
from xml.sax.saxutils import escape

import trustme

from servers.endpoint import Endpoint

READS = ("GetObject", "HeadObject")
PUTS = ("PutObject", "UploadPart")
RESULTS = ("CompleteMultipartUpload", "CopyObject", "UploadPartCopy")
LISTS = ("ListObjectsV2", "ListMultipartUploads", "ListParts")
EVERY = (
    *READS,
    *PUTS,
    *RESULTS,
    *LISTS,
    "CreateMultipartUpload",
    "AbortMultipartUpload",
    "DeleteObject",
    "DeleteObjects",
)

PAGES = {
    "html": b"<!doctype html><html><head><meta charset=utf-8><title>Sign in</title></head><body>Please<br></html>",
    "xhtml": b'<?xml version="1.0"?><html><body><p>Welcome</p></body></html>',
    "blanks": b" \r\n\t ",
    "nothing": b"",
    "another": b"<ListAllMyBucketsResult><Owner><ID>x</ID></Owner></ListAllMyBucketsResult>",
    "json": b'{"status": "ok"}',
}


@dataclass
class Request:
    method: str
    target: str
    headers: dict[str, str]
    connection: int
    body: bytes = b""
    query: dict[str, str] = field(init=False)
    key: str = field(init=False)
    operation: str = field(init=False)

    def __post_init__(self):
        path, _, query = self.target.partition("?")
        self.query = dict(parse_qsl(query, keep_blank_values=True))
        self.key = unquote(path).lstrip("/").partition("/")[2]
        self.operation = self._operation()

    def _operation(self):
        copies, query = "x-amz-copy-source" in self.headers, self.query
        match self.method:
            case "PUT" if "uploadId" in query:
                return "UploadPartCopy" if copies else "UploadPart"
            case "PUT":
                return "CopyObject" if copies else "PutObject"
            case "POST" if "uploads" in query:
                return "CreateMultipartUpload"
            case "POST":
                return "CompleteMultipartUpload" if "uploadId" in query else "DeleteObjects"
            case "DELETE":
                return "AbortMultipartUpload" if "uploadId" in query else "DeleteObject"
            case "HEAD":
                return "HeadObject"
            case _ if self.key:
                return "ListParts" if "uploadId" in query else "GetObject"
            case _:
                return "ListMultipartUploads" if "uploads" in query else "ListObjectsV2"


def whole(head, body):
    """How an answer is written: bytes to send together, and numbers, which are seconds to wait."""
    yield head + body


@dataclass
class Answer:
    status: int = 200
    headers: dict[str, str | None] = field(default_factory=dict)
    body: bytes = b""
    close: bool = False
    written: object = whole

    def head(self, method):
        length = {} if self.status == 204 or "Transfer-Encoding" in self.headers else {"Content-Length": len(self.body)}
        fields = {"Date": http_date(), "x-amz-request-id": "LYING", **length, **self.headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value is not None)
        return f"HTTP/1.1 {self.status} Said\r\n{lines}\r\n".encode("latin-1")

    def pieces(self, method):
        return self.written(self.head(method), b"" if method == "HEAD" else self.body)

    def wrap(self, change):
        """Lets `change(pieces)` give other pieces."""
        inner = self.written
        self.written = lambda head, body: change(inner(head, body))


@dataclass
class Object:
    data: bytes
    etag: str
    headers: dict[str, str]
    checksum: str | None
    modified: datetime


@dataclass
class Upload:
    key: str
    headers: dict[str, str]
    checksums: bool
    initiated: datetime
    parts: dict[int, Object] = field(default_factory=dict)


@dataclass(frozen=True)
class Habit:
    """What a server does to some operations, always or sometimes.

    instead     gives an Answer before the request is carried out, or None; if `deaf`, before its body is read
    reading     gives pieces to say when a number of bytes of the body were read
    asked       changes the request
    answered    changes the Answer
    """

    name: str
    on: tuple[str, ...] = EVERY
    instead: object = None
    deaf: bool = False
    reading: object = None
    asked: object = None
    answered: object = None
    chance: float = 1.0
    times: float = float("inf")

    def only(self, *operations):
        return replace(self, on=operations)

    def sometimes(self, chance):
        return replace(self, chance=chance)

    def first(self, times):
        return replace(self, times=times)


class Lying:
    """`with Lying(habit, ...) as lying:` and then `lying.endpoint`.

    secure  a Secure for https, or None for http
    page    how many entries a page of a listing has
    window  size of the receive buffer in bytes; 0 is the system's default
    """

    def __init__(self, *habits, secure=None, page=1000, window=0, seed=0):
        self.page, self.window = page, window
        self.objects, self.uploads, self.log = {}, {}, []
        self.stopping = threading.Event()
        self._lock, self._secure = threading.RLock(), secure
        self.become(*habits, seed=seed)

    def become(self, *habits, seed=0):
        """Has these habits from now on, and no others."""
        with self._lock:
            self.habits, self.random = habits, random.Random(seed)
            self.shown = dict.fromkeys((habit.name for habit in habits), 0)

    def __enter__(self):
        self._listener = socket.socket()
        if self.window:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.window)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(128)
        url = f"{'https' if self._secure else 'http'}://127.0.0.1:{self._listener.getsockname()[1]}"
        ca_bundle = self._secure and self._secure.ca_bundle
        self.endpoint = Endpoint(url, secrets.token_hex(8), secrets.token_hex(16), "lying", "us-east-1", ca_bundle)
        self._threads, self._open, self._count = [], set(), 0
        self._start(self._accept)
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        with self._lock:
            for opened in self._open:
                with contextlib.suppress(OSError):
                    opened.shutdown(socket.SHUT_RDWR)
        while self._threads:
            self._threads.pop().join()
        self._listener.close()

    def put(self, key, data, **headers):
        """Puts an object past all habits; gives its ETag."""
        with self._lock:
            return self._keep(key, data, headers, None).etag

    def operations(self):
        return [request.operation for request in self.log]

    # ---- connections

    def _start(self, target, *args):
        thread = threading.Thread(target=target, args=args, name="lying", daemon=True)
        with self._lock:
            self._threads = [one for one in self._threads if one.is_alive()] + [thread]
            thread.start()

    def _accept(self):
        while True:
            try:
                opened, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._count += 1
                if self.stopping.is_set():
                    opened.close()
                    return
                self._open.add(opened)
                self._start(self._serve, opened, self._count)

    def _serve(self, opened, number):
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        talking = opened
        try:
            with contextlib.suppress(OSError):  # also errors of TLS
                if self._secure:
                    talking = self._secure.context.wrap_socket(opened, server_side=True)
                    with self._lock:
                        self._open.add(talking)
                with talking.makefile("rb", buffering=1 << 16) as lines:
                    while self._one(talking, lines, number):
                        pass
        finally:
            with self._lock:
                self._open -= {opened, talking}
            talking.close()
            opened.close()

    def _one(self, talking, lines, number):
        """Serves one request; tells whether the connection can serve another."""
        first = lines.readline().decode("latin-1").split()
        if len(first) < 3:
            return False
        headers = {}
        while line := lines.readline().decode("latin-1").strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        request = Request(first[0], first[1], headers, number)
        with self._lock:
            self.log.append(request)
            habits = [habit for habit in self.habits if self._shows(habit, request)]
        answer = self._instead(request, [habit for habit in habits if habit.deaf])
        unread = answer is not None
        if not unread:
            if not self._read(talking, lines, request, habits):
                return False  # the client has gone
            with self._lock:
                for habit in habits:
                    if habit.asked:
                        habit.asked(request)
                answer = self._instead(request, habits) or self._carry_out(request)
                for habit in habits:
                    if habit.answered:
                        habit.answered(self, request, answer)
        self._say(talking, answer.pieces(request.method))
        return not (unread or answer.close)

    def _shows(self, habit, request):
        if request.operation not in habit.on or self.shown[habit.name] >= habit.times:
            return False
        if habit.chance < 1 and self.random.random() >= habit.chance:
            return False
        self.shown[habit.name] += 1
        return True

    def _instead(self, request, habits):
        for habit in habits:
            if habit.instead and (answer := habit.instead(self, request)):
                return answer
        return None

    def _read(self, talking, lines, request, habits):
        """Reads the body; tells whether all of it came."""
        size = int(request.headers.get("content-length", 0))
        body = bytearray()
        says = [habit.reading for habit in habits if habit.reading]
        if "expect" in request.headers:
            talking.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        for say in says:
            self._say(talking, say(self, request, 0))
        while len(body) < size:
            more = lines.read(min(size - len(body), 1 << 20))
            if not more:
                return False
            body += more
            for say in says:
                self._say(talking, say(self, request, len(body)))
        request.body = bytes(body)
        return True

    def _say(self, talking, pieces):
        """Says pieces. What is said without a pause in between arrives at once."""
        cork = (socket.IPPROTO_TCP, socket.TCP_CORK)
        talking.setsockopt(*cork, 1)
        for piece in pieces:
            if isinstance(piece, bytes):
                talking.sendall(piece)
                continue
            talking.setsockopt(*cork, 0)
            if self.stopping.wait(piece):
                raise OSError("the server stops")
            talking.setsockopt(*cork, 1)
        talking.setsockopt(*cork, 0)

    # ---- S3

    def _carry_out(self, request):
        if "uploadId" in request.query and not self._upload(request):
            return failure(404, "NoSuchUpload")
        return getattr(self, f"_{request.operation}")(request)

    def _upload(self, request):
        found = self.uploads.get(request.query["uploadId"])
        return found if found and found.key == request.key else None

    def _keep(self, key, data, headers, checksum):
        self.objects[key] = kept = Object(data, etag_of(data), headers, checksum, datetime.now(UTC))
        return kept

    def _taken(self, request):
        return request.headers.get("if-none-match") == "*" and request.key in self.objects

    def _PutObject(self, request):
        if self._taken(request):
            return failure(412, "PreconditionFailed")
        if not self._as_signed(request):
            return failure(400, "XAmzContentSHA256Mismatch")
        kept = self._keep(request.key, request.body, described(request), checksum_of(request))
        return Answer(headers={"ETag": kept.etag})

    def _UploadPart(self, request):
        if not self._as_signed(request):
            return failure(400, "XAmzContentSHA256Mismatch")
        return Answer(headers={"ETag": self._part(request, request.body, checksum_of(request)).etag})

    @staticmethod
    def _as_signed(request):
        signed = request.headers.get("x-amz-content-sha256", "")
        return len(signed) != 64 or signed == hashlib.sha256(request.body).hexdigest()

    def _part(self, request, data, checksum):
        number = int(request.query["partNumber"])
        part = self._upload(request).parts[number] = Object(data, etag_of(data), {}, checksum, datetime.now(UTC))
        return part

    def _source(self, request):
        """The object that a copy is of, and None; or None, and an Answer that says why not."""
        source = self.objects.get(unquote(request.headers["x-amz-copy-source"]).lstrip("/").partition("/")[2])
        if source is None:
            return None, failure(404, "NoSuchKey")
        asked = request.headers.get("x-amz-copy-source-if-match")
        if asked and asked.strip('"') != source.etag.strip('"'):
            return None, failure(412, "PreconditionFailed")
        return source, None

    def _UploadPartCopy(self, request):
        source, failed = self._source(request)
        if failed:
            return failed
        data, checksum = source.data, source.checksum
        if asked := re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("x-amz-copy-source-range", "")):
            data, checksum = data[int(asked[1]) : int(asked[2]) + 1], None
        return copied("CopyPartResult", self._part(request, data, checksum))

    def _CopyObject(self, request):
        source, failed = self._source(request)
        if failed or self._taken(request):
            return failed or failure(412, "PreconditionFailed")
        replaced = request.headers.get("x-amz-metadata-directive") == "REPLACE"
        headers = described(request) if replaced else source.headers
        return copied("CopyObjectResult", self._keep(request.key, source.data, headers, source.checksum))

    def _CreateMultipartUpload(self, request):
        checksums = request.headers.get("x-amz-checksum-algorithm") == "CRC64NVME"
        upload = f"up/{secrets.token_hex(8)}+="
        self.uploads[upload] = Upload(request.key, described(request), checksums, datetime.now(UTC))
        return xml("InitiateMultipartUploadResult", f"<Key>{escape(request.key)}</Key><UploadId>{upload}</UploadId>")

    def _CompleteMultipartUpload(self, request):
        if self._taken(request):
            return failure(412, "PreconditionFailed")
        upload, pieces = self._upload(request), []
        for part in (one for one in ElementTree.fromstring(request.body).iter() if one.tag.endswith("}Part")):
            told = {one.tag.rpartition("}")[2]: one.text for one in part}
            kept = upload.parts.get(int(told["PartNumber"]))
            if kept is None or (told.get("ETag") or "").strip('"') != kept.etag.strip('"'):
                return failure(400, "InvalidPart")
            pieces.append(kept.data)
        if not pieces:
            return failure(400, "MalformedXML")
        del self.uploads[request.query["uploadId"]]
        kept = self._keep(request.key, b"".join(pieces), upload.headers, checksum_of(request))
        kept.etag = f'{kept.etag[:-1]}-{len(pieces)}"'
        return xml("CompleteMultipartUploadResult", f"<Key>{escape(request.key)}</Key><ETag>{escape(kept.etag)}</ETag>")

    def _AbortMultipartUpload(self, request):
        del self.uploads[request.query["uploadId"]]
        return Answer(204)

    def _DeleteObject(self, request):
        self.objects.pop(request.key, None)
        return Answer(204)

    def _DeleteObjects(self, request):
        keys = [one.text for one in ElementTree.fromstring(request.body).iter() if one.tag.endswith("}Key")]
        for key in keys:
            self.objects.pop(key, None)
        quiet = b"<Quiet>true</Quiet>" in request.body
        return xml(
            "DeleteResult", "" if quiet else "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
        )

    def _GetObject(self, request):
        if not (kept := self.objects.get(request.key)):
            return failure(404, "NoSuchKey")
        asked = request.headers.get("if-match")
        if asked and asked != kept.etag:
            return failure(412, "PreconditionFailed")
        answer = Answer(200, told(request, kept), kept.data)
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", "")):
            start, last = int(match[1]), min(int(match[2] or len(kept.data)), len(kept.data) - 1)
            if start > last:
                return failure(416, "InvalidRange")
            answer.status, answer.body = 206, kept.data[start : last + 1]
            answer.headers["Content-Range"] = f"bytes {start}-{last}/{len(kept.data)}"
            answer.headers.pop("x-amz-checksum-crc64nvme", None)
        return answer

    def _HeadObject(self, request):
        if not (kept := self.objects.get(request.key)):
            return Answer(404)
        return Answer(200, {**told(request, kept), "Content-Length": str(len(kept.data))})

    def _ListObjectsV2(self, request):
        query = request.query
        token = query.get("continuation-token", "after:")
        if not token.startswith("after:"):  # a token of a habit
            return failure(400, "InvalidArgument")
        after = token.removeprefix("after:") or query.get("start-after", "")
        keys = sorted(key for key in self.objects if key.startswith(query.get("prefix", "")) and key > after)
        return listing([(key, self.objects[key]) for key in keys[: self.page]], more=len(keys) > self.page)

    def _ListMultipartUploads(self, request):
        prefix, after = request.query.get("prefix", ""), request.query.get("key-marker", "")
        found = sorted((upload.key, ID, upload) for ID, upload in self.uploads.items())
        found = [one for one in found if one[0].startswith(prefix) and one[0] > after]
        page = found[: self.page]
        more = len(found) > len(page)
        rows = "".join(
            f"<Upload><Key>{quote_plus(key, safe='/')}</Key><UploadId>{ID}</UploadId>"
            f"<Initiated>{xml_date(upload.initiated)}</Initiated></Upload>"
            for key, ID, upload in page
        )
        marker = f"<NextKeyMarker>{quote_plus(page[-1][0], safe='/')}</NextKeyMarker>" if more else ""
        return xml("ListMultipartUploadsResult", f"<EncodingType>url</EncodingType>{truncated(more)}{marker}{rows}")

    def _ListParts(self, request):
        after = int(request.query.get("part-number-marker", 0))
        numbers = sorted(number for number in self._upload(request).parts if number > after)
        page = numbers[: self.page]
        return parts_listing(
            [(number, self._upload(request).parts[number]) for number in page], len(numbers) > len(page)
        )


# ---- answers


def etag_of(data):
    return f'"{hashlib.md5(data).hexdigest()}"'


def http_date(when=None):
    return format_datetime(when or datetime.now(UTC), usegmt=True)


def xml_date(when):
    return when.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def xml(element, inside, status=200):
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<{element}>{inside}</{element}>'
    return Answer(status, {"Content-Type": "application/xml"}, text.encode("utf-8", "surrogatepass"))


def failure(status, code, message="told so", more=""):
    return xml("Error", f"<Code>{code}</Code><Message>{message}</Message>{more}", status)


def truncated(more):
    return f"<IsTruncated>{str(more).lower()}</IsTruncated>"


def described(request):
    """The headers that are kept with an object."""
    kept = ("content-type", "content-encoding")
    return {name: value for name, value in request.headers.items() if name.startswith("x-amz-meta-") or name in kept}


def checksum_of(request):
    return request.headers.get("x-amz-checksum-crc64nvme")


def told(request, kept):
    headers = {"ETag": kept.etag, "Last-Modified": http_date(kept.modified), **kept.headers}
    if kept.checksum and request.headers.get("x-amz-checksum-mode") == "ENABLED":
        headers |= {"x-amz-checksum-crc64nvme": kept.checksum, "x-amz-checksum-type": "FULL_OBJECT"}
    return headers


def copied(element, kept):
    sum_ = f"<ChecksumCRC64NVME>{kept.checksum}</ChecksumCRC64NVME>" if kept.checksum else ""
    return xml(element, f"<ETag>{escape(kept.etag)}</ETag><LastModified>{xml_date(kept.modified)}</LastModified>{sum_}")


def listing(rows, *, more=False, token=None, dates=True):
    """A ListBucketResult of pairs of key and Object."""
    token = f"after:{rows[-1][0]}" if more and token is None and rows else token
    entries = "".join(
        f"<Contents><Key>{quote_plus(key, safe='/')}</Key>"
        f"{f'<LastModified>{xml_date(kept.modified)}</LastModified>' if dates else ''}"
        f"<ETag>{escape(kept.etag)}</ETag><Size>{len(kept.data)}</Size></Contents>"
        for key, kept in rows
    )
    goes_on = f"<NextContinuationToken>{escape(token)}</NextContinuationToken>" if token else ""
    return xml("ListBucketResult", f"<EncodingType>url</EncodingType>{truncated(more)}{goes_on}{entries}")


def parts_listing(parts, more, marker=None):
    """A ListPartsResult of pairs of number and Object."""
    rows = "".join(
        f"<Part><PartNumber>{number}</PartNumber><LastModified>{xml_date(kept.modified)}</LastModified>"
        f"<ETag>{escape(kept.etag)}</ETag><Size>{len(kept.data)}</Size></Part>"
        for number, kept in parts
    )
    marker = marker or (parts[-1][0] if parts else 0)
    goes_on = f"<NextPartNumberMarker>{marker}</NextPartNumberMarker>" if more else ""
    return xml("ListPartsResult", f"{truncated(more)}{goes_on}{rows}")


# ---- habits: what is said


def succeeds(answer):
    return answer.status // 100 == 2


def page(kind, on=EVERY, carried_out=False):
    """A page with status 200 in place of an answer; by default the request is not carried out."""

    def answer():
        return Answer(200, {"Content-Type": "text/html"}, PAGES[kind])

    if carried_out:
        return Habit(f"page {kind} after the deed", on, answered=lambda _, __, said: vars(said).update(vars(answer())))
    return Habit(f"page {kind}", on, instead=lambda *_: answer())


def page_404(on=EVERY):
    """A page of a web server that does not know what it is asked for."""
    return Habit("page 404", on, instead=lambda *_: Answer(404, {"Content-Type": "text/html"}, PAGES["html"]))


def without(pattern, name, on):
    """Removes what matches from the XML of answers."""

    def answered(_, __, answer):
        answer.body = re.sub(pattern.encode(), b"", answer.body)

    return Habit(name, on, answered=answered)


def no_etag(on=(*PUTS, *READS)):
    return Habit("no etag", on, answered=lambda _, __, answer: answer.headers.pop("ETag", None))


def no_etag_in_result(on=RESULTS):
    return without("<ETag>.*?</ETag>", "no etag in the result", on)


def no_upload_id(empty=False):
    kept = "<UploadId>(?=.*</UploadId>)" if empty else ""
    name = "empty upload id" if empty else "no upload id"
    pattern = "(?<=<UploadId>)[^<]*" if kept else "<UploadId>.*?</UploadId>"
    return without(pattern, name, ("CreateMultipartUpload",))


def wrong_element(on=RESULTS):
    def answered(_, __, answer):
        answer.body = re.sub(rb"(</?)\w+Result>", rb"\1Result>", answer.body)

    return Habit("wrong element", on, answered=answered)


def says_status(status, on=EVERY, carried_out=True):
    """Another status of success than the right one."""

    def answered(_, __, answer):
        if succeeds(answer):
            answer.status = status

    if carried_out:
        return Habit(f"says {status}", on, answered=answered)
    return Habit(f"says {status} and does nothing", on, instead=lambda *_: Answer(status, {"ETag": '"e"'}))


def fails(status, code, on, message="told so", more="", carried_out=False):
    def answered(_, __, answer):
        vars(answer).update(vars(failure(status, code, message, more)))

    if carried_out:
        return Habit(f"fails {status} {code} after the deed", on, answered=answered)
    return Habit(f"fails {status} {code}", on, instead=lambda *_: failure(status, code, message, more))


def echoes_token(on=EVERY):
    """An error that repeats the security token, as S3's own do."""

    def instead(_, request):
        token = request.headers.get("x-amz-security-token", "")
        return failure(400, "InvalidToken2", f"token {token} is malformed", f"<Token-0>{token}</Token-0>")

    return Habit("echoes token", on, instead=instead)


def early_success(on=PUTS):
    """Says 200 before the body was read; nobody reads the body after that."""
    return Habit("early success", on, lambda *_: _listened(Answer(200, {"ETag": '"e"'})), deaf=True)


def early_error(status, on=PUTS):
    return Habit(f"early {status}", on, lambda *_: _listened(failure(status, "EntityTooLarge")), deaf=True)


def _listened(answer):
    """An answer that the client has time to read: if a body is unread, closing the connection resets it."""

    def change(pieces):
        yield from pieces
        yield 1.0

    answer.wrap(change)
    return answer


def expectation_failed(on=("PutObject", "CompleteMultipartUpload", "UploadPart")):
    def instead(_, request):
        return Answer(417, {"Connection": "close"}, close=True) if "expect" in request.headers else None

    return Habit("expectation failed", on, instead, deaf=True)


# ---- habits: lengths and encodings


def chunked(on=READS, size=65536):
    def answered(_, request, answer):
        answer.headers |= {"Content-Length": None, "Transfer-Encoding": "chunked"}
        if request.method != "HEAD":
            pieces = [answer.body[at : at + size] for at in range(0, len(answer.body), size)]
            answer.body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"

    return Habit("chunked", on, answered=answered)


def until_close(on=READS):
    """No length: the body ends with the connection."""

    def answered(_, __, answer):
        answer.headers |= {"Content-Length": None, "Connection": "close"}
        answer.close = True

    return Habit("until close", on, answered=answered)


def no_length(on=("HeadObject",)):
    return Habit("no length", on, answered=lambda _, __, answer: answer.headers.update({"Content-Length": None}))


def gzipped(on=("GetObject",), labelled=True):
    """Compresses, though nobody asked for it."""

    def answered(_, __, answer):
        if answer.status == 200:
            answer.body = gzip.compress(answer.body, 1)
            answer.headers["Content-Encoding"] = "gzip" if labelled else None

    return Habit("gzipped", on, answered=answered)


def length_says(value, on=("HeadObject",)):
    return Habit(
        f"length {value:.20}", on, answered=lambda _, __, answer: answer.headers.update({"Content-Length": value})
    )


def cut_short(at, on=("GetObject",)):
    """Sends `at` bytes of a body, then closes."""

    def answered(_, __, answer):
        answer.headers.setdefault("Content-Length", str(len(answer.body)))
        answer.body, answer.close = answer.body[:at], True

    return Habit("cut short", on, answered=answered)


# ---- habits: ranges


def _ranged(name, change):
    """Calls `change(answer, start, end, data)` for answers to a range; `data` is the whole object."""

    def answered(server, request, answer):
        honest = re.match(r"bytes (\d+)-(\d+)", answer.headers.get("Content-Range", ""))  # no other habit changed it
        if answer.status == 206 and honest:
            start, end = map(int, honest.groups())
            change(answer, start, end, server.objects[request.key].data)

    return Habit(name, ("GetObject",), answered=answered)


def _span(answer, data, start, end):
    end = min(end, len(data) - 1)
    answer.body = data[start : end + 1]
    answer.headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"


def range_aligned(by=4096):
    """A cache that fetches whole slices and does not cut them, and says so."""
    return _ranged("range aligned", lambda a, start, end, data: _span(a, data, start // by * by, end))


def range_from_start():
    return _ranged("range from the start", lambda a, start, end, data: _span(a, data, 0, end - start))


def range_shorter(by=10):
    return _ranged("range shorter", lambda a, start, end, data: _span(a, data, start, max(start, end - by)))


def range_longer(by=10):
    return _ranged("range longer", lambda a, start, end, data: _span(a, data, start, end + by))


def range_total(total):
    """Another total: `*`, less than there is, or no number."""

    def change(answer, *_):
        answer.headers["Content-Range"] = answer.headers["Content-Range"].partition("/")[0] + total

    return _ranged(f"range total {total or 'missing'}", change)


def range_unlabelled():
    return _ranged("range unlabelled", lambda answer, *_: answer.headers.pop("Content-Range"))


def range_mislabelled():
    """The label is that of the range asked for, but the bytes are others; no client sees that without a digest."""

    def change(answer, start, end, data):
        answer.body = data[: end - start + 1]

    return _ranged("range mislabelled", change)


def range_ignored():
    """The whole object, with 200."""

    def change(answer, start, end, data):
        answer.status, answer.body = 200, data
        del answer.headers["Content-Range"]

    return _ranged("range ignored", change)


def range_says_200():
    """The right bytes, but 200 and no label."""

    def change(answer, *_):
        answer.status = 200
        del answer.headers["Content-Range"]

    return _ranged("range says 200", change)


def range_body(more):
    """The right label, but more or fewer bytes than it says; the length is that of the bytes."""

    def change(answer, start, end, data):
        answer.body = answer.body + b"x" * more if more > 0 else answer.body[:more]

    return _ranged(f"range body {more:+}", change)


def whole_as_206():
    def answered(_, __, answer):
        if answer.status == 200:
            answer.status = 206

    return Habit("whole as 206", ("GetObject",), answered=answered)


# ---- habits: which object


def weak_etags(on=READS):
    def answered(_, __, answer):
        if etag := answer.headers.get("ETag"):
            answer.headers["ETag"] = f"W/{etag}"

    return Habit("weak etags", on, answered=answered)


def ignores(*names, on=EVERY):
    """Headers that the server does not know."""

    def asked(request):
        for name in names:
            request.headers.pop(name.lower(), None)

    return Habit(f"ignores {' '.join(names)}", on, asked=asked)


def replaced_by(data, after=1):
    """Another object takes the place of the one that is read, after `after` answers about it."""

    def answered(server, request, answer):
        server.replaced = getattr(server, "replaced", 0) + 1
        if server.replaced == after:
            server.put(request.key, data)

    return Habit("replaced", ("GetObject",), answered=answered)


# ---- habits: listings


def _lists(name, give, on=("ListObjectsV2",)):
    return Habit(name, on, instead=give)


def _number(token):
    """The place that a token names; a token of another habit begins anew."""
    return int(token) if token and token.isdigit() else 0


def _rows(server, request):
    prefix = request.query.get("prefix", "")
    return [(key, server.objects[key]) for key in sorted(server.objects) if key.startswith(prefix)]


def fresh_tokens():
    """The same keys again and again, each time with another token."""
    return _lists("fresh tokens", lambda s, r: listing(_rows(s, r)[: s.page], more=True, token=secrets.token_hex(8)))


def two_pages_in_turn():
    def give(server, request):
        rows, turn = _rows(server, request), request.query.get("continuation-token") == "b"
        return listing(
            rows[server.page : 2 * server.page] if turn else rows[: server.page], more=True, token="ab"[not turn]
        )

    return _lists("two pages in turn", give)


def keys_backwards():
    def give(server, request):
        rows = _rows(server, request)[::-1]
        start = _number(request.query.get("continuation-token"))
        return listing(rows[start : start + 1], more=True, token=str((start + 1) % max(len(rows), 1)))

    return _lists("keys backwards", give)


def pages_without_keys():
    return _lists("pages without keys", lambda *_: listing([], more=True, token=secrets.token_hex(8)))


def same_token():
    return _lists("same token", lambda s, r: listing(_rows(s, r)[: s.page], more=True, token="again"))


def no_token():
    """Truncated, without a token; `start-after` works."""
    return without("<NextContinuationToken>.*?</NextContinuationToken>", "no token", ("ListObjectsV2",))


def twice_at_the_seam():
    """The last key of a page is the first of the next, too."""

    def give(server, request):
        rows = _rows(server, request)
        start = _number(request.query.get("continuation-token"))
        page, more = rows[max(0, start - 1) : start + server.page], start + server.page < len(rows)
        return listing(page, more=more, token=str(start + server.page) if more else None)

    return _lists("twice at the seam", give)


def unordered(seed=3):
    """All keys, in no order within a page or from page to page."""

    def give(server, request):
        rows = _rows(server, request)
        random.Random(seed).shuffle(rows)
        start = _number(request.query.get("continuation-token"))
        more = start + server.page < len(rows)
        return listing(rows[start : start + server.page], more=more, token=str(start + server.page) if more else None)

    return _lists("unordered", give)


def ignores_prefix():
    """Lists all of the bucket, whatever was asked for."""

    def asked(request):
        request.query.pop("prefix", None)

    return Habit("ignores prefix", ("ListObjectsV2", "ListMultipartUploads"), asked=asked)


def keys_say(key, instead):
    """An entry with another key, or with none."""

    def answered(_, __, answer):
        found = re.compile(rb"<Key>[^<]*%s</Key>" % key.encode())
        answer.body = found.sub(instead.encode(), answer.body)

    return Habit(f"keys {instead}", ("ListObjectsV2",), answered=answered)


def told_twice(before, after):
    """Each key twice in a row, with these times of its last change; None means no time."""

    def answered(_, __, answer):
        def both(entry):
            times = [f"<LastModified>{time}</LastModified>".encode() if time else b"" for time in (before, after)]
            return b"".join(re.sub(rb"<LastModified>.*?</LastModified>", time, entry[0]) for time in times)

        answer.body = re.sub(rb"<Contents>.*?</Contents>", both, answer.body)

    return Habit(f"told twice {before} {after}", ("ListObjectsV2",), answered=answered)


def without_dates(value=""):
    """Keys without the time of their last change, or with an invalid one."""

    def answered(_, __, answer):
        instead = f"<LastModified>{value}</LastModified>".encode() if value else b""
        answer.body = re.sub(rb"<LastModified>.*?</LastModified>", instead, answer.body)

    return Habit("without dates", LISTS, answered=answered)


def sizes_say(value):
    def answered(_, __, answer):
        answer.body = re.sub(rb"<Size>\d+</Size>", f"<Size>{value}</Size>".encode(), answer.body)

    return Habit(f"sizes {value:.20}", ("ListObjectsV2", "ListParts"), answered=answered)


def circling_markers():
    """ListParts that goes on from 2, from 1, from 2."""

    def instead(server, request):
        marker = 1 if request.query.get("part-number-marker") == "2" else 2
        return parts_listing([(marker, next(iter(server.uploads.values())).parts[1])], True, marker)

    return Habit("circling markers", ("ListParts",), instead=instead)


# ---- habits: checksums


def refuses_checksums(at, status, code="NotImplemented"):
    """Refuses CRC64NVME when an upload is created, in a part, or at the end of the upload."""

    def instead(_, request):
        named = any(name.startswith(("x-amz-checksum-", "x-amz-sdk-checksum")) for name in request.headers)
        return failure(status, code) if named or b"<Checksum" in request.body else None

    return Habit(f"refuses checksums {at} {status}", (at,), instead=instead)


def checksum_says(value, on=READS):
    """Tells this value as the checksum of a whole object, whatever the checksum is."""

    def answered(_, request, answer):
        if answer.status == 200 and request.headers.get("x-amz-checksum-mode"):
            answer.headers |= {"x-amz-checksum-crc64nvme": value, "x-amz-checksum-type": "FULL_OBJECT"}

    return Habit("checksum says", on, answered=answered)


def result_checksum_says(value):
    """CompleteMultipartUpload tells this checksum of the whole object, and so do reads."""

    def answered(server, request, answer):
        if answer.status == 200:
            server.objects[request.key].checksum = value
            inside = f"<ChecksumCRC64NVME>{value}</ChecksumCRC64NVME><ChecksumType>FULL_OBJECT</ChecksumType>"
            answer.body = answer.body.replace(b"</Complete", inside.encode() + b"</Complete")

    return Habit("result checksum says", ("CompleteMultipartUpload",), answered=answered)


def locks_objects():
    """A bucket with object lock: AWS asks for a checksum or a Content-MD5 with each body that is put."""

    def instead(_, request):
        named = "content-md5" in request.headers or any(name.startswith("x-amz-checksum-") for name in request.headers)
        said = (
            "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters"
        )
        return None if named else failure(400, "InvalidRequest", said)

    return Habit("locks objects", PUTS, instead=instead)


# ---- habits: copies


def copies_all():
    """UploadPartCopy that does not know ranges."""
    return ignores("x-amz-copy-source-range", on=("UploadPartCopy",))


def parts_of_bytes(size):
    """ListParts with pages without end, of the parts 1 to 1,000, each of `size` bytes."""

    def instead(_, request):
        marker = int(request.query.get("part-number-marker") or 0) + 1
        old = Object(b"", '"e"', {}, None, datetime(2020, 1, 1, tzinfo=UTC))
        answer = parts_listing([(number, old) for number in range(1, 1001)], marker < 10_000, marker)
        answer.body = answer.body.replace(b"<Size>0</Size>", b"<Size>%d</Size>" % size)
        return answer

    return Habit(f"parts of {size}", ("ListParts",), instead=instead)


# ---- habits: the wire


def _wire(name, change, on):
    return Habit(name, on, answered=lambda _, __, answer: answer.wrap(change))


INTERIM = {
    100: b"HTTP/1.1 100 Continue\r\n\r\n",
    102: b"HTTP/1.1 102 Processing\r\n\r\n",
    103: b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n",
}


def interim(status, times=1, on=EVERY):
    """`times` interim answers before the final one."""

    def change(pieces):
        for _ in range(times):
            yield INTERIM[status]
        yield from pieces

    return _wire(f"interim {status} x{times}", change, on)


def interim_while_reading(status, at=0, pause=0.1, on=PUTS):
    """An interim answer when at least `at` bytes of the body were read."""

    def reading(server, request, got):
        size = int(request.headers.get("content-length", 0))
        if got == 0 if at == 0 else got - (1 << 20) < at <= got < size:
            yield from (pause, INTERIM[status], pause)

    return Habit(f"interim {status} while reading at {at}", on, reading=reading)


def endless_interim(status=103, on=EVERY):
    def change(pieces):
        while True:
            yield INTERIM[status] * 100

    return _wire(f"endless interim {status}", change, on)


POISON = b'HTTP/1.1 200 OK\r\nETag: "poison"\r\nContent-Length: 6\r\n\r\nPOISON'


def more_behind(extra=POISON, on=EVERY):
    """Another answer behind each answer, in the same write; over https in the same record."""

    def change(pieces):
        pieces = list(pieces)
        yield b"".join(piece for piece in pieces if isinstance(piece, bytes)) + extra

    return _wire("more behind", change, on)


def more_in_another_record(extra=POISON, on=EVERY):
    """Another answer behind each answer, in a TLS record of its own, but in the same segment."""

    def change(pieces):
        yield from pieces
        yield extra

    return _wire("more in another record", change, on)


def more_later(extra=POISON, pause=0.05, on=EVERY):
    """Another answer when the connection is idle."""

    def change(pieces):
        yield from pieces
        yield pause
        yield extra

    return _wire("more later", change, on)


def huge_head(size=2 << 20, on=EVERY):
    def change(pieces):
        head, _, rest = next(pieces := iter(pieces)).partition(b"\r\n")
        yield head + b"\r\nX-Filling: " + b"x" * size + b"\r\n" + rest
        yield from pieces

    return _wire("huge head", change, on)


def endless_headers(on=EVERY):
    def change(pieces):
        yield next(iter(pieces)).partition(b"\r\n")[0] + b"\r\n"
        while True:
            yield b"X-Filling: filling\r\n" * 1000

    return _wire("endless headers", change, on)


def dripping_head(pause=1.0, on=EVERY):
    """Says one byte at a time."""

    def change(pieces):
        for piece in pieces:
            for byte in piece:
                yield bytes([byte])
                yield pause

    return _wire("dripping head", change, on)


def endless_trailers(on=("GetObject",)):
    def answered(_, request, answer):
        chunked().answered(_, request, answer)
        answer.body = answer.body.removesuffix(b"\r\n")

        def change(pieces):
            yield from pieces
            while True:
                yield b"X-Filling: filling\r\n" * 1000

        answer.wrap(change)

    return Habit("endless trailers", on, answered=answered)


def endless_body(status=500, on=EVERY, named=False):
    """An error whose text has no end."""

    def instead(*_):
        answer = Answer(
            status, {"Content-Length": str(1 << 50) if named else None}, b"<Error><Code>x</Code><Message>", close=True
        )

        def change(pieces):
            yield from pieces
            while True:
                yield b"endless " * 8192

        answer.wrap(change)
        return answer

    return Habit(f"endless body {status}", on, instead=instead)


def silent(on=EVERY):
    """Takes a request and says nothing."""

    def change(_):
        yield 3600.0

    return _wire("silent", change, on)


def hangs_up(on=EVERY, carried_out=True):
    """Closes the connection instead of answering."""

    def answered(_, __, answer):
        answer.close = True
        answer.written = lambda *_: iter(())

    if carried_out:
        return Habit("hangs up", on, answered=answered)
    return Habit("hangs up at once", on, instead=lambda *_: Answer(close=True, written=lambda *_: iter(())))


# ---- https


@dataclass(frozen=True)
class Secure:
    """What a server over https needs."""

    context: ssl.SSLContext
    ca_bundle: str


def secure(directory):
    """A certificate authority, kept below a directory, and its certificate for 127.0.0.1."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(directory / "lying-ca.pem"))
    return Secure(context, str(directory / "lying-ca.pem"))
