"""Patch-AGOP against the official code's values, plain autograd and probes."""

import math
import weakref
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mimetic.covariance import algebra
from mimetic.covariance.agop import agop
from mimetic.covariance.gradients import Cotangents, gradient_grams
from mimetic.covariance.weights import nfm
from mimetic.errors import UserError

LAYERS = ("0", "3")
ENTRIES = ((0, 0), (0, 1), (2, 5), (-1, -1))

# (outputs, biases, layer's own bias dropped, layer): trace, norm, [0,0], [0,1], [2,5], [-1,-1], then the
# correlations of NFM with AGOP and with AGOP^½ where the reference has them.
SPOT = {
    (1000, False, True, 0): (
        1680.759201243434, 1042.127894785185, 25.808493893701, 28.938509884882, 18.341410486393,
        44.417909606369, 0.9799407409, 0.9937500849,
    ),
    (1000, False, True, 1): (
        2347.440921224564, 1472.664950220106, 152.747290067529, -27.563940310076, -11.407569991487,
        59.986238013690, 0.8351636715, 0.9386557403,
    ),
    (1000, True, True, 0): (
        1406.585328149511, 876.623167506766, 21.405466758785, 24.246339111119, 16.384677334670,
        38.002469651856, 0.9772542808, 0.9935669110,
    ),
    (1000, True, True, 1): (
        2547.825487649357, 1524.840063379236, 152.824792914424, -28.345306645783, 7.654138055281,
        67.763197088940, 0.8733101323, 0.9543969004,
    ),
    (1000, True, False, 0): (
        1641.095529718254, 1025.678156047989, 25.221009322040, 28.082685939574, 17.308348073625,
        44.485438793721, None, None,
    ),
    (1000, True, False, 1): (
        2580.416054704805, 1633.251415042857, 175.152939909310, -34.223124252114, -16.786190966369,
        75.588403377005, None, None,
    ),
    (10, False, True, 0): (
        18.280736442085, 10.920321694304, 0.350547055429, 0.372248495704, 0.120845144962,
        0.440041972823, 0.9963651875, 0.9939702927,
    ),
    (10, False, True, 1): (
        25.417145964650, 16.558057348822, 1.391148538143, -0.438491457957, -0.006868368905,
        0.554265567128, 0.7852971842, 0.9197788284,
    ),
    (10, True, True, 0): (
        16.086987857948, 9.724584741216, 0.295278162914, 0.325416796513, 0.127869164772,
        0.403337257634, 0.9933415557, 0.9953787101,
    ),
    (10, True, True, 1): (
        27.431804385572, 17.154526539533, 1.391927748667, -0.446347283863, 0.184777281849,
        0.632454802804, 0.8176209386, 0.9300119764,
    ),
}  # fmt: skip


def tiny_vgg(make: SimpleNamespace, outputs: int, *, biases: bool) -> nn.Sequential:
    """Return the reference's tiny VGG in float64, with in-place activations."""
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(16, outputs),
    ).double()
    values = {
        "0.weight": make.lcg((3, 2, 3, 3), 1),
        "3.weight": make.lcg((4, 3, 3, 3), 2),
        "6.weight": make.lcg((outputs, 16), 5),
        "0.bias": make.lcg((3,), 3) if biases else torch.zeros(3),
        "3.bias": make.lcg((4,), 4) if biases else torch.zeros(4),
        "6.bias": torch.zeros(outputs),
    }
    model.load_state_dict(values)
    return model


def images(make: SimpleNamespace) -> torch.Tensor:
    """Return the reference's batch of two images."""
    return make.lcg((2, 2, 8, 8), 7, 2.0)


def test_the_network_is_the_reference(make: SimpleNamespace) -> None:
    """The forward pass has the reference's logits, with and without biases."""
    plain = tiny_vgg(make, 10, biases=False)(images(make))[0, :2].tolist()
    biased = tiny_vgg(make, 10, biases=True)(images(make))[0, :2].tolist()
    assert plain == pytest.approx([0.47932291601703797, 0.9919148502231755], abs=1e-14)
    assert biased == pytest.approx([0.7047682776977964, 0.7818996056489964], abs=1e-14)


