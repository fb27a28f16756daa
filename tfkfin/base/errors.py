"""Errors that are the user's to mend."""

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Something the user gave is unfit. The message is one line: what is wrong, where, and what to do."""


class Missing(InputError, AttributeError):
    """What is not there yet, such as a card before `fit`; an AttributeError too, so that `hasattr` answers."""


@contextmanager
def refused_as(what: str, *kinds: type[BaseException], remedy: str = "") -> Iterator[None]:
    """Turns errors of these kinds, by default all that a library may raise, into an InputError: `what`, and why."""
    try:
        yield
    except InputError:
        raise
    except kinds or Exception as error:
        known = {RecursionError: "nested too deep", MemoryError: "it needs more memory than there is"}.get(type(error))
        why = known or getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(f"{what}: {why}{remedy}") from error
