"""A digest of a live function: of its code, of what it holds, and of the files behind it."""

from __future__ import annotations

import dis
import sys
import types
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from joblib.hashing import Hasher

from helpers.runs.code import files_digest, files_of, is_own
from helpers.settings import Settings

# Of installed packages no files are read: these shape the numbers, so their versions count.
VERSIONS = ("numpy", "torch", "transformers", "transformer-lens")
CODE = (types.FunctionType, types.ModuleType, type)
PLAIN = (type(None), bool, int, float, complex, str, bytes, np.ndarray, Settings)
# Attributes of a class that do not change what it computes, or that cannot be pickled.
SKIPPED = {"__dict__", "__weakref__", "__doc__", "__annotations__", "__slotnames__", "_abc_impl"}
SKIPPED |= {"__dataclass_fields__", "__firstlineno__", "__static_attributes__"}


def digest_of(function: Any, folder: Path | None = None) -> str:
    """A digest of everything that calling a function depends on, apart from its arguments.

    Code counts by its instructions, by the files that it comes from, imports or names, and by the
    functions and values that it reaches by name, in turn. What was typed in a notebook, and what a
    closure, a default or a partial holds, counts by content; a model by its weights.

    Args:
        function: any callable.
        folder: where files lie that the function names; the working directory if None.

    Raises:
        TypeError: it holds a value that has no digest, such as an open file or a lock.
    """
    walk = _Walk()
    values = walk.hash(function)
    typed = "\n".join([repr(sorted(walk.strings)), *sorted(walk.imports)])
    sources = [(typed, folder or Path.cwd()), *map(_import_of, walk.files)]
    versions = [f"{name} {version(name)}" for name in VERSIONS]
    return _Walk().hash([values, files_digest(files_of(sources)), sys.version, versions])[:32]


def _import_of(path: Path) -> tuple[str, Path]:
    """The statement that imports a file, and the folder in which it would do so."""
    name, folder = path.stem, path.parent
    while (folder / "__init__.py").is_file():
        name, folder = f"{folder.name}.{name}", folder.parent
    return f"import {name}", folder


