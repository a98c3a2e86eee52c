"""`attention:` and `mlp:` in a rule: which layers make a site that is not recognised by itself."""

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from mimetic.recipe.base import Count, Section, mistake

LayerPath = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\s.][^\s]*$")]


class DeclaredAttention(Section):
    """The four maps of an attention: names of linear layers below the matched layer, and its heads."""

    expected: ClassVar[str] = "a map such as `{q: to_q, k: to_k, v: to_v, out: to_out, heads: 3}`"

    qkv: LayerPath | None = Field(
        None, description="One layer whose outputs are all queries, then all keys, then all values."
    )
    q: LayerPath | None = Field(None, description="Layer of the queries.")
    kv: LayerPath | None = Field(
        None, description="One layer whose outputs are all keys, then all values; beside `q`."
    )
    k: LayerPath | None = Field(None, description="Layer of the keys.")
    v: LayerPath | None = Field(None, description="Layer of the values.")
    out: LayerPath = Field(description="Layer that projects what the heads return.")
    heads: Count | None = Field(
        None, description="Query heads; as many as each matched layer keeps (`num_heads`, …) unless given."
    )
    kv_heads: Count | None = Field(
        None, description="Key and value heads of grouped queries; as many as `heads` unless given."
    )

    @property
    def inner(self) -> tuple[tuple[LayerPath, tuple[str, ...]], ...]:
        """Return the layers below the heads, each with the names of the maps it holds, in order."""
        keys = ("qkv", "q", "kv", "k", "v")
        return tuple((getattr(self, key), tuple(key)) for key in keys if getattr(self, key) is not None)

    @property
    def layers(self) -> tuple[LayerPath, ...]:
        """Return the names of all layers."""
        return (*(path for path, _ in self.inner), self.out)

    @model_validator(mode="after")
    def _each_map_once(self) -> "DeclaredAttention":
        named = {key: getattr(self, key) for key in ("qkv", "q", "kv", "k", "v", "out")}
        given = [key for key, path in named.items() if path is not None]
        for place, key in enumerate(given):
            whole = next((other for other in given[:place] if set(key) <= set(other)), None)
            if whole is not None:
                what = "all three" if whole == "qkv" else "both"
                raise mistake(f"`{whole}` is one layer for {what}, and `{key}` another", at=(key,))
            same = next((other for other in given[:place] if named[other] == named[key]), None)
            if same is not None:
                raise mistake(f"`{key}` is the same layer as `{same}`", at=(key,))
        missing = next((key for key in "qkv" if key not in "".join(given)), None)
        if missing is not None:
            hint = "give `q`, `k` and `v`; or `q` and one `kv`; or one `qkv`"
            raise mistake(f"the attention has no `{missing}`", hint=hint)
        if self.heads is not None and self.kv_heads is not None and self.heads % self.kv_heads:
            what = f"{self.heads} heads cannot share {self.kv_heads} of keys and values"
            raise mistake(what, at=("kv_heads",))
        return self


class DeclaredMlp(Section):
    """The two layers of an MLP pair: names of linear layers below the matched layer."""

    expected: ClassVar[str] = "a map such as `{fc1: widen, fc2: narrow}`"

    fc1: LayerPath = Field(description="The first layer.")
    fc2: LayerPath = Field(description="The second, which leads back to the width the first came from.")

    @property
    def layers(self) -> tuple[LayerPath, ...]:
        """Return the names of both."""
        return self.fc1, self.fc2

    @model_validator(mode="after")
    def _two(self) -> "DeclaredMlp":
        if self.fc1 == self.fc2:
            raise mistake("a pair is two layers, and both are the same", at=("fc2",))
        return self


Declared = DeclaredAttention | DeclaredMlp
"""What a rule may declare."""
