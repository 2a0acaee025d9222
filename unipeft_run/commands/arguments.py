"""The grammar of command lines: positional runs, `--key value` or `key=value`, and flags."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from unipeft_run.commands.completion_table import CONFIGURED
from unipeft_run.errors import UserError
from unipeft_run.runs.printable import printable
from unipeft_run.runs.search import find_run

EVERYWHERE = """\
in every command:
  --config-dir DIR  add the YAML groups and classes of DIR: docs/extending.md
  --version         print the version
  -h, --help        print this help"""
ALLOW_HELP = "trust the classes in a stored run whose names start with PREFIX"


def expand_path(text: str) -> Path:
    """Return the path of an argument; ~ is the home folder also in `--out=~/DIR`."""
    return Path(os.path.expanduser(text))


class Parser(argparse.ArgumentParser):
    """A parser that raises UserError, and reads an option's `key=value` as `--key value`."""

    def __init__(self, command: str, description: str, examples: str = "") -> None:
        super().__init__(
            f"unipeft {command}",
            description=description,
            epilog="\n\n".join(filter(None, (examples, EVERYWHERE))),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            add_help=False,
        )
        self.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)
        self._runs = ""
        self._takes_filters = False

    def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
        """Add an argument; argparse would count one with nargs="*" as required."""
        action = super().add_argument(*names, **settings)
        if action.nargs == "*":
            action.required = False
        return action

    def add_runs(self, name: str, nargs: str | None = None, *, filters: bool = False) -> None:
        """Add positional runs: folders, or ids, which `parse` turns into their folders.

        `filters`: `key=value` words are allowed among them; `parse` separates them.
        """
        text = (
            "runs, by folder or id, or folders that contain runs"
            if nargs
            else "a run, by folder or id"
        )
        metavar = "FOLDER | RUN" if nargs else "RUN"
        if filters:
            metavar, text = f"{metavar} | key=value", f"{text}; only runs with key=value count"
        self.add_argument(name, nargs=nargs, metavar=metavar, help=text)  # type: ignore[arg-type]
        self._runs, self._takes_filters = name, filters

    def add_allow(self) -> None:
        """Add `--allow PREFIX`, which may be repeated."""
        self.add_argument(
            "--allow", nargs=1, action="extend", default=[], metavar="PREFIX", help=ALLOW_HELP
        )

    def add_format(self, *choices: str) -> None:
        """Add `--format`; the first choice is the default."""
        self.add_argument(
            "--format", choices=choices, default=choices[0], help="default: %(default)s"
        )

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse a command line; options may appear anywhere. Raises UserError."""
        words = [word for argument in argv for word in self._as_option(argument)]
        for word in words:  # before argparse asks for missing arguments
            if len(word) > 1 and word.startswith("-"):
                self._check_flag(word, words)
        args, unknown = self.parse_known_intermixed_args(words)
        if unknown:
            raise UserError(f"{printable(unknown[0])}: unexpected argument; see {self.prog} --help")
        if self._runs:
            given = getattr(args, self._runs)
            if self._takes_filters:
                given, args.filters = split_overrides(given)
            found = [find_run(run) for run in given] if isinstance(given, list) else find_run(given)
            setattr(args, self._runs, found)
        return args

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{printable(message)}; see {self.prog} --help")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            from unipeft_run.config.messages import unknown_choice  # costs half a second

            key = action.dest if action.option_strings else ""
            raise UserError(unknown_choice(key, value, action.choices))

    def _check_flag(self, word: str, words: Sequence[str]) -> None:
        flag = word.partition("=")[0]
        if flag in self._option_string_actions:
            return
        near = get_close_matches(flag, self._option_string_actions, n=1)
        hint = f"did you mean {near[0]}?" if near else f"see {self.prog} --help"
        command = self.prog.removeprefix("unipeft ").split()
        if any(name.split()[: len(command)] == command for name in CONFIGURED):
            from unipeft_run.commands.flags import find_override  # costs half a second

            override = find_override(word, words)
            hint = f"write {override}" if override else hint
        raise UserError(f"there is no option {printable(flag)}; {hint}")

    def _as_option(self, word: str) -> Iterator[str]:
        key, equals, value = word.partition("=")
        action = self._option_string_actions.get(f"--{key}") if equals else None
        if action is None or action.nargs == 0 or os.path.isdir(word):
            yield word
        elif not value:
            raise UserError(f"{key}=: no value given; write {key}=...")
        elif isinstance(action.default, list):
            yield from (f"--{key}={part}" for part in split_list(value))
        else:
            yield f"--{key}={value}"


def split_list(value: str) -> list[str]:
    """Split a list as Hydra writes it: [a,b], or a single value."""
    return [part.strip() for part in value.strip().strip("[]").split(",") if part.strip()]


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate positional words from `key=value`; an existing folder is never an override."""
    overrides = [word for word in words if "=" in word and not os.path.isdir(word)]
    return [word for word in words if word not in overrides], overrides


def parse_overrides(words: Sequence[str]) -> dict[str, Any]:
    """Parse `key=value` words; values are typed as in YAML. Raises UserError for any other word."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    overrides = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not key or not equals:
            raise UserError(f"{printable(word)} is not understood; overrides look like key=value")
        try:
            value: Any = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))
        except YAMLError:
            raise UserError(f"{printable(word, 120)}: the value is not YAML; quote it") from None
        except (OmegaConfBaseException, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{printable(word)}: {printable(reason, 120)}") from None
        overrides[key] = value["value"]
    return overrides


def as_json(data: Any) -> str:
    """Write plain data as JSON, as every `--format json` does."""
    import json

    return json.dumps(data, indent=2)
