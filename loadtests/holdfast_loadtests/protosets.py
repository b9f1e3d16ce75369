"""Descriptors from a file, for targets without reflection."""

from pathlib import Path

from holdfast.cli import InputError
from holdfast_loadtests.descriptors import Descriptors, NoDescriptorsError


def read_protoset(path: Path) -> Descriptors:
    """What a FileDescriptorSet describes.

    Raises:
        InputError: the file cannot be read, or is none.
    """
    try:
        return Descriptors(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except NoDescriptorsError as error:
        raise InputError(f"{path}: {error}") from error
