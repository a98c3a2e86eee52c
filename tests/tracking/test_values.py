"""Values: flat, clean and of bounded length."""

from hypothesis import given
from hypothesis import strategies as st

from mimetic.printable import truncate
from mimetic.tracking.log import KEY_LIMIT, batches, clean_key, flatten


def test_nested_settings_become_dotted() -> None:
    """What is None or empty is left out."""
    nested = {"a": {"b": {"c": 1}, "d": None, "e": []}, "f": True, "g": ["x", 1]}

    assert flatten(nested) == {"a.b.c": "1", "f": "true", "g": '["x", 1]'}


@given(st.text())
def test_any_key_becomes_one_mlflow_takes(key: str) -> None:
    """Letters, digits and `_-. /`, of bounded length."""
    clean = clean_key(key)

    assert len(clean) == min(len(key), KEY_LIMIT)
    assert all(character.isascii() and (character.isalnum() or character in "_-. /") for character in clean)


@given(st.text(), st.integers(1, 50))
def test_cutting_bounds_the_length(text: str, limit: int) -> None:
    """Short texts stay as they are."""
    short = truncate(text, limit)

    assert len(short) <= limit
    assert (short == text) == (len(text) <= limit)


@given(st.lists(st.integers()), st.integers(1, 7))
def test_batches_hold_everything_in_order(items: list[int], size: int) -> None:
    """None is longer than the size."""
    parts = list(batches(items, size))

    assert [item for part in parts for item in part] == items
    assert all(0 < len(part) <= size for part in parts)
