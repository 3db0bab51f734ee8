"""The speech engine of a chorus worker: one process, one pipe, one library.

The worker starts `python -m chorus_engine` and speaks the engine pipe (protocol 2.1) with it. The way of a
request: `pipe` cuts the byte stream into envelopes, `server` answers them, `lanes` runs synthesis beside the
reader, `engines` makes the samples, `take` cuts them into chunks and `pipe` writes them back.
"""

__version__ = "0.1.0"
