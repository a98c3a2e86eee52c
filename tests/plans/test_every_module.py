"""A layer of any class of torch.nn works after any rule, and its weights have the moments that were promised.

Initializers come from the registry and classes from `torch.nn`; a component or a class that is added later is
tested, or fails the tests of what is left out. A refusal counts only where `REFUSALS` documents it.
"""

import inspect
import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain

import pytest
import torch
from torch import Tensor, nn

from mimetic.config.errors import RecipeError
from mimetic.config.registry import registered
from mimetic.covariance.harvest import harvest_key
from mimetic.covariance.network import TrainedNetwork
from mimetic.errors import UserError
from mimetic.graph.names import canonical_modules
from mimetic.graph.site import Graph, Parameter, Site
from mimetic.graph.sites import find_sites
from mimetic.plans.entry import Entry
from mimetic.plans.resolve import resolve
from mimetic.recipe.load import load
from mimetic.recipe.rule import Rule
from tests.plans.test_computed import WRAPS

# 1. The module classes.

D = 16
"""Width of all layers; 16 positions are a grid of 4×4."""


def image(sides: int, channels: int = D) -> Tensor:
    """Return two images of a number of dimensions."""
    return torch.linspace(-1.0, 1.0, 2 * channels * 4**sides).view(2, channels, *[4] * sides)


ROWS = image(0)
TOKENS = torch.linspace(-1.0, 1.0, 2 * 3 * D).view(2, 3, D)
INDICES = torch.tensor([[0, 1, 3], [3, 2, 15]])
BLOCK = {"d_model": D, "nhead": 2, "dim_feedforward": 2 * D, "batch_first": True}

MADE: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, ...]]] = {
    "Linear": (lambda: nn.Linear(D, 8), (ROWS,)),
    "Bilinear": (lambda: nn.Bilinear(D, D, 4), (ROWS, ROWS)),
    **{f"Conv{n}d": (lambda n=n: getattr(nn, f"Conv{n}d")(D, 8, 3), (image(n),)) for n in (1, 2, 3)},
    **{
        f"ConvTranspose{n}d": (lambda n=n: getattr(nn, f"ConvTranspose{n}d")(D, 8, 3), (image(n),))
        for n in (1, 2, 3)
    },
    **{f"BatchNorm{n}d": (lambda n=n: getattr(nn, f"BatchNorm{n}d")(D), (image(n),)) for n in (1, 2, 3)},
    **{
        f"InstanceNorm{n}d": (lambda n=n: getattr(nn, f"InstanceNorm{n}d")(D, affine=True), (image(n),))
        for n in (1, 2, 3)
    },
    "SyncBatchNorm": (lambda: nn.SyncBatchNorm(D), (image(2),)),
    "LayerNorm": (lambda: nn.LayerNorm((4, D)), (image(1, 4).repeat(1, 1, 4),)),
    "RMSNorm": (lambda: nn.RMSNorm(D), (TOKENS,)),
    "GroupNorm": (lambda: nn.GroupNorm(4, D), (image(2),)),
    "PReLU": (lambda: nn.PReLU(D), (ROWS,)),
    "Embedding": (lambda: nn.Embedding(D, 8, padding_idx=3), (INDICES,)),
    "EmbeddingBag": (lambda: nn.EmbeddingBag(D, 8, padding_idx=3), (INDICES,)),
    **{
        name: (lambda n=name: getattr(nn, n)(D, 8, num_layers=2), (TOKENS,))
        for name in ("RNN", "LSTM", "GRU")
    },
    **{name: (lambda n=name: getattr(nn, n)(D, 8), (ROWS,)) for name in ("RNNCell", "LSTMCell", "GRUCell")},
    "MultiheadAttention": (lambda: nn.MultiheadAttention(D, 2, batch_first=True), (TOKENS,) * 3),
    "TransformerEncoderLayer": (lambda: nn.TransformerEncoderLayer(**BLOCK), (TOKENS,)),
    "TransformerDecoderLayer": (lambda: nn.TransformerDecoderLayer(**BLOCK), (TOKENS,) * 2),
    "TransformerEncoder": (
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(**BLOCK), 1, enable_nested_tensor=False),
        (TOKENS,),
    ),
    "TransformerDecoder": (
        lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(**BLOCK), 1),
        (TOKENS,) * 2,
    ),
    "Transformer": (
        lambda: nn.Transformer(**BLOCK, num_encoder_layers=1, num_decoder_layers=1),
        (TOKENS,) * 2,
    ),
    "AdaptiveLogSoftmaxWithLoss": (
        lambda: nn.AdaptiveLogSoftmaxWithLoss(D, 12, [4, 8]),
        (ROWS, torch.tensor([1, 11])),
    ),
    "LinearCrossEntropyLoss": (
        lambda: nn.LinearCrossEntropyLoss(D, 4, bias=True),
        (ROWS, torch.tensor([0, 3])),
    ),
}
"""Classes with parameters, and the inputs of a forward."""

