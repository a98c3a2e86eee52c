"""`mimetic harvest`: measure a trained network, and keep the covariances of its layers in a file."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mimetic.cli.console import AllowCode, check_writable, console, example, pluralize, progress
from mimetic.cli.options import (
    Checkpoint,
    Classes,
    DataFolder,
    DataType,
    Device,
    ImageSize,
    Kinds,
    Mean,
    Network,
    RecipeArm,
    RecipeFile,
    Std,
    Weights,
)
from mimetic.cli.show import Picture, check_picture, draw, harvest_table
from mimetic.errors import UserError

EPILOG = example(
    """  $ mimetic harvest --recipe recipes/quickstart.yaml --arm default --checkpoint w.safetensors -o agop.safetensors
  layer              kind             filters     patch       rank …
  stem.conv          pointwise_conv   64×1×1×1    1×1×1     1 of 1 …
  blocks.0.spatial   depthwise_conv   64×1×5×5    1×5×5   25 of 25 …
  …
  agop of convmixer (w.safetensors), 10 layers
  covariances agop.safetensors (0.2 MiB)

  $ mimetic harvest --model torchvision:vgg11 --weights DEFAULT --statistic nfm --kind conv -o nfm.safetensors

  A recipe starts other networks from such a file: covariance: {type: file, path: nfm.safetensors}"""  # noqa: E501
)


def harvest(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The covariance file to write.")
    ],
    model: Network = None,
    recipe: RecipeFile = None,
    arm: RecipeArm = None,
    checkpoint: Checkpoint = None,
    weights: Weights = None,
    statistic: Annotated[
        str, typer.Option("--statistic", metavar="NAME", help="agop, nfm, filters or patches.")
    ] = "agop",
    data: DataType = None,
    path: DataFolder = None,
    image_size: ImageSize = None,
    images: Annotated[
        int | None,
        typer.Option("--images", metavar="COUNT", min=1, help="How many of them; 256 unless given."),
    ] = None,
    mean: Mean = None,
    std: Std = None,
    classes: Classes = None,
    kind: Kinds = None,
    outputs: Annotated[
        int | None, typer.Option("--outputs", metavar="COUNT", min=1, help="agop: the first outputs only.")
    ] = None,
    probes: Annotated[
        int | None,
        typer.Option(
            "--probes", metavar="COUNT", min=1, help="agop: random combinations instead of all outputs."
        ),
    ] = None,
    power: Annotated[
        float | None, typer.Option("--power", metavar="POWER", help="agop: 1, or 0.5 for the square root.")
    ] = None,
    drop_bias: Annotated[bool, typer.Option("--drop-bias", help="agop: as the paper's code.")] = False,
    centered: Annotated[bool, typer.Option("--centered", help="filters: subtract the mean filter.")] = False,
    shrink: Annotated[
        float | None,
        typer.Option(
            "--shrink", metavar="SHARE", min=0.0, max=1.0, help="Share of the mean variance mixed in."
        ),
    ] = None,
    rank: Annotated[
        int | None, typer.Option("--rank", metavar="COUNT", min=1, help="Keep so many eigenvectors.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="SEED", help="Seed of random probes.")] = 0,
    device: Device = "auto",
    picture: Picture = None,
    allow_code: AllowCode = False,
) -> None:
    """Measure the covariances of a trained network's layers, to start other networks from."""
    from mimetic.api import harvest as measured
    from mimetic.api import section
    from mimetic.cli.subject import asked, load_images, network, normalized
    from mimetic.train.devices import pick_device

    check_picture(picture)
    check_writable(output, picture)
    if checkpoint is not None and output.resolve() == checkpoint.resolve():
        raise UserError(f"--output: {output} holds the weights that are measured; choose another name")
    given = {"count": images, "outputs": outputs, "probes": probes, "power": power, "shrink": shrink}
    given |= {"rank": rank, "drop_bias": drop_bias or None, "centered": centered or None}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    spec = section(statistic, options)  # a wrong option is said before anything is loaded
    subject = asked(
        model,
        recipe,
        arm,
        data=data,
        path=path,
        checkpoint=checkpoint,
        weights=weights,
        classes=classes,
        allow_code=allow_code,
    )
    dataset = load_images(subject, getattr(spec, "images", None), image_size=image_size)
    images_NCHW = None if dataset is None else normalized(dataset, mean, std)
    with progress(statistic) as tell:
        found = measured(
            network(subject, dataset).to(pick_device(device)),
            images_NCHW,
            statistic,  # type: ignore[arg-type] # `section` has checked it
            path=output,
            origin=subject.origin,
            kinds=kind,
            seed=seed,
            progress=tell,
            **options,
        )
    out = console()
    out.print(harvest_table(found))
    size = output.stat().st_size / 2**20
    out.print(f"{statistic} of {subject.origin}, {pluralize(len(found.layers), 'layer')}", soft_wrap=True)
    out.print(f"covariances {output} ({size:.1f} MiB)", soft_wrap=True)
    if picture is not None:
        draw(found, picture)
        out.print(f"picture {picture}", soft_wrap=True)
