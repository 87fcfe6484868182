"""The node tests of the onnx package for operators of CNNs: one operator each, with inputs and expected outputs.

The first input is data; the others are constants, as weights, axes and sizes are in networks, unless OPERANDS says
otherwise. Left out: recurrent and attention operators, strings, sequences, and bodies of functions.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, defs, helper, numpy_helper

Arrays = dict[str, NDArray[Any]]

_FILES = """
abs acos acosh add affinegrid and_ argmax argmin asin asinh atan atanh averagepool batch_normalization cast ceil celu
center_crop_pad clip col2im concat constantofshape conv convinteger convtranspose cos cosh cumsum deformconv
depthtospace dequantizelinear div dropout dynamicquantizelinear einsum elu equal erf exp expand eyelike flatten floor
gather gatherelements gathernd gelu gemm globalaveragepool globalmaxpool greater greater_or_equal gridsample
groupnormalization hardmax hardsigmoid hardswish identity instance_normalization isinf isnan layernormalization
leakyrelu less less_or_equal log logsoftmax lpnormalization lppool lrn matmul matmulinteger max maxpool maxunpool mean
meanvariancenormalization min mish mod mul neg nonmaxsuppression nonzero not_ onehot or_ pad pow prelu qlinearconv
qlinearmatmul quantizelinear rangeop reciprocal reduce_log_sum reduce_log_sum_exp reducel1 reducel2 reducemax
reducemean reducemin reduceprod reducesum reducesumsquare relu reshape resize rmsnormalization roialign round
scatterelements scatternd selu shape shrink sigmoid sign sin sinh size slice softmax softplus softsign spacetodepth
split sqrt squeeze sub sum swish tan tanh thresholdedrelu tile topk transpose trilu unsqueeze upsample where xor
"""
_ALL = 99
_VARIADIC = """
Add And Concat Div Equal Greater GreaterOrEqual GridSample Less LessOrEqual MatMul Max Mean Min Mod Mul Or Pow Sub Sum
Where Xor
"""
OPERANDS = dict.fromkeys(_VARIADIC.split(), _ALL) | {"RoiAlign": 2, "ConstantOfShape": 0, "Range": 0}
"""Operator -> how many of its inputs are data."""


@dataclass(frozen=True, eq=False)
class Case:
    """One node test.

    Attributes
    ----------
    name: of the test.
    node: the operator; its values are named after the case.
    constants: of the values that are no data.
    inputs: of the others.
    outputs: what is expected.
    opset: the newest in which the operator means what it means in the test.
    """

    name: str
    node: onnx.NodeProto
    constants: Arrays
    inputs: Arrays
    outputs: Arrays
    opset: int


def collect() -> list[Case]:
    """All cases, in the order of these files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in _FILES.split():
            importlib.import_module(f"onnx.backend.test.case.node.{module}")
    made = importlib.import_module("onnx.backend.test.case.node")._NodeTestCases
    return [_case(test) for test in made if "_expanded" not in test.name and _is_of_tensors(test)]


def write(cases: Sequence[Case], path: Path) -> None:
    """One model of all of these cases, whose opset has to be the same."""
    inputs, outputs, constants = ({} for _ in range(3))
    for case in cases:
        inputs.update(case.inputs)
        outputs.update(case.outputs)
        constants.update(case.constants)
    graph = helper.make_graph(
        [case.node for case in cases],
        "cases",
        [_info(name, value) for name, value in inputs.items()],
        [_info(name, value) for name, value in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    (opset,) = {case.opset for case in cases}
    model = helper.make_model_gen_version(graph, opset_imports=[helper.make_opsetid("", opset)])
    onnx.save(model, str(path))


def _is_of_tensors(test: Any) -> bool:
    values = [*test.model.graph.input, *test.model.graph.output]
    kinds = {value.type.tensor_type.elem_type for value in values}  # 0 for sequences and optional values
    return kinds.isdisjoint({0, TensorProto.STRING})


def _case(test: Any) -> Case:
    ((given, expected),) = test.data_sets
    (proto,) = test.model.graph.node
    node = onnx.NodeProto()
    node.CopyFrom(proto)
    node.name = test.name
    node.input[:] = [name and f"{test.name} {name}" for name in proto.input]
    node.output[:] = [name and f"{test.name} {name}" for name in proto.output]
    values = dict(zip(filter(None, node.input), map(_array, given), strict=True))
    data = set(node.input[: OPERANDS.get(node.op_type, 1)])
    return Case(
        name=test.name,
        node=node,
        constants={name: value for name, value in values.items() if name not in data},
        inputs={name: value for name, value in values.items() if name in data},
        outputs=dict(zip(filter(None, node.output), map(_array, expected), strict=True)),
        opset=_newest_opset(node.op_type, test.model.opset_import[0].version),
    )


def _newest_opset(operator: str, opset: int) -> int:
    meant = defs.get_schema(operator, opset).since_version
    newest = opset
    for version in range(opset, defs.onnx_opset_version() + 1):
        if defs.get_schema(operator, version).since_version == meant:
            newest = version
    return newest


def _array(value: Any) -> NDArray[Any]:
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)


def _info(name: str, value: NDArray[Any]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
