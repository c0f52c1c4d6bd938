"""The form of a lesson: how long it is, what is folded, where it leads, and whether its exercises are complete.

Each rule is a function of a notebook and of the file that it is, or would be, in. SPOILT holds one or more ways to
break each; there the rule must fail. A notebook without facts (notebooks/facts.py) isn't in this form yet.
"""

import base64
import copy
import io
import re
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import facts
import nbformat
import pytest
from made_up import (
    FILE,
    FILES,
    LEVELS,
    NAME,
    NUMBER,
    append,
    by_id,
    change,
    fact,
    hidden,
    insert,
    made_up,
    picture,
    remove,
    replace,
    says,
)
from nbformat.v4 import new_code_cell, new_markdown_cell
from PIL import Image

from sdlearn.lessons import exercises as ex

CELLS, WORDS, LINES = 60, 2000, 200  # at most, in the core, and in Deeper once more
SCREEN = 40  # lines
FOLDED_LINES = 60


def read(file: Path) -> Any:
    return nbformat.read(file, as_version=4)


def sections(notebook: Any) -> tuple[list[Any], list[Any]]:
    """The cells of the core, and those from the heading Deeper to the end."""
    ids = [cell.id for cell in notebook.cells]
    place = ids.index("deeper") if "deeper" in ids else len(ids) - 1
    return notebook.cells[:place], notebook.cells[place:]


def markdown(cells: list[Any]) -> list[Any]:
    return [cell for cell in cells if cell.cell_type == "markdown"]


def code(cells: list[Any]) -> list[Any]:
    return [cell for cell in cells if cell.cell_type == "code"]


def folded(cell: Any) -> bool:
    return cell.metadata.get("jupyter", {}).get("source_hidden", False)


def is_exercise(cell: Any) -> bool:
    return "exercise" in cell.metadata.get("tags", [])


def printed(cell: Any) -> str:
    return "".join(output.get("text", "") for output in cell.get("outputs", []))


BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def plain(source: str) -> str:
    """Markdown as it is read aloud: a link is its words, a formula or a piece of code is one word, `x`.

    Blocks of code, pictures, comments and tags are left out.
    """
    for pattern, words in (
        (BLOCK, ""),
        (re.compile(r"<!--.*?-->", re.DOTALL), ""),
        (re.compile(r"\$\$.+?\$\$", re.DOTALL), " x "),
        (re.compile(r"(?<!\\)\$[^$]+\$"), "x"),
        (re.compile(r"`[^`]+`"), "x"),
        (re.compile(r"!\[[^\]]*\]\([^)]*\)"), ""),
        (re.compile(r"\[([^\]]*)\]\([^)]*\)"), r"\1"),
        (re.compile(r"<[^>]+>"), " "),
    ):
        source = pattern.sub(words, source)
    return source


def count_words(cells: list[Any]) -> int:
    """Words of the Markdown cells, as a reader counts: what stands between spaces and holds a letter or a digit.

    "forward-noising" is one word; a formula, however long, and a piece of code within a line are one word each.
    """
    return sum(bool(re.search(r"\w", word)) for cell in markdown(cells) for word in plain(cell.source).split())


def count_lines(cells: list[Any]) -> int:
    """Lines of code that are not empty, in code cells that are not folded and in blocks within the text."""
    shown = [cell.source for cell in code(cells) if not folded(cell)]
    shown += [block.strip("`").partition("\n")[2] for cell in markdown(cells) for block in BLOCK.findall(cell.source)]
    return sum(bool(line.strip()) for text in shown for line in text.splitlines())


def short_enough(notebook: Any, file: Path) -> None:
    for name, cells in zip(("core", "Deeper"), sections(notebook), strict=True):
        assert len(cells) <= CELLS, f"{len(cells)} cells in {name}, accepted are {CELLS}"
        assert count_words(cells) <= WORDS, f"{count_words(cells)} words in {name}, accepted are {WORDS}"
        assert count_lines(cells) <= LINES, f"{count_lines(cells)} lines of code in {name}, accepted are {LINES}"


