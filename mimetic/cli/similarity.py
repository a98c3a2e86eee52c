"""`mimetic similarity`: how alike two trained networks' layers are."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mimetic.cli.console import (
    Json,
    check_writable,
    console,
    csv_text,
    example,
    print_json,
    print_table,
    write_file,
)
from mimetic.cli.options import ImageOptions, NetworkOptions, Subject, expand, subject_of
from mimetic.errors import UserError
from mimetic.printable import pluralize
from mimetic.tables import Table, number

if TYPE_CHECKING:
    from torch import nn

    from mimetic.covariance.similarity import Similarity

EPILOG = example(
    """  $ mimetic similarity mlruns/stages/trained-d9f1f92db14f/trained/seed-0 \\
      mlruns/studies/rainbow-small/20261121-072548/aligned/seed-0 --images 500
  layer          one              other            features  filters  chance  kernels
  blocks.0.conv  conv 64×3×3×3    conv 64×3×3×3           –    0.958   0.901    0.995
  blocks.1.conv  conv 128×64×3×3  conv 128×64×3×3     0.912    0.895   0.362    1.000
  head           linear 10×128    linear 10×128       0.876    0.945   0.225        –

  $ mimetic similarity a.safetensors b.safetensors --recipe recipe.yaml --arm default --weights-only"""
)


@expand
def similarity(
    one: Annotated[
        str,
        typer.Argument(
            metavar="ONE",
            help="A finished trial's folder, a file of weights, or the name of published weights.",
            show_default=False,
        ),
    ],
    other: Annotated[str, typer.Argument(metavar="OTHER", help="Another such network.", show_default=False)],
    network: NetworkOptions,
    data: ImageOptions,
    images: Annotated[
        int, typer.Option("--images", metavar="COUNT", min=2, help="Training images to compare them on.")
    ] = 1000,
    weights_only: Annotated[
        bool, typer.Option("--weights-only", help="Compare what needs no images: first layer, kernels.")
    ] = False,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write the table as comma-separated values.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare two networks' layers: features by Procrustes, covariances of filters by Bures."""
    from mimetic.covariance.similarity import similarities
    from mimetic.sources.find import trial_arm

    check_writable(csv)
    trials = [Path(text) for text in (one, other) if Path(text).is_dir()]
    default = trial_arm(trials[0]).data if trials else None
    count = None if weights_only else images
    subject = subject_of(network, data, count=count, default=default, required=not trials[1:])
    networks = [_network(text, subject, allow_code=network.allow_code) for text in (one, other)]
    rows = similarities(networks[0], networks[1], subject.images_NCHW, names=(one, other))
    if csv is not None:
        write_file(csv, csv_text([asdict(rows[0]), *(asdict(row).values() for row in rows)]))
    if as_json:
        print_json({"networks": [one, other], "layers": [asdict(row) for row in rows]})
        return
    out = console()
    print_table(out, _table(rows))
    images_NCHW = subject.images_NCHW
    basis = "weights only" if images_NCHW is None else pluralize(len(images_NCHW), "image")
    out.print(f"{one} and {other}, {pluralize(len(rows), 'layer')}, {basis}", soft_wrap=True)
    if csv is not None:
        out.print(f"table {csv}", soft_wrap=True)


def _network(text: str, subject: Subject, *, allow_code: bool) -> "nn.Module":
    """Return the network an argument names."""
    from mimetic.models.config import Timm, Torchvision
    from mimetic.sources.find import trial_source

    if Path(text).is_dir():
        return trial_source(Path(text), allow_code=allow_code).load()
    source = subject.source
    is_file = Path(text).is_file() or "/" in text or text.endswith((".safetensors", ".pt", ".pth"))
    if source is None or not (is_file or isinstance(source.model, Torchvision | Timm)):
        raise UserError(
            f"there is no file or folder {text}; give a trial's folder or a file of weights", code="MIM-X130"
        )
    if is_file:
        return replace(source, weights=Path(text)).load()
    return replace(source, published=text).load()


def _table(rows: "tuple[Similarity, ...]") -> Table:
    numbers = ("features", "filters", "chance", "kernels")
    cells = tuple(
        (row.layer, row.one, row.other, *(number(getattr(row, name), 3) for name in numbers)) for row in rows
    )
    return Table("", ("layer", "one", "other", *numbers), cells, optional=("other", "one", "chance"), left=3)
