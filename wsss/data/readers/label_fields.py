"""The label field of a table: one label, several, none, or a list in the notation of a programming language."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache

from wsss.data.near_names import tidy

LABEL_SEPARATORS = ";|,"
"""Any of these, anywhere in the labels of a file, separates labels; otherwise white space does."""
NO_VALUE = frozenset(
    {"nan", "-nan", "null", "nil", "nat", "<na>", "<nan>", "<null>", "#n/a", "#na", "#value!", "#ref!"}
)
"""What tools write into a field without a value; in lower case."""
KEEP_WORDS = "list every class in classes.txt, or separate labels by ';'"
"""What keeps white space from dividing the name of a class."""
NOTHING = NO_VALUE | {
    *("none", "<none>", "n/a", "na", "n.a.", "n.a", "n/a.", "1.#qnan", "1.#ind", "-1.#ind", "undefined"),
    *("-", "--", "---", "\u2013", "\u2014", "?", "??", "???", "unknown", "unlabeled", "unlabelled", "untagged"),
    *("no label", "no labels", "no tag", "no tags", "not available", "not applicable", "(none)", "(null)", "(blank)"),
    *("''", '""', "``"),
}
"""What tools and people write where there is no label; in lower case."""

CALLS = "set|frozenset|list|tuple|array|np.array|numpy.array|index|deque"
CALL = re.compile(rf"(?:{CALLS})\s*\((.*)\)", re.DOTALL | re.IGNORECASE)
"""A list inside a call: set([...]), array([...], dtype=object)."""
KEYWORDS = re.compile(r",\s*(?:dtype|name|length|maxlen)\s*=.*$", re.DOTALL)
"""Arguments behind the list: dtype=object."""
PAIRS = {"[": "]", "(": ")", "{": "}"}
PART = re.compile(
    r"""\s*(?:[bru]?(?P<quote>['"])(?P<text>(?:(?!(?P=quote))[^\\]|\\.)*)(?P=quote)"""
    r"""|(?P<bare>[^\s'"\[\](){}:=,;|][^"\[\](){}:=,;|]*?))\s*(?:[,;|]\s*|(?<=['"\s])(?=[bru]?['"])|$)""",
    re.DOTALL,
)
"""A text, in quotes or bare, and what separates it from the next; NumPy writes only a space."""
ESCAPE = re.compile(r"\\(?:(?:U([0-9a-fA-F]{8})|u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2}))|(.))", re.DOTALL)


def label_separator(fields: Iterable[str], known: Collection[str]) -> Callable[[str], list[str]]:
    """The function that splits a label field; the same for the whole file, so that names may hold spaces."""
    pattern = re.compile(f"[{LABEL_SEPARATORS}]" if _has_separator(fields) else r"\s+")
    names = {tidy(name) for name in known}

    def separate(field: str) -> list[str]:
        field = field.strip()
        return [field] if tidy(field) in names else [label.strip() for label in pattern.split(field)]

    return separate


def _has_separator(fields: Iterable[str]) -> bool:
    return any(character in field for field in fields for character in LABEL_SEPARATORS)


def spaces_separate(fields: Sequence[str], known: Collection[str]) -> str:
    """What to say of label fields that white space divides, since a name of two words would become two classes.

    Empty where the classes are known, where another separator is used, or where each of the words also stands alone in
    some field.
    """
    if known or _has_separator(fields):
        return ""
    words = [field.split() for field in fields]
    alone = {one[0] for one in words if len(one) == 1}
    divided = [one for one in words if len(one) > 1 and not alone.issuperset(one)]
    if not divided:
        return ""
    lines = f"{len(divided)} line{'s' if len(divided) > 1 else ''}"
    return f"white space separates labels in {lines}: '{' '.join(divided[0])}' is read as {len(divided[0])} labels"


@lru_cache(maxsize=4096)  # the labels of a table are few
def is_nothing(label: str) -> bool:
    """Whether a label is a word that says that there is none."""
    return tidy(label).casefold() in NOTHING


def listed_labels(field: str) -> list[str] | None:
    """The labels of a field that is a list in another notation; None where it is none.

    Python's lists, tuples and sets, JSON's arrays, NumPy's arrays, PostgreSQL's {a,b}, and texts in quotes are
    understood: "['cat', 'dog']", '["cat"]', "{'cat'}", "set()", "['cat' 'dog']", "[cat, dog]", "'cat', 'dog'".

    Raises:
        ValueError: it begins and ends as such a list, but what it holds is no list of texts.
    """
    if not any(character in field for character in "[({'\""):  # most fields, quickly
        return None
    inside, enclosed = _unwrapped(field.strip())
    if not inside:
        return [] if enclosed else None
    parts = _parts(inside)
    if enclosed:
        if parts is None:
            raise ValueError(field)
        return [text for text, _ in parts]
    if parts is None or not all(quoted for _, quoted in parts):
        return None
    texts = [text for text, _ in parts]
    return texts if len(texts) > 1 else re.split(rf"[{LABEL_SEPARATORS}]", texts[0])


def _unwrapped(text: str) -> tuple[str, bool]:
    """What brackets or a call of a list type enclose, and whether there are any; a word in round brackets stays."""
    call = CALL.fullmatch(text)
    if call is not None:
        return _unwrapped(KEYWORDS.sub("", call[1].strip()))[0], True
    listed = len(text) >= 2 and text[-1] == PAIRS.get(text[0]) and _closes_last(text)
    if listed and (text[0] != "(" or text == "()" or any(character in text for character in ",'\"")):
        return text[1:-1].strip(), True
    return text, False


def _closes_last(text: str) -> bool:
    """Whether the bracket that opens a text is closed by its last character; brackets in quotes are not counted."""
    bare = re.sub(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", lambda quoted: "x" * len(quoted[0]), text)
    depth = 0
    for position, character in enumerate(bare):
        depth += (character in "[({") - (character in "])}")
        if depth == 0:
            return position == len(bare) - 1
    return False


def _parts(text: str) -> list[tuple[str, bool]] | None:
    """The texts of a row of texts, and whether each is in quotes; None where it is no such row."""
    parts, position = [], 0
    while position < len(text):
        part = PART.match(text, position)
        if part is None:
            return None
        quoted = part["bare"] is None
        parts.append((_plain(part["text"]), True) if quoted else (part["bare"], False))
        position = part.end()
    return parts


def _plain(text: str) -> str:
    """A text in quotes with its escapes decoded."""
    decoded = ESCAPE.sub(lambda found: found[4] or chr(int(found[1] or found[2] or found[3], 16)), text)
    return decoded.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if decoded != text else text


def is_cut(label: str) -> bool:
    """Whether a label begins or ends with a quote, or opens a bracket that it does not close, or the reverse."""
    quoted = label[0] in "'\"`\u2018\u201c\u201e\u00ab" or label[-1] in '"`\u201d\u201c\u00bb'
    return quoted or any(label.count(start) != label.count(end) for start, end in PAIRS.items())
