"""Settings of informed drafts: plain data, and a message for every value that is out of range."""

import re
from dataclasses import FrozenInstanceError, asdict

import pytest

from verify.drafters.informed import InformedDrafter
from verify.drafters.settings import FILLS, InformedSettings


def test_settings_are_plain_data_and_come_back_from_it():
    settings = InformedSettings(0.5, 3, False, "graph+alternatives", 2, 4, 1, True)
    plain = asdict(settings)
    assert all(isinstance(value, str | int | float | bool | None) for value in plain.values())
    assert InformedSettings(**plain) == settings != InformedSettings()
    with pytest.raises(FrozenInstanceError):
        settings.width = 1


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("coefficient", -0.1, r"coefficient is -0\.1, expected a finite number of at least 0"),
        ("coefficient", float("nan"), "coefficient is nan, expected a finite number"),
        ("coefficient", float("inf"), "coefficient is inf, expected a finite number"),
        ("coefficient", "1", "coefficient is '1', expected a finite number"),
        ("coefficient", True, "coefficient is True, expected a finite number"),
        ("horizon", 0, "horizon is 0, expected a whole number of at least 1 or None"),
        ("horizon", 2.0, r"horizon is 2\.0, expected a whole number of at least 1 or None"),
        ("bridges", 1, "bridges is 1, expected True or False"),
        ("beyond", None, "beyond is None, expected True or False"),
        ("fill", "graph, alternatives", "fill is 'graph, alternatives', expected one of none, alternatives, graph"),
        ("hedges", -1, "hedges is -1, expected a whole number of at least 0"),
        ("width", 0, "width is 0, expected a whole number of at least 1"),
        ("follow", True, "follow is True, expected a whole number of at least 0"),
    ],
)
def test_a_value_out_of_range_is_refused(name, value, message):
    with pytest.raises(ValueError, match=message):
        InformedSettings(**{name: value})


@pytest.mark.parametrize(("fill", "hedges"), [(fill, 0) for fill in FILLS if "graph" in fill] + [("none", 2)])
def test_settings_that_use_a_graph_need_one(fill, hedges):
    settings = InformedSettings(fill=fill, hedges=hedges)
    message = f"give rows to a graph (fill {fill!r}, hedges {hedges}), but there is none"
    with pytest.raises(ValueError, match=re.escape(message)):
        InformedDrafter(4, settings)
    assert InformedDrafter(4, settings, [[[1, 1], [2, 3]]]).max_vocabulary_rank == 3
    assert InformedDrafter(4, InformedSettings(), [[[1, 1], [2, 3]]]).max_vocabulary_rank == 1
