"""Sections of the named initializers; each names the function that carries it out.

The functions have the signature `initializers.resolved.InitFunction`.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from mimetic.config.base import Count, Fraction, FromList, NonNegative, Positive, validation_error
from mimetic.config.registry import Component, Takes
from mimetic.covariance.trained_ref import AttentionRefField, TrainedRefField


class Init(Component, family="init"):
    """Base of the initializers.

    Class arguments of an initializer, "module:function":
        impl: `f(spec, site, context) -> ResolvedInit`, see `initializers.resolved.InitFunction`; for the
            distribution of single tensors, `f(spec, shape)` under `initializers.distributions.per_tensor`.
    """

    acts_on: ClassVar[str | None] = None
    """Kind of the composite sites it initializes; None where it initializes single layers."""

    whole: ClassVar[bool] = False
    """Whether it fills a tensor as a whole, also a stack of experts."""

    @property
    def filled_slots(self) -> frozenset[str] | None:
        """Return the slots of a composite site that it fills; None for all of them."""
        return None

    @property
    def also_fills(self) -> Mapping[str, str]:
        """Return kinds of sites that it fills as well, wherever the rule matches one of `acts_on`.

        By kind, how to leave them to another rule.
        """
        return {}


class FromNetwork(Init):
    """Base of the initializers that need a trained network itself, not its covariances."""

    takes = "network"
    whole = True

    from_: TrainedRefField = Field(alias="from", description="The trained network.")


Nonlinearity = Literal[
    "linear", "conv1d", "conv2d", "conv3d", "sigmoid", "tanh", "relu", "leaky_relu", "selu"
]


class Keep(Init, type="keep", impl="mimetic.initializers.default:keep"):
    """Leave the values as they are: the model's own initialization."""


class Default(Init, type="default", impl="mimetic.initializers.default:default"):
    """Draw as the layer's class does by `reset_parameters`, also where the model around it drew otherwise."""

    whole = True


class Uniform(Init, type="uniform", impl="mimetic.initializers.univariate:uniform"):
    """Draw from U(a, b)."""

    a: float = Field(0.0, description="Lower bound.")
    b: float = Field(1.0, description="Upper bound.")


class Normal(Init, type="normal", impl="mimetic.initializers.univariate:normal"):
    """Draw from N(mean, std²)."""

    mean: float = Field(0.0, description="Mean.")
    std: NonNegative = Field(1.0, description="Standard deviation.")


class ScaledResidual(Init, type="scaled_residual", impl="mimetic.initializers.univariate:scaled_residual"):
    """Draw from N(0, std² / (branches·layers)): for the last layer of each residual branch, as in GPT-2."""

    example: ClassVar[Mapping[str, object]] = {"layers": 12}

    layers: Count = Field(description="Number of blocks that add to the residual stream.")
    branches: Count = Field(2, description="Branches of a block: attention and MLP.")
    std: Positive = Field(0.02, description="Standard deviation without the factor.")


class TruncNormal(Init, type="trunc_normal", impl="mimetic.initializers.univariate:trunc_normal"):
    """Draw from N(mean, std²) cut at the absolute bounds a and b (not at multiples of std)."""

    mean: float = Field(0.0, description="Mean before truncation.")
    std: Positive = Field(1.0, description="Standard deviation before truncation.")
    a: float = Field(-2.0, description="Lower bound.")
    b: float = Field(2.0, description="Upper bound.")


class Constant(Init, type="constant", impl="mimetic.initializers.univariate:constant"):
    """Fill with one value."""

    example: ClassVar[Mapping[str, object]] = {"value": 0.3}

    value: float = Field(description="The value.")


class Ones(Init, type="ones", impl="mimetic.initializers.univariate:ones"):
    """Fill with ones."""


class Zeros(Init, type="zeros", impl="mimetic.initializers.univariate:zeros"):
    """Fill with zeros."""


class Eye(Init, type="eye", impl="mimetic.initializers.univariate:eye"):
    """Fill a matrix with the identity."""


class Dirac(Init, type="dirac", impl="mimetic.initializers.univariate:dirac"):
    """Fill convolution filters with the Dirac delta, which pass channels through."""

    groups: Count | None = Field(
        None, description="Groups of output channels that each pass through; default: the layer's."
    )


