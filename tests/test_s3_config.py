"""Who is asked, as whom and by which way: credentials, endpoints and proxies of the environment and the profile."""

import contextlib
import http.server
import json
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest
from servers import lying
from servers.lying import Lying

from storage import S3StorageAdapter, StorageError, StoragePermissionError, StorageUnavailable

DATA = bytes(range(256)) * 400


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """An environment without anything of AWS's or of proxies in it; gives its setter."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    return monkeypatch.setenv


@contextlib.contextmanager
def adapter(**options):
    given = {"bucket_name": "lying", "max_attempts": 1, "connect_timeout": 2, "read_timeout": 5} | options
    with contextlib.closing(S3StorageAdapter(**given)) as made:
        yield made


@contextlib.contextmanager
def serving(handler):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# ---- credentials


class Issuer(http.server.BaseHTTPRequestHandler):
    """What gives a container its credentials."""

    issued, life, status = 0, 3600, 200

    def do_GET(self):
        cls = type(self)
        cls.issued += 1
        ends = (datetime.now(UTC) + timedelta(seconds=cls.life)).strftime("%Y-%m-%dT%H:%M:%SZ")
        keys = {"AccessKeyId": f"AK{cls.issued}", "SecretAccessKey": "secret", "Token": f"token-{cls.issued}"}
        text = json.dumps(keys | {"Expiration": ends}).encode()
        self.send_response(cls.status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


@pytest.fixture
def issuer(bare):
    class One(Issuer):
        pass

    with serving(One) as port:
        bare("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{port}/keys")
        yield One


def refuses_tokens(*tokens):
    def instead(_, request):
        if request.headers.get("x-amz-security-token") in tokens:
            return lying.failure(400, "ExpiredToken", "The provided token has expired.")
        return None

    return lying.Habit("refuses tokens", instead=instead)


def test_credentials_that_a_store_refuses_are_renewed_once(issuer):
    with Lying(refuses_tokens("token-1")) as server, adapter(endpoint_url=server.endpoint.url) as one:
        final = one.put_final("x", DATA)
        assert one.get_final_stream(final).read() == DATA
        assert issuer.issued == 2
        server.become(refuses_tokens(*(f"token-{n}" for n in range(2, 20))))
        with pytest.raises(StorageUnavailable) as caught:
            one.put_temp_part("s", 1, iter([DATA, DATA]))
        assert caught.value.retryable and issuer.issued >= 3
        assert "token" not in str(caught.value).replace("tokens", "")


def test_static_credentials_that_have_expired_are_no_matter_of_time(bare):
    keys = {"access_key": "AK", "secret_key": "secret", "security_token": "token-1"}
    with (
        Lying(refuses_tokens("token-1")) as server,
        adapter(endpoint_url=server.endpoint.url, **keys) as one,
        pytest.raises(StoragePermissionError, match="expired"),
    ):
        one.put_final("x", DATA)


def test_an_issuer_that_fails_is_not_a_lack_of_credentials(issuer):
    issuer.status = 500
    with Lying() as server, adapter(endpoint_url=server.endpoint.url) as one:
        with pytest.raises(StorageUnavailable, match="container") as caught:
            one.put_final("x", DATA)
        assert caught.value.retryable
        issuer.status = 200
        assert one.put_final("x", DATA).size == len(DATA)


def test_credentials_that_hold_are_used_while_the_issuer_is_down(issuer):
    issuer.life = 200  # below the five minutes before which they are renewed
    with Lying() as server, adapter(endpoint_url=server.endpoint.url) as one:
        one.put_final("x", DATA)
        issuer.status = 500
        assert one.put_final("y", DATA).size == len(DATA)


# ---- endpoints


PROFILE = """[default]
region = eu-central-1
[profile own]
region = eu-west-3
endpoint_url = {url}
[profile service]
region = eu-west-3
services = local
[services local]
s3 =
  endpoint_url = {url}