LEFT_OUT = {
    "Module": "the base of all classes",
    "RNNBase": "the base of RNN, LSTM and GRU, without a forward",
    "RNNCellBase": "the base of RNNCell, LSTMCell and GRUCell, without a forward",
    **dict.fromkeys(("Container", "Sequential", "ModuleList", "ModuleDict"), "contains other modules"),
    "DataParallel": "a wrapper: tests/graph/test_names.py",
    **dict.fromkeys(("ParameterList", "ParameterDict"), "without a forward: tests/graph/test_sites.py"),
    **{
        name: "without shapes until its first forward, then the class above: MIM-G001"
        for name in vars(nn)
        if name.startswith("Lazy")
    },
}
"""Classes that are not tested here, and the reason."""

EXTRA = {
    "Unflatten": {"unflattened_size": (1,)},
    **{key: {"output_size": 1} for key in ("FractionalMaxPool2d", "FractionalMaxPool3d")},
}
"""Arguments of classes without parameters; the required ones are 1 unless given."""


def classes() -> dict[str, type[nn.Module]]:
    """Return the module classes of torch.nn."""
    found = {name: thing for name, thing in vars(nn).items() if isinstance(thing, type)}
    return {name: cls for name, cls in sorted(found.items()) if issubclass(cls, nn.Module)}


def test_every_class_with_parameters_is_tested() -> None:
    """A class that torch adds is made by a guess of its arguments, and has no parameters; or this fails."""
    for name, cls in classes().items():
        if name not in MADE and name not in LEFT_OUT:
            signature = inspect.signature(cls).parameters.values()
            required = [
                p.name for p in signature if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
            ]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made = cls(**(dict.fromkeys(required, 1) | EXTRA.get(name, {})))
            assert not list(made.parameters()), name
    assert set(MADE) | set(LEFT_OUT) <= set(classes())


class Holder(nn.Module):
    """A module under the name of a table of positions, which an embedding then is."""

    def __init__(self, layer: nn.Module) -> None:
        """Hold the module."""
        super().__init__()
        self.pos_embed = layer

    def forward(self, *inputs: Tensor) -> object:
        """Call the module."""
        return self.pos_embed(*inputs)


# 2. The initializers.

UNTESTED = {
    "rainbow": "resamples a network on images: tests/initializers/test_rainbow.py",
    "mimetic_ssm": "no class of torch.nn is a state space: tests/initializers/test_mimetic_ssm.py",
    "file": "reads a file: tests/covariance/test_store.py",
    **dict.fromkeys(
        ("filters", "nfm", "agop", "learned", "patches"),
        "need a harvest: tests/initializers/test_harvests.py",
    ),
    "lsuv": "runs a network on images: tests/initializers/test_lsuv.py",
}
"""Components that are not tested here, and where they are."""

ARGUMENTS: dict[str, dict[str, object]] = {
    "constant": {"value": 0.3},
    "normal": {"std": 0.02, "mean": 0.1},
    "impulse_attention": {"positions": "sincos2d", "grid": [2, 2]},
    "sincos2d": {"grid": [4, 4]},
    "rows": {"old": 2},
    "weight_selection": {"from": {"trial": "somewhere"}},
    "weight_tiling": {"from": {"trial": "somewhere"}},
}


def rules() -> dict[str, dict[str, object]]:
    """Return the keys of a rule for every component."""
    found: dict[str, dict[str, object]] = {}
    for family in ("init", "covariance", "scale"):
        for name, section in registered(family).items():
            if name in UNTESTED:
                continue
            spec = {"type": name, **(ARGUMENTS.get(name, section.example))}
            more = {"covariance": "identity"} if family == "scale" else {}
            found[f"{family} {name}"] = {family: spec, **more}
    return found


INITS = rules()
ARM = load({"recipe": 1, "name": "test", "init": []}).arms["main"]

