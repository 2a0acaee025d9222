"""unipeft new: write a working skeleton of an extension, with its YAML files and a test.

The skeletons are the files of templates/KIND/, or templates/task/TYPE/ for tasks, where NAME,
`$name`, `$Class`, ... are replaced.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import keyword
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from string import Template

import yaml

from unipeft_run.backbones.families import FAMILIES, model_types
from unipeft_run.commands.arguments import Parser
from unipeft_run.commands.entry import entry
from unipeft_run.config.messages import options
from unipeft_run.errors import UserError
from unipeft_run.extensions import conf_dir, extended_by

TEMPLATES = Path(__file__).parent / "templates"
TRAIN = "unipeft train scale=mini debug=tiny"
NEXT = {  # kind -> a command that uses the skeleton
    "form": f"{TRAIN} task=sst2 method=parallel_ffn form@ffn=$name",
    "composition": f"{TRAIN} task=sst2 method=parallel_ffn composition@ffn=$name",
    "method": f"{TRAIN} task=sst2 method=$name",
    "task": f"{TRAIN} task=$name method=lora_attn task.path=$dir/data/$name",
    "backbone": "unipeft params task=$task method=mam backbone=$name",
}
TASKS = {  # type of task -> a task for a backbone
    "seq2seq": "xsum",
    "classification": "sst2",
    "causal": "commonsense",
    "image_classification": "cifar100",
    "retrieval": "didemo",
}
TASK_TYPES = ("classification", "seq2seq", "causal")  # with a skeleton
NOT_NAMES = ("null", "true", "false", "nan", "inf")
TASK_OF_FAMILY = {"mbart": "wmt16_en_ro"}
HELP = "Write a working skeleton of a form, composition, method, task or backbone, with a test."
EXAMPLES = """\
unipeft new form gate                              writes extension/form/gate.py, gate.yaml, a test
unipeft new method my_mam --dir my_lab
unipeft new task my_summaries --type seq2seq       a task from text to text
unipeft new backbone my_bart --path models/bart    a local Hugging Face model folder

Then use it in any command with --config-dir DIR: docs/extending.md"""


@entry
def main(argv: Sequence[str]) -> int:
    """Write a skeleton and print the next commands; return the exit code."""
    parser = Parser("new", HELP, EXAMPLES)
    add = parser.add_argument
    add("kind", choices=tuple(NEXT), metavar="|".join(NEXT), help="what to write")
    add("name", metavar="NAME", help="its name on the command line")
    add("--dir", default="extension", help="the extension folder (default: %(default)s)")
    add("--type", choices=TASK_TYPES, metavar="TYPE",
        help=f"of a task: {', '.join(TASK_TYPES)} (default: {TASK_TYPES[0]})")  # fmt: skip
    add("--path", metavar="DIR", help="of a backbone: a local model folder")
    add("--hub", metavar="ID", help="of a backbone: its id on the model hub")
    families = tuple(FAMILIES)
    add("--family", choices=families, metavar="NAME", help=f"on the hub: {', '.join(families)}")
    args = parser.parse(argv)
    _check_options(args)
    folder = Path(args.dir).expanduser()
    check_names(args.kind, args.name, folder)
    values = {"name": args.name, "Class": _class_name(args.name), "title": args.name}
    values |= {"package": folder.absolute().name, "dir": str(folder)}
    values |= _backbone_values(args.path, args.hub, args.family) if args.kind == "backbone" else {}
    top = TEMPLATES / args.kind
    top = top / (args.type or TASK_TYPES[0]) if args.kind == "task" else top
    _check_class(args.kind, args.name, dict(skeleton(top, folder, {**values, "Class": "_"})))
    write(skeleton(top, folder, values))
    if args.kind == "backbone" and not (args.path or args.hub):
        file = folder / "backbone" / f"{args.name}.yaml"
        print(f"{file} names a placeholder, {values['hub']}: replace its family, hub and path")
    test = folder / "tests" / f"test_{args.kind}_{args.name}.py"
    print(f"next:\n  python -m pytest {shlex.quote(str(test))}")
    words = [Template(word).substitute(values) for word in NEXT[args.kind].split()]
    print(f"  {shlex.join([*words, '--config-dir', str(folder)])}")
    return 0


def _check_options(args: argparse.Namespace) -> None:
    """Raise UserError for an option without effect."""
    if args.type and args.kind != "task":
        raise UserError(f"--type={args.type}: only a task has a type")
    for option in ("path", "hub", "family"):
        if (value := getattr(args, option)) and args.kind != "backbone":
            raise UserError(f"--{option}={value}: only a backbone has a {option}")
    if args.path and args.hub:
        raise UserError("give --path or --hub, not both")
    if args.path and args.family:
        raise UserError(
            f"--family={args.family}: with --path, the family is that of the folder's config.json; "
            "leave it out"
        )


def check_names(kind: str, name: str, folder: Path) -> None:
    """Raise UserError for a name or folder that is taken or cannot be imported."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise UserError(
            f"{kind} {name}: a name has lower-case letters, digits and _, as in my_{kind}"
        )
    if name in NOT_NAMES:
        raise UserError(f"{kind} {name}: Hydra reads {name} as a value; choose another name")
    if keyword.iskeyword(_class_name(name)):
        raise UserError(
            f"{kind} {name}: {_class_name(name)} is a word of Python; choose another name"
        )
    if name in options(kind):
        raise UserError(f"a {kind} named {name} already exists; choose another name")
    package = folder.absolute().name
    if not package.isidentifier() or keyword.iskeyword(package):
        raise UserError(
            f"--dir={folder}: classes are imported by the folder's name, so it must be a Python "
            "name: letters, digits and _"
        )
    if package in sys.stdlib_module_names or _is_elsewhere(package, folder):
        raise UserError(f"--dir={folder}: a Python module named {package} already exists")
    if folder.is_dir():
        with extended_by([str(folder)]):
            if name in options(kind):
                raise UserError(f"{folder} already has a {kind} named {name}; nothing was written")


