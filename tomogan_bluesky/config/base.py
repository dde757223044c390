"""What all settings have in common: frozen, no unknown names, errors that name the setting."""

from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

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
        problems = "; ".join(map(_in_words, error.errors()))
        raise ConfigurationError(f"{where}: {problems}") from error


def _in_words(problem: "ErrorDetails") -> str:
    setting = ".".join(map(str, problem["loc"])) or "all"
    if problem["type"] == "value_error":  # one of ours, which says what it got
        return f"{setting}: {problem['ctx']['error']}"
    return f"{setting}: {problem['msg']}, got {problem['input']!r}"
