"""From a command line to a running server; `__main__` has secured the descriptors before this is imported."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from typing import NoReturn

from chorus_engine import engines, limits
from chorus_engine.engines.base import EngineConfig
from chorus_engine.pipe import FrameReader, FrameWriter
from chorus_engine.server import Server


def main(arguments: list[str], in_fd: int, out_fd: int) -> NoReturn:
    """Serves the pipe on the two descriptors until it ends, then ends the process without a further look."""
    options = _parse(arguments)
    _set_up_logs()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    limits.apply(options.max_memory_bytes, options.max_cpus)
    writer = FrameWriter(out_fd)
    config = EngineConfig(options.threads, options.lanes, options.max_batch, writer)
    server = Server(engines.create(options.kind, config), FrameReader(in_fd), writer)
    status = server.run()
    sys.stderr.flush()
    os._exit(status)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="chorus_engine", description="The engine of a chorus worker.")
    parser.add_argument("--kind", choices=engines.KINDS, required=True)
    parser.add_argument("--in-fd", type=int, required=True, help="descriptor that requests come on")
    parser.add_argument("--out-fd", type=int, required=True, help="descriptor that answers go to")
    parser.add_argument("--threads", type=_count, help="threads of one synthesis")
    parser.add_argument("--lanes", type=_count, help="syntheses at a time")
    parser.add_argument("--max-batch", type=_count, help="texts of one synthesis")
    parser.add_argument("--max-memory-bytes", type=_count, help="limit that the process sets itself")
    parser.add_argument("--max-cpus", type=_count, help="processors that the process keeps to")
    return parser.parse_args(arguments)


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _set_up_logs() -> None:
    """One line a record on stderr; stdout is a log too, so that lines of libraries appear when printed."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        logging.addLevelName(level, logging.getLevelName(level).lower())
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)
