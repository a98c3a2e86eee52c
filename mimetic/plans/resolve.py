"""Resolve an arm's rules against the sites of a model: rules × sites → plan.

Every mistake of the rules is found here, before a tensor is touched, and all are reported together: a rule
that matches nothing or is wholly shadowed by earlier ones, a wrong `expect`, two rules on one tied tensor,
an initializer that does not fit its layer.
"""

import math
from collections.abc import Collection, Iterator, Sequence

from mimetic.ambient import fixed_settings
from mimetic.collector import paused_collector
from mimetic.config.address import MAIN, ConfigPath
from mimetic.config.errors import Issue, RecipeError
from mimetic.config.suggest import listed
from mimetic.covariance.context import NO_HARVESTS, Context, Harvests
from mimetic.errors import UserError
from mimetic.graph.site import Graph, Parameter, Site
from mimetic.initializers.resolved import Moments, ResolvedInit
from mimetic.plans.choose import filled_parameters, resolve_init
from mimetic.plans.diagnose import Message, explain_no_match
from mimetic.plans.entry import Action, Entry
from mimetic.plans.matching import Matching, match_rules
from mimetic.plans.plan import Plan
from mimetic.recipe.recipe import Arm
from mimetic.recipe.rule import Rule
from mimetic.streams import key
from mimetic.surgery.rewrite import Rewritten


@fixed_settings()
def resolve(
    arm: Arm,
    graph: Graph,
    *,
    seed: int,
    at: ConfigPath = MAIN,
    harvests: Harvests = NO_HARVESTS,
    rewrites: Sequence[Rewritten] = (),
) -> Plan:
    """Resolve an arm's rules into a plan; a pure function of its arguments that touches no tensor.

    Args:
        arm: The arm, complete.
        graph: The sites of the model, on any device.
        seed: Seed of the run.
        at: Place of the arm in its recipe, for messages.
        harvests: Measurements of trained networks and data, by `covariance.harvest_key`. Where they are
            still pending, the plan can be shown but not applied.
        rewrites: What surgery replaced in the model; the plan freezes what it froze.

    Raises:
        RecipeError: With every mistake of the rules at once.
    """
    with paused_collector():
        # 1. The first rule that matches a parameter claims it.
        rewritten = {parameter for rewrite in rewrites for parameter in rewrite.frozen}
        matching = match_rules(arm.init, graph, rewritten)
        # 2. Each rule's initializer is resolved for each site of which it claims something.
        actions, failed = _resolve_inits(matching, harvests)
        # 3. Mistakes are collected over all rules.
        found = [*_check_tied(matching), *failed, *_check_rules(matching)]
        issues = [
            at.issue(message.text, "init", arm.init[index].id, hint=message.hint, code=message.code)
            for index, message in found
        ]
        issues += _check_unmatched(arm, matching, at)
        if issues:
            raise RecipeError(issues)
        # 4. The plan lists what happens to each parameter.
        inits = {name: action for action in actions for name in action.parameters.values()}
        entries = tuple(
            _entry(matching, site, parameter, inits.get(parameter.name), seed=seed, at=at)
            for site in graph.sites
            for parameter in site.parameters
        )
        return Plan(
            seed=seed,
            entries=entries,
            actions=tuple(actions),
            frozen_bn_layers=_frozen_statistics(matching),
            rewrites=tuple(rewrites),
            sites=(*graph.composites, *(site for sites in matching.declared.values() for site in sites)),
            traced=graph.traced,
            note=graph.note,
            matching=matching,
        )


def _resolve_inits(matching: Matching, harvests: Harvests) -> tuple[list[Action], list[tuple[int, Message]]]:
    """Resolve each rule's initializer for each site it claims something of; return what failed as well."""
    actions: list[Action] = []
    failed: dict[int, list[UserError]] = {}
    for index, site, parameters in _claimed(matching):
        try:
            context = Context(tuple(p.local for p in parameters), harvests)
            init = resolve_init(matching.rules[index], site, context)
            _check_writable(init, parameters)
        except UserError as error:
            failed.setdefault(index, []).append(error)
            continue
        # A position table that is one parameter among others has its own site; the layer is above it.
        layer = site.layer if site.layer in matching.graph.classes else site.layer.rpartition(".")[0]
        actions.append(Action(site.layer, layer, {p.local: p.name for p in parameters}, init))
    messages = []
    for index, errors in failed.items():
        more = f" (and {len(errors) - 1} more of its layers)" if len(errors) > 1 else ""
        messages.append((index, Message(f"{errors[0]}{more}", None, errors[0].code)))
    return actions, messages