class _ByFans(Init):
    per: Literal["tensor", "map"] = Field(
        "tensor",
        description="`tensor`: fans and draw of the stored tensor, as in torch.nn.init; `map`: of each "
        "linear map in it (gates of an LSTM, fused q, k and v, groups of a convolution).",
    )


class XavierUniform(_ByFans, type="xavier_uniform", impl="mimetic.initializers.univariate:xavier_uniform"):
    """Draw from U(±gain·sqrt(6 / (fan_in + fan_out))) (Glorot and Bengio, 2010)."""

    gain: Positive = Field(1.0, description="Factor on the weights.")


class XavierNormal(_ByFans, type="xavier_normal", impl="mimetic.initializers.univariate:xavier_normal"):
    """Draw from N(0, gain²·2 / (fan_in + fan_out)) (Glorot and Bengio, 2010)."""

    gain: Positive = Field(1.0, description="Factor on the weights.")


class _Kaiming(_ByFans):
    a: float = Field(0.0, description="Negative slope, used with leaky_relu only.")
    mode: Literal["fan_in", "fan_out"] = Field("fan_in", description="Which fan divides.")
    nonlinearity: Nonlinearity = Field("leaky_relu", description="Nonlinearity whose gain is used.")


class KaimingUniform(
    _Kaiming, type="kaiming_uniform", impl="mimetic.initializers.univariate:kaiming_uniform"
):
    """Draw from U(±gain·sqrt(3 / fan)) (He et al., arXiv 1502.01852)."""


class KaimingNormal(_Kaiming, type="kaiming_normal", impl="mimetic.initializers.univariate:kaiming_normal"):
    """Draw from N(0, gain² / fan) (He et al., arXiv 1502.01852)."""


class GlorotUniform(XavierUniform, type="glorot_uniform"):
    """Another name of `xavier_uniform` (Glorot and Bengio, 2010)."""


class GlorotNormal(XavierNormal, type="glorot_normal"):
    """Another name of `xavier_normal` (Glorot and Bengio, 2010)."""


class HeUniform(KaimingUniform, type="he_uniform"):
    """Another name of `kaiming_uniform` (He et al., arXiv 1502.01852)."""


class HeNormal(KaimingNormal, type="he_normal"):
    """Another name of `kaiming_normal` (He et al., arXiv 1502.01852)."""


class Orthogonal(_ByFans, type="orthogonal", impl="mimetic.initializers.univariate:orthogonal"):
    """Draw a (semi-)orthogonal matrix (Saxe et al., arXiv 1312.6120)."""

    gain: Positive = Field(1.0, description="Factor on the weights.")


class Sparse(Init, type="sparse", impl="mimetic.initializers.univariate:sparse"):
    """Draw columns from N(0, std²) and set a fraction of each to zero (Martens, 2010)."""

    example: ClassVar[Mapping[str, object]] = {"sparsity": 0.7}

    sparsity: Fraction = Field(description="Fraction of zeros in each column.")
    std: Positive = Field(0.01, description="Standard deviation of the other entries.")


Bias = Literal["zeros", "keep"]
Grid = Annotated[tuple[Count, Count], FromList]


class AttentionInit(Init):
    """Base of the initializers of attention."""

    acts_on: ClassVar[str | None] = "attention"
    maps: ClassVar[frozenset[str]] = frozenset({"q", "k", "v", "out"})

    bias: Bias = Field("keep", description="Whether the biases become zeros or stay as they are.")

    @property
    def filled_slots(self) -> frozenset[str]:
        """Return the maps, and their biases where these become zeros."""
        return self.maps if self.bias == "keep" else self.maps | {f"{name}_bias" for name in self.maps}


class _ValueProjection(AttentionInit):
    """The value–projection product A = vp_noise·Z − vp_diag·I that several initializers share."""

    vp_noise: NonNegative | None = Field(
        None, description="Size of the noise in the value–projection product; 0.4 unless given or measured."
    )
    vp_diag: float | None = Field(
        None,
        description="The identity subtracted there, negative for a positive diagonal, as in language models; "
        "0.4 unless given or measured.",
    )
    noise: Literal["uniform", "normal"] = Field(
        "uniform", description="Distribution of the noise, of variance 1/d."
    )

    @model_validator(mode="after")
    def _not_dead(self) -> Self:
        if self.vp_noise == 0.0 and self.vp_diag == 0.0:
            hint = "give one of them; a projection of zeros alone is `init: zeros`"
            raise validation_error(
                "`vp_noise` and `vp_diag` are both 0: both maps would stay 0", code="MIM-I101", hint=hint
            )
        return self


