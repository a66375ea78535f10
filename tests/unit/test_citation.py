"""One set of facts to cite: CITATION.cff's."""

import re
from pathlib import Path

from isodepth.citation import bibtex


def test_the_bibtex_has_the_facts_of_citation_cff():
    facts = Path(__file__).parents[2].joinpath("CITATION.cff").read_text(encoding="utf-8")

    def all_of(key):
        return [m.strip('"') for m in re.findall(rf"^[ -]*{key}: (.*)$", facts, re.MULTILINE)]

    (version,) = [v for v in all_of("version") if v[0].isdigit() and v.count(".") == 2][-1:]
    text = bibtex(version)
    for title in all_of("title"):
        assert f"{{{title}}}" in text
    names = zip(all_of("family-names"), all_of("given-names"), strict=True)
    assert f"{{{' and '.join(f'{family}, {given}' for family, given in names)}}}" in text
    (year,), (url,), (software_authors,) = all_of("year"), all_of("url"), all_of("name")
    for fact in (year, url, f"{{{software_authors}}}", version):
        assert f"{{{fact}}}" in text
    assert text.count("{") == text.count("}")