def no_cell_is_longer_than_a_screen(notebook: Any, file: Path) -> None:
    for cell in notebook.cells:
        lines = cell.source.splitlines()
        if cell.cell_type == "markdown":  # about 100 letters fit into a line
            lines = [part for line in plain(cell.source).splitlines() for part in range(-(-len(line) // 100))]
        most = FOLDED_LINES if folded(cell) else SCREEN
        assert len(lines) <= most, f"{cell.id}: {len(lines)} lines, accepted are {most}"
        assert printed(cell).count("\n") <= SCREEN, f"{cell.id} prints more than {SCREEN} lines"


def parts_in_order(notebook: Any, file: Path) -> None:
    core, deeper = sections(notebook)
    ids = [cell.id for cell in notebook.cells]
    assert ids[:3] == ["title", "setup", "imports"]
    if facts.read(notebook)["number"] == "00":  # the first lesson draws before it shows the map
        assert "map" in [cell.id for cell in core]
    else:
        assert ids[3] == "map"
    assert core[-1].id == "map-end", f"the core ends with {core[-1].id}"
    assert ids[-1] == "next" and notebook.cells[-1].cell_type == "markdown"
    if len(deeper) > 1:
        assert deeper[0].cell_type == "markdown" and deeper[0].source.startswith("## Deeper")


def headings_in_order(notebook: Any, file: Path) -> None:
    levels = [
        (len(marks), title)
        for cell in markdown(notebook.cells)
        for marks, title in re.findall(r"^(#+) (.*)$", BLOCK.sub("", cell.source), re.MULTILINE)
    ]
    assert [level for level, _ in levels].count(1) == 1 and levels[0][0] == 1
    for (before, _), (level, title) in pairwise(levels):
        assert level <= before + 1, f"{title}: of level {level}, below one of level {before}"


def folded_cells_have_titles(notebook: Any, file: Path) -> None:
    for cell in code(notebook.cells):
        has_title = bool(re.match(r"# @title \S", cell.source))
        assert folded(cell) == has_title, f"{cell.id}: folded cells begin with # @title, and no others"
        if cell.id in ("setup", "imports", "map", "map-end"):
            assert folded(cell), f"{cell.id} must be folded"
        if is_exercise(cell):
            assert not folded(cell), f"{cell.id} is an exercise and folded"


def stamped_from_the_facts(notebook: Any, file: Path) -> None:
    """Heading, time and links are those that `make notebooks` writes."""
    fresh = copy.deepcopy(notebook)
    facts.stamp(fresh, file)
    assert fresh.cells[0].source == notebook.cells[0].source
    assert fresh.cells[-1].source == notebook.cells[-1].source
    lesson = facts.read(notebook)
    assert lesson["number"] == file.name[:2] and 0 < lesson["minutes"] <= 45 and 0 < lesson["seconds"] <= 120
    (cell,) = [cell for cell in notebook.cells if cell.id == lesson["picture"]]
    assert any("image/png" in output.get("data", {}) for output in cell.outputs)


def objectives_are_few(notebook: Any, file: Path) -> None:
    title = notebook.cells[0].source
    assert len(re.findall(r"^(?:[-*]|\d+\.) ", title, re.MULTILINE)) <= 3
    assert count_words(notebook.cells[:1]) <= 160


def exercises_are_stubs(notebook: Any, file: Path) -> None:
    lesson = facts.read(notebook)
    for name, cells in zip(("core", "deeper"), sections(notebook), strict=True):
        stubs = [cell.source for cell in cells if is_exercise(cell)]
        assert sorted(stubs) == sorted(map(ex.stub, lesson["exercises"][name])), f"in {name}"
        known = [id for id, one in ex.EXERCISES.items() if id.startswith(f"{lesson['number']}.")]
        in_here = [id for id in known if ex.EXERCISES[id].core == (name == "core")]
        assert sorted(lesson["exercises"][name]) == sorted(in_here), f"in {name}"


def exercises_are_explained(notebook: Any, file: Path) -> None:
    """The cell above a stub is a heading "Your turn", with difficulty and minutes, and names what helps."""
    for i, cell in enumerate(notebook.cells):
        if is_exercise(cell):
            id, text = cell.source.splitlines()[0].removeprefix("# "), notebook.cells[i - 1].source
            exercise = ex.EXERCISES[id]
            said = f"*Difficulty: {LEVELS[exercise.difficulty]}. {exercise.minutes} minutes.*"
            for wanted in ("Your turn", said, f'ex.solution("{id}")', f'ex.case("{id}", 1)'):
                assert wanted in text, f"above {id}: {wanted} is missing"
            assert notebook.cells[i - 1].cell_type == "markdown"


def predictions_come_before_outcomes(notebook: Any, file: Path) -> None:
    cells = code(notebook.cells)
    asked = {}
    for i, cell in enumerate(cells):
        for id, letter in re.findall(r'ex\.predict\("([\w.]+)", "(.*)"\)', cell.source):
            asked[id] = i
            assert letter == "" and not folded(cell), f"{cell.id} holds an answer, or is folded"
            assert re.search(r"write a, b( or|,) ", printed(cell)), f"{cell.id} does not ask"
    found = {}
    for i, cell in enumerate(cells):
        for id in re.findall(r'ex\.outcome\("([\w.]+)"', cell.source):
            found[id] = i
            assert folded(cell), f"{cell.id} shows the outcome's code"
    assert asked and set(asked) == set(found)
    assert all(asked[id] < found[id] for id in asked)


def equations_are_evaluated(notebook: Any, file: Path) -> None:
    tags = re.findall(r"\\tag\{(\w+)\}", "\n".join(cell.source for cell in markdown(notebook.cells)))
    assert len(set(tags)) == len(tags)
    lines = "".join(printed(cell) for cell in code(notebook.cells))
    for tag in tags:
        assert f"equation ({tag})" in lines, f"equation ({tag}) is not evaluated"


def comparisons_are_in_tables(notebook: Any, file: Path) -> None:
    """One table in the core, and at most one more in Deeper."""
    core, deeper = (sum("check.parity_table(" in cell.source for cell in cells) for cells in sections(notebook))
    assert core == 1 and deeper <= 1
    for cell in code(notebook.cells):
        if "check.parity_table(" in cell.source:
            assert folded(cell) and "differ by" in printed(cell), cell.id
        assert "report_parity" not in cell.source, cell.id


def sliders_have_static_twins(notebook: Any, file: Path) -> None:
    for cell in code(notebook.cells):
        if "show.interact(" in cell.source:
            pictures = [output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {})]
            with Image.open(io.BytesIO(base64.b64decode(pictures[0]))) as twin:
                assert getattr(twin, "n_frames", 1) > 2, f"{cell.id}: the stored picture is no film"


def prose_is_plain(notebook: Any, file: Path) -> None:
    for cell in markdown(notebook.cells):
        assert not re.search(r"!|\bsimply\b", plain(cell.source), re.IGNORECASE), cell.id


def anchors(notebook: Any) -> set[str]:
    """What a link can lead to: headings, as Jupyter names them, and <a id="…">."""
    text = "\n\n".join(BLOCK.sub("", cell.source) for cell in markdown(notebook.cells))
    headings = re.findall(r"^#+ (.*?)\s*$", text, re.MULTILINE)
    return {re.sub(r"[*`]", "", title).replace(" ", "-") for title in headings} | set(
        re.findall(r'<a id="([^"]+)"', text)
    )


@cache
def anchors_in(file: Path) -> set[str]:
    if file.suffix == ".ipynb":
        return anchors(read(file))
    headings = re.findall(r"^#+ (.*?)\s*$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in headings}  # as GitHub names them


def links_lead_somewhere(notebook: Any, file: Path) -> None:
    for cell in markdown(notebook.cells):
        text = re.sub(r"`[^`]+`|\$[^$]+\$", "", BLOCK.sub("", cell.source))
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"https?://", target):
                continue
            path, _, anchor = unquote(target).partition("#")
            there = (file.parent / path).resolve() if path else file
            assert there.exists(), f"{cell.id}: {target}"
            found = anchors(notebook) if there == file else anchors_in(there) if anchor else set()
            assert not anchor or anchor in found, f"{cell.id}: {target}"


def glossary_is_named(notebook: Any, file: Path) -> None:
    text = "\n".join(cell.source for cell in markdown(notebook.cells))
    assert "](glossary.md" in text and re.search(r"arxiv\.org/abs/\d", text)


SPOILT: dict[Callable[[Any, Path], None], list[Callable[[Any], None]]] = {
    short_enough: [
        append("question", " word" * 2000),
        append("deeper", "\n\nword" * 2001),
        insert(5, *[new_code_cell("x = 1") for _ in range(50)]),
        insert(5, *[new_code_cell("x = 1\n" * 30) for _ in range(7)]),
        insert(5, *[new_markdown_cell("```\n" + "x = 1\n" * 30 + "```") for _ in range(7)]),
    ],
    no_cell_is_longer_than_a_screen: [
        append("eq-one", "\nx = 1" * 40),
        append("map", "\nx = 1" * 60),
        append("question", "\n\n" + "word " * 820),
        change("eq-one", outputs=[says("line\n" * 50)]),
    ],
    parts_in_order: [
        change("map", id="map-first"),
        change("imports", id="load"),
        remove("map-end"),
        change("next", id="end"),
        change("deeper", source="## More"),
    ],
    headings_in_order: [append("question", "\n\n#### Far below"), append("question", "\n\n# Another title")],
    folded_cells_have_titles: [
        replace("map", "# @title Something", "# The map"),
        replace("map", "# @title Something", "# @title "),
        lambda notebook: by_id(notebook, "compare").metadata.clear(),
        lambda notebook: by_id(notebook, "setup").update(source="x = 1", metadata={}),
    ],
    stamped_from_the_facts: [
        fact("minutes", 44),
        fact("minutes", 50),
        fact("seconds", 130),
        fact("title", "Another title"),
        fact("picture", "predict-x"),
        replace("title", "« ", "<< "),
        replace("next", "../README.md#lessons", "../README.md"),
    ],
    objectives_are_few: [append("title", "\n- to know\n- to do"), append("title", " word" * 200)],
    exercises_are_stubs: [
        replace(f"write-{NAME}", "NotImplementedError", "ValueError"),
        remove(f"write-{NAME}"),
        lambda notebook: by_id(notebook, f"write-{NAME}").metadata.clear(),
        lambda notebook: notebook.cells.append(copy.deepcopy(by_id(notebook, f"write-{NAME}"))),
        lambda notebook: notebook.metadata["sdlearn"]["exercises"]["core"].clear(),
        lambda notebook: notebook.metadata["sdlearn"]["exercises"]["deeper"].append(f"{NUMBER}.nothing"),
    ],
    exercises_are_explained: [
        replace(f"turn-{NAME}", "Difficulty", "Level"),
        replace(f"turn-{NAME}", " minutes", "0 minutes"),
        replace(f"turn-{NAME}", "ex.solution", "solution"),
        replace(f"turn-{NAME}", "Your turn", "Write"),
        remove(f"turn-{NAME}"),
    ],
    predictions_come_before_outcomes: [
        replace("predict-x", '""', '"b"'),
        remove("outcome-x"),
        lambda notebook: by_id(notebook, "outcome-x").metadata.clear(),
        lambda notebook: notebook.cells.insert(5, notebook.cells.pop(8)),
        change("predict-x", outputs=[]),
    ],
    equations_are_evaluated: [
        append("question", "\n\n$$y = 2 \\tag{2}$$"),
        append("question", "\n\n$$y = 2 \\tag{1}$$"),
        change("eq-one", outputs=[]),
    ],
    comparisons_are_in_tables: [
        remove("compare"),
        lambda notebook: by_id(notebook, "compare").metadata.clear(),
        change("compare", outputs=[]),
        append("eq-one", "\ncheck.report_parity()"),
        insert(6, hidden("again", "check.parity_table(rows)", says("differ by"))),
    ],
    sliders_have_static_twins: [change("slider", outputs=[picture()]), change("slider", outputs=[])],
    prose_is_plain: [append("answer", " How nice!"), append("answer", " Simply add them.")],
    links_lead_somewhere: [
        replace("question", "#The-answer", "#the-answer"),
        append("answer", " [gone](99_gone.ipynb)"),
        append("answer", " [gone](glossary.md#gone)"),
        append("answer", f" [gone]({FILES[0].name}#gone)"),
    ],
    glossary_is_named: [replace("title", "glossary.md", "glossary"), replace("read", "arxiv.org", "example.org")],
}


@pytest.mark.parametrize("rule", SPOILT, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_lessons_keep_the_form(file: Path, rule: Callable[[Any, Path], None]) -> None:
    notebook = read(file)
    if "sdlearn" not in notebook.metadata:
        pytest.skip("is not in this form yet")
    rule(notebook, file)


@pytest.mark.parametrize("rule", SPOILT, ids=lambda rule: rule.__name__)
def test_what_keeps_a_rule_passes(rule: Callable[[Any, Path], None]) -> None:
    rule(made_up(), FILE)


SPOILINGS = [(rule, i) for rule in SPOILT for i in range(len(SPOILT[rule]))]


@pytest.mark.parametrize(("rule", "i"), SPOILINGS, ids=[f"{rule.__name__}-{i}" for rule, i in SPOILINGS])
def test_what_breaks_a_rule_is_found(rule: Callable[[Any, Path], None], i: int) -> None:
    notebook = made_up()
    SPOILT[rule][i](notebook)
    with pytest.raises((AssertionError, ValueError, IndexError)):
        rule(notebook, FILE)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Add noise to a picture.", 5),
        ("the closed form $\\sqrt{a} x_0 + \\sqrt{1 - a} \\epsilon$, and $$y = 2 \\tag{1}$$ below", 7),
        ("the $x$-axis", 2),
        ("`add_noise(schedule, x0)` and [a link of words](../README.md#lessons)", 6),
        ("forward-noising is *one* word, and – is none", 7),
        ("![five words of alt text](x.png) <a id='here'></a> <!-- a comment --> two words", 2),
        ("| a | b |\n|---|---|\n| 1 | two |", 4),
        ("```python\nx = 1\n```\none", 1),
    ],
)
def test_words_are_counted_as_a_reader_would(text: str, count: int) -> None:
    assert count_words([new_markdown_cell(text)]) == count


def test_lines_of_code_are_those_that_a_reader_sees() -> None:
    cells = [
        new_code_cell("x = 1\n\n\ny = 2  # and\n"),
        hidden("folded", "z = 3\n" * 9),
        new_markdown_cell("Run\n\n```sh\nmake demo\nmake test\n```\n\nnow."),
    ]
    assert count_lines(cells) == 4
