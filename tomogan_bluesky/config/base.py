"""What all settings have in common: frozen, no unknown names, errors that name the setting."""

from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from ..errors import ConfigurationError

Model = TypeVar("Model", bound=BaseModel)


class Config(BaseModel):
    """Base of all settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _in_order(rows: tuple[int, int]) -> tuple[int, int]:
    if not 0 <= rows[0] < rows[1]:
        raise ValueError(f"expected 0 <= first < last (last not included), got {rows}")
    return rows


Rows = Annotated[tuple[int, int], AfterValidator(_in_order)]
"""Detector rows [first, last)."""


def checked(model: type[Model], content: Any, where: str) -> Model:
    """Settings from plain data, with errors that name the setting.

    Raises
    ------
    ConfigurationError
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'all'}: {problem['msg']}, got "
            f"{problem['input']!r}"
            for problem in error.errors()
        )
        raise ConfigurationError(f"{where}: {problems}") from error
