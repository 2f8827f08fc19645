#!/usr/bin/env python3
"""What Jinja2 and Ansible make of each snippet: `make dialects` runs it with the pinned packages.

Reads tests/dialects/templates/{context.json,*.txt} and writes tests/dialects/templates.json: for each snippet its text in
Jinja2 where that renders it, and in Ansible where that is another text. Both null: both refuse it.
"""
import json
import os
import pathlib
import re
import sys

os.environ["ANSIBLE_DEVEL_WARNING"] = "0"
os.environ["ANSIBLE_DEPRECATION_WARNINGS"] = "0"

HERE = pathlib.Path(__file__).parent
# The text of an object is where it lies in memory, not something that two runs share.
UNSTABLE = re.compile(r" at 0x[0-9a-f]+")


def jinja():
    import jinja2

    env = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)

    def render(text, context):
        return env.from_string(text).render(**context)

    return render


def ansible():
    from ansible.parsing.dataloader import DataLoader
    from ansible.template import Templar, trust_as_template

    loader = DataLoader()

    def render(text, context):
        templar = Templar(loader=loader, variables=context)
        # As in files of the module `template`: a \\ is written once.
        return str(templar.template(trust_as_template(text), escape_backslashes=False))

    return render


def outcome(render, text, context):
    try:
        made = render(text, json.loads(json.dumps(context)))
    except Exception:  # Whatever it is, the engine refuses the snippet.
        return None
    try:
        made.encode()
    except UnicodeEncodeError:  # Half characters, which stand for bytes that are no text.
        return None
    return None if UNSTABLE.search(made) else made


def snippets():
    """One file for each theme; snippets are separated by lines that hold --- only."""
    seen = {}
    for path in sorted((HERE / "templates").glob("*.txt")):
        for snippet in path.read_text().removesuffix("\n---\n").split("\n---\n"):
            seen.setdefault(snippet, None)
    return list(seen)


def main():
    context = json.loads((HERE / "templates" / "context.json").read_text())
    engines = [jinja(), ansible()]
    table = []
    for snippet in snippets():
        plain, other = (outcome(engine, snippet, context) for engine in engines)
        row = {"template": snippet, "jinja2": plain}
        if other != plain:
            row["ansible"] = other
        table.append(row)
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in table)
    (HERE / "templates.json").write_text(f"[\n{lines}\n]\n")
    print(f"{len(table)} snippets", file=sys.stderr)


main()
