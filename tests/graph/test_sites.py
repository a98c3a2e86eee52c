"""Sites of whole networks: ownership, order, depth, wrappers, and networks of the zoo."""

from collections.abc import Callable, Iterator

import pytest
import timm
import torch
import torchvision
from torch import Tensor, distributed, nn

from mimetic.errors import UserError
from mimetic.graph.names import canonical_parameters
from mimetic.graph.site import Graph, Parameter, Site
from mimetic.graph.sites import find_sites


class Classifier(nn.Module):
    """A small transformer: registration order is not that of execution."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 3)
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Run."""
        x = self.patches(x).flatten(2).mT
        return self.head(self.block(torch.cat([self.token.expand(len(x), -1, -1), x], 1))[:, 0])


class Tied(nn.Module):
    """A language model whose head shares the embedding's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.body = nn.Linear(4, 4)
        self.same = self.body
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Run."""
        return self.head(self.same(self.body(self.embed(ids))))


def small() -> nn.Sequential:
    """Return a convolutional network with batch norm."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )


def layers(graph: Graph) -> list[str]:
    """Return the layers in order."""
    return [site.layer for site in graph.sites]


def test_a_site_is_described() -> None:
    """Kind, classes, parameters, depth and calls."""
    site = find_sites(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1, bias=False))).sites[1]
    expected = Site(
        layer="1",
        kind="linear",
        classes=("Linear", "Module"),
        geometry=site.geometry,
        parameters=(Parameter("1.weight", "weight", (1, 2), "float32"),),
        depth=1.0,
        calls=1,
    )
    assert expected == site


def test_sites_are_in_order_of_execution() -> None:
    """Bare parameters and projections that attention reads included; what is unused comes last."""
    graph = find_sites(Classifier(), torch.zeros(2, 3, 8, 8))
    block = ["self_attn", "self_attn.out_proj", "norm1", "linear1", "linear2", "norm2"]
    assert ["patches", "", *(f"block.{name}" for name in block), "head", "unused"] == layers(graph)
    assert [site.calls for site in graph.sites] == [1, 1, 1, 1, 1, 1, 1, 1, 1, 0]
    assert (graph.traced, graph.note) == (True, None)


def test_depth_is_the_fraction_within_a_kind() -> None:
    """From 0 for the first to 1 for the last; 0 for a single one."""
    sites = find_sites(Classifier()).sites
    linear = [(site.layer.rpartition(".")[2], site.depth) for site in sites if site.kind == "linear"]
    assert linear == [("out_proj", 0), ("linear1", 0.25), ("linear2", 0.5), ("head", 0.75), ("unused", 1)]
    assert [site.depth for site in sites if site.kind == "conv"] == [0.0]


def test_an_example_is_used() -> None:
    """It may be a tuple of arguments; a bad one falls back to registration and says why."""
    model = nn.Bilinear(2, 3, 4)
    good, bad = (torch.zeros(1, 2), torch.zeros(1, 3)), torch.zeros(1, 2)
    assert (find_sites(model, good).traced, find_sites(model, good).note) == (True, None)
    graph = find_sites(model, bad)
    assert (graph.traced, [site.calls for site in graph.sites]) == (False, [None])
    assert graph.note.startswith("the forward could not be traced: TypeError: Bilinear.forward() missing")


def test_without_a_trace_the_order_is_that_of_registration() -> None:
    """And depth follows it."""
    graph = find_sites(Classifier(), torch.zeros(1))
    assert layers(graph)[:5] == ["", "head", "block.self_attn", "block.self_attn.out_proj", "block.linear1"]
    assert not graph.traced


def test_tied_weights_are_owned_once() -> None:
    """By the first owner, with canonical aliases; a layer registered twice is one site, called twice."""
    graph = find_sites(nn.DataParallel(Tied()))
    assert layers(graph) == ["embed", "body"]
    assert [parameter.aliases for site in graph.sites for parameter in site.parameters] == [
        ("head.weight",),
        ("same.weight",),
        ("same.bias",),
    ]
    assert [site.calls for site in graph.sites] == [1, 2]


def test_layers_lists_all_modules() -> None:
    """Those without parameters too, for suggestions."""
    assert find_sites(nn.DataParallel(small())).layers == ("", "0", "1", "2", "3", "4")


def test_lazy_parameters_are_the_users_to_mend() -> None:
    """They have no shape; the message says what to do."""
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-G001"):
        find_sites(nn.Sequential(nn.LazyLinear(3)))


def test_a_model_without_parameters_has_no_sites() -> None:
    """And says why it was not run."""
    graph = find_sites(nn.Sequential(nn.ReLU()))
    assert (graph.sites, graph.traced) == ((), False)


def test_parametrized_layers_do_not_crash() -> None:
    """The weight that the layer uses is in its site, and the tensors from which it is computed in none."""
    graph = find_sites(nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), nn.Linear(4, 2)))
    assert [(site.layer, site.kind) for site in graph.sites] == [("0", "linear"), ("1", "linear")]
    weight = graph.sites[0].parameter("weight")
    assert (weight.name, weight.shape, weight.by) == ("0.weight", (4, 4), "weight norm")
    assert weight.stored == ("0.parametrizations.weight.original0", "0.parametrizations.weight.original1")
    assert graph.traced


@pytest.fixture
def process_group() -> Iterator[None]:
    """Run one process as if it were many."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        torch.compile,
        lambda model: torch.compile(nn.DataParallel(model)),
        lambda model: nn.Module.compile(model) or model,
        lambda model: model.to("meta"),
        lambda model: model.eval(),
    ],
)
def test_wrappers_devices_and_modes_change_nothing(wrap: Callable[[nn.Module], nn.Module]) -> None:
    """The graph is that of the bare model."""
    assert find_sites(small()).sites == find_sites(wrap(small())).sites