def _check_writable(init: ResolvedInit, parameters: Sequence[Parameter]) -> None:
    """Refuse parameters to which an initializer cannot write.

    Raises:
        UserError: With the repair.
    """
    for parameter in parameters if init.name != "keep" else ():
        if parameter.obstacle is not None:
            raise UserError(
                f"`{parameter.name}` cannot be initialized: {parameter.obstacle}; repair the model first, or "
                "leave the parameter out (`init: keep`)",
                code="MIM-P014",
            )
        if parameter.stored and init.network_init is not None:
            raise UserError(
                f"`{parameter.name}` is computed by {parameter.by}, and this rule runs the network to set "
                f"weights that are stored; initialize the model before {parameter.by} is applied",
                code="MIM-P015",
            )


def _claimed(matching: Matching) -> Iterator[tuple[int, Site, list[Parameter]]]:
    """Yield each rule's sites with the parameters it claims of them, in order of execution."""
    claimed: dict[tuple[int, int], tuple[int, Site, list[Parameter]]] = {}
    for layer in matching.graph.sites:
        for own in layer.parameters:
            index = matching.owners.get(own.name)
            if index is not None:
                site, parameter = matching.view(layer, own)
                claimed.setdefault((index, id(site)), (index, site, []))[2].append(parameter)
    yield from claimed.values()


def _check_tied(matching: Matching) -> Iterator[tuple[int, Message]]:
    """Refuse rules that initialize a tied tensor differently under its several names."""
    for parameter, names in matching.tied.items():
        firsts: dict[int, str] = {}  # the first rule of each name
        for name, indices in names.items():
            writing = [index for index in indices if parameter not in matching.skipped.get(index, ())]
            if writing:
                firsts.setdefault(min(writing), name)
        rules = {index: matching.rules[index] for index in sorted(firsts)}
        if len({rule.model_dump_json(exclude={"id", "match", "expect"}) for rule in rules.values()}) > 1:
            one, other = list(rules)[:2]
            text = (
                f"rule `{rules[other].id}` initializes `{firsts[other]}` differently from rule "
                f"`{rules[one].id}`, but it is the same tensor as `{firsts[one]}`"
            )
            yield other, Message(text, "match one of the tied names only", "MIM-P010")


def _check_rules(matching: Matching) -> Iterator[tuple[int, Message]]:
    """Find rules that match nothing, are shadowed, or claim another number of layers than expected."""
    for index, rule in enumerate(matching.rules):
        layers = matching.layers.get(index, set())
        if index in matching.refused:
            error = matching.refused[index]
            yield index, Message(str(error), None, error.code)
        elif index not in matching.winners and index in matching.skipped:
            names = listed(matching.skipped[index], 8)
            text = f"rule `{rule.id}` initializes nothing: the model froze all that it matches, {names}"
            yield index, Message(text, _FREEZE, "MIM-P016")
        elif index not in matching.winners:
            yield index, explain_no_match(rule, matching.graph, matching.declared.get(index, ()))
        elif not layers:
            names = listed([matching.rules[i].id for i in sorted(matching.winners[index])], 8)
            text = f"rule `{rule.id}` never applies: everything it matches is claimed earlier by {names}"
            hint = "move it further up or narrow the earlier rule: the first match wins"
            yield index, Message(text, hint, "MIM-P011")
        elif rule.expect is not None and rule.expect != len(layers):
            shown = listed(sorted(layers), 8)
            text = f"rule `{rule.id}` expects {rule.expect} layers and claims {len(layers)}: {shown}"
            yield index, Message(text, None, "MIM-P012")
        else:
            yield from _check_also(matching, index)


def _check_also(matching: Matching, index: int) -> Iterator[tuple[int, Message]]:
    """Find parameters that a rule's initializer fills as well, and that the rule does not claim."""
    rule = matching.rules[index]
    for kind, repair in ({} if rule.init is None else rule.init.also_fills).items():
        for site in matching.graph.composites:
            for parameter in site.parameters if site.kind == kind else ():
                owner = matching.owner(parameter.name)
                if owner is not rule:
                    why = "its `param` leaves it out" if owner is None else f"rule `{owner.id}` claims it"
                    if parameter.name in matching.skipped.get(index, ()):
                        why = "the model froze it"
                    text = f"rule `{rule.id}` also initializes `{parameter.name}`, but {why}"
                    hint = repair if owner is None else f"{repair}, or remove rule `{owner.id}`"
                    yield index, Message(text, hint, "MIM-P017")


def _check_unmatched(arm: Arm, matching: Matching, at: ConfigPath) -> Iterator[Issue]:
    """Report the parameters that no rule matches, where the arm requires a rule for each."""
    names = [p.name for site in matching.graph.sites for p in site.parameters]
    left = [name for name in names if name not in matching.owners]
    if left and arm.unmatched == "error":
        text = f"no rule matches {len(left)} parameters: {listed(left, 8)}"
        hint = "add rules for them (`init: keep` leaves a parameter as it is), or set `unmatched: keep`"
        yield at.issue(text, "unmatched", hint=hint, code="MIM-P013")


def _frozen_statistics(matching: Matching) -> tuple[str, ...]:
    """Return the layers whose running statistics a rule freezes, in order of execution per rule."""
    return tuple(
        site.layer
        for index, rule in enumerate(matching.rules)
        if rule.freeze.statistics
        for site in matching.graph.sites
        if site.layer in matching.layers.get(index, ())
    )


