"""`mimetic ansatz`: how far NFM ∝ AGOP holds at each layer of a trained network, and of an untrained one."""

from dataclasses import dataclass
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
    progress,
    write_file,
)
from mimetic.cli.options import (
    ImageOptions,
    MeasureOptions,
    NetworkOptions,
    WeightOptions,
    expand,
    subject_of,
)
from mimetic.printable import pluralize
from mimetic.tables import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mimetic.covariance.ansatz import LayerAnsatz

EPILOG = example(
    """  $ mimetic ansatz --recipe recipes/quickstart.yaml --arm default --checkpoint w.safetensors --images 9
  layer             filters   ρ(NFM, AGOP)  untrained …
  blocks.0.spatial  64×1×5×5 …
  …
  ansatz of convmixer (w.safetensors), 8 layers, 9 images: mean ρ …

  $ mimetic ansatz --model torchvision:vgg11 --weights DEFAULT --data image_folder --path photos --kind conv

  Measure it during training instead with `measure: {ansatz: {}}` in a recipe."""
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsatzOutput:
    """Files that are written."""

    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write all numbers of both networks.")
    ] = None
    figures: Annotated[
        Path | None,
        typer.Option(
            "--figures", metavar="FOLDER", help="Draw ρ over depth, leading eigen-filters and saliency maps."
        ),
    ] = None


@expand
def ansatz(
    network: NetworkOptions,
    weights: WeightOptions,
    data: ImageOptions,
    measure: MeasureOptions,
    output: AnsatzOutput,
    images: Annotated[
        int, typer.Option("--images", metavar="COUNT", min=1, help="How many training images.")
    ] = 256,
    as_json: Json = False,
) -> None:
    """Measure the ansatz NFM ∝ AGOP of feature learning at each layer (arXiv 2309.00570).

    The untrained network is the same one with its own initialization.
    """
    from mimetic.api import measuring
    from mimetic.train.devices import pick_device

    # the network, as it was trained and as it starts
    probes = measure.probe_count()
    check_writable(output.csv, None if output.figures is None else output.figures / "depth.png")
    subject = subject_of(network, data, count=images, weights=weights)
    source, dataset, images_NCHW = subject.source, subject.dataset, subject.images_NCHW
    assert source is not None
    assert dataset is not None
    assert images_NCHW is not None
    device = pick_device(measure.device)
    trained, untrained = source.load().to(device), source.build(seed=measure.seed).model.to(device)

    # measure both
    found: list[tuple[LayerAnsatz, ...]] = []
    for label, model in (("trained", trained), ("untrained", untrained)):
        with progress(label) as report:
            found.append(
                measuring.ansatz(
                    model,
                    images_NCHW,
                    count=images,
                    probes=probes,
                    drop_bias=measure.drop_bias,
                    initial=untrained if model is trained else None,
                    kinds=measure.kind,
                    origin=source.name,
                    seed=measure.seed,
                    progress=report,
                )
            )
    layers, untrained_layers = found

    # write and print
    if output.csv is not None:
        write_file(output.csv, csv_text(_records(layers, untrained_layers)))
    if as_json:
        header, *rows = _records(layers, untrained_layers)
        found_layers = [dict(zip(map(str, header), row, strict=True)) for row in rows]
        print_json({"network": source.name, "images": len(images_NCHW), "layers": found_layers})
        return
    out = console()
    print_table(out, _table(layers, untrained_layers))
    summary = _summary(layers, untrained_layers, len(images_NCHW))
    out.print(f"ansatz of {source.name}, {summary}", soft_wrap=True)
    if output.csv is not None:
        out.print(f"numbers {output.csv}", soft_wrap=True)
    if output.figures is not None:
        from mimetic.cli.ansatz_figures import draw_figures

        series = {"trained": layers, "untrained": untrained_layers}
        for file in draw_figures(output.figures, trained, series, dataset, images_NCHW, title=source.name):
            out.print(f"figure {file}", soft_wrap=True)


def _table(layers: "Sequence[LayerAnsatz]", untrained: "Sequence[LayerAnsatz]") -> Table:
    """Return a row for each layer: correlations of both networks, of their NFMs, effective ranks."""
    from mimetic.covariance.harvest import shape_of

    rho, rho_half = ("ρ(NFM, AGOP)", "untrained"), ("ρ(NFM, AGOP^½)", "untrained^½")
    header = ("layer", "filters", *rho, *rho_half, "ρ(NFM₀, NFM)", "rank NFM", "rank AGOP")
    rows = []
    for layer, fresh in zip(layers, untrained, strict=True):
        site, now, before = layer.site, layer.agreement, fresh.agreement
        assert site.geometry is not None
        rhos = (now.rho, before.rho, now.rho_half, before.rho_half, now.rho_init)
        ranks = (now.rank_nfm, now.rank_agop)
        cells = [*(f"{rho:.3f}" for rho in rhos), *(f"{rank:.1f}" for rank in ranks)]
        rows.append((site.layer, shape_of(site.geometry), *cells))
    optional = ("untrained^½", "rank AGOP", "rank NFM", "filters", "ρ(NFM₀, NFM)", "ρ(NFM, AGOP^½)")
    return Table("", header, tuple(rows), optional=optional, left=2)


def _summary(layers: "Sequence[LayerAnsatz]", untrained: "Sequence[LayerAnsatz]", images: int) -> str:
    rhos = [[layer.agreement.rho for layer in of] for of in (layers, untrained)]
    now, before = (sum(values) / len(values) for values in rhos)
    higher = sum(after > start for after, start in zip(*rhos, strict=True))
    counts = f"{pluralize(len(layers), 'layer')}, {pluralize(images, 'image')}"
    return f"{counts}: mean ρ {now:.3f}, untrained {before:.3f}, higher in {higher} of {len(layers)}"


def _records(layers: "Sequence[LayerAnsatz]", untrained: "Sequence[LayerAnsatz]") -> list[list[object]]:
    """Return a header and every number of both networks, a row for each layer; None where there is none."""
    from mimetic.covariance.ansatz import MEASURES

    rows: list[list[object]] = [
        ["layer", "kind", "depth", *MEASURES, *(f"untrained_{name}" for name in MEASURES)]
    ]
    for layer, fresh in zip(layers, untrained, strict=True):
        values = [getattr(of.agreement, name) for of in (layer, fresh) for name in MEASURES]
        rows.append([layer.site.layer, layer.site.kind, layer.site.depth, *values])
    return rows
