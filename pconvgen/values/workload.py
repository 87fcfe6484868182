"""A layer as the kernels see it: shapes and epilogue, without weights."""

from __future__ import annotations

from dataclasses import dataclass

from pconvgen.values.precision import FLOAT32, Precision


@dataclass(frozen=True)
class Activation:
    """An elementwise function of one argument, as the expression that computes it, e.g. `maximum(x, 0)`.

    An expression, not a name, because a network may spell a function in many ways; the kernel computes what it says.

    Attributes
    ----------
    name: "x" for the argument (`X`), or a key of OPERATIONS (templates/activations.py).
    operands: what the operation is applied to: expressions or numbers.
    """

    name: str
    operands: tuple[Activation | float, ...] = ()

    def __str__(self) -> str:
        operands = ", ".join(
            f"{operand:g}" if isinstance(operand, float) else str(operand) for operand in self.operands
        )
        return f"{self.name}({operands})" if operands else self.name


X = Activation("x")
RELU = Activation("maximum", (X, 0.0))


@dataclass(frozen=True)
class Epilogue:
    """What is done to an output before it is stored, in this order: + bias, + residual, activation.

    Attributes
    ----------
    bias: whether a bias per output channel is added.
    residual: whether a tensor of the output's shape is added.
    activation: what is applied to the sum, None for nothing.
    """

    bias: bool = False
    residual: bool = False
    activation: Activation | None = None


@dataclass(frozen=True)
class ConvWorkload:
    """A convolution (or linear layer: 1x1 on 1x1 pixels), NCHW activations.

    Attributes
    ----------
    batch, in_channels, height, width: the input's shape.
    out_channels: number of filters.
    kernel, stride, dilation: (rows, columns).
    padding: (top, left, bottom, right), of zeros.
    groups: convolution groups.
    epilogue: what is fused behind the convolution.
    precision: the formats of activations, weights and sums.
    """

    batch: int
    in_channels: int
    height: int
    width: int
    out_channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    epilogue: Epilogue = Epilogue()
    precision: Precision = FLOAT32

    @property
    def out_height(self) -> int:
        """Rows of the output."""
        return (
            self.height + self.padding[0] + self.padding[2] - self.dilation[0] * (self.kernel[0] - 1) - 1
        ) // self.stride[0] + 1

    @property
    def out_width(self) -> int:
        """Columns of the output."""
        return (
            self.width + self.padding[1] + self.padding[3] - self.dilation[1] * (self.kernel[1] - 1) - 1
        ) // self.stride[1] + 1

    @property
    def is_product(self) -> bool:
        """Whether it is a product of matrices: a linear layer, or a 1x1 convolution of single pixels."""
        one = (self.height, self.width, self.groups) == (1, 1, 1)
        return one and self.kernel == (1, 1) and not any(self.padding)

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """Shape of the dense weight."""
        return (self.out_channels, self.in_channels // self.groups, *self.kernel)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the dense layer."""
        f, c, kh, kw = self.weight_shape
        return self.batch * f * c * kh * kw * self.out_height * self.out_width
