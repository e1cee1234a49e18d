"""A digest of a live function: of its code, and of all that it reaches by name or holds."""

from __future__ import annotations

import contextlib
import copyreg
import dis
import hashlib
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from helpers.runs.by_name import ModelName, is_model
from helpers.runs.code import files_digest, files_of, is_own
from helpers.settings import Settings

# Of installed packages no files are read: these shape the numbers, so their versions count as code.
VERSIONS = ("numpy", "torch", "transformers", "transformer-lens")
CODE = types.FunctionType | types.ModuleType | type
PLAIN = (type(None), bool, int, float, complex, str, bytes, np.ndarray, Settings)
# Attributes of a class that do not change what it computes, or that repeat what others say.
SKIPPED = {"__dict__", "__weakref__", "__doc__", "__module__", "__annotations__", "_abc_impl"}
SKIPPED |= {"__dataclass_fields__", "__dataclass_params__"}
SKIPPED |= {"__firstlineno__", "__static_attributes__", "__slotnames__"}


def digest_of(function: Any, folder: Path | None = None) -> str:
    """A digest of everything that calling a function depends on, apart from its arguments.

    What was typed in a notebook counts by value, and so does what a closure, a default or a partial
    holds: constants and arrays by content, functions by what they reach in turn, models by
    :func:`helpers.models.load.fingerprint`. Code in a file counts by that file and all that
    it reaches, and by the present values of its functions and plain data.

    Args:
        function: any callable.
        folder: where files lie that the function names; the working directory if None.

    Raises:
        TypeError: it holds a value that has no digest, such as an open file or a lock.
    """
    walk = _Walk()
    value = walk.digest(function)
    typed = "\n".join([repr(sorted(walk.strings)), *sorted(walk.imports)])
    sources = [(typed, Path.cwd() if folder is None else folder)]
    sources += [_import_of(path) for path in walk.modules]
    versions = [f"{name} {version(name)}" for name in VERSIONS]
    return _hashed([value, files_digest(files_of(sources)), sys.version, *versions])[:32]


