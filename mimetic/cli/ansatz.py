"""`mimetic ansatz`: how far NFM ∝ AGOP holds at each layer of a trained network, and of an untrained one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mimetic.cli.console import AllowCode, check_writable, console, example, pluralize, progress, write_file
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

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table
    from torch import Tensor, nn

    from mimetic.covariance.ansatz import LayerAnsatz
    from mimetic.data.dataset import Dataset

EPILOG = example(
    """  $ mimetic ansatz --recipe recipes/quickstart.yaml --arm default --checkpoint w.safetensors --images 9
  layer              filters    ρ(NFM, AGOP)   untrained …
  blocks.0.spatial   64×1×5×5 …
  …
  ansatz of convmixer (w.safetensors), 8 layers, 9 images: mean ρ …

  $ mimetic ansatz --model torchvision:vgg11 --weights DEFAULT --data image_folder --path photos --kind conv

  Measure it during training instead with `measure: {ansatz: {}}` in a recipe."""
)


def ansatz(
    model: Network = None,
    recipe: RecipeFile = None,
    arm: RecipeArm = None,
    checkpoint: Checkpoint = None,
    weights: Weights = None,
    data: DataType = None,
    path: DataFolder = None,
    image_size: ImageSize = None,
    images: Annotated[
        int, typer.Option("--images", metavar="COUNT", min=1, help="How many training images.")
    ] = 256,
    mean: Mean = None,
    std: Std = None,
    classes: Classes = None,
    kind: Kinds = None,
    probes: Annotated[
        int | None,
        typer.Option(
            "--probes",
            metavar="COUNT",
            min=1,
            help="Random combinations of outputs per image; every one of up to 100 outputs, and 4 "
            "combinations of more, unless given.",
        ),
    ] = None,
    drop_bias: Annotated[
        bool, typer.Option("--drop-bias", help="Drop each layer's own bias, as the paper's code.")
    ] = False,
    seed: Annotated[
        int, typer.Option("--seed", metavar="SEED", help="Seed of the untrained network, and of probes.")
    ] = 0,
    device: Device = "auto",
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write all numbers of both networks.")
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(
            "--figures", metavar="FOLDER", help="Draw ρ over depth, leading eigen-filters and saliency maps."
        ),
    ] = None,
    allow_code: AllowCode = False,
) -> None:
    """Measure the ansatz NFM ∝ AGOP of feature learning at each layer (arXiv 2309.00570).

    The untrained network is the same one with its own initialization.
    """
    from mimetic.api import ansatz as measured
    from mimetic.cli.subject import asked, load_images, network, normalized, untrained
    from mimetic.train.devices import pick_device

    check_writable(csv, None if figures is None else figures / "depth.png")
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
    dataset = load_images(subject, images, image_size=image_size)
    assert dataset is not None
    images_NCHW = normalized(dataset, mean, std)
    place = pick_device(device)
    trained, fresh = network(subject, dataset).to(place), untrained(subject, dataset, seed=seed).to(place)
    found: list[tuple[LayerAnsatz, ...]] = []
    for what, net in (("trained", trained), ("untrained", fresh)):
        with progress(what) as tell:
            found.append(
                measured(
                    net,
                    images_NCHW,
                    initial=fresh if net is trained else None,
                    kinds=kind,
                    count=images,
                    probes=probes,
                    drop_bias=drop_bias,
                    origin=subject.origin,
                    seed=seed,
                    progress=tell,
                )
            )
    layers, untrained_layers = found
    out = console()
    out.print(_table(layers, untrained_layers))
    out.print(
        f"ansatz of {subject.origin}, {_summary(layers, untrained_layers, len(images_NCHW))}", soft_wrap=True
    )
    if csv is not None:
        write_file(csv, _csv(layers, untrained_layers))
        out.print(f"numbers {csv}", soft_wrap=True)
    if figures is not None:
        for file in _draw(figures, trained, layers, untrained_layers, dataset, images_NCHW, subject.origin):
            out.print(f"figure {file}", soft_wrap=True)


def _table(layers: "Sequence[LayerAnsatz]", untrained: "Sequence[LayerAnsatz]") -> "Table":
    """Return a row for each layer: correlations of both networks, of their NFMs, effective ranks."""
    from rich import box
    from rich.table import Table

    from mimetic.covariance.harvest import shape_of

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("layer", "filters"):
        table.add_column(column, overflow="fold")
    numbers = (
        "ρ(NFM, AGOP)",
        "untrained",
        "ρ(NFM, AGOP^½)",
        "untrained",
        "ρ(NFM₀, NFM)",
        "rank NFM",
        "rank AGOP",
    )
    for column in numbers:
        table.add_column(column, justify="right")
    for layer, fresh in zip(layers, untrained, strict=True):
        site, now, before = layer.site, layer.agreement, fresh.agreement
        assert site.geometry is not None
        rhos = (now.rho, before.rho, now.rho_half, before.rho_half, now.rho_init)
        ranks = (now.rank_nfm, now.rank_agop)
        cells = [*(f"{rho:.3f}" for rho in rhos), *(f"{rank:.1f}" for rank in ranks)]
        table.add_row(site.layer, shape_of(site.geometry), *cells)
    return table


def _summary(layers: "Sequence[LayerAnsatz]", untrained: "Sequence[LayerAnsatz]", images: int) -> str:
    rhos = [[layer.agreement.rho for layer in of] for of in (layers, untrained)]
    now, before = (sum(values) / len(values) for values in rhos)
    higher = sum(after > start for after, start in zip(*rhos, strict=True))
    counts = f"{pluralize(len(layers), 'layer')}, {pluralize(images, 'image')}"
    return f"{counts}: mean ρ {now:.3f}, untrained {before:.3f}, higher in {higher} of {len(layers)}"


def _csv(layers: "Sequence[LayerAnsatz]", untrained: "Sequence[LayerAnsatz]") -> str:
    """Return every number of both networks, a line for each layer; empty where there is none."""
    from csv import writer
    from io import StringIO

    from mimetic.covariance.ansatz import MEASURES

    text = StringIO()
    lines = writer(text, lineterminator="\n")
    lines.writerow(["layer", "kind", "depth", *MEASURES, *(f"untrained_{name}" for name in MEASURES)])
    for layer, fresh in zip(layers, untrained, strict=True):
        values = [getattr(of.agreement, name) for of in (layer, fresh) for name in MEASURES]
        lines.writerow([layer.site.layer, layer.site.kind, layer.site.depth, *values])
    return text.getvalue()


def _draw(
    folder: Path,
    model: "nn.Module",
    layers: "Sequence[LayerAnsatz]",
    untrained: "Sequence[LayerAnsatz]",
    dataset: "Dataset",
    images_NCHW: "Tensor",
    origin: str,
) -> list[Path]:
    """Draw what there is to draw into a folder, each file in one step."""
    from functools import partial

    from mimetic.analysis.ansatz import depth_figure
    from mimetic.cli.ansatz_figures import eigenfilters_of, saliency_of
    from mimetic.files import write_atomically

    series = {"trained": layers, "untrained": untrained}
    rhos = {name: {layer.site.layer: layer.agreement.rho for layer in of} for name, of in series.items()}
    drawn = {
        "depth.png": depth_figure(rhos, title=origin),
        "eigenfilters.png": eigenfilters_of(layers, title=origin),
        "saliency.png": saliency_of(model, layers, dataset, images_NCHW, title=origin),
    }
    files = []
    for name, figure in drawn.items():
        if figure is not None:
            write_atomically(folder / name, partial(figure.savefig, format="png", dpi=130))
            files.append(folder / name)
    return files
