"""The doctor: what it finds on stores that work and on stores that do not, and that it leaves nothing there."""

import contextlib
import dataclasses
import datetime
import email.utils
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid

import pytest
from conftest import make_s3
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import override_settings
from servers import lying
from servers.careless import Careless

from storage import MemoryStorageAdapter, StoragePermissionError, doctor
from storage.options import OPTIONS, PROCESS

S3 = {
    "credentials", "bucket", "clock", "latency", "description", "range", "conditional_put", "conditional_complete",
    "altered_put", "altered_part", "whole_checksum", "copy_part", "abort", "delete_batch", "versions",
    "unfinished_uploads",
}  # fmt: skip
LOCAL = {"permissions", "free_space", "sync", "nameless_files", "attributes", "hard_links"}
PROMISES = {"settings", "put", "list", "assemble", "read", "overwrite", "large_put", "delete"}


def s3(endpoint, **options):
    """Settings for an endpoint, with a folder that nobody else has, and that folder."""
    folder = f"doctor/{uuid.uuid4().hex}/"
    given = {
        "bucket_name": endpoint.bucket,
        "access_key": endpoint.access_key,
        "secret_key": endpoint.secret_key,
        "region_name": endpoint.region,
        "endpoint_url": endpoint.url,
        "ca_bundle": endpoint.ca_bundle,
        "temp_prefix": f"{folder}temp",
        "final_prefix": f"{folder}final",
        "part_size": 5 * 1024 * 1024,
        "connect_timeout": 5,
        "max_attempts": 2,
    }
    return {"STORAGE_ADAPTERS": {"default": {"BACKEND": "s3", "OPTIONS": given | options}}}, folder


def examine(settings):
    with override_settings(**settings):
        return doctor.examine()


def levels(report):
    """The worst level of each finding by its name."""
    order = ("ok", "unknown", "warning", "failed")
    found = {}
    for finding in report.findings:
        found[finding.name] = max(found.get(finding.name, "ok"), finding.level, key=order.index)
    return found


def bad(report):
    """What is neither fine nor unknown."""
    return {name: level for name, level in levels(report).items() if level in ("warning", "failed")}


def left(endpoint, folder):
    """Objects and uploads below a folder."""
    with endpoint.client() as client:
        objects = client.list_objects_v2(Bucket=endpoint.bucket, Prefix=folder).get("Contents", [])
        uploads = client.list_multipart_uploads(Bucket=endpoint.bucket).get("Uploads", [])
    return [one["Key"] for one in objects + uploads if one["Key"].startswith(folder)]


def shown(settings, *arguments):
    """What the command prints, and its exit status."""
    out, status = io.StringIO(), 0
    with override_settings(**settings):
        try:
            call_command("storage_doctor", *arguments, stdout=out, no_color=True)
        except CommandError as error:
            status = error.returncode
            out.write(str(error))
    return out.getvalue(), status


# ---- stores that work


def test_s3(store):
    settings, folder = s3(store)
    report = examine(settings)
    assert report.ok and not bad(report), report
    assert {f.name for f in report.findings} == S3 | PROMISES | {"reach", "clean"}
    assert {(f.name, f.area) for f in report.findings if f.name in S3} == {
        (n, a) for n in S3 for a in ("temp", "final")
    }
    values = {f.name: f.value for f in report.findings if f.value is not None}
    assert values.keys() <= {"clock", "latency", "unfinished_uploads"}
    assert abs(values["clock"]) <= 1 and 0 < values["latency"] < 1
    assert left(store, folder) == []


def test_nothing_is_left_where_a_listing_lies():
    """What was made is known, too."""
    with lying.Lying(lying.same_token()) as server:
        settings, _ = s3(server.endpoint)
        assert not examine(settings).ok
        assert not server.objects and not server.uploads


def test_local(tmp_path):
    report = examine({"STORAGE_TEMP_DIR": tmp_path / "a", "STORAGE_FINAL_DIR": tmp_path / "b"})
    assert report.ok, report
    assert {f.name for f in report.findings} == LOCAL | PROMISES | {"reach", "one_file_system", "clean"}
    assert set(bad(report)) <= {"attributes", "free_space", "nameless_files"}  # what a test machine may lack
    free = {f.value for f in report.findings if f.name == "free_space"}
    assert all(0 < value < 2**60 for value in free)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_memory():
    report = examine({"STORAGE_BACKEND": "memory"})
    assert set(levels(report).values()) == {"ok"}
    assert {f.name for f in report.findings} == PROMISES | {"clean"}


