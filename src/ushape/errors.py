"""Errors for the user's eyes: what is wrong, where, and what to do next."""


class UshapeError(Exception):
    """Something the user can mend. The command line prints it without a traceback, exit code 2.

    Args:
        message: What is wrong, and where (file, case, key).
        hint: What to do next; empty when nothing can be advised.
    """

    def __init__(self, message: str, *, hint: str = ""):
        super().__init__(message)
        self.message, self.hint = message, hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class DataError(UshapeError):
    """A file, a mask or a folder is not what segmentation needs."""


class ConfigError(UshapeError):
    """A setting is unknown or has an impossible value."""


class PlanError(UshapeError):
    """Data, network and machine do not fit together."""


class RunError(UshapeError):
    """A run folder is not one, is incomplete, or is in the way."""
