"""Fill in templates of prompts and responses, such as "Question: {question}"."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from string import Formatter

from unipeft_run.config.messages import unknown_choice
from unipeft_run.errors import UserError


@dataclass(frozen=True)
class Template:
    """A text with fields in braces; `{{` and `}}` are braces. `key` names it in messages.

    Values are inserted as they are: braces in them have no meaning.
    """

    text: str
    key: str

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the fields, in order."""
        return tuple(name for _, name in self._parts if name is not None)

    def check(self, known: Collection[str]) -> None:
        """Raise `UserError` for a field that is not `known`."""
        for name in self.fields:
            if name not in known:
                raise UserError(unknown_choice(f"{self.key}: field", name, sorted(known)))

    def fill(self, values: Mapping[str, Sequence[str]]) -> list[str]:
        """Return the text of every example; `values` holds a text per example for each field."""
        count = len(next(iter(values.values())))
        return [
            self.fill_one({name: values[name][i] for name in self.fields}) for i in range(count)
        ]

    def fill_one(self, values: Mapping[str, str]) -> str:
        """Return the text of one example."""
        parts = ((text, "" if name is None else values[name]) for text, name in self._parts)
        return "".join(piece for part in parts for piece in part)

    def map_literals(self, change: Callable[[str], str]) -> Template:
        """Return this template with `change` applied to the text around the fields."""
        parts = [
            change(text).replace("{", "{{").replace("}", "}}") + (f"{{{name}}}" if name else "")
            for text, name in self._parts
        ]
        return Template("".join(parts), self.key)

    @property
    def literals(self) -> tuple[str, ...]:
        """The texts around the fields."""
        return tuple(text for text, _ in self._parts)

    @cached_property
    def _parts(self) -> list[tuple[str, str | None]]:
        """The literal texts, each with the field that follows it. Raises `UserError`."""
        try:
            parsed = list(Formatter().parse(self.text))
        except ValueError as error:
            raise UserError(f"{self.key}: {error}; write {{{{ and }}}} for braces") from None
        for _, name, spec, conversion in parsed:
            if name == "" or spec or conversion:
                shown = f"{{{name or ''}{'!' + conversion if conversion else ''}...}}"
                raise UserError(f"{self.key}: {shown} is not a field; write a name, as in {{text}}")
        return [(text, name) for text, name, _, _ in parsed]
