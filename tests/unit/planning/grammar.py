"""Random domain definitions out of the grammar that libvirt installs: whatever it allows may come along one day.

Every text that the grammar leaves open becomes a value of its own, so that a test can look for it again.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from lxml import etree

SCHEMAS = Path("/usr/share/libvirt/schemas")
_NS = "{http://relaxng.org/ns/structure/1.0}"
_NUMBERS = ("int", "long", "short", "byte", "decimal", "float", "double")
_PATHS = ("absFilePath", "absDirPath", "filePath")
_FOREIGN = ("customElement", "anyElement")
_DEEPEST = 160
"""Patterns within patterns; backing chains have no end of their own."""

Element = etree._Element


@cache
def _definitions() -> dict[str, tuple[Element, ...]]:
    found: defaultdict[str, list[Element]] = defaultdict(list)
    waiting, seen = ["domain.rng", "domaincommon.rng"], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        root = etree.parse(str(SCHEMAS / name)).getroot()
        for element in root.iter(f"{_NS}define", f"{_NS}include"):
            if element.tag == f"{_NS}include":
                waiting.append(element.get("href", ""))
            else:
                found[element.get("name", "")].append(element)
    return {name: tuple(elements) for name, elements in found.items()}


def _children(pattern: Element) -> list[Element]:
    return [child for child in pattern if isinstance(child.tag, str)]


@dataclass
class Writer:
    """One document; the same seed gives the same one."""

    seed: int
    values: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Value -> name of the grammar's pattern, and where it stands in the document (``a/b@c``)."""
    _depth: int = 0
    _chance: random.Random = field(init=False)

    def __post_init__(self) -> None:
        """The randomness is no secret."""
        self._chance = random.Random(self.seed)

    def document(self) -> str:
        """A definition that has whatever the dice said, in the grammar's order."""
        holder = etree.Element("holder")
        for pattern in _definitions()["domain"]:
            self._group(pattern, holder, "domain")
        return etree.tostring(holder[0], encoding="unicode")

    def _group(self, pattern: Element, parent: Element, name: str) -> None:
        for child in _children(pattern):
            self._write(child, parent, name)

    def _write(self, pattern: Element, parent: Element, name: str) -> None:
        kind = str(pattern.tag).removeprefix(_NS)
        self._depth += 1
        if kind == "optional":
            if self._depth < _DEEPEST and self._chance.random() < 0.65:
                self._group(pattern, parent, name)
        elif kind == "zeroOrMore":
            many = 14 if any(len(child) > 8 for child in _children(pattern)) else 2
            for _ in range(self._chance.randint(0, many if self._depth < _DEEPEST else 0)):
                self._group(pattern, parent, name)
        elif kind == "choice":
            self._write(self._chance.choice(_children(pattern)), parent, name)
        elif kind == "ref":
            self._refer(pattern.get("name", ""), parent)
        elif kind == "element":
            self._element(pattern, parent, name)
        elif kind == "attribute":
            self._attribute(pattern, parent, name)
        elif kind in ("text", "data", "value"):
            parent.text = (parent.text or "") + self._value(pattern, parent, "", name)
        elif kind in ("group", "interleave", "oneOrMore", "list"):
            self._group(pattern, parent, name)
        self._depth -= 1

    def _refer(self, name: str, parent: Element) -> None:
        if name not in _FOREIGN:
            for pattern in _definitions()[name]:
                self._group(pattern, parent, name)

    def _element(self, pattern: Element, parent: Element, name: str) -> None:
        namespace, tag = pattern.get("ns"), pattern.get("name")
        if tag is None:  # some name out of a choice
            tag = next((n.text or "").strip() for n in pattern.iter(f"{_NS}name"))
        element = etree.SubElement(parent, f"{{{namespace}}}{tag}" if namespace else tag)
        self._group(pattern, element, name)

    def _attribute(self, pattern: Element, parent: Element, name: str) -> None:
        if (key := pattern.get("name")) is not None:
            inside = _children(pattern)
            parent.set(key, "".join(self._text(p, parent, key, name) for p in inside) or self._open(parent, key, name))

    def _text(self, pattern: Element, parent: Element, key: str, name: str) -> str:
        kind = str(pattern.tag).removeprefix(_NS)
        if kind == "choice":
            return self._text(self._chance.choice(_children(pattern)), parent, key, name)
        if kind == "ref":
            target = pattern.get("name", "")
            inside = [child for d in _definitions()[target] for child in _children(d)]
            return "".join(self._text(p, parent, key, target) for p in inside)
        if kind in ("text", "data", "value"):
            return self._value(pattern, parent, key, name)
        return "".join(self._text(p, parent, key, name) for p in _children(pattern))

    def _value(self, pattern: Element, parent: Element, key: str, name: str) -> str:
        if pattern.tag == f"{_NS}value":
            return pattern.text or ""
        if (pattern.get("type") or "text").lower().removeprefix("unsigned").endswith(_NUMBERS):
            return str(self._chance.randint(1, 9))
        return self._open(parent, key, name)

    def _open(self, parent: Element, key: str, name: str) -> str:
        value = f"{'/' if name in _PATHS else ''}g{len(self.values)}x"
        tags = [str(e.tag) for e in reversed([parent, *parent.iterancestors()])][2:]
        self.values[value] = (name, "/".join(tags) + (f"@{key}" if key else ""))
        return value
