"""``policies``: the unmasking rules that there are, ours and those of installed packages."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studies.cli import printing
from studies.cli.guard import command

if TYPE_CHECKING:
    from verify.policies.contract import Policy
    from verify.policies.rule import Rule


@command()
def policies_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """List the unmasking rules: how each is written, its parameters, what it reads, where it comes from."""
    from verify.policies.registry import PolicyPluginWarning, registered_rules, unusable_plugins

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PolicyPluginWarning)  # said below, in our own words
        rules = [_described(rule) for rule in registered_rules().values()]
    if as_json:
        typer.echo(json.dumps(rules, indent=2))
    else:
        _show(rules)
    for sentence in unusable_plugins():
        printing.complain(printing.yellow("note: "), sentence)


def _described(rule: Rule) -> dict[str, Any]:
    """A rule as plain JSON values; what it reads is asked of the policies that its examples make."""
    from verify.policies.specification import make_policy

    facts: dict[str, Any] = {
        "name": rule.name,
        "form": rule.form,
        "summary": rule.summary,
        "parameters": [
            {
                "name": one.name,
                "range": one.range,
                "required": one.required,
                "default": None if one.required else one.write(one.default),
            }
            for one in rule.parameters
        ],
        "examples": list(rule.examples),
    }
    try:
        made = [make_policy(example) for example in rule.examples]
    except Exception as error:  # a package's own code; the other rules are listed all the same
        facts |= {"reads": None, "error": f"{type(error).__name__}: {error}"}
    else:
        facts |= {
            "reads": list(dict.fromkeys(map(_reading, made))),
            "may_do_nothing": any(policy.may_do_nothing for policy in made),
            "monotone": all(policy.monotone for policy in made),
        }
    return facts | {
        "exact": rule.exact,
        "stands_for": rule.stands_for or None,
        "source": rule.source,
        "distribution": rule.distribution or None,
    }


def _reading(policy: Policy) -> str:
    if policy.needs == "ranks":
        return "best token" if policy.ranks == 1 else f"best {policy.ranks} tokens"
    return policy.needs


def _show(rules: list[dict[str, Any]]) -> None:
    table = printing.plain_table(
        "Unmasking rules",
        dict.fromkeys(("policy, and what it commits", "parameters", "reads", "exact", "source"), "left"),
        "exact: commits what its source commits, given the same distributions. Drafts change no token under any rule.",
    )
    for rule in rules:
        if rule["stands_for"] is None:
            reads = "cannot be made" if rule["reads"] is None else ", ".join(rule["reads"])
            source = rule["source"] + (f" [{rule['distribution']}]" if rule["distribution"] else "")
            exact = "yes" if rule["exact"] else "no"
            table.add_row(f"{rule['form']}\n{rule['summary']}", _parameters(rule), reads, exact, source)
    printing.show(table)
    names = printing.plain_table("Names of published loops", {"policy": "left", "stored as": "left", "what": "left"})
    for rule in rules:
        if rule["stands_for"] is not None:
            names.add_row(rule["form"], rule["stands_for"], rule["summary"])
    printing.show(names)
    printing.say("Behind any of them: @temperature=T, perhaps with top_p=P and top_k=K, for example")
    printing.say("static:1@temperature=0.7,top_p=0.9. Drawing tokens reads logits.")
    printing.say("More on each: docs/rules.md.")


def _default(parameter: dict[str, Any]) -> str:
    return "may be left out" if parameter["default"] is None else f"default {parameter['default']}"


def _parameters(rule: dict[str, Any]) -> str:
    lines = [
        f"{one['name']}: {one['range']}" + ("" if one["required"] else f", {_default(one)}")
        for one in rule["parameters"]
    ]
    return "\n".join(lines) or "none"
