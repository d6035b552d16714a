"""Presents the CPU to xDiT as its device, for tests: put on PYTHONPATH of the stack.

xDiT knows no CPU: it refuses to name a version and a communication backend for one.
"""

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder


class _Patched:
    def __init__(self, loader):
        self._loader = loader

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        self._loader.exec_module(module)
        module.get_device_version = lambda: "0.0"
        module.get_torch_distributed_backend = lambda: "gloo"


class _Finder(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "xfuser.envs":
            return None
        spec = PathFinder.find_spec(name, path, target)
        spec.loader = _Patched(spec.loader)
        return spec


sys.meta_path.insert(0, _Finder())
