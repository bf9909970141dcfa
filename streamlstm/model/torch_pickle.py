"""The pickles inside PyTorch files, read without unpickling.

A small machine of its own runs the handful of opcodes that `torch.save` writes for dictionaries of tensors (pickle
protocols 2 to 5, Python's pickletools) and builds inert values. No class is looked up, no function is called,
whatever the file says: a name stays a `Symbol`, a call of a known name becomes one of the dataclasses of
`torch_values`, any other name is refused.
"""

import pickletools
import struct
from collections.abc import Callable
from typing import Any, BinaryIO, NoReturn

from streamlstm.errors import ModelFileError
from streamlstm.model.fields import brief
from streamlstm.model.limits import MIB
from streamlstm.model.torch_values import (
    CALLABLE,
    HARMLESS,
    ORDERED_DICT,
    PARAMETER,
    PARAMETER_WITH_STATE,
    STORAGE_DTYPES,
    TENSOR_V1,
    TENSOR_V2,
    Opaque,
    StorageRef,
    Symbol,
    TensorRef,
)

MAX_PICKLE_BYTES = 8 * MIB
MAX_OPCODES = 500_000
MAX_STACK = 100_000

WHOLE_MODULE_ADVICE = (
    "a whole pickled module, which only running its code could read; "
    "save the weights instead: torch.save(model.state_dict(), 'model.pt')"
)
FOREIGN_NAME = (
    "the pickle names something that no state_dict needs; nothing was run; "
    "save the weights alone: torch.save(model.state_dict(), 'model.pt')"
)


def read_pickle(stream: BinaryIO, where: str) -> Any:
    """The value of the pickle that starts at the stream's position; leaves the stream right behind it.

    Raises ModelFileError on any opcode, name or size that a dictionary of tensors doesn't need.
    """
    machine = _Machine(where)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count >= MAX_OPCODES:
                raise ModelFileError(where, "pickle too long", expected=f"at most {MAX_OPCODES} opcodes", found="more")
            if opcode.name == "STOP":
                break
            machine.run(opcode.name, argument)
    except (ValueError, IndexError, KeyError, OverflowError, struct.error) as error:
        found = str(error)[:120] or type(error).__name__
        raise ModelFileError(where, "broken pickle", expected="the pickle of a state_dict", found=found) from None
    return machine.result()


