"""What the compiler refuses of the onnx package's node tests, and why. Whoever mends one takes it from this list."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np


@dataclass(frozen=True)
class Refusal:
    """Cases that are refused.

    Attributes
    ----------
    cases: patterns of their names, without "test_".
    message: a part of what the error says.
    why: the reason.
    """

    cases: str
    message: str
    why: str

    def covers(self, case: str) -> bool:
        """Whether this is about that case."""
        return any(fnmatchcase(case, f"test_{pattern}") for pattern in self.cases.split())


_RARE = "no network of images that we know has it"
_DATA = "buffers are planned before the data are known"
_EMPTY = "files of other frameworks write 0 for a size that is not known"
_MACHINE = "no target has such numbers"

REFUSALS = (
    Refusal("batchnorm_*_training_mode", "exported in training mode", "running statistics would change"),
    Refusal("training_dropout training_dropout_mask training_dropout_default*", "training_mode", "random numbers"),
    Refusal("cast_*_to_FLOAT8* cast_*_to_FLOAT4E2M1 cast_*_to_*INT[24]", "that programs do not have", _MACHINE),
    Refusal("cast_FLOAT[48]E* cast_e8m0_FLOAT8* cast_*INT[24]_to_*", "has an unsupported dtype", _MACHINE),
    Refusal(
        "dequantizelinear_e[45]m* dequantizelinear_*int[24] dequantizelinear_float4*", "unsupported dtype", _MACHINE
    ),
    Refusal(
        "quantizelinear_float4* quantizelinear_e[45]m* quantizelinear_*int2", "quantised to an unknown type", _MACHINE
    ),
    Refusal("*_empty_set *_empty_set_[bn]* *_zero_size_splits_* tri[lu]_zero *_allowzero_*", "give its shape", _EMPTY),
    Refusal("nonzero_example", "depends on the data", _DATA),
    Refusal("nonmaxsuppression_*", "depends on the data", _DATA),
    Refusal("maxpool_with_argmax_*", "the indices of a max pooling", "only unpooling reads them"),
    Refusal("maxunpool_export_with_output_shape", "cannot import this MaxUnpool", "unpooling needs indices"),
    Refusal("roialign_mode_max", "different opinions", "onnxruntime and PyTorch have no common one"),
    Refusal("center_crop_pad_*", "operator CenterCropPad is not supported", _RARE),
    Refusal("col2im*", "operator Col2Im is not supported", _RARE),
    Refusal("*deform_conv_*", "operator DeformConv is not supported", "every element is read from a place of its own"),
    Refusal("swish", "operator Swish is not supported", "exporters write Sigmoid and Mul"),
    Refusal("eyelike_with_dtype eyelike_populate_*", "cannot import this EyeLike", _RARE),
    Refusal("onehot_*", "cannot import this OneHot", _RARE),
    Refusal("pow_types_int*", "powers of int", _RARE),
    Refusal("top_k_uint64", "largest numbers of type uint64", _RARE),
    Refusal("reduce_m??_bool_inputs", "TVM cannot lower", _RARE),
    Refusal(
        "rms_normalization_*axis0* rms_normalization_4d_*_4 rms_*_2d_*_2 rms_*_3d_*_3_*", "TVM cannot lower", _RARE
    ),
    Refusal("scatternd*", "TVM cannot lower", _RARE),
    Refusal("tan tan_example", "no library on the device has", _RARE),
)

OTHERWISE = {
    # onnxruntime and PyTorch take the length of the output, where ONNX takes that of the input times the scale.
    "test_resize_downsample_scales_linear_align_corners": np.array([[[[1, 4]]]], "f"),
    "test_resize_downsample_scales_cubic_align_corners": np.array([[[[1, 2.5, 4], [7, 8.5, 10], [13, 14.5, 16]]]], "f"),
}
"""Case -> what onnxruntime computes, where that is something else than the test says."""
