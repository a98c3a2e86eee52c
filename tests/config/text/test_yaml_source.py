"""Strict YAML with places."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mimetic.config.errors import FilePosition, Issue, RecipeError
from mimetic.config.text.tree import Map, find, plain
from mimetic.config.text.yaml_source import MAX_BYTES, parse, parse_value, read


def parsed(text: str) -> tuple[Map, list[Issue]]:
    """Parse a text and return the tree with what was noted."""
    issues: list[Issue] = []
    return parse(text, file="r.yaml", issues=issues), issues


def test_values_and_places() -> None:
    """Every key and value knows its line and column, counted from 1."""
    tree, issues = parsed("recipe: 1\ntrain:\n  epochs: 5\n  list: [1, {a: b}]\n")
    assert issues == []
    assert plain(tree) == {"recipe": 1, "train": {"epochs": 5, "list": [1, {"a": "b"}]}}
    assert tree["train"].spots["epochs"].value == FilePosition("r.yaml", 3, 11)
    assert tree["train"].spots["epochs"].key == FilePosition("r.yaml", 3, 3)
    assert tree["train"].spots["epochs"].path == ("train", "epochs")
    assert tree["train"]["list"].spots[1].value == FilePosition("r.yaml", 4, 13)
    inner = find(tree, ("train", "list", 1, "a"))
    assert inner is not None
    assert inner.value == FilePosition("r.yaml", 4, 17)
    assert inner.value is not None
    assert inner.value.text == "  list: [1, {a: b}]"


def test_a_block_is_placed_at_its_key() -> None:
    """A block map and an empty value are shown at the key above or before them."""
    tree, _ = parsed("train:\n  epochs:\n  optimizer:\n    lr: 1\n")
    assert tree.spots["train"].value == FilePosition("r.yaml", 1, 1)
    assert tree["train"].spots["epochs"].value == FilePosition("r.yaml", 2, 3)
    assert tree["train"].spots["optimizer"].value == FilePosition("r.yaml", 3, 3)


def test_quoted_is_text() -> None:
    """Quotes, and block scalars, always make text."""
    tree, _ = parsed("a: '5'\nb: \"true\"\nc: |\n  5\nd: 'null'\n")
    assert plain(tree) == {"a": "5", "b": "true", "c": "5\n", "d": "null"}


def test_keys_that_yaml_1_1_misreads() -> None:
    """`on`, `yes` and the like are good keys."""
    tree, issues = parsed("on: 1\nyes: 2\n12:30: 3\n010: 4\n")
    assert issues == []
    assert list(tree) == ["on", "yes", "12:30", "010"]


def test_byte_order_mark_and_line_ends(tmp_path: Path) -> None:
    """Files of Windows editors read like others, and their places count the same."""
    path = tmp_path / "r.yaml"
    path.write_bytes("\ufeffrecipe: 1\r\nname: x\r\n".encode())
    tree, _ = parsed(read(path, name="r.yaml"))
    assert plain(tree) == {"recipe": 1, "name": "x"}
    assert tree.spots["name"].value == FilePosition("r.yaml", 2, 7)


def test_aliases_repeat_values() -> None:
    """An alias is a copy with a path of its own; its parts keep the marks of the anchor."""
    tree, issues = parsed("a: &x {k: [1, 2]}\nb: *x\n")
    assert issues == []
    assert plain(tree) == {"a": {"k": [1, 2]}, "b": {"k": [1, 2]}}
    assert tree.spots["b"].value == FilePosition("r.yaml", 2, 4)
    assert tree["b"].spots["k"].path == ("b", "k")
    assert tree["b"].spots["k"].value == FilePosition("r.yaml", 1, 11)
    assert tree["a"] is not tree["b"]


def test_alias_limit() -> None:
    """More than a hundred aliases are refused."""
    parsed("a: &x 1\nb: [" + "*x, " * 100 + "]\n")
    with pytest.raises(RecipeError, match="more than 100 aliases"):
        parsed("a: &x 1\nb: [" + "*x, " * 101 + "]\n")


@pytest.mark.parametrize("depth", [49, 50])
def test_depth_limit(depth: int) -> None:
    """Maps and lists may be fifty deep, no more; aliases do not get around it."""
    text = "a: " + "[" * (depth - 1) + "]" * (depth - 1)
    parsed(text)
    with pytest.raises(RecipeError, match="50 deep"):
        parsed("a: " + "[" * 60 + "]" * 60)
    half = "[" * 30 + "1" + "]" * 30
    with pytest.raises(RecipeError, match="50 deep"):
        parsed(f"a: &x {half}\nb: {'[' * 30}*x{']' * 30}\n")


def test_many_brackets_are_refused_quickly() -> None:
    """A text of nothing but brackets ends at the limit, without recursion."""
    with pytest.raises(RecipeError, match="50 deep"):
        parsed("[" * 100_000)


def test_collected_together() -> None:
    """What leaves the rest readable does not end the reading."""
    _, issues = parsed("a: 1\na: 2\nb: !!int 5\n3: x\n<<: {c: 1}\ne: 1e999\n")
    assert [issue.code for issue in issues] == ["MIM-C018", "MIM-C015", "MIM-C019", "MIM-C020", "MIM-C023"]


def test_position_of_bytes_that_are_not_utf_8(tmp_path: Path) -> None:
    """A wrong byte is told with its line and column."""
    path = tmp_path / "r.yaml"
    path.write_bytes("recipe: 1\nname: é".encode() + b"\xff rest\n")
    with pytest.raises(RecipeError) as caught:
        read(path, name="r.yaml")
    assert caught.value.issues[0].mark == FilePosition("r.yaml", 2, 8)


def test_missing_file_and_near_names(tmp_path: Path) -> None:
    """A missing file is told with a near one beside it, under the name that was given."""
    (tmp_path / "quickstart.yaml").write_text("recipe: 1\n")
    with pytest.raises(RecipeError) as caught:
        read(tmp_path / "quikstart.yaml", name="some/quikstart.yaml")
    assert str(caught.value) == (
        "some/quikstart.yaml: there is no such file [MIM-C001]\n"
        "    hint: did you mean `some/quickstart.yaml`?"
    )


def test_missing_folder(tmp_path: Path) -> None:
    """A missing folder is named."""
    with pytest.raises(RecipeError, match="there is no folder"):
        read(tmp_path / "none" / "r.yaml", name="none/r.yaml")


def test_folder_and_size(tmp_path: Path) -> None:
    """A folder is not a recipe, and neither is a file of more than 1 MiB."""
    with pytest.raises(RecipeError, match="this is a folder"):
        read(tmp_path, name="x")
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(RecipeError, match="larger than 1 MiB"):
        read(large, name="large.yaml")
    with pytest.raises(RecipeError, match="larger than 1 MiB"):
        parsed("#" * (MAX_BYTES + 1))


def test_no_code_runs() -> None:
    """A tag that PyYAML's other loaders execute is noted and left out."""
    tree, issues = parsed("a: !!python/object/apply:os.getcwd []\n")
    assert plain(tree) == {"a": []}
    assert len(issues) == 1