class MimeticAttention(
    _ValueProjection,
    type="mimetic_attention",
    impl="mimetic.initializers.attention:mimetic_attention",
):
    """Initialize attention with W_Q·W_Kᵀ ≈ αZ + βI by head and W_V·W_out ≈ αZ − βI (arXiv 2305.09828).

    With `from`, α and β are those of a trained network's attention at our layer's depth (ours); those that
    are given stay as given.
    """

    from_: AttentionRefField | None = Field(
        None,
        alias="from",
        description="What the four numbers are measured on: `{atlas: NAME}`, `{stage: …}`.",
    )
    qk_noise: Positive | None = Field(
        None,
        description="Size of the noise in the query–key product of a head; 0.7 unless given or measured.",
    )
    qk_diag: float | None = Field(None, description="The identity in it; 0.7 unless given or measured.")
    bias: Bias = Field(
        "zeros",
        description="Whether the biases become zeros (ours) or stay as they are, as in the published code.",
    )
    legacy_layout: bool = Field(
        False, description="Store values and projection untransposed, as the public helpers did by mistake."
    )

    @property
    def needs(self) -> Takes | None:
        """Return what it is made from: a network, where `from` names one."""
        at_hand = self.from_ is None or self.from_.kind in {"atlas", "file"}
        return None if at_hand else "network"


class ImpulseAttention(
    _ValueProjection,
    type="impulse_attention",
    impl="mimetic.initializers.impulse:impulse_attention",
):
    """Initialize each head to attend to one neighbour of a token, in closed form (arXiv 2505.19985).

    The weights fit one table of positions. As published, it is random, and is filled with the weights; the
    other tables, and the cut of their small singular values, are ours.
    """

    vp_noise: NonNegative = Field(0.4, description="Size of the noise in the value–projection product.")
    vp_diag: float = Field(
        0.4,
        description="The identity subtracted there; negative for a positive diagonal, as in language models.",
    )
    positions: Literal["random", "table", "sincos2d"] = Field(
        "random",
        description="Positions that the weights fit: random ones, 18·N(0, 0.02²), with which the rule fills "
        "the model's table; the table as the model or another rule has it; or sines and cosines.",
    )
    singular_cut: Annotated[float, Field(ge=0.0, lt=1.0)] | None = Field(
        None,
        description="Singular values of the positions below this fraction of the largest are left out; "
        "unless given none of random positions, and those below 0.05 of others. Sinusoids need a cut of 0.03 "
        "to 0.1: their smallest values would make the attention uniform.",
    )
    grid: Grid | None = Field(
        None, description="Rows and columns of the tokens; those of the model's position table unless given."
    )
    layout: Literal["timm", "simple"] = Field(
        "timm", description="Layout of the sinusoids (`positions: sincos2d`), see the initializer `sincos2d`."
    )
    temperature: Positive = Field(10000.0, description="Longest wavelength of the sinusoids, over 2π.")
    norm: Positive = Field(7.0, description="Frobenius norm of each head's queries and keys.")

    @property
    def also_fills(self) -> Mapping[str, str]:
        """Return the table of positions, where it is random."""
        return {"position": "set `positions: table`"} if self.positions == "random" else {}

    @model_validator(mode="after")
    def _sinusoids(self) -> Self:
        if self.positions != "sincos2d" and (self.layout, self.temperature) != ("timm", 10000.0):
            hint = "add `positions: sincos2d`, or remove them"
            raise validation_error(
                f"`layout` and `temperature` describe sinusoids, and the positions are `{self.positions}`",
                code="MIM-I103",
                hint=hint,
            )
        return self


class ConditionedAttention(
    AttentionInit,
    type="conditioned_attention",
    impl="mimetic.initializers.attention:conditioned_attention",
):
    """Initialize attention with semi-orthogonal queries and keys by head, and identity values (ICLR 2026)."""

    maps: ClassVar[frozenset[str]] = frozenset({"q", "k", "v"})

    values: Literal["per_head", "joint"] = Field(
        "per_head",
        description="Every head's values are the first coordinates of the tokens, as published; or one "
        "identity over the heads, each of which has its own coordinates (ours).",
    )


