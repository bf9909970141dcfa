"""What a configuration section is, and what a setting of it knows about itself."""

from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError(TEXT)
    return text


TEXT = "a text that is not empty"
Text = Annotated[str, AfterValidator(_not_blank)]


class Section(BaseModel):
    """A table of the configuration file: frozen, unknown keys refused, no conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())


def setting(
    default: object,
    text: str,
    *,
    low: float | None = None,
    high: float | None = None,
    expected: str | None = None,
    example: object = None,
) -> Any:
    """A field of a section.

    `text` is the sentence that documents it; `expected` says what it accepts where the type doesn't; `example` is
    shown for a setting that has no default.
    """
    extra: dict[str, Any] = {"expected": expected, "example": example}
    return Field(default, ge=low, le=high, description=text, json_schema_extra=extra)


def table_of(field: FieldInfo) -> type[Section] | None:
    """The section class of a field that is a table of its own, such as `kafka.security`; None for a setting."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def plain_type(field: FieldInfo) -> object:
    """The type of a setting without its `| None`."""
    kind: object = field.annotation
    if get_origin(kind) in (Union, UnionType):
        kind = next(part for part in get_args(kind) if part is not type(None))
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def example(field: FieldInfo) -> object:
    """The value shown for a setting without a default."""
    return _extra(field, "example")


def expected(field: FieldInfo) -> str:
    """What a setting accepts, in words: for error messages and for the comments of the shipped file."""
    said = _extra(field, "expected")
    if said:
        return str(said)
    kind = plain_type(field)
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(str(choice) for choice in get_args(kind))
    if kind is bool:
        return "true or false"
    if kind in (int, float):
        return _expected_number("an integer" if kind is int else "a number", field)
    return "a list of texts" if get_origin(kind) is tuple else TEXT


def _expected_number(what: str, field: FieldInfo) -> str:
    low = next((rule.ge for rule in field.metadata if hasattr(rule, "ge")), None)
    high = next((rule.le for rule in field.metadata if hasattr(rule, "le")), None)
    if low is not None and high is not None:
        return f"{what} from {low} to {high}"
    return f"{what}, at least {low}" if low is not None else what


def _extra(field: FieldInfo, name: str) -> object:
    extra = field.json_schema_extra
    return extra.get(name) if isinstance(extra, dict) else None
