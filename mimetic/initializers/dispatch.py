"""From a rule and a layer to the draw that carries it out."""

from functools import singledispatch

from mimetic.config.registry import Component
from mimetic.covariance.context import Harvests
from mimetic.errors import UserError
from mimetic.graph.site import Site
from mimetic.initializers.config import Default, FromNetwork, Keep, Rainbow, WeightSelection, WeightTiling
from mimetic.initializers.default import default
from mimetic.initializers.draw import ResolvedInit
from mimetic.initializers.keep import keep
from mimetic.initializers.rainbow import rainbow
from mimetic.initializers.transplant import transplant
from mimetic.initializers.univariate import univariate


@singledispatch
def made(spec: Component) -> frozenset[str] | None:  # noqa: ARG001 - its registered kin use it
    """Return the names of the slots an initializer makes; None for all, as one that fills layers."""
    return None


@singledispatch
def named(spec: Component, site: Site, names: tuple[str, ...]) -> ResolvedInit:
    """Return the draw of a named initializer: by its law, unless it registers a draw of its own.

    Initializers that fill several parameters together join by `named.register(TheirSpec)`, those of one
    tensor by `laws.law.register(TheirSpec)`.
    """
    return univariate(spec, site, names)


@named.register
def _(spec: Keep, site: Site, names: tuple[str, ...]) -> ResolvedInit:  # noqa: ARG001
    return keep()


@named.register
def _(spec: Default, site: Site, names: tuple[str, ...]) -> ResolvedInit:  # noqa: ARG001
    return default(site, names)


@singledispatch
def from_network(spec: FromNetwork, site: Site, names: tuple[str, ...], harvests: Harvests) -> ResolvedInit:  # noqa: ARG001
    """Return the draw of an initializer that begins from a trained network.

    Others join by `from_network.register(TheirSpec)`; the network lies in `harvests`, see
    `covariance.Network`.
    """
    message = f"{site.layer}: the init `{spec.type_name()}` is registered but nothing carries it out; "
    raise UserError(message + "register a function with `initializers.dispatch.from_network.register`")


@from_network.register
def _(spec: Rainbow, site: Site, names: tuple[str, ...], harvests: Harvests) -> ResolvedInit:
    return rainbow(spec, site, names, harvests)


@from_network.register
def _(
    spec: WeightSelection | WeightTiling, site: Site, names: tuple[str, ...], harvests: Harvests
) -> ResolvedInit:
    return transplant(spec, site, names, harvests)


from mimetic.initializers import attention_draws, bank, mimetic_mlp, mimetic_ssm, positions  # noqa: E402, F401
