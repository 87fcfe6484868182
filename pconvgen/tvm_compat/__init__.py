"""Everything that knows TVM's moving API: builders of TIR functions, Relax helpers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax
from tvm.relax.backend.cpu_generic import pipeline as cpu_pipeline
from tvm.script.ir_builder import IRBuilder
from tvm.tirx import PrimFunc
from tvm.tirx.script import builder as T

from pconvgen.tvm_compat.passes import apply as apply
from pconvgen.tvm_compat.passes import module_pass as module_pass
from pconvgen.tvm_compat.pipeline import FLAT
from pconvgen.values.dtype import DType

OPAQUE = 8
"""TOpPattern that FuseOps leaves alone."""


@contextmanager
def prim_func(name: str, *, flat: bool = False) -> Iterator[Callable[[], PrimFunc]]:
    """Opens a scheduled, opaque TIR function; call what it yields after the block to get the function.

    noalias promises LLVM that the arguments do not overlap, so that accumulators stay in registers. A `flat` function
    has no conditions to hoist and no divisions to simplify: passes that look for them are left out, see `pipeline`.
    """
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name(name)
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True, "op_pattern": OPAQUE, FLAT: flat})
        yield builder.get


def const_int64(value: int) -> Any:
    """A 64-bit integer constant."""
    return T.int64(value)


def ramp(base: Any, lanes: int) -> Any:
    """Index of `lanes` consecutive elements from `base`; the element itself when lanes is 1."""
    return T.Ramp(base, 1, lanes) if lanes > 1 else base


def broadcast(scalar: Any, lanes: int) -> Any:
    """A vector of `lanes` equal elements; the scalar itself when lanes is 1."""
    return T.Broadcast(scalar, lanes) if lanes > 1 else scalar


def lane(vector: Any, index: int) -> Any:
    """One element of a vector in a register."""
    return T.Shuffle([vector], [index])


def part(vector: Any, start: int, lanes: int) -> Any:
    """Elements [start, start + lanes) of a vector in a register."""
    return T.Shuffle([vector], list(range(start, start + lanes))) if lanes > 1 else lane(vector, start)


def element_of(value: Any) -> str:
    """The type of a scalar, or of a vector's elements, e.g. "float16"."""
    return str(value.ty).partition("x")[0]


def lanes_of(value: Any) -> int:
    """Elements of a vector; 1 for a scalar."""
    return int(str(value.ty).partition("x")[2] or 1)


def cast(value: Any, element: str) -> Any:
    """A scalar or a vector with its elements converted to another type."""
    return value if element_of(value) == element else T.Cast(_vector_type(element, lanes_of(value)), value)


def number(value: float, element: str, lanes: int) -> Any:
    """A vector of `lanes` equal numbers; what is too large for the type is infinite there."""
    if element == DType.FLOAT16 and abs(value) > DType.FLOAT16.largest:
        value = math.copysign(math.inf, value)
    return broadcast(getattr(T, element)(value), lanes)


def intrinsic(name: str, vector: Any, element: str, result: str, lanes: int) -> Any:
    """An LLVM intrinsic on a vector whose bits it takes as `element`, with a vector of `result`."""
    bits = T.reinterpret(_vector_type(element, lanes), vector)
    return T.call_llvm_pure_intrin(_vector_type(result, lanes), name, bits)


def float_bits(vector: Any, lanes: int) -> Any:
    """The bits of a float32 vector as int32."""
    return T.reinterpret(_vector_type("int32", lanes), vector)


def from_float_bits(vector: Any, lanes: int) -> Any:
    """The inverse of `float_bits`."""
    return T.reinterpret(_vector_type("float32", lanes), vector)


def _vector_type(element: str, lanes: int) -> str:
    return f"{element}x{lanes}" if lanes > 1 else element


def load_strided(buffer: Any, start: Any, stride: int, lanes: int) -> Any:
    """Every `stride`-th element of a flat buffer from `start`: [start, start + stride, ...], `lanes` of them."""
    if lanes == 1:
        return buffer[start]
    if stride != 2:
        return buffer[T.Ramp(start, stride, lanes)]
    # Two whole vectors and a shuffle; a strided load would become one scalar load per lane. The second vector ends
    # with the last element that is wanted, so nothing behind it is read.
    low = T.Bind(buffer[ramp(start, lanes)])
    high = T.Bind(buffer[ramp(start + (lanes - 1), lanes)])
    half = lanes // 2
    indices = [2 * i if i < half else 2 * i - (lanes - 1) + lanes for i in range(lanes)]
    return T.Shuffle([low, high], indices)


