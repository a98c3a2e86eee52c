"""`mimetic show`: what a file of covariances, or of statistics of attention, contains."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mimetic.cli.console import (
    Json,
    check_writable,
    console,
    example,
    print_item,
    print_json,
    print_notes,
    print_table,
)
from mimetic.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from mimetic.covariance.atlas import Entry
    from mimetic.covariance.config import Fit
    from mimetic.covariance.harvest import Harvest
    from mimetic.initializers.attention_statistics import AttentionStatistics

EPILOG = example(
    """  $ mimetic show agop.safetensors --picture agop.png
  agop.safetensors: agop of convmixer (w.safetensors), 10 layers, digest …
  layer             kind            filters   patch      rank …
  stem.conv         pointwise_conv  64×1×1×1  1×1×1    1 of 1 …
  blocks.0.spatial  depthwise_conv  64×1×5×5  1×5×5  25 of 25 …
  …
  picture agop.png

  $ mimetic show atlas:convmixer-64-8-k7-p2-cifar10 --fit closed_form
  …
  layer             kind            depth   width    scale  explained
  blocks.0.spatial  depthwise_conv   0.00  0.3193   0.2479        35%
  …"""
)


_ATLAS = "atlas:"

Picture = Annotated[
    Path | None,
    typer.Option("--picture", metavar="FILE", help="Draw spectra and leading eigen-filters (png, pdf, svg)."),
]


def show(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="A file that `mimetic harvest` wrote, or `atlas:NAME` for one of the atlas.",
            show_default=False,
        ),
    ],
    picture: Picture = None,
    fit: Annotated[
        str | None,
        typer.Option(
            "--fit",
            metavar="FORMULA",
            help="Fit a formula to each layer: closed_form, with its width over depth, or v1.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the covariances in a file, layer by layer, or its statistics of attention."""
    from mimetic.covariance.atlas import atlas, find_entry
    from mimetic.covariance.formula import fit_table
    from mimetic.covariance.store import ATTENTION, FORMAT, load_harvest, read_header

    # the file
    check_picture(picture)
    check_writable(picture)
    entry = find_entry(file.removeprefix(_ATLAS)) if file.startswith(_ATLAS) else None
    path = Path(file) if entry is None else entry.path
    if entry is None and not path.exists() and (file.isidentifier() or file in atlas()):
        meant = f"{_ATLAS}{file}" if file in atlas() else f"mimetic ls {file}"
        raise UserError(f"there is no file {file}; did you mean `{meant}`?", code="MIM-X143")
    if entry is None and path.suffix in {".yaml", ".yml"}:
        raise UserError(
            f"{file} is no file of covariances; for a recipe: mimetic plan {file}", code="MIM-X144"
        )
    if read_header(path, (FORMAT, ATTENTION))["format"] == ATTENTION:
        _show_attention(file, path, entry, is_refused=picture is not None or fit is not None, as_json=as_json)
        return

    # its covariances
    found = load_harvest(path)
    table = None if fit is None else fit_table(_formula(fit), found)
    if picture is not None:
        draw(found, picture)
    if as_json:
        record = _record(found, entry)
        if table is not None:
            fits = [dict(zip(table.header, row, strict=True)) for row in table.rows]
            record |= {"fits": fits, "sections": table.notes}
        print_json(record)
        return
    out = console()
    _print_head(out, file, found, entry)
    print_notes(out, _notes(found))
    if table is not None:
        print_table(out, table)
        for note in table.notes:
            out.print(f"  {note}", soft_wrap=True)
    if picture is not None:
        out.print(f"picture {picture}", soft_wrap=True)


def _show_attention(file: str, path: Path, entry: "Entry | None", *, is_refused: bool, as_json: bool) -> None:
    """Print a file's statistics of attention.

    Raises:
        UserError: If a picture or a formula is wanted.
    """
    from mimetic.initializers.attention_statistics import load_attention

    if is_refused:
        raise UserError(
            f"{file} has statistics of attention; --picture and --fit are for covariances, leave them out",
            code="MIM-X142",
        )
    found = load_attention(path)
    if as_json:
        print_json(_record(found, entry))
        return
    _print_head(console(), file, found, entry)


def _record(found: "Harvest | AttentionStatistics", entry: "Entry | None") -> dict[str, object]:
    """Return what a file has as plain values, with the card of an entry of the atlas."""
    return found.to_dict() | ({} if entry is None else {"card": entry.card.model_dump()})


def _print_head(
    out: "Console", file: str, found: "Harvest | AttentionStatistics", entry: "Entry | None"
) -> None:
    """Print the card of an entry of the atlas, and the table."""
    if entry is not None:
        for name, text in entry.card.model_dump(exclude_defaults=True).items():
            print_item(out, name, text, width=10)
    out.print(f"{file}: {found.summary}, digest {found.digest}", soft_wrap=True)
    print_table(out, found.table())


def _formula(name: str) -> "Fit":
    """Return a formula by name, with its defaults.

    Raises:
        UserError: If there is none.
    """
    from mimetic.config.registry import registered
    from mimetic.config.suggest import listed
    from mimetic.covariance.config import Fit

    types = registered("fit")
    if name not in types:
        raise UserError(
            f"--fit: there is no formula `{name}`; choose one of {listed(types)}", code="MIM-X141"
        )
    found = types[name].model_validate({"type": name})
    assert isinstance(found, Fit)
    return found


def _notes(harvest: "Harvest") -> "Iterator[tuple[str, str]]":
    """Yield layers with their repairs and notes."""
    for harvested in harvest.layers:
        assert harvested.covariance is not None
        provenance = harvested.covariance.provenance
        yield from ((harvested.layer, n) for n in (provenance.repair, *provenance.notes) if n is not None)


def draw(harvest: "Harvest", picture: Path) -> None:
    """Draw a harvest into a file, whose ending `check_picture` has checked."""
    from mimetic.analysis.harvest import COLUMNS, Spectrum, harvest_figure
    from mimetic.analysis.style import save_figure
    from mimetic.covariance.pictures import eigenfilters

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
