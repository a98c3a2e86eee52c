"""Covariance files: factors as safetensors, what they mean as JSON in the header.

A file contains the covariances of several layers by name. It is written in one step and read without
unpickling anything; nothing from it is used before shapes, dtypes, finiteness and digests have been
checked.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mimetic.covariance.covariance import Covariance, PatchGeometry, Provenance
from mimetic.covariance.harvest import Harvest, Harvested
from mimetic.errors import RunError, UserError
from mimetic.files import parse_json, write_atomically
from mimetic.graph.site import Geometry
from mimetic.limits import COVARIANCE_BYTES

FORMAT = "mimetic.covariance/1"
ATTENTION = "mimetic.attention/1"
"""Format of files of statistics of attention, whose header has all numbers and which have no tensors."""

_LARGEST = 2**31
"""Numbers in headers are smaller."""

_KEY = "mimetic"
_DIGEST = "digest"


def save(
    path: Path, covariances: Mapping[str, Covariance], *, about: Mapping[str, object] | None = None
) -> None:
    """Write covariances by layer name, in full or not at all.

    Args:
        path: The file; its folder is made if it is missing.
        covariances: At least one.
        about: Plain values for the reader: model, data, statistic, images.

    Raises:
        RunError: If there is nothing to write.
    """
    if not covariances:
        raise RunError(
            f"{path}: there are no covariances to write; nothing was measured",
            code="MIM-V231",
        )
    header = {
        "format": FORMAT,
        "about": dict(about) if about is not None else {},
        "layers": {name: _described(cov) for name, cov in covariances.items()},
    }
    save_header(path, header, _unshared({name: cov.factor_RD for name, cov in covariances.items()}))


def save_header(
    path: Path, header: Mapping[str, object], tensors: Mapping[str, torch.Tensor] | None = None
) -> None:
    """Write a header and tensors, in full or not at all."""
    stored = {} if tensors is None else dict(tensors)
    metadata = metadata_of(header)
    write_atomically(path, lambda temporary: save_file(stored, temporary, metadata=metadata))


def metadata_of(header: Mapping[str, object]) -> dict[str, str]:
    """Return a header as the metadata of a safetensors file, with its digest."""
    text = json.dumps(header, ensure_ascii=False, sort_keys=False)
    return {_KEY: text, _DIGEST: _digest(text)}


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _unshared(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors that share no memory, which safetensors refuses to write."""
    plain, seen = {}, set[int]()
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage().data_ptr()
        plain[name] = tensor.contiguous() if storage not in seen else torch.empty_like(tensor).copy_(tensor)
        seen.add(storage)
    return plain


def load(path: Path) -> dict[str, Covariance]:
    """Read the covariances of a file by layer name, in the order they were written.

    Raises:
        UserError: If the file is missing, not one of ours, too large, damaged, or does not match its
            header.
    """
    header = read_header(path)
    with safe_open(path, framework="pt") as opened:
        names = set(opened.keys())
        layers = header["layers"]
        if names != set(layers):
            odd = min(names.symmetric_difference(layers))
            raise damaged(path, f"header and tensors disagree about `{odd}`")
        return {name: _read(path, name, about, opened.get_tensor(name)) for name, about in layers.items()}


def save_harvest(path: Path, harvest: Harvest, *, about: Mapping[str, object] | None = None) -> None:
    """Write a harvest, its layers' kinds, depths and geometries included, in full or not at all.

    Args:
        path: The file; its folder is made if it is missing.
        harvest: One that is measured.
        about: Plain values for the reader: model, data, options.

    Raises:
        RunError: If there is nothing to write, or nothing is measured yet.
    """
    covariances = {h.layer: h.covariance for h in harvest.layers if h.covariance is not None}
    if len(covariances) < len(harvest.layers):
        raise RunError(
            f"{path}: {harvest.statistic} of {harvest.origin} is not harvested yet; nothing is written",
            code="MIM-V232",
        )
    layers = {h.layer: {"kind": h.kind, "depth": h.depth, **asdict(h.geometry)} for h in harvest.layers}
    described = {
        "origin": harvest.origin,
        "statistic": harvest.statistic,
        "spatial": harvest.spatial,
        "layers": layers,
    }
    save(path, covariances, about={**(about if about is not None else {}), "harvest": described})


def load_harvest(path: Path) -> Harvest:
    """Read a harvest.

    Raises:
        UserError: As `load`, and if the file does not name the layers of its covariances.
    """
    covariances = load(path)
    about = read_header(path)["about"].get("harvest")
    try:
        layers = tuple(_harvested(name, about["layers"][name], cov) for name, cov in covariances.items())
        spatial = bool(about.get("spatial", about["statistic"] == "filters"))
        return Harvest(str(about["origin"]), str(about["statistic"]), layers, spatial)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: does not describe the layers its covariances come from ({error}); "
            "harvest it again with `mimetic harvest`",
            code="MIM-V233",
        ) from error


