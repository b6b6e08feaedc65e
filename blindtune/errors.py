"""The one error tree. Every message says what is wrong, where, and what to do about it.

The command line shows ``str(error)`` on one line and exits with :attr:`BlindtuneError.exit_code`.

    BlindtuneError
    ├── InputError            a file, label or array that the user handed in
    ├── ParametersError       encryption parameters outside the security table or the engine's reach
    ├── PlanError             a study that cannot be trained as asked; says what would work
    ├── KeyFileError          a key file that is missing, damaged, locked or of another study
    ├── BundleError           a bundle that is malformed, altered, truncated or under another key
    ├── EngineError           an operation that the engine cannot carry out
    ├── FederationError       a message, member or round of a federation that is refused
    ├── PrivacyError          a release that the privacy budget does not allow
    ├── ModelError            a backbone or its weights that cannot be had
    ├── RemoteError           the server refused, failed or could not be reached
    ├── StorageError          the server's database or disk is full or cannot be used
    ├── QuotaError            what a tenant may keep or run at a server is used up
    └── MissingPackageError   an optional package that this call needs
"""

from __future__ import annotations


class BlindtuneError(Exception):
    """Root of all errors that blindtune raises on purpose.

    Args:
        what: what is wrong, in a short sentence without a full stop.
        where: the file, field or argument concerned; no patient data when it can leave the hospital.
        remedy: what to do about it.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = what, where, remedy
        text = f"{where}: {what}" if where else what
        super().__init__(f"{text}. {remedy}" if remedy else text)


class InputError(BlindtuneError):
    """A file, label or array that the user handed in cannot be used."""


class ParametersError(BlindtuneError):
    """Encryption parameters are outside the security table or the engine's reach."""


class PlanError(BlindtuneError):
    """The study cannot be trained as asked."""


class KeyFileError(BlindtuneError):
    """A key file is missing, damaged, locked, or belongs to another study."""


class BundleError(BlindtuneError):
    """A bundle is malformed, altered, truncated or under another key."""


class EngineError(BlindtuneError):
    """An operation that the engine cannot carry out: a missing key, no level left, unequal levels."""


class FederationError(BlindtuneError):
    """A message, a member or a round of a federation is refused."""


class PrivacyError(BlindtuneError):
    """A release that the privacy budget does not allow, or a budget or ledger that cannot be used."""


class ModelError(BlindtuneError):
    """A backbone or its weights cannot be had or do not fit."""


class RemoteError(BlindtuneError):
    """The server refused, failed or could not be reached."""


class StorageError(BlindtuneError):
    """The server's database or disk cannot be used.

    Attributes:
        full: there is no room; otherwise it may pass, or its operator has to look.
    """

    def __init__(self, what: str, *, where: str = "", remedy: str = "", full: bool = False) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.full = full


class QuotaError(BlindtuneError):
    """What a tenant may keep or run at a server is used up.

    Attributes:
        passing: the tenant's own running work holds it, so that trying again later may help.
    """

    def __init__(self, what: str, *, where: str = "", remedy: str = "", passing: bool = False) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.passing = passing


class MissingPackageError(BlindtuneError):
    """An optional package that this call needs is not installed."""
