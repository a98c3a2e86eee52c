"""`mimetic ls`: recipes, types, arguments, studies."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from mimetic.config.registry import families, registered
from mimetic.recipe.reference import keys_of, sections
from mimetic.recipe.validate.schema_node import fields_of
from mimetic.study.comparing.comparison import of_studies

from .conftest import write_study

Call = Callable[..., Result]


def test_everything(tmp_path: Path, call: Call) -> None:
    """Recipes, studies and every type of every family."""
    result = call("ls", "--root", tmp_path)
    assert result.exit_code == 0
    words = {line.split()[0] for line in result.stdout.splitlines() if line.strip()}
    assert {"recipes", "quickstart", "cifar10-small"} <= words
    assert f"no studies below {tmp_path}" in result.stdout
    assert {name for family in families() for name in registered(family)} <= words


def test_a_family(call: Call) -> None:
    """Its types alone, each with its first line."""
    lines = call("ls", "schedule").stdout.splitlines()
    assert [lines[0], *(line.split()[0] for line in lines[1:])] == ["schedule", *registered("schedule")]


def test_a_type(call: Call) -> None:
    """Its arguments with their defaults; what must be given is called required."""
    text = call("ls", "timm").stdout
    assert text.startswith("model `timm`: ")
    assert "  name " in text
    assert "(text; required)" in text


def test_types_of_one_name(call: Call) -> None:
    """A name of several families is shown for each: `constant` is an initializer and a schedule."""
    text = call("ls", "constant").stdout
    assert "init `constant`: " in text
    assert "schedule `constant`: " in text


@pytest.mark.parametrize("name", ["train", "study", "match", "rule", "checkpoint", "from"])
def test_a_section(name: str, call: Call) -> None:
    """Every key with what it may be and what it is unless given."""
    lines = call("ls", name).stdout.splitlines()
    section = sections()[name]
    assert lines[0].startswith(f"section `{name}`: ")
    assert [line.split()[0] for line in lines[1:]] == list(fields_of(section))
    assert all(re.search(r"\(.+; (default .+|required)\)$", line) for line in lines[1:])


def test_allowed_values(call: Call) -> None:
    """Literals, bounds, patterns, types and sections are named."""
    text = call("ls", "train").stdout
    for allowed in (
        "auto, fp32, tf32 or bf16;",
        "whole number ≥ 1;",
        "number > 0 or null;",
        "type of optimizer;",
    ):
        assert f"({allowed}" in text
    assert "text matching ^(auto|cpu|" in text
    assert "(section checkpoint; default {})" in text


def test_every_key_has_its_values_named() -> None:
    """Of sections and types, plug-ins included; nothing is called by a name of Python or pydantic."""
    every = [*sections().values(), *(s for family in families() for s in registered(family).values())]
    for section in every:
        for key, about in keys_of(section).items():
            where = f"{section.__name__}.{key}: {about}"
            assert about.description, where
            assert not re.search(r"None|typing|<[^ ]", about.allowed), where
            assert json.dumps(about.default, allow_nan=False), where
            assert "value" not in about.allowed.replace("any value", "").split(), where


def test_json(quickstart: Path, call: Call) -> None:
    """The same as values; of one thing, that alone."""
    told = json.loads(call("ls", "--root", quickstart, "--json").stdout)
    assert list(told) == ["recipes", "atlas", "studies", "sections", "types"]
    assert list(told["types"]) == list(families())
    alone = json.loads(call("ls", "constant", "--json").stdout)
    assert alone == {"types": {f: {"constant": told["types"][f]["constant"]} for f in ("init", "schedule")}}
    assert json.loads(call("ls", "train", "--json").stdout) == {
        "sections": {"train": told["sections"]["train"]}
    }
    (study,) = json.loads(call("ls", "studies", "--root", quickstart, "--json").stdout)["studies"]
    assert (study["statuses"], study["result"]) == ({"FINISHED": 9}, None)


def test_the_result_of_a_study(quickstart: Path, call: Call) -> None:
    """It is read from the study's comparison while that is of all its trials."""
    folder = quickstart / "studies" / "quickstart" / "20261121-032523"
    of_all = json.dumps(of_studies([folder])[0].to_dict())
    (folder / "comparison.json").write_text(of_all, encoding="utf-8")
    line = call("ls", "studies", "--root", quickstart).stdout.splitlines()[1]
    assert line.endswith("3 arms × 3 seeds, 9 FINISHED; test/acc, compared with default: inconclusive.")

    write_study(folder, ["default", "closed-form", "closed-form-frozen", "more"], seeds=3)
    line = call("ls", "studies", "--root", quickstart).stdout.splitlines()[1]
    assert line.endswith("4 arms × 3 seeds, 9 FINISHED, 3 PENDING")


def test_unknown(call: Call) -> None:
    """A typo gets a suggestion."""
    result = call("ls", "closed_from")
    assert result.exit_code == 2
    assert "nothing is called `closed_from`; did you mean `closed_form`?" in result.stderr


def test_studies(quickstart: Path, call: Call) -> None:
    """One line each; a damaged one hides no other."""
    damaged = quickstart / "studies" / "other" / "20261121-000000"
    damaged.mkdir(parents=True)
    (damaged / "study.json").write_text("{broken", encoding="utf-8")
    result = call("ls", "studies", "--root", quickstart)
    assert result.exit_code == 0
    good = quickstart / "studies" / "quickstart" / "20261121-032523"
    assert f"  {good}  3 arms × 3 seeds, 9 FINISHED" in result.stdout
    assert f"  {damaged / 'study.json'} cannot be read: " in result.stdout


@pytest.mark.parametrize("root", ["/dev/null/x", "none"])
def test_no_studies(root: str, call: Call) -> None:
    """A root that is not there holds none."""
    result = call("ls", "studies", "--root", root)
    assert (result.exit_code, result.output) == (0, f"no studies below {root}\n")
