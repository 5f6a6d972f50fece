"""Django's own tests of storages, file fields, uploads and static files, on an `AdapterStorage`.

They are not in Django's wheel: `make` takes them from its source distribution (tests/django.txt). EXCEPTIONS has those
that cannot pass, each with its reason. A test fails here if one of Django's fails that is not among them, and if one of
them passes.
"""

import json
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import django
import pytest
from conftest import FULL, s3_options

TESTS = Path(sys.prefix) / "django" / "tests"
SUITES = {
    "file_storage": 186,
    "file_uploads": 40,
    "model_fields.test_filefield model_fields.test_imagefield": 65,
    "staticfiles_tests.test_storage staticfiles_tests.test_management": 165,
}
"""The labels of Django's runner, and how many tests they name."""
STATIC = list(SUITES)[-1]

BACKENDS = {
    "memory": lambda request: ("MemoryStorageAdapter", {}),
    "local": lambda request: ("LocalStorageAdapter", local_options(request.getfixturevalue("tmp_path"))),
    "versitygw": lambda request: ("S3StorageAdapter", s3_options(request.getfixturevalue("versitygw"))),
}
EVERYWHERE = tuple(BACKENDS)
REMOTE = ("memory", "versitygw")

EXCEPTIONS = [
    (
        "looks at files on the disk, by their path in the folder of a FileSystemStorage",
        EVERYWHERE,
        "file_storage.tests.*.test_delete_deletes_directories",
        "file_storage.tests.*.test_file_methods_pathlib_path",
        "file_storage.tests.*.test_file_path",
        "file_storage.tests.*.test_file_save_broken_symlink",
        "file_storage.tests.*.test_file_save_with_path",
        "file_storage.tests.*.test_file_save_without_name",
        "file_storage.tests.*.test_file_storage_preserves_filename_case",
        "file_storage.tests.*.test_listdir",
        "file_storage.tests.OverwritingStorageTests.test_save_overwrite_behavior_temp_file",
        "file_storage.tests.FileSaveRaceConditionTest.test_race_condition",
        "file_storage.tests.FileStoragePathParsing.test_directory_with_dot",
        "file_storage.tests.FileStoragePathParsing.test_first_character_dot",
        "staticfiles_tests.test_storage.TestCollectionManifestStorage.test_clear_empties_manifest",
        "staticfiles_tests.test_storage.TestCollectionManifestStorage.test_intermediate_files",
        "staticfiles_tests.test_storage.TestCustomManifestStorage.test_read_manifest",
        "staticfiles_tests.test_storage.TestCustomManifestStorage.test_save_manifest_create",
        "staticfiles_tests.test_management.TestCollectionClear.test_dir_not_exists",
        "staticfiles_tests.test_management.TestCollectionClear.test_verbosity_[12]",
        "staticfiles_tests.test_management.TestCollectionNeverCopyStorage.test_skips_newer_files_in_remote_storage",
    ),
    (
        "asks for path()",
        REMOTE,
        "file_storage.tests.*.test_file_get_modified_time",
        "file_storage.tests.FileFieldStorageTests.test_file_object",
        "file_storage.tests.FileStoragePermissions.test_file_upload_*default_permissions",
        "file_uploads.tests.FileUploadTests.test_filename_case_preservation",
        "model_fields.test_imagefield.ImageFieldTests.test_delete_when_missing",
        "model_fields.test_imagefield.ImageFieldTests.test_instantiate_missing",
        "staticfiles_tests.test_management.TestFindStatic.test_all_files_more_verbose",
        "staticfiles_tests.test_storage.TestCollectionManifestStorage.test_manifest_exists",
    ),
    (
        "replaces os.open, os.makedirs, os.remove or open by what raises an error",
        EVERYWHERE,
        "file_storage.tests.*.test_makedirs_race_handling",
        "file_storage.tests.*.test_remove_race_handling",
        "staticfiles_tests.test_storage.TestCollectionManifestStorage.test_manifest_does_not_ignore_permission_error",
    ),
    (
        "is about options, settings and properties of a FileSystemStorage: location, permissions, deconstruct()",
        EVERYWHERE,
        "file_storage.test_inmemory_storage.InMemoryStorageTests.*",
        "file_storage.tests.*.test_base_url",
        "file_storage.tests.*.test_empty_location",
        "file_storage.tests.*.test_setting_changed",
        "file_storage.tests.FieldCallableFileStorageTests.test_callable_storage_file_field_in_model",
        "file_storage.tests.FileSystemStorageTests.test_deconstruction",
        "file_storage.tests.FileStoragePermissions.test_file_upload_directory_permissions",
        "file_storage.tests.FileStoragePermissions.test_file_upload_permissions",
        "file_uploads.tests.DirectoryCreationTests.test_not_a_directory",
        "file_uploads.tests.DirectoryCreationTests.test_readonly_root",
        "staticfiles_tests.test_storage.TestStaticFilePermissions.*",
        "staticfiles_tests.test_management.TestConfiguration.test_local_storage_detection_helper",
        "staticfiles_tests.test_management.TestConfiguration.test_location_empty",
    ),
    (
        "wants the time of creation or of the last access, which a store does not keep",
        EVERYWHERE,
        "file_storage.tests.*.test_file_get_accessed_time*",
        "file_storage.tests.*.test_file_get_created_time*",
        "file_storage.test_inmemory_storage.MemoryStorageTimesTests.test_file_accessed_time",
        "file_storage.test_inmemory_storage.MemoryStorageTimesTests.test_file_created_time",
    ),
    (
        "takes a folder for a thing of its own, with times and errors, that delete() removes with what is in it",
        EVERYWHERE,
        "file_storage.test_inmemory_storage.MemoryStorageIOTests.test_delete",
        "file_storage.test_inmemory_storage.MemoryStorageIOTests.test_file_node_cannot_have_children",
        "file_storage.test_inmemory_storage.MemoryStorageIOTests.test_open_dir_as_file",
        "file_storage.test_inmemory_storage.MemoryStorageTimesTests.test_directory_times_*",
    ),
    (
        "gets the URL of a name that begins with a slash: here it leaves the location",
        EVERYWHERE,
        "file_storage.tests.*.test_file_url",
    ),
    (
        "gives a tuple as a name, and wants a ValueError",
        EVERYWHERE,
        "file_storage.test_inmemory_storage.MemoryStorageIOTests.test_url",
    ),
    (
        "wants the temporary file of an upload to be moved away: here it stays the caller's",
        EVERYWHERE,
        "file_storage.test_inmemory_storage.MemoryStorageIOTests.test_removing_temporary_file_after_save",
        "model_fields.test_filefield.FileFieldTests.test_move_temporary_file",
    ),
    (
        "wants symbolic links, which no adapter follows",
        EVERYWHERE,
        "staticfiles_tests.test_management.TestCollectionLinks.test_[!n]*",
        "staticfiles_tests.test_management.TestCollectionLinks.test_nonascii_filenames",
    ),
    (
        "makes links first, before it looks what collectstatic says where it cannot",
        REMOTE,
        "staticfiles_tests.test_management.TestCollectionLinks.test_no_remote_link",
    ),
    (
        "wants collectstatic to know the folder, to name it and to ask nothing if it is empty: as a FileSystemStorage",
        EVERYWHERE,
        "staticfiles_tests.test_management.TestCollectionVerbosity.test_verbosity_[12]",
        "staticfiles_tests.test_management.TestInteractiveMessages.test_no_warning_*",
    ),
]

