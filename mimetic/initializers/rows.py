"""`rows`: new rows of a table, of the mean and covariance of its old ones.

A row is μ + τ/√(n − 1)·Zᵀ(X − μ) with the old rows X (n, d), their mean μ, and Z ~ N(0, I), so that it
follows N(μ, τ²Σ) with the sample covariance Σ of any rank: nothing is inverted, and no matrix must be
positive definite. Where many rows are drawn, the factor (X − μ)/√(n − 1) is replaced by the symmetric root of
Σ, of the same distribution. Rows that the layer keeps at zero (`padding_idx`) are no sample.

Shapes: N old rows, M new rows, D columns, R rows of a factor; of a bias, rows are numbers.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mimetic.covariance.context import Context
from mimetic.covariance.linalg import multiply, symmetric_root
from mimetic.covariance.network import TrainedNetwork
from mimetic.errors import UserError
from mimetic.graph.computed import tensor_in_use
from mimetic.graph.site import Parameter, Site, shape_text
from mimetic.initializers.config import Rows
from mimetic.initializers.distributions import check_dimensions
from mimetic.initializers.resolved import ResolvedInit, Streams, not_trained, source_network
from mimetic.threads import one_thread

SLOT = "rows"

_BLOCK = 192
"""Columns of the Gram matrix that are computed at once: of a symmetric matrix the half above suffices."""

_NORMALS = 2**23
"""Most normal numbers that are drawn at once."""

_FEW = 3
"""The factor itself is used for fewer than D/3 rows."""


def rows(spec: Rows, site: Site, context: Context) -> ResolvedInit:
    """Resolve the new rows of a table, its old rows unchanged or copied from another network.

    Raises:
        UserError: If the tensor has no rows, no new ones, or others than the network of `from`.
    """
    network = None if spec.from_ is None else source_network(spec, site, context)
    sources = {local: _source(spec, site.parameter(local), network) for local in context.parameters}
    # How many rows are old is known without values.
    counts: dict[str, int] = {}
    for local, source in sources.items():
        parameter = site.parameter(local)
        check_dimensions(spec, parameter.shape, (1, 2))
        shape = parameter.shape if source is None else source[1].shape
        counts[local] = _old_rows(spec, site, parameter, shape)

    def sample(streams: Streams, layer: nn.Module) -> Mapping[str, Tensor]:
        drawn = {}
        for local, source in sources.items():
            stored = tensor_in_use(layer, local) if source is None else _values(network, *source)
            stream = streams(local, SLOT)
            drawn[local] = _filled(stored, site, local, old=counts[local], tau=spec.tau, stream=stream)
        return drawn

    about = {} if network is None else {"digest": network.digest or "pending"}
    given = spec.model_dump(by_alias=True, exclude={"type"}, exclude_none=True)
    return ResolvedInit(
        name=spec.type_name(),
        arguments={**given, **about},
        sample=sample,
        notes=tuple(_note(site.parameter(local), site, count, spec) for local, count in counts.items()),
    )


def drawn_rows(old_ND: Tensor, count: int, tau: float, stream: torch.Generator, *, name: str) -> Tensor:
    """Return new rows (M, D) of N(μ, τ²Σ), μ and Σ the mean and sample covariance of old ones; float64.

    Raises:
        UserError: If the old rows are not finite.
    """
    with one_thread():
        factor_RD = old_ND.to(torch.float64, copy=True)
        mean_D = factor_RD.mean(dim=0)
        factor_RD.sub_(mean_D).mul_(tau / math.sqrt(max(len(factor_RD) - 1, 1)))
    if not bool(mean_D.isfinite().all()):
        raise UserError(
            f"{name}: its old rows have NaN or infinite values; load another checkpoint, or set `old`",
            code="MIM-I119",
        )
    columns = factor_RD.shape[1]
    if len(factor_RD) > columns and count * _FEW >= columns:
        factor_RD, _ = symmetric_root(_gram(factor_RD))
    new_MD = torch.empty(count, columns, dtype=torch.float64)
    for block_MD in torch.split(new_MD, max(1, _NORMALS // len(factor_RD))):
        noise_MR = torch.randn(len(block_MD), len(factor_RD), dtype=torch.float64, generator=stream)
        block_MD.copy_(multiply(noise_MR, factor_RD).add_(mean_D))
    return new_MD


def _gram(factor_ND: Tensor) -> Tensor:
    """Return FᵀF, of which the part above the diagonal is computed."""
    columns = factor_ND.shape[1]
    gram_DD = torch.empty(columns, columns, dtype=factor_ND.dtype)
    for start in range(0, columns, _BLOCK):
        block = slice(start, min(start + _BLOCK, columns))
        product = multiply(factor_ND[:, block].T, factor_ND[:, start:])
        gram_DD[block, start:], gram_DD[start:, block] = product, product.T
    return gram_DD


def _filled(
    stored: Tensor, site: Site, local: str, *, old: int, tau: float, stream: torch.Generator
) -> Tensor:
    """Return a tensor of old and new rows, as the layer stores it."""
    parameter, side = site.parameter(local), _side(site, local)
    table = stored.movedim(side, 0)[:old]
    zero = [row for row in parameter.zero_rows if row < old]
    sample = table.reshape(old, -1)
    if zero:
        used = torch.ones(old, dtype=torch.bool)
        used[zero] = False
        sample = sample[used]
    if len(sample) == 0:
        raise UserError(f"{parameter.name}: all its old rows are padding; set `old`", code="MIM-I115")
    count = parameter.shape[side] - old
    new = drawn_rows(sample, count, tau, stream, name=parameter.name)
    wide = torch.promote_types(stored.dtype, torch.float32)
    filled = torch.cat([table.to(wide), new.reshape(count, *table.shape[1:]).to(wide)])
    filled[[row for row in parameter.zero_rows if row >= old]] = 0.0
    return filled.movedim(0, side).contiguous()


def _side(site: Site, local: str) -> int:
    """Return the side of a tensor along which its rows are: the inputs of an embedding, others' outputs."""
    geometry = site.geometry
    input_first = geometry is not None and geometry.transposed and site.kind == "linear"
    return 1 if input_first and local == "weight" else 0


