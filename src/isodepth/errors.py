"""The one exception that a user of isodepth is meant to meet."""

from collections.abc import Sequence


class InputError(ValueError):
    """What the user gave can't be used; the message says where and why.

    `problems` holds one sentence per fault. The command line prints them and exits with status 2.
    """

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


def reason(error: Exception) -> str:
    """What a fault of reading says, without the number and the file's name that an OSError adds."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