"""
KEYS = {"access_key": "AK", "secret_key": "secret"}


@pytest.mark.parametrize(
    "environment",
    [{"AWS_ENDPOINT_URL_S3": ""}, {"AWS_ENDPOINT_URL": ""}, {"AWS_PROFILE": "own"}, {"AWS_PROFILE": "service"}],
    ids=lambda given: " ".join(given.values()) or next(iter(given)),
)
@pytest.mark.parametrize("keys", [KEYS, KEYS | {"region_name": "us-east-1"}], ids=["keys", "keys and region"])
def test_the_endpoint_of_the_environment(bare, tmp_path, environment, keys):
    with Lying() as server:
        (tmp_path / ".aws").mkdir()
        (tmp_path / ".aws/config").write_text(PROFILE.format(url=server.endpoint.url))
        for name, value in environment.items():
            bare(name, value or server.endpoint.url)
        with adapter(**keys) as one:
            final = one.put_final("x", DATA)
            assert one.get_final_stream(final).read() == DATA
        assert f"{one.prefix}x" in server.objects


def test_a_setting_wins_over_the_environment(bare):
    bare("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with Lying() as server, adapter(endpoint_url=server.endpoint.url, **KEYS) as one:
        assert one.put_final("x", DATA).size == len(DATA)


# ---- proxies


@contextlib.contextmanager
def proxy():
    """One that notes what it is asked for, and refuses."""
    asked = []

    class Refuses(http.server.BaseHTTPRequestHandler):
        def do_PUT(self):
            asked.append((self.path, self.headers["x-amz-content-sha256"], self.headers["x-amz-checksum-crc64nvme"]))
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_PUT

        def log_message(self, *_):
            pass

    with serving(Refuses) as port:
        yield f"http://127.0.0.1:{port}", asked


FAR = {"endpoint_url": "http://store.invalid", **KEYS}


def test_proxies_are_those_of_the_environment_when_an_adapter_opens(bare, monkeypatch):
    with proxy() as (url, asked):
        for given, expected in (
            ({}, False),
            ({"HTTP_PROXY": url}, True),
            ({"http_proxy": url}, True),
            ({"HTTP_PROXY": url.removeprefix("http://")}, True),
            ({"HTTP_PROXY": url, "NO_PROXY": "store.invalid"}, False),
            ({"HTTPS_PROXY": url}, False),
        ):
            asked.clear()
            with monkeypatch.context() as now, adapter(**FAR) as one:
                for name, value in given.items():
                    now.setenv(name, value)
                with pytest.raises(StorageError):
                    one.put_final("x", DATA)
            assert bool(asked) == expected, given


@pytest.mark.parametrize(("checksum", "signed"), [("auto", True), ("off", True), ("crc64nvme", False)])
def test_what_passes_other_machines_in_the_clear_is_signed(bare, checksum, signed):
    """Whoever relays it could mend a checksum; by a name of an algorithm one asks for no more than that."""
    with (
        proxy() as (url, asked),
        adapter(proxy=url, checksum=checksum, **FAR) as one,
        pytest.raises(StorageError),
    ):
        one.put_final("x", DATA)
    assert asked and all((len(hash) == 64) or not signed for _, hash, _ in asked)


# ---- what the SDK says


def test_the_sdk_says_nothing(bare, tmp_path):
    """Nothing of it comes on stderr, though the profile has what it cannot understand."""
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/config").write_text("[default]\nretry_mode = nonsense\n[profile broken\nregion\n")
    code = """
import contextlib
from django.conf import settings
settings.configure(SECRET_KEY="k")
from django.core.exceptions import ImproperlyConfigured
from storage import S3StorageAdapter, StorageError
with contextlib.suppress(StorageError, ImproperlyConfigured):
    S3StorageAdapter(bucket_name="b", endpoint_url="http://127.0.0.1:9", max_attempts=2).put_final("x", b"x")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=dict(os.environ)
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
