"""Regular expressions of recipes."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from mimetic.config.patterns import LayerRegex, Regex, compiled, fullmatch
from mimetic.errors import UserError


def test_whole_names() -> None:
    """A pattern matches whole names, and gives its groups."""
    found = fullmatch(r"blocks\.(?P<block>\d+)", "blocks.12")
    assert found is not None
    assert found["block"] == "12"
    assert fullmatch(r"blocks\.\d+", "blocks.12.spatial") is None


def test_time_limit() -> None:
    """A pattern that would take for ever ends soon, and is named."""
    with pytest.raises(UserError, match=r"\(a\|aa\).*takes more than 0.1 s"):
        fullmatch("((a|aa)(b|))+[cd]", "a" * 60)


@pytest.mark.parametrize("pattern", ["(", "a)", "*a", "[a", "(?P<1>a)", r"\L<names>", "a{2,1}", r"\p{nope}"])
def test_invalid(pattern: str) -> None:
    """What is no regular expression is refused with the reason."""
    with pytest.raises(ValueError, match=r"."):
        compiled(pattern)
    with pytest.raises(ValidationError, match="not a regular expression"):
        TypeAdapter(Regex).validate_python(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        r"blocks\.\d+\.weight",
        "head.bias",
        r"head\.weight$",
        "/blocks",
        r"_orig_mod\.head",
        r"_fsdp_wrapped_module\.a",
    ],
)
def test_no_layer_is_named_so(pattern: str) -> None:
    """Patterns that can match no layer, for the usual reasons, are refused."""
    with pytest.raises(ValidationError):
        TypeAdapter(LayerRegex).validate_python(pattern)


@pytest.mark.parametrize(
    "pattern",
    ["weights", r"a\.weighted", r"head\.parametrizations\.weight", "weight", r"stem|head", "model/x"],
)
def test_layers_may_be_named_so(pattern: str) -> None:
    """Names that only look alike are allowed."""
    assert pattern == TypeAdapter(LayerRegex).validate_python(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "a{1000000000}",
        "a{5,}{1}b{ 3 , 999999999 }",
        "((a{100}){100}){100}",
        "(?x)(a{1000}) {1000}",
        "a{," + "9" * 200 + "}",
        "a" * 301,
    ],
)
def test_large_when_compiled(pattern: str) -> None:
    """A pattern whose compiled form would take gigabytes is refused before it is compiled."""
    started = time.monotonic()
    with pytest.raises(ValueError, match="more than"):
        compiled(pattern)
    assert time.monotonic() - started < 1.0


@pytest.mark.parametrize("pattern", [r"blocks\.\d{1,3}\.(conv\d{1,2}|mlp)", "a{300}", r"x{,9}\{9\}", "{}{,}"])
def test_repetitions_of_usual_sizes(pattern: str) -> None:
    """What layer names need is allowed."""
    compiled(pattern)


@given(st.text(alphabet="ab()[]{}*+?|\\.^$<>:=!P-,0129dwpLR", max_size=30))
def test_nothing_else_is_raised(pattern: str) -> None:
    """Any text is a pattern or is refused with a reason; nothing else happens."""
    try:
        compiled(pattern)
    except ValueError as error:
        assert str(error)  # noqa: PT017
