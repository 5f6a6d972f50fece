"""What the tests of S3 rely on: that the servers refuse what S3 refuses, and that the proxies do what they say. The
client is boto3, so that nothing here depends on what is tested with it."""

import base64
import contextlib
import dataclasses
import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from pathlib import Path

import pytest
import servers
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    FlexibleChecksumError,
    HTTPClientError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
)
from servers.process import NotReady, running

SIZE = 1024 * 1024
DATA = random.Random(3).randbytes(SIZE)
AT = 300_000


def flipped(at):
    return DATA[:at] + bytes([DATA[at] ^ 0xFF]) + DATA[at + 1 :]


class Bucket:
    """One key of a bucket, through one client."""

    def __init__(self, client, bucket, key):
        self.client, self.at = client, {"Bucket": bucket, "Key": key}

    def put(self, data=DATA, **options):
        return self.client.put_object(**self.at, Body=data, **options)

    def get(self, **options):
        with contextlib.closing(self.client.get_object(**self.at, **options)["Body"]) as body:
            return body.read()

    def upload(self, upload_id, number=1, data=DATA):
        return self.client.upload_part(**self.at, UploadId=upload_id, PartNumber=number, Body=data)["ETag"]

    def create(self):
        return self.client.create_multipart_upload(**self.at)["UploadId"]

    def complete(self, upload_id, *etags):
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
        return self.client.complete_multipart_upload(**self.at, UploadId=upload_id, MultipartUpload={"Parts": parts})

    def exists(self):
        try:
            self.client.head_object(**self.at)
        except ClientError as error:
            assert status(error) == 404
            return False
        return True


def status(error):
    return error.response["ResponseMetadata"]["HTTPStatusCode"]


def refused(code, http_status):
    """The ClientError with this code and status."""
    return pytest.raises(ClientError, check=lambda e: (e.response["Error"]["Code"], status(e)) == (code, http_status))


@pytest.fixture
def key():
    return f"servers/{uuid.uuid4().hex}"


@pytest.fixture
def bucket(store, key):
    with store.client() as client:
        yield Bucket(client, store.bucket, key)
        client.delete_object(**Bucket(client, store.bucket, key).at)


@pytest.fixture
def direct(versitygw, key):
    """The way past the fault proxy."""
    with versitygw.client() as client:
        yield Bucket(client, versitygw.bucket, key)


@pytest.fixture
def faulty(faults, key):
    """The way through the fault proxy."""
    with faults.endpoint.client(read_timeout=2) as client:
        yield Bucket(client, faults.endpoint.bucket, key)


