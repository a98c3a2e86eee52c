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
from mimetic.surgery.rewrite import Rewritten


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
        """Return a table of what is initialized or frozen, one line per parameter."""
        shown = [entry for entry in self.entries if entry.rule is not None or entry.fixed]
        rows = [_row(entry) for entry in shown]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        claimed = sum(entry.rule is not None for entry in self.entries)
        head = (
            f"{claimed} of {len(self.entries)} parameters by rules, seed {self.seed}, plan {self.hash[:12]}"
        )
        left = len(self.entries) - len(shown)
        rest = [f"{left} parameters keep the model's own initialization"] if left else []
        return "\n".join((head, *lines, *rest))

    @property
    def hash(self) -> str:
        """Return a digest of what determines the initial weights: equal plans have equal digests.

        Ids, files and the order of rules do not enter.
        """
        content: dict[str, object] = {
            "version": 1,
            "seed": self.seed,
            "held": sorted(self.frozen_bn_layers),
            "entries": sorted((e.identity() for e in self.entries), key=lambda e: str(e["parameter"])),
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
    """Return the line of a parameter: name, shape, initializer, std and rule."""
    frozen = ", frozen" if entry.frozen else ""
    std = "" if entry.moments is None else f"std {entry.moments.std:.4g}"
    rule = "" if entry.rule is None else entry.rule
    return entry.parameter, shape_text(entry.shape), describe(entry) + frozen, std, rule


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


def differences(one: Sequence[Entry], other: Sequence[Entry]) -> list[tuple[str, str, str]]:
    """Return (parameter, in one, in the other) for each parameter that is initialized differently."""
    left = {entry.parameter: entry for entry in one}
    right = {entry.parameter: entry for entry in other}
    rows = []
    for name in dict.fromkeys((*left, *right)):
        a, b = left.get(name), right.get(name)
        if a is None or b is None or a.identity() != b.identity():
            rows.append((name, _summary(a), _summary(b)))
    return rows


def _summary(entry: Entry | None) -> str:
    if entry is None:
        return "absent"
    return f"{shape_text(entry.shape)} {describe(entry)}{' frozen' if entry.frozen else ''}"


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
        f"{key}={_value_text(value)}"
        for key, value in arguments.items()
        if key != "type" and not (key in defaults and value == defaults[key])
    )
    return f"{name}({text})" if text else name


def _value_text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        whole = all(isinstance(item, int) for item in value)
        return str(value) if whole else " + ".join(_value_text(item) for item in value)
    if isinstance(value, Mapping) and "covariance" in value:  # a part of a mixture
        part = value["covariance"]
        return f"{value['share']:.4g} {_section_text('covariance', part['type'], part)}"
    if isinstance(value, Mapping):
        items = ((key, item) for key, item in value.items() if item not in ("own", None))
        return " ".join(f"{key} {_item_text(key, item)}" for key, item in items)
    return str(value)


def _item_text(key: str, value: object) -> str:
    """Write a value of a nested argument; a model as its section."""
    if key == "model" and isinstance(value, Mapping):
        return _section_text("model", value["type"], value)
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
