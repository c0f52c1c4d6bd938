"""Configurations: frozen dataclasses, read from and written to the JSON files of Diffusers and Transformers."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self


@dataclass(frozen=True)
class Config:
    """Base of all configurations.

    A subclass lists in `neutral` the keys that it has no field for, each with the values at which they change nothing.
    `...` stands for "any value". A key that is unknown to both passes only if it is switched off (None or False).
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
                raise ValueError(f"{file}: {key} = {value!r} is not supported, only {choices}")
        taken = {key: value for key, value in values.items() if key in known}
        taken = {key: tuple(value) if isinstance(value, list) else value for key, value in taken.items()}
        try:
            return cls(**taken)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{file}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """The content of the JSON file, tuples as lists."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
        return {"_class_name": self.class_name, **values} if self.class_name else values