def test_a_large_part_size_is_not_tried(versitygw):
    settings, _ = s3(versitygw, part_size=65 * 1024 * 1024)
    assert levels(examine(settings))["large_put"] == "unknown"


# ---- stores that do not


def at(seconds):
    """Answers of a clock that is so far ahead."""
    ahead = datetime.timedelta(seconds=seconds)
    return {"Date": lambda: email.utils.format_datetime(datetime.datetime.now(datetime.UTC) + ahead, usegmt=True)}


def forgotten(body):
    """A list of uploads with one that began long ago."""
    upload = rb"<Upload><Key>x</Key><UploadId>1</UploadId><Initiated>2020-01-01T00:00:00.000Z</Initiated></Upload>"
    return re.sub(rb"(?=</ListMultipartUploadsResult>)", upload, body)


def nothing_listed(body):
    return re.sub(rb"<Contents>.*</Contents>", b"", body)


# What a server does not do, and what is then found besides what is fine.
CARELESS = {
    "conditions": (
        {"ignores": ["If-None-Match"]},
        {"conditional_put": "failed", "conditional_complete": "failed", "overwrite": "failed"},
    ),
    "signed bodies": ({"unverified": True}, {"altered_put": "failed"}),
    "checksums of parts": (
        {"ignores": ["X-Amz-Checksum-Crc64nvme"], "unverified": True},
        {"altered_put": "failed", "altered_part": "failed"},
    ),
    "ranges": ({"ignores": ["Range"]}, {"range": "failed"}),
    "conditions of copies": ({"ignores": ["X-Amz-Copy-Source-If-Match"]}, {"copy_part": "warning"}),
    "lists": ({"changed": nothing_listed}, {"list": "failed", "assemble": "failed", "delete": "failed"}),
    "sweeping": ({"changed": forgotten}, {"unfinished_uploads": "warning"}),
    "the region": ({"answers": {"X-Amz-Bucket-Region": "eu-south-9"}}, {"bucket": "warning"}),
    "the time, ahead": ({"answers": at(100)}, {"clock": "warning"}),
    "the time, behind": ({"answers": at(-100)}, {"clock": "warning"}),
    "the day": ({"answers": at(10_000)}, {"clock": "failed"}),
}


@pytest.mark.parametrize("name", CARELESS)
def test_careless_servers(versitygw, name):
    behaviour, expected = CARELESS[name]
    with Careless(versitygw, **behaviour) as careless:
        settings, folder = s3(careless.endpoint)
        report = examine(settings)
    assert bad(report) == expected, report
    assert report.ok == ("failed" not in expected.values())
    advised = {f.name for f in report.findings if f.advice}
    assert expected.keys() - {"assemble", "delete"} <= advised
    if name != "lists":  # where nothing is listed nothing is found to be taken away
        assert left(versitygw, folder) == []


def test_a_careful_front_changes_nothing(versitygw):
    """The front itself is not what the tests above find."""
    with Careless(versitygw) as careless:
        assert bad(examine(s3(careless.endpoint)[0])) == {}


