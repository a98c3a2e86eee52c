"""Named initializers: those of `torch.nn.init` under their own names, `default` and `keep`."""

from typing import Literal

from pydantic import Field

from mimetic.recipe.base import Count, Fraction, NonNegative, Positive, Spec
from mimetic.recipe.registry import register

Nonlinearity = Literal[
    "linear", "conv1d", "conv2d", "conv3d", "sigmoid", "tanh", "relu", "leaky_relu", "selu"
]


@register("init")
class Keep(Spec):
    """Leave the values that are there."""

    type: Literal["keep"] = "keep"


@register("init")
class Default(Spec):
    """Draw from the layer's own default law (its `reset_parameters`), keyed by seed and name."""

    type: Literal["default"] = "default"


@register("init")
class Uniform(Spec):
    """Draw from U(a, b)."""

    type: Literal["uniform"] = "uniform"
    a: float = Field(0.0, description="Lower bound.")
    b: float = Field(1.0, description="Upper bound.")


@register("init")
class Normal(Spec):
    """Draw from N(mean, std²)."""

    type: Literal["normal"] = "normal"
    mean: float = Field(0.0, description="Mean.")
    std: NonNegative = Field(1.0, description="Standard deviation.")


@register("init")
class ScaledResidual(Spec):
    """Draw from N(0, std² / (branches·layers)): for the last layer of each residual branch, as in GPT-2."""

    type: Literal["scaled_residual"] = "scaled_residual"
    layers: Count = Field(description="Number of blocks that add to the residual stream.")
    branches: Count = Field(2, description="Branches of a block: attention and MLP.")
    std: Positive = Field(0.02, description="Standard deviation without the factor.")


@register("init")
class TruncNormal(Spec):
    """Draw from N(mean, std²) cut at the absolute bounds a and b (not at multiples of std)."""

    type: Literal["trunc_normal"] = "trunc_normal"
    mean: float = Field(0.0, description="Mean of the uncut law.")
    std: Positive = Field(1.0, description="Standard deviation of the uncut law.")
    a: float = Field(-2.0, description="Lower bound.")
    b: float = Field(2.0, description="Upper bound.")


@register("init")
class Constant(Spec):
    """Fill with one value."""

    type: Literal["constant"] = "constant"
    value: float = Field(description="The value.")


@register("init")
class Ones(Spec):
    """Fill with ones."""

    type: Literal["ones"] = "ones"


@register("init")
class Zeros(Spec):
    """Fill with zeros."""

    type: Literal["zeros"] = "zeros"


@register("init")
class Eye(Spec):
    """Fill a matrix with the identity."""

    type: Literal["eye"] = "eye"


@register("init")
class Dirac(Spec):
    """Fill convolution filters with the Dirac delta, so that channels pass through."""

    type: Literal["dirac"] = "dirac"
    groups: int = Field(1, ge=1, description="Groups of output channels that each pass through.")


@register("init")
class XavierUniform(Spec):
    """Draw from U(±gain·sqrt(6 / (fan_in + fan_out))) (Glorot and Bengio, 2010)."""

    type: Literal["xavier_uniform"] = "xavier_uniform"
    gain: Positive = Field(1.0, description="Factor on the weights.")


@register("init")
class XavierNormal(Spec):
    """Draw from N(0, gain²·2 / (fan_in + fan_out)) (Glorot and Bengio, 2010)."""

    type: Literal["xavier_normal"] = "xavier_normal"
    gain: Positive = Field(1.0, description="Factor on the weights.")


class _Kaiming(Spec):
    a: float = Field(0.0, description="Negative slope, used with leaky_relu only.")
    mode: Literal["fan_in", "fan_out"] = Field("fan_in", description="Which fan divides.")
    nonlinearity: Nonlinearity = Field("leaky_relu", description="Nonlinearity whose gain is used.")


@register("init")
class KaimingUniform(_Kaiming):
    """Draw from U(±gain·sqrt(3 / fan)) (He et al., arXiv 1502.01852)."""

    type: Literal["kaiming_uniform"] = "kaiming_uniform"


@register("init")
class KaimingNormal(_Kaiming):
    """Draw from N(0, gain² / fan) (He et al., arXiv 1502.01852)."""

    type: Literal["kaiming_normal"] = "kaiming_normal"


@register("init")
class Orthogonal(Spec):
    """Draw a (semi-)orthogonal matrix (Saxe et al., arXiv 1312.6120)."""

    type: Literal["orthogonal"] = "orthogonal"
    gain: Positive = Field(1.0, description="Factor on the weights.")


@register("init")
class Sparse(Spec):
    """Draw columns from N(0, std²) and set a fraction of each to zero (Martens, 2010)."""

    type: Literal["sparse"] = "sparse"
    sparsity: Fraction = Field(description="Fraction of zeros in each column.")
    std: Positive = Field(0.01, description="Standard deviation of what is not zero.")