def _check_class(kind: str, name: str, files: Mapping[Path, str]) -> None:
    """Raise UserError if the name of the class hides a name that the skeleton uses."""
    trees = [ast.parse(text) for path, text in files.items() if path.suffix == ".py"]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    used |= {node.name for node in nodes if isinstance(node, ast.alias)}
    if _class_name(name) in used:
        raise UserError(
            f"{kind} {name}: its class would hide the {_class_name(name)} that it needs; choose "
            f"another name, as in my_{name}"
        )


def _is_elsewhere(package: str, folder: Path) -> bool:
    """Return whether importing `package` would find another folder than `folder`."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        return False
    locations = [Path(place).resolve() for place in spec.submodule_search_locations or ()]
    return locations != [folder.resolve()]


def _class_name(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _backbone_values(path: str | None, hub: str | None, family: str | None) -> dict[str, str]:
    """Return the family, task and place of a backbone; by default, our first one of the family."""
    if path:
        family = _family_of(Path(path).expanduser())
    elif hub and not family:
        raise UserError(f"--hub={hub}: give its family too, --family {', '.join(FAMILIES)}")
    family = family or "roberta"
    task = TASK_OF_FAMILY.get(family) or TASKS[FAMILIES[family].task_type]
    values = {"family": family, "task": task, "hub": "null", "path": "null"}
    if path:
        return {**values, "path": json.dumps(str(Path(path).expanduser().absolute()))}
    return {**values, "hub": json.dumps(hub or _find_hub(family))}


def _find_hub(family: str) -> str:
    """Return the hub id of one of our backbones of `family`. Raises UserError if there is none."""
    for file in sorted((conf_dir() / "backbone").glob("*.yaml")):
        backbone = yaml.safe_load(file.read_text(encoding="utf-8"))
        if backbone["family"] == family and backbone["hub"]:
            return str(backbone["hub"])
    raise UserError(f"--family={family}: give its id on the model hub too, --hub ID, or --path DIR")


def _family_of(folder: Path) -> str:
    from unipeft_run.runs.reading import read_json

    if not (folder / "config.json").is_file():
        raise UserError(
            f"--path={folder}: there is no config.json; give a Hugging Face model folder"
        )
    config = read_json(folder / "config.json")
    for family in FAMILIES.values():
        if family.fits(config):
            return family.name
    raise UserError(
        f"--path={folder}: its model_type is {config.get('model_type')}; supported are "
        f"{', '.join(model_types())}"
    )


def skeleton(top: Path, folder: Path, values: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    """Yield the path and the content of each file of a skeleton; `top` holds its templates."""
    for template in sorted(top.rglob("*.in")):
        name = str(template.relative_to(top).with_suffix("")).replace("NAME", values["name"])
        yield folder / name, Template(template.read_text(encoding="utf-8")).substitute(values)


def write(files: Iterator[tuple[Path, str]]) -> None:
    """Write the files and print their names. Raises UserError if one of them exists."""
    contents = dict(files)
    if taken := [path for path in contents if path.exists()]:
        raise UserError(f"{taken[0]} already exists; nothing was written")
    try:
        for path, text in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
            print(f"wrote {path}")
    except OSError as error:
        raise UserError(f"{error.filename} cannot be written: {error.strerror}") from error