def prefetch(buffer: Any, index: Any) -> None:
    """Emits a prefetch of an element's cache line into the second-level cache; a hint, which never faults."""
    read, second_level, data = T.int32(0), T.int32(2), T.int32(1)
    T.evaluate(T.call_llvm_intrin("void", "llvm.prefetch", T.address_of(buffer[index]), read, second_level, data))


def shuffle(vectors: list[Any], lanes: Iterable[int]) -> Any:
    """A vector of some lanes of others, which count on from one to the next."""
    return T.Shuffle(vectors, list(lanes))


def deinterleave(vectors: list[Any], lanes: int) -> list[Any]:
    """The inverse of `interleave`: of elements [a0, b0, a1, b1, ...], in several vectors, [a0, a1, ...], [b0, ...]."""
    if lanes == 1 or len(vectors) == 1:
        return vectors
    return [shuffle(vectors, range(q, len(vectors) * lanes, len(vectors))) for q in range(len(vectors))]


def interleave(vectors: list[Any], lanes: int) -> Any:
    """One vector of the elements of several vectors of `lanes`, in turn: [a0, b0, a1, b1, ...]."""
    if len(vectors) == 1:
        return vectors[0]
    return shuffle(vectors, (q * lanes + i for i in range(lanes) for q in range(len(vectors))))


LAYERS = "pconvgen.layers"
"""Attribute of the Relax function "main": name of a convolution's or matmul's variable -> layer name in the model."""


def constant(value: Any) -> Any:
    """A Relax constant that holds `value`, an array or a number of a NumPy dtype."""
    array = np.asarray(value)
    tensor = tvm.runtime.empty(array.shape, str(array.dtype))
    np.from_dlpack(tensor)[...] = array  # copies views as well, once
    return relax.const(tensor)


def constant_value(expr: Any) -> NDArray[Any] | None:
    """The array that a Relax constant holds, not copied (do not write to it); None for any other expression."""
    if not isinstance(expr, tvm.ir.GenericConst) or not isinstance(expr.value, tvm.runtime.Tensor):
        return None
    return np.from_dlpack(expr.value)


def op_name(expr: Any) -> str:
    """The name of the Relax operator that `expr` calls, e.g. "relax.nn.conv2d"; empty when it calls none."""
    return str(expr.op.name) if isinstance(expr, tvm.ir.Call) and isinstance(expr.op, tvm.ir.Op) else ""


def astype(expr: Any, dtype: str) -> Any:
    """A tensor with its elements converted."""
    return relax.op.astype(expr, dtype)


def is_op(expr: Any, *names: str) -> bool:
    """Whether `expr` calls one of the named Relax operators."""
    return op_name(expr) in names


def shape_of(expr: Any) -> tuple[int, ...] | None:
    """The static shape of a tensor expression; None when it is no tensor or a dimension is symbolic."""
    return _static_shape(expr.ty)


def shapes_of(expr: Any) -> list[tuple[int, ...] | None]:
    """As `shape_of`, of each field of a tuple; of a tensor its own."""
    return [_static_shape(kind) for kind in getattr(expr.ty, "fields", (expr.ty,))]


def _static_shape(kind: Any) -> tuple[int, ...] | None:
    shape = getattr(kind, "shape", None)
    if not isinstance(shape, relax.ShapeExpr):
        return None
    if not all(isinstance(size, tvm.tirx.IntImm) for size in shape.values):
        return None
    return tuple(int(size) for size in shape.values)


def is_static(sizes: Iterable[Any]) -> bool:
    """Whether sizes are numbers rather than expressions."""
    return all(isinstance(size, int | tvm.tirx.IntImm) for size in sizes)


def dtype_of(expr: Any) -> str:
    """The element type of a tensor expression, e.g. "float32"."""
    return str(expr.ty.dtype)


def main_bindings(module: Any) -> list[Any] | None:
    """The bindings of the dataflow block of "main"; None when its body is not exactly one dataflow block."""
    blocks = module["main"].body.blocks
    if len(blocks) != 1 or not isinstance(blocks[0], relax.DataflowBlock):
        return None
    return list(blocks[0].bindings)


