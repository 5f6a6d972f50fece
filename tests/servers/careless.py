"""An S3 server that ignores some of a request, as some servers do: a real one behind a front that knows less."""

import http.client
import http.server
import threading
from dataclasses import replace
from urllib.parse import urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

_OWN = {"authorization", "x-amz-date", "host", "connection", "content-length", "expect", "accept-encoding"}


class Careless:
    """`with Careless(endpoint, ignores=["If-None-Match"]) as careless:` and then `careless.endpoint`.

    ignores     headers of requests that the server does not see, as if it did not know them
    unverified  whether it takes any body, whatever the signature says of the body
    answers     headers that all its answers have; a value may be a function that gives the value
    changed     a function that changes the body of an answer
    """

    def __init__(self, upstream, *, ignores=(), unverified=False, answers=None, changed=lambda body: body):
        self._upstream, self._ignores = upstream, {name.lower() for name in ignores}
        self._unverified, self._answers, self._changed = unverified, answers or {}, changed

    def __enter__(self):
        front = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def forward(self):
                front._forward(self)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.endpoint = replace(self._upstream, url=f"http://127.0.0.1:{self._server.server_port}")
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _forward(self, client):
        body = client.rfile.read(int(client.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in client.headers.items()}
        headers = {name: value for name, value in headers.items() if name not in _OWN | self._ignores}
        if self._unverified:
            headers["x-amz-content-sha256"] = "UNSIGNED-PAYLOAD"
        upstream = http.client.HTTPConnection(urlsplit(self._upstream.url).netloc, timeout=20)
        try:
            upstream.request(client.command, client.path, body or None, self._signed(client, headers))
            answer = upstream.getresponse()
            self._relay(client, answer, self._changed(answer.read()))
        finally:
            upstream.close()

    def _signed(self, client, headers):
        request = AWSRequest(client.command, self._upstream.url + client.path, headers)
        who = Credentials(self._upstream.access_key, self._upstream.secret_key)
        _AsSent(who, "s3", self._upstream.region).add_auth(request)
        return dict(request.headers.items())

    def _relay(self, client, answer, body):
        client.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length", *self._lower()):
                client.send_header(name, value)
        for name, value in self._answers.items():
            client.send_header(name, value() if callable(value) else value)
        if client.command == "HEAD":
            client.send_header("Content-Length", answer.getheader("Content-Length", "0"))
        elif answer.status != 204:
            client.send_header("Content-Length", str(len(body)))
        client.end_headers()
        if client.command != "HEAD":
            client.wfile.write(body)

    def _lower(self):
        return {name.lower() for name in self._answers}


class _AsSent(S3SigV4Auth):
    """Signs the body's hash that the client has named."""

    def _modify_request_before_signing(self, request):
        named = request.headers.get("x-amz-content-sha256")
        super()._modify_request_before_signing(request)
        del request.headers["X-Amz-Content-SHA256"]
        request.headers["X-Amz-Content-SHA256"] = self._named = named

    def payload(self, request):
        return request.headers.get("x-amz-content-sha256")
