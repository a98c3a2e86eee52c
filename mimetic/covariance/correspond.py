"""Which layers of a harvest stand for a layer of ours: by depth fraction, by name, or by a map."""

from collections.abc import Collection
from difflib import get_close_matches
from typing import NamedTuple

from mimetic.covariance.config import Transferred
from mimetic.covariance.harvest import Harvest, Harvested, described
from mimetic.covariance.transfer import depth_position
from mimetic.errors import UserError
from mimetic.graph.site import Site


class Part(NamedTuple):
    """A layer of the harvest and its share in what ours gets."""

    harvested: Harvested
    share: float


def correspondence(spec: Transferred, harvest: Harvest, site: Site) -> tuple[tuple[Part, ...], str]:
    """Return the layers that stand for ours with shares that sum to 1, and a note that says which.

    By depth they are those of `spec.kind` (our layer's own kind unless given), placed by their order
    among each other: the first stands for depth 0, the last for depth 1.

    Raises:
        UserError: If there is none; names our layer and what the harvest has.
    """
    if spec.layers == "depth":
        return _by_depth(spec, harvest, site)
    name = site.layer if spec.layers == "name" else _mapped(spec.layers, harvest, site)
    found = harvest.layer(name)
    if found is None:
        raise _missing(name, harvest, site)
    if spec.kind is not None and found.kind != spec.kind:
        raise UserError(
            f"{site.layer}: {found} of {harvest.origin} corresponds to it, and `kind` is "
            f"`{spec.kind}`; leave `kind` out, or name another layer",
            code="MIM-V131",
        )
    return (Part(found, 1.0),), f"from {name} of {harvest.origin}"


def _by_depth(spec: Transferred, harvest: Harvest, site: Site) -> tuple[tuple[Part, ...], str]:
    kind = site.kind if spec.kind is None else spec.kind
    candidates = [harvested for harvested in harvest.layers if harvested.kind == kind]
    if not candidates:
        raise _no_kind(kind, harvest, site)
    lower, share = depth_position(site.depth, len(candidates))
    if spec.between == "nearest":
        lower, share = lower + round(share), 0.0
    first = candidates[lower]
    at = f"depth {site.depth:.2f}"
    if share == 0.0:
        return (Part(first, 1.0),), f"{at} at {first.layer} of {harvest.origin}"
    second = candidates[lower + 1]
    parts = (Part(first, 1.0 - share), Part(second, share))
    return parts, f"{at} between {first.layer} and {second.layer} of {harvest.origin}"


def _mapped(names: object, harvest: Harvest, site: Site) -> str:
    assert isinstance(names, dict)
    if site.layer not in names:
        raise UserError(
            f"{site.layer}: the map `layers` names no layer of {harvest.origin} for this "
            f"{described(site.kind, site.geometry)}; add `{site.layer}: <its layer>`, "
            "or use `layers: depth`",
            code="MIM-V132",
        )
    return str(names[site.layer])


def _missing(name: str, harvest: Harvest, site: Site) -> UserError:
    known = [harvested.layer for harvested in harvest.layers]
    ours = described(site.kind, site.geometry)
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean `{close[0]}`? " if close else ""
    return UserError(
        f"{site.layer}: {harvest.origin} has no measured layer `{name}` for this {ours}; "
        f"{hint}it has {_listing(known)}; use `layers: depth`, or a map from our names to its",
        code="MIM-V133",
    )


def _no_kind(kind: str, harvest: Harvest, site: Site) -> UserError:
    kinds = dict.fromkeys(harvested.kind for harvested in harvest.layers)
    firsts = (next(str(h) for h in harvest.layers if h.kind == found) for found in kinds)
    return UserError(
        f"{site.layer}: {harvest.origin} has no layer of kind `{kind}` for this "
        f"{described(site.kind, site.geometry)}; it has {', '.join(firsts)} and the like; "
        f"choose one of its kinds, e.g. `kind: {next(iter(kinds))}`, or match other layers",
        code="MIM-V134",
    )


def _listing(names: Collection[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in list(names)[:8])
    return shown if len(names) <= 8 else f"{shown} … ({len(names)} in all)"  # noqa: PLR2004