def _hashed(parts: Iterable[str | bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()


def _import_of(path: Path) -> tuple[str, Path]:
    """The statement that imports a file, and the folder in which it would do so."""
    name, folder = path.stem, path.parent
    while (folder / "__init__.py").is_file():
        name, folder = f"{folder.name}.{name}", folder.parent
    return f"import {name}", folder


def _is_plain(value: Any) -> bool:
    """Whether a value is data: numbers, text, arrays, and containers of these."""
    if type(value) is dict:
        return _is_plain([*value.keys(), *value.values()])
    if type(value) in (list, tuple, set, frozenset):
        return all(map(_is_plain, value))
    return type(value) in PLAIN or str(type(value)) == "<class 'torch.Tensor'>"


def _is_own_module(value: Any) -> bool:
    if not isinstance(value, types.ModuleType):
        return False
    # A package without __init__.py has no __file__.
    places = [getattr(value, "__file__", None), *getattr(value, "__path__", [])]
    return any(place and is_own(Path(place)) for place in places)


def _names_used(code: types.CodeType) -> tuple[set[str], set[str], set[str]]:
    """The global names that code loads, all its names (attributes too), and its imports."""
    loaded, names, imports = set(), set(code.co_names), set()
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            loaded.add(step.argval)
        elif step.opname == "IMPORT_NAME":
            imports |= {f"import {step.argval}.{name}" for name in code.co_names}
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            for names_here, names_inside in zip((loaded, names, imports), _names_used(inner)):
                names_here |= names_inside
    return loaded, names, imports


def _held(function: types.FunctionType) -> dict[str, Any]:
    """What a function carries along: closure, defaults and attributes."""
    held = {"defaults": function.__defaults__, "keywords": function.__kwdefaults__}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
        with contextlib.suppress(ValueError):  # a variable without a value yet
            held[name] = cell.cell_contents
    return held | vars(function)


class _Walk:
    """Digests values, and notes the files that they depend on.

    ``in_file`` says of a value that it was reached by name in a source file. The file counts, so of
    the names in it only code and plain data are followed: they may have been changed in memory.

    Attributes:
        modules: files that functions come from.
        strings: all text, which may name files.
        imports: statements inside functions.
    """

    def __init__(self) -> None:
        self.modules, self.strings, self.imports = set[Path](), set[str](), set[str]()
        # By id, with the value, so that it stays alive and keeps its id.
        self.known: dict[tuple[int, bool], tuple[Any, str]] = {}

    def digest(self, value: Any, in_file: bool = False) -> str:
        key = id(value), in_file
        if is_model(value):
            return self.digest(ModelName.of(value))
        if key not in self.known:
            self.known[key] = value, "inside itself"  # found by a value that contains itself
            parts = [type(value).__qualname__, *self.parts(value, in_file)]
            self.known[key] = value, _hashed(parts)
        return self.known[key][1]

    def parts(self, value: Any, in_file: bool) -> Iterator[str | bytes]:
        """What tells a value from others of its type."""
        kind = type(value)
        if kind in (type(None), bool, int, float, complex, bytes):
            yield repr(value)
        elif kind is str:
            self.strings.add(value)
            yield value
        elif kind in (list, tuple):
            yield from (self.digest(item, in_file) for item in value)
        elif kind in (dict, types.MappingProxyType):
            yield from (self.digest(item, in_file) for pair in value.items() for item in pair)
        elif kind in (set, frozenset):
            yield from sorted(self.digest(item, in_file) for item in value)
        elif kind is np.ndarray and not value.dtype.hasobject:
            yield from (value.dtype.str, str(value.shape), value.tobytes())
        elif kind is Settings:  # the others do not change results
            yield from (value.model, value.device, value.profile, str(value.seed))
        elif kind is types.FunctionType:
            yield from self.function(value, in_file)
        elif kind is types.CodeType:
            names = (value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars)
            yield from (value.co_code, value.co_exceptiontable, str(value.co_flags), repr(names))
            yield self.digest(value.co_consts)
        elif kind is types.ModuleType:
            yield value.__name__
            if _is_own_module(value) and getattr(value, "__file__", None):
                self.modules.add(Path(value.__file__).resolve())
        elif isinstance(value, type):
            yield from self.class_(value, in_file)
        elif kind is property:
            yield self.digest([value.fget, value.fset, value.fdel], in_file)
        elif hasattr(value, "__wrapped__"):  # functools.cache, staticmethod, classmethod
            yield self.digest(value.__wrapped__, in_file)
        else:
            yield from self.other(value, in_file)

    def function(self, function: types.FunctionType, in_file: bool) -> Iterator[str]:
        code, name = function.__code__, function.__qualname__
        yield from self.children(name, _held(function), in_file)
        path = Path(code.co_filename).resolve()
        if not is_own(path):
            yield f"{function.__module__}.{name}"
            return
        yield self.digest(code)
        if path.is_file():
            self.modules.add(path)
        loaded, names, imports = _names_used(code)
        self.imports |= imports
        reached = {key: function.__globals__[key] for key in loaded & function.__globals__.keys()}
        yield from self.children(name, reached, in_file or path.is_file())
        # Then attributes of modules, and of modules in packages. The list grows while it is read.
        modules = list(filter(_is_own_module, reached.values()))
        for module in modules:
            reached = {key: vars(module)[key] for key in names & vars(module).keys()}
            yield from self.children(module.__name__, reached, True)
            inner = filter(_is_own_module, reached.values())
            modules += [value for value in inner if value not in modules]

    def class_(self, cls: type, in_file: bool) -> Iterator[str]:
        name = f"{cls.__module__}.{cls.__qualname__}"
        yield name
        module = sys.modules.get(cls.__module__)
        # A class that came from another process has no module here.
        if cls.__module__ == "__main__" or module is None or _is_own_module(module):
            yield from (self.digest(base, in_file) for base in cls.__bases__)
            slots = types.MemberDescriptorType | types.GetSetDescriptorType
            attributes = {key: vars(cls)[key] for key in vars(cls).keys() - SKIPPED}
            attributes = {k: v for k, v in attributes.items() if not isinstance(v, slots)}
            yield from self.children(name, attributes, in_file)

    def other(self, value: Any, in_file: bool) -> Iterator[str | bytes]:
        """Tensors; anything else by what pickle would make it from."""
        torch = sys.modules.get("torch")
        if torch and isinstance(value, torch.Tensor):
            content = value.detach().cpu().contiguous().flatten().view(torch.uint8)
            yield from (str(value.dtype), str(tuple(value.shape)), content.numpy().tobytes())
        else:
            reduce = copyreg.dispatch_table.get(type(value))
            try:
                reduced = reduce(value) if reduce else value.__reduce_ex__(4)
            except Exception as error:
                name = type(value).__qualname__
                raise TypeError(f"a {name}, so nobody can tell whether it has changed") from error
            if isinstance(reduced, str):  # the name of something global
                yield f"{getattr(value, '__module__', '')}.{reduced}"
            else:
                parts = [list(part) if isinstance(part, Iterator) else part for part in reduced]
                yield self.digest(parts, in_file)

    def children(self, owner: str, values: Mapping[str, Any], in_file: bool) -> Iterator[str]:
        """The named values in a function, class or module."""
        for name, value in sorted(values.items()):
            code = isinstance(value, CODE) or hasattr(value, "__wrapped__")
            if not in_file or code or _is_plain(value):
                try:
                    yield from (name, self.digest(value, in_file))
                except TypeError as error:
                    raise TypeError(f"{name} of {owner} is {error}") from error
