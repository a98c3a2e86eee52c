"""The seam between `initializers` and `plans`: the function behind an `init`, and what it returns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Generator, Tensor, nn

from mimetic.covariance.context import Context
from mimetic.covariance.harvest import harvest_key
from mimetic.covariance.network import TrainedNetwork
from mimetic.errors import RunError, UserError
from mimetic.graph.site import Site
from mimetic.initializers.config import Init
from mimetic.streams import generator


@dataclass(frozen=True, slots=True)
class Moments:
    """Expected statistics of the entries of a drawn tensor, for the plan and for verification.

    Attributes:
        mean: Expected mean of the entries.
        std: Expected root-mean-square deviation from that mean.
        draws: Number of independent values in the tensor; correlated entries count for fewer. Zero where the
            values are deterministic and `std` must match up to rounding.
    """

    mean: float
    std: float
    draws: float


@dataclass(frozen=True, slots=True)
class Streams:
    """The random streams of one site: `streams(local, slot)` is a generator keyed by name.

    Attributes:
        seed: Seed of the run.
        site: Canonical name of the site.
        parameters: Canonical names of its parameters by local name.
    """

    seed: int
    site: str
    parameters: Mapping[str, str]

    def __call__(self, local: str, slot: str) -> Generator:
        """Return the generator of one parameter; with an empty `local`, of the site itself.

        A composite site draws from the site's streams, whatever the storage of its maps.
        """
        return generator(self.seed, self.parameters[local] if local else self.site, slot)


NetworkStreams = Callable[[str, str], Generator]
"""`streams(parameter, slot)`: a generator keyed by the canonical name of a parameter."""


@dataclass(frozen=True, slots=True)
class NetworkInit:
    """A step that initializes many layers one after another and runs the network to do so.

    Attributes:
        key: Sites whose steps have the same key are initialized together.
        fill: `fill(network, arguments, streams)` initializes layers of a network in place, norm statistics
            included, and returns a remark by layer. The network is a copy, float32 on the CPU, that contains
            all other draws; `arguments` maps layers to their `argument`.
        argument: The layer's own argument of `fill`.
        last: Whether the step runs after the steps that are not last.
        zero_rows: Rows by local parameter name that are zero afterwards.
    """

    key: str
    fill: Callable[[nn.Module, Mapping[str, Any], NetworkStreams], Mapping[str, str]]
    argument: object = None
    last: bool = False
    zero_rows: Mapping[str, Sequence[int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ResolvedInit:
    """An initializer resolved for one site: what the plan shows, and a function that draws the values.

    Attributes:
        name: Registered name, e.g. `gaussian` or `kaiming_normal`.
        arguments: Resolved arguments as plain values; they enter the plan's hash.
        sample: `sample(streams, layer)` returns new contiguous tensors on the CPU by local name: of
            parameters, and of the layer's buffers that are to be reset. They are float32, unless the
            parameter is float64 or complex, or they are copied from wider ones. It is pure: it neither writes
            to the layer nor touches the global random stream.
        moments: Expected moments by local parameter name, where the distribution is known.
        notes: Remarks for the reader of the plan, e.g. "resized 5→9".
        thread_safe: Whether `sample` may run on a thread beside others: it changes no setting of torch.
        complex_parts: Whether entries are independent or Gaussian: both parts of a complex parameter can
            then be drawn like two tensors.
        network_init: A step after `sample` that needs the whole network; None where there is none.
        check: `check(read)` raises a UserError where what will be written misses a promise beyond moments;
            `read(parameter)` returns the values of a canonical name, float64 on the CPU.
    """

    name: str
    arguments: Mapping[str, object]
    sample: Callable[[Streams, nn.Module], Mapping[str, Tensor]]
    moments: Mapping[str, Moments] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    thread_safe: bool = False
    complex_parts: bool = False
    network_init: NetworkInit | None = None
    check: Callable[[Callable[[str], Tensor]], object] | None = None


class InitFunction(Protocol):
    """The signature of the function that the section of an `init` names by `impl=`.

    It decides everything that can be decided without values: it reads shapes, draws nothing and touches no
    tensor. A function of one tensor's distribution is written shorter, with `distributions.per_tensor`.
    """

    def __call__(self, spec: Init, site: Site, context: Context, /) -> ResolvedInit:
        """Resolve an initializer for one site.

        Args:
            spec: The section of the recipe, an instance of the class that names this function.
            site: The layer, or the composite site of the kind that the section's `acts_on` names.
            context: Local names of the parameters the rule claims there, and harvests of trained networks.

        Raises:
            UserError: If the initializer does not fit the site; the message names the site and the repair.
        """
        ...


def not_trained(what: str, missing: str, *, code: str) -> RunError:
    """Return the error of a draw from a network that is not trained yet."""
    return RunError(
        f"{what} is not trained yet, so {missing}; train it and resolve the plan again (`mimetic run` does)",
        code=code,
    )


def source_network(spec: Init, site: Site, context: Context, *, hint: str = "") -> TrainedNetwork:
    """Return the network that a section names by `from`.

    Raises:
        UserError: If it is not available.
    """
    network = context.harvests.get(harvest_key(spec))
    if isinstance(network, TrainedNetwork):
        return network
    raise UserError(
        f"{site.layer}: `{spec.type_name()}` needs a trained network, and none is available here; `mimetic "
        f"run` finds or trains what a recipe names{hint}",
        code="MIM-I000",
    )
