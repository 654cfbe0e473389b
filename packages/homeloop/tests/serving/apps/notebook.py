"""
Run the cells that come in on standard input, divided by lines of ``#%%``, in a real kernel; print what they print.

A cell that fails ends the run with the status 1 and its traceback.
"""

import sys

from jupyter_client import KernelManager

BOUND = 60.0  # seconds for each cell


def main() -> int:
    """Start a kernel, run the cells, end the kernel."""
    manager = KernelManager(kernel_name="python3", transport="ipc")
    manager.start_kernel()
    try:
        client = manager.client()
        client.start_channels()
        client.wait_for_ready(timeout=BOUND)
        for cell in sys.stdin.read().split("#%%\n"):
            answer = client.execute_interactive(cell, timeout=BOUND)
            if answer["content"]["status"] != "ok":
                print("\n".join(answer["content"]["traceback"]), file=sys.stderr)
                return 1
        client.stop_channels()
    finally:
        manager.shutdown_kernel()
        manager.cleanup_resources()
    return 0


if __name__ == "__main__":
    sys.exit(main())
