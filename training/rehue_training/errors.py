"""The error for what the user can put right."""


class InputError(ValueError):
    """A problem with the photographs, the experiment or the files of a run.

    The message is one sentence. The `rehue` command prints it without a traceback.
    """
