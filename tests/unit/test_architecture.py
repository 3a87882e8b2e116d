"""The page about the architecture draws the packages and modules that there are."""

from __future__ import annotations

import pytest

from tools.write_tree import PAGE, with_tree


def test_the_tree_in_the_page_is_the_tree_of_the_code():
    page = PAGE.read_text("utf-8")
    assert page == with_tree(page), "run tools/write_tree.py"


@pytest.mark.parametrize(
    ("drawn", "wrong"), [(" errors ", " errors nonesuch "), (" great_vessels ", " "), ("gates/", "gate/")]
)
def test_a_module_that_is_not_there_is_noticed(drawn, wrong):
    page = PAGE.read_text("utf-8")
    head, mark, tree = page.partition("<!-- tree -->")
    assert drawn in tree
    assert head + mark + tree.replace(drawn, wrong, 1) != with_tree(
        head + mark + tree.replace(drawn, wrong, 1)
    )
