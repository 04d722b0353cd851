"""The wall clock of the stores in this process."""

import time


def microseconds() -> int:
    """Now, in microseconds since the epoch."""
    # Not time_ns() // 1000: a quotient keeps the room of its dividend, and the memory store keeps
    # this number for each key (16 bytes more).
    return int(time.time() * 1e6)


def milliseconds() -> int:
    """Now, in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000
