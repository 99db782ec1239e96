"""Disks that die: stop at the n-th operation, or record all of them and show what a power cut may have left.

The model of a disk is that of POSIX: a file's bytes are safe after fsync of the file, a name after fsync of its
folder, and what is not safe may be there, or not, in any order. A rename within one folder is one change.
"""

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import NoReturn

from ommatid.disk import Disk, RealDisk
from ommatid.errors import StorageError


class PowerCut(BaseException):
    """The power is gone. No handler of errors may see this one."""


def cut_power() -> NoReturn:
    """Stop in this process, for a quick test."""
    raise PowerCut


class Points:
    """Counts the moments at which a program can die, and stops it at one of them."""

    def __init__(self, stop_at: int | None = None, stop: Callable[[], NoReturn] = cut_power) -> None:
        self.passed = 0
        self._stop_at = stop_at
        self._stop = stop

    def pass_one(self) -> None:
        """Go by one point, or not."""
        if self.passed == self._stop_at:
            self._stop()
        self.passed += 1


class CrashingDisk:
    """A real disk that dies before its n-th operation, or half-way through its n-th write."""

    def __init__(
        self,
        disk: Disk,
        stop_at: int | None = None,
        stop: Callable[[], NoReturn] = cut_power,
        points: Points | None = None,
    ) -> None:
        self._disk = disk
        self.points = points or Points(stop_at, stop)

    def write(self, path: Path, content: bytes) -> None:
        self.points.pass_one()
        self._disk.write(path, content[: len(content) // 2])
        self.points.pass_one()
        self._disk.write(path, content)

    def append(self, path: Path, content: bytes) -> None:
        half = len(content) // 2
        self.points.pass_one()
        self._disk.append(path, content[:half])
        self.points.pass_one()
        self._disk.append(path, content[half:])

    def sync(self, path: Path) -> None:
        self.points.pass_one()
        self._disk.sync(path)

    def rename(self, source: Path, target: Path) -> None:
        self.points.pass_one()
        self._disk.rename(source, target)

    def symlink(self, link: Path, points_to: str) -> None:
        self.points.pass_one()
        self._disk.symlink(link, points_to)

    def mkdir(self, path: Path) -> None:
        self.points.pass_one()
        self._disk.mkdir(path)

    def unlink(self, path: Path) -> None:
        self.points.pass_one()
        self._disk.unlink(path)

    def rmtree(self, path: Path) -> None:
        self.points.pass_one()
        children = sorted(path.iterdir()) if path.is_dir() and not path.is_symlink() else []
        for child in children[: len(children) // 2]:
            self._disk.rmtree(child)
        if children:
            self.points.pass_one()
        self._disk.rmtree(path)


class FullDisk:
    """A real disk on which the n-th operation fails, and all after it until `free` is called or `failures` are over."""

    def __init__(self, disk: Disk, fail_at: int | None = None, failures: int | None = None) -> None:
        self._disk = disk
        self._fail_at = fail_at
        self._failures = failures
        self.operations = 0

    def free(self) -> None:
        """Let all succeed again."""
        self._fail_at = None

    def write(self, path: Path, content: bytes) -> None:
        self._count(path)
        self._disk.write(path, content)

    def append(self, path: Path, content: bytes) -> None:
        self._count(path)
        self._disk.append(path, content)

    def sync(self, path: Path) -> None:
        self._count(path)
        self._disk.sync(path)

    def rename(self, source: Path, target: Path) -> None:
        self._count(target)
        self._disk.rename(source, target)

    def symlink(self, link: Path, points_to: str) -> None:
        self._count(link)
        self._disk.symlink(link, points_to)

    def mkdir(self, path: Path) -> None:
        self._count(path)
        self._disk.mkdir(path)

    def unlink(self, path: Path) -> None:
        self._count(path)
        self._disk.unlink(path)

    def rmtree(self, path: Path) -> None:
        self._count(path)
        self._disk.rmtree(path)

    def _count(self, path: Path) -> None:
        number, self.operations = self.operations, self.operations + 1
        if self._fail_at is None or number < self._fail_at:
            return
        if self._failures is None or number < self._fail_at + self._failures:
            raise StorageError(f"{path}: No space left on device")


class Kind(Enum):
    """What happened to a disk."""

    CONTENT = "content"
    MKDIR = "mkdir"
    SYMLINK = "symlink"
    RENAME = "rename"
    REMOVE = "remove"
    SYNC = "sync"


@dataclass(frozen=True)
class Op:
    """One operation. `path` and `source` are relative to the root; `content` is what the file holds afterwards."""

    kind: Kind
    path: str
    content: bytes = b""
    source: str = ""


@dataclass
class RecordingDisk:
    """A real disk that remembers each operation under `root`, also those of who wrote there without it."""

    root: Path
    ops: list[Op] = field(default_factory=list)
    disk: Disk = field(default_factory=RealDisk)
    _known: dict[str, bytes | None] = field(default_factory=dict)

    def write(self, path: Path, content: bytes) -> None:
        self.disk.write(path, content)
        self._notice()

    def append(self, path: Path, content: bytes) -> None:
        self.disk.append(path, content)
        self._notice()

    def sync(self, path: Path) -> None:
        self._notice()
        self.disk.sync(path)
        self.ops.append(Op(Kind.SYNC, self._name(path)))

    def rename(self, source: Path, target: Path) -> None:
        self._notice()
        self.disk.rename(source, target)
        self.ops.append(Op(Kind.RENAME, self._name(target), source=self._name(source)))
        self._known = dict(self._scan())

    def symlink(self, link: Path, points_to: str) -> None:
        self._notice()
        self.disk.symlink(link, points_to)
        self.ops.append(Op(Kind.SYMLINK, self._name(link), points_to.encode()))

    def mkdir(self, path: Path) -> None:
        self.disk.mkdir(path)
        self._notice()

    def unlink(self, path: Path) -> None:
        self._notice()
        if path.is_symlink() or path.exists():
            self.disk.unlink(path)
            self.ops.append(Op(Kind.REMOVE, self._name(path)))
            self._known = dict(self._scan())

    def rmtree(self, path: Path) -> None:
        self._notice()
        if path.is_dir() and not path.is_symlink():
            for child in sorted(path.iterdir()):
                self.rmtree(child)
            path.rmdir()
            self.ops.append(Op(Kind.REMOVE, self._name(path)))
            self._known = dict(self._scan())
        else:
            self.unlink(path)

    def _notice(self) -> None:
        """Record what appeared or changed since the last operation, folders before what is in them."""
        now = dict(self._scan())
        for name, content in now.items():
            if name not in self._known and content is None:
                self.ops.append(Op(Kind.MKDIR, name))
            elif content is not None and self._known.get(name) != content:
                self.ops.append(Op(Kind.CONTENT, name, content))
        self._known = now

    def _scan(self) -> Iterator[tuple[str, bytes | None]]:
        for folder, folders, files in os.walk(self.root):
            for name in sorted(folders):
                path = Path(folder, name)
                if not path.is_symlink():
                    yield self._name(path), None
            for name in sorted(files):
                path = Path(folder, name)
                if not path.is_symlink():
                    yield self._name(path), path.read_bytes()

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self.root))


class Policy(Enum):
    """What the disk did with all that was not fsynced."""

    DROP = "everything is lost"
    NAMES = "names are kept, bytes are lost"
    LATE = "the later half of the names is kept, bytes are half there"
    ZEROS = "all is kept, but bytes are zeros"
    KEEP = "all is kept"


class Chance:
    """Keep each change that was not fsynced, or do not, by a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 (a test's dice)

    def names(self, pending: list["_Change"]) -> list["_Change"]:
        return [change for change in pending if self._random.random() < 0.5]

    def content(self, safe: bytes, newest: bytes) -> bytes:
        cut = self._random.randint(0, len(newest))
        return self._random.choice([safe, newest, b"", newest[:cut], newest[:cut] + bytes(len(newest) - cut)])


def replay(root: Path, ops: list[Op], upto: int, policy: Policy | Chance) -> None:
    """Build in the new folder `root` what a power cut after `upto` operations may have left."""
    disk = _Modelled()
    for op in ops[:upto]:
        disk.do(op)
    root.mkdir(parents=True)
    disk.write_remains(root, policy)


@dataclass(eq=False)
class _Node:
    """A file, a link or a folder, whatever names it."""

    link: str | None = None
    content: bytes = b""
    safe: bytes = b""
    names: dict[str, "_Node"] | None = None
    safe_names: dict[str, "_Node"] = field(default_factory=dict)
    pending: list["_Change"] = field(default_factory=list)


_Change = dict[str, "_Node | None"]


class _Modelled:
    def __init__(self) -> None:
        self._root = _Node(names={})

    def do(self, op: Op) -> None:
        if op.kind is Kind.SYNC:
            self._sync(self._find(op.path))
            return
        folder, name = self._place(op.path)
        if op.kind is Kind.CONTENT:
            known = (folder.names or {}).get(name)
            if known is None:
                self._change(folder, {name: _Node(content=op.content)})
            else:
                known.content = op.content
        elif op.kind is Kind.MKDIR:
            self._change(folder, {name: _Node(names={})})
        elif op.kind is Kind.SYMLINK:
            self._change(folder, {name: _Node(link=op.content.decode())})
        elif op.kind is Kind.REMOVE:
            self._change(folder, {name: None})
        else:
            self._rename(op, folder, name)

    def write_remains(self, root: Path, policy: Policy | Chance) -> None:
        self._write(self._root, root, policy)

    def _rename(self, op: Op, folder: _Node, name: str) -> None:
        old_folder, old_name = self._place(op.source)
        node = (old_folder.names or {})[old_name]
        if old_folder is folder:
            self._change(folder, {old_name: None, name: node})
        else:
            self._change(folder, {name: node})
            self._change(old_folder, {old_name: None})

    def _change(self, folder: _Node, change: _Change) -> None:
        folder.pending.append(change)
        if folder.names is not None:
            _apply(folder.names, change)

    def _sync(self, node: _Node) -> None:
        node.safe = node.content
        if node.names is not None:
            node.safe_names, node.pending = dict(node.names), []

    def _find(self, path: str) -> _Node:
        if path == ".":
            return self._root
        folder, name = self._place(path)
        return (folder.names or {})[name]

    def _place(self, path: str) -> tuple[_Node, str]:
        *parents, name = path.split("/")
        node = self._root
        for parent in parents:
            node = (node.names or {})[parent]
        return node, name

    def _write(self, folder: _Node, path: Path, policy: Policy | Chance) -> None:
        names = dict(folder.safe_names)
        for change in _kept_names(folder.pending, policy):
            _apply(names, change)
        for name, node in names.items():
            place = path / name
            if node.link is not None:
                place.symlink_to(node.link)
            elif node.names is not None:
                place.mkdir()
                self._write(node, place, policy)
            else:
                place.write_bytes(_kept_content(node, policy))


def _apply(names: dict[str, _Node], change: _Change) -> None:
    for name, node in change.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


def _kept_names(pending: list[_Change], policy: Policy | Chance) -> list[_Change]:
    if isinstance(policy, Chance):
        return policy.names(pending)
    if policy is Policy.DROP:
        return []
    return pending[len(pending) // 2 :] if policy is Policy.LATE else pending


def _kept_content(node: _Node, policy: Policy | Chance) -> bytes:
    if isinstance(policy, Chance):
        return policy.content(node.safe, node.content) if node.safe != node.content else node.safe
    if node.safe == node.content or policy in {Policy.DROP, Policy.NAMES}:
        return node.safe
    if policy is Policy.LATE:
        return node.content[: len(node.content) // 2]
    return bytes(len(node.content)) if policy is Policy.ZEROS else node.content