def _source(
    spec: Rows, parameter: Parameter, network: TrainedNetwork | None
) -> tuple[Site, Parameter] | None:
    """Return the parameter of the other network that has the old rows; None where they are our own."""
    if network is None:
        return None
    names = (
        {parameter.name, *parameter.aliases} if spec.layer is None else {f"{spec.layer}.{parameter.local}"}
    )
    known = [(site, own) for site in network.graph.sites for own in site.parameters]
    found = next(((site, own) for site, own in known if names.intersection({own.name, *own.aliases})), None)
    if found is None:
        raise UserError(
            f"{parameter.name}: {network.origin} has no parameter `{min(names)}`; name its layer by `layer`",
            code="MIM-I116",
        )
    return found


def _old_rows(spec: Rows, site: Site, parameter: Parameter, shape: tuple[int, ...]) -> int:
    """Return how many rows are old.

    Raises:
        UserError: If rows differ, there are too few, or none would be new.
    """
    side = _side(site, parameter.local)
    have, total = shape[side], parameter.shape[side]
    rest = [own[:side] + own[side + 1 :] for own in (shape, parameter.shape)]
    old = have if spec.old is None else spec.old
    if rest[0] != rest[1] or old > have or old > total:
        raise UserError(
            f"{parameter.name} ({shape_text(parameter.shape)}) cannot have {old} old rows of "
            f"{shape_text(shape)}; correct `old`, or choose a network whose rows are as long",
            code="MIM-I117",
        )
    return old


def _values(network: TrainedNetwork | None, site: Site, parameter: Parameter) -> Tensor:
    """Return a parameter of the other network.

    Raises:
        RunError: If it is not trained yet.
    """
    assert network is not None
    if network.digest is None:
        raise not_trained(network.origin, "its rows are not available", code="MIM-I118")
    if parameter.local == "weight":
        return network.stored_weight(site)
    return tensor_in_use(network.modules[site.layer], parameter.local)


def _note(parameter: Parameter, site: Site, old: int, spec: Rows) -> str:
    new = parameter.shape[_side(site, parameter.local)] - old
    whose = "its own" if spec.from_ is None else spec.from_.display_name
    return (
        f"{parameter.local}: {old} old rows ({whose}), {new} new of their mean and {spec.tau:g}² covariance"
    )