@pytest.mark.parametrize(("outputs", "biases", "dropped"), sorted({case[:3] for case in SPOT}))
def test_spot_values(make: SimpleNamespace, outputs: int, biases: bool, dropped: bool) -> None:
    """Traces, norms, entries and correlations are those of the official functions."""
    model = tiny_vgg(make, outputs, biases=biases)
    grams = gradient_grams(model, LAYERS, [images(make)], drop_bias=dropped)
    for index, name in enumerate(LAYERS):
        *expected, pearson, pearson_half = SPOT[outputs, biases, dropped, index]
        weight = model[int(name)].weight
        cov, features = agop(weight, grams[name]), nfm(weight)
        dense = cov.dense()
        found = [cov.trace, float(dense.norm()), *(float(dense[at]) for at in ENTRIES)]
        assert expected == pytest.approx(found, rel=1e-11, abs=1e-11)
        if pearson is not None:
            half = agop(weight, grams[name], power=0.5)
            assert pearson == pytest.approx(algebra.correlation(features, cov), abs=1e-9)
            assert pearson_half == pytest.approx(algebra.correlation(features, half), abs=1e-8)


def test_square_roots_and_cosine(make: SimpleNamespace) -> None:
    """The student study's AGOP^½ and the uncentered cosine have the reference's values."""
    traces = {(False, 0): 7.344033338347, (False, 1): 9.273622596903}
    traces |= {(True, 0): 6.869081671948, (True, 1): 9.775066640053}
    for (biases, index), trace in traces.items():
        model = tiny_vgg(make, 10, biases=biases)
        name = LAYERS[index]
        grams = gradient_grams(model, [name], [images(make)], drop_bias=True)
        half = agop(model[int(name)].weight, grams[name], power=0.5)
        assert trace == pytest.approx(half.trace, abs=1e-6)
    model = tiny_vgg(make, 1000, biases=False)
    grams = gradient_grams(model, LAYERS, [images(make)])
    pairs = [(nfm(model[int(n)].weight), agop(model[int(n)].weight, grams[n])) for n in LAYERS]
    assert pytest.approx([algebra.cosine(*pair) for pair in pairs], abs=1e-9) == [0.9790759256, 0.8352028999]


def test_hyperparameter_study_spot_values(make: SimpleNamespace) -> None:
    """The mean over images of the hyper-parameter study, with two poolings, has its values."""
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5, bias=False),
    ).double()
    weights = {"0.weight": ((3, 2, 3, 3), 1), "2.weight": ((4, 3, 3, 3), 2), "7.weight": ((5, 4), 5)}
    model.load_state_dict({name: make.lcg(shape, seed) for name, (shape, seed) in weights.items()})
    grams = gradient_grams(model, ["0", "2"], [images(make)])
    expected = {
        "0": (3.135567720926, 1.994130589554, 0.037286620908, 0.090676718761, 0.9386229630),
        "2": (4.208264943071, 2.225085700096, 0.078150366042, 0.154793042033, 0.9946457087),
    }
    assert float(model(images(make))[0, 0].detach()) == pytest.approx(-0.034932746477, abs=1e-11)
    for name, values in expected.items():
        weight = model[int(name)].weight
        cov = agop(weight, grams[name]).scale_by(grams[name].images ** -0.5)
        dense = cov.dense()
        cosine = algebra.cosine(nfm(weight, normalize="mean"), cov)
        found = (cov.trace, float(dense.norm()), float(dense[2, 5]), float(dense[-1, -1]), cosine)
        assert values == pytest.approx(found, abs=1e-9)