def _harvested(name: str, about: Any, cov: Covariance) -> Harvested:
    sides = {side: tuple(count_of(n) for n in about[side]) for side in ("kernel_size", "stride")}
    geometry = Geometry(
        count_of(about["in_channels"]),
        count_of(about["out_channels"]),
        groups=count_of(about["groups"]),
        transposed=bool(about["transposed"]),
        **sides,
    )
    depth = number_of(about["depth"])
    if not 0.0 <= depth <= 1.0:
        raise ValueError(f"`{name}` has a depth of {depth}, outside 0 to 1")
    if cov.patch.kernel_size != geometry.kernel_size or cov.patch.channels not in {
        1,
        geometry.patch_channels,
    }:
        raise ValueError(f"`{name}` has a covariance over {cov.patch}, which its filters do not see")
    if geometry.in_channels % geometry.groups or geometry.out_channels % geometry.groups:
        raise ValueError(f"`{name}` has channels that do not divide into its groups")
    return Harvested(name, str(about["kind"]), depth, geometry, cov)


def number_of(value: object) -> float:
    """Return a number of a header; NaN, infinity and text are ValueErrors."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < math.inf:
        raise ValueError(f"{value!r} is not a finite number")
    return float(value)


def count_of(value: object) -> int:
    """Return a positive whole number of a header; others are ValueErrors."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < _LARGEST:
        raise ValueError(f"{value!r} is not a positive whole number")
    return value


def read_header(path: Path, formats: tuple[str, ...] = (FORMAT,)) -> dict[str, Any]:
    """Return the header of a file: `format`, `about`, and patch and provenance of each of `layers`.

    Args:
        path: The file.
        formats: Formats that it may have.

    Raises:
        UserError: If it is not a file of ours, or of another format.
    """
    # 1. The file is there, and of bounded size.
    if not path.is_file():
        raise UserError(
            f"{path}: there is no such covariance file; `mimetic harvest` writes one",
            code="MIM-V234",
        )
    size = path.stat().st_size
    if COVARIANCE_BYTES.is_exceeded_by(size):
        raise UserError(
            f"{path}: a file of {COVARIANCE_BYTES.describe(size)}; {COVARIANCE_BYTES.repair}", code="MIM-V235"
        )
    # 2. Its header is one of ours, of a format that is wanted.
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise damaged(path, f"not a safetensors file ({error})") from error
    try:
        header = parse_json(metadata[_KEY])
        known = header["format"] in formats and all(isinstance(header[k], dict) for k in ("about", "layers"))
    except (KeyError, TypeError, ValueError):
        known = False
    if not known:
        nouns = {FORMAT: "covariances", ATTENTION: "statistics of attention"}
        wanted = " or ".join(f"{nouns[name]} of this version (`{name}`)" for name in formats)
        raise UserError(
            f"{path}: has no {wanted}; harvest it again, or use a source that reads weights if it is a "
            "checkpoint",
            code="MIM-V236",
        )
    # 3. And it is the one that was written.
    if metadata.get(_DIGEST) != _digest(metadata[_KEY]):
        raise damaged(path, "the header is not the one that was written")
    return dict(header)


def _described(cov: Covariance) -> dict[str, object]:
    return {
        "channels": cov.patch.channels,
        "kernel_size": list(cov.patch.kernel_size),
        "rank": cov.rank,
        "provenance": asdict(cov.provenance),
        "digest": cov.digest(),
    }


def _read(path: Path, name: str, about: Any, factor_RD: torch.Tensor) -> Covariance:
    try:
        patch = PatchGeometry(
            count_of(about["channels"]), tuple(count_of(side) for side in about["kernel_size"])
        )
        provenance = _provenance(dict(about["provenance"]))
        digest = about["digest"]
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(path, f"the header of `{name}` is not readable ({error})") from error
    try:
        cov = Covariance(factor_RD, patch, provenance)
    except UserError as error:
        raise UserError(f"{path}: `{name}`: {error}", code=error.code) from error
    if cov.digest() != digest:
        raise damaged(path, f"the numbers of `{name}` are not those that were written")
    return cov


def _provenance(about: dict[str, Any]) -> Provenance:
    """Return a provenance whose values are of the right kind."""
    texts = ("source", "repair", "digest")
    for name, value in about.items():
        if name in texts and value is not None:
            about[name] = str(value)
        elif name not in {*texts, "notes"} and value is not None:
            number_of(value)
    return Provenance(**{**about, "notes": tuple(str(note) for note in about.get("notes", ()))})


def damaged(path: Path, what: str) -> UserError:
    """Return the error of a damaged file."""
    return UserError(f"{path}: {what}; the file is damaged, harvest it again", code="MIM-V238")