# Writes twice within a tenth of a second and compares the times: S3 tells them in seconds.
BY_CHANCE = {("versitygw", "file_storage.test_inmemory_storage.MemoryStorageTimesTests.test_file_modified_time")}


def local_options(folder):
    return {"temp_dir": str(folder / "temp"), "final_dir": str(folder / "final")}


in_full = pytest.mark.skipif(not FULL, reason="it stores thousands of files in a minute: make test-full")


@pytest.mark.skipif(django.VERSION < (6, 1), reason="the exceptions are those of the newest Django")
@pytest.mark.parametrize(
    ("backend", "labels"),
    [
        pytest.param(
            *(backend, labels),
            id=f"{backend}-{labels.partition('.')[0]}",
            marks=in_full if labels == STATIC and backend != "memory" else (),
        )
        for labels in SUITES
        for backend in BACKENDS
    ],
)
def test_django_s_own_tests(backend, labels, request, run):
    assert TESTS.is_dir(), "Django's own tests are not there: make installed"
    adapter, options = BACKENDS[backend](request)
    arguments = [TESTS, f"storage.{adapter}", json.dumps(options), *labels.split()]
    verdicts = run("django_tests", *arguments, timeout=300, stdin=subprocess.DEVNULL)
    assert len(verdicts) == SUITES[labels] and set(verdicts.values()) <= {"passed", "failed", "skipped"}
    failed = {name for name, verdict in verdicts.items() if verdict == "failed" and (backend, name) not in BY_CHANCE}
    listed = excepted(verdicts, backend)
    assert sorted(failed - listed) == [], "these fail"
    assert sorted(listed - failed) == [], "these pass, and are among EXCEPTIONS"


def excepted(names, backend):
    patterns = [pattern for _, where, *patterns in EXCEPTIONS if backend in where for pattern in patterns]
    return {name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)}