class TestStores:
    def test_keep_objects(self, bucket):
        assert not bucket.exists()
        bucket.put()
        assert bucket.get() == DATA
        assert bucket.get(Range="bytes=10-19") == DATA[10:20]
        listed = bucket.client.list_objects_v2(Bucket=bucket.at["Bucket"], Prefix=bucket.at["Key"])
        assert [(entry["Key"], entry["Size"]) for entry in listed["Contents"]] == [(bucket.at["Key"], SIZE)]

    def test_join_parts(self, bucket):
        upload, head = bucket.create(), random.Random(4).randbytes(5 * SIZE)
        bucket.complete(upload, bucket.upload(upload, 1, head), bucket.upload(upload, 2))
        assert bucket.get() == head + DATA

    def test_refuse_a_wrong_secret(self, store, bucket):
        with dataclasses.replace(store, access_key=store.access_key or "x", secret_key="wrong").client() as client:
            stranger = Bucket(client, store.bucket, bucket.at["Key"])
            with refused("SignatureDoesNotMatch", 403) if store.secret_key else pytest.raises(ClientError):
                stranger.put()
        assert not bucket.exists()

    def test_refuse_an_unknown_access_key(self, store, bucket):
        with (
            dataclasses.replace(store, access_key="nobody", secret_key="x" * 16).client() as client,
            # versitygw says XAdminUserNotFound, with 404
            pytest.raises(ClientError, check=lambda error: status(error) in (403, 404)),
        ):
            Bucket(client, store.bucket, bucket.at["Key"]).put()
        assert not bucket.exists()

    @pytest.mark.parametrize("algorithm, size", [("SHA256", 32), ("CRC32", 4), ("CRC32C", 4), ("CRC64NVME", 8)])
    def test_refuse_a_wrong_checksum(self, bucket, algorithm, size):
        with pytest.raises(ClientError, check=lambda error: status(error) == 400):
            bucket.put(**{f"Checksum{algorithm}": base64.b64encode(b"x" * size).decode()})
        assert not bucket.exists()

    def test_take_the_right_checksum(self, bucket):
        bucket.put(ChecksumSHA256=base64.b64encode(hashlib.sha256(DATA).digest()).decode())
        assert bucket.get() == DATA

    def test_refuse_to_replace(self, bucket):
        bucket.put(b"first", IfNoneMatch="*")
        with refused("PreconditionFailed", 412):
            bucket.put(b"second", IfNoneMatch="*")
        upload = bucket.create()
        etag = bucket.upload(upload)
        with refused("PreconditionFailed", 412):
            bucket.client.complete_multipart_upload(
                **bucket.at,
                UploadId=upload,
                MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]},
                IfNoneMatch="*",
            )
        assert bucket.get() == b"first"
        bucket.client.abort_multipart_upload(**bucket.at, UploadId=upload)

    def test_refuse_small_parts(self, bucket):
        upload = bucket.create()
        etags = [bucket.upload(upload, 1), bucket.upload(upload, 2)]
        with refused("EntityTooSmall", 400):
            bucket.complete(upload, *etags)
        bucket.client.abort_multipart_upload(**bucket.at, UploadId=upload)
        assert not bucket.exists()

    def test_minio_is_vouched_for_by_its_own_authority_only(self, minio):
        assert minio.url.startswith("https://") and Path(minio.ca_bundle).is_file()
        with dataclasses.replace(minio, ca_bundle=None).client() as client, pytest.raises(SSLError):
            client.list_buckets()


class TestOwnStore:
    def test_is_named_by_the_environment(self, monkeypatch):
        for name in list(os.environ):
            if name.startswith("STORAGE_TEST_S3_"):
                monkeypatch.delenv(name)
        assert servers.own_store() is None
        monkeypatch.setenv("STORAGE_TEST_S3_BUCKET", "mine")
        monkeypatch.setenv("STORAGE_TEST_S3_ENDPOINT", "")
        assert servers.own_store() == servers.Endpoint(None, None, None, "mine", "us-east-1", None)
        for name in ("ENDPOINT", "ACCESS_KEY", "SECRET_KEY", "REGION", "CA_BUNDLE"):
            monkeypatch.setenv(f"STORAGE_TEST_S3_{name}", name)
        assert servers.own_store() == servers.Endpoint(
            "ENDPOINT", "ACCESS_KEY", "SECRET_KEY", "mine", "REGION", "CA_BUNDLE"
        )
        assert "SECRET_KEY" not in repr(servers.own_store())


