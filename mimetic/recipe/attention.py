"""`attention:` in a rule: which layers are the maps of an attention that is not recognised by itself."""

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from mimetic.recipe.base import Count, Section, mistake

LayerPath = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\s.][^\s]*$")]


class DeclaredAttention(Section):
    """The four maps of an attention: names of linear layers below the matched layer, and its heads."""

    expected: ClassVar[str] = "a map such as `{q: to_q, k: to_k, v: to_v, out: to_out, heads: 3}`"

    qkv: LayerPath | None = Field(
        None, description="One layer whose outputs are queries, then keys, then values, head by head."
    )
    q: LayerPath | None = Field(None, description="Layer of the queries.")
    k: LayerPath | None = Field(None, description="Layer of the keys.")
    v: LayerPath | None = Field(None, description="Layer of the values.")
    out: LayerPath = Field(description="Layer that projects what the heads return.")
    heads: Count = Field(description="Query heads.")
    kv_heads: Count | None = Field(
        None, description="Key and value heads of grouped queries; as many as `heads` unless given."
    )

    @model_validator(mode="after")
    def _fused_or_split(self) -> "DeclaredAttention":
        split = [name for name in ("q", "k", "v") if getattr(self, name) is not None]
        if self.qkv is not None and split:
            raise mistake(f"`qkv` is one layer for all three, and `{split[0]}` another", at=(split[0],))
        if self.qkv is None and len(split) < 3:  # noqa: PLR2004
            missing = next(name for name in ("q", "k", "v") if name not in split)
            raise mistake(f"the attention has no `{missing}`", hint="give `q`, `k` and `v`, or one `qkv`")
        groups = self.heads if self.kv_heads is None else self.kv_heads
        if self.heads % groups:
            raise mistake(f"{self.heads} heads cannot share {groups} of keys and values", at=("kv_heads",))
        return self
