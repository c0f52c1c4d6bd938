"""Configurations: frozen dataclasses, read from and written to the JSON files of Diffusers and Transformers.

`read_table` checks a file against the fields of a dataclass. Recipes are read with it, too.
"""

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, ClassVar, Self, TypeVar, get_args, get_origin, get_type_hints

from sdlearn.files import shown

Table = TypeVar("Table")
MOST, MOST_LAYERS = 10**8, 256  # of a width, a number of steps and so on; of layers


@dataclass(frozen=True)
class Config:
    """Base of all configurations.

    A subclass lists in `neutral` the keys that it has no field for, each with the values at which they change nothing.
    `...` stands for "any value". Any other key is accepted only if it is switched off (None or False).
    """

    class_name: ClassVar[str] = ""
    neutral: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], file: str = "config.json") -> Self:
        """Read a configuration; `file` is named in errors.

        Raises:
            ValueError: a value changes the computation in a way that is not supported; names file, key and value.
        """
        known = {field.name for field in fields(cls)}
        for key, value in values.items():
            if key in known or key.startswith("_"):
                continue
            accepted = cls.neutral.get(key, (None, False))
            if accepted is not ... and value not in accepted:
                choices = " or ".join(repr(choice) for choice in accepted)
                raise ValueError(f"{file}: {shown(key)} = {shown(repr(value))} is not supported; accepted: {choices}")
        return read_table(cls, {key: value for key, value in values.items() if key in known}, file)

    def to_dict(self) -> dict[str, Any]:
        """The content of the JSON file, tuples as lists."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
        return {"_class_name": self.class_name, **values} if self.class_name else values


def read_table(kind: type[Table], values: Mapping[str, Any], file: str) -> Table:
    """A dataclass from a table in a file. Its fields define the keys and their types.

    Lists become tuples, and a table inside becomes the dataclass that the field names.

    Raises:
        ValueError: a key is missing or unknown, or a value has the wrong type or is out of range; names file, key and
        value.
    """
    declared = get_type_hints(kind)
    hints = {field.name: declared[field.name] for field in fields(kind)}
    needed = [field.name for field in fields(kind) if field.default is field.default_factory is MISSING]
    if missing := [key for key in needed if key not in values]:
        raise ValueError(f"{file} lacks {', '.join(missing)}")
    taken = {}
    for key, value in values.items():
        if key not in hints:
            raise ValueError(f"{file}: {shown(key)} = {shown(repr(value))} is unknown; accepted: {', '.join(hints)}")
        value = tuple(value) if isinstance(value, list) else value
        inner = next((one for one in get_args(hints[key]) or (hints[key],) if is_dataclass(one)), None)
        if inner is not None and isinstance(value, Mapping):
            value = read_table(inner, value, f"{file}: {key}")
        if not fits(value, hints[key]):
            raise ValueError(f"{file}: {key} = {shown(repr(value))} is not supported; accepted: {describe(hints[key])}")
        taken[key] = value
    try:
        return kind(**taken)
    except ValueError as error:  # out of range
        raise ValueError(f"{file}: {error}") from error


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a field's type. Whole numbers count as numbers; True, NaN and infinity don't.

    Nor do whole numbers that need more than 64 bits, which JSON and TOML can hold.
    """
    if isinstance(hint, UnionType):
        return any(fits(value, one) for one in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(fits(one, get_args(hint)[0]) for one in value)
    if type(value) is int and abs(value) >= 2**63:
        return False
    if hint is float:
        return type(value) is int or (type(value) is float and math.isfinite(value))
    return type(value) is hint


NAMES = {int: "whole numbers", float: "finite numbers", bool: "True or False", str: "texts", NoneType: "None"}


def describe(hint: Any) -> str:
    """A field's type, in words."""
    if isinstance(hint, UnionType):
        return " or ".join(describe(one) for one in get_args(hint))
    if get_origin(hint) is tuple:
        return f"lists of {describe(get_args(hint)[0])}"
    return NAMES.get(hint, "a table")


def is_count(value: Any, least: int = 1, most: float = math.inf) -> bool:
    """Whether it is a whole number in this range. True and 2.0 don't count, though Python treats True as an int."""
    return type(value) is int and least <= value <= most


def check_count(name: str, value: Any, least: int = 1, most: int | None = None) -> None:
    """Raises ValueError unless the value is a whole number of at least `least`, and at most `most`."""
    if not is_count(value, least, math.inf if most is None else most):
        accepted = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} = {value!r}, must be a whole number {accepted}")


def check_groups(config: Any) -> None:
    """Raises ValueError unless norm_num_groups divides each of block_out_channels, all whole numbers above 0."""
    check_counts(config, "block_out_channels", "norm_num_groups")
    for width in config.block_out_channels:
        if width % config.norm_num_groups:
            raise ValueError(f"norm_num_groups = {config.norm_num_groups} does not divide {width} channels")


def check_counts(config: Any, *keys: str) -> None:
    """Raises ValueError unless these fields hold whole numbers above 0: one each, or a tuple with at least one.

    There are limits far above what exists, so that no file makes a program build networks for hours.
    """
    for key in keys:
        most = MOST_LAYERS if "layers" in key else MOST
        value = getattr(config, key)
        values = value if isinstance(value, tuple) and value else (value,)
        if not all(is_count(one, 1, most) for one in values) or len(values) > MOST_LAYERS:
            raise ValueError(
                f"{key} = {shown(repr(value))} is not supported; accepted: whole numbers above 0, at most {most}"
            )
