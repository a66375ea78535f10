"""What to cite, as BibTeX; the facts are those of CITATION.cff."""

_BIBTEX = """\
@article{schwethelm2026recurrence,
  title  = {How Much Is One Recurrence Worth? Iso-Depth Scaling Laws for Looped Language Models},
  author = {Schwethelm, Kristian and Rueckert, Daniel and Kaissis, Georgios},
  year   = {2026},
  url    = {https://arxiv.org/abs/2604.21106}
}
@software{isodepth,
  title   = {isodepth: what is one recurrence of a looped language model worth?},
  author  = {{The isodepth authors}},
  version = {%s}
}"""


def bibtex(version: str) -> str:
    """The paper that φ, the law and the shipped grid come from, and isodepth of a version."""
    return _BIBTEX % version
