"""Tables: columns, repeated rows, pages."""

import re
from collections import Counter
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimetic.tables import NONE, Table

NAMES = st.builds(
    ".".join, st.lists(st.sampled_from(["a", "0", "1", "2", "10", "b3", "conv1", "07"]), min_size=1)
)


def table(*rows: tuple[str, ...], **options: tuple[str, ...]) -> Table:
    """Return a table of these rows."""
    return Table("title", tuple(["name", "b", "c", "d"][: len(rows[0])]), rows, **options)


def expanded(name: str) -> list[str]:
    """Return the names that a collapsed one stands for."""
    name = re.sub(r" ×\d+$", "", name)
    plain, braces = re.split(r"\{[^}]*\}", name), re.findall(r"\{([^}]*)\}", name)
    choices = []
    for brace in braces:
        numbers = []
        for part in brace.split(","):
            first, dots, last = part.partition("..")
            numbers += map(str, range(int(first), int(last) + 1)) if dots else [part]
        choices.append(numbers)
    return ["".join(sum(zip(plain, (*chosen, ""), strict=True), ())) for chosen in product(*choices)]


@given(st.lists(st.tuples(NAMES, st.sampled_from("xy")), max_size=12))
def test_no_name_is_lost_by_collapsing(rows: list[tuple[str, str]]) -> None:
    """Each name is in one row, with its own cells; the counts are those of the names."""
    found = Table("", ("name", "value"), tuple(rows)).collapsed().rows
    assert Counter((name, cell) for row, cell in found for name in expanded(row)) == Counter(rows)
    for row, _ in found:
        assert len(expanded(row)) == int(row.partition(" ×")[2] or 1)


@pytest.mark.parametrize(
    ("names", "collapsed"),
    [
        ([f"blocks.{i}.attn.qkv.weight" for i in range(12)], "blocks.{0..11}.attn.qkv.weight ×12"),
        ([f"layers.{i}.{j}.w" for i in range(4) for j in range(2)], "layers.{0..3}.{0,1}.w ×8"),
        (
            [f"encoder_layer_{i}.ln_{j}" for i in (0, 1, 2, 4) for j in (1, 2)],
            "encoder_layer_{0..2,4}.ln_{1,2} ×8",
        ),
        (["a.01", "a.1"], "a.{01,1} ×2"),
        (["head.weight"], "head.weight"),
    ],
)
def test_how_repeated_rows_are_written(names: list[str], collapsed: str) -> None:
    """Ranges of three numbers or more have dots; the row is where the first of them was."""
    rows = table(("first", "x"), *((name, "x") for name in names), ("last", "x")).collapsed().rows
    assert rows == (("first", "x"), (collapsed, "x"), ("last", "x"))


def test_rows_that_differ_stay() -> None:
    """In any cell, also of a column that is left out later."""
    rows = (("blocks.0.w", "1", "2"), ("blocks.1.w", "1", "3"))
    assert table(*rows).collapsed().rows == rows


def test_columns_that_go_first() -> None:
    """Optional ones in their order, empty ones always; all stay if it does not help."""
    full = table(("name", "bb", "cccc", NONE), ("x", "b", "c", ""), optional=("d", "c", "b"))
    assert full.without_empty().header == ("name", "b", "c")
    assert full.fitted(full.width - 1).header == ("name", "b", "c")
    assert full.fitted(9).header == ("name", "b")
    assert full.fitted(3) == full


def test_a_page_shows_text_as_it_is_written() -> None:
    """No cell, title or note is markup, and control characters are escapes."""
    foreign = "<script>alert('1')</script>\x1b\u202e"
    page = Table(foreign, (foreign,), ((foreign,),), (foreign,)).page()
    assert "<script" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert page.count("&lt;script&gt;alert(&#x27;1&#x27;)&lt;/script&gt;") == 4