# 3. What an initializer may refuse.

ELEMENTWISE = re.compile(
    r"init (keep|default|ones|zeros|constant|eye|dirac|scaled_residual|(\w+_)?(normal|uniform)|weight_\w+)"
    r"|covariance .*|scale .*"
)
"""Initializers that fill complex tensors."""

FILTERS = re.compile(r"covariance .*|scale .*")
DIMENSIONS = {"rows": (1, 2), "eye": (2,), "sparse": (2,), "dirac": (3, 4, 5)}

Refusal = Callable[["Case", Site, Parameter], bool]
REFUSALS: dict[str, Refusal] = {
    "MIM-I001": lambda case, _, p: len(p.shape) not in DIMENSIONS.get(case.init.split()[1], range(2, 9)),
    "MIM-I012": lambda _, __, p: len(p.shape) not in (3, 4, 5),
    "MIM-I072": lambda case, site, _: bool(FILTERS.match(case.init)) and site.geometry is None,
    "MIM-I073": lambda case, _, p: (
        bool(FILTERS.match(case.init)) and (p.local != "weight" or len(p.shape) < 2)
    ),
    "MIM-V122": lambda _, site, __: site.geometry is not None and len(site.geometry.kernel_size) != 2,
    "MIM-V123": lambda _, site, __: site.geometry is not None and math.prod(site.geometry.kernel_size) == 1,
    "MIM-V008": lambda _, site, __: site.kind in ("conv", "depthwise_conv"),
    "MIM-V007": lambda _, site, __: site.kind not in ("conv", "depthwise_conv"),
    "MIM-I057": lambda case, _, __: case.dtype.is_complex and "weight_" in case.init,
    "MIM-I117": lambda case, _, __: case.init == "init rows",
    "MIM-I112": lambda case, _, __: case.dtype.is_complex and not ELEMENTWISE.fullmatch(case.init),
}
"""By the code of a refusal, whether the initializer documents it for such a tensor."""


@dataclass(frozen=True)
class Case:
    """A module class, an initializer, a dtype, and what computes the weight."""

    cls: str
    init: str
    dtype: torch.dtype = torch.float32
    wrap: str | None = None


@cache
def prepared(cls: str, dtype: torch.dtype, wrap: str | None) -> Graph | None:
    """Return the sites of a module, or None if torch itself does not run it with this dtype or wrapper."""
    try:
        model = made(cls, dtype, wrap)
        if all(bool(out.isfinite().all()) for out in outputs(model, cls, dtype)):
            return find_sites(model)
    except (RuntimeError, ValueError, NotImplementedError, AttributeError, IndexError, KeyError):
        assert dtype not in (torch.float32, torch.float64) or wrap is not None, cls
    return None


def made(cls: str, dtype: torch.dtype, wrap: str | None) -> nn.Module:
    """Make a module."""
    torch.default_generator.manual_seed(0)  # a tenth of the time of `torch.manual_seed`, which seeds GPUs
    layer = MADE[cls][0]().to(dtype)
    return Holder(layer if wrap is None else WRAPS[wrap](layer)).eval()


def outputs(model: nn.Module, cls: str, dtype: torch.dtype) -> list[Tensor]:
    """Return the tensors of one forward in evaluation mode."""

    def tensors(result: object) -> Iterator[Tensor]:
        if isinstance(result, Tensor):
            yield result
        elif isinstance(result, tuple):
            yield from chain.from_iterable(map(tensors, result))

    inputs = (x.to(dtype) if x.is_floating_point() else x for x in MADE[cls][1])
    with torch.no_grad():
        return list(tensors(model(*inputs)))


def rules_for(case: Case, graph: Graph) -> dict[Rule, tuple[Site, Parameter]]:
    """Return a rule for each parameter name of each kind of layer; for composite sites, one for all."""
    acts_on = Rule.model_validate({"id": "r", "match": "x", **INITS[case.init]}).acts_on
    sites = graph.sites if acts_on is None else graph.composites
    first: dict[tuple[str, str], tuple[Site, Parameter]] = {}
    for site in sites:
        for parameter in site.parameters:
            if acts_on in {None, site.kind}:
                first.setdefault((site.kind, parameter.local if acts_on is None else ".*"), (site, parameter))
    return {
        str(number): (
            Rule.model_validate(
                {
                    "id": str(number),
                    "match": {"kind": kind, "param": re.escape(param) if acts_on is None else param},
                    **INITS[case.init],
                }
            ),
            *where,
        )
        for number, ((kind, param), where) in enumerate(first.items())
    }