def layer_names(module: Any) -> dict[str, str]:
    """Attribute LAYERS of "main"; empty when a module has none."""
    attrs = module["main"].attrs
    names = attrs[LAYERS] if attrs and LAYERS in attrs else {}
    return {str(variable): str(layer) for variable, layer in names.items()}


def with_functions(module: Any, functions: Mapping[Any, Any]) -> Any:
    """A module with `functions`, variable or name -> function, beside or in place of those that `module` has."""
    result = tvm.ir.IRModule(module.functions, attrs=module.attrs)
    for variable, function in functions.items():
        result[variable] = function
    return result


def with_main_attr(module: Any, key: str, value: Any) -> Any:
    """`module` with an attribute of "main" set."""
    return with_functions(module, {"main": module["main"].with_attr(key, value)})


def main_results(module: Any) -> list[Any]:
    """What "main" returns: the fields of the tuple, or the one tensor."""
    result = module["main"].body.body
    bound = {binding.var: binding.value for binding in main_bindings(module) or []}
    value = bound.get(result, result)
    return list(value.fields) if isinstance(value, relax.Tuple) else [result]


def returning(module: Any, variables: list[Any]) -> Any:
    """`module` with a "main" that returns a tuple of variables of its dataflow block."""
    return _returning(module, main_bindings(module) or [], variables)


def _returning(module: Any, bindings: list[Any], variables: list[Any]) -> Any:
    function, builder = module["main"], relax.BlockBuilder()
    outputs = [relax.Var(f"{variable.name}_result", variable.ty) for variable in variables]
    copies = [relax.VarBinding(output, variable) for output, variable in zip(outputs, variables, strict=True)]
    block = relax.DataflowBlock([*bindings, *copies])
    body = builder.normalize(relax.SeqExpr([block], relax.Tuple(outputs)))
    return with_functions(
        module, {"main": relax.Function(function.params, body, body.ty, function.is_pure, function.attrs)}
    )


def beginning(module: Any, count: int) -> Any | None:
    """`module` with the first `count` bindings of "main", which returns the tensors that none of them uses; None if
    there is no such tensor."""
    bindings = [one for one in (main_bindings(module) or [])[:count] if not isinstance(one.value, relax.Tuple)]
    used = {var for binding in bindings for var in variables_of(binding.value)}
    ends = [one.var for one in bindings if one.var not in used and shape_of(one.var) is not None]
    return _returning(module, bindings, ends) if ends else None


Emit = Callable[..., Any]


def rewrite_main(module: Any, rule: Callable[[Any, Any, Emit], Any], *, typed: bool = True) -> Any:
    """Rebuild the dataflow block of "main" from first to last binding, each value replaced by what `rule` returns.

    `rule(var, value, emit)` sees `value` with all earlier replacements made and its type known, and returns it or
    another expression; a variable or constant takes the place of `var` everywhere after.
    `emit(expr, name)` binds a further expression before it and returns the variable.
    With `typed` false, `value` may have no type yet: for rules that change shapes, which do not fit before they ran.
    Where it returns None, nothing is bound, for variables that nothing will use.
    A module whose "main" is not one dataflow block is returned as it is.
    """
    block = main_bindings(module)
    if block is None:
        return module
    builder = relax.BlockBuilder()
    replaced: dict[Any, Any] = {}
    bindings: list[Any] = []

    def emit(expr: Any, name: str = "lv") -> Any:
        value = builder.normalize(expr)
        var = relax.DataflowVar(name, value.ty)
        bindings.append(relax.VarBinding(var, value))
        return var

    for binding in block:
        value = substitute(binding.value, replaced)
        result = rule(binding.var, builder.normalize(value) if typed else value, emit)
        if result is None:
            continue
        leaf = isinstance(result, tvm.ir.GenericConst | relax.Var)
        if leaf and isinstance(binding.var, relax.DataflowVar):
            replaced[binding.var] = result
        else:
            bindings.append(relax.VarBinding(binding.var, builder.normalize(result)))
    function = module["main"]
    body = builder.normalize(relax.SeqExpr([relax.DataflowBlock(bindings)], function.body.body))
    rebuilt = relax.Function(function.params, body, function.ret_ty, function.is_pure, function.attrs)
    return with_functions(module, {"main": rebuilt})


