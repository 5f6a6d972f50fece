"""Sources of bytes for the scripts of this folder."""

import time

PATIENCE = 30  # seconds, longer than any test lets it run


def endless(piece, seconds=PATIENCE):
    """The piece again and again, until somebody ends the transfer.

    A script may outlive a test that is killed, and must not write until the disk is full: in the end it fails.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        yield piece
    raise TimeoutError(f"nobody has ended the transfer within {seconds} s")
