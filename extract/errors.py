"""The branch of extraction in the tree of exceptions; where no exit code is given, it is 2."""

from __future__ import annotations

from features_store import AffectoryError, Status


class ExtractError(AffectoryError):
    """Something that is needed to make vectors is missing or wrong."""


class CorpusError(ExtractError, ValueError):
    """The corpus is not there, or its files break the official layout."""


class EncoderError(ExtractError, ValueError):
    """There is no such encoder, or it cannot be built."""


class WeightsError(EncoderError):
    """The weights are missing, or they do not fit the architecture."""


class HubError(EncoderError, OSError):
    """The weights are not on this machine, and their host cannot be reached."""


class DeviceError(ExtractError, ValueError):
    """There is no such device."""


class TooManyFailedError(ExtractError):
    """More images failed than are accepted, so the work is not finished."""

    exit_code = 3


class UnfinishedError(ExtractError):
    """The time for training is used up; its state is kept, and the same command resumes it."""

    exit_code = 3


class EngineError(ExtractError, RuntimeError):
    """The engine that spreads the work over processes is not installed, or gave up."""


class MachineError(ExtractError):
    """The machine, the network or the memory failed, not one image; what was written stays."""

    exit_code = 1


class UnreadableError(MachineError, OSError):
    """A file cannot be read for a reason that is no property of the file: a lost mount, a network, too many files."""


class DeviceFault(MachineError, RuntimeError):
    """The device failed in the middle of the work; what was written stays."""


class DeviceMemoryError(DeviceFault):
    """The memory of the device, or of the host, is used up."""


class ActorsError(EngineError, MachineError):
    """The actors of an engine gave up."""


class RefusedImageError(ExtractError, ValueError):
    """One image cannot be used, for a reason in one clause; the run continues and records `status` for its row."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status = status
