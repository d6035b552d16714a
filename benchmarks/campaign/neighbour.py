"""Hold a context and some memory on the first GPU, and do nothing, until ended."""

import os
import signal


def main() -> None:
    # Only the engine's environment has it; pytest collects this file without.
    import torch  # noqa: PLC0415

    device = os.environ.get("PYTEST_JOULES_DEVICE", "cuda")
    held = torch.zeros(1 << 20, device=device)
    print("ready", held.device, flush=True)  # noqa: T201  whoever started it waits for it
    signal.pause()


if __name__ == "__main__":
    main()
