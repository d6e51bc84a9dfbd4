"""Docstrings stand alone: each begins with a verb or a noun phrase, never in the middle of a sentence."""

import ast
import io
import os
import pathlib
import re
import tokenize

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "music_diffusion"
PARTS = sorted(p.name for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists())
# After these words there is no subject: the sentence would go on from the name above it.
PREPOSITIONS = ("Above", "After", "Afterwards", "As", "At", "Before", "Beside", "Between", "Beyond", "By",
                "For", "From", "In", "Inside", "Like", "Of", "On", "Over", "To", "Until", "With", "Without")
POINTERS = ("Also", "Its", "Likewise", "That", "Those", "These", "Which", "Whose")  # at something unnamed
# Half a sentence, where a noun ("Plan of …") or "Returns whether …" says it.
QUESTIONS = ("How", "What", "When", "Where", "Whether", "Who", "Why")
TELLS = re.compile(r"\b(tells|told|telling)\b", re.IGNORECASE)  # code returns, reports, takes, differs
OPENER = re.compile(rf"({'|'.join((*PREPOSITIONS, *POINTERS, *QUESTIONS))})\b")


def python_files():
    # Not rglob: before Python 3.13 it does not enter the linked folder `tasks`.
    return [pathlib.Path(folder) / file
            for folder, _, files in os.walk(PACKAGE, followlinks=True)
            for file in sorted(files) if file.endswith(".py")]


def docstrings(source: str) -> list[tuple[str, str]]:
    kinds = ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef
    found = [(getattr(node, "name", "module"), ast.get_docstring(node))
             for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
    return [(name, text) for name, text in found if text]


def offenders(source: str) -> list[str]:
    """Returns the first lines of docstrings that begin with a forbidden word, with their owners' names."""
    return [f"{name}: {text.splitlines()[0]}" for name, text in docstrings(source) if OPENER.match(text)]


def tellers(source: str) -> list[str]:
    """Returns the lines of docstrings and comments in which code "tells" something."""
    comments = [token.string for token in tokenize.generate_tokens(io.StringIO(source).readline)
                if token.type == tokenize.COMMENT]
    lines = [line for _, text in docstrings(source) for line in text.splitlines()]
    return [line for line in (*lines, *comments) if TELLS.search(line)]


def of_part(part: str) -> list[pathlib.Path]:
    return [path for path in python_files() if path.relative_to(PACKAGE).is_relative_to(part)]


@pytest.mark.parametrize("part", PARTS)
def test_language(part):
    files = of_part(part)
    assert files
    wrong = [f"{path.relative_to(PACKAGE)}: {line}" for path in files for find in (offenders, tellers)
             for line in find(path.read_text(encoding="utf-8"))]
    assert not wrong, "\n".join(wrong)


def test_half_sentences_are_found():
    source = ('"""By hashes."""\n\nclass A:\n    """Of W segments."""\n\n'
              '    def f():\n        """\n        Its path."""\n')
    assert offenders(source) == ["module: By hashes.", "A: Of W segments.", "f: Its path."]


def test_code_that_tells_is_found():
    source = 'x = 1  # told\n\ndef told():\n    """Returns x.\n\n    It tells more."""\n    return "told"\n'
    assert tellers(source) == ["It tells more.", "# told"]


def test_sentences_that_stand_alone_pass():
    source = ('class Office:\n    """Office of a player."""\n\n'
              '    async def f():\n        """Returns its path."""\n')
    assert offenders(source) == []
