"""What mkdocs has to know of this repository: README.md and CHANGELOG.md are pages too, and links may lead to files."""

import re
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = {"index.md": ROOT / "README.md", "CHANGELOG.md": ROOT / "CHANGELOG.md"}


def on_files(files, config):
    for name, path in OUTSIDE.items():
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links as the site has them. A link to a file that is no page becomes the name of the file; it must be there."""
    name = page.file.src_uri
    here = OUTSIDE.get(name, Path(config.docs_dir, name)).parent

    def rewrite(match):
        text, target, anchor = match.groups(default="")
        path = (here / target).resolve()
        if not path.exists():
            raise PluginError(f"{name}: there is no {target}")
        for uri, outside in OUTSIDE.items():
            if path == outside:
                return f"[{text}]({uri}{anchor})"
        if path.suffix == ".md" and path.is_relative_to(config.docs_dir):
            return f"[{text}]({path.relative_to(config.docs_dir).as_posix()}{anchor})"
        where = path.relative_to(ROOT).as_posix()
        return f"`{where}`" if text.strip("`").endswith(where) else f"{text} (`{where}`)"

    markdown = re.sub(r"\[([^]]*)\]\((?![a-z]+:)([^)#\s]+)(#[^)\s]*)?\)", rewrite, markdown)
    # The word after ```python tells the tests what a block is. It is no language.
    return re.sub(r"^```(python|json) \w+$", r"```\1", markdown, flags=re.MULTILINE)
