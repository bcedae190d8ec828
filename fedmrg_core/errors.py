"""The one error that bad input raises."""


class InputError(ValueError):
    """Bad input, told in one sentence that names the file, row or parameter and what is expected instead.

    Command-line tools print the sentence without a traceback and end with exit code 2.
    """
