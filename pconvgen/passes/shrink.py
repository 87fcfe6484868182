"""Placeholder"""
import tvm
@tvm.transform.module_pass(opt_level=0)
class RemoveDeadChannels:
    def transform_module(self, module, _context):
        return module