class TestProcesses:
    def test_one_that_does_not_start_shows_its_log(self, tmp_path):
        with (
            pytest.raises(RuntimeError, match=r"(?s)versitygw ended with .*nonsense"),
            running("versitygw", "--nonsense", log=tmp_path / "log", ready=never),
        ):
            pass

    def test_one_that_is_not_built_says_how(self, tmp_path):
        with pytest.raises(RuntimeError, match="make tools"), running("typo", log=tmp_path / "log", ready=never):
            pass

    def test_end_with_the_tests_and_leave_nothing(self, tmp_path):
        with pytest.raises(ZeroDivisionError), servers.versitygw(tmp_path) as endpoint:
            assert answers(endpoint)
            raise ZeroDivisionError
        assert not answers(endpoint) and not list(tmp_path.iterdir())

    def test_end_when_the_tests_are_killed(self, tmp_path):
        program = (
            f"import os, pathlib, servers\nwith servers.versitygw(pathlib.Path({str(tmp_path)!r})) as endpoint:\n"
            f"    print(endpoint.url, flush=True)\n    os.kill(os.getpid(), {signal.SIGKILL})"
        )
        ended = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(servers.__file__).parents[1]
        )
        assert ended.returncode == -signal.SIGKILL
        endpoint = servers.Endpoint(ended.stdout.strip(), "x", "x", "tests", "us-east-1")
        assert endpoint.url.startswith("http://")
        until = time.monotonic() + 5
        while answers(endpoint):
            assert time.monotonic() < until
            time.sleep(0.05)


def never():
    raise NotReady


def answers(endpoint):
    with endpoint.client() as client:
        try:
            client.list_buckets()
        except ClientError:
            return True
        except BotoCoreError:
            return False
        return True