def _entry(
    matching: Matching,
    layer: Site,
    own: Parameter,
    action: Action | None,
    *,
    seed: int,
    at: ConfigPath,
) -> Entry:
    """Return the plan's entry for a parameter."""
    rule = matching.owner(own.name)
    site, parameter = matching.view(layer, own)
    init = None if action is None else action.init
    mark = None if rule is None else at.mark("init", rule.id)
    # The draws of a composite site share one stream, keyed by the site's name.
    stream = own.name if site.structure is None else site.layer
    fixed = _fixed(rule, own, matching.rewritten)
    return Entry(
        parameter=own.name,
        layer=layer.layer,
        kind=site.kind,
        shape=own.shape,
        dtype=own.dtype,
        key=key(seed, stream),
        aliases=own.aliases,
        rule=None if rule is None else rule.id,
        where=None if mark is None else f"{mark.file}:{mark.line}",
        initializer="keep" if init is None else init.name,
        arguments={} if init is None else init.arguments,
        moments=None if init is None else _promised(own, init.moments.get(parameter.local)),
        frozen=len(fixed) == max(len(own.stored), 1),
        notes=_skipped_notes(matching, own)
        if init is None
        else (
            *_site_notes(matching, site, parameter),
            *_parts(own),
            *init.notes,
            *_forward_notes(layer, own, init.moments.get(parameter.local)),
        ),
        stored=own.stored,
        fixed=fixed,
    )


def _skipped_notes(matching: Matching, own: Parameter) -> tuple[str, ...]:
    """Name the first rule that matches an unclaimed parameter and leaves it, because the model froze it."""
    skipping = [
        matching.rules[index].id for index, names in sorted(matching.skipped.items()) if own.name in names
    ]
    if not skipping or own.name in matching.owners:
        return ()
    return (f"the model froze it, so rule `{skipping[0]}` leaves it as it is; {_FREEZE}",)


STANDARDIZED = frozenset(
    {"StdConv2d", "StdConv2dSame", "ScaledStdConv2d", "ScaledStdConv2dSame", "WeightStandardizedConv2d"}
)
"""Convolutions of timm and transformers that use (w − mean) / std of each filter (arXiv 1903.10520)."""

_FREEZE = "add `freeze: true` to the rule to initialize it and keep it frozen, or `freeze: false` to train it"


def _promised(own: Parameter, drawn: Moments | None) -> Moments | None:
    """Return the moments of the entries that the layer uses: of a pruned weight, those that are left."""
    # What is fixed and varies, such as the identity, has other moments without some of its entries.
    fixed = drawn is not None and drawn.draws == 0.0 and drawn.std > 0.0
    return None if own.normalized or (fixed and own.by == "pruning") else drawn


def _fixed(rule: Rule | None, own: Parameter, rewritten: Collection[str]) -> tuple[str, ...]:
    """Return the names of a parameter's tensors that take no gradient, by the rule or by the model."""
    params = None if rule is None else rule.freeze.params
    names = own.stored if own.stored else (own.name,)
    if params is None:
        return tuple(name for name in names if name in own.frozen or name in rewritten)
    return names if params or not own.can_train else ()


def _parts(own: Parameter) -> Iterator[str]:
    """Describe how a layer computes a weight from the parameters that it stores."""
    if own.stored:
        how = "which divides it by its norm" if own.normalized else "which is set to give these values"
        yield f"computed by {own.by} from {listed(own.stored)}, {how}"


def _forward_notes(layer: Site, own: Parameter, drawn: Moments | None) -> Iterator[str]:
    """Describe how a forward of the layer's class changes what is written to a parameter or used of it."""
    if own.max_norm is not None:
        rows = (
            ""
            if drawn is None
            else f" (drawn: {math.hypot(drawn.mean, drawn.std) * own.shape[-1] ** 0.5:.3g})"
        )
        yield f"a forward shortens rows to a norm of {own.max_norm:g}, the layer's `max_norm`{rows}"
    if own.local == "weight" and not STANDARDIZED.isdisjoint(layer.classes):
        yield f"{layer.classes[0]} standardizes the weight in a forward: its mean and scale have no effect"


def _site_notes(matching: Matching, site: Site, parameter: Parameter) -> Iterator[str]:
    """Describe a parameter's part in its composite site, and what of the site other rules initialize."""
    structure = site.structure
    rule = matching.owner(parameter.name)
    if structure is None or rule is None:
        return
    described = structure.describe(parameter.local)
    if described is not None:
        yield described
    yield from structure.notes
    filled = filled_parameters(rule, site)
    for other in site.parameters:
        owner = matching.owner(other.name)
        if other.local in filled and owner is not rule:
            how = "is left unchanged" if owner is None else f"is initialized by rule `{owner.id}`"
            yield f"`{other.local}` belongs to this {site.kind} but {how}"
