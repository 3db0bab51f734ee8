"""Entry of the engine process.

Speech libraries print to stdout and some read stdin, at import already. So the two descriptors of the pipe
are taken out of their reach first, with nothing but `os` and `sys` loaded, and everything else is imported
after.
"""

import os
import sys


def _descriptor(flag: str) -> int:
    """Value of `--in-fd` or `--out-fd`, read without argparse, which may not be imported yet."""
    for index, argument in enumerate(sys.argv):
        if argument == flag and index + 1 < len(sys.argv):
            value = sys.argv[index + 1]
        elif argument.startswith(flag + "="):
            value = argument.partition("=")[2]
        else:
            continue
        if value.isdigit():
            return int(value)
    return -1


def _secure(in_fd: int, out_fd: int) -> tuple[int, int]:
    """Move the pipe to descriptors that no library touches and no child inherits (`dup` makes them so)."""
    secured = os.dup(in_fd), os.dup(out_fd)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, in_fd) if in_fd <= 2 else os.close(in_fd)
    if out_fd == 1:
        os.dup2(2, 1)
    elif out_fd != in_fd:
        os.close(out_fd)
    os.close(null)
    return secured


if __name__ == "__main__":
    try:
        descriptors = _secure(_descriptor("--in-fd"), _descriptor("--out-fd"))
    except OSError as error:
        sys.exit(f"error chorus_engine: --in-fd and --out-fd must name open descriptors: {error}")
    from chorus_engine.run import main

    main(sys.argv[1:], *descriptors)