def test_one_value() -> None:
    """A value by itself may have any form, an empty text included."""

    def locate(line: int, column: int) -> FilePosition:
        return FilePosition("--set", 1, 10 + column)

    assert parse_value("[1, a]", locate, []) == ([1, "a"], FilePosition("--set", 1, 10))
    assert parse_value("", locate, []) == (None, None)
    assert parse_value("1e-3", locate, [])[0] == 1e-3


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(10**20), max_value=10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(
        ["on", "12:30", "010", "1e5", "0x1", "~", "null", "- a", "a: b", "#x", "*a", "&a", "!t", "<<"]
    )
)
KEYS = st.text(min_size=1, max_size=10) | st.sampled_from(["on", "1", "null", "true", "<<", "1e5"])
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


class Quoting(yaml.SafeDumper):
    """Writes every text in double quotes, so that it is text to any reader."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        """Write repeated values out."""
        return True


Quoting.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)


@given(st.dictionaries(KEYS, TREES, min_size=1, max_size=4), st.sampled_from([True, False, None]))
def test_round_trip(data: dict[str, Any], flow: bool | None) -> None:
    """Plain data written as YAML, in block or flow style, reads back as it was."""
    text = yaml.dump(data, Dumper=Quoting, default_flow_style=flow, allow_unicode=True)
    tree, issues = parsed(text)
    assert issues == []
    assert plain(tree) == data