def substitute(expr: Any, replaced: dict[Any, Any]) -> Any:
    """`expr` with variables replaced by other variables or by constants."""
    if isinstance(expr, relax.Var):
        return replaced.get(expr, expr)
    if isinstance(expr, relax.Tuple):
        fields = [substitute(field, replaced) for field in expr.fields]
        same = all(new.same_as(old) for new, old in zip(fields, expr.fields, strict=True))
        return expr if same else relax.Tuple(fields)
    if isinstance(expr, relax.TupleGetItem):
        source = substitute(expr.tuple_value, replaced)
        return expr if source.same_as(expr.tuple_value) else relax.TupleGetItem(source, expr.index)
    if isinstance(expr, tvm.ir.Call):
        args = [substitute(arg, replaced) for arg in expr.args]
        same = all(new.same_as(old) for new, old in zip(args, expr.args, strict=True))
        return expr if same else with_args(expr, args)
    return expr


def variables_of(expr: Any) -> list[Any]:
    """The Relax variables in `expr`, one for every occurrence."""
    found: list[Any] = []
    relax.analysis.post_order_visit(expr, lambda node: found.append(node) if isinstance(node, relax.Var) else None)
    return found


def scalar_value(expr: Any) -> float:
    """The number in a Relax scalar, such as a bound of relax.clip."""
    value = getattr(expr, "value", expr)
    return float(getattr(value, "value", value))


def reshape(expr: Any, shape: tuple[int, ...]) -> Any:
    """`expr` with another shape; a view when it is compiled."""
    return relax.op.reshape(expr, shape)


def conv2d(data: Any, weight: NDArray[np.float32], **attributes: Any) -> Any:
    """A convolution by a constant; `attributes` are padding (top, left, bottom, right), dilation and groups."""
    return relax.op.nn.conv2d(data, constant(weight), **attributes)


def add(left: Any, right: Any) -> Any:
    """The sum of two tensors."""
    return relax.op.add(left, right)


def with_args(call: Any, args: list[Any]) -> Any:
    """The same operator on other arguments; its type is not known yet."""
    return tvm.ir.Call(call.op, args, call.attrs, call.ty_args)


def with_weight(call: Any, weight: NDArray[Any], groups: int | None = None) -> Any:
    """A convolution or matrix product of the same data with another weight, and with other groups if given."""
    if groups is None:
        return with_args(call, [call.args[0], constant(weight)])
    attrs = {key: getattr(call.attrs, key) for key in ("strides", "padding", "dilation")}
    return relax.op.nn.conv2d(call.args[0], constant(weight), **attrs, groups=groups)


def abandon(builder: relax.BlockBuilder | None) -> None:
    """Ends the block that an exception left open in a builder, of which TVM would complain once the builder is gone."""
    with suppress(Exception):
        if builder is not None:
            builder._end_block()


def is_dataflow_var(var: Any) -> bool:
    """Whether a variable is visible in its dataflow block only."""
    return isinstance(var, relax.DataflowVar)


def tuple_item(expr: Any) -> tuple[Any, int] | None:
    """(tuple, number) of the field that `expr` takes of a tuple; None when it takes none."""
    return (expr.tuple_value, int(expr.index)) if isinstance(expr, relax.TupleGetItem) else None


