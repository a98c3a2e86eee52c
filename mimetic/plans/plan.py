"""The plan: parameter → rule, initializer, resolved arguments, expected std, seed, frozen."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from torch import nn

from mimetic.config.registry import registered
from mimetic.graph.site import Site, shape_text
from mimetic.plans.apply import Progress, WrittenTensor, apply
from mimetic.plans.entry import Action, Entry
from mimetic.plans.matching import Matching
from mimetic.printable import pluralize
from mimetic.surgery.rewrite import Rewritten
from mimetic.tables import Table


@dataclass(frozen=True, slots=True, repr=False)
class Plan:
    """How every parameter of a model is initialized: resolved, immutable, readable, hashable.

    Attributes:
        seed: Seed of the run.
        entries: One per parameter, in execution order.
        actions: The draws that fill them.
        matching: Every rule's verdict on every parameter, for `explain`.
        frozen_bn_layers: Layers whose running statistics stay fixed.
        rewrites: What surgery replaced before.
        sites: The composite sites, recognized and declared, whether a rule acts on them or not.
        traced: Whether the order is that of a forward; else that of registration.
        note: Why the forward could not be traced.
    """

    seed: int
    entries: tuple[Entry, ...]
    actions: tuple[Action, ...]
    matching: Matching = field(repr=False, compare=False)
    frozen_bn_layers: tuple[str, ...] = ()
    rewrites: tuple[Rewritten, ...] = ()
    sites: tuple[Site, ...] = ()
    traced: bool = True
    note: str | None = None

    def __repr__(self) -> str:
        """Return a summary in one line."""
        return f"<Plan: {self.summary}>"

    def __str__(self) -> str:
        """Return what is initialized or frozen as a table, repeated blocks in one line."""
        table = self.table().collapsed()
        return "\n".join((table.title, *(table.lines() if table.rows else ()), *table.notes))

    def _repr_html_(self) -> str:
        return self.table().collapsed().page()

    @property
    def summary(self) -> str:
        """Return how much of the model the rules initialize, the seed and the start of the hash."""
        claimed = [entry.rule for entry in self.entries if entry.rule is not None]
        total, rules = len(self.entries), len(set(claimed))
        of = f"{pluralize(total, 'parameter')} by {pluralize(rules, 'rule')}"
        return f"{len(claimed)} of {of}, seed {self.seed}, plan {self.hash[:12]}"

    def table(self, *, every: bool = False) -> Table:
        """Return what is initialized or frozen, one row per parameter; with `every`, all parameters."""
        shown = [e for e in self.entries if every or e.rule is not None or e.frozen or e.fixed]
        left = len(self.entries) - len(shown)
        keep = "parameter keeps" if left == 1 else "parameters keep"
        header = ("parameter", "shape", "kind", "init", "std", "rule", "at")
        return Table(
            self.summary,
            header,
            tuple(map(_row, shown)),
            (f"{left} {keep} the model's own initialization",) if left else (),
            optional=("at", "kind", "rule", "std"),
            left=len(header),
        )

    @property
    def hash(self) -> str:
        """Return a digest of what determines the initial weights: equal plans have equal digests.

        Ids, files and the order of rules do not enter.
        """
        return self._digest({"seed": self.seed}, {})

    @property
    def content(self) -> str:
        """Return a digest of what determines the initial weights, the seed excepted."""
        return self._digest({}, {"key": None})

    def _digest(self, seed: dict[str, object], key: dict[str, object]) -> str:
        content: dict[str, object] = {
            "version": 1,
            **seed,
            "held": sorted(self.frozen_bn_layers),
            "entries": sorted((e.identity() | key for e in self.entries), key=lambda e: str(e["parameter"])),
        }
        if self.rewrites:
            content["rewrites"] = sorted((r.identity() for r in self.rewrites), key=lambda r: str(r["layer"]))
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return blake2b(text.encode(), digest_size=16).hexdigest()

    @property
    def frozen(self) -> tuple[str, ...]:
        """Return the names of the parameters that take no gradient, whoever froze them."""
        return tuple(name for entry in self.entries for name in entry.fixed)

    @property
    def frozen_by_recipe(self) -> tuple[str, ...]:
        """Return those of `frozen` that a rule or surgery froze: nothing but the recipe decides on them.

        What a model freezes itself it may also change itself, as a moving average does.
        """
        rewritten = {name for rewrite in self.rewrites for name in rewrite.frozen}
        rules = (self.matching.owner(entry.parameter) for entry in self.entries)
        return tuple(
            name
            for entry, rule in zip(self.entries, rules, strict=True)
            for name in entry.fixed
            if name in rewritten or (rule is not None and rule.freeze.params)
        )

    def apply(self, model: nn.Module, *, progress: Progress | None = None) -> tuple[WrittenTensor, ...]:
        """Write the plan into a model; see `mimetic.plans.apply.apply`."""
        return apply(self.entries, self.actions, model, seed=self.seed, progress=progress)

    def entry(self, parameter: str) -> Entry | None:
        """Return the entry of a parameter, by its canonical name or an alias."""
        for entry in self.entries:
            if parameter == entry.parameter or parameter in entry.aliases:
                return entry
        return None

    def to_dict(self) -> dict[str, object]:
        """Return the plan as plain values, for files and trackers."""
        return {
            "hash": self.hash,
            "seed": self.seed,
            "order": "traced" if self.traced else "registered",
            "note": self.note,
            "frozen_bn_layers": list(self.frozen_bn_layers),
            "rewrites": [_rewrite_dict(rewrite) for rewrite in self.rewrites],
            "sites": [_site_dict(site) for site in self.sites],
            "entries": [_entry_dict(entry) for entry in self.entries],
        }


def _row(entry: Entry) -> tuple[str, ...]:
    """Return the row of a parameter: name, shape, kind, initializer, std, rule and its position."""
    return (
        entry.parameter + (f" (tied: {', '.join(entry.aliases)})" if entry.aliases else ""),
        shape_text(entry.shape),
        entry.kind,
        _summary(entry),
        "" if entry.moments is None else f"{entry.moments.std:.4g}",
        entry.rule or "",
        entry.where or "",
    )


def _rewrite_dict(rewrite: Rewritten) -> dict[str, object]:
    return {
        **rewrite.identity(),
        "rewrite": rewrite.rewrite,
        "was": rewrite.was,
        "becomes": rewrite.becomes,
        "where": rewrite.where,
    }


def _site_dict(site: Site) -> dict[str, object]:
    structure = site.structure
    slots = () if structure is None else structure.slots
    return {
        "site": site.layer,
        "kind": site.kind,
        "depth": site.depth,
        "sizes": None if structure is None else structure.sizes,
        "slots": {slot.name: [slot.parameter, slot.start, slot.stop] for slot in slots},
    }


def _entry_dict(entry: Entry) -> dict[str, object]:
    moments = entry.moments
    return {
        **entry.identity(),
        "layer": entry.layer,
        "kind": entry.kind,
        "aliases": list(entry.aliases),
        "rule": entry.rule,
        "where": entry.where,
        "mean": None if moments is None else moments.mean,
        "std": None if moments is None else moments.std,
        "notes": list(entry.notes),
    }


def differences(one: Sequence[Entry], other: Sequence[Entry], names: tuple[str, str]) -> Table:
    """Return the parameters that two plans initialize differently, one row each."""
    left = {entry.parameter: entry for entry in one}
    right = {entry.parameter: entry for entry in other}
    rows = []
    for name in dict.fromkeys((*left, *right)):
        a, b = left.get(name), right.get(name)
        if a is None or b is None or a.identity() != b.identity():
            shapes = dict.fromkeys(shape_text(entry.shape) for entry in (a, b) if entry is not None)
            rows.append((name, " → ".join(shapes), _summary(a), _summary(b)))
    title = f"{len(rows)} of {len({**left, **right})} parameters differ"
    return Table(title, ("parameter", "shape", *names), tuple(rows), optional=("shape",), left=4)


def _summary(entry: Entry | None) -> str:
    """Return how a parameter is initialized."""
    return "absent" if entry is None else describe(entry) + (", frozen" if entry.frozen else "")


def describe(entry: Entry) -> str:
    """Return the initializer and its arguments in one line, without defaults: how tables show it."""
    if entry.rule is None:
        return "model's own"
    covariance = entry.arguments.get("covariance")
    if covariance is None:
        return _section_text("init", entry.initializer, entry.arguments)
    text = _section_text("covariance", covariance["type"], covariance)
    scale = _section_text("scale", entry.arguments["scale"]["type"], entry.arguments["scale"])
    return text if scale == "none" else f"{text} · {scale}"


def _section_text(family: str, name: str, arguments: Mapping[str, object]) -> str:
    """Write a section as a call, `closed_form(width=0.15)`, without arguments that have their defaults."""
    section = registered(family).get(name)
    fields = {} if section is None else section.model_fields
    defaults = {
        key if field.alias is None else field.alias: field.get_default(call_default_factory=True)
        for key, field in fields.items()
    }
    text = ", ".join(
        f"{key}={_value_text(key, value)}"
        for key, value in arguments.items()
        if key != "type" and not (key in defaults and value == defaults[key])
    )
    return f"{name}({text})" if text else name


def _value_text(key: str, value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        whole = all(isinstance(item, int) for item in value)
        return str(value) if whole else " + ".join(_value_text(key, item) for item in value)
    if isinstance(value, Mapping) and "type" in value:
        return _section_text(key, str(value["type"]), value)
    if isinstance(value, Mapping) and "covariance" in value:  # a part of a mixture
        return f"{value['weight']:.4g} {_value_text('covariance', value['covariance'])}"
    if isinstance(value, Mapping):
        items = ((key, item) for key, item in value.items() if item not in ("own", None))
        return " ".join(f"{key} {_item_text(key, item)}" for key, item in items)
    return str(value)


def _item_text(key: str, value: object) -> str:
    """Write a value of a nested argument."""
    if isinstance(value, Mapping):
        return _value_text(key, value)
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
