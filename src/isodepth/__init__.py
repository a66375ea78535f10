"""isodepth: what is one recurrence of a looped language model worth?"""

from isodepth.accounting import Account, account
from isodepth.errors import InputError

__all__ = ["Account", "InputError", "account"]