class Sincos2d(Init, type="sincos2d", impl="mimetic.initializers.positions:sincos2d_table"):
    """Fill a position table with sines and cosines of row and column; tokens before the grid with zeros."""

    acts_on: ClassVar[str | None] = "position"

    layout: Literal["timm", "simple"] = Field(
        "timm",
        description="timm: [sin y, sin x, cos y, cos x], bands T^(−b/n); "
        "simple (Simple-ViT): [sin x, cos x, sin y, cos y], bands T^(−b/(n−1)).",
    )
    scale: Positive = Field(1.0, description="Amplitude.")
    temperature: Positive = Field(10000.0, description="The T of the bands.")
    grid: Grid | None = Field(None, description="Rows and columns; those of the model unless given.")


class Bank(Init):
    """Base of the banks of filters."""

    gain: Positive = Field(1.0, description="Factor on the weights.")


class Impulse(Bank, type="impulse", impl="mimetic.initializers.bank:impulse"):
    """One random tap in each channel of a filter (Zheng, Li and Lucey, arXiv 2401.12511)."""


class Box(Bank, type="box", impl="mimetic.initializers.bank:box"):
    """Several random taps of equal height in each channel of a filter (arXiv 2401.12511)."""

    taps: Count = Field(3, description="Number of taps.")


class GaussianBump(Bank, type="gaussian_bump", impl="mimetic.initializers.bank:gaussian_bump"):
    """A Gaussian bump around a random pixel in each channel of a filter (arXiv 2401.12511)."""

    renamed: ClassVar[Mapping[str, str]] = {"sigma": "variance"}

    variance: Positive = Field(
        1.0,
        description="Variance of the bump in pixels² (published as `gau`), the square of a `sigma`.",
    )
    energy: Literal["bank", "filter"] = Field(
        "bank",
        description="What has the energy of PyTorch's default: the filters on average, as published, so "
        "that bumps at the border are weaker; or every filter (ours).",
    )


class GaussianDerivatives(
    Bank, type="gaussian_derivatives", impl="mimetic.initializers.bank:gaussian_derivatives"
):
    """A random derivative of a centred Gaussian in each channel of a filter (arXiv 1605.02971)."""

    sigma: Positive = Field(1.0, description="Standard deviation of the Gaussian in pixels.")
    order: int = Field(2, ge=0, le=4, description="Highest order; in two dimensions 2 gives six filters.")


class MimeticSsm(Init, type="mimetic_ssm", impl="mimetic.initializers.mimetic_ssm:mimetic_ssm"):
    """Initialize Mamba's layer as linear attention, in four components (arXiv 2410.11135)."""

    acts_on = "ssm"

    decay: bool = Field(True, description="A close to 0: the state forgets little.")
    step: bool = Field(True, description="Δ = 1 for every token: its weights 0, its bias softplus⁻¹(1).")
    recall: bool = Field(True, description="Correlate c with b, as queries with keys.")
    convolution: bool = Field(True, description="Let the short convolution pass its input on.")
    power: Positive = Field(8.0, description="A = -exp(-power · A_log): how close to 0 A comes.")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.decay or self.step or self.recall or self.convolution):
            hint = "switch `decay`, `step`, `recall` or `convolution` on, or remove the rule"
            raise validation_error("all four components are switched off", code="MIM-I102", hint=hint)
        return self

    @property
    def filled_slots(self) -> frozenset[str]:
        """Return the slots of the components that are switched on."""
        components = {
            "decay": ("decay",),
            "step": ("step", "step_bias"),
            "recall": ("write", "read"),
            "convolution": ("conv", "conv_bias"),
        }
        return frozenset(slot for name, slots in components.items() if getattr(self, name) for slot in slots)


class MimeticMlp(Init, type="mimetic_mlp", impl="mimetic.initializers.mimetic_mlp:mimetic_mlp"):
    """Give the first layer of an MLP pair a mean that is not zero (arXiv 2602.07156)."""

    acts_on = "mlp"

    shift: float = Field(
        0.5,
        description="Mean, in units of the standard deviation; a hyperparameter to sweep.",
    )
    std: Positive | None = Field(
        None, description="Draw from N(0, std²); torch's default distribution unless given."
    )

    @property
    def filled_slots(self) -> frozenset[str]:
        """Return the first layer's weight."""
        return frozenset({"fc1"})


