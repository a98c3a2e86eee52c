"""What a component may look at beside its own section and the site."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from mimetic.covariance.harvest import Harvest
from mimetic.covariance.network import TrainedNetwork, TrainingImages

Harvests = Mapping[str, Harvest | TrainedNetwork | TrainingImages]
"""What trained networks and data gave, by `harvest_key` of the section that needs it."""

NO_HARVESTS: Harvests = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Context:
    """The surroundings in which a rule's initializer and covariance are resolved for one site.

    Attributes:
        parameters: Local names of the parameters that the rule claims at the site.
        harvests: What trained networks and data gave, or will give, by `harvest_key`.
    """

    parameters: tuple[str, ...] = ("weight",)
    harvests: Harvests = field(default_factory=lambda: NO_HARVESTS)