class Mixed(nn.Module):
    """Grouped and strided convolutions, a norm, a skip, a layer called twice and a linear layer."""

    def __init__(self) -> None:
        """Build the layers in float64, with settled norm statistics."""
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.grouped = nn.Conv2d(6, 6, 3, padding=1, groups=3)
        self.twice = nn.Conv2d(6, 6, 1)
        self.head = nn.Linear(6, 7)
        self.double()
        self.norm.running_mean.uniform_(-0.2, 0.2)
        self.norm.running_var.uniform_(0.5, 2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the network."""
        x = torch.tanh(self.norm(self.stem(x)))
        x = x + nn.functional.gelu(self.grouped(x))
        x = self.twice(torch.tanh(self.twice(x)))
        return self.head(x.mean(dim=(2, 3)))


@pytest.fixture
def mixed() -> Mixed:
    """Return such a network, in training mode and partly frozen."""
    torch.manual_seed(0)
    model = Mixed().train()
    model.stem.weight.requires_grad_(False)
    return model


BATCH = torch.randn(4, 3, 9, 9, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def plain_agop(model: nn.Module, layer: nn.Conv2d, batch: torch.Tensor) -> torch.Tensor:
    """Return the AGOP of a convolution from unfolded patches and one Jacobian, group by group summed."""
    kept: list[torch.Tensor] = []
    weight = layer.weight.detach().flatten(1)

    def through_patches(
        _module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor
    ) -> torch.Tensor:
        sides = {"padding": layer.padding, "stride": layer.stride}
        patches = nn.functional.unfold(inputs[0], layer.kernel_size, **sides)
        patches = patches.unflatten(1, (layer.groups, -1)).detach().requires_grad_()
        kept.append(patches)
        filters = weight.unflatten(0, (layer.groups, -1))
        z = torch.einsum("god,ngdm->ngom", filters, patches).flatten(1, 2).view_as(output)
        return z if layer.bias is None else z + layer.bias.view(-1, 1, 1)

    handle = layer.register_forward_hook(through_patches)
    total = torch.zeros(weight.shape[1], weight.shape[1], dtype=torch.float64)
    for logit in model(batch).sum(dim=0):
        gradient = torch.autograd.grad(logit, kept, retain_graph=True)[0]
        total += torch.einsum("ngdm,ngem->de", gradient, gradient)
    handle.remove()
    return total


def test_equals_patch_gradients(mixed: Mixed) -> None:
    """Grouped, strided and normalized layers agree with gradients of unfolded patches to 1e-9."""
    grams = gradient_grams(mixed, ["stem", "grouped"], [BATCH[:3], BATCH[3:]])
    mixed.eval()
    for name in ("stem", "grouped"):
        layer = getattr(mixed, name)
        expected = plain_agop(mixed, layer, BATCH)
        found = agop(layer.weight, grams[name]).dense()
        assert torch.allclose(expected, found, atol=1e-9 * float(expected.norm()))


def test_groups_add_up(mixed: Mixed) -> None:
    """The AGOP of a grouped convolution is the sum over its groups, each of its own block of S."""
    gram = gradient_grams(mixed, ["grouped"], [BATCH])["grouped"]
    assert gram.gram_GOO.shape == (3, 2, 2)
    parts = zip(mixed.grouped.weight.flatten(1).chunk(3), gram.gram_GOO, strict=True)
    total = sum(part.T @ gram_OO @ part for part, gram_OO in parts)
    assert torch.allclose(agop(mixed.grouped.weight, gram).dense(), total)


def test_layers_called_twice_count_twice(mixed: Mixed) -> None:
    """A shared layer sums the gradients of all its calls; the head's own S is the number of images."""
    grams = gradient_grams(mixed, ["twice", "head"], [BATCH])
    assert torch.allclose(4.0 * torch.eye(7, dtype=torch.float64), grams["head"].gram_GOO[0])
    head = mixed.head.weight.detach()
    last = (head / 25).T @ (head / 25) * 25 * 4
    rest = grams["twice"].gram_GOO[0] - last
    assert float(torch.linalg.eigvalsh(rest)[0]) > -1e-12
    assert float(rest.norm()) > 0.0


def test_streaming_adds_up_and_reports(mixed: Mixed) -> None:
    """Batches of any size give the same sums, and progress counts the images."""
    seen: list[int] = []
    one = gradient_grams(mixed, ["stem"], [BATCH])["stem"]
    many = gradient_grams(mixed, ["stem"], iter(BATCH.split(1)), progress=seen.append)["stem"]
    assert torch.allclose(one.gram_GOO, many.gram_GOO)
    assert (one.images, many.images, seen) == (4, 4, [1, 2, 3, 4])


def test_a_batch_is_freed_before_the_next(mixed: Mixed) -> None:
    """Memory is that of one batch: no activation, gradient or graph of the last one remains."""
    alive: list[weakref.ref[torch.Tensor]] = []
    mixed.twice.register_forward_hook(lambda *seen: alive.append(weakref.ref(seen[-1])))

    def batches() -> Iterator[torch.Tensor]:
        for batch in BATCH.split(1):
            assert not [ref for ref in alive if ref() is not None]
            yield batch

    gradient_grams(mixed, ["stem", "twice", "head"], batches())
    assert len(alive) > len(BATCH)


def test_the_model_is_left_as_it_was(mixed: Mixed) -> None:
    """Modes, flags, gradients, statistics, hooks and the global stream are those of before."""
    mixed.head.eval()
    state = {name: value.clone() for name, value in mixed.state_dict().items()}
    flags = [p.requires_grad for p in mixed.parameters()]
    rng = torch.get_rng_state()
    gradient_grams(mixed, ["stem", "head"], [BATCH], Cotangents(probes=2))
    assert [module.training for module in (mixed, mixed.norm, mixed.head)] == [True, True, False]
    assert [p.requires_grad for p in mixed.parameters()] == flags
    assert all(p.grad is None for p in mixed.parameters())
    assert all(torch.equal(value, state[name]) for name, value in mixed.state_dict().items())
    assert not any(module._forward_hooks for module in mixed.modules())
    assert torch.equal(rng, torch.get_rng_state())


def test_probes_are_unbiased_and_keyed(mixed: Mixed) -> None:
    """Random signs converge to the exact matrix as 1/√probes, and repeat with their seed."""
    exact = gradient_grams(mixed, ["stem"], [BATCH])["stem"].gram_GOO

    def error(probes: int, seed: int) -> float:
        found = gradient_grams(mixed, ["stem"], [BATCH], Cotangents(probes=probes, seed=seed))[
            "stem"
        ].gram_GOO
        return float((found - exact).norm() / exact.norm())

    few = math.sqrt(sum(error(4, seed) ** 2 for seed in range(20)) / 20)
    many = math.sqrt(sum(error(64, seed) ** 2 for seed in range(10)) / 10)
    assert 2.5 < few / many < 6.5
    assert error(4, 1) == error(4, 1) != error(4, 2)


def test_probes_are_noted(mixed: Mixed) -> None:
    """A covariance from probes says so."""
    gram = gradient_grams(mixed, ["stem"], [BATCH], Cotangents(probes=3))["stem"]
    told = agop(mixed.stem.weight, gram, source="agop of stem").provenance
    assert (told.notes, told.samples, told.source) == (("3 random probes per image",), 4, "agop of stem")


def test_first_outputs_only(make: SimpleNamespace) -> None:
    """The first ten of a thousand outputs are those of the network with ten."""
    many = gradient_grams(tiny_vgg(make, 1000, biases=False), ["0"], [images(make)], Cotangents(outputs=10))
    few = gradient_grams(tiny_vgg(make, 10, biases=False), ["0"], [images(make)])
    assert torch.allclose(few["0"].gram_GOO, many["0"].gram_GOO)


def test_what_cannot_be_measured_is_refused(mixed: Mixed) -> None:
    """Layers never called and other outputs are named."""
    mixed.unused = nn.Linear(2, 2)
    with pytest.raises(UserError, match=r"unused: .*never calls"):
        gradient_grams(mixed, ["unused"], [BATCH])
    with pytest.raises(UserError, match=r"returns shape \(4,\)"):
        gradient_grams(nn.Sequential(nn.Conv2d(3, 1, 9), nn.Flatten(0)).double(), ["0"], [BATCH])


def test_broken_weights_are_refused(mixed: Mixed) -> None:
    """NaN weights end in a message, not in a NaN covariance."""
    with torch.no_grad():
        mixed.head.weight[0, 0] = torch.nan
    with pytest.raises(UserError, match="outputs are not finite"):
        gradient_grams(mixed, ["stem"], [BATCH])