def applied(case: Case) -> tuple[int, Counter[str]]:
    """Apply an initializer to every parameter that takes it; return their number, and the refusals."""
    graph = prepared(case.cls, case.dtype, case.wrap)
    if graph is None:
        return 0, Counter()
    model, rules = made(case.cls, case.dtype, case.wrap), rules_for(case, graph)
    refused: Counter[str] = Counter()
    specs = [rule.init for rule, *_ in rules.values() if rule.init is not None]
    harvests = {
        harvest_key(spec): TrainedNetwork("a source", graph, made(case.cls, case.dtype, None))
        for spec in specs[:1]
        if spec.takes == "network"
    }
    while rules:
        arm = ARM.model_copy(update={"init": tuple(rule for rule, *_ in rules.values())})
        try:
            plan = resolve(arm, graph, seed=0, harvests=harvests)
            plan.apply(model)
            break
        except RecipeError as error:
            for issue in error.issues:
                _, site, parameter = rules.pop(str(issue.path[-1]))
                assert REFUSALS[issue.code](case, site, parameter), issue
                refused[issue.code] += 1
        except UserError as error:
            # spectral norm divides by the norm, here of zeros
            if (error.code, case.init, str(case.wrap)[:8]) != ("MIM-G031", "init zeros", "spectral"):
                raise
            return 0, Counter([error.code])
    else:
        return 0, refused
    assert all(bool(out.isfinite().all()) for out in outputs(model, case.cls, case.dtype)), case
    modules = canonical_modules(model)
    for entry in plan.entries:
        check(entry, modules[entry.layer])
    return sum(entry.rule is not None for entry in plan.entries), refused


def check(entry: Entry, layer: nn.Module) -> None:
    """Compare the entries of the tensor that a layer has used with the plan, within seven standard errors."""
    local = entry.parameter.removeprefix(f"{entry.layer}.")
    used = getattr(layer, local).detach()
    assert bool(used.isfinite().all()), entry
    if entry.moments is None or used.numel() == 0:
        return
    used = used[getattr(layer, f"{local}_mask", torch.ones_like(used)) != 0]
    wide = used.to(torch.complex128 if used.is_complex() else torch.float64)
    mean, std, draws = entry.moments.mean, entry.moments.std, entry.moments.draws
    rounding = 10 * max(torch.finfo(used.dtype).eps, 1e-7) * max(abs(mean), std) + 1e-12
    error = 7.0 / math.sqrt(draws) if draws > 0.0 else 0.0
    assert (
        abs(float(wide.real.mean() if wide.is_complex() else wide.mean()) - mean) <= error * std + rounding
    ), entry
    if error < 1.0:
        assert abs(float((wide - mean).abs().square().mean().sqrt()) - std) <= error * std + rounding, entry


# 4. The tests.

DTYPES = (torch.float64, torch.bfloat16, torch.float16, torch.complex64)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("cls", ["Linear", "Conv2d", "Embedding", "BatchNorm2d"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_some_initializers_on_some_classes(cls: str, dtype: torch.dtype) -> None:
    """A part of the test below that takes a second."""
    for init in ("init normal", "init default", "init orthogonal", "init constant", "covariance identity"):
        applied(Case(cls, init, dtype))
    if cls == "Linear":
        for wrap in WRAPS:
            assert applied(Case(cls, "init xavier_normal", dtype, wrap))[0] > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_initializer_on_every_class() -> None:
    """In float32 every pair; with the other dtypes and what computes weights, each in turn."""
    inits, classes_of, others = Counter[str](), Counter[str](), Counter[object]()
    wraps = tuple(WRAPS)
    for i, cls in enumerate(MADE):
        for j, init in enumerate(INITS):
            dtype, wrap = DTYPES[(i + j) % len(DTYPES)], wraps[(i + j) % len(wraps)]
            number, _ = applied(Case(cls, init))
            inits[init] += number
            classes_of[cls] += number
            others[dtype] += applied(Case(cls, init, dtype))[0]
            others[wrap] += applied(Case(cls, init, torch.float32, wrap))[0]
    assert set(+inits) == set(INITS)
    assert set(+classes_of) == set(MADE)
    assert set(+others) == {*DTYPES, *wraps}
