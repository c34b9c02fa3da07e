"""What a graph file says about worth and time: values per split, and the latency table of one device."""

from __future__ import annotations

from verify.files.strict_json import (
    MAX_INTEGER,
    Words,
    expect_field,
    expect_integer,
    expect_list,
    expect_number,
    expect_object,
    expect_plain,
    expect_text,
    fail,
    member,
)

#: What ``per_prompt`` holds: anchors visited and drafts accepted at them, of every prompt.
PER_PROMPT = ("anchors", "accepted_drafts")


def check_values(value: object, nodes: int) -> None:
    """Check what a graph of ``nodes`` nodes is worth, per split: free fields, of which some have a fixed form.

    Raises:
        StrictJsonError: not an object of objects, a number that is not finite, or a known field of another
            form.
    """
    expect_plain(expect_object(value, "values"), "values")
    for split, stated in expect_object(value, "values").items():
        place = member("values", split)
        for name, item in expect_object(stated, place).items():
            _check_field(name, item, member(place, name), nodes)


def _check_field(name: str, item: object, place: str, nodes: int) -> None:
    if name in ("accepted_drafts", "nfe_reduction", "bound", "gap"):
        expect_number(item, place, 0.0)
    elif name in ("forwards_predicted", "forwards_plain"):
        expect_integer(item, place, 0, MAX_INTEGER)
    elif name in ("node_counts", "node_reach"):
        per_node = expect_list(item, place, f"a list of {nodes} numbers, one a node")
        if len(per_node) != nodes:
            fail(place, f"a list of {nodes} numbers, one a node", Words(f"{len(per_node)} items"))
        for index, number in enumerate(per_node):
            expect_number(number, f"{place}[{index}]", 0.0)
    elif name == "per_prompt":
        _check_per_prompt(item, place, nodes)
    elif name.endswith("interval"):
        ends = expect_list(item, place, "an interval [low, high]")
        if len(ends) != 2:
            fail(place, "an interval [low, high]", ends)
        if expect_number(ends[0], place) > expect_number(ends[1], place):
            fail(place, "an interval with low <= high", ends)


def _check_per_prompt(item: object, place: str, nodes: int) -> None:
    stated = expect_object(item, place)
    more = ["accepted_nodes"] if "accepted_nodes" in stated else []
    expect_object(stated, place, [*PER_PROMPT, *more])
    prompts = len(expect_list(stated[PER_PROMPT[0]], member(place, PER_PROMPT[0])))
    for name in PER_PROMPT:
        _check_counts(stated[name], member(place, name), prompts, "one a prompt")
    if more:
        where = member(place, more[0])
        rows = expect_list(stated[more[0]], where)
        if len(rows) != prompts:
            fail(where, f"{prompts} lists of counts, one a prompt", Words(f"{len(rows)}"))
        for index, row in enumerate(rows):
            _check_counts(row, f"{where}[{index}]", nodes - 1, "one a draft node")


def _check_counts(value: object, place: str, length: int, each: str) -> None:
    counts = expect_list(value, place)
    if len(counts) != length:
        fail(place, f"{length} counts, {each}", Words(f"{len(counts)}"))
    for index, count in enumerate(counts):
        expect_integer(count, f"{place}[{index}]", 0, MAX_INTEGER)


def check_latency(value: object) -> None:
    """Check a measured table: ``query_tokens[n]`` in one forward took ``latency[n]`` milliseconds on ``device``.

    None stands for no measurement.

    Raises:
        StrictJsonError: another form, a unit that is not ms, or times and query tokens that do not fit each other.
    """
    if value is None:
        return
    table = expect_object(value, "latency")
    expect_plain(table, "latency")
    for name in ("device", "unit", "query_tokens", "latency"):
        expect_field(table, name, "latency")
    expect_text(table["device"], "latency.device")
    if table["unit"] != "ms":
        fail("latency.unit", '"ms"', table["unit"])
    rows = expect_list(table["query_tokens"], "latency.query_tokens")
    times = expect_list(table["latency"], "latency.latency")
    if len(rows) != len(times) or not rows:
        found = Words(f"{len(rows)} query tokens and {len(times)} latencies")
        fail("latency", "as many latencies as query tokens, at least one", found)
    for index, (count, time) in enumerate(zip(rows, times, strict=True)):
        low = rows[index - 1] + 1 if index else 1
        expect_integer(count, f"latency.query_tokens[{index}] (strictly ascending)", low, MAX_INTEGER)
        if expect_number(time, f"latency.latency[{index}]", 0.0) == 0:
            fail(f"latency.latency[{index}]", "a time above 0", time)
