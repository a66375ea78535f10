"""Writing files so that a reader, or a crash at any moment, sees the old content or the new."""

import errno
import os
import uuid
from pathlib import Path


def write_synced(file: Path, text: str) -> None:
    """Write a text file and wait until it is on the disk."""
    with file.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def replace_synced(file: Path, text: str) -> None:
    """Replace a text file by another at once: a reader sees the old one or the new one, whole."""
    partial = _beside(file)
    try:
        write_synced(partial, text)
        partial.replace(file)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync(file.parent)


def write_whole(file: Path, text: str) -> None:
    """Write a text file so that a reader sees the old one or the new one, whole.

    What is no file, a terminal or a pipe, is written to as it stands.
    """
    if file.exists() and not file.is_file():
        with file.open("w", encoding="utf-8") as stream:
            stream.write(text)
        return
    replace_synced(file.resolve(), text)  # of a link the file that it leads to


def read_whole(file: Path) -> str:
    """The text of a file.

    Raises OSError for what is no file: a pipe or a device may never end.
    """
    if file.exists() and not file.is_file():
        raise OSError(errno.EINVAL, "it is a folder" if file.is_dir() else "it is not a file")
    return file.read_text(encoding="utf-8")


def create_synced(file: Path, text: str) -> bool:
    """Create a text file whole, or leave alone the one that is there; whether it was created.

    Of several processes, on one machine or on several that share the folder, exactly one creates
    it: a hard link to a finished file either appears or fails, also over NFS. Where the file system
    has no hard links, a lock on the folder stands in for it.
    """
    partial = _beside(file)
    try:
        write_synced(partial, text)
        try:
            os.link(partial, file)
        except FileExistsError:
            return False
        except (OSError, AttributeError) as error:
            if isinstance(error, OSError) and error.errno not in _NO_LINKS:
                raise
            if not _create_locked(partial, file):
                return False
    finally:
        partial.unlink(missing_ok=True)
    sync(file.parent)
    return True


# what a file system says that has no hard links (exFAT, some network and user-space ones)
_NO_LINKS = {errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}


def _create_locked(partial: Path, file: Path) -> bool:
    from filelock import FileLock

    with FileLock(file.parent / ".create.lock"):
        if file.exists():
            return False
        partial.replace(file)
    return True


def sync(path: Path) -> None:
    """Have the system put a file, or a folder's list of names, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _beside(file: Path) -> Path:
    """A name in the same folder that no other writer uses."""
    return file.with_name(f".{file.name}.{uuid.uuid4().hex[:12]}")
