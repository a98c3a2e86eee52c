"""`mimetic similarity`: how alike two trained networks' layers are."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mimetic.cli.console import AllowCode, check_writable, console, example, pluralize, write_file
from mimetic.cli.options import (
    Classes,
    DataFolder,
    DataType,
    ImageSize,
    Mean,
    Network,
    RecipeArm,
    RecipeFile,
    Std,
)

if TYPE_CHECKING:
    from rich.table import Table
    from torch import Tensor, nn

    from mimetic.cli.subject import Asked
    from mimetic.covariance.similarity import Similarity
    from mimetic.data.dataset import Dataset

EPILOG = example(
    """  $ mimetic similarity mlruns/stages/trained-d9f1f92db14f/trained/seed-0 \\
      mlruns/studies/rainbow-small/20261121-072548/aligned/seed-0 --images 500
  layer           one               other             features   filters   chance   kernels
  blocks.0.conv   conv 64×3×3×3     conv 64×3×3×3            –     0.958    0.901     0.995
  blocks.1.conv   conv 128×64×3×3   conv 128×64×3×3      0.912     0.895    0.362     1.000
  head            linear 10×128     linear 10×128        0.876     0.945    0.225         –

  $ mimetic similarity a.safetensors b.safetensors --recipe recipe.yaml --arm default --weights-only"""
)


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
    model: Network = None,
    recipe: RecipeFile = None,
    arm: RecipeArm = None,
    data: DataType = None,
    path: DataFolder = None,
    image_size: ImageSize = None,
    images: Annotated[
        int, typer.Option("--images", metavar="COUNT", min=2, help="Training images both are shown.")
    ] = 1000,
    mean: Mean = None,
    std: Std = None,
    classes: Classes = None,
    weights_only: Annotated[
        bool, typer.Option("--weights-only", help="Compare what needs no images: first layer, kernels.")
    ] = False,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write the table as comma-separated values.")
    ] = None,
    allow_code: AllowCode = False,
) -> None:
    """Compare two networks' layers: features by Procrustes, covariances of filters by Bures."""
    from mimetic.cli.subject import Asked, asked, data_section, load_images, normalized
    from mimetic.covariance.similarity import similarities
    from mimetic.errors import UserError
    from mimetic.study.trials.origins import trial_network

    check_writable(csv)
    folders = [Path(text) for text in (one, other) if Path(text).is_dir()]
    if len(folders) == 2 and model is None and recipe is None:  # noqa: PLR2004 - trials know their networks
        images_of = None if data is None else data_section(data, path)
        subject = Asked(data=images_of, classes=classes, allow_code=allow_code)
    else:
        subject = asked(model, recipe, arm, data=data, path=path, classes=classes, allow_code=allow_code)
    if subject.data is None and folders:
        subject = replace(subject, data=trial_network(folders[0], allow_code=allow_code)[1].data)
    if subject.data is None and not weights_only:
        raise UserError("features are compared on images: give --data TYPE, or --weights-only")
    dataset = None if weights_only else load_images(subject, images, image_size=image_size)
    shown: Tensor | None = None if dataset is None else normalized(dataset, mean, std)
    networks = [_network(text, subject, dataset) for text in (one, other)]
    rows = similarities(networks[0], networks[1], shown, names=(one, other))
    out = console()
    out.print(_table(rows))
    told = "weights alone" if shown is None else f"{pluralize(len(shown), 'image')}"
    out.print(f"{one} and {other}, {pluralize(len(rows), 'layer')}, {told}", soft_wrap=True)
    if csv is not None:
        write_file(csv, _csv(rows))
        out.print(f"table {csv}", soft_wrap=True)


def _network(text: str, subject: "Asked", dataset: "Dataset | None") -> "nn.Module":
    """Return the network an argument names."""
    from mimetic.cli.subject import network
    from mimetic.errors import UserError
    from mimetic.models.config import Timm, Torchvision
    from mimetic.study.trials.origins import trial_network

    if Path(text).is_dir():
        return trial_network(Path(text), allow_code=subject.allow_code)[0]
    is_file = Path(text).is_file() or "/" in text or text.endswith((".safetensors", ".pt", ".pth"))
    if not is_file and not isinstance(subject.model, Torchvision | Timm):
        raise UserError(f"there is no file or folder {text}; give a trial's folder or a file of weights")
    named = replace(subject, checkpoint=Path(text)) if is_file else replace(subject, weights=text)
    return network(named, dataset)


def _table(rows: "tuple[Similarity, ...]") -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("layer", "one", "other"):
        table.add_column(column, overflow="fold")
    for column in ("features", "filters", "chance", "kernels"):
        table.add_column(column, justify="right")
    for row in rows:
        values = (row.features, row.filters, row.chance, row.kernels)
        table.add_row(row.layer, row.one, row.other, *map(_number, values))
    return table


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _csv(rows: "tuple[Similarity, ...]") -> str:
    from csv import writer
    from dataclasses import asdict
    from io import StringIO

    text = StringIO()
    lines = writer(text, lineterminator="\n")
    lines.writerow(asdict(rows[0]))
    lines.writerows(asdict(row).values() for row in rows)
    return text.getvalue()
