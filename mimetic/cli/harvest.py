"""`mimetic harvest`: measure a trained network, and save the covariances of its layers in a file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from mimetic.cli.console import (
    Json,
    check_writable,
    console,
    example,
    print_json,
    print_table,
    progress,
)
from mimetic.cli.options import (
    ImageOptions,
    MeasureOptions,
    NetworkOptions,
    WeightOptions,
    expand,
    subject_of,
)
from mimetic.cli.show import Picture, check_picture, draw
from mimetic.errors import UserError

EPILOG = example(
    """  $ mimetic harvest --recipe recipes/quickstart.yaml --arm default --checkpoint w.safetensors -o agop.safetensors
  layer             kind            filters   patch      rank …
  stem.conv         pointwise_conv  64×1×1×1  1×1×1    1 of 1 …
  blocks.0.spatial  depthwise_conv  64×1×5×5  1×5×5  25 of 25 …
  …
  agop of convmixer (w.safetensors), 10 layers
  covariances agop.safetensors (0.2 MiB)

  $ mimetic harvest --model torchvision:vgg11 --weights DEFAULT --statistic nfm --kind conv -o nfm.safetensors

  A recipe starts other networks from such a file: covariance: {type: file, path: nfm.safetensors}"""  # noqa: E501
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticOptions:
    """The statistic, and the options of its section in a recipe."""

    statistic: Annotated[
        str,
        typer.Option("--statistic", metavar="NAME", help="agop, nfm, filters, patches, or a plug-in's."),
    ] = "agop"
    images: Annotated[
        int | None,
        typer.Option("--images", metavar="COUNT", min=1, help="Training images; 256 unless given."),
    ] = None
    outputs: Annotated[
        int | None, typer.Option("--outputs", metavar="COUNT", min=1, help="agop: the first outputs only.")
    ] = None
    power: Annotated[
        float | None, typer.Option("--power", metavar="POWER", help="agop: 1, or 0.5 for the square root.")
    ] = None
    centered: Annotated[bool, typer.Option("--centered", help="filters: subtract the mean filter.")] = False
    shrink: Annotated[
        float | None,
        typer.Option(
            "--shrink", metavar="SHARE", min=0.0, max=1.0, help="Share of the mean variance mixed in."
        ),
    ] = None
    rank: Annotated[
        int | None, typer.Option("--rank", metavar="COUNT", min=1, help="Keep so many eigenvectors.")
    ] = None
    set: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any other option of the statistic; repeatable."),
    ] = None

    def options(self, measure: MeasureOptions) -> dict[str, object]:
        """Return what was given, by the names of `mimetic.harvest`.

        Raises:
            UserError: If `--set` holds no name and value.
        """
        import json

        given: dict[str, object] = {"count": self.images, "outputs": self.outputs, "power": self.power}
        probes = measure.probe_count()
        given |= {"shrink": self.shrink, "rank": self.rank, "probes": None if probes == "exact" else probes}
        given |= {"drop_bias": measure.drop_bias or None, "centered": self.centered or None}
        for text in self.set or ():
            name, equals, value = text.partition("=")
            if not equals:
                raise UserError(f"--set: expected NAME=VALUE, found {text!r}", code="MIM-X120")
            try:
                given[name] = json.loads(value)
            except ValueError:
                given[name] = value
        return {name: value for name, value in given.items() if value is not None}


@expand
def harvest(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The covariance file to write.")
    ],
    network: NetworkOptions,
    weights: WeightOptions,
    images: ImageOptions,
    statistic: StatisticOptions,
    measure: MeasureOptions,
    picture: Picture = None,
    as_json: Json = False,
) -> None:
    """Measure the covariances of a trained network's layers, to start other networks from."""
    from mimetic import api
    from mimetic.sources.trained import images_needed
    from mimetic.train.devices import pick_device

    check_picture(picture)
    check_writable(output, picture)
    if weights.checkpoint is not None and output.resolve() == weights.checkpoint.resolve():
        raise UserError(
            f"--output: {output} is the file of the weights that are measured; choose another name",
            code="MIM-X121",
        )
    options = statistic.options(measure)
    spec = api.section(statistic.statistic, options)  # reports a wrong option before anything is loaded
    subject = subject_of(network, images, count=images_needed(spec), weights=weights)
    assert subject.source is not None
    with progress(statistic.statistic) as report:
        found = api.harvest(
            subject.source.load().to(pick_device(measure.device)),
            subject.images_NCHW,
            statistic.statistic,
            path=output,
            origin=subject.source.name,
            kinds=measure.kind,
            seed=measure.seed,
            progress=report,
            **options,
        )
    if picture is not None:
        draw(found, picture)
    if as_json:
        print_json({"file": output, **found.to_dict()})
        return
    out = console()
    print_table(out, found.table())
    size = output.stat().st_size / 2**20
    out.print(found.summary, soft_wrap=True)
    out.print(f"covariances {output} ({size:.1f} MiB)", soft_wrap=True)
    if picture is not None:
        out.print(f"picture {picture}", soft_wrap=True)
