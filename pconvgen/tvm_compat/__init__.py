"""All that knows TVM's moving API, in rooms.

| room | holds |
| --- | --- |
| `tir` | what templates write kernels with: functions, vectors, loads, shuffles |
| `relax`, `packed` | expressions of Relax, and operators of our own among them |
| `rewriting` | modules of Relax: what "main" computes, and modules with another "main" |
| `calls` | calls of kernels out of Relax |
| `passes` | passes in Python, and how to run them |
| `lowering`, `schedules`, `inlining`, `allocations` | to kernel calls, loops of TVM's own with schedules, and tensors |
| `pipeline`, `extrema` | from TIR to LLVM |
| `building`, `constants` | from lowered modules to libraries |
| `llvm` | what LLVM knows of processors |
| `runtime`, `rpc`, `timing` | libraries, tensors and threads of this machine; devices elsewhere; times of functions |

Elsewhere only front ends import TVM: they extend its importers, and write its operators as those do. Kernels are
written with `tir.T` and passes with `relax.op`, TVM's own languages.

Rooms know values and errors, and nothing of the compiler above them.
"""
