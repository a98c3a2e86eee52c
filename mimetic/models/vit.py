"""Vision transformer for small images: patches, blocks of attention and MLP, mean or class token.

Dosovitskiy et al., arXiv 2010.11929; sizes and initial distributions follow DeiT (Touvron et al., arXiv
2012.12877) as in timm: matrices, tokens and positions from a normal distribution of std 0.02 truncated at ±2,
biases zero, the patch embedding torch's own.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional, init

from mimetic.models import config
from mimetic.models.sincos import sincos2d

STD = 0.02


class VisionTransformer(nn.Module):
    """Classify square images (N, C, H, W) by a vision transformer; returns logits (N, classes).

    The layers are `patch_embed`, `pos_embed`, `cls_token` (if pooled by it),
    `blocks.<i>.{norm1,attn.qkv,attn.proj,norm2,fc1,fc2}`, `norm` and `head`.

    Args:
        in_channels: Channels of the images.
        num_classes: Outputs.
        spec: Its sizes, positions and pooling.
    """

    def __init__(self, *, in_channels: int, num_classes: int, spec: config.Vit) -> None:
        super().__init__()
        self.image_size = spec.image_size
        width, depth, heads = spec.shape
        side, prefix = spec.image_size // spec.patch_size, int(spec.pool == "cls")
        self.patch_embed = nn.Conv2d(in_channels, width, spec.patch_size, stride=spec.patch_size)
        self.cls_token = Table(1, width) if spec.pool == "cls" else None
        self.pos_embed: nn.Module = Table(prefix + side * side, width)
        if spec.positions == "sincos":
            self.pos_embed = Sinusoids(prefix, side, width)
        hidden = round(width * spec.mlp_ratio)
        self.blocks = nn.Sequential(*(Block(width, heads, hidden) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits; other images than those the table of positions is for are a ValueError."""
        if x.shape[2:] != (self.image_size, self.image_size):
            wanted = f"{self.image_size}×{self.image_size}, its `image_size`"
            raise ValueError(f"Input images are {x.shape[2]}×{x.shape[3]}, and the model is for {wanted}")
        x = self.patch_embed(x).flatten(2).mT
        if self.cls_token is not None:
            x = torch.cat([self.cls_token().expand(len(x), -1, -1), x], dim=1)
        x = self.norm(self.blocks(x + self.pos_embed()))
        return self.head(x.mean(1) if self.cls_token is None else x[:, 0])  # type: ignore[no-any-return]


class Block(nn.Module):
    """x ← x + attention(norm(x)), then x ← x + MLP(norm(x))."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.fc1 = Linear(width, hidden)
        self.fc2 = Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same shape."""
        x = x + self.attn(self.norm1(x))
        return x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Self-attention of several heads over tokens (N, T, D), one layer for queries, keys and values."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the tokens gather from one another."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        gathered = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(gathered.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Linear(nn.Linear):
    """A linear layer initialized as in timm: truncated normal weights, zero biases."""

    def reset_parameters(self) -> None:
        """Initialize."""
        init.trunc_normal_(self.weight, std=STD)
        init.zeros_(self.bias)


class Table(nn.Module):
    """Learned tokens or positions, `weight` (1, T, D)."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, tokens, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize."""
        init.trunc_normal_(self.weight, std=STD)

    def forward(self) -> Tensor:
        """Return the table."""
        return self.weight


class Sinusoids(nn.Module):
    """Positions that are not trained, in timm's layout: `table` (1, T, D), zero for a class token."""

    table: Tensor

    def __init__(self, prefix: int, side: int, width: int) -> None:
        super().__init__()
        self.prefix, self.side = prefix, side
        self.register_buffer("table", torch.empty(1, prefix + side * side, width), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Compute the table."""
        with torch.no_grad():
            table_ND = sincos2d((self.side, self.side), self.table.shape[2], layout="timm")
            self.table.copy_(functional.pad(table_ND, (0, 0, self.prefix, 0)))

    def forward(self) -> Tensor:
        """Return the table."""
        return self.table
