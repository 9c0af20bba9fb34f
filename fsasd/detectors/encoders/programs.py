"""Exported encoders (``.pt2``), checked before torch unpickles or evaluates anything in them.

``torch.export.load`` unpickles entries that are not plain tensors, and evaluates text: shapes,
guards, names of operators. A file is loaded only if it holds no pickles, and no text of another
form than ``torch.export.save`` writes for a network.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

_ENTRIES = re.compile(
    r"models/\w+\.json|data/(weights|constants)/(weight_\d+|tensor_\d+|\w+_config\.json)"
    r"|data/sample_inputs/\w+\.pt|extra/[\w./-]+|archive_format|archive_version|byteorder|version|\.data/\w+"
)
_WORDS = re.compile(r"[\w.\-:/,+>()*=\[\] ]*", re.ASCII)
_OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims|higher_order)\.(?!from_file|save|load)[A-Za-z_0-9]+(\.\w+)?"
    r"|torch\.(sym_\w+|_sym_\w+)|math\.\w+"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_"
    r"|not_|getitem)",
    re.ASCII,
)
# Functions of sizes, of sympy and those that torch adds to it.
_FUNCTIONS = re.compile(
    "Symbol|Integer|Rational|Float|Add|Mul|Pow|Max|Min|Mod|Abs|floor|ceiling|Equality|Eq|Ne"
    "|Unequality|Lt|Le|Gt|Ge|(Strict)?(Less|Greater)Than|And|Or|Not|FloorDiv|ModularIndexing|Where"
    "|PythonMod|CleanDiv|CeilDiv|(Ceil|Floor|Trunc|Round)ToInt|LShift|RShift|PowByNatural|FloatPow"
    "|(Float|Int)TrueDiv|TruncToFloat|RoundDecimal|ToFloat|Identity"
    "|IsNonOverlappingAndDenseIndicator|len"
    # And their arguments.
    "|L|math|inf|true|false|oo|int_oo"
)
_ATTRIBUTES = frozenset({"size", "stride", "storage_offset", "shape", "dtype", "device"})
_ARITHMETIC = (
    ast.Expression, ast.BoolOp, ast.boolop, ast.UnaryOp, ast.unaryop, ast.BinOp, ast.operator,
    ast.Compare, ast.cmpop, ast.Call, ast.keyword, ast.Subscript, ast.Attribute, ast.Name, ast.Load,
    ast.Constant, ast.Tuple,
)  # fmt: skip
_CONTAINERS = {None, "builtins.tuple", "builtins.list", "builtins.dict", "builtins.NoneType"}
# Remarks on the origin of a node; never evaluated.
_REMARKS = {"stack_trace", "nn_module_stack", "torch_fn", "custom", "from_node", "torch_version"}


def load_program(path: Path) -> torch.export.ExportedProgram:
    """Load a network that ``torch.export.save`` wrote, refusing whatever could run code.

    Raises:
        ValueError: It is another file, damaged, or holds pickles, compiled code, custom operators,
            or text that is neither a size nor a name.
    """
    content = path.read_bytes()
    try:
        entries = _entries(content)
        for name, entry in entries.items():
            if name.startswith("data/sample_inputs/") and entry:
                torch.load(io.BytesIO(entry), weights_only=True)
            elif name.endswith("_config.json"):
                _check_payloads(json.loads(entry))
            elif name.endswith(".json"):
                _check_program(json.loads(entry))
        # The same bytes that were checked.
        return torch.export.load(io.BytesIO(content))
    except Exception as error:
        raise ValueError(
            f"{path}: not loaded: expected what torch.export.save of torch 2.8 or newer wrote of a "
            f"network, without pickles ({str(error).strip().partition(chr(10))[0]})"
        ) from error


def _entries(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        names = file.namelist()
        if len({name.lower() for name in names}) < len(names):
            raise ValueError("it holds two entries of one name")
        roots = {name.partition("/")[0] for name in names}
        if len(roots) != 1:
            raise ValueError("its entries are in several folders")
        inner = {name.partition("/")[2]: name for name in names}
        if strange := [name for name in inner if not _ENTRIES.fullmatch(name)]:
            raise ValueError(f"it holds {strange[0]}, which could be a pickle or compiled code")
        return {short: file.read(name) for short, name in inner.items()}


def _check_payloads(about: Mapping[str, Any]) -> None:
    for name, payload in about["config"].items():
        if payload["use_pickle"] or not re.fullmatch(r"(weight|tensor)_\d+", payload["path_name"]):
            raise ValueError(f"{name} is a pickle")


def _check_program(about: Mapping[str, Any]) -> None:
    for key, text in _texts(about):
        if key in _REMARKS:
            expected = all(c.isprintable() or c in "\n\t" for c in text)
        elif key == "target":
            # Inputs and parameters are targets, too.
            expected = bool(_OPERATORS.fullmatch(text) or re.fullmatch(r"\w[\w.]*", text))
            expected &= bool(_OPERATORS.fullmatch(text)) or not _is_looked_up(text)
        elif key == "as_operator":
            expected = bool(_OPERATORS.fullmatch(text))
        elif key in ("guards_code", "expr_str"):
            expected = _is_arithmetic(text)
        elif key in ("in_spec", "out_spec"):
            expected = all(map(_is_container, _specs(json.loads(text))))
        else:
            expected = bool(_WORDS.fullmatch(text))
        if not expected:
            raise ValueError(f"its {key} {text[:60]!r} could be code")


def _is_looked_up(target: str) -> bool:
    return target.startswith(("torch", "math", "_operator"))


def _is_arithmetic(text: str) -> bool:
    """Return whether text is arithmetic of sizes only.

    >>> _is_arithmetic("1 < L['x'].size()[1] // 50"), _is_arithmetic("Symbol('s', integer=True)")
    (True, True)
    >>> _is_arithmetic("__import__('os').system('true')"), _is_arithmetic("S('x')")
    (False, False)
    """
    if set('"\\#\n\r;{}`') & set(text):
        return False
    try:
        nodes = list(ast.walk(ast.parse(text.strip(), mode="eval")))
    except (SyntaxError, ValueError, RecursionError):
        return False
    return all(isinstance(node, _ARITHMETIC) and _is_plain(node) for node in nodes)


def _is_plain(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return bool(re.fullmatch(r"\w*", node.value))
    if isinstance(node, ast.Name):
        return bool(_FUNCTIONS.fullmatch(node.id))
    if isinstance(node, ast.Attribute):
        of_math = isinstance(node.value, ast.Name) and node.value.id == "math"
        return node.attr in _ATTRIBUTES or (of_math and not node.attr.startswith("_"))
    return True


def _is_container(spec: Mapping[str, Any]) -> bool:
    keys = spec["context"]
    keys = json.loads(keys) if isinstance(keys, str) else keys
    named = all(isinstance(key, str) and re.fullmatch(r"\w+", key) for key in keys or [])
    return spec["type"] in _CONTAINERS and isinstance(keys, (list, type(None))) and named


def _specs(spec: Any) -> Iterator[Mapping[str, Any]]:
    for inner in spec if isinstance(spec, list) else [spec]:
        if isinstance(inner, Mapping):
            yield inner
            yield from _specs(inner["children_spec"])


def _texts(about: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield each text of a JSON value with the key that it, or its list, has."""
    if isinstance(about, str):
        yield key, about
    elif isinstance(about, list):
        for item in about:
            yield from _texts(item, key)
    elif isinstance(about, Mapping):
        for name, value in about.items():
            yield "name", name
            # Remarks are mappings of remarks.
            yield from _texts(value, key if key in _REMARKS else name)
