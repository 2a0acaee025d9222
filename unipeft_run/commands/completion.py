"""unipeft completion: print or install the script that completes command lines in a shell."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unipeft_run.commands.arguments import Parser
from unipeft_run.commands.dispatch import ALIAS, COMMANDS
from unipeft_run.commands.entry import entry
from unipeft_run.errors import UserError

SCRIPTS = Path(__file__).parent / "templates" / "completion"
NAMES = "$names"  # placeholder in a script for the commands to complete
HELP = """\
Print the script that completes commands, options, groups and their choices, keys and run ids in a
shell; with --install, write it to a file that new shells load."""
EXAMPLES = """\
unipeft completion bash --install     then open a new shell
source <(unipeft completion bash)     for this shell only"""


@dataclass(frozen=True)
class Shell:
    """The places of a shell's completion script and start-up file, below a folder in a variable."""

    folder: tuple[str, str]  # variable, and its default below the home folder
    script: str
    startup: tuple[str, str, str] | None = None  # the same for its start-up file, and that file


DATA = ("XDG_DATA_HOME", ".local/share")
SHELLS = {
    "bash": Shell(DATA, "unipeft/completion.bash", ("HOME", "", ".bashrc")),
    "zsh": Shell(DATA, "unipeft/completion.zsh", ("ZDOTDIR", "", ".zshrc")),
    "fish": Shell(("XDG_CONFIG_HOME", ".config"), "fish/completions/unipeft.fish"),
}


@entry
def main(argv: Sequence[str]) -> int:
    """Print or install a completion script; return the exit code."""
    parser = Parser("completion", HELP, EXAMPLES)
    parser.add_argument(
        "shell",
        nargs="?",
        choices=tuple(SHELLS),
        metavar="|".join(SHELLS),
        help="default: your shell",
    )
    parser.add_argument(
        "--install", action="store_true", help="write the script to a file that new shells load"
    )
    args = parser.parse(argv)
    name = args.shell or Path(os.environ.get("SHELL", "bash")).name
    if name not in SHELLS:
        raise UserError(f"your shell is {name}; choose from {', '.join(SHELLS)}")
    if args.install:
        install(name)
    else:
        print(script(name), end="")
    return 0


def script(shell: str) -> str:
    """Return the completion script of a shell, for `unipeft` and its aliases."""
    names = " ".join(["unipeft", *(f"{ALIAS}{name}" for name in COMMANDS)])
    return (SCRIPTS / shell).read_text(encoding="utf-8").replace(NAMES, names)


def install(name: str) -> None:
    """Write the script, make the shell's start-up file load it, and print the files changed."""
    shell = SHELLS[name]
    file = _folder(*shell.folder) / shell.script
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(script(name), encoding="utf-8")
        print(f"wrote {file}")
        if shell.startup:
            _load_in(_folder(*shell.startup[:2]) / shell.startup[2], file)
    except OSError as error:
        raise UserError(f"{error.filename} cannot be written: {error.strerror}") from error
    print(f"open a new shell, or load it in this one: source {file}")


def _folder(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / default)


def _load_in(startup: Path, file: Path) -> None:
    """Append a line that loads `file`, unless the start-up file has it already."""
    line = f'source "{file}"  # completion of unipeft'
    text = startup.read_text(encoding="utf-8") if startup.exists() else ""
    if line in text.splitlines():
        return
    with startup.open("a", encoding="utf-8") as out:
        out.write(f"{'' if not text or text.endswith(chr(10)) else chr(10)}{line}\n")
    print(f"added a line to {startup}")
