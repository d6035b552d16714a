"""Keep the first GPU busy until ended: a product of large matrices, again and again."""

import os

SIZE = 8192


def main() -> None:
    # Only the engine's environment has it; pytest collects this file without.
    import torch  # noqa: PLC0415

    device = os.environ.get("PYTEST_JOULES_DEVICE", "cuda")
    size = SIZE if device == "cuda" else 512
    left, right = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    made = torch.empty_like(left)
    while True:
        for _ in range(20):
            torch.matmul(left, right, out=made)
        if device == "cuda":
            torch.cuda.synchronize()


if __name__ == "__main__":
    main()
