"""`python -m korch.testing.tether PID COMMAND...`: run a korch command that does not outlive the process PID, its parent.

The kernel sends SIGKILL when the parent is gone, however it went; so nothing is left of a test run that was killed itself.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    parent = int(sys.argv[1])
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        # It was gone before the kernel knew what we want.
        sys.exit(1)
    sys.argv[1:] = sys.argv[2:]
    runpy.run_module("korch", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
