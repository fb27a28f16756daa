"""README's first screen, as a code host shows it: `python docs/first_screen.py` writes docs/images/first_screen.png.

What has to be on it, in this order, is checked in a browser of 1280 x 800: for whom, a figure on people, a picture, how
to install, six lines of Python, one command for own recordings. It needs Chromium and the extras [docs] and [test].
"""

import io
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WIDTH, HEIGHT = 1280, 800
PARTS = ("For people who", "% of windows right", "img", "pip install", "import tfkfin", "--data MINE")  # text, or a tag
STYLE = """
body { margin: 0 auto; padding: 12px 24px; max-width: 1012px; color: #1f2328 }
body { font: 15px/1.45 "DejaVu Sans", sans-serif }
h1 { margin: 0 0 8px; font-size: 28px }
h2 { border-bottom: 1px solid #d1d9e0; font-size: 22px; margin: 18px 0 10px }
p { margin: 0 0 8px }
img { max-width: 100% }
pre { background: #f6f8fa; padding: 8px 12px; margin: 0 0 8px; font: 12.5px/1.4 "DejaVu Sans Mono", monospace }
pre { border-radius: 6px; overflow: auto }
table { border-collapse: collapse }
td, th { border: 1px solid #d1d9e0; padding: 4px 10px }
"""


def page() -> str:
    from markdown_it import MarkdownIt
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_by_name

    def coloured(code: str, language: str, _) -> str:
        lexer = get_lexer_by_name(language if language in ("python", "bash", "console") else "text")
        return f"<pre>{highlight(code, lexer, HtmlFormatter(nowrap=True))}</pre>"

    body = MarkdownIt("commonmark", {"html": True, "highlight": coloured}).enable("table").render(
        (ROOT / "README.md").read_text(encoding="utf-8"))
    return (f"<!doctype html><base href='{ROOT.as_uri()}/'><meta charset=utf-8>"
            f"<meta name=viewport content='width=device-width'>"
            f"<style>{STYLE}{HtmlFormatter().get_style_defs()}</style>{body}")


def bottoms(shown) -> list[float]:
    """Where each of `PARTS` ends, in pixels from the top."""
    found = ("img" if part == "img" else f"p:has-text('{part}'), pre:has-text('{part}')" for part in PARTS)
    boxes = [shown.locator(part).first.bounding_box() for part in found]
    return [box["y"] + box["height"] for box in boxes]


def chromium() -> str | None:
    """The system's."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def screenshot(to: Path, width: int = WIDTH, height: int = HEIGHT, whole: bool = False) -> list[float]:
    """Takes it. Returns where each of `PARTS` ends."""
    import tempfile

    from playwright.sync_api import sync_playwright

    with tempfile.NamedTemporaryFile("w", suffix=".html", encoding="utf-8") as file, sync_playwright() as playwright:
        file.write(page())
        file.flush()
        browser = playwright.chromium.launch(executable_path=chromium(),
                                             args=["--no-sandbox", "--disable-dev-shm-usage"])
        shown = browser.new_page(viewport={"width": width, "height": height})
        shown.goto(f"file://{file.name}")
        raw, found = shown.screenshot(full_page=whole), bottoms(shown)
        browser.close()
    save(raw, to)
    return found


def save(screen: bytes, to: Path, colours: int = 64) -> None:
    """Writes a screenshot as a small picture."""
    from PIL import Image

    Image.open(io.BytesIO(screen)).convert("RGB").quantize(colours, dither=Image.Dither.NONE).save(to, optimize=True)


if __name__ == "__main__":
    ends = screenshot(ROOT / "docs" / "images" / "first_screen.png")
    print(dict(zip(PARTS, ends, strict=True)))
    if ends != sorted(ends) or ends[-1] > HEIGHT:
        sys.exit(f"README's first screen of {WIDTH} x {HEIGHT} does not hold all of these in this order")