class TestFaultProxy:
    """Each fault as boto3 sees it, and what versitygw has afterwards."""

    def test_passes_on(self, faults, faulty, direct):
        faulty.put()
        assert direct.get() == faulty.get() == DATA
        put, get = faults.log()
        assert (put.operation, put.key, put.status, put.received, put.fault) == (
            "PutObject",
            direct.at["Key"],
            200,
            SIZE,
            "",
        )
        assert put.headers["content-length"] == str(SIZE) and put.headers["expect"] == "100-continue"
        assert (get.operation, get.status, get.received, get.sent) == ("GetObject", 200, 0, SIZE)
        assert put.connection == get.connection and faults.connections() == 1
        faults.clear()
        assert faults.log() == []

    def test_passes_on_to_tls(self, minio, key, tmp_path):
        with servers.FaultProxy(minio, tmp_path) as proxy, proxy.endpoint.client() as client:
            bucket = Bucket(client, minio.bucket, key)
            bucket.put()
            assert bucket.get(Range="bytes=5-") == DATA[5:]
            assert [(entry.received, entry.sent) for entry in proxy.log()] == [(SIZE, 0), (0, SIZE - 5)]

    def test_is_reached_over_https(self, versitygw, key, tmp_path):
        with servers.FaultProxy(versitygw, tmp_path, secure=True) as proxy, proxy.endpoint.client() as client:
            assert proxy.endpoint.url.startswith("https://")
            bucket = Bucket(client, versitygw.bucket, key)
            bucket.put()
            assert bucket.get(Range="bytes=5-") == DATA[5:]
            with proxy.rule("reset_down", "GetObject", at=1000), pytest.raises(BotoCoreError):
                bucket.get()
            assert [entry.fault for entry in proxy.log()] == ["", "", "reset_down"]

    def test_knows_the_operations(self, faults, faulty):
        at, client = faulty.at, faulty.client
        bucket = at["Bucket"]
        source = {"Bucket": bucket, "Key": at["Key"]}
        client.head_bucket(Bucket=bucket)
        faulty.put()
        client.head_object(**at)
        client.copy_object(**at, CopySource=source, MetadataDirective="REPLACE")
        client.list_objects_v2(Bucket=bucket)
        upload = faulty.create()
        faulty.upload(upload)
        copied = client.upload_part_copy(**at, UploadId=upload, PartNumber=1, CopySource=source)
        client.list_parts(**at, UploadId=upload)
        client.list_multipart_uploads(Bucket=bucket)
        faulty.complete(upload, copied["CopyPartResult"]["ETag"])
        client.abort_multipart_upload(**at, UploadId=faulty.create())
        client.get_object(**at)["Body"].read()
        client.delete_object(**at)
        client.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": at["Key"]}]})
        assert " ".join(entry.operation for entry in faults.log()) == (
            "HeadBucket PutObject HeadObject CopyObject ListObjectsV2 CreateMultipartUpload UploadPart UploadPartCopy "
            "ListParts ListMultipartUploads CompleteMultipartUpload CreateMultipartUpload AbortMultipartUpload "
            "GetObject DeleteObject DeleteObjects"
        )

    @pytest.mark.parametrize(
        "code, number",
        [
            ("InternalError", 500),
            ("SlowDown", 503),
            ("TooManyRequests", 429),
            ("PreconditionFailed", 412),
            ("ConditionalRequestConflict", 409),
        ],
    )
    def test_status(self, faults, faulty, direct, code, number):
        with faults.rule("status", "PutObject", status=number, read_body=True, retry_after="1"), refused(code, number):
            faulty.put()
        (entry,) = faults.log()
        assert (entry.status, entry.fault, entry.received) == (number, "status", SIZE)
        assert not direct.exists()
        faulty.put()
        assert direct.exists()

    def test_status_is_retried(self, faults, direct):
        with (
            faults.rule("status", "PutObject", status=503, skip=1, times=2, key_contains=direct.at["Key"]),
            faults.endpoint.client(retries={"total_max_attempts": 3, "mode": "standard"}) as client,
        ):
            for _ in range(2):
                client.put_object(**direct.at, Body=b"small")
        assert [entry.status for entry in faults.log()] == [200, 503, 503, 200]

    def test_reset_up(self, faults, faulty, direct):
        with faults.rule("reset_up", at=AT), pytest.raises(ConnectionClosedError):
            faulty.put()
        (entry,) = faults.log()
        assert (entry.status, entry.fault, entry.received) == (0, "reset_up", AT)
        assert not direct.exists()

    def test_reset_up_of_a_part(self, faults, faulty, direct):
        upload = faulty.create()
        with faults.rule("reset_up", "UploadPart", at=AT), pytest.raises(ConnectionClosedError):
            faulty.upload(upload)
        assert "Parts" not in direct.client.list_parts(**direct.at, UploadId=upload)
        direct.client.abort_multipart_upload(**direct.at, UploadId=upload)

    def test_reset_up_keeps_what_was_there(self, faults, faulty, direct):
        direct.put(b"before")
        with faults.rule("reset_up", at=AT), pytest.raises(ConnectionClosedError):
            faulty.put()
        assert direct.get() == b"before"

    def test_flip_up_is_noticed_by_the_checksum(self, faults, faulty, direct):
        with faults.rule("flip_up", at=AT), pytest.raises(ClientError, check=lambda error: status(error) == 400):
            faulty.put()
        assert not direct.exists()

    def test_flip_up_is_noticed_by_nothing_else(self, faults, direct):
        url = direct.client.generate_presigned_url("put_object", Params=direct.at)
        url = url.replace(direct.client.meta.endpoint_url, faults.endpoint.url)
        host = direct.client.meta.endpoint_url.removeprefix("http://")  # what was signed
        with faults.rule("flip_up", at=AT):
            request = urllib.request.Request(url, DATA, {"Host": host}, method="PUT")
            with urllib.request.urlopen(request) as response:
                assert response.status == 200
        assert direct.get() == flipped(AT)
        (entry,) = faults.log()
        assert (entry.fault, entry.received) == ("flip_up", SIZE) and "X-Amz-Signature" not in entry.query

    def test_stall_up(self, faults, faulty, direct):
        """boto3 has no time limit for sending: with room for all in the sockets it waits for the response."""
        with faults.rule("stall_up", at=AT, seconds=30), pytest.raises((ReadTimeoutError, ConnectionClosedError)):
            faulty.put(DATA[: AT + 1000])
        (entry,) = faults.log()
        assert (entry.status, entry.fault, entry.received) == (0, "stall_up", AT)
        assert not direct.exists()

    def test_stall_up_that_ends(self, faults, faulty, direct):
        with faults.rule("stall_up", at=AT, seconds=0.5):
            faulty.put()
        (entry,) = faults.log()
        assert entry.status == 200 and 0.5 <= entry.seconds < 30
        assert direct.get() == DATA

    def test_lost_response(self, faults, faulty, direct):
        with faults.rule("lost_response"), pytest.raises(ConnectionClosedError):
            faulty.put()
        (entry,) = faults.log()
        assert (entry.status, entry.fault, entry.received, entry.sent) == (0, "lost_response", SIZE, 0)
        assert direct.get() == DATA

    def test_lost_response_of_complete(self, faults, faulty, direct):
        upload = faulty.create()
        etag = faulty.upload(upload)
        with faults.rule("lost_response", "CompleteMultipartUpload"), pytest.raises(ConnectionClosedError):
            faulty.complete(upload, etag)
        assert direct.get() == DATA

    def test_error_in_200(self, faults, faulty, direct):
        """A client that does not know of it would take this for success; botocore makes a 500 of it."""
        upload = faulty.create()
        etag = faulty.upload(upload)
        with faults.rule("error_in_200", "CompleteMultipartUpload"), refused("InternalError", 500):
            faulty.complete(upload, etag)
        assert faults.log("CompleteMultipartUpload")[0].status == 200
        assert not direct.exists()
        faulty.complete(upload, etag)
        assert direct.get() == DATA

    def test_reset_down(self, faults, faulty, direct):
        direct.put()
        with faults.rule("reset_down", at=AT), pytest.raises((ResponseStreamingError, ConnectionResetError)):
            faulty.get()
        (entry,) = faults.log()
        assert (entry.status, entry.fault, entry.sent) == (200, "reset_down", AT)

    def test_short_body(self, faults, faulty, direct):
        direct.put()
        with faults.rule("short_body", at=AT), pytest.raises(ResponseStreamingError, match=f"{AT} bytes read"):
            faulty.get()
        (entry,) = faults.log()
        assert (entry.status, entry.fault, entry.sent) == (200, "short_body", AT)

    def test_flip_down_is_noticed_by_the_checksum(self, faults, faulty, direct):
        direct.put()
        with faults.rule("flip_down", at=AT), pytest.raises(FlexibleChecksumError):
            faulty.get()

    def test_flip_down_is_noticed_by_nothing_else(self, faults, faulty, direct):
        direct.put()
        with faults.rule("flip_down", at=AT - 1):
            assert faulty.get(Range="bytes=1-") == flipped(AT)[1:]  # a part of an object has no checksum

    @pytest.mark.parametrize("at", [-1, AT])
    def test_stall_down(self, faults, faulty, direct, at):
        direct.put()
        with faults.rule("stall_down", at=at, seconds=30):
            with pytest.raises(ReadTimeoutError):
                faulty.get()
            (entry,) = faults.log()
        assert (entry.fault, entry.status, entry.sent) == ("stall_down", 0 if at < 0 else 200, max(at, 0))

    def test_delay(self, faults, faulty):
        with faults.rule("delay", seconds=0.3):
            faulty.put()
        (entry,) = faults.log()
        assert entry.fault == "delay" and 0.3 <= entry.seconds < 30

    def test_no_copy(self, faults, faulty):
        faulty.put()
        upload = faulty.create()
        with faults.rule("no_copy"):
            faulty.upload(upload)
            with refused("NotImplemented", 501):
                faulty.client.upload_part_copy(**faulty.at, UploadId=upload, PartNumber=1, CopySource=faulty.at)
        faulty.client.abort_multipart_upload(**faulty.at, UploadId=upload)

    def test_no_checksums(self, faults, faulty, direct):
        with faults.rule("no_checksums"):
            with refused("InvalidRequest", 400):
                faulty.put(b"x")
            with faults.endpoint.client(
                request_checksum_calculation="when_required", response_checksum_validation="when_required"
            ) as client:
                client.put_object(**direct.at, Body=b"x")
                assert client.get_object(**direct.at)["Body"].read() == b"x"

    def test_wrong_rules_are_told(self, faults):
        for wrong in ({"fault": "typo"}, {"fault": "status"}, {"fault": "delay", "typo": 1}):
            with pytest.raises(ValueError), faults.rule(**wrong):
                pass


