"""docs/profile.md names tests; a name that no test bears is a promise that nobody keeps."""

import re
from fnmatch import fnmatchcase
from pathlib import Path

from tests.security.attacks import ATTACKS
from tests.security.vectors import GOOD

TESTS = Path(__file__).parents[1]
PROFILE = (TESTS.parent / "docs" / "profile.md").read_text(encoding="utf-8")
CITED = re.findall(r"`(\w+/test_\w+\.py)(?:::([\w*]+))?`", PROFILE)


def test_every_test_that_the_profile_names_is_there() -> None:
    assert len(CITED) > 50
    for file, pattern in CITED:
        text = (TESTS / file).read_text(encoding="utf-8")
        names = re.findall(r"^def (test_\w+)", text, re.MULTILINE)
        assert not pattern or any(fnmatchcase(name, pattern) for name in names), f"{file}::{pattern}"


def test_every_attack_and_form_that_the_profile_names_is_there() -> None:
    for kind, known in (("attacks?", ATTACKS), ("forms", GOOD)):
        lists = re.findall(rf"\b{kind} ((?:`[\w*]+`(?:, )?)+)", PROFILE)
        cited = [name for listed in lists for name in re.findall(r"`([\w*]+)`", listed)]
        assert cited
        for pattern in cited:
            assert any(fnmatchcase(name, pattern) for name in known), pattern