class _Walk(Hasher):
    """joblib's hash of values, which also follows functions, classes and modules of one's own.

    Attributes:
        files: that these come from.
        strings: all text, which may name files.
        imports: statements inside functions.
    """

    def __init__(self) -> None:
        super().__init__("sha256")
        self.files, self.strings, self.imports = set[Path](), set[str](), set[str]()
        # Functions, classes and modules in the order they are met; whether by a name in a file.
        self.reached: list[tuple[Any, bool]] = []
        self.by_file = False

    def dump(self, value: Any) -> None:
        super().dump(value)
        for code, by_file in self.reached:  # grows while it is read
            if file := _own_file(code):
                self.files.add(file)
            # Names in a file count by that file, and so does what the functions found by them hold.
            # Code and data count by value too, since they may have been changed in memory.
            found = [(name, held, by_file) for name, held in self._held_by(code)]
            named = by_file or file is not None
            found += [(name, value, named) for name, value in self._named_by(code)]
            for name, held, self.by_file in sorted(found, key=lambda each: each[0]):
                if self.by_file and not (_is_plain(held) or _is_code(held)):
                    continue
                self.clear_memo()  # which values are the same object does not count
                try:
                    super().dump([name, held])
                except Exception as error:
                    raise TypeError(
                        f"{name} of {code.__qualname__} cannot be hashed, so nobody can tell "
                        f"whether it has changed ({error}). Make it inside the function."
                    ) from error

    def save(self, value: Any) -> None:
        """Write a value by content.

        Tuples are written as new lists: pickle would note which of them are the same object.
        """
        kind, torch = type(value), sys.modules.get("torch")
        if isinstance(value, CODE):
            if not any(value is other for other, _ in self.reached):
                self.reached.append((value, self.by_file))
            name = getattr(value, "__qualname__", value.__name__)
            value = [kind.__name__, getattr(value, "__module__", ""), name]
        elif kind is str:
            self.strings.add(value)
        elif kind is types.CodeType:
            names = [value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars]
            value = [value.co_code, value.co_exceptiontable, value.co_flags, names, value.co_consts]
        elif kind is tuple:
            value = ["tuple", *value]
        elif kind is frozenset:
            value = set(value)
        elif kind is property:
            value = [value.fget, value.fset, value.fdel]
        elif kind is Settings:  # the other settings change no result
            value = [value.model, value.device, value.profile, value.seed]
        elif kind is np.ndarray and not value.dtype.hasobject:
            value = [value.dtype.str, value.shape, value.tobytes()]
        elif torch and isinstance(value, torch.Tensor):
            content = value.detach().cpu().contiguous().flatten().view(torch.uint8)
            value = [str(value.dtype), value.shape, content.numpy().tobytes()]
        elif _is_model(value):
            from helpers.models.load import fingerprint

            value = [value.cfg.model_name, str(value.W_U.dtype), fingerprint(value)]
        elif hasattr(value, "__wrapped__"):  # functools.cache, staticmethod, classmethod
            value = [kind.__name__, value.__wrapped__]
        super().save(value)

    def _held_by(self, code: Any) -> Iterator[tuple[str, Any]]:
        """What a function holds."""
        if not isinstance(code, types.FunctionType):
            return
        if not is_own(Path(code.__code__.co_filename)):
            yield "what it decorates", getattr(code, "__wrapped__", None)
            return
        yield "its code", code.__code__
        yield "its defaults", [code.__defaults__, code.__kwdefaults__]
        yield from vars(code).items()
        for name, cell in zip(code.__code__.co_freevars, code.__closure__ or ()):
            if cell != types.CellType():  # a variable without a value yet
                yield name, cell.cell_contents

    def _named_by(self, code: Any) -> Iterator[tuple[str, Any]]:
        """The attributes of a class, and what a function reaches by name."""
        if isinstance(code, type) and (_own_file(code) or code.__module__ == "__main__"):
            slots = types.MemberDescriptorType | types.GetSetDescriptorType
            yield from ((f"base {base.__qualname__}", base) for base in code.__bases__)
            for name in vars(code).keys() - SKIPPED:
                if not isinstance(vars(code)[name], slots):
                    yield name, vars(code)[name]
        elif isinstance(code, types.FunctionType) and is_own(Path(code.__code__.co_filename)):
            loaded, names = self._names_in(code.__code__)
            yield from _reached(code.__globals__, loaded, names).items()

    def _names_in(self, code: types.CodeType) -> tuple[set[str], set[str]]:
        """The global names that code loads, and all its names, attributes too; notes imports."""
        loaded, names = set(), set(code.co_names)
        for step in dis.get_instructions(code):
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                loaded.add(step.argval)
            elif step.opname == "IMPORT_NAME":
                self.imports |= {f"import {step.argval}.{name}" for name in code.co_names}
        for inner in code.co_consts:
            if isinstance(inner, types.CodeType):
                inner_loaded, inner_names = self._names_in(inner)
                loaded, names = loaded | inner_loaded, names | inner_names
        return loaded, names


def _reached(space: dict[str, Any], loaded: set[str], names: set[str]) -> dict[str, Any]:
    """Values by name in a function's globals, and in modules of one's own among them."""
    found = {name: space[name] for name in loaded & space.keys()}
    for module in list(found.values()):
        if isinstance(module, types.ModuleType) and _own_file(module):
            inner = _reached(vars(module), names, names)
            found |= {f"{module.__name__}.{name}": value for name, value in inner.items()}
    return found


def _own_file(code: Any) -> Path | None:
    """The source file of a function, class or module, if it is no installed package's."""
    module = code if isinstance(code, types.ModuleType) else sys.modules.get(code.__module__)
    path = getattr(module, "__file__", None)
    if isinstance(code, types.FunctionType):
        path = code.__code__.co_filename
    path = Path(path).resolve() if path else None
    return path if path and path.is_file() and is_own(path) else None


def _is_model(value: Any) -> bool:
    bridge = sys.modules.get("transformer_lens.model_bridge")  # imported where there is a model
    return bridge is not None and isinstance(value, bridge.TransformerBridge)


def _is_code(value: Any) -> bool:
    return isinstance(value, (*CODE, types.CodeType)) or hasattr(value, "__wrapped__")


def _is_plain(value: Any) -> bool:
    """Whether a value is data: numbers, text, arrays, and containers of these."""
    if type(value) in (dict, list, tuple, set, frozenset):
        items = [*value, *value.values()] if type(value) is dict else value
        return all(map(_is_plain, items))
    return type(value) in PLAIN or str(type(value)) == "<class 'torch.Tensor'>"
