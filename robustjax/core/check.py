"""Errors that say what was wrong, what was expected and how to mend it."""


class InputError(ValueError):
    """What a user passed cannot be used; the message is one line. Launchers print it without a traceback."""
