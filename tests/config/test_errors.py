"""Marks, issues and how they are printed."""

import pickle

import pytest

from mimetic.config.errors import FilePosition, Issue, RecipeError, clipped, dotted
from mimetic.errors import UserError


def test_form() -> None:
    """An issue prints its place, path, message, line, caret and hint."""
    line = "        match: {layer: 'blocks', kind: depthwise}"
    mark = FilePosition("recipe.yaml", 41, line.index("depthwise") + 1, line)
    path = ("arms", "closed-form", "init", "filters", "match", "kind")
    issue = Issue("`depthwise` is not one of `conv`", path, mark, "did you mean `depthwise_conv`?")
    assert str(issue) == (
        "recipe.yaml:41:40: arms.closed-form.init.filters.match.kind: `depthwise` is not one of `conv`\n"
        "    41 |         match: {layer: 'blocks', kind: depthwise}\n"
        "       |                                        ^\n"
        "    hint: did you mean `depthwise_conv`?"
    )


def test_without_mark() -> None:
    """The issue of a mapping has its path and no place."""
    assert str(Issue("must be at least 1, found 0", ("seeds", 1))) == "seeds[1]: must be at least 1, found 0"


def test_sorted_and_counted() -> None:
    """Issues come by file, line and column; those without a place last; the count closes."""
    issues = [
        Issue("nowhere", ("x",)),
        Issue("second", (), FilePosition("a.yaml", 2, 7)),
        Issue("third", (), FilePosition("a.yaml", 10, 1)),
        Issue("first", (), FilePosition("a.yaml", 2, 3)),
    ]
    error = RecipeError(issues)
    assert [issue.message for issue in error.issues] == ["first", "second", "third", "nowhere"]
    assert str(error).endswith("\n\n4 errors")


def test_one_is_not_counted() -> None:
    """A single issue stands alone."""
    assert str(RecipeError([Issue("wrong")])) == "wrong"


def test_is_a_user_error() -> None:
    """The command line exits with 2 and no traceback."""
    error = RecipeError([Issue("wrong")])
    assert isinstance(error, UserError)
    assert error.exit_code == 2


def test_pickles() -> None:
    """An error crosses to another process whole."""
    error = RecipeError([Issue("wrong", ("a", 1), FilePosition("f", 1, 2, "text"), "hint")])
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301


def test_file_as_a_whole() -> None:
    """A mark of line 0 names the file alone."""
    assert (
        str(Issue("there is no such file", (), FilePosition("a.yaml", 0, 0)))
        == "a.yaml: there is no such file"
    )


def test_marks_compare_by_place() -> None:
    """The line's text is carried along, not compared."""
    assert FilePosition("a", 1, 2, "one") == FilePosition("a", 1, 2, "two")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("train", "epochs"), "train.epochs"),
        (("seeds", 2), "seeds[2]"),
        (("arms", "v1.2", "init"), "arms.v1.2.init"),
        (("arms", "a\nb"), "arms.'a\\nb'"),
        ((), ""),
    ],
)
def test_dotted(path: tuple[str | int, ...], text: str) -> None:
    """Paths read like `arms.small.seeds[2]`, and never carry control characters."""
    assert text == dotted(path)


def test_wide_characters() -> None:
    """The caret stands below its character where others take two columns or none."""
    line = "name: 漢字 e\u0301 x"
    rows = str(Issue("here", (), FilePosition("f", 1, line.index("x") + 1, line))).splitlines()
    assert rows[2].index("^") - rows[1].index("n") == len("name: ") + 4 + 1 + 1 + 1


def test_long_lines() -> None:
    """A long line is cut around the caret, which still points at its character."""
    line = "a" * 500 + "X" + "b" * 500
    rows = str(Issue("here", (), FilePosition("f", 1, 501, line))).splitlines()
    assert len(rows[1]) < 120
    assert rows[1][rows[2].index("^")] == "X"


def test_control_characters() -> None:
    """Nothing of a recipe reaches the terminal as a control sequence."""
    text = str(Issue("here", (), FilePosition("f", 1, 1, "a\x1b[31m\tb\u202e")))
    assert "\x1b" not in text
    assert "\t" not in text
    assert "\u202e" not in text


def test_clipped() -> None:
    """Long names are cut in messages."""
    assert clipped("short") == "short"
    assert len(clipped("x" * 500)) == 60
