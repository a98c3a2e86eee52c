"""`mimetic schema`: the JSON Schema of recipes, for editors."""

import json
from pathlib import Path
from typing import Annotated

import typer

from mimetic.cli.console import echo, example, write_file
from mimetic.errors import UserError

EPILOG = example(
    """  $ mimetic schema --output recipe.schema.json
  $ head -1 my.yaml
  # yaml-language-server: $schema=recipe.schema.json"""
)


def schema(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the schema to a file.")
    ] = None,
    check: Annotated[
        Path | None, typer.Option("--check", metavar="FILE", help="Fail if this file is not up to date.")
    ] = None,
) -> None:
    """Print the JSON Schema of recipes, with all registered types, plug-ins included."""
    from mimetic.recipe.json_schema import json_schema

    text = json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"
    if check is not None:
        if not check.is_file() or check.read_text(encoding="utf-8") != text:
            raise UserError(
                f"{check} is not up to date; run `mimetic schema --output {check}`", code="MIM-X060"
            )
        echo(f"{check}: up to date")
    elif output is not None:
        write_file(output, text)
    else:
        echo(text, nl=False)
