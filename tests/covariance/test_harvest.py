"""Harvests: what a network will give, what it gave, and the mean of several."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mimetic.config.registry import Component
from mimetic.covariance.config import Agop, CovarianceFile, Filters, Nfm, Patches
from mimetic.covariance.harvest import Harvest, Harvested, averaged, described, harvest_key
from mimetic.covariance.measure import planned_harvest
from mimetic.errors import UserError
from mimetic.graph.site import Geometry
from mimetic.graph.sites import find_sites
from mimetic.recipe.load import load
from mimetic.sources.collect import kinds_needed, needed_inputs

STAGE = {"from": {"stage": "small"}}
DEPTHWISE = Geometry(8, 8, (3, 3), (1, 1), 8)


class Net(nn.Module):
    """A stem, a grouped, a depthwise and a pointwise convolution, attention and a head."""

    def __init__(self) -> None:
        """Build the layers."""
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.depthwise = nn.Conv2d(8, 8, (3, 5), padding=(1, 2), groups=8)
        self.pointwise = nn.Conv2d(8, 8, 1)
        self.norm = nn.BatchNorm2d(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 4)
        self.spare = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run all but the spare layer."""
        x = self.norm(self.pointwise(self.depthwise(self.grouped(self.stem(x)).relu())))
        tokens = x.flatten(2).mT
        return self.head(self.attention(tokens, tokens, tokens)[0].mean(dim=1))


def names(spec: Component, **options: object) -> list[str]:
    """Return the layers a section can be measured at."""
    graph = find_sites(Net(), torch.zeros(2, 3, 8, 8))
    return [h.layer for h in planned_harvest(spec, graph, "stage small", **options).layers]


def test_each_statistic_has_its_layers() -> None:
    """Filters need pixels, gradients a layer that is called, NFM a weight; patches the first layer."""
    convs = ["stem", "grouped", "depthwise"]
    called = [*convs, "pointwise", "head"]
    assert names(Filters.model_validate(STAGE)) == convs
    assert names(Agop.model_validate(STAGE)) == called
    assert sorted(names(Nfm.model_validate(STAGE))) == sorted([*called, "attention.out_proj", "spare"])
    assert names(Patches()) == ["stem"]


def test_kinds_narrow_the_layers() -> None:
    """By the caller, or by the section's own `kind`."""
    assert names(Nfm.model_validate(STAGE), kinds={"conv"}) == ["stem", "grouped"]
    assert names(Nfm.model_validate({**STAGE, "kind": "pointwise_conv"})) == ["pointwise"]


def test_a_prospect_knows_geometries_and_is_pending() -> None:
    """Patches follow from the statistic: spatial for filters, whole filters else; there is no digest."""
    graph = find_sites(Net(), torch.zeros(2, 3, 8, 8))
    spatial = planned_harvest(Filters.model_validate(STAGE), graph, "stage small")
    whole = planned_harvest(Nfm.model_validate(STAGE), graph, "stage small")
    assert [str(spatial.patch(h)) for h in spatial.layers] == ["1×3×3", "1×3×3", "1×3×5"]
    assert [str(whole.patch(h)) for h in whole.layers[:4]] == ["3×3×3", "4×3×3", "1×3×5", "8×1×1"]
    assert spatial.digest is None
    assert str(spatial.layers[1]) == "`grouped` (conv 8×4×3×3)"


def test_networks_without_such_layers_are_refused() -> None:
    """The message says what is needed, what there is, and the repair."""
    graph = find_sites(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), torch.zeros(2, 4))
    with pytest.raises(UserError) as raised:
        planned_harvest(Filters.model_validate(STAGE), graph, "stage small")
    assert raised.value.code == "MIM-V020"
    assert "(its layers: `linear`, `norm`)" in str(raised.value)
    with pytest.raises(UserError, match="no layer of kind `conv`"):
        planned_harvest(Nfm.model_validate(STAGE), graph, "stage small", kinds=["conv"])


def test_layers_without_filters_are_described_by_kind() -> None:
    """A norm has no geometry."""
    assert (described("norm", None), described("conv", DEPTHWISE)) == ("norm", "conv 8×1×3×3")


