"""Conversions of ATen operators that TVM's importer lacks, gets wrong, or spells in several ways.

CONVERTERS is a `custom_convert_map` of `from_exported_program`; the reason for each row stands behind it.
"""

from __future__ import annotations

from functools import partial

from tvm import relax

from pconvgen.frontend.torch.convolutions import conv_transpose, convolution, linear
from pconvgen.frontend.torch.distances import bilinear, distances
from pconvgen.frontend.torch.elementwise import channel_shuffle, relu6, rrelu, scaled_sum
from pconvgen.frontend.torch.indexing import index, index_put, part, replace_part, select
from pconvgen.frontend.torch.integers import clamp, divide, multiply
from pconvgen.frontend.torch.norms import (
    batch_norm_without_statistics,
    deviation,
    group_norm,
    instance_norm,
    layer_norm,
)
from pconvgen.frontend.torch.pooling import adaptive_max_pool, avg_pool, extreme, extreme_of
from pconvgen.frontend.torch.promotion import Converter
from pconvgen.frontend.torch.quantised import dequantize, quantize
from pconvgen.frontend.torch.resizing import UPSAMPLING, upsample
from pconvgen.frontend.torch.sampling import affine_grid, grid_sample, roi_align

CONVERTERS: dict[str, Converter] = {
    "conv1d.default": convolution,  # the layer's name on the variable
    "conv2d.default": convolution,  # the layer's name on the variable
    "conv3d.default": convolution,  # the layer's name on the variable
    "conv1d.padding": convolution,  # lacking: padding="same"
    "conv2d.padding": convolution,  # lacking: padding="same"
    "conv3d.padding": convolution,  # lacking: padding="same"
    "conv_transpose1d.default": conv_transpose,  # the layer's name on the variable
    "conv_transpose2d.input": conv_transpose,  # the layer's name on the variable
    "conv_transpose3d.input": conv_transpose,  # lacking
    "linear.default": linear,  # the layer's name on the variable
    "relu6.default": relu6,  # one spelling of ReLU6: clip, as nn.ReLU6 is imported
    "channel_shuffle.default": channel_shuffle,  # lacking
    "native_channel_shuffle.default": channel_shuffle,  # lacking
    "grid_sampler.default": grid_sample,  # takes the grid's axes in another order
    "grid_sampler_2d.default": grid_sample,  # likewise
    "grid_sampler_3d.default": grid_sample,  # lacking
    "affine_grid_generator.default": affine_grid,  # refused without align_corners
    "roi_align.default": roi_align,  # takes half a pixel off before scaling
    # Lacking, or reading other places where they shrink, where factors are not whole, or where a size is 1.
    **{
        f"{operator}{overload}": partial(upsample, method=method)
        for operator, method in UPSAMPLING.items()
        for overload in (".vec", ".default")
    },
    # Both wrong: drop divisor_override.
    "avg_pool2d.default": partial(avg_pool, operator=relax.op.nn.avg_pool2d),
    "avg_pool3d.default": partial(avg_pool, operator=relax.op.nn.avg_pool3d),
    # Both wrong: drop alpha.
    "add.Tensor": partial(scaled_sum, operator=relax.op.add),
    "sub.Tensor": partial(scaled_sum, operator=relax.op.subtract),
    "group_norm.default": group_norm,  # refused without affine weights
    "native_group_norm.default": group_norm,  # likewise; the further results are wrong
    "layer_norm.default": layer_norm,  # refused without affine weights
    "native_layer_norm.default": layer_norm,  # wrong: the result stands for the further results
    "instance_norm.default": instance_norm,  # takes a running variance for epsilon, and never uses either
    "_native_batch_norm_legit.no_stats": batch_norm_without_statistics,  # wrong: as native_layer_norm
    "std.correction": deviation,  # wrong: drops the correction
    "std.default": deviation,  # likewise
    "std.dim": deviation,  # likewise
    "std_mean.correction": deviation,  # lacking
    "var.correction": deviation,  # wrong: divides by zero and less where PyTorch has NaN
    "var.default": deviation,  # wrong: drops the correction
    "var.dim": deviation,  # likewise
    "var_mean.correction": deviation,  # lacking
    "var_mean.dim": deviation,  # lacking
    "clamp.default": clamp,  # crashes: integers between infinite bounds
    "div.Tensor_mode": divide,  # refused where the integers are not int32
    "div.Scalar_mode": divide,  # likewise
    "mul.Tensor": multiply,  # crashes: booleans
    # All lacking; see `quantised`.
    "quantize_per_tensor.default": quantize,
    "quantize_per_channel.default": quantize,
    "dequantize_per_tensor.default": dequantize,
    "dequantize_per_channel.default": dequantize,
    "amax.default": partial(extreme, operator=relax.op.max),  # lacking
    "amin.default": partial(extreme, operator=relax.op.min),  # lacking
    "max.dim": partial(extreme_of, operators=(relax.op.max, relax.op.argmax)),  # wrong: sorts, which NaN disorders
    "min.dim": partial(extreme_of, operators=(relax.op.min, relax.op.argmin)),  # lacking
    "adaptive_max_pool1d.default": adaptive_max_pool,  # lacking
    "adaptive_max_pool2d.default": adaptive_max_pool,  # lacking
    # Reads outside of the tensor where an index is negative, and combines indices that are to be read together.
    "index.Tensor": index,
    "index_put.default": index_put,  # wrong: writes outside of the tensor where an index is negative
    "bilinear.default": bilinear,  # lacking
    "cdist.default": distances,  # lacking
    "rrelu.default": rrelu,  # lacking
    "slice.Tensor": part,  # refuses or misreads an end before the beginning
    "slice_scatter.default": replace_part,  # likewise
    "select.int": select,  # wrong: reads before the tensor where the index is negative
}

# What TVM imports although it must not.
REFUSED = frozenset(
    {
        "exponential.default",  # as zeros
        "randn.default",  # as numbers that are drawn while compiling
        "randn_like.default",  # likewise
    }
)
