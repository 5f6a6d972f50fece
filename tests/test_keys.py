"""One validator: Python's and Go's give the same verdict on every string."""

import pytest
from conftest import CONTRACT
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from storage import InvalidKey, native
from storage.arguments import check_key

SETTINGS = settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SEGMENTS = st.one_of(
    st.sampled_from(["", ".", "..", "...", "a", " ", "\\", "\x00", "\x7f", "\x85", "\u00a0", "é"]),
    st.text(max_size=8),
    st.builds(
        lambda c, n: c * n,
        st.sampled_from("aé€\U0001f600"),
        st.sampled_from([63, 64, 85, 127, 255, 256]),
    ),
)
KEYS = st.one_of(
    st.text(st.characters(codec=None)),
    st.text("./\\\x00\x1f a\x9f\u2028\ud800"),
    st.lists(SEGMENTS, max_size=8).map("/".join),
    st.builds(lambda c, n: "/".join(c * n), st.sampled_from("aé€"), st.integers(225, 260)),
    st.builds(lambda c, n: "/".join([c * 75] * 3)[:n], st.sampled_from("aé€"), st.integers(1, 230)),
)


def python_takes(key):
    try:
        check_key(key)
    except InvalidKey:
        return False
    return True


def go_takes(key):
    try:
        native.check_key(key)
    except ValueError:  # InvalidKey, or what cannot be told to Go at all
        return False
    return True


@SETTINGS
@given(KEYS)
@example("a" * 500)
@example("/".join(["a"] * 251))
@example("\u20ac" * 85 + "/" + "\u20ac" * 85)
def test_python_and_go_agree(key):
    assert python_takes(key) == go_takes(key)


@pytest.mark.parametrize("kind", ["legal", "illegal"])
def test_shared_list(kind):
    for key in CONTRACT[f"{kind}_keys"]:
        assert python_takes(key) == go_takes(key) == (kind == "legal"), ascii(key)


def test_every_character():
    """The two Unicode tables agree on what a control character is."""
    for point in range(0x110000):
        if not 0xD800 <= point < 0xE000 and (point < 0x3000 or point % 97 == 0):
            assert python_takes(chr(point)) == go_takes(chr(point)), hex(point)