# Faults of the proxy, and what is then found.
FAULTS = {
    "no copies": ([("no_copy",)], {"copy_part": "warning"}),
    "no uploads": (
        [("status", "CreateMultipartUpload", 501)],
        dict.fromkeys(("conditional_complete", "altered_part", "abort", "large_put"), "failed")
        | dict.fromkeys(("whole_checksum", "copy_part"), "warning"),
    ),
    "no abort": ([("status", "AbortMultipartUpload", 403)], {"abort": "failed"}),
    "no lists": (
        [("status", "ListObjectsV2", 403)],
        dict.fromkeys(("list", "assemble", "delete", "clean"), "failed"),
    ),
    "no conditions": (
        [("status", "CompleteMultipartUpload", 501, 0, 1)],
        {"conditional_complete": "failed"},
    ),
    "no batches": ([("status", "DeleteObjects", 501)], {"delete_batch": "warning"}),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faulty_servers(faults, versitygw, name):
    rules, expected = FAULTS[name]
    settings, folder = s3(faults.endpoint)
    with contextlib.ExitStack() as stack:
        for fault, operation, status, skip, times in ((*rule, *("", 0, 0, 0)[len(rule) - 1 :]) for rule in rules):
            stack.enter_context(faults.rule(fault, operation, status=status, skip=skip, times=times))
        report = examine(settings)
    assert bad(report) == expected, report
    with versitygw.client() as client:
        for upload in client.list_multipart_uploads(Bucket=versitygw.bucket).get("Uploads", []):
            if upload["Key"].startswith(folder):
                client.abort_multipart_upload(Bucket=versitygw.bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        for key in left(versitygw, folder):
            client.delete_object(Bucket=versitygw.bucket, Key=key)


def test_no_checksums(faults, versitygw):
    """The signature covers what no checksum does."""
    settings, folder = s3(faults.endpoint)
    with faults.rule("no_checksums"):
        report = examine(settings)
    assert bad(report) == {"whole_checksum": "warning"}, report
    assert "signature" in next(f.detail for f in report.findings if f.name == "altered_part")
    assert left(versitygw, folder) == []


def test_versions(versitygw):
    bucket = f"versions-{uuid.uuid4().hex[:8]}"
    with versitygw.client() as client:
        client.create_bucket(Bucket=bucket)
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    report = examine(s3(dataclasses.replace(versitygw, bucket=bucket))[0])
    assert bad(report) == {"versions": "warning"}


# Options, and words that say what is wrong.
UNUSABLE = {
    "secret": ({"secret_key": "w" * 32}, ["secret_key"]),
    "access key": ({"access_key": "nobodynobody"}, ["403 InvalidAccessKeyId", "access_key is not known"]),
    "bucket": ({"bucket_name": "nowhere"}, ["NoSuchBucket", "bucket_name"]),
    "nobody there": ({"endpoint_url": "http://127.0.0.1:9"}, ["connection refused"]),
    "http": ({"endpoint_url": "http://{address}"}, ["http or https"]),
    "no trust": ({"ca_bundle": "", "verify": True}, ["certificate", "ca_bundle"]),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_unusable(minio, name, monkeypatch):
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    options, words = UNUSABLE[name]
    address = minio.url.partition("://")[2]
    options = {k: v.format(address=address) if isinstance(v, str) else v for k, v in options.items()}
    started = time.monotonic()
    text, status = shown(s3(minio, **options)[0])
    assert status == 1 and time.monotonic() - started < 10
    assert "failed" in text and not [word for word in words if word not in text], text
    assert minio.secret_key not in text and minio.access_key not in text
    report = examine(s3(minio, **options)[0])
    assert levels(report)["reach"] == "failed" and "put" not in levels(report)


def test_an_unknown_access_key_is_no_missing_object(versitygw):
    """versitygw says so with 404."""
    report = examine(s3(versitygw, access_key="nobodynobody")[0])
    assert "access_key is not known" in report.findings[-1].detail
    with pytest.raises(StoragePermissionError):
        make_s3(versitygw, access_key="nobodynobody").put_final("a", b"")


def test_no_credentials(versitygw, monkeypatch):
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", "/nowhere")
    nobody = dataclasses.replace(versitygw, access_key="", secret_key="")
    report = examine(s3(nobody)[0])
    assert bad(report) == {"credentials": "failed", "bucket": "warning", "reach": "failed"}
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", versitygw.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", versitygw.secret_key)
    report = examine(s3(nobody)[0])
    assert report.ok
    assert "EnvConfigCredentials" in next(f.detail for f in report.findings if f.name == "credentials")


def test_all_from_the_environment(minio, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", minio.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", minio.secret_key)
    monkeypatch.setenv("AWS_CA_BUNDLE", minio.ca_bundle)
    assert examine(s3(dataclasses.replace(minio, access_key="", secret_key="", ca_bundle=""))[0]).ok


@pytest.mark.parametrize("directory", ["/proc/nowhere", "/dev/null/x"])
def test_a_directory_that_cannot_be(tmp_path, directory):
    report = examine({"STORAGE_TEMP_DIR": directory, "STORAGE_FINAL_DIR": tmp_path})
    assert bad(report) == {"reach": "failed"}
    reach = report.findings[-1]
    assert reach.area == "temp" and directory not in reach.detail


# A file system, and what is then found.
FILE_SYSTEMS = {
    "tmpfs": (("-t", "tmpfs", "-o", "size=100m", "none"), {"free_space"}, "tmpfs"),
    "ramfs": (("-t", "ramfs", "none"), {"free_space", "attributes"}, "no extended attributes"),
}


@pytest.mark.parametrize("name", FILE_SYSTEMS)
def test_file_systems(mount, tmp_path, name):
    arguments, expected, word = FILE_SYSTEMS[name]
    root = mount(*arguments)
    report = examine({"STORAGE_TEMP_DIR": root, "STORAGE_FINAL_DIR": tmp_path / "final"})
    found = {f.name for f in report.findings if f.level == "warning" and f.area == "temp"}
    assert report.ok and expected <= found <= expected | {"nameless_files", "permissions"}, report
    assert any(word in f.detail for f in report.findings)
    assert levels(report)["one_file_system"] == "unknown"


class Forgetful(MemoryStorageAdapter):
    """Overwrites what it should not, lists nothing, and has an option that is nobody's business."""

    def __init__(self, *, api_token="", colour="red", auth=None):
        super().__init__()

    def put_final(self, file_id, stream, *, overwrite=True, **options):
        return super().put_final(file_id, stream, **options)

    def list_temp_parts(self, session_id):
        return []


def test_a_wrong_adapter():
    options = {"api_token": "s3cr3t", "auth": {"password": "s3cr3t"}}
    settings = {"STORAGE_ADAPTERS": {"default": {"BACKEND": f"{__name__}.Forgetful", "OPTIONS": options}}}
    report = examine(settings)
    assert bad(report) == dict.fromkeys(("list", "assemble", "overwrite"), "failed")
    assert "s3cr3t" not in json.dumps(report.as_dict())
    assert ("colour", "red", "default") in {dataclasses.astuple(option) for option in report.options}


# ---- what is shown


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"STORAGE_BACKEND": "lokal"}, ["STORAGE_BACKEND", "'local'"]),
        ({"STORAGE_ADAPTERS": {"other": {"BACKEND": "memory"}}}, ["'default'", "'other'"]),
        ({"STORAGE_BACKEND": "s3"}, ["AWS_STORAGE_BUCKET_NAME"]),
        ({"STORAGE_BACKEND": "no.such.Adapter"}, ["no.such.Adapter"]),
    ],
)
def test_wrong_settings(settings, words):
    text, status = shown(settings)
    assert status == 1 and not [word for word in words if word not in text], text
    text, status = shown(settings, "--json")
    report = json.loads(text[: text.rindex("}") + 1])
    assert status == 1 and [f["name"] for f in report["findings"]] == ["settings"] and not report["ok"]


