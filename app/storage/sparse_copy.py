"""Copies of sparse files that stay sparse and, where the filesystem can, share blocks."""

import errno
import fcntl
import os

FICLONE = 0x40049409  # linux/fs.h
_NOT_CLONABLE = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS)


def copy_sparse(source: int, target: int) -> None:
    """Make `target` (an empty file, by descriptor) equal to `source`; blocks.

    Tries a reflink; otherwise copies the data segments alone, in the kernel.

    Raises:
        OSError: Reading or writing failed; `target` is then unfinished.
    """
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as error:
        if error.errno not in _NOT_CLONABLE:
            raise
    else:
        return
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    position = 0
    while position < size:
        try:
            start = os.lseek(source, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        position = os.lseek(source, start, os.SEEK_HOLE)
        _copy_range(source, target, start, position - start)


def _copy_range(source: int, target: int, offset: int, size: int) -> None:
    while size > 0:
        count = os.copy_file_range(source, target, size, offset, offset)
        if count == 0:
            raise OSError(errno.EIO, "the file became shorter while it was copied")
        offset += count
        size -= count
