"""Run another program for a job, for no longer than the job may take."""

import subprocess
from collections.abc import Sequence

from .worker import check_current

__all__ = ["finished"]

_POLL_S = 0.1
"""Seconds between two looks at whether the job is to end."""

_GRACE_S = 2.0
"""Seconds that a program has to clean up after itself."""


def finished(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end and return what it said and its exit code.

    Raises:
        CancelledError, DeadlineError: The job whose work this is is to end meanwhile; the program
            is ended before.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, errors="replace"
    ) as process:
        try:
            while True:
                said = _said(process, _POLL_S)
                if said is not None:
                    return subprocess.CompletedProcess(command, process.returncode, *said)
                check_current()
        except BaseException:
            process.terminate()
            if _said(process, _GRACE_S) is None:
                process.kill()
            raise


def _said(process: "subprocess.Popen[str]", timeout_s: float) -> tuple[str, str] | None:
    """Return what a program has said if it ends in time."""
    try:
        return process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return None
