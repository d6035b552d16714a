"""Presents the CPU to xDiT as its device, for tests: put on PYTHONPATH of the stack.

xDiT knows no CPU: it names no version and no communication backend for one, and takes its
sequence parallelism for missing.
"""

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder


def _environment(module):
    module.get_device_version = lambda: "0.0"
    module.get_torch_distributed_backend = lambda: "gloo"
    module.PACKAGES_CHECKER.packages_info["has_long_ctx_attn"] = True


def _attention(module):
    from yunchang.globals import PROCESS_GROUP  # noqa: PLC0415  only where xDiT is

    module.PROCESS_GROUP = PROCESS_GROUP


PATCHES = {"xfuser.envs": _environment, "xfuser.model_executor.layers.usp": _attention}


class _Patched:
    def __init__(self, loader, patch):
        self._loader, self._patch = loader, patch

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        self._loader.exec_module(module)
        self._patch(module)


class _Finder(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name not in PATCHES:
            return None
        spec = PathFinder.find_spec(name, path, target)
        spec.loader = _Patched(spec.loader, PATCHES[name])
        return spec


sys.meta_path.insert(0, _Finder())
