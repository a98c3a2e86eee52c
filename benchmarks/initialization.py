"""Planning and initializing, from small networks to large ones, beside PyTorch's own construction."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from benchmarks.measurement import Column, DeviceOptions, Options, Result, Table, measurement, option
from benchmarks.timing import peak_memory, synchronize, timed
from mimetic.graph.sites import find_sites
from mimetic.plans.resolve import resolve
from mimetic.recipe.load import load
from mimetic.recipe.recipe import Arm

SIZES = ((100, 10), (300, 11), (1000, 10), (1000, 100), (3162, 100), (4, 10_000))
"""Width and depth of stacks of square linear layers."""


def arm(*rules: Mapping[str, Any]) -> Arm:
    """Return the arm of a recipe with these rules."""
    return load({"recipe": 1, "name": "benchmark", "init": list(rules)}).arms["main"]


def linear_layers(init: Mapping[str, Any]) -> Arm:
    """Return the arm that initializes the weights of linear layers, and their biases with zeros."""
    return arm(
        {"id": "weights", "match": {"kind": "linear"}, "init": init},
        {"id": "biases", "match": {"kind": "linear", "param": "bias"}, "init": "zeros"},
    )


# --------------------------------------------------------------------------------------------- planning
@dataclass(frozen=True, kw_only=True, slots=True)
class PlanningOptions(DeviceOptions):
    """Flags of `planning`."""

    smallest: float = option(1e5, "smallest number of weights")
    largest: float = option(1.1e9, "largest number of weights")
    deepest: int = option(10_000, "largest number of layers")


@measurement(takes="2 min", largest=1e6, deepest=100)
def planning(options: PlanningOptions) -> Result:
    """Time planning and initializing up to 10⁹ weights, beside construction.

    Planning runs on the meta device and allocates no weights. Initializing draws every weight of the network
    and writes it to the device; construction draws on the device itself.
    """
    plan_for, device = linear_layers({"type": "kaiming_normal", "nonlinearity": "relu"}), options.where

    def finished(work: Any) -> Any:
        result = work()
        synchronize(device)
        return result

    rows = []
    for width, depth in SIZES:
        weights = width * width * depth
        if not options.smallest <= weights <= options.largest or depth > options.deepest:
            continue
        with torch.device("meta"):
            model = _tower(width, depth)
        example = torch.empty(2, width, device="meta")
        sites, graph = timed(lambda model=model, example=example: find_sites(model, example))
        planned, plan = timed(lambda graph=graph: resolve(plan_for, graph, seed=0))
        with device:
            built, model = timed(lambda w=width, d=depth: finished(lambda: _tower(w, d)))
        applied, _ = timed(lambda plan=plan, model=model: finished(lambda: plan.apply(model)))
        rows.append((weights, depth, sites, planned, applied, built, applied / built))
    names = ("sites, s", "resolve, s", "initialize, s", "PyTorch's construction, s")
    columns = (
        Column("weights", ",d"),
        Column("layers", ",d"),
        *(Column(name, ".3f") for name in names),
        Column("initialize / construction", ".2f"),
    )
    notes = [f"Peak memory of the process: {peak_memory():.2f} GiB."]
    if device.type != "cpu":
        notes.append(f"Peak memory allocated on {device}: {peak_memory(device):.2f} GiB.")
    return Result((Table(columns, rows),), tuple(notes))


def _tower(width: int, depth: int) -> nn.Module:
    return nn.Sequential(*(nn.Linear(width, width) for _ in range(depth)))


# --------------------------------------------------------------------------------------------- transformers
@dataclass(frozen=True, kw_only=True, slots=True)
class VitOptions(Options):
    """Flags of `initialization`."""

    model: str = option("vit_large_patch16_224", "model of timm")
    threads: int = option(2, "threads of torch")
    rounds: int = option(3, "rounds; the fastest counts")


DISTRIBUTIONS: dict[str, dict[str, Any]] = {
    "trunc_normal": {"type": "trunc_normal", "std": 0.02},
    "normal": {"type": "normal", "std": 0.02},
    "xavier_uniform": {"type": "xavier_uniform"},
    "kaiming_normal": {"type": "kaiming_normal"},
}


@measurement(takes="2 min", model="vit_tiny_patch16_224", rounds=1, threads=1)
def initialization(options: VitOptions) -> Result:
    """Time each distribution on a vision transformer, beside its construction.

    In one process, in turn, the fastest rounds of each. Construction draws every weight from the model's own
    distributions; applying a plan draws from named streams, writes into the model and verifies the moments.
    """
    import timm

    with torch.device("meta"):
        graph = find_sites(timm.create_model(options.model))
    plans = {name: resolve(linear_layers(init), graph, seed=0) for name, init in DISTRIBUTIONS.items()}
    built: list[float] = []
    applied: dict[str, list[float]] = defaultdict(list)
    for _ in range(options.rounds):
        model = None  # one such model at a time
        seconds, model = timed(lambda: timm.create_model(options.model))
        built.append(seconds)
        for name, plan in plans.items():
            applied[name].append(timed(lambda plan=plan, model=model: plan.apply(model))[0])
    count = sum(parameter.numel() for parameter in model.parameters())
    columns = (Column("distribution"), Column("seconds", ".2f"), Column("of construction", ".2f"))
    rows = [("construction", min(built), 1.0)]
    rows += [(name, min(seconds), min(seconds) / min(built)) for name, seconds in applied.items()]
    note = f"{options.model}, {count / 1e6:.0f} M parameters, fastest of {options.rounds} rounds."
    return Result((Table(columns, rows),), (note,))


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionOptions(VitOptions):
    """Flags of `attention`."""

    model: str = option("vit_base_patch16_224", "model of timm")
    rounds: int = option(1, "rounds; the fastest counts")


@measurement(takes="1 min", model="test_vit", threads=1)
def attention(options: AttentionOptions) -> Result:
    """Time mimetic attention on a vision transformer."""
    import timm

    attend = arm({"id": "attention", "match": {"kind": "attention"}, "init": "mimetic_attention"})
    model = timm.create_model(options.model)
    rounds = []
    for _ in range(options.rounds):
        planned, plan = timed(lambda: resolve(attend, find_sites(model), seed=0))
        drawn, _ = timed(lambda plan=plan: plan.apply(model))
        rounds.append((planned + drawn, planned))
    whole, planned = min(rounds)
    sites = [site for site in find_sites(model).composites if site.kind == "attention"]
    heads = sum(site.structure.heads for site in sites)
    columns = (
        Column("model"),
        Column("layers", "d"),
        Column("heads", "d"),
        Column("seconds", ".1f"),
        Column("of them the plan", ".1f"),
    )
    return Result((Table(columns, [(options.model, len(sites), heads, whole, planned)]),))
