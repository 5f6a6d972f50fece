"""Errors: the classes, what they say, and the form in which they cross from Go."""

import copy
import pickle
from urllib.parse import quote

import pytest
from django.core.exceptions import BadRequest, ImproperlyConfigured
from hypothesis import example, given, settings
from hypothesis import strategies as st

from storage import (
    ContentMismatch,
    ContentRejected,
    InvalidKey,
    ObjectExists,
    ObjectNotFound,
    StorageCancelled,
    StorageError,
    StorageFull,
    StoragePermissionError,
    StorageTimeout,
    StorageUnavailable,
)
from storage.exceptions import from_wire

KINDS = [
    (ObjectNotFound, FileNotFoundError, "not_found"),
    (ObjectExists, FileExistsError, "exists"),
    (InvalidKey, ValueError, "invalid_key"),
    (ContentMismatch, ValueError, "mismatch"),
    (StoragePermissionError, PermissionError, "permission"),
    (StorageFull, OSError, "full"),
    (StorageTimeout, TimeoutError, "timeout"),
    (StorageUnavailable, ConnectionError, "unavailable"),
    (StorageCancelled, StorageError, "cancelled"),
]


@pytest.mark.parametrize(("kind", "builtin", "code"), KINDS, ids=[code for *_, code in KINDS])
def test_each_kind(kind, builtin, code):
    error = from_wire(f"E1|{code}|put|a%7Cb%25|503|id-1|1|what%20failed")
    assert type(error) is kind and isinstance(error, builtin) and isinstance(error, StorageError)
    assert (error.code, error.op, error.key) == (code, "put", "a|b%")
    assert (error.status, error.request_id, error.retryable) == (503, "id-1", True)
    assert str(error) == "put 'a|b%': what failed"
    assert kind("x").code == code


def test_a_rejection():
    """It is raised by functions of others, and never comes from the Go side."""
    error = ContentRejected("a virus")
    assert isinstance(error, StorageError) and isinstance(error, BadRequest)
    assert (str(error), error.code, error.retryable) == ("a virus", "rejected", False)


@pytest.mark.parametrize("code", ["conflict", "bucket", "forked", "closed", "io", "source", "new"])
def test_other_codes_are_plain(code):
    error = from_wire(f"E1|{code}|||0||0|m")
    assert type(error) is StorageError and error.code == code and str(error) == "m"
    assert (error.status, error.request_id, error.retryable) == (None, None, False)


@pytest.mark.parametrize("text", ["", "panic: /srv/secret", "E2|a|b|c|0||0|m", "E1|a|b", "E1|" * 9, "E1|io|||x||0|m"])
def test_what_is_not_the_wire_form_is_not_repeated(text):
    error = from_wire(text)
    assert type(error) is StorageError and error.code == "internal"
    assert "secret" not in str(error) and "secret" not in repr(error)


FIELD = st.text() | st.from_regex(r"[0-9_+ -]{0,9}", fullmatch=True) | st.sampled_from([code for *_, code in KINDS])


@settings(deadline=None)
@given(st.text() | st.lists(FIELD, min_size=7, max_size=7).map(lambda fields: "|".join(["E1", *fields])))
@example(f"E1|io|||{'9' * 5000}||0|m")
def test_any_text_gives_an_exception(text):
    error = from_wire(text)
    assert isinstance(error, StorageError | ImproperlyConfigured)
    assert isinstance(str(error), str) and isinstance(repr(error), str)


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=4, max_size=4), st.integers(0, 999))
def test_every_field_crosses(texts, status):
    op, key, request_id, message = texts
    error = from_wire("|".join(["E1", "full", *map(quote, (op, key, str(status), request_id, "1", message))]))
    assert type(error) is StorageFull
    assert (error.op, error.key, error.request_id or "", error.message) == (op, key, request_id, message)
    assert (error.status or 0, error.retryable) == (status, True)


@pytest.mark.parametrize("kind", [StorageError, ContentRejected, *(kind for kind, *_ in KINDS)])
def test_pickled_and_copied(kind):
    """Celery and multiprocessing send them between processes."""
    error = kind("m", op="get", key="k", retryable=True, status=404, request_id="r")
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is kind and str(other) == str(error) == "get 'k': m"
        assert vars(other) == vars(error)
