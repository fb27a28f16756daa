"""Names that strangers chose, in every place where names are written: they are read as text and as nothing else."""

import io
import re
import shlex
import subprocess
import tomllib
from collections import Counter
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest

from tfkfin import recipe as recipes
from tfkfin.base import answers, console, quoted
from tfkfin.base.errors import InputError
from tfkfin.base.files import shipped
from tfkfin.store import card, folders

HOSTILE = {
    "script": "<script>alert(1)</script>", "image": "<img src=x onerror=alert(1)>", "attribute": '" onload=\'x\' a="',
    "escape": "a\x1b[2J\x1b]0;owned\x07b", "C1": "a\x9b31mb", "newline": "a\nerror: forged\r\nb",
    "bell": "\x07\x08\x7f", "quotes": '\'; rm -rf / #"$(id)`id`', "backticks": "``` `a` ```",
    "turned": "a\u202etxt.exe\u2066\u200fb", "lines": "a\u2028b\u2029c\x85d\x0be",
    "link": "[a](javascript:alert(1)) ![b](http://evil.example/x.png)", "table": "a | b |\n|---|\n| c",
    "mathematics": "$$\\frac{a}{$ x $", "one dollar": "$", "markup": "[bold]a[/x][link=http://e]b",
    "braces": "{{ 7 * 7 }}{% x %}", "backslash": "\\", "surrogate": "a\ud800b", "TOML": 'x"\n[movements]\n1 = "y',
    "long": "x" * 100_000, "empty": "", "#": "#SBATCH --wrap=id", "sbatch": "x\n#SBATCH --wrap=id", "nul": "a\x00b",
}
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
each = pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)


def texts(markup: str) -> tuple[list[str], str]:
    """The tags of a piece of HTML, and its text."""
    tags, found = [], []
    parser = HTMLParser()
    parser.handle_starttag = parser.handle_endtag = parser.handle_startendtag = lambda *tag: tags.append(tag)
    parser.handle_data = found.append
    parser.feed(markup)
    parser.close()
    return tags, "".join(found)


@each
def test_html_has_its_text_and_no_tag(name):
    tags, text = texts(f"<b title=\"{quoted.html(name)}\">{quoted.html(name)}</b>")
    assert [tag[0] for tag in tags] == ["b", "b"] and tags[0][1][0][0] == "title" and len(tags[0][1]) == 1
    assert text == quoted.line(name) == (tags[0][1][0][1] or "")


@each
def test_toml_gives_it_back_as_a_key_and_as_a_value(name):
    text = f"[movements]\n{quoted.toml(name)} = {quoted.toml(name)}\nlast = 1\n"
    known = name.encode("utf-8", "replace").decode()
    assert tomllib.loads(text) == {"movements": {known: known, "last": 1}} and not STEERING.search(text)
    assert text.count("\n") == 3


@each
def test_a_shell_gets_one_word_or_nothing(name):
    try:
        word = quoted.shell(name)
    except InputError as error:
        assert STEERING.search(name) or "\n" in name
        assert not STEERING.search(console.shown(error))
        return
    assert shlex.split(word) == [name] and "\n" not in word
    if len(name) < 1000:
        assert subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True).stdout == name.encode()


@each
def test_no_recipe_writes_a_line_of_an_sbatch_script(name):
    for key in ("partition", "address"):
        if re.fullmatch(r"[\w.,+:/\[\]-]*", name):
            continue
        with pytest.raises(InputError, match=f"launch.{key}"):
            recipes.load(None, {f"launch.{key}": name})


def test_submitit_gets_checked_words(tmp_path):
    pytest.importorskip("submitit")
    from tfkfin.launch import LaunchContext, slurm

    for options, folder in (({"partition": HOSTILE["sbatch"]}, tmp_path), ({}, tmp_path / "a\n#SBATCH --wrap=id")):
        context = LaunchContext(recipes.Launch().model_copy(update=options), folder)
        with pytest.raises(InputError, match="control characters or new lines"):
            slurm.Arrays(context)._executor()


@each
def test_markdown_is_text_inside_a_cell_and_in_a_list(name):
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    for text in (f"| a | b |\n|---|---|\n| x{quoted.markdown(name)}x | last |\n", f"- x{quoted.markdown(name)}x\n"):
        kinds, flat = Counter(), []
        for token in parser.parse(text):
            for one in (token, *(token.children or ())):
                kinds[one.type] += 1
                flat += [one.content] * (one.type in ("text", "text_special"))
        tags = "html_block", "html_inline", "link_open", "image", "code_inline", "fence", "hardbreak", "heading_open"
        assert not {*tags} & set(kinds), kinds
        assert kinds["tr_open"] in (0, 2) and kinds["list_item_open"] in (0, 1)


