"""The examples of the README and of docs/ run, and the links in them lead somewhere.

Each document's Python runs in one process of its own, in the order of the page. The word after
```python says what a block is: `settings` (a piece of a settings module), `s3` (the same, for a
bucket), `configurations` (a whole one), `clamd` (see test_uploads.py), nothing (code that uses the
portal's settings).
"""

import contextlib
import dataclasses
import hashlib
import inspect
import json
import os
import re
import subprocess
import sys
import uuid
from datetime import timedelta
from pathlib import Path

import boto3
import pytest
from botocore.validate import ParamValidator
from conftest import django_configurations
from django.middleware.csrf import CsrfViewMiddleware
from django.test import RequestFactory, override_settings
from tools import settings_table

from storage import StoragePermissionError, checks, conf, doctor, get_storage_adapter
from storage.options import OPTIONS

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
WITH_EXAMPLES = {
    "README.md",
    "assembling.md",
    "async.md",
    "django.md",
    "doctor.md",
    "getting-started.md",
    "http.md",
    "migrating.md",
    "services.md",
    "settings.md",
    "sweep.md",
    "testing.md",
    "tus.md",
    "uploads.md",
}


def blocks(document, language="python"):
    """(kind, code) of each block; the code keeps its line numbers for tracebacks."""
    text = document.read_text(encoding="utf-8")
    for match in re.finditer(rf"^```{language} ?(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        before = text[: match.start(2)].count("\n")
        yield match[1], "\n" * before + match[2]


def run(directory, *arguments, **environment):
    done = subprocess.run(
        [sys.executable, __file__, *map(str, arguments)],
        cwd=directory,
        env={**os.environ, "PORTAL_VAR": str(directory / "portal")} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("name", "view"), [("README.md", "file"), ("docs/getting-started.md", "put_part")])
def test_a_new_project_lets_the_first_put_in(name, view):
    """One of `startproject` has the CSRF middleware, which examples with a RequestFactory pass by."""
    code = next(code for _, code in blocks(ROOT / name) if f"def {view}(" in code)
    names = {}
    exec(code, names)
    assert CsrfViewMiddleware(names[view]).process_view(RequestFactory().put("/", b"x"), names[view], (), {}) is None


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links(document):
    missing = []
    for link, anchor in re.findall(r"\]\(([^)#\s]*)(#[^)\s]+)?\)", document.read_text(encoding="utf-8")):
        target = document.parent / link if link else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            missing.append(link + anchor)
    assert not missing


def anchors(document):
    """The headings of a page, as links name them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {"#" + re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_in_the_site():
    """`make docs` builds it, and is strict."""
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    pages = {"index.md", "CHANGELOG.md", *(path.name for path in (ROOT / "docs").glob("*.md"))}
    assert set(re.findall(r"- (\S+\.md)$", nav, re.MULTILINE)) == pages


def test_documents_with_examples():
    assert {d.name for d in DOCUMENTS if list(blocks(d))} == WITH_EXAMPLES


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "docs/assembling.md",
        "docs/async.md",
        "docs/django.md",
        "docs/doctor.md",
        "docs/getting-started.md",
        "docs/http.md",
        "docs/migrating.md",
        "docs/services.md",
        "docs/sweep.md",
        "docs/testing.md",
        "docs/uploads.md",
    ],
)
def test_examples(name, tmp_path):
    run(tmp_path, "code", ROOT / name, DJANGO_SETTINGS_MODULE="portal.settings")


WITH_SETTINGS = [
    "README.md",
    "docs/django.md",
    "docs/getting-started.md",
    "docs/migrating.md",
    "docs/settings.md",
    "docs/testing.md",
    "docs/uploads.md",
]


STARTED = """
from portal.settings import *

ROOT_URLCONF = "uploads.urls"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
"""
"""What the settings of a new project have, in short."""


@pytest.mark.slow
def test_the_project_of_uploads(tmp_path):
    """The blocks of docs/tus.md are the modules of a project, and then code that uses it."""
    page = ROOT / "docs/tus.md"
    modules = {"settings": STARTED, "urls": "", "hooks": "", "asgi": ""}
    (tmp_path / "uploads").mkdir()
    for name, text in modules.items():
        text += "".join(code for kind, code in blocks(page) if kind == name)
        (tmp_path / "uploads" / f"{name}.py").write_text(text, encoding="utf-8")
    known = {"DJANGO_SETTINGS_MODULE": "uploads.settings", "PYTHONPATH": str(tmp_path)}
    run(tmp_path, "code", page, **known)
    run(tmp_path, "asgi", "uploads.asgi", **known)


@pytest.mark.parametrize("name", WITH_SETTINGS)
def test_settings(name, tmp_path, minio):
    run(tmp_path, "settings", ROOT / name, TEST_ENDPOINT=json.dumps(dataclasses.asdict(minio)))


@django_configurations
@pytest.mark.parametrize(("configuration", "backend"), [("Base", "local"), ("Production", "s3")])
def test_configurations(tmp_path, minio, configuration, backend):
    (code,) = (c for kind, c in blocks(ROOT / "docs/settings.md") if kind == "configurations")
    (tmp_path / "example_settings.py").write_text(code, encoding="utf-8")
    s3 = {
        "AWS_STORAGE_BUCKET_NAME": minio.bucket,
        "AWS_S3_ENDPOINT_URL": minio.url,
        "AWS_ACCESS_KEY_ID": minio.access_key,
        "AWS_SECRET_ACCESS_KEY": minio.secret_key,
        "AWS_CA_BUNDLE": minio.ca_bundle,
    }
    run(
        tmp_path,
        "configurations",
        backend,
        DJANGO_SETTINGS_MODULE="example_settings",
        DJANGO_CONFIGURATION=configuration,
        PYTHONPATH=str(tmp_path),
        **(s3 if backend == "s3" else {}),
    )


def policy():
    ((_, text),) = (block for block in blocks(ROOT / "docs/settings.md", "json") if block[0] == "policy")
    return json.loads(text)


def without(action):
    found = policy()
    for statement in found["Statement"]:
        statement["Action"] = [name for name in statement["Action"] if name != action]
    return found


@contextlib.contextmanager
def under(policy, endpoint):
    """Settings for credentials that may do what a policy says, with the prefixes of the page."""
    options = {
        "service_name": "sts",
        "endpoint_url": endpoint.url,
        "aws_access_key_id": endpoint.access_key,
        "aws_secret_access_key": endpoint.secret_key,
        "region_name": endpoint.region,
        "verify": endpoint.ca_bundle,
    }
    with contextlib.closing(boto3.client(**options)) as sts:
        text = json.dumps(policy).replace(":::uploads", f":::{endpoint.bucket}")
        arn = "arn:aws:iam::000000000000:role/any"
        given = sts.assume_role(RoleArn=arn, RoleSessionName="session", Policy=text)["Credentials"]
    with override_settings(
        STORAGE_BACKEND="s3",
        AWS_STORAGE_BUCKET_NAME=endpoint.bucket,
        AWS_S3_ENDPOINT_URL=endpoint.url,
        AWS_S3_VERIFY=endpoint.ca_bundle,
        AWS_ACCESS_KEY_ID=given["AccessKeyId"],
        AWS_SECRET_ACCESS_KEY=given["SecretAccessKey"],
        AWS_SESSION_TOKEN=given["SessionToken"],
    ):
        yield


def fine(report):
    return {(finding.name, finding.area) for finding in report.findings if finding.ok}


def test_the_policy_suffices(minio):
    with under(policy(), minio):
        report = doctor.examine()
    assert report.ok and not [finding for finding in report.findings if finding.ok is False], report


def sweeps_an_upload(endpoint):
    """Whether a sweep under the settings removes an upload that another client has begun."""
    adapter = get_storage_adapter()
    with endpoint.client() as client:
        where = {"Bucket": endpoint.bucket, "Key": f"temp/{uuid.uuid4()}/00001"}
        where["UploadId"] = client.create_multipart_upload(**where)["UploadId"]
        try:
            report = adapter.sweep(timedelta())
            return report.uploads == 1 and not report.unseen
        finally:
            with contextlib.suppress(client.exceptions.NoSuchUpload):
                client.abort_multipart_upload(**where)


def test_the_policy_suffices_for_a_sweep(minio):
    with under(policy(), minio):
        assert sweeps_an_upload(minio)
    for action in ("ListBucketMultipartUploads", "ListMultipartUploadParts"):
        with under(without(f"s3:{action}"), minio):
            assert not sweeps_an_upload(minio)
    with under(without("s3:AbortMultipartUpload"), minio), pytest.raises(StoragePermissionError):
        sweeps_an_upload(minio)


# MinIO lists uploads by their full key only, so that the doctor cannot tell of this one there.
UNTOLD = {"s3:ListBucketMultipartUploads"}


@pytest.mark.parametrize("action", sorted({a for one in policy()["Statement"] for a in one["Action"]} - UNTOLD))
def test_the_policy_has_nothing_needless(minio, action):
    with under(policy(), minio):
        before = fine(doctor.examine())
    with under(without(action), minio):
        after = fine(doctor.examine())
    assert before - after, action


def test_the_lifecycle_rules_are_well_formed(minio):
    ((_, text),) = (block for block in blocks(ROOT / "docs/settings.md", "json") if block[0] == "lifecycle")
    with minio.client() as client:
        shape = client.meta.service_model.operation_model("PutBucketLifecycleConfiguration").input_shape
    problems = ParamValidator().validate({"Bucket": "b", "LifecycleConfiguration": json.loads(text)}, shape)
    assert not problems.has_errors(), problems.generate_report()


def test_the_tables_of_settings_are_those_of_the_code():
    page = settings_table.PAGE.read_text(encoding="utf-8")
    assert settings_table.written(page) == page, "run `make settings-tables`"


@pytest.mark.parametrize("kind", settings_table.ADAPTERS)
def test_every_option_is_in_the_table(kind):
    """Once, in the order of the constructor, with a flat name that no other option has."""
    options = OPTIONS[kind]
    assert {option.name for option in options} == set(inspect.signature(settings_table.ADAPTERS[kind]).parameters)
    assert len(conf.FLAT[kind]) == len(options) and all(option.flat and option.meaning for option in options)


@pytest.mark.parametrize(
    ("module", "name"), [("checks.py", r"storage\.[EW]\d+"), ("tus/checks.py", r"storage\.tus\.[EW]\d+")]
)
def test_every_check_is_described(module, name):
    source = Path(inspect.getsourcefile(checks)).parent.joinpath(module).read_text(encoding="utf-8")
    page = settings_table.PAGE.read_text(encoding="utf-8")
    described = re.findall(rf"^\| `({name})` \|", page, re.MULTILINE)
    assert described == sorted(set(re.findall(f'"({name})"', source)))


def test_every_finding_is_described(minio, tmp_path):
    text = (ROOT / "docs/doctor.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ((?:`\w+`,? ?)+)\|[^|\n]*\|[^|\n]*\|$", text, re.MULTILINE)
    fields = {f.name for f in dataclasses.fields(doctor.Finding)} | {"version", "alias", "backend", "level"}
    described = {name for row in rows for name in re.findall(r"\w+", row)} - fields - {"options", "findings"}
    with under(policy(), minio):
        found = {finding.name for finding in doctor.examine().findings}
    with override_settings(STORAGE_TEMP_DIR=tmp_path / "a", STORAGE_FINAL_DIR=tmp_path / "b"):
        found |= {finding.name for finding in doctor.examine().findings}
    assert described == found


# ---- what runs in the new process


def code(document):
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    names = {}
    for kind, text in blocks(document):
        if not kind:
            exec(compile(text, str(document), "exec"), names)
    if "finalize_session" in names:
        use_services(names)
    if "authenticated" in names:
        use_tokens(names)


def use_services(names):
    """The README's functions do what its text says."""
    import io

    from portal import services

    from storage import ContentMismatch, ObjectExists, get_storage_adapter

    data = os.urandom(2_500_000)
    session = services.start_session("a.bin", len(data), chunk_size=1_000_000)
    pieces = {n: data[(n - 1) * 1_000_000 : n * 1_000_000] for n in (1, 2, 3)}
    for number in (3, 1, 2, 1):
        names["upload_chunk"](session, number, io.BytesIO(pieces[number]))
    for wrong, error in ((b"x" * 1_000_000, ObjectExists), (b"short", ContentMismatch)):
        try:
            names["upload_chunk"](session, 1, io.BytesIO(wrong))
        except error:
            continue
        raise AssertionError(f"no {error.__name__}")
    file = names["finalize_session"](session)
    assert file.sha256 == hashlib.sha256(data).hexdigest()
    with get_storage_adapter().get_final_stream(file.storage_bucket, file.storage_key) as stream:
        assert stream.read() == data
    assert get_storage_adapter().list_temp_parts(session.pk) == []


def use_tokens(names):
    """The middleware of docs/tus.md knows a user by the credentials of a request."""
    import base64

    from django.contrib.auth.models import AnonymousUser, User

    User.objects.create_user("ann", password="secret")
    for credentials, expected in (("ann:secret", "ann"), ("", ""), ("ann:wrong", 401)):
        request = RequestFactory().get("/")
        request.user = AnonymousUser()
        if credentials:
            request.META["HTTP_AUTHORIZATION"] = f"Basic {base64.b64encode(credentials.encode()).decode()}"
        answer = names["authenticated"](lambda request: request.user.username)(request)
        assert getattr(answer, "status_code", answer) == expected


def asgi(module):
    """The application of a module answers a request for its uploads. The module is the first that needs Django."""
    import asyncio
    import importlib

    from asgiref.testing import ApplicationCommunicator

    application = importlib.import_module(str(module)).application
    headers = [(b"host", b"testserver"), (b"tus-resumable", b"1.0.0"), (b"upload-length", b"1")]
    scope = {"type": "http", "method": "POST", "path": "/files/", "query_string": b"", "headers": headers}

    async def answer():
        asked = ApplicationCommunicator(application, scope)
        await asked.send_input({"type": "http.request"})
        return await asked.receive_output(30)

    assert asyncio.run(answer())["status"] == 403


def settings(document):
    import django
    from django.conf import settings
    from django.core.checks import run_checks
    from django.test import override_settings

    base = Path.cwd()
    settings.configure(BASE_DIR=base, INSTALLED_APPS=["storage"])
    django.setup()
    from storage import get_storage_adapter

    count = 0
    for kind, text in blocks(document):
        if kind in ("settings", "s3"):
            names = {"BASE_DIR": base}
            exec(compile(text, str(document), "exec"), names)
            names = {k: v for k, v in names.items() if k.isupper()}
            with override_settings(**names):
                problems = [problem for problem in run_checks() if not problem.is_silenced()]
                assert not problems, problems
            if kind == "s3":
                names = on_the_test_server(names)
            with override_settings(**names):
                for alias in names.get("STORAGE_ADAPTERS", ["default"]):
                    adapter = get_storage_adapter(alias)
                    adapter.check_health()
                    bucket, key = adapter.put_final("a", b"b")
                    with adapter.get_final_stream(bucket, key) as stream:
                        assert stream.read() == b"b"
            count += 1
    assert count


def on_the_test_server(names):
    """The settings of an example, for a server that is there."""
    endpoint = json.loads(os.environ["TEST_ENDPOINT"])
    here = {
        "AWS_STORAGE_BUCKET_NAME": endpoint["bucket"],
        "AWS_S3_ENDPOINT_URL": endpoint["url"],
        "AWS_S3_REGION_NAME": endpoint["region"],
        "AWS_ACCESS_KEY_ID": endpoint["access_key"],
        "AWS_SECRET_ACCESS_KEY": endpoint["secret_key"],
        "AWS_S3_VERIFY": endpoint["ca_bundle"],
    }
    if "STORAGE_ADAPTERS" not in names:
        return names | here
    options = {conf.FLAT["s3"][name]: value for name, value in here.items()}
    for entry in names["STORAGE_ADAPTERS"].values():
        entry["OPTIONS"].update(options, ca_bundle=endpoint["ca_bundle"])
    return names


def configurations(backend):
    import configurations

    configurations.setup()
    from storage import get_storage_adapter

    adapter = get_storage_adapter()
    adapter.check_health()
    assert adapter.backend == str(backend)
    assert (Path.cwd() / "objects").is_dir() == (adapter.backend == "local")


if __name__ == "__main__":
    kind, *arguments = sys.argv[1:]
    kinds = {"code": code, "settings": settings, "configurations": configurations, "asgi": asgi}
    kinds[kind](*map(Path, arguments))
