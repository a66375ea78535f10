"""The tutorial and the pages with commands say what isodepth does."""

from pathlib import Path

import console
import pytest

DOCS = Path(__file__).parents[2] / "docs"


def test_the_tutorial_runs_as_printed(tmp_path):
    pytest.importorskip("torch")
    console.run(DOCS / "tutorial.md", tmp_path)


@pytest.mark.parametrize("page", ["counting.md", "own-trainer.md"])
def test_pages_run_as_printed(page, tmp_path):
    assert console.steps(DOCS / page)
    console.run(DOCS / page, tmp_path)


def test_a_page_that_is_wrong_is_noticed():
    printed = "φ = 0.457 [0.416, 0.498]: 116 runs\n\nWarnings\n  • a\n  • b\n"
    assert console.difference("φ = 0.458 [0.416, 0.498]: 116 runs\n…\n", printed) is None
    assert console.difference("φ = … runs\nWarnings\n…\n • b\n", printed) is None
    assert "115 is 116" in console.difference("φ = 0.457 [0.416, 0.498]: 115 runs\n…\n", printed)
    assert "0.47 is 0.457" in console.difference("φ = 0.47 …\n…\n", printed)
    assert console.difference("φ = 0.457 [0.416, 0.498]: 116 runs\n", printed)
    assert console.difference("φ = … runs\n…\n  • c\n", printed)