@pytest.mark.usefixtures("process_group")
def test_distributed_wrappers_change_nothing() -> None:
    """DDP, with and without torch.compile, and FSDP2 with its sharded parameters and made-up classes."""
    from torch.distributed.fsdp import fully_shard

    expected = find_sites(small()).sites
    replicated = nn.parallel.DistributedDataParallel(small())
    assert expected == find_sites(replicated).sites
    assert expected == find_sites(torch.compile(replicated)).sites
    sharded = small()
    fully_shard(sharded[0])
    fully_shard(sharded)
    graph = find_sites(sharded)
    assert (expected, True) == (graph.sites, graph.traced)
    assert tuple(sharded(torch.zeros(2, 3, 8, 8)).shape) == (2, 2)


ZOO = {
    **{
        f"torchvision:{name}": getattr(torchvision.models, name)
        for name in ("resnet18", "vgg11", "vit_b_16", "convnext_tiny", "swin_t", "mobilenet_v3_small")
    },
    **{
        f"timm:{name}": (lambda name=name: timm.create_model(name))
        for name in (
            "convmixer_768_32",
            "convnext_tiny",
            "vit_tiny_patch16_224",
            "mixer_b16_224",
            "efficientnet_b0",
            "beit_base_patch16_224",
            "coatnet_0_224",
        )
    },
}


@pytest.mark.parametrize("name", ZOO)
def test_networks_of_the_zoo(name: str) -> None:
    """Built on the meta device they are traced, and every parameter is owned exactly once."""
    with torch.device("meta"):
        model = ZOO[name]()
    graph = find_sites(model)
    owned = [parameter.name for site in graph.sites for parameter in site.parameters]
    assert (graph.traced, graph.note) == (True, None)
    assert sorted(name for name, _ in model.named_parameters()) == sorted(owned)
    assert set(canonical_parameters(model)) == set(owned)
    assert {1} == {site.calls for site in graph.sites}


def kinds(model: nn.Module) -> dict[str, int]:
    """Count the sites by kind."""
    found = [site.kind for site in find_sites(model).sites]
    return {kind: found.count(kind) for kind in dict.fromkeys(found)}


def test_kinds_of_known_networks() -> None:
    """As their papers have them."""
    with torch.device("meta"):
        mixer = timm.create_model("convmixer_768_32")
        vision = torchvision.models.vit_b_16()
        mobile = timm.create_model("efficientnet_b0")
    assert kinds(mixer) == {"conv": 1, "norm": 65, "depthwise_conv": 32, "pointwise_conv": 32, "linear": 1}
    assert kinds(vision) == {"conv": 1, "other": 14, "norm": 25, "linear": 37}
    assert kinds(mobile)["depthwise_conv"] == 16


@pytest.mark.parametrize("layers", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_many_layers(layers: int) -> None:
    """All are found and traced; docs/performance.md says what it costs."""
    with torch.device("meta"):
        model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(layers)))
    graph = find_sites(model)
    assert (len(graph.sites), graph.traced) == (layers, True)
