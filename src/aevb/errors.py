"""The one exception that a user may see."""


class InputError(Exception):
    """A mistake in what the user gave: one line that says what, where and what to do."""
