"""What the engine tells about the process and machine it runs on, without importing a speech library."""

from __future__ import annotations

import ctypes
import gc
import importlib.metadata
import logging
import os
import platform
import sys
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


def rss_bytes() -> int:
    """Resident memory of this process; 0 where /proc is not there."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def gpu_memory_bytes() -> int | None:
    """What torch holds of this process's GPU, in use or cached; None where it has not begun to use one.

    The driver's own share of a process (a few hundred MiB for its context) is not in it: no library tells it.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return sum(torch.cuda.memory_reserved(device) for device in range(torch.cuda.device_count()))


def memory() -> dict[str, int]:
    """The memory of this process, as the answers to load and unload tell it."""
    gpu_bytes = gpu_memory_bytes()
    told = {"rssBytes": rss_bytes()}
    return told if gpu_bytes is None else {**told, "gpuMemoryBytes": gpu_bytes}


def release_memory() -> None:
    """Gives freed memory back to system and GPU; without the trim, glibc keeps what a model used."""
    gc.collect()
    if gpu_memory_bytes() is not None:
        sys.modules["torch"].cuda.empty_cache()
    if sys.platform.startswith("linux"):
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def usable_cores() -> int:
    """Cores that this process may keep busy: of its affinity, and of its control group's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        if quota != "max":
            cores = min(cores, round(int(quota) / int(period)))
    except (OSError, ValueError) as error:
        log.debug("no CPU quota to be read: %s", error)
    return max(1, cores)


def library_version(package: str) -> str:
    """`name version` of an installed package, or `name not installed`."""
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{package} not installed"


def cpu_device(threads: int) -> dict[str, Any]:
    """The CPU as a device of the handshake."""
    return {"kind": "cpu", "name": cpu_name(), "threads": threads}


def cpu_name() -> str:
    """The CPU as its maker calls it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError as error:
        log.debug("no /proc/cpuinfo: %s", error)
    return platform.processor() or platform.machine()


def cuda_device(threads: int) -> dict[str, Any] | None:
    """The first CUDA device, asked of the driver itself: importing torch would cost seconds.

    None where there is no driver or device, or where the installed torch is a build without CUDA.
    """
    if "+cpu" in library_version("torch"):
        return None
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    count, device, total = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    if cuda.cuInit(0) != 0 or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return None
    name = ctypes.create_string_buffer(256)
    if cuda.cuDeviceGet(ctypes.byref(device), 0) != 0 or cuda.cuDeviceGetName(name, 256, device) != 0:
        return None
    found = {"kind": "cuda", "name": name.value.decode("utf-8", "replace"), "threads": threads}
    if cuda.cuDeviceTotalMem_v2(ctypes.byref(total), device) == 0:
        found["memoryBytes"] = total.value
    return found
