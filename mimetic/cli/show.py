"""`mimetic show`: what a covariance file holds."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mimetic.cli.console import check_writable, console, example, new_table, pluralize
from mimetic.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from mimetic.covariance.harvest import Harvest, Harvested

EPILOG = example(
    """  $ mimetic show agop.safetensors --picture agop.png
  agop.safetensors: agop of convmixer (w.safetensors), 10 layers, digest …
  layer              kind             filters     patch       rank …
  stem.conv          pointwise_conv   64×1×1×1    1×1×1     1 of 1 …
  blocks.0.spatial   depthwise_conv   64×1×5×5    1×5×5   25 of 25 …
  …
  picture agop.png"""
)


Picture = Annotated[
    Path | None,
    typer.Option("--picture", metavar="FILE", help="Draw spectra and leading eigen-filters (png, pdf, svg)."),
]


def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The covariance file.", show_default=False)],
    picture: Picture = None,
) -> None:
    """Show the covariances in a file, layer by layer: geometry, rank, trace, spectrum and repairs."""
    from mimetic.covariance.store import load_harvest

    check_picture(picture)
    check_writable(picture)
    found = load_harvest(file)
    out = console()
    content = f"{found.statistic} of {found.origin}, {pluralize(len(found.layers), 'layer')}"
    out.print(f"{file}: {content}, digest {found.digest}", soft_wrap=True)
    out.print(harvest_table(found))
    for note, layers in _notes(found).items():
        more = f" and {len(layers) - 1} more" if len(layers) > 1 else ""
        out.print(f"  {layers[0]}{more}: {note}", soft_wrap=True)
    if picture is not None:
        draw(found, picture)
        out.print(f"picture {picture}", soft_wrap=True)


def harvest_table(harvest: "Harvest") -> "Table":
    """Return a table with a row for each layer."""
    numbers = ("rank", "trace", "largest", "smallest", "effective")
    table = new_table(("layer", "kind", "filters", "patch"), numbers)
    for harvested in harvest.layers:
        table.add_row(*_cells(harvested))
    return table


def _cells(harvested: "Harvested") -> list[str]:
    from mimetic.covariance.algebra import effective_rank
    from mimetic.covariance.harvest import shape_of

    cov = harvested.covariance
    assert cov is not None
    values, provenance = cov.eigenvalues(), cov.provenance
    rank = cov.rank if provenance.rank is None else provenance.rank
    smallest = 0.0 if provenance.smallest_eigenvalue is None else provenance.smallest_eigenvalue
    effective = effective_rank(values) if cov.trace > 0.0 else 0.0
    return [
        harvested.layer,
        harvested.kind,
        shape_of(harvested.geometry),
        str(cov.patch),
        f"{rank} of {cov.patch.size}",
        f"{cov.trace:.4g}",
        f"{float(values[0]):.4g}",
        f"{smallest:.2g}",
        f"{effective:.1f}",
    ]


def _notes(harvest: "Harvest") -> dict[str, list[str]]:
    """Return repairs and notes with the layers they were made of."""
    notes: dict[str, list[str]] = {}
    for harvested in harvest.layers:
        assert harvested.covariance is not None
        provenance = harvested.covariance.provenance
        for note in (provenance.repair, *provenance.notes):
            if note is not None:
                notes.setdefault(note, []).append(harvested.layer)
    return notes


def draw(harvest: "Harvest", picture: Path) -> None:
    """Draw a harvest into a file, in one step.

    Raises:
        UserError: If the file's ending is none of a picture.
    """
    from mimetic.analysis.harvest import COLUMNS, Spectrum, harvest_figure
    from mimetic.analysis.style import save_figure
    from mimetic.covariance.pictures import eigenfilters

    check_picture(picture)
    layers = {}
    for harvested in harvest.layers:
        cov = harvested.covariance
        assert cov is not None
        values_K, filters_NHW = cov.eigenvalues(), eigenfilters(cov, COLUMNS)
        mean = "" if cov.patch.channels == 1 else f", filters of the mean over {cov.patch.channels} channels"
        layers[harvested.layer] = Spectrum(
            values_K.numpy(),
            None if filters_NHW is None else filters_NHW.numpy(),
            f"trace {cov.trace:.3g}{mean}",
        )
    title = f"{harvest.statistic} of {harvest.origin}"
    save_figure(picture, lambda: harvest_figure(layers, title=title), dpi=150)


def check_picture(picture: Path | None) -> None:
    """Refuse a picture of a format that cannot be written, before the work is done."""
    if picture is not None and picture.suffix not in {".png", ".pdf", ".svg"}:
        raise UserError(
            f"--picture: {picture} ends in none of .png, .pdf and .svg; choose one of these", code="MIM-X140"
        )
