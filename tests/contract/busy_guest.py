"""A guest of 29 bytes: a boot sector that rewrites half a megabyte of memory for ever."""

from __future__ import annotations

from pathlib import Path

PROGRAM = bytes.fromhex(
    "fc"  # cld
    "31c0"  # xor ax, ax
    "40"  # again: inc ax
    "bb0010"  # mov bx, 0x1000
    "8ec3"  # segment: mov es, bx
    "31ff"  # xor di, di
    "b90080"  # mov cx, 0x8000
    "f3ab"  # rep stosw
    "81c30010"  # add bx, 0x1000
    "81fb0090"  # cmp bx, 0x9000
    "75ed"  # jne segment
    "ebe7"  # jmp again
)
FLOPPY_BYTES = 1_474_560


def busy_disk(path: Path) -> Path:
    """Write a bootable floppy image with the program."""
    sector = PROGRAM.ljust(510, b"\0") + b"\x55\xaa"
    path.write_bytes(sector.ljust(FLOPPY_BYTES, b"\0"))
    return path