class TestToxiproxy:
    def test_passes_on(self, toxiproxy, versitygw, direct):
        with toxiproxy.link(versitygw) as link, link.endpoint.client() as client:
            client.put_object(**direct.at, Body=DATA)
        assert direct.get() == DATA

    def test_cuts(self, toxiproxy, versitygw, direct):
        with toxiproxy.link(versitygw) as link, link.endpoint.client() as client:
            with link.toxic("limit_data", "upstream", bytes=AT), pytest.raises(HTTPClientError):
                client.put_object(**direct.at, Body=DATA)
            assert not direct.exists()
            with link.down(), pytest.raises((EndpointConnectionError, ConnectionClosedError)):
                client.list_buckets()
            client.put_object(**direct.at, Body=DATA)
        assert direct.exists()


class TestDiscard:
    """The server of the benchmarks takes everything, and gives what it is asked for."""

    def test_takes_everything(self, tmp_path):
        with servers.discard(tmp_path) as endpoint, endpoint.client() as client:
            bucket = Bucket(client, "bucket", "key")
            crc = "AAAAAA=="
            assert bucket.put(ChecksumCRC32=crc).items() >= {"ChecksumCRC32": crc}.items()
            upload = bucket.create()
            assert bucket.complete(upload, bucket.upload(upload))["ETag"]
            client.abort_multipart_upload(**bucket.at, UploadId=upload)
            client.delete_object(**bucket.at)
            client.head_bucket(Bucket="bucket")
            assert client.list_objects_v2(Bucket="bucket")["KeyCount"] == 0
            assert not bucket.exists()

    def test_gives_what_it_is_asked_for(self, tmp_path):
        whole = bytes(range(251)) * 12_000
        with servers.discard(tmp_path) as endpoint, endpoint.client() as client:
            bucket = Bucket(client, "bucket", f"final/get-{len(whole)}")
            assert client.head_object(**bucket.at)["ContentLength"] == len(whole)
            assert bucket.get() == whole
            assert bucket.get(Range="bytes=1000-2000999") == whole[1000:2001000]
            assert bucket.get(Range=f"bytes={len(whole) - 7}-") == whole[-7:]
            with refused("InvalidRange", 416):
                bucket.get(Range=f"bytes={len(whole)}-")
            assert Bucket(client, "bucket", "get-0").get() == b""

    def test_an_answer_to_head_has_no_body(self, tmp_path):
        with servers.discard(tmp_path) as endpoint:
            host, _, port = endpoint.url.removeprefix("http://").partition(":")
            with socket.create_connection((host, int(port))) as connection:
                connection.sendall(b"HEAD /bucket/key HTTP/1.1\r\nHost: discard\r\n\r\n")
                connection.shutdown(socket.SHUT_WR)
                answer = connection.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 404 ")
        assert answer.endswith(b"\r\n\r\n")


class TestFarline:
    def test_passes_on(self, tmp_path):
        whole = bytes(range(251)) * 4_000
        with (
            servers.discard(tmp_path) as near,
            servers.farline(near, tmp_path, bandwidth=100, delay=5) as far,
            far.client() as client,
        ):
            bucket = Bucket(client, "bucket", f"final/get-{len(whole)}")
            assert bucket.put()["ETag"]
            assert bucket.get() == whole

    def test_loses_connections(self, tmp_path):
        with (
            servers.discard(tmp_path) as near,
            servers.farline(near, tmp_path, bandwidth=100, delay=5, loss=1) as far,
            far.client() as client,
            pytest.raises(ResponseStreamingError),
        ):
            Bucket(client, "bucket", f"final/get-{4 * SIZE}").get()
