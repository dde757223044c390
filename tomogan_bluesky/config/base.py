"""What all settings have in common: frozen, no unknown names, errors that name the setting."""

from collections.abc import Iterator
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args

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
        problems = "; ".join(_in_words(problem, model) for problem in error.errors())
        raise ConfigurationError(f"{where}: {problems}") from error


def _in_words(problem: "ErrorDetails", model: type[BaseModel]) -> str:
    setting = ".".join(map(str, problem["loc"])) or "all"
    if problem["type"] == "value_error":  # one of ours, which says what it got
        return f"{setting}: {problem['ctx']['error']}"
    if problem["type"] == "missing":
        return f"{setting}: expected it to be given, and it is missing"
    if problem["type"] == "extra_forbidden":
        return f"{setting}: there is no such setting{_meant(setting, model)}"
    return f"{setting}: {problem['msg']}, got {problem['input']!r}"


def _meant(setting: str, model: type[BaseModel]) -> str:
    """A question after the setting of this name elsewhere, or after one of nearly this name."""
    there_are = list(_settings_of(model))
    name = setting.rpartition(".")[2]
    elsewhere = [known for known in there_are if known.rpartition(".")[2] == name]
    found = elsewhere or get_close_matches(setting, there_are, 1)
    return f"; did you mean {found[0]}?" if found else ""


def _settings_of(model: type[BaseModel], above: str = "") -> Iterator[str]:
    """Names of all settings, with those that they are part of in front."""
    for name, field in model.model_fields.items():
        yield above + name
        for inner in _models_in(field.annotation):
            yield from _settings_of(inner, f"{above}{name}.")


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]
