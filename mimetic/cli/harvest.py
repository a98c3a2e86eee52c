"""`mimetic harvest`: measure a trained network, and save the covariances of its layers in a file."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from mimetic.cli.console import Json, check_writable, console, example, print_json, print_table, progress
from mimetic.cli.options import (
    ImageOptions,
    MeasureOptions,
    NetworkOptions,
    Subject,
    WeightOptions,
    expand,
    subject_of,
)
from mimetic.cli.show import Picture, check_picture, draw
from mimetic.errors import UserError
from mimetic.printable import pluralize

if TYPE_CHECKING:
    from mimetic.covariance.trained_ref import TensorKind

EPILOG = example(
    """  $ mimetic harvest --recipe recipes/quickstart.yaml --arm default --checkpoint w.safetensors -o agop.safetensors
  layer             kind            filters   patch      rank …
  stem.conv         pointwise_conv  64×1×1×1  1×1×1    1 of 1 …
  blocks.0.spatial  depthwise_conv  64×1×5×5  1×5×5  25 of 25 …
  …
  agop of convmixer (w.safetensors), 10 layers
  covariances agop.safetensors (0.2 MiB)

  $ mimetic harvest --model torchvision:vgg11 --weights DEFAULT --statistic nfm --kind conv -o nfm.safetensors

  $ mimetic harvest --tensors detector.onnx --layers '.*dw.*' -o filters.safetensors

  $ mimetic harvest --model timm:vit_tiny_patch16_224 --weights DEFAULT --statistic attention -o vit.safetensors

  A recipe starts other networks from such a file: covariance: {type: file, path: nfm.safetensors}"""  # noqa: E501
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorOptions:
    """Weights in a file, without their network."""

    tensors: Annotated[
        Path | None,
        typer.Option(
            "--tensors",
            metavar="FILE",
            help="Weights alone, without a network: safetensors, PyTorch, npz or ONNX.",
        ),
    ] = None
    layers: Annotated[
        list[str] | None,
        typer.Option(
            "--layers", metavar="REGEX", help="Layers of that file; those of the first pattern come first."
        ),
    ] = None
    tensor_kind: Annotated[
        str | None,
        typer.Option("--tensor-kind", metavar="KIND", help="Their kind, where shapes do not decide it."),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticOptions:
    """The statistic, and the options of its section in a recipe."""

    statistic: Annotated[
        str | None,
        typer.Option(
            "--statistic",
            metavar="NAME",
            help="agop (unless given), nfm, filters (of --tensors unless given), patches, attention, or a "
            "plug-in's.",
        ),
    ] = None
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
    tensors: TensorOptions,
    images: ImageOptions,
    statistic: StatisticOptions,
    measure: MeasureOptions,
    picture: Picture = None,
    as_json: Json = False,
) -> None:
    """Measure the covariances of a trained network's layers, to start other networks from."""
    from torch import Tensor, nn

    from mimetic.api import measuring
    from mimetic.sources.trained import images_needed
    from mimetic.train.devices import pick_device

    # mistakes, before anything is loaded
    check_picture(picture)
    check_writable(output, picture)
    file = weights.checkpoint if tensors.tensors is None else tensors.tensors
    if file is not None and output.resolve() == file.resolve():
        raise UserError(
            f"--output: {output} is the file of the weights that are measured; choose another name",
            code="MIM-X121",
        )
    name = statistic.statistic
    if name is None:
        name = "agop" if tensors.tensors is None else "filters"
    options = statistic.options(measure)
    if name == "attention":
        _refuse_options(tensors, options, measure, picture)
        _harvest_attention(subject_of(network, images, count=None, weights=weights), output, as_json=as_json)
        return
    spec = measuring.section(name, options)

    # weights in a file, or a network and the images that it needs
    images_NCHW: Tensor | None = None
    model: nn.Module | Path
    if tensors.tensors is not None:
        _check_alone(network, weights, images)
        model, origin = tensors.tensors, tensors.tensors.name
        options |= {"layers": tensors.layers, "tensor_kind": _tensor_kind(tensors.tensor_kind)}
    else:
        subject = subject_of(network, images, count=images_needed(spec), weights=weights)
        assert subject.source is not None
        model = subject.source.load().to(pick_device(measure.device))
        origin, images_NCHW = subject.source.name, subject.images_NCHW

    # measure, and save
    with progress(name) as report:
        found = measuring.harvest(
            model,
            images_NCHW,
            name,
            path=output,
            origin=origin,
            kinds=measure.kind,
            seed=measure.seed,
            progress=report,
            **options,
        )
    if picture is not None:
        draw(found, picture)

    # print
    if as_json:
        print_json({"file": output, **found.to_dict()})
        return
    out = console()
    print_table(out, found.table())
    size = output.stat().st_size / 2**20
    out.print(found.summary, soft_wrap=True)
    if tensors.tensors is not None:
        known = (h.covariance for h in found.layers if h.covariance is not None)
        for note, count in Counter(note for cov in known for note in cov.provenance.notes).items():
            out.print(f"note: {pluralize(count, 'layer')}: {note}", soft_wrap=True)
    out.print(f"covariances {output} ({size:.1f} MiB)", soft_wrap=True)
    if picture is not None:
        out.print(f"picture {picture}", soft_wrap=True)


def _harvest_attention(subject: Subject, output: Path, *, as_json: bool) -> None:
    """Measure, save and print the statistics of a network's attention."""
    from mimetic.api import measuring

    assert subject.source is not None
    found = measuring.harvest_attention(subject.source.load(), path=output, origin=subject.source.name)
    if as_json:
        print_json({"file": output, **found.to_dict()})
        return
    out = console()
    print_table(out, found.table())
    out.print(f"{found.summary}: {output}", soft_wrap=True)


def _refuse_options(
    tensors: TensorOptions, options: dict[str, object], measure: MeasureOptions, picture: Path | None
) -> None:
    """Refuse what statistics of attention do not take.

    Raises:
        UserError: Naming it.
    """
    if tensors.tensors is not None:
        raise UserError(
            "--statistic attention: --tensors do not say what a head is; give --model and --checkpoint",
            code="MIM-X124",
        )
    given = [*options, *(["kind"] if measure.kind else []), *(["picture"] if picture is not None else [])]
    if given:
        raise UserError(
            f"--statistic attention has no options, and `{given[0]}` is given; leave it out", code="MIM-X125"
        )


def _check_alone(network: NetworkOptions, weights: WeightOptions, images: ImageOptions) -> None:
    """Refuse a network or images beside weights that need neither.

    Raises:
        UserError: Naming the option.
    """
    given = {"--model": network.model, "--recipe": network.recipe, "--checkpoint": weights.checkpoint}
    given |= {"--weights": weights.weights, "--data": images.data, "--path": images.path}
    for option, value in given.items():
        if value is not None:
            raise UserError(
                f"--tensors is a file of weights without a network; leave {option} out", code="MIM-X122"
            )


def _tensor_kind(name: str | None) -> "TensorKind | None":
    """Return a kind of layers by name.

    Raises:
        UserError: If there is none.
    """
    from mimetic.covariance.trained_ref import TensorKind

    kinds: tuple[TensorKind, ...] = get_args(TensorKind)
    found = next((kind for kind in kinds if kind == name), None)
    if name is not None and found is None:
        raise UserError(
            f"--tensor-kind: there is no kind `{name}`; choose one of {', '.join(kinds)}", code="MIM-X123"
        )
    return found
