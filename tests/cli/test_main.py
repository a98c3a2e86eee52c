"""The command itself: help, version, what it imports, and words it does not know."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from mimetic import __version__
from mimetic.cli import VERBS, app

Call = Callable[..., Result]
Process = Callable[..., "subprocess.CompletedProcess[str]"]

NAMES = [verb.__name__.rpartition(".")[2] for verb in VERBS]
HEAVY = ("torch", "mlflow", "numpy", "timm", "torchvision", "matplotlib", "scipy")


def test_help_lists_every_verb_in_order(call: Call) -> None:
    """`mimetic --help` names all verbs, and ends with the way through them."""
    result = call("--help")
    assert result.exit_code == 0
    listed = [
        line.split()[0] for line in result.output.partition("Commands:")[2].splitlines() if line.split()
    ]
    assert listed[: len(NAMES)] == NAMES
    assert result.output.rstrip().endswith("$ mimetic ui")


@pytest.mark.parametrize("verb", NAMES)
def test_help_of_a_verb_ends_with_its_example(verb: str, call: Call) -> None:
    """The last thing in a verb's help is a command to copy, its lines kept as they are written."""
    result = call(verb, "--help")
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: mimetic {verb} ")
    _, example, text = result.output.partition("Example:\n")
    assert example
    (epilog,) = [c.epilog for c in app.registered_commands if c.callback.__name__ == verb]
    written = [line for line in epilog.partition("\b\n")[2].replace("\b\n", "").splitlines() if line.strip()]
    assert written == [line.removeprefix("  ") for line in text.splitlines() if line.strip()]
    assert any(line.startswith(f"  $ mimetic {verb}") for line in written)


def test_short_help_is_the_same(call: Call) -> None:
    """`-h` is `--help`, of the command and of a verb."""
    assert call("-h").output == call("--help").output
    assert call("plan", "-h").output == call("plan", "--help").output


def test_version(call: Call) -> None:
    """One line: the name and the package's version."""
    result = call("--version")
    assert (result.exit_code, result.output) == (0, f"mimetic {__version__}\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nope"], "No such command 'nope'"),
        (["run"], "Missing argument 'RECIPE'"),
        (["run", "--bad"], "No such option: --bad"),
        (["run", "x.yaml", "--workers", "0"], "--workers"),
        (["plan", "x.yaml", "--seed", "one"], "--seed"),
    ],
)
def test_unknown_words_are_the_users_mistake(words: list[str], said: str, call: Call) -> None:
    """A verb, option or value that does not exist exits with 2 and says which."""
    result = call(*words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "mimetic", "--help"],
        ["-m", "mimetic", "validate", "RECIPE"],
        ["-m", "mimetic", "ls", "covariance"],
        ["-c", "import mimetic"],
        ["-m", "mimetic", "plan", "RECIPE", "--arm", ""],
    ],
    ids=["help", "validate", "ls", "import", "completion"],
)
def test_light_verbs_import_nothing_heavy(words: list[str], tiny: Path, bare: Process) -> None:
    """What needs no tensor imports no torch, MLflow or numpy; completion neither."""
    words = [str(tiny) if word == "RECIPE" else word for word in words]
    line = {"COMP_WORDS": " ".join(words[1:]), "COMP_CWORD": str(len(words) - 2)}
    env = {"_MIMETIC_COMPLETE": "complete_bash", **line} if words[-1] == "" else {}
    done = bare("-X", "importtime", *words, env=env)
    assert done.stdout.split() == ["default", "frozen"] or not env
    assert done.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "mimetic" in imported
    assert {name for name in imported if name.partition(".")[0] in HEAVY} == set()
