"""The one exception that a user of isodepth is meant to meet."""

from collections.abc import Sequence


class InputError(ValueError):
    """What the user gave can't be used; the message says where and why.

    `problems` holds one sentence per fault. The command line prints them and exits with status 2.
    """

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))
