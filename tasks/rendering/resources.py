"""``vmferry inspect``: what domain definitions name."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tasks.model.errors import InvalidRequest
from tasks.planning.resources import list_resources
from tasks.planning.xml_tree import decode_xml
from tasks.rendering.tables import print_rows


def inspect_files(files: Sequence[Path]) -> tuple[dict[str, list[dict[str, Any]]], list[InvalidRequest]]:
    """Resources by file, and what could not be read; one bad file does not hide the others."""
    found: dict[str, list[dict[str, Any]]] = {}
    failed = []
    for file in files:
        try:
            found[str(file)] = [asdict(resource) for resource in list_resources(_read(file))]
        except InvalidRequest as error:
            failed.append(InvalidRequest(error.code, f"{file}: {error.message}", error.hint))
    return found, failed


def _read(file: Path) -> str:
    try:
        return decode_xml(sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidRequest(
            "FILE_UNREADABLE", str(error), "name a file with a domain's XML, as virsh dumpxml prints it"
        ) from None


def print_resources(found: dict[str, list[dict[str, Any]]]) -> None:
    """One row a resource."""
    rows = [
        [*([file] if len(found) > 1 else []), r["kind"], r["value"], "yes" if r["known"] else "NO", r["xpath"]]
        for file, resources in found.items()
        for r in resources
    ]
    print_rows(
        [*(["FILE"] if len(found) > 1 else []), "KIND", "VALUE", "KNOWN", "XPATH"], rows, empty="nothing of the host"
    )
