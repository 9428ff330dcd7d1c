"""List what there is: tasks, networks, learners, configs, ...; or one of them with its fields.

  metalearn list learners            every entry with its first line
  metalearn list learners maml       its docstring and its fields: the keys of config.learner
  metalearn list configs gpicl       a config's header: its arguments and what they take
"""

import ast
import inspect

from metalearn import cli, lookup
from metalearn.datasets import catalogue, made_or_listed
from metalearn.runtime import config as config_lib
from metalearn.validate import nearest, one_of, require

KINDS = (*lookup.KINDS, "datasets", "configs")


def entries(kind: str) -> dict[str, str]:
    """{name: what its file or the catalogue says of it} of one kind."""
    if kind == "configs":
        docs = {name: open(path, encoding="utf-8").read() for name, path in config_lib.built_in().items()}
        return {name: ast.get_docstring(ast.parse(text)) or "" for name, text in docs.items()}
    if kind == "datasets":
        known = catalogue.entries()
        text = lambda one: f"{one['licence']}; {one['home']}" + (f"; mind: {one['trap']}" if "trap" in one else "")
        return {name: text(known[name]) if name in known else "built in" for name in made_or_listed()}
    return {name: inspect.getdoc(lookup.module(kind, name)) or "" for name in lookup.names(kind)}


def fields(kind: str, name: str) -> str:
    """The docstring of an entry's `make`, and its keywords with their types: what the config's block holds."""
    make = lookup.module(kind, name).make
    known = [p for p in inspect.signature(make).parameters.values() if p.kind is p.KEYWORD_ONLY]
    types = [f"  {p.name}: {inspect.formatannotation(p.annotation)}" for p in known]
    return "\n".join([inspect.getdoc(make) or "", "", "fields:", *types]).strip()


def main() -> int:
    parser = cli.Parser(__doc__, prog="metalearn list")
    parser.add_argument("kind", nargs="?", default="", help=", ".join(KINDS))
    parser.add_argument("name", nargs="?", default="", help="one of them, in full")
    args = parser.parse()
    if not args.kind:
        print("\n".join(cli.entry(kind, ", ".join(entries(kind))) for kind in KINDS))
        return 0
    one_of(KINDS, kind=args.kind)
    found = entries(args.kind)
    if not args.name:
        for name, doc in found.items():
            print(cli.entry(name, "".join(doc.splitlines()[:1])))
        return 0
    require(args.name in found, "name", args.name, f"one of {', '.join(found)}{nearest(args.name, found)}")
    print(found[args.name])
    if args.kind in lookup.KINDS:
        print("\n" + fields(args.kind, args.name))
    return 0


if __name__ == "__main__":
    cli.main(main)