@each
def test_a_card_of_a_stranger_is_shown_as_text(name):
    from markdown_it import MarkdownIt

    about = folders.card(shipped("savedmodels") / "fin_conv" / "1")
    plain = Counter(token.type for token in _flat(MarkdownIt("commonmark").enable("table").parse(card.readme(about))))
    limits = [*about["limits"][:-1], name]
    texts_ = {key: name for key in ("summary", "input", "score", "licence", "created")}
    spoiled = about | texts_ | {"summary": f"a{name}", "limits": limits, "features": [name, *about["features"][1:]]}
    found = Counter(token.type for token in _flat(MarkdownIt("commonmark").enable("table").parse(card.readme(spoiled))))
    for kind in ("html_block", "html_inline", "link_open", "image", "tr_open", "heading_open", "list_item_open"):
        assert found[kind] == plain[kind], kind


def _flat(tokens):
    return [one for token in tokens for one in (token, *(token.children or ()))]


@each
def test_terminals_and_logs_get_one_line_of_text(name, capsys):
    from rich.table import Table

    from tfkfin.live import outputs

    written = io.StringIO()
    terminal = outputs.Terminal({1: name}, written)
    decision = outputs.LiveDecision(0, 1.0, 1, 0.5, np.ones(2), np.ones((2, 1)), 0.5, None, 0)
    terminal.timed(decision, SimpleNamespace(preparation=0.0, inference=0.0))
    terminal.cue(SimpleNamespace(movement=1, start_s=0.0, stop_s=1.0))
    assert written.getvalue().count("\n") == 2 and not STEERING.search(written.getvalue())
    console.log_to_stderr()
    console.log.warning("%s and %s", name, InputError(name))
    with answers.working(name):
        pass
    err = capsys.readouterr().err
    assert err.count("\n") == 2 and not STEERING.search(err)
    for line in err.splitlines():
        assert not line.startswith("error:")
    table = Table("name", title=name[:500])
    table.add_row(name[:500])
    drawn = io.StringIO()
    made = console.terminal(file=drawn, width=60, force_terminal=True, no_color=True)
    made.print(table)
    made.print(name[:500])
    printed = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", drawn.getvalue()) if "\x1b" not in name else ""
    assert not STEERING.search(printed.replace("\r", "")) and "\x1b]8" not in drawn.getvalue()


@pytest.mark.parametrize("name", [[*HOSTILE.values()][i : i + 4] for i in range(0, len(HOSTILE), 4)])
def test_the_page_shows_it_as_text(name):
    pytest.importorskip("bokeh")
    from bokeh.core.json_encoder import serialize_json
    from bokeh.document import Document

    from tfkfin.live.page import State, View

    def shown(*names):
        about = {"rate_hz": 2000.0, "source_hz": 2000.0, "length": 200, "channels": 2, "features": ["RMS"],
                 "movements": [0, 1, 2, 3], "mean_v": [0.0] * 2, "sd_v": [1e-5] * 2,
                 "names": {"0": "rest", "1": names[0], "2": names[-1], "3": f"{names[0]} 1"}}
        state, document = State(about), Document()
        view = View(document, state, print)
        state._add(np.zeros((4000, 2), np.float32))
        cue = {"movement": 1, "following": 2, "start_s": 0.0, "stop_s": 5.0}
        state.last = {"label": 1, "session": {}, "probabilities": [0.25] * 4, "probability": 0.25, "cue": cue,
                      "time_s": 2.0, "speed": 0.0, "features": [[1.0], [1.0]], "window": 1}
        state.notes.extend(names)
        for _ in range(6):
            view.update()
        assert len(set(view._names.values())) == 4
        assert serialize_json(document.to_json())
        return view

    view, plain = shown(*name), shown(*(f"movement {i}" for i in range(len(name))))
    for part in ("status", "cards", "notes"):
        (tags, _), (wanted, _) = (texts(getattr(one, part).text) for one in (view, plain))
        assert tags == wanted and not STEERING.search(getattr(view, part).text), part
    for text in (*view._names.values(), *view.course_plot.yaxis.major_label_overrides.values()):
        assert not STEERING.search(text) and "\n" not in text and "$$" not in text and len(text) < 100


@each
def test_figures_draw_it(name):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from tfkfin.fit import board

    drawn = board.confusion_figure(np.eye(2), [1, 2], name[:200], {1: name[:200], 2: "b"})
    FigureCanvasAgg(drawn).draw()


def test_lines_are_short_and_whole():
    assert quoted.line("a\n\tb  c") == "a b c" and len(quoted.line("x" * 9999)) == 500
    assert quoted.line("Hände öffnen 手") == "Hände öffnen 手"
