"""Check match conditions against a site and report the first that fails."""

from mimetic.config.patterns import fullmatch
from mimetic.graph.config import Match, Range
from mimetic.graph.site import Site

_SIZES = ("kernel_size", "in_channels", "out_channels", "stride", "groups")


def mismatch(match: Match, site: Site, layer: str | None = None) -> str | None:
    """Return the first condition that a site fails, as text, or None if it fails none.

    Args:
        match: The conditions, except `param`.
        site: The site.
        layer: Another name of the layer, for tied weights; default: the site's.
    """
    name = site.layer if layer is None else layer
    if match.layer is not None and fullmatch(match.layer, name) is None:
        return f"its name does not match `{match.layer}`"
    if match.kind is not None and match.kind != site.kind:
        return f"it is of kind `{site.kind}`, not `{match.kind}`"
    if match.class_ is not None and match.class_ not in site.classes:
        return f"it is a {site.classes[0]}, not a {match.class_}"
    if match.depth is not None and not match.depth[0] <= site.depth <= match.depth[1]:
        return f"its depth {site.depth:.3g} is outside {list(match.depth)}"
    return _size_mismatch(match, site)


def _size_mismatch(match: Match, site: Site) -> str | None:
    for quantity in _SIZES:
        allowed: Range | None = getattr(match, quantity)
        if allowed is None:
            continue
        value = _size(site, quantity)
        if not allowed.contains(value):
            return f"it has no {quantity}" if value is None else f"its {quantity} is {value}"
    return None


def _size(site: Site, quantity: str) -> int | None:
    if site.geometry is None:
        return None
    value = getattr(site.geometry, quantity)
    if isinstance(value, tuple):
        return max(value) if value else None
    return int(value)
