"""Errors that are the user's to mend: one clear line, exit code 2, no traceback."""

TERMINATED = 143
"""Exit code after SIGTERM: 128 + 15, what a scheduler expects of a process it stopped."""


class SbrError(Exception):
    """A fault in what the user gave: a file, a row, a key, a value.

    The message is one line that names the file, the row or the key, what was found and what
    was expected. The command line prints it without a traceback and exits with code 2.
    """

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(str(message).split()))


class ConfigError(SbrError):
    """A key or a value of the configuration."""


class ManifestError(SbrError):
    """A row or a column of a table the user wrote: manifest, sheet of brains, landmarks."""


class DownloadError(SbrError):
    """A file that cannot be had from the web, or is not the one it should be."""


class ImageError(SbrError):
    """An image or a volume that cannot be read or cannot be what it is said to be."""


class AlignmentError(SbrError):
    """A stack and an MRI that do not come together."""


class WeightsError(SbrError):
    """Network weights that do not fit: another architecture, another format."""


class ReceiptError(SbrError):
    """A stage's receipt that does not match the files it lists."""


class TrainingError(SbrError):
    """Training that cannot go on: no data, a runaway or non-finite loss, a second trainer."""