def test_an_alias(tmp_path):
    text, status = shown({"STORAGE_ADAPTERS": {"scratch": {"BACKEND": "memory"}}}, "scratch")
    assert status == 0 and text.startswith("scratch: storage.MemoryStorageAdapter")


def test_json(versitygw):
    text, status = shown(s3(versitygw)[0], "--json")
    report = json.loads(text)
    assert status == 0
    assert {key: type(value) for key, value in report.items()} == {
        "version": int, "alias": str, "backend": str, "ok": bool, "options": list, "findings": list,
    }  # fmt: skip
    for option in report["options"]:
        assert {key: type(value) for key, value in option.items()} == dict.fromkeys(("name", "value", "source"), str)
    for finding in report["findings"]:
        kinds = {
            "name": str, "ok": bool | None, "required": bool, "seconds": float | int, "detail": str, "advice": str,
            "area": str, "value": float | int | None, "level": str,
        }  # fmt: skip
        assert finding.keys() == kinds.keys()
        assert all(isinstance(finding[key], kind) for key, kind in kinds.items()), finding
        assert finding["area"] in ("", "temp", "final")
        assert finding["level"] in ("ok", "warning", "failed", "unknown")


def test_the_table(versitygw):
    text, status = shown(s3(versitygw)[0])
    assert status == 0
    assert re.search(
        r"^  access_key +\*{4}" + versitygw.access_key[-4:] + r" +STORAGE_ADAPTERS\['default'\]$", text, re.M
    )
    assert re.search(r"^  secret_key +\*{4} +STORAGE", text, re.M)
    assert re.search(r"^  read_timeout +30 +default$", text, re.M)
    assert re.search(r"^  ok +conditional_complete +both +\d+ ms  an object that is there", text, re.M)
    assert re.search(r"^  ok +put +\d+ ms", text, re.M)


def test_options_of_flat_settings(monkeypatch):
    monkeypatch.setenv("AWS_CA_BUNDLE", "/certificates.pem")
    settings = {
        "STORAGE_BACKEND": "s3",
        "AWS_STORAGE_BUCKET_NAME": "b",
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE0WXYZ",
        "AWS_SECRET_ACCESS_KEY": "s3cr3t",
        "AWS_SESSION_TOKEN": "s3cr3t",
    }
    with override_settings(**settings):
        entry = doctor.conf.entry_of("default")
        entry.options["proxy"] = "http://user:s3cr3t@proxy:3128"
        options = {option.name: (option.value, option.source) for option in doctor.options_of(entry)}
    assert options["bucket_name"] == ("b", "AWS_STORAGE_BUCKET_NAME")
    assert options["access_key"] == ("****WXYZ", "AWS_ACCESS_KEY_ID")
    assert options["secret_key"] == ("****", "AWS_SECRET_ACCESS_KEY")
    assert options["proxy"][0] == "http://****@proxy:3128"
    assert options["ca_bundle"] == ("/certificates.pem", "AWS_CA_BUNDLE in the environment")
    assert "s3cr3t" not in str(options)


