"""What the engine process gives up on its own account before it loads anything.

Nothing here needs privileges, so it works in containers that allow no sandbox: the process may gain no rights
(PR_SET_NO_NEW_PRIVS), leaves no core dump of a gigabyte, and holds its own memory limit when asked.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys

PR_SET_NO_NEW_PRIVS = 38  # <linux/prctl.h>
log = logging.getLogger(__name__)


def apply(max_memory_bytes: int | None, max_cpus: int | None = None) -> None:
    """Applies every limit that this platform has; one it lacks is logged, not fatal."""
    _no_new_privileges()
    if max_cpus is not None:
        _limit_cpus(max_cpus)
    try:
        import resource
    except ImportError:
        if max_memory_bytes is not None:
            log.warning("no memory limit on this platform")
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if max_memory_bytes is not None:
        _limit_memory(max_memory_bytes)


def _limit_memory(max_bytes: int) -> None:
    """RLIMIT_DATA, not RLIMIT_AS: CUDA reserves address space far beyond what it uses."""
    import resource

    try:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = max_bytes if hard == resource.RLIM_INFINITY else min(max_bytes, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    except (OSError, ValueError) as error:
        log.warning("memory limit not applied: %s", error)


def _limit_cpus(most: int) -> None:
    """Stays on so many of the processors it may use; engines spread, for the process decides which."""
    if not hasattr(os, "sched_setaffinity"):
        log.warning("no limit of processors on this platform")
        return
    usable = sorted(os.sched_getaffinity(0))
    first = os.getpid() % len(usable)
    try:
        os.sched_setaffinity(0, (usable[first:] + usable[:first])[:most])
    except OSError as error:
        log.warning("limit of processors not applied: %s", error)


def _no_new_privileges() -> None:
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        log.warning("no_new_privs not applied: errno %d", ctypes.get_errno())
