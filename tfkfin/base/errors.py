"""Errors that are the user's to mend."""


class InputError(ValueError):
    """Something the user gave is unfit. The message is one line: what is wrong, where, and what to do."""


class Missing(InputError, AttributeError):
    """What is not there yet, such as a card before `fit`; an AttributeError too, so that `hasattr` answers."""
