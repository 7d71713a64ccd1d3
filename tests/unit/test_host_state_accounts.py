"""Accounts that host_state is to find and not to make."""

import pwd

from ansible.module_utils.ai_idp.host_state.base import unknown_accounts


def test_accounts_that_the_host_does_not_have_are_named_in_their_order() -> None:
    me = pwd.getpwall()[0].pw_name
    assert unknown_accounts(["nobody-here", me, "nor-here"]) == ["nobody-here", "nor-here"]


def test_who_names_none_asks_for_none() -> None:
    assert unknown_accounts([]) == []
