"""Let a torchvision that was built for CUDA be imported beside a CPU build of torch.

Its compiled operators cannot be loaded then, and its import fails where it describes them.
Declaring them is enough: preprocessing uses none. Put this folder on ``PYTHONPATH``.
"""

import sys

BOXES = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


class _DeclareFirst:
    def __init__(self):
        self.library = None

    def find_spec(self, name, path=None, target=None):
        del path, target
        if name == "torchvision" and self.library is None:
            import torch  # noqa: PLC0415  in every interpreter otherwise

            self.library = torch.library.Library("torchvision", "DEF")
            for operator in ("nms", "qnms"):
                self.library.define(operator + BOXES)


sys.meta_path.insert(0, _DeclareFirst())
