# SPDX-License-Identifier: Apache-2.0
"""Whether a variable of an inventory leads to a lookup, which may run a command when Ansible does.

Ansible fills a variable in when something asks for it: its SSH plugin those that begin with
`ansible_`, hopbench's roles their own. What else an inventory has is nobody's concern here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

# Of variables that a deploy asks for.
_PREFIXES = ("ansible_", "hopbench_", "common_", "probe_", "data_", "egress_")
_MARKS = ("{{", "{%", "{#")
# What fetches values from elsewhere, and variables that are found by names made meanwhile.
_CALLS = re.compile(r"lookup|query|\bq\b")
_FORBIDDEN = frozenset({"lookup", "query", "q", "hostvars", "vars"})


def culprit(variables: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return (variable, what it leads to) of the first that is asked for and may run something."""
    for name in variables:
        if name.startswith(_PREFIXES) and (found := _found(name, variables)):
            return name, found
    return None


def _found(name: str, variables: Mapping[str, Any]) -> str:
    """Return what a variable leads to that is not allowed, or an empty string."""
    seen, waiting = {name}, [name]
    while waiting:
        for text in _texts(variables[waiting.pop()]):
            names = _names(text)
            if forbidden := sorted(names & _FORBIDDEN):
                return forbidden[0]
            fresh = {each for each in names if each in variables} - seen
            seen |= fresh
            waiting += fresh
    return ""


def _texts(value: Any) -> Iterator[str]:
    """Yield every template within a value."""
    stack = [value]
    while stack:
        each = stack.pop()
        if isinstance(each, str):
            if any(mark in each for mark in _MARKS):
                yield str(each)
        elif isinstance(each, Mapping):
            stack += [*each.keys(), *each.values()]
        elif isinstance(each, list | tuple):
            stack += each


def _names(text: str) -> set[str]:
    """Return the names that a template mentions, and a forbidden one for all that hides others."""
    from jinja2 import Environment, TemplateSyntaxError, nodes

    try:
        tree = Environment().parse(text)
    except TemplateSyntaxError:
        # With an extension of Jinja's it may be a template all the same.
        return {"lookup"} if _CALLS.search(text) else set()
    hidden = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
    if next(tree.find_all(hidden), None):
        return {"lookup"}
    return {each.name for each in tree.find_all(nodes.Name)}