def split_indices(split: Any) -> list[int]:
    """Where the parts of a relax.split begin and where the last one ends."""
    size, parts = (shape_of(split.args[0]) or ())[int(split.attrs.axis)], split.attrs.indices_or_sections
    if isinstance(parts, int | tvm.tirx.IntImm):
        step = -(-size // int(parts))
        return [min(size, step * i) for i in range(int(parts) + 1)]
    return [0, *(int(index) for index in parts), size]


def strided_slice_of(expr: Any) -> tuple[Any, int, int, int] | None:
    """(tensor, axis, begin, end) of a relax.strided_slice of one axis with stride 1; None for anything else."""
    if not is_op(expr, "relax.strided_slice"):
        return None
    tuples = [[scalar_value(field) for field in arg.fields] for arg in expr.args[1:] if hasattr(arg, "fields")]
    axes, begins, ends, *strides = tuples
    shape = shape_of(expr.args[0])
    if shape is None or len(axes) != 1 or any(stride != 1 for stride in (strides or [[1]])[0]):
        return None
    axis = int(axes[0]) % len(shape)
    begin, end = (int(v[0]) + (shape[axis] if v[0] < 0 else 0) for v in (begins, ends))
    return expr.args[0], axis, max(0, begin), min(shape[axis], end)


def eliminate_dead_code(module: Any) -> Any:
    """`module` without bindings that nothing uses."""
    return relax.transform.DeadCodeElimination()(module)


class KernelCalls:
    """Calls of TIR kernels in a Relax function; equal kernels become one function of the module.

    Names that functions of `module` have are left to them.
    """

    def __init__(self, module: Any = None) -> None:
        self._functions: dict[Any, tuple[Any, Any]] = {}
        self._taken = set() if module is None else {variable.name_hint for variable in module.get_global_vars()}

    def call(self, kernel: Any, args: list[Any], shape: tuple[int, ...], dtype: str = "float32") -> Any:
        """call_tir of `kernel` (hashable, with `build()`) whose output has `shape` and `dtype`."""
        return relax.call_tir(self._function(kernel), args, relax.TensorType(shape, dtype))

    def call_inplace(self, kernel: Any, args: list[Any], shape: tuple[int, ...], dtype: str = "float32") -> Any:
        """The same for a kernel that writes a part of its last argument, which has `shape` and is the result."""
        out = relax.TensorType(shape, dtype)
        return relax.call_tir_inplace(self._function(kernel), args, [len(args) - 1], out)

    def _function(self, kernel: Any) -> Any:
        if kernel not in self._functions:
            function = kernel.build()
            names = (f"{type(kernel).__name__.removesuffix('Kernel').lower()}_{number}" for number in count())
            name = next(name for name in names if name not in self._taken)
            self._taken.add(name)
            variable = tvm.ir.GlobalVar(name)
            relax.expr._update_type(variable, function.ty)
            self._functions[kernel] = variable, function.without_attr("global_symbol")
        return self._functions[kernel][0]

    def add_to(self, module: Any) -> Any:
        """`module` with the kernels that were called."""
        return with_functions(module, dict(self._functions.values()))


def legalise(target: Any) -> Any:
    """The pass that gives every remaining operator TVM's own code, and fuses elementwise ones."""
    return _sequence(target, cpu_pipeline.library_dispatch_passes, cpu_pipeline.legalize_passes)


def call_kernels(target: Any) -> Any:
    """The pass that makes "main" a sequence of kernel calls which write into tensors that it allocates.

    before: lv = call_tir(kernel, (x,))
    after:  alloc = builtin.alloc_tensor(...); kernel(x, alloc); lv = alloc
    """
    return _sequence(target, cpu_pipeline.dataflow_lower_passes)


def _sequence(target: Any, *stages: Callable[[Any], list[Any]]) -> Any:
    @module_pass
    def lower(module: Any, _context: Any) -> Any:
        with target:
            return tvm.transform.Sequential([one for stage in stages for one in stage(target)])(module)

    return lower


def kernel_module(
    kernel: Any,
    inputs: Mapping[str, tuple[tuple[int, ...], str]],
    constants: Sequence[NDArray[Any]],
    output: tuple[tuple[int, ...], str],
    target: Any,
) -> Any:
    """A module for `build` whose "main" is one call of a kernel.

    Parameters
    ----------
    kernel: hashable, with `build()`.
    inputs: name -> (shape, dtype) of the parameters: of the kernel's first argument, then of those behind `constants`.
    constants: the arguments between them.
    output: shape and dtype of the result.
    target: TVM's.
    """
    builder, calls = relax.BlockBuilder(), KernelCalls()
    parameters = [relax.Var(name, relax.TensorType(shape, dtype)) for name, (shape, dtype) in inputs.items()]
    with builder.function("main", parameters):
        with builder.dataflow():
            args = [parameters[0], *map(constant, constants), *parameters[1:]]
            result = builder.emit_output(calls.call(kernel, args, *output))
        builder.emit_func_output(result)
    return call_kernels(target)(calls.add_to(builder.finalize()))


LibraryFunction = Callable[[list[NDArray[Any]]], list[NDArray[Any]]]
"""A function of a library, from arrays to arrays of the caller's own."""


def local_function(library: Path, name: str) -> LibraryFunction:
    """A function of a library for this machine; the file may go once this returns.

    Arrays are copied: kernels assume aligned memory, and TVM does not check that of an array it is handed. Threads take
    turns: a virtual machine keeps its registers and the activations' memory, and two calls at once end the process.
    """
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(library)), tvm.cpu())
    turn = Lock()

    def call(arrays: list[NDArray[Any]]) -> list[NDArray[Any]]:
        tensors = [tvm.runtime.tensor(array) for array in arrays]
        with turn:
            result = machine[name](*tensors)
            return [result.numpy()] if hasattr(result, "numpy") else [part.numpy() for part in result]

    return call