def harvest(make: SimpleNamespace, seed: int, *layers: str, origin: str = "stage small") -> Harvest:
    """Return a harvest of random covariances."""
    return Harvest(
        origin,
        "filters",
        tuple(
            Harvested(name, "depthwise_conv", 0.0, DEPTHWISE, make.random_covariance(8, 1, (3, 3), seed + i))
            for i, name in enumerate(layers)
        ),
    )


def test_digests_follow_content_not_origin(make: SimpleNamespace) -> None:
    """Another factor or layer name gives another digest, another origin does not."""
    one = harvest(make, 0, "a", "b")
    assert one.digest == harvest(make, 0, "a", "b", origin="file.safetensors").digest
    assert len({one.digest, harvest(make, 1, "a", "b").digest, harvest(make, 0, "a", "c").digest}) == 3


def test_the_mean_of_networks_is_that_of_their_matrices(make: SimpleNamespace) -> None:
    """Layer by layer, said in the notes; a single network stays what it is."""
    parts = [harvest(make, seed, "a", "b") for seed in (0, 10, 20)]
    mean = averaged(parts, origin="stage small")
    for index, found in enumerate(mean.layers):
        dense = sum(part.layers[index].covariance.dense() for part in parts) / 3
        torch.testing.assert_close(found.covariance.dense(), dense)
        assert found.covariance.provenance.notes[-1] == "mean of 3 networks"
    assert averaged(parts[:1], origin="x").digest == parts[0].digest
    assert averaged(parts[:1], origin="x").origin == "x"


def test_means_of_pending_harvests_are_pending(make: SimpleNamespace) -> None:
    """One that is not measured leaves the layer open."""
    blank = Harvest("seed 1", "filters", (Harvested("a", "depthwise_conv", 0.0, DEPTHWISE),), spatial=True)
    assert averaged([harvest(make, 0, "a"), blank], origin="both").digest is None


def test_means_of_other_networks_are_refused(make: SimpleNamespace) -> None:
    """The first odd layer is named."""
    with pytest.raises(UserError, match=r"seed 0 and seed 1 differ in layer `b`; average"):
        averaged(
            [harvest(make, 0, "a", origin="seed 0"), harvest(make, 0, "b", "a", origin="seed 1")], origin="x"
        )


def test_needs_of_an_arm() -> None:
    """Each section once, by its words; files are read where plans are made and need nobody."""
    rules = [
        {"id": "a", "match": {"kind": "conv"}, "covariance": {"type": "filters", **STAGE}},
        {"id": "b", "match": {"kind": "linear"}, "covariance": {"type": "nfm", **STAGE}},
        {"id": "c", "match": {"kind": "depthwise_conv"}, "covariance": {"type": "filters", **STAGE}},
        {"id": "d", "match": ".*", "covariance": {"type": "patches"}},
        {"id": "e", "match": ".*", "covariance": {"type": "file", "path": "x"}},
        {"id": "f", "match": ".*", "init": "zeros"},
    ]
    arm = load({"recipe": 1, "name": "x", "init": rules, "stages": {"small": {"model": "convmixer"}}}).arms[
        "main"
    ]
    specs = [Filters.model_validate(STAGE), Nfm.model_validate(STAGE), Patches()]
    assert needed_inputs(arm) == {harvest_key(spec): spec for spec in specs}
    assert kinds_needed(arm, specs[0]) == {"conv", "depthwise_conv"}
    assert kinds_needed(arm, specs[1]) == {"linear"}
    assert kinds_needed(arm, specs[2]) is None


def test_keys_tell_sections_apart() -> None:
    """Every argument counts, and equal sections have equal keys."""
    plain = Filters.model_validate(STAGE)
    others = [
        Filters.model_validate({**STAGE, "shrink": 0.1}),
        Filters.model_validate({"from": {"stage": "big"}}),
        Filters.model_validate({"from": {"checkpoint": "a.pt", "model": {"type": "convmixer", "dim": 3}}}),
        Filters.model_validate({"from": {"checkpoint": "a.pt", "model": {"type": "convmixer", "dim": 4}}}),
        CovarianceFile(path="x"),
    ]
    assert harvest_key(plain) == harvest_key(Filters.model_validate(STAGE))
    assert len({harvest_key(spec) for spec in (plain, *others)}) == 6
