"""`mimetic.resize_embeddings`: more tokens for a language model, whose rows are like those it has."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn

from mimetic.api.starting import initialize
from mimetic.config.suggest import listed
from mimetic.errors import UserError
from mimetic.graph.names import canonical_modules
from mimetic.graph.own import own_parameters
from mimetic.plans.plan import Plan
from mimetic.streams import as_seed, keyed_global_rng


class _Table(NamedTuple):
    """An embedding and the head that predicts its rows, by canonical name; None where there is no head."""

    embedding: str
    head: str | None


def resize_embeddings(
    model: nn.Module,
    size: int,
    *,
    tau: float = 1.0,
    seed: int = 0,
    embedding: str | None = None,
    head: str | None = None,
) -> Plan:
    """Add rows to a model's input embedding, output head and its bias, in place, and return the plan.

    New rows are drawn from N(μ, τ²Σ), with the mean and covariance of the old rows of the same tensor, of any
    rank; see `mimetic.initializers.rows`. Make the optimizer afterwards.

    Args:
        model: A model of transformers, which resizes itself, or any module with an `nn.Embedding` and, where
            it predicts tokens, an `nn.Linear` of as many outputs.
        size: Number of rows afterwards; at least as many as before.
        tau: Deviation of new rows in units of that of the old ones; 0 for their mean.
        seed: Seed of the draws.
        embedding: Name of the embedding; needed where the model has several.
        head: Name of the head; needed where several linear layers have as many outputs.

    Guarantee: old rows keep their bytes, tied tensors stay tied, `padding_idx` stays, and `num_embeddings`,
    `out_features` and `config.vocab_size` are the new number.

    Raises:
        UserError: If the model has no embedding or several, or would lose rows; it is unchanged then.
    """
    seed, modules = as_seed(seed), canonical_modules(model)
    table = _table(model, modules, embedding, head)
    old = len(_weight(modules[table.embedding]))
    if size < old:
        raise UserError(
            f"resize_embeddings: `{table.embedding}` has {old} rows, and {size} are fewer; give a larger "
            "number",
            code="MIM-A012",
        )
    olds = {name: old if name == table.embedding else len(_weight(modules[name])) for name in table if name}
    resize = getattr(model, "resize_token_embeddings", None)
    with keyed_global_rng(seed, table.embedding, "resize"):
        if callable(resize) and embedding is None and head is None:
            resize(size, mean_resizing=False)
        else:
            _resize(model, [modules[name] for name in table if name is not None], old, size)
    modules = canonical_modules(model)
    rules = list(_rules(modules, table, olds, tau))
    return initialize(model, {"recipe": 1, "init": rules} if size > old else {"recipe": 1}, seed=seed)


def _table(
    model: nn.Module, modules: dict[str, nn.Module], embedding: str | None, head: str | None
) -> _Table:
    """Return the names of the embedding and the head.

    Raises:
        UserError: If there is none, or several could be meant.
    """
    _check_named(modules, embedding, head)
    names = {id(module): name for name, module in reversed(modules.items())}
    own = getattr(model, "get_input_embeddings", None)
    if embedding is None and callable(own):
        outputs = getattr(model, "get_output_embeddings", lambda: None)()
        return _Table(names[id(own())], head if outputs is None else names[id(outputs)])
    embedding = _only_embedding(modules) if embedding is None else embedding
    return _Table(embedding, _only_head(modules, embedding) if head is None else head)


def _check_named(modules: dict[str, nn.Module], *names: str | None) -> None:
    for name in names:
        if name is not None and not isinstance(modules.get(name), nn.Embedding | nn.Linear):
            raise UserError(
                f"resize_embeddings: `{name}` is no embedding and no linear layer of the model; use a name "
                "of `model.named_modules()`",
                code="MIM-A013",
            )


def _only_embedding(modules: dict[str, nn.Module]) -> str:
    """Return the name of the model's embedding, if it has one."""
    tables = [name for name, module in modules.items() if isinstance(module, nn.Embedding)]
    if len(tables) != 1:
        raise UserError(
            f"resize_embeddings: the model has {len(tables)} embeddings ({listed(tables, 8)}); name one, "
            "`embedding=…`",
            code="MIM-A014",
        )
    return tables[0]


def _only_head(modules: dict[str, nn.Module], embedding: str) -> str | None:
    """Return the linear layer with an output for each row, one of the same weight first; None without one."""
    rows = _weight(modules[embedding])
    linear = [n for n, m in modules.items() if isinstance(m, nn.Linear) and m.weight.shape == rows.shape]
    linear = [n for n in linear if _weight(modules[n]) is rows] or linear
    if len(linear) > 1:
        raise UserError(
            f"resize_embeddings: {listed(linear, 8)} have as many outputs as `{embedding}` has rows; name "
            "the head, `head=…`",
            code="MIM-A015",
        )
    return linear[0] if linear else None


def _weight(layer: nn.Module) -> nn.Parameter:
    """Return the weight that a layer stores.

    Raises:
        UserError: If it computes its weight in every forward.
    """
    weight = own_parameters(layer).get("weight")
    if weight is None:
        raise UserError(
            f"resize_embeddings: a {type(layer).__name__} computes its weight; remove what computes it first",
            code="MIM-A016",
        )
    return weight


@torch.no_grad()
def _resize(model: nn.Module, layers: list[nn.Module], old: int, size: int) -> None:
    """Give layers parameters of more rows, zeros at the end; tied ones stay tied."""
    parameters = {id(p): p for layer in layers for p in own_parameters(layer).values() if p is not None}
    larger = {key: _longer(p, size) for key, p in parameters.items()}
    for module in model.modules():
        for local, parameter in own_parameters(module).items():
            if id(parameter) in larger:
                setattr(module, local, larger[id(parameter)])
                for attribute in ("num_embeddings", "out_features"):
                    if vars(module).get(attribute) == old:
                        setattr(module, attribute, size)
    config = getattr(model, "config", None)
    if config is not None and getattr(config, "vocab_size", None) == old:
        config.vocab_size = size


def _longer(parameter: nn.Parameter, size: int) -> nn.Parameter:
    rows = torch.cat([parameter, parameter.new_zeros(size - len(parameter), *parameter.shape[1:])])
    return nn.Parameter(rows, requires_grad=parameter.requires_grad)


def _rules(
    modules: dict[str, nn.Module], table: _Table, olds: dict[str, int], tau: float
) -> Iterator[dict[str, object]]:
    """Yield a rule for each tensor that has new rows, each of tied ones once."""
    seen: set[int] = set()
    for name, old in olds.items():
        for local, parameter in own_parameters(modules[name]).items():
            if parameter is None or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            yield {
                "id": f"{'head' if name == table.head else 'embedding'}-{local}",
                "match": {"layer": re.escape(name), "param": local},
                "init": {"type": "rows", "old": old, "tau": tau},
            }