class _Machine:
    """Stack, marks and memo of the pickle language."""

    def __init__(self, where: str) -> None:
        self.where = where
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self, opcode: str, argument: Any) -> None:
        if opcode in _CONSTANTS:
            self._stack.append(_CONSTANTS[opcode])
        elif opcode in _LITERALS:
            self._stack.append(argument)
        elif opcode in _ACTIONS:
            _ACTIONS[opcode](self, argument)
        else:
            self._refuse(f"the pickle opcode {opcode}")
        if len(self._stack) > MAX_STACK or len(self._marked) > MAX_STACK:
            self._refuse(f"a pickle stack over {MAX_STACK}")

    def result(self) -> Any:
        if len(self._stack) != 1 or self._marked:
            self._refuse("a pickle that leaves a disordered stack")
        return self._stack.pop()

    def put(self, index: int | None) -> None:
        self._memo[len(self._memo) if index is None else int(index)] = self._stack[-1]

    def get(self, index: int) -> None:
        self._stack.append(self._memo[int(index)])

    def mark(self, _: object) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def pop(self, _: object) -> None:
        self._stack.pop()

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def dictionary(self) -> None:
        flat = self.pop_mark()
        self._stack.append({})
        self.set_items(flat)

    def tuple_of(self, count: int) -> None:
        if len(self._stack) < count:
            raise IndexError("pickle stack underflow")
        self._stack[-count:] = [tuple(self._stack[-count:])]

    def append(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, Opaque):
            self._refuse(f"an append to {brief(target)}")

    def set_items(self, flat: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, Opaque):
            return
        if not isinstance(target, dict) or len(flat) % 2:
            self._refuse(f"items set on {brief(target)}")
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            # Hashing a tuple walks all of it: nested ones take exponential time or the C stack.
            if key is not None and not isinstance(key, str | int | float):
                self._refuse(f"a dictionary key that is {brief(key)}")
            target[key] = value

    def add_items(self, _: object) -> None:
        self.pop_mark()
        if not isinstance(self._stack[-1], Opaque):
            self._refuse("items added to what is no set")

    def symbol(self, module: object, name: object) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            self._refuse("a name that is no string")
        found = Symbol(str(module), str(name))
        if found not in CALLABLE and (found.module, found.name) not in HARMLESS:
            whole = found.module == "__main__" or found.module.startswith(("torch.nn.", "__torch__"))
            problem = WHOLE_MODULE_ADVICE if whole else FOREIGN_NAME
            raise ModelFileError(self.where, problem, expected="tensors and plain containers", found=str(found))
        self._stack.append(found)

    def stack_symbol(self, _: object) -> None:
        name = self._stack.pop()
        self.symbol(self._stack.pop(), name)

    def persistent(self, _: object) -> None:
        """('storage', class, key, device, count of elements, view of an old file)."""
        match self._stack.pop():
            case ("storage", Symbol("torch", str() as kind), str(key), str(), int(elements), *view) if (
                kind in STORAGE_DTYPES and elements >= 0 and view in ([], [None])
            ):
                self._stack.append(StorageRef(STORAGE_DTYPES[kind], key, elements))
            case _:
                self._refuse("a persistent id that is no storage")

    def call(self, _: object) -> None:
        arguments = self._stack.pop()
        function = self._stack.pop()
        if not isinstance(function, Symbol) or not isinstance(arguments, tuple):
            self._refuse("a call of what is no name")
        self._stack.append(self._called(function, arguments))

    def build(self, _: object) -> None:
        """State of an object: only the attributes of an OrderedDict (`_metadata`) and of what is opaque, neither
        needed.
        """
        self._stack.pop()
        if not isinstance(self._stack[-1], dict | Opaque):
            self._refuse(f"state set on {brief(self._stack[-1])}")

    def _called(self, function: Symbol, arguments: tuple[Any, ...]) -> Any:
        if function in (TENSOR_V2, TENSOR_V1):
            return self._tensor(arguments)
        if function in (PARAMETER, PARAMETER_WITH_STATE):
            if not arguments or not isinstance(arguments[0], TensorRef | Opaque):
                self._refuse("a parameter without a tensor")
            return arguments[0]
        if function != ORDERED_DICT:
            return Opaque(str(function))
        pairs = arguments[0] if arguments else []
        if not isinstance(pairs, list) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
            self._refuse("an OrderedDict of something else than pairs")
        ordered: dict[Any, Any] = {}
        self._stack.append(ordered)
        self.set_items([member for pair in pairs for member in pair])
        self._stack.pop()
        return ordered

    def _tensor(self, arguments: tuple[Any, ...]) -> TensorRef:
        match arguments:
            case (StorageRef() as storage, int(offset), tuple(shape), tuple(strides), *_) if len(shape) == len(
                strides
            ) and all(type(size) is int for size in shape + strides):
                return TensorRef(storage, offset, shape, strides)
        raise ModelFileError(
            self.where, "refused pickle", expected="a strided tensor", found="a tensor of odd arguments"
        )

    def pop_mark(self) -> list[Any]:
        values = self._stack
        self._stack = self._marked.pop()
        return values

    def pop_one(self) -> list[Any]:
        return [self._stack.pop()]

    def pop_two(self) -> list[Any]:
        value = self._stack.pop()
        return [self._stack.pop(), value]

    def _refuse(self, found: str) -> NoReturn:
        raise ModelFileError(self.where, "refused pickle", expected="the pickle of a state_dict", found=found)


_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERALS = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    )
)
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.put,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_SET": lambda machine, _: machine.push(Opaque("set")),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_mark())),
    "LIST": lambda machine, _: machine.push(machine.pop_mark()),
    "DICT": lambda machine, _: machine.dictionary(),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "APPEND": lambda machine, _: machine.append(machine.pop_one()),
    "APPENDS": lambda machine, _: machine.append(machine.pop_mark()),
    "SETITEM": lambda machine, _: machine.set_items(machine.pop_two()),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_mark()),
    "ADDITEMS": _Machine.add_items,
    "GLOBAL": lambda machine, names: machine.symbol(*names.split(" ", 1)),
    "STACK_GLOBAL": _Machine.stack_symbol,
    "BINPERSID": _Machine.persistent,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,
    "BUILD": _Machine.build,
}
