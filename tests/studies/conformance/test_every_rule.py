"""Every registered rule conforms, in the small form of the kit."""

import pytest

from studies.conformance.drafters import DRAFTERS
from studies.conformance.stage import EXACT
from studies.conformance.suite import MODEL_FREE, cases, registered_specs
from verify.policies.registry import BUILT_IN
from verify.policies.specification import make_policy

CASES = cases()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_conforms(case):
    case.run()


def test_no_rule_no_context_and_no_drafter_is_left_out():
    specs = registered_specs()
    assert len(set(specs)) == len(specs)
    made = {make_policy(example).spec for rule in BUILT_IN.values() for example in rule.examples}
    assert made <= set(specs) and any("@temperature" in spec for spec in specs)
    for spec in made:
        names = [case.name for case in CASES if case.spec == spec]
        for wanted in (
            *(" ".join(context) for context in EXACT),
            "informed, graph",
            "informed, copies",
            "1 at a",
            "4 at a",
        ):
            assert any(wanted in name for name in names), (spec, wanted)
    whole = [case.name for case in cases(["static:1"], full=True)]
    assert len(set(whole)) == len(whole) == len(MODEL_FREE) + len(EXACT) * (2 * len(DRAFTERS) + 4)