def test_all_settings():
    """Each option once, with its flat setting; what is secret is nowhere."""
    secrets = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE0WXYZ", "AWS_SECRET_ACCESS_KEY": "s3cr3t"}
    flat = {"STORAGE_BACKEND": "s3", "AWS_STORAGE_BUCKET_NAME": "b", "STORAGE_PROXY": "http://u:s3cr3t@h:1", **secrets}
    text, status = shown(flat | {"STORAGE_MEMORY_BUDGET": 2**25}, "--settings")
    assert status == 0 and "s3cr3t" not in text and "AKID" not in text
    for options in (*OPTIONS["s3"], *PROCESS):
        assert len(re.findall(rf"^  {options.name or options.flat} ", text, re.M)) == 1
        assert re.search(rf"^ +{options.flat}\b", text, re.M)
    assert re.search(r"^  proxy +http://\*{4}@h:1 +STORAGE_PROXY$", text, re.M)
    assert re.search(
        r"^  read_timeout +30 +default\n +STORAGE_READ_TIMEOUT; default: 30; unit: seconds\n +time ", text, re.M
    )
    assert re.search(r"^  STORAGE_MEMORY_BUDGET +33554432 +STORAGE_MEMORY_BUDGET$", text, re.M)
    text, status = shown(flat, "default", "--settings", "--json")
    described = {option["name"]: option for option in json.loads(text)}
    assert status == 0 and "s3cr3t" not in text
    assert described["region_name"]["environment"] == "AWS_REGION, AWS_DEFAULT_REGION"
    text, status = shown({"STORAGE_BACKEND": "lokal"}, "--settings")
    assert status == 1 and "'local'" in text


def test_settings_of_a_project_s_own_adapter():
    text, status = shown({"STORAGE_BACKEND": f"{__name__}.Forgetful"}, "--settings")
    assert status == 0 and re.search(r"^  colour +red +default$", text, re.M)


# ---- from the shell


SETTINGS = """
INSTALLED_APPS = ["storage"]
SECRET_KEY = "x"
STORAGE_ADAPTERS = {!r}
"""


def start(tmp_path, settings, *arguments):
    (tmp_path / "doctored.py").write_text(SETTINGS.format(settings["STORAGE_ADAPTERS"]))
    return subprocess.Popen(
        [sys.executable, "-m", "django", "storage_doctor", *arguments],
        cwd=tmp_path,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "doctored", "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests may run where it is ignored
    )


def test_exit_status(versitygw, tmp_path):
    for options, expected in (({}, 0), ({"secret_key": "w" * 32}, 1)):
        process = start(tmp_path, s3(versitygw, **options)[0], "--json")
        out, err = process.communicate(timeout=60)
        assert process.returncode == expected, err
        assert json.loads(out)["ok"] == (expected == 0)
        assert versitygw.secret_key not in out + err


@pytest.mark.parametrize("arguments", [["--settings"], ["--settings", "doctored", "--settings"]])
def test_the_settings_from_the_shell(tmp_path, arguments):
    """Django's own --settings, which names a module, still works."""
    process = start(tmp_path, {"STORAGE_ADAPTERS": {"default": {"BACKEND": "memory"}}}, *arguments)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and re.search(r"^  bucket +memory +default$", out, re.M), out + err


# Each area is probed by 5 PutObject and 5 UploadPart; what comes then is of the adapter.
@pytest.mark.parametrize(
    ("operation", "skip"),
    [
        ("UploadPart", 0),
        ("CompleteMultipartUpload", 0),
        ("HeadObject", 3),
        ("PutObject", 8),
        ("PutObject", 12),
        ("UploadPart", 10),
    ],
)
def test_interrupted(faults, versitygw, tmp_path, operation, skip):
    """Ctrl-C takes away what was made, in the probes of the Go side and in what the adapter does."""
    settings, folder = s3(faults.endpoint)
    with faults.rule("delay", operation, skip=skip, seconds=30):
        process = start(tmp_path, settings)
        until = time.monotonic() + 30
        while len(faults.log(operation)) <= skip and time.monotonic() < until:
            time.sleep(0.02)
        assert left(versitygw, folder) or operation == "HeadObject"
        with faults.rule("delay", "AbortMultipartUpload", seconds=3):  # the undo takes longer than an exit waits
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
    assert process.returncode != 0 and "KeyboardInterrupt" in err, (out, err)
    assert versitygw.secret_key not in out + err
    assert left(versitygw, folder) == []
