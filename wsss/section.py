"""What all sections of the config are: frozen groups of keys."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, model_validator


class Section(BaseModel):
    """A frozen group of keys. Unknown keys, NaN and infinity are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _no_bool_for_other_types(cls, keys: Any) -> Any:
        """Refuse true and false where a number or a text is expected: pydantic would take them as 1 and 0."""
        for key, value in keys.items() if isinstance(keys, dict) else ():
            field = cls.model_fields.get(key)
            if (
                isinstance(value, bool)
                and field is not None
                and bool not in (field.annotation, *get_args(field.annotation))
            ):
                raise ValueError(
                    f"{key} must not be true or false (YAML reads yes, no, on and off as these), got {value}"
                )
        return keys