class Rainbow(FromNetwork, type="rainbow", impl="mimetic.initializers.rainbow:rainbow"):
    """Resample a trained network of the same layers, of any widths (arXiv 2305.18512).

    Layer by layer, filters are drawn from the covariance of the trained layer's filters and rotated to the
    channels of the layers drawn before; the norm layers' statistics are measured again, and the last layer is
    copied in the new basis. A classifier behind a flattening is aligned channel by channel, as in the paper's
    experiments; its tutorial aligns all flattened features together.
    """

    images: Count = Field(1000, description="Training images the networks are aligned on.")
    align: bool = Field(
        True, description="Rotate by Procrustes on features; false takes a random rotation, for comparison."
    )
    rows: Literal["gaussian", "orthogonal"] = Field(
        "gaussian", description="Independent filters, or filters whose covariance is met exactly."
    )
    shrink: Literal["none", "spiked"] = Field(
        "none", description="Take the noise of random initialization out of the eigenvalues."
    )
    rank: Count | None = Field(None, description="Keep only this many leading eigenvectors.")


class Rows(Init, type="rows", impl="mimetic.initializers.rows:rows"):
    """Draw new rows of an embedding or a head from N(μ, τ²Σ), mean and covariance of the rows before them."""

    whole = True
    example: ClassVar[Mapping[str, object]] = {"old": 200}

    old: Count | None = Field(
        None, description="How many rows stay as they are; all rows of the other tensor with `from`."
    )
    tau: NonNegative = Field(1.0, description="The τ: deviation of new rows in units of that of old ones.")
    from_: TrainedRefField | None = Field(
        None, alias="from", description="The network of the old rows, which are copied; ours unless given."
    )
    layer: str | None = Field(
        None, min_length=1, description="Name of that layer in the network of `from`; ours unless given."
    )

    @property
    def needs(self) -> Takes | None:
        """Return what it is made from: a network, where `from` names one."""
        return None if self.from_ is None else "network"

    @model_validator(mode="after")
    def _old_rows_known(self) -> Self:
        if self.from_ is None and self.old is None:
            hint = "add `old: COUNT`, the number of rows that the table had, or `from: …`"
            raise validation_error("which rows are old is unknown", code="MIM-I104", hint=hint)
        if self.from_ is None and self.layer is not None:
            hint = "remove it, or add `from: …`"
            raise validation_error(
                "`layer` is one of another network, and there is no `from`",
                code="MIM-I105",
                at=("layer",),
                hint=hint,
            )
        return self


class WeightSelection(
    FromNetwork, type="weight_selection", impl="mimetic.initializers.transplant:weight_selection"
):
    """Take evenly spaced entries of a larger network's weights of the same name (arXiv 2311.18823)."""


class WeightTiling(FromNetwork, type="weight_tiling", impl="mimetic.initializers.transplant:weight_tiling"):
    """Repeat a smaller network's weights, at the same norm (arXiv 2609.37631)."""

    renamed: ClassVar[Mapping[str, str]] = {"parts": "chunks", "keep": "preserve"}

    blocks: Count | None = Field(
        None,
        description="Number of blocks of our network: its first and last are those of the other, the ones "
        "between repeat its middle blocks in turn. Blocks of the same number correspond unless given.",
    )
    chunks: Count = Field(1, description="Number of maps in a tensor's outputs: 3 for a fused `qkv`.")
    mode: Literal["cycle", "repeat"] = Field(
        "cycle", description="Repeat all rows and columns in turn, 0 1 2 0 1, or each in place, 0 0 1 1 2."
    )
    vectors: Literal["pad", "tile"] = Field(
        "pad",
        description="Biases and norm layers: padded with 0, weights of norm layers with 1, as published; or "
        "tiled like the other weights.",
    )
    preserve: Literal["norm", "entries"] = Field(
        "norm",
        description="What tiling preserves of a weight: the Frobenius norm of the whole tensor (ours), or "
        "each entry, the published default.",
    )
